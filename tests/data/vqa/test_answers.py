from __future__ import annotations

import json
from typing import Any

import pytest

from plait.core.errors import DataError
from plait.core.media import BytesRef
from plait.data.base.sample import Sample
from plait.data.vqa.answers import AnswerSet, answer_set, check_question, given_answers, score


def question(*answers: str, **labels: Any) -> Sample:
    if answers:
        labels["answers"] = list(answers)
    return Sample(
        id="7",
        where="questions.json, row 3",
        image=BytesRef(b"", "7.png"),
        texts=("what is it?",),
        labels={"question": "what is it?", **labels},
    )


def test_most_frequent_after_the_normaliser() -> None:
    samples = [
        question("Two", "2", "three"),
        question("a dog", "cat", "dog."),
        question("dog"),
        question(answer="Cat"),
        question(),
    ]
    found = answer_set(samples)
    assert found.answers == ("dog", "2", "cat")  # equal counts in the order of the alphabet
    assert found.counts == (2, 1, 1)
    assert answer_set(samples, min_count=2).answers == ("dog",)
    assert answer_set(samples, top_k=2).answers == ("dog", "2")
    assert found.row("The Dog") == 0
    assert found.row("horse") is None


def test_scores() -> None:
    assert [score(c, 10) for c in (0, 1, 2, 3, 10)] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert [score(c, 10, exact=True) for c in range(5)] == pytest.approx([0, 0.3, 0.6, 0.9, 1])
    assert score(1, 1) == score(1, 1, exact=True) == 1
    assert score(0, 1) == 0


def test_targets_and_labels() -> None:
    chosen = AnswerSet(("dog", "cat", "2"), (3, 2, 1))
    ten = question(*["a dog"] * 3, *["cat"] * 2, *["horse"] * 5)
    assert chosen.targets(ten).tolist() == pytest.approx([1, 2 / 3, 0])
    assert chosen.targets(ten, exact=True).tolist() == pytest.approx([0.9, 0.6, 0])
    assert chosen.label(ten) == -100  # the usual answer is the horse
    assert chosen.targets(question("Two"), strict=True).tolist() == [0, 0, 1]
    assert chosen.label(question("Two"), strict=True) == 2
    assert chosen.targets(question()).tolist() == [0, 0, 0]


def test_json_there_and_back() -> None:
    chosen = AnswerSet(("dog", "cat"), (3, 2))
    assert AnswerSet.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen
    with pytest.raises(DataError, match="has no 'counts'"):
        AnswerSet.from_json({"answers": [], "normaliser": ""})
    with pytest.raises(DataError, match="made with normaliser vqa-v2/0, this is vqa-v2/1"):
        AnswerSet.from_json({**chosen.to_json(), "normaliser": "vqa-v2/0"})


def test_refusals() -> None:
    chosen = AnswerSet(("dog", "cat"), (3, 2))
    with pytest.raises(DataError) as caught:
        chosen.targets(question("horse"), strict=True)
    assert str(caught.value) == (
        "questions.json, row 3: the question [7] has 'horse', which is not among the 2 answers to "
        "choose from ('dog', 'cat'): make the set from data that has it"
    )
    with pytest.raises(DataError, match="has 'horse', which is not among the 2"):
        chosen.label(question("horse"), strict=True)
    with pytest.raises(DataError, match="has no answer, which"):
        chosen.label(question(), strict=True)
    with pytest.raises(DataError, match=r"row 3: the question \[7\] has no picture: name one"):
        check_question(Sample("7", "questions.json, row 3", texts=("what?",)))
    with pytest.raises(DataError, match=r"the sample \[7\] has no question"):
        chosen.targets(Sample("7", "x", image=BytesRef(b"", "7.png")))
    with pytest.raises(DataError, match="an answer must be a string, not int 2"):
        given_answers(question(2))  # type: ignore[arg-type]
    with pytest.raises(
        DataError, match=r"2 training samples have 2 different answers.*min_count is 2"
    ):
        answer_set([question("dog"), question("cat")], min_count=2)
    with pytest.raises(DataError, match="0 training samples"):
        answer_set([])
    with pytest.raises(DataError, match="must be at least 1"):
        answer_set([question("dog")], top_k=0)
    with pytest.raises(DataError, match="at least one answer"):
        AnswerSet((), ())
    with pytest.raises(DataError, match="'dog' twice"):
        AnswerSet(("dog", "dog"), (1, 1))
    with pytest.raises(DataError, match="2 answers, but 1 counts"):
        AnswerSet(("dog", "cat"), (1,))
