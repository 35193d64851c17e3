"""What is reported of answers, classes and matching, from answers that are known beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from plait.core.batch import Batch
from plait.core.errors import DataError
from plait.core.media import BytesRef, MediaRef
from plait.data import PairDataset
from plait.data.base.sample import Sample
from plait.evaluation.evaluate import answers as answering
from plait.evaluation.evaluate import fusion as fusing
from plait.evaluation.evaluate.answers import asked, evaluate_answers
from plait.evaluation.evaluate.fusion import evaluate_fusion
from plait.models.fusion.asking import Change
from plait.models.fusion.model import FusionModel


class Model(FusionModel):
    """Heads with their labels, without weights: what they say is given by the tests."""

    def __init__(self, heads: Sequence[str], labels: Sequence[str] = (), **about: str) -> None:
        torch.nn.Module.__init__(self)
        self.heads = torch.nn.ModuleDict({head: torch.nn.Identity() for head in heads})
        self._labels, self._about = tuple(labels), about

    def labels(self, head: str) -> tuple[str, ...]:
        return self._labels

    def about(self, head: str) -> dict[str, str]:
        return self._about


def sample(name: str, text: str | None = "?", **more: Any) -> Sample:
    picture = more.pop("picture", name)
    image = None if picture is None else BytesRef(b"", picture)
    return Sample(name, f"row {name}", image, () if text is None else (text,), **more)


def dataset(*samples: Sample) -> PairDataset:
    return PairDataset(samples, "made", assigned=["test"] * len(samples))


def says(labels: Sequence[str], told: dict[tuple[str, str], str]) -> Any:
    """`answer_logits` that gives each picture and text its answer, two at a time."""

    def logits(
        model: Model, pictures: Sequence[MediaRef], texts: Sequence[str], **options: Any
    ) -> Iterator[torch.Tensor]:
        assert options.get("head", "answer") in model.heads
        change = options["change"].__name__ if options.get("change") else None
        pairs = zip(pictures, texts, strict=True)
        wanted = [labels.index(told[change or one.name, text]) for one, text in pairs]
        for start in range(0, len(wanted), 2):
            yield 5 * torch.nn.functional.one_hot(
                torch.tensor(wanted[start : start + 2]), len(labels)
            )

    return logits


def test_classes_of_those_that_carry_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two pictures with two samples each one is judged all right and one half right."""
    rows = [
        sample("a", group="1", labels={"kind": "cat"}),
        sample("b", group="1", labels={"kind": "dog"}),
        sample("c", group="2", labels={"kind": "dog"}),
        sample("d", group="2", labels={"kind": "cat"}),
        sample("e", labels={"kind": "unheard of"}),
        sample("f", labels={}),
        sample("g", None, labels={"kind": "cat"}),
    ]
    said = {"a": "cat", "b": "dog", "c": "dog", "d": "dog"}
    told = {(name, f"is it a {rows['abcd'.index(name)].labels['kind']}?"): one
            for name, one in said.items()}  # fmt: skip
    model = Model(["classify"], ["dog", "cat"], label="kind", text="is it a {kind}?")
    monkeypatch.setattr(fusing, "answer_logits", says(["dog", "cat"], told))
    found = evaluate_fusion(model, dataset(*rows), bootstrap=300)
    # whole pictures are drawn: both times the worse one gives 50, both times the better one 100
    assert found == {
        "classification": {
            "accuracy": 75,
            "samples": 4,
            "accuracy_low": 50,
            "accuracy_high": 100,
        },
        "counts": {"pairs": 6},
    }
    plain = evaluate_fusion(model, dataset(*rows), bootstrap=0)
    assert plain["classification"] == {"accuracy": 75, "samples": 4}
    with pytest.raises(DataError, match=r"no sample has one of the model's classes .* 'kind'"):
        evaluate_fusion(model, dataset(*rows[4:]))
    with pytest.raises(DataError, match="no pair of a picture and a text in the split 'test'"):
        evaluate_fusion(model, dataset(rows[6]), split="test")


