"""Figures from too little say so, in words, tables and pages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from plait.evaluation.evaluate.evaluate import evaluate_gallery
from plait.evaluation.evaluate.gallery import Gallery, gallery_of
from plait.evaluation.metrics.classification import zero_shot
from plait.evaluation.metrics.retrieval import bootstrap_interval, retrieval
from plait.evaluation.report.caution import FEW, cautions, with_cautions
from plait.evaluation.report.results import notes, results
from plait.evaluation.report.words import chance_of


def rows(n: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(n, 4))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [1, 2, FEW - 1, FEW])
def test_below_twenty_pictures_a_figure_says_so(count: int) -> None:
    figures = retrieval(rows(count), rows(count), np.arange(count), bootstrap=20)
    told = " ".join(cautions({"retrieval": figures}))
    assert (f"from {count} picture" in told) == (count < FEW)
    assert ("One candidate" in told or "one candidate" in told) == (count == 1)
    assert ("R@1_low" in figures["text_to_image"]) == (count > 1)  # one has no spread
    assert figures["text_to_image"]["queries"] == figures["text_to_image"]["distinct"] == count


def test_few_texts_that_ask_often() -> None:
    words = np.arange(40) % 3
    figures = retrieval(rows(40), rows(3)[words], np.arange(40), text_words=words, bootstrap=0)
    (told,) = cautions({"retrieval": figures})
    assert "40 texts" in told and "3 texts" in told


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"vqa": {"accuracy": 50.0, "questions": 4}}, "4 test questions"),
        ({"classification": {"accuracy": 50.0, "samples": 19}}, "19 test samples"),
        ({"match": {"accuracy": 50.0, "samples": 1}}, "1 test sample:"),
        ({"captions": {"cider_d": 1.0, "captions": 2}}, "2 pictures"),
        ({"reconstruction": {"mse": 0.1}, "counts": {"pictures": 3}}, "3 pictures"),
    ],
)
def test_every_kind_of_figure(result: dict, words: str) -> None:
    assert words in with_cautions(result)["cautions"][0]
    assert "cautions" not in with_cautions({"vqa": {"accuracy": 50.0, "questions": 20}})


def test_one_cluster_has_no_interval() -> None:
    values = np.array([[0.0], [1.0], [1.0]])
    assert bootstrap_interval(values, np.zeros(3, int)) is None
    assert bootstrap_interval(values, np.array([0, 0, 1])) is not None


def test_classes_each_with_their_n() -> None:
    image = np.eye(3)[[0, 0, 1, 2, 2]]
    labels = np.array([0, 1, 1, 2, 0])
    found = zero_shot(image, np.eye(3), labels, names=("a", "b", "c"), bootstrap=0)
    assert found["per_class"] == {
        "a": {"images": 2, "top1": 50.0},
        "b": {"images": 2, "top1": 50.0},
        "c": {"images": 1, "top1": 100.0},
    }
    absent = zero_shot(image[:1], np.eye(3), labels[:1], names=("a", "b", "c"), bootstrap=0)
    assert list(absent["per_class"]) == ["a"]


def test_few_repeated_texts_are_classes(samples, vectors) -> None:
    one = [replace(s, texts=(s.texts[0].split(",")[0],), languages=(), labels={}) for s in samples]
    short = replace(vectors, text=vectors.text[::2], text_owner=np.arange(12))
    gallery = gallery_of(short, one)
    found = evaluate_gallery(gallery, bootstrap=0)["zero_shot"]
    assert found["by"] == "text" and found["classes"] == 4 and found["images"] == 11
    first = {text: place for place, text in reversed(list(enumerate(gallery.texts)))}
    scores = gallery.image @ gallery.text[list(first.values())].T
    names = list(first)
    right = [names[place] == gallery.texts[row] for row, place in enumerate(scores.argmax(axis=1))]
    assert found["top1"] == pytest.approx(100 * np.mean(right))
    assert sum(one["images"] for one in found["per_class"].values()) == 11
    assert "zero_shot" not in evaluate_gallery(
        gallery_of(short, one, equal_texts="apart"), bootstrap=0
    )


def test_texts_of_their_own_are_no_classes(gallery: Gallery) -> None:
    assert "zero_shot" not in evaluate_gallery(gallery, bootstrap=0)


def test_the_page_tells_n_and_cautions(gallery: Gallery) -> None:
    found = with_cautions(evaluate_gallery(gallery, bootstrap=20))
    assert "11 pictures" in notes(found)
    assert "22 texts asked" in results(found) and ">22</td>" in results(found)
    assert notes({"retrieval": None}) == ""


def test_chance_knows_several_right_answers() -> None:
    assert chance_of(1, 12, 4.0) == pytest.approx(100 / 3)
    assert chance_of(2, 4, 2.0) == pytest.approx(100 * (1 - 2 / 4 * 1 / 3))
    assert chance_of(10, 3, 1.0) == 100
