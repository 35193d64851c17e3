"""VQA accuracy by hand and against a plain version of the official procedure, written apart."""

from __future__ import annotations

import itertools
import random
import re

import numpy as np
import pytest

from plait.core.errors import DataError
from plait.evaluation.metrics.vqa import NORMALISER, normalise, vqa_accuracy, vqa_figures


def plain_normalise(text: str) -> str:
    """The rules one after the other, as the official description states them."""
    out = text = text.replace("\n", " ").replace("\t", " ").strip()
    for mark in [";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-",
                 ">", "<", "@", "`", ",", "?", "!"]:  # fmt: skip
        stuck = re.search(r"[0-9],[0-9]", text) or mark + " " in text or " " + mark in text
        out = "".join(("" if stuck else " ") if letter == mark else letter for letter in out)
    letters = list(out)
    out = "".join(
        letter
        for place, letter in enumerate(letters)
        if letter != "." or (place + 1 < len(letters) and letters[place + 1].isdigit())
    )
    digits = dict(zip(["none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
                      [0, *range(11)]))  # fmt: skip
    words = []
    for word in out.lower().split():
        word = str(digits.get(word, word))
        if word not in ("a", "an", "the"):
            words.append({"dont": "don't", "isnt": "isn't", "its": "its"}.get(word, word))
    return " ".join(words)


def plain_accuracy(said: str, answers: list[str]) -> float:
    """The accuracy from every choice of all people but one."""
    if len(set(answers)) > 1:
        said, answers = plain_normalise(said), list(map(plain_normalise, answers))
    scores = []
    for nine in itertools.combinations(answers, len(answers) - 1):
        scores.append(min(1, nine.count(said) / 3))
    return sum(scores) / len(scores)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes", "yes"),
        ("the  dog", "dog"),
        ("A cat\n", "cat"),
        ("two", "2"),
        ("none", "0"),
        ("TEN", "10"),
        ("eleven", "eleven"),
        ("red/white", "red white"),
        ("red / white", "red white"),  # beside a space a mark leaves nothing
        ("1,000", "1000"),
        ("1,000 a/b", "1000 ab"),  # a comma in a number: no mark leaves a space
        ("well-known", "well known"),
        ("t-shirt - blue", "tshirt blue"),
        ("3.5 m.", "3.5 m"),
        ("p.m.", "pm"),
        (".5", ".5"),
        ("dont", "don't"),
        ("isn't", "isn't"),
        ("couldntve", "couldntve"),  # two apostrophes missing is no known spelling
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("o'clock", "o'clock"),
        ("what?", "what"),
        ("it's", "it's"),
        ("a", ""),
        ("", ""),
        ("." * 40 + "x", "." * 8 + "x"),  # 32 full stops go at most
        ("狗", "狗"),
    ],
)
def test_normaliser(answer: str, expected: str) -> None:
    assert normalise(answer) == expected


def test_normaliser_against_the_plain_version() -> None:
    source = random.Random(0)
    parts = [*'.,;/-?!()"', ", ", " - ", ". ", " ", "\t", "1", "20", "3,5", "4.5", "dog", "The",
             "a", "two", "None", "dont", "isnt", "x"]  # fmt: skip
    for _ in range(3000):
        answer = "".join(source.choices(parts, k=source.randint(0, 7)))
        assert normalise(answer) == plain_normalise(answer), answer


def test_version() -> None:
    """A change of the rules must change this name, and the cases above with it."""
    assert NORMALISER == "vqa-v2/1"


@pytest.mark.parametrize(
    ("count", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_of_ten_by_hand(count: int, expected: float) -> None:
    """Three of ten: seven times 3 of nine others (1), three times 2 of nine (2/3): 0.9."""
    answers = ["cat"] * count + [f"dog {k}" for k in range(10 - count)]
    assert vqa_accuracy(["cat"], [answers]).tolist() == [pytest.approx(expected)]


def test_against_the_plain_version() -> None:
    source = random.Random(1)
    vocabulary = ["two", "2", "a dog", "dog", "Dog", "dog.", "yes", "red/white", "red white"]
    predicted, answers = [], []
    for _ in range(400):
        few = source.sample(vocabulary, source.randint(1, 4))
        answers.append(source.choices(few, k=10))
        predicted.append(source.choice(vocabulary))
    found = vqa_accuracy(predicted, answers)
    expected = [plain_accuracy(*pair) for pair in zip(predicted, answers)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_where_all_agree_spelling_counts() -> None:
    """The official script normalises neither side then; white space is seen to before."""
    assert vqa_accuracy(["2", "two", "two\n"], [["two"] * 10] * 3).tolist() == [0, 1, 1]
    assert vqa_accuracy(["two"], [["two"] * 9 + ["a 2"]]).tolist() == [1]


def test_one_answer_is_matched_exactly() -> None:
    answers = [["Two dogs."], ["two dogs"], ["dog"]]
    assert vqa_accuracy(["2 dogs", "2 dogs", "2 dogs"], answers).tolist() == [1, 1, 0]


def test_figures() -> None:
    predicted = ["yes", "no", "red", "3"]
    answers = [["yes"], ["yes"], ["red"], ["3"]]
    figures = vqa_figures(
        predicted,
        answers,
        groups=[1, 1, 2, 3],
        question_types=["is", "is", "what", None],
        answer_types=["yes/no", "yes/no", "other", "number"],
        bootstrap=200,
    )
    assert figures["accuracy"] == 75
    assert figures["questions"] == 4
    assert figures["normaliser"] == NORMALISER
    by_type = figures["by_question_type"]
    assert {name: one["accuracy"] for name, one in by_type.items()} == {"is": 50, "what": 100}
    assert {name: one["questions"] for name, one in figures["by_answer_type"].items()} == {
        "number": 1,
        "other": 1,
        "yes/no": 2,
    }
    # the two questions of picture 1 come and go together: 1/2 is the least (1,1,1: 3 of 6)
    assert (figures["accuracy_low"], figures["accuracy_high"]) == (50, 100)
    plain = vqa_figures(predicted, answers, bootstrap=0)
    assert plain == {"accuracy": 75, "questions": 4, "normaliser": NORMALISER}


def test_refusals() -> None:
    with pytest.raises(DataError, match="1 predicted answers, but 2 questions"):
        vqa_accuracy(["yes"], [["yes"], ["no"]])
    with pytest.raises(DataError, match=r"question 2 has no list of answers.*leave unanswered"):
        vqa_accuracy(["yes", "no"], [["yes"], []])
    with pytest.raises(DataError, match="question 1 has no list of answers"):
        vqa_accuracy(["yes"], ["yes"])
    with pytest.raises(DataError, match="there is no question"):
        vqa_figures([], [])
    with pytest.raises(DataError, match="1 questions, but 2 groups"):
        vqa_figures(["yes"], [["yes"]], groups=["a", "b"])


@pytest.mark.usefixtures("as_users_call_it")
def test_answers_that_are_no_strings_are_named() -> None:
    with pytest.raises(DataError, match="question 2: 3 is no string but int"):
        vqa_accuracy(["yes", 3], [["yes"], ["3"]])  # type: ignore[list-item]
    with pytest.raises(DataError, match="question 1: None is no string but NoneType"):
        vqa_accuracy(["yes"], [["yes", None]])  # type: ignore[list-item]