def test_matching_counts_own_and_wrong_texts_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log odds of 0 are no match: 3 of 4 own pairs and 2 of 4 wrong ones are judged right."""
    rows = [sample(name, f"text {name}") for name in "abcd"]
    own = {"a": 2.0, "b": 0.1, "c": 0.5, "d": 0.0}
    wrong = {"a": 0.0, "b": 0.1, "c": -3.0, "d": 4.0}

    def scores(model: Model, pictures: Sequence[MediaRef], texts: Sequence[str]) -> np.ndarray:
        pairs = zip(pictures, texts, strict=True)
        return np.array([(own if t == f"text {p.name}" else wrong)[p.name] for p, t in pairs])

    monkeypatch.setattr(fusing, "match_scores", scores)
    for seed in range(4):
        found = evaluate_fusion(Model(["match"]), dataset(*rows), seed=seed, bootstrap=0)
        assert found == {"match": {"accuracy": 62.5, "samples": 4}, "counts": {"pairs": 4}}


@pytest.mark.parametrize("equal_texts", ["same", "apart"])
def test_a_wrong_text_is_of_another_group_and_reads_otherwise(
    equal_texts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        sample("a", "one", group="x"),
        sample("b", "two", group="x"),
        sample("c", "Three "),
        sample("d", "three"),
        sample("e", "five"),
    ]
    shown: list[list[tuple[str, str]]] = []

    def scores(model: Model, pictures: Sequence[MediaRef], texts: Sequence[str]) -> np.ndarray:
        shown.append([(p.name, t) for p, t in zip(pictures, texts, strict=True)])
        return np.zeros(len(texts))

    monkeypatch.setattr(fusing, "match_scores", scores)
    never = {("a", "one"), ("a", "two"), ("b", "one"), ("b", "two"),
             ("c", "Three "), ("d", "three"), ("e", "five")}  # fmt: skip
    equal = {("c", "three"), ("d", "Three ")}
    drawn: set[tuple[str, str]] = set()
    for seed in range(40):
        evaluate_fusion(
            Model(["match"]),
            dataset(*rows),
            seed=seed,
            bootstrap=0,
            equal_texts=equal_texts,
        )
        own, wrong = shown[-2:]
        assert own == [(one.id, one.texts[0]) for one in rows]
        drawn |= set(wrong)
    every = {(one, text) for one in "abcde" for text in ("one", "two", "Three ", "three", "five")}
    assert drawn == every - never - (equal if equal_texts == "same" else set())


def test_where_every_text_is_right_the_wrong_one_is_the_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fusing, "match_scores", lambda model, pictures, texts: np.ones(len(texts)))
    rows = [sample("a", "one", group="x"), sample("b", "two", group="x")]
    found = evaluate_fusion(Model(["match"]), dataset(*rows))
    assert found["match"]["accuracy"] == 50


ASKED = [
    sample("1", "how many?", picture="p", group="p", labels={"answer": "two", "answer_type": "n"}),
    sample("2", "is it red?", picture="p", group="p", labels={"answer": "no"}),
    sample("3", "is it red?", picture="q", labels={"answer": "yes"}),
    sample("4", "is it red?", picture="r", labels={}),
    sample("5", "is it red?", picture=None, labels={"answer": "yes"}),
    sample("6", None, picture="s", labels={"answer": "yes"}),
]
LABELS = ["no", "yes", "two"]
TOLD = {
    ("p", "how many?"): "two",
    ("p", "is it red?"): "no",
    ("q", "is it red?"): "no",
    ("without image", "how many?"): "two",
    ("without image", "is it red?"): "yes",
    ("without text", "how many?"): "no",
    ("without text", "is it red?"): "no",
    ("shuffled 3", "how many?"): "no",
    ("shuffled 3", "is it red?"): "two",
}


def named(what: str) -> Any:
    """Makes a change that changes nothing and has a name, such as ``without image``."""

    def make(of: str | int) -> Change:
        def change(batch: Batch) -> Batch:
            return batch

        change.__name__ = f"{what} {of}"
        return change

    return make


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setattr(answering, "answer_logits", says(LABELS, TOLD))
    monkeypatch.setattr(answering, "without", named("without"))
    monkeypatch.setattr(answering, "shuffled_pictures", named("shuffled"))
    return Model(["answer"], LABELS)


def test_answers_and_what_the_pictures_are_worth(answers: Model) -> None:
    """Of three questions two are right; the three that lack something are told, not judged."""
    found = evaluate_answers(answers, dataset(*ASKED), seed=3, bootstrap=200)
    assert found["counts"] == {"questions": 3, "pictures": 2, "not_judged": 3}
    assert found["vqa"]["accuracy"] == pytest.approx(200 / 3)
    assert (found["vqa"]["accuracy_low"], found["vqa"]["accuracy_high"]) == (0, 100)
    assert found["vqa"]["by_answer_type"]["n"]["accuracy"] == 100
    assert "by_question_type" not in found["vqa"]
    assert found["controls"] == {
        "question_only": pytest.approx(200 / 3),
        "picture_only": pytest.approx(100 / 3),
        "shuffled_pictures": 0,
    }
    whole = evaluate_fusion(answers, dataset(*ASKED), seed=3, bootstrap=200)
    assert whole == found
    plain = evaluate_answers(answers, dataset(*ASKED), controls=False, bootstrap=0)
    assert set(plain) == {"vqa", "counts"}
    assert "accuracy_low" not in plain["vqa"]


def test_questions_in_other_words_and_what_is_missing(answers: Model) -> None:
    pictures, questions, given = asked(ASKED[:2], "{answer}, isn't it?")
    assert [one.name for one in pictures] == ["p", "p"]
    assert questions == ["two, isn't it?", "no, isn't it?"]
    assert given == [("two",), ("no",)]
    for place, what in ((3, "answer"), (4, "picture"), (5, "question")):
        with pytest.raises(DataError, match=f"row {place + 1}.*this question has no {what}"):
            asked(ASKED[place:])
    with pytest.raises(DataError, match="no question with a picture and an answer"):
        evaluate_answers(answers, dataset(*ASKED[3:]))
