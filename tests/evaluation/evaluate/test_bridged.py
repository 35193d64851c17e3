"""What is reported of a model that writes, from texts that are known beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from plait.core.errors import DataError
from plait.core.media import BytesRef, MediaRef
from plait.data import PairDataset
from plait.data.base.sample import Sample
from plait.evaluation.evaluate import bridged as bridged
from plait.evaluation.evaluate.bridged import evaluate_bridged
from plait.evaluation.metrics.captions import evaluate_captions
from plait.models.bridged.generate import Writing
from plait.models.bridged.model import BridgedModel

QUESTIONS = {"answer": {"prompt": "<image>{text} ", "target": "{answer}"}}
CAPTIONS = {"caption": {"prompt": "<image>{kind}: ", "target": "{text}"}}


class Model(BridgedModel):
    """Tasks without weights: what it writes is given by the tests."""

    def __init__(self, tasks: dict[str, dict[str, str]]) -> None:
        torch.nn.Module.__init__(self)
        self.tasks = tasks
        tokenizer = SimpleNamespace(id_to_token={7: "<end>"}.get)
        self.language: Any = SimpleNamespace(end=7, preprocess=SimpleNamespace(tokenizer=tokenizer))


def sample(name: str, picture: str | None, *texts: str, **labels: str) -> Sample:
    image = None if picture is None else BytesRef(b"", picture)
    return Sample(name, f"row {name}", image, texts, group=picture, labels=labels)


def dataset(*samples: Sample) -> PairDataset:
    return PairDataset(samples, "made", assigned=["test"] * len(samples))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[list[str]], list[str], Writing]]:
    """Each call of `write`: the names of the pictures, the prompts, and how.

    What is written tells the last picture, two texts at a time.
    """
    calls = []

    def write(
        model: BridgedModel,
        pictures: Sequence[Sequence[MediaRef]],
        prompts: list[str],
        how: Writing,
    ) -> Iterator[list[str]]:
        names = [[one.name for one in shown] for shown in pictures]
        calls.append((names, prompts, how))
        for start in range(0, len(names), 2):
            yield [f"a picture of {shown[-1]}" for shown in names[start : start + 2]]

    monkeypatch.setattr(bridged, "write", write)
    return calls


ANSWERED = [
    sample("1", "p", "what is it?", answer="a picture of p"),
    sample("2", "p", "what else?", answer="a picture of p"),
    sample("3", "q", "what is it?", answer="a picture of q"),
    sample("4", "r", "what is it?", answer="a picture of p"),
    sample("5", "r", "nobody knows"),
    sample("6", None, "what is it?", answer="nothing"),
    sample("7", "q", answer="nobody asked"),
]


def test_answers_with_the_own_picture_and_with_another_s(asked: list[Any]) -> None:
    """Three of four are right. Shown in a circle, p, q, r get all wrong or, the other way round,
    the last question right, whose answer is what p shows."""
    controls = set()
    for seed in range(8):
        found = evaluate_bridged(Model(QUESTIONS), dataset(*ANSWERED), seed=seed, bootstrap=4000)
        assert set(found) == {"vqa", "controls", "counts"}
        assert found["counts"] == {"samples": 4, "pictures": 3, "shots": 0}
        assert (found["vqa"]["accuracy"], found["vqa"]["questions"]) == (75, 4)
        assert (found["vqa"]["accuracy_low"], found["vqa"]["accuracy_high"]) == (0, 100)
        controls.add(found["controls"]["shuffled_pictures"])
        (own, prompts, how), (other, again, _) = asked[-2:]
        assert own == [["p"], ["p"], ["q"], ["r"]]
        assert other[0] == other[1] and sorted(one[0] for one in other[1:]) == ["p", "q", "r"]
        assert all(a != b for a, b in zip(own, other, strict=True))
        assert prompts == again == [
            "<image>what is it? ", "<image>what else? ", "<image>what is it? ",
            "<image>what is it? ",
        ]  # fmt: skip
        assert how == Writing(longest=32)
    assert controls == {0, 25}


def test_captions_with_examples_of_both(asked: list[Any]) -> None:
    rows = [
        sample(str(n), f"p{n}", f"a picture of p{n}", f"number {n}", kind="thing")
        for n in range(14)
    ]
    how = Writing(longest=5)
    found = evaluate_bridged(Model(CAPTIONS), dataset(*rows), how=how, bootstrap=50, seed=2)
    references = [list(one.texts) for one in rows]
    groups = [one.group for one in rows]
    for name, (shown, prompts, used) in zip((None, "shuffled_pictures"), asked, strict=True):
        expected = evaluate_captions(
            [f"a picture of {one}" for (one,) in shown],
            references,
            groups=groups,
            bootstrap=50,
            seed=2,
        )
        assert (found["captions"] if name is None else found["controls"][name]) == expected
        assert prompts == ["<image>thing: "] * 14
        assert used == how
    assert found["captions"]["bleu_4"] > found["controls"]["shuffled_pictures"]["bleu_4"]
    assert found["examples"] == [
        {
            "written": f"a picture of p{n}",
            "references": references[n],
            "another_picture": f"a picture of {asked[1][0][n][0]}",
        }
        for n in range(12)
    ]


def test_examples_show_other_pictures_with_their_answers(asked: list[Any]) -> None:
    model, support = Model(QUESTIONS), dataset(*ANSWERED[:4], *ANSWERED[5:])
    said = {
        "p": {f"<image>{text} a picture of p<end>" for text in ("what is it?", "what else?")},
        "q": {"<image>what is it? a picture of q<end>"},
        "r": {"<image>what is it? a picture of p<end>"},
    }
    orders = set()
    for seed in range(12):
        rows = dataset(*ANSWERED[:3])
        found = evaluate_bridged(model, rows, shots=2, support=support, seed=seed, bootstrap=0)
        assert found["counts"]["shots"] == 2
        (own, prompts, _), (other, again, _) = asked[-2:]
        assert [one[:2] for one in other] == [one[:2] for one in own] and again == prompts
        for row, shown, prompt in zip(rows, own, prompts, strict=True):
            assert row.image is not None
            assert shown[2] == row.image.name and sorted(shown) == ["p", "q", "r"]
            end = f"<image>{row.texts[0]} "
            assert prompt in {a + b + end for a in said[shown[0]] for b in said[shown[1]]}
        orders.add(tuple(tuple(one) for one in own))
        evaluate_bridged(model, rows, shots=2, support=support, seed=seed, bootstrap=0)
        assert asked[-2][:2] == (own, prompts)  # the same again with the same seed
    assert len(orders) > 4  # drawn for each sample alone, 8 orders of three


@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_too_few_pictures_to_draw_from(pictures: int, asked: list[Any]) -> None:
    support = [sample(str(n), f"s{n % pictures}", "what?", answer="x") for n in range(4 * pictures)]
    with pytest.raises(DataError, match="2 examples need more than 2 other pictures"):
        evaluate_bridged(Model(QUESTIONS), dataset(*ANSWERED), shots=2, support=dataset(*support))


def test_nothing_to_judge(asked: list[Any]) -> None:
    with pytest.raises(DataError, match="no sample of the split 'test' has a picture and what to"):
        evaluate_bridged(Model(QUESTIONS), dataset(*ANSWERED[4:]), split="test")
    with pytest.raises(DataError, match="'all' has a picture and what to caption"):
        evaluate_bridged(Model(CAPTIONS), dataset(*ANSWERED[5:]))
