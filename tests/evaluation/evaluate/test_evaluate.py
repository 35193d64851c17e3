"""What `evaluate_gallery` puts together, and the searches that a report shows."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.evaluation.conftest import Vectors, picture

from plait.core.errors import DataError
from plait.data.base.sample import Sample
from plait.evaluation.evaluate.evaluate import evaluate_gallery
from plait.evaluation.evaluate.gallery import Gallery, gallery_of
from plait.evaluation.metrics.geometry import rankme
from plait.evaluation.metrics.retrieval import retrieval, retrieval_ranks
from plait.evaluation.report.examples import picture_searches, text_searches, worst_mistakes


def test_a_sample_without_picture_is_left_out_and_counted(gallery, vectors) -> None:
    assert len(gallery.image) == 11 and len(gallery.text) == 22 and gallery.left_out == 1
    np.testing.assert_array_equal(gallery.image, vectors.image[:11])
    assert gallery.texts[:3] == ["a red field, number 0", "红色 0", "a green field, number 1"]
    assert list(gallery.languages[:3]) == ["en", "zh", "en"]
    assert gallery.words_of(2) == "a blue field, number 2"


def test_vectors_are_joined_by_id_whatever_their_order(samples, vectors) -> None:
    order = np.random.default_rng(0).permutation(12)
    columns = np.concatenate([[2 * row, 2 * row + 1] for row in order])
    shuffled = replace(
        vectors,
        ids=[vectors.ids[row] for row in order],
        image=vectors.image[order],
        text=vectors.text[columns],
        text_owner=np.argsort(order)[vectors.text_owner[columns]],
    )
    found = gallery_of(shuffled, samples)
    for column, words in enumerate(found.texts):
        row = found.text_owner[column]
        assert words in samples[int(found.ids[row][1:])].texts
        np.testing.assert_array_equal(
            found.image[row], vectors.image[vectors.ids.index(found.ids[row])]
        )


def test_vectors_of_other_data_are_refused(samples, vectors) -> None:
    with pytest.raises(DataError, match="'s11'"):
        gallery_of(vectors, samples[:11])
    with pytest.raises(DataError, match="more than the 2 texts"):
        gallery_of(replace(vectors, text_owner=np.zeros(24, dtype=int)), samples)


def test_figures_are_those_of_the_parts(gallery) -> None:
    found = evaluate_gallery(gallery, bootstrap=50, seed=3)
    plain = retrieval(gallery.image, gallery.text, gallery.text_owner, bootstrap=50, seed=3)
    assert found["retrieval"] == plain
    recalls = [plain[way][f"R@{k}"] for way in plain for k in (1, 5, 10)]
    assert found["mean_recall"] == pytest.approx(np.mean(recalls))
    chinese = retrieval(gallery.image, gallery.text[1::2], gallery.text_owner[1::2], bootstrap=0)
    for way in chinese:
        assert found["languages"]["zh"][way]["R@5"] == chinese[way]["R@5"]
    assert found["geometry"]["rankme"]["image"] == rankme(gallery.image)
    assert found["counts"] == {"images": 11, "texts": 22, "groups": 11, "without_image": 1}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_pictures_of_one_group_answer_for_one_another(gallery) -> None:
    together = replace(gallery, groups=np.zeros(11, dtype=int))
    found = evaluate_gallery(together, bootstrap=0)
    assert found["retrieval"]["text_to_image"]["R@1"] == 100
    assert found["geometry"]["cosines"]["random"] is None


def test_zero_shot_uses_every_template(gallery) -> None:
    asked: list[str] = []

    def embed(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        # the mean image of each class is the best prompt there is
        rows = []
        for words in texts:
            own = [i for i, label in enumerate(gallery.labels) if label in words]
            rows.append(gallery.image[own].mean(axis=0))
        return np.array(rows) / np.linalg.norm(rows, axis=1, keepdims=True)

    found = evaluate_gallery(
        gallery, bootstrap=20, templates=("{}", "a {} field"), embed_texts=embed
    )
    assert asked[:3] == ["black", "a black field", "blue"]
    means = embed(["black", "blue", "green", "red"])
    guess = (gallery.image @ means.T).argmax(axis=1)
    truth = [("black", "blue", "green", "red").index(label) for label in gallery.labels]
    assert found["zero_shot"]["top1"] == pytest.approx(100 * np.mean(guess == truth))
    assert found["zero_shot"]["classes"] == 4 and found["zero_shot"]["images"] == 11
    with pytest.raises(DataError, match="template"):
        evaluate_gallery(gallery, templates=("no place",), embed_texts=embed)


def test_one_class_is_no_classification(gallery) -> None:
    same = replace(gallery, labels=["x"] * 11)
    assert "zero_shot" not in evaluate_gallery(same, bootstrap=0, embed_texts=lambda t: 1 / 0)


def test_searches_take_languages_in_turn_and_pictures_once(gallery: Gallery) -> None:
    found = text_searches(gallery, count=6, k=4)
    assert len(found) == 6 and all(len(search.results) == 4 for search in found)
    assert sum("field" in search.query for search in found) == 3
    assert len({search.answer.id for search in found}) == 6
    for search in found:
        column = list(gallery.texts).index(search.query)
        scores = gallery.image @ gallery.text[column]
        assert [hit.id for hit in search.results] == [
            gallery.ids[row] for row in np.argsort(-scores)[:4]
        ]
        right = gallery.ids[gallery.text_owner[column]]
        assert [hit.right for hit in search.results] == [h.id == right for h in search.results]
    assert len(text_searches(gallery, count=100)) == 11  # no picture is shown twice


def test_worst_mistakes_have_the_worst_ranks(gallery: Gallery) -> None:
    ranks = retrieval_ranks(gallery.image, gallery.text, gallery.text_owner).text_to_image
    worst = worst_mistakes(gallery, count=2)
    assert worst[0].answer.rank == ranks.max() > 1
    assert worst[0].answer.rank >= worst[1].answer.rank
    perfect = replace(gallery, text=gallery.image[gallery.text_owner])
    assert worst_mistakes(perfect) == []


def test_picture_searches_find_texts(gallery: Gallery) -> None:
    for search in picture_searches(gallery, count=3, k=5):
        row = list(gallery.pictures).index(search.picture)
        scores = gallery.text @ gallery.image[row]
        assert [hit.text for hit in search.results] == [
            gallery.texts[column] for column in np.argsort(-scores)[:5]
        ]
        assert search.answer.right and search.answer.id == gallery.ids[row]


@pytest.mark.parametrize(("texts", "told"), [("abab", True), ("aabc", False), ("aaaa", False)])
def test_texts_that_repeat_are_classes_from_two_on(texts: str, told: bool) -> None:
    """Two texts of four pictures are two classes; three are more than half as many as pictures."""
    image = np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.8, 0.6]])
    samples = [
        Sample(str(n), f"row {n}", picture("red", f"{n}.png"), (text,))
        for n, text in enumerate(texts)
    ]
    where = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.0, 1.0]}
    text = np.array([where[one] for one in texts])
    vectors = Vectors([s.id for s in samples], np.arange(4), image, text, np.arange(4))
    found = evaluate_gallery(gallery_of(vectors, samples), bootstrap=0)
    assert ("zero_shot" in found) == told
    if told:  # the last picture reads b and is nearer to a
        assert (found["zero_shot"]["top1"], found["zero_shot"]["by"]) == (75, "text")
        assert found["zero_shot"]["per_class"]["b"] == {"images": 2, "top1": 50}
