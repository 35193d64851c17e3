"""A bundle gives what its model gives in torch, in either engine, from any thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.deployment.made import TEXTS, jpeg, picture

from plait.core.errors import DataError, ModelError
from plait.models.alignment.alignment import AlignmentModel
from plait.runtime import Bundle, open_bundle

ENGINES = ("openvino", "onnxruntime")


@pytest.fixture(scope="module", params=ENGINES)
def bundle(request: pytest.FixtureRequest, folder: Path) -> Bundle:
    pytest.importorskip(request.param)
    return open_bundle(folder, engine=request.param, precision="float32", threads=1)


def test_embeddings_are_the_models(bundle: Bundle, model: AlignmentModel) -> None:
    pictures = [picture(n, 30 + 20 * n, 70 - 9 * n) for n in range(5)]
    found = bundle.embed(images=pictures, texts=TEXTS, batch_size=2)
    expected = model.embed(images=pictures, texts=TEXTS)
    for name in ("image", "text"):
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected[name], atol=2e-6)
        np.testing.assert_allclose(np.linalg.norm(found[name], axis=1), 1, atol=1e-6)


def test_every_form_of_a_picture_gives_one_embedding(bundle: Bundle, tmp_path: Path) -> None:
    array = picture(3)
    data = jpeg(array, "PNG")
    (tmp_path / "a.png").write_bytes(data)
    forms = [array, Image.fromarray(array), data, tmp_path / "a.png", str(tmp_path / "a.png")]
    rows = bundle.embed(images=forms)["image"]
    np.testing.assert_array_equal(rows, np.broadcast_to(rows[0], rows.shape))


def test_classes_are_the_models(bundle: Bundle, model: AlignmentModel) -> None:
    pictures, labels = [picture(n) for n in range(3)], ["apple", "dog", "moon"]
    templates = ("{}", "a picture of a {}")
    found = bundle.classify(pictures, labels, templates)
    np.testing.assert_allclose(found, model.classify(pictures, labels, templates), atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    cosines = bundle.similarity(pictures, labels)
    np.testing.assert_allclose(cosines, model.similarity(pictures, labels), atol=5e-6)


def test_what_the_manifest_knows(bundle: Bundle, model: AlignmentModel) -> None:
    assert bundle.modalities == ("image", "text")
    assert bundle.dim == 12
    assert bundle.scale == pytest.approx(float(model.scale.detach()))
    assert bundle.manifest.bias == -3.0


def test_nothing_in_gives_nothing_out(bundle: Bundle) -> None:
    found = bundle.embed(images=[], texts=[])
    assert found["image"].shape == found["text"].shape == (0, 12)
    empty = {"pixels": np.zeros((0, 3, 32, 32), np.uint8)}
    assert bundle.run("image", empty).shape == (0, 12)


def test_many_threads_get_their_own_rows(bundle: Bundle) -> None:
    batches = [bundle.prepare_images([picture(n)] * (1 + n % 3)) for n in range(12)]
    alone = [bundle.run("image", batch) for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda batch: bundle.run("image", batch), batches * 4))
    for found, expected in zip(together, alone * 4, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({}, "takes ids and mask, not nothing"),
        ({"pixels": np.zeros((1, 3, 32, 32), np.uint8)}, "takes ids and mask, not pixels"),
        (
            {"ids": np.zeros((2, 3), np.int32), "mask": np.ones((2, 3), bool)},
            r"ids of the text tower is int32 \(2, 3\); it takes int64 \(batch, length\)",
        ),
        (
            {"ids": np.zeros((2, 3), np.int64), "mask": np.ones((2, 4), bool)},
            r"mask of the text tower is bool \(2, 4\); it takes bool \(batch, length\)",
        ),
        (
            {"ids": np.zeros(3, np.int64), "mask": np.ones((2, 3), bool)},
            r"ids of the text tower is int64 \(3,\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    bundle: Bundle, tensors: dict[str, np.ndarray], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        bundle.run("text", tensors)


def test_faults_of_the_caller_are_told(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"a\.jpg: is a web page"):
        bundle.embed(images=[tmp_path / "a.jpg"])
    with pytest.raises(DataError, match="image 34 is a int"):
        bundle.embed(images=[picture(0)] * 34 + [3])
    with pytest.raises(DataError, match="image 0: the JPEG picture is truncated"):
        bundle.embed(images=[jpeg(picture(0))[:-300]])
    with pytest.raises(ModelError, match="towers for image, text, not 'audio'"):
        bundle.run("audio", {})
    with pytest.raises(ModelError, match="embeds, and answers no questions"):
        bundle.ask(picture(0), "what?")
    with pytest.raises(ModelError, match="at least one label"):
        bundle.classify([picture(0)], [])


def test_streams_answer_alike(folder: Path) -> None:
    pytest.importorskip("openvino")
    one = open_bundle(folder, engine="openvino", precision="float32", threads=1)
    two = open_bundle(folder, engine="openvino", precision="float32", threads=2, streams=2)
    tensors = one.prepare_texts(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: two.run("text", tensors), range(8)):
            np.testing.assert_allclose(found, one.run("text", tensors), atol=1e-6)


def test_one_string_is_no_list(bundle: Bundle) -> None:
    with pytest.raises(DataError, match="texts is one str: give a list"):
        bundle.embed(texts="a red circle")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="images is one str"):
        bundle.embed(images="a.jpg")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="lists of strings"):
        bundle.classify([picture(0)], "cat")  # type: ignore[arg-type]
