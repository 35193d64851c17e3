"""Features are computed once for each picture and text, and never taken from another tower."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.engines.towers import CountingEngine, save_pictures

from plait.core.errors import DataError, ModelError
from plait.core.media import BytesRef, FileRef
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import Sample
from plait.encoders.base.base import Encoder
from plait.engines.cache import FeatureCache
from plait.engines.choices import Choice
from plait.engines.features import embed_dataset, image_features, text_features
from plait.models.alignment.alignment import AlignmentModel


def test_rows_are_the_encoders_own_output(image_encoder: Encoder, tmp_path: Path) -> None:
    refs = save_pictures(tmp_path / "p", range(5))
    rows = image_features(image_encoder, refs, engine="torch", precision="float32", batch_size=2)
    from plait.core.batch import ModalityInput
    from plait.modalities.image.fast_decode import read_pixels

    pixels = [read_pixels(ref, image_encoder.preprocess) for ref in refs]
    with torch.no_grad():
        whole = image_encoder(ModalityInput.of(pixels=torch.from_numpy(np.stack(pixels)))).pooled
    np.testing.assert_allclose(rows, whole.numpy(), atol=1e-6)


def test_added_pictures_alone_are_computed(image_encoder: Encoder, tmp_path: Path) -> None:
    refs = save_pictures(tmp_path / "p", range(6))
    engine = CountingEngine(image_encoder)
    first = image_features(image_encoder, refs[:4], engine=engine)
    assert engine.rows == 4
    again = image_features(image_encoder, refs[::-1], engine=engine)
    assert engine.rows == 6
    np.testing.assert_array_equal(again[::-1][:4], first)
    image_features(image_encoder, refs, engine=engine)
    assert engine.rows == 6


def test_a_changed_weight_or_preprocessing_finds_nothing(
    image_encoder: Encoder, tmp_path: Path
) -> None:
    refs = save_pictures(tmp_path / "p", range(2))
    engine = CountingEngine(image_encoder)
    before = image_features(image_encoder, refs, engine=engine)
    with torch.no_grad():
        next(image_encoder.parameters()).view(-1)[0] += 0.5
    after = image_features(image_encoder, refs, engine=engine)
    assert engine.rows == 4 and not np.allclose(before, after)
    settings = image_encoder.preprocess.to_json() | {"interpolation": "bicubic"}
    image_encoder.preprocess = type(image_encoder.preprocess).from_json(settings)
    image_features(image_encoder, refs, engine=engine)
    assert engine.rows == 6


def test_a_changed_file_is_computed_again(image_encoder: Encoder, tmp_path: Path) -> None:
    refs = save_pictures(tmp_path / "p", range(2))
    engine = CountingEngine(image_encoder)
    before = image_features(image_encoder, refs, engine=engine)
    Image.new("RGB", (48, 40), "red").save(refs[1].path)
    after = image_features(image_encoder, refs, engine=engine)
    assert engine.rows == 3
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.allclose(before[1], after[1])


def test_a_damaged_cache_is_rebuilt(
    image_encoder: Encoder, tmp_path: Path, cache_home: Path
) -> None:
    refs = save_pictures(tmp_path / "p", range(3))
    engine = CountingEngine(image_encoder)
    first = image_features(image_encoder, refs, engine=engine)
    (path,) = (cache_home / "features").glob("*/*.npy")
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match="is damaged"):
        again = image_features(image_encoder, refs, engine=engine)
    assert engine.rows == 6
    np.testing.assert_array_equal(first, again)


def test_augmented_versions_are_kept_apart(image_encoder: Encoder, tmp_path: Path) -> None:
    refs = save_pictures(tmp_path / "p", range(3))
    engine = CountingEngine(image_encoder)

    def brighter(pixels: torch.Tensor, positions: list[int]) -> torch.Tensor:
        return (
            (pixels.int() + 20 * (1 + torch.tensor(positions))[:, None, None, None])
            .clamp(max=255)
            .to(torch.uint8)
        )

    with pytest.raises(ValueError, match="give its name"):
        image_features(image_encoder, refs, engine=engine, augment=brighter)
    plain = image_features(image_encoder, refs, engine=engine)
    one = image_features(image_encoder, refs, engine=engine, augment=brighter, slot="bright/1")
    same = image_features(image_encoder, refs, engine=engine, augment=brighter, slot="bright/1")
    assert engine.rows == 6
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(plain, one)


def test_without_a_cache_nothing_is_written(
    image_encoder: Encoder, tmp_path: Path, cache_home: Path
) -> None:
    refs = save_pictures(tmp_path / "p", range(2))
    image_features(image_encoder, [*refs, refs[0]], engine="torch", cache=False)
    assert not cache_home.exists()
    assert image_features(image_encoder, [], cache=False).shape == (0, image_encoder.width)


def test_unusable_pictures(image_encoder: Encoder, tmp_path: Path) -> None:
    refs = save_pictures(tmp_path / "p", range(2))
    refs[1:1] = [FileRef(tmp_path / "gone.jpg"), BytesRef(b"no picture", "row 3")]
    engine = CountingEngine(image_encoder)
    with pytest.raises(DataError, match=r"gone\.jpg: cannot be read"):
        image_features(image_encoder, refs, engine=engine)
    with pytest.raises(DataError, match="row 3: is not a picture"):
        image_features(image_encoder, refs[2:], engine=engine)
    told: list[tuple[int, str]] = []
    for _ in range(2):
        rows = image_features(
            image_encoder, refs, engine=engine, on_error=lambda i, e: told.append((i, str(e)[-20:]))
        )
        assert (rows[1:3] == 0).all() and (rows[[0, 3]] != 0).any(axis=1).all()
    assert [position for position, _ in told] == [1, 2, 1, 2]
    names = [thread.name for thread in threading.enumerate()]
    assert not any(name.startswith("decode") for name in names)


def test_an_interrupted_run_keeps_its_rows(image_encoder: Encoder, tmp_path: Path) -> None:
    refs = save_pictures(tmp_path / "p", range(4))

    class Stopping(CountingEngine):
        def run(self, tensors):
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().run(tensors)

    with pytest.raises(KeyboardInterrupt):
        image_features(image_encoder, refs, engine=Stopping(image_encoder), batch_size=1)
    engine = CountingEngine(image_encoder)
    image_features(image_encoder, refs, engine=engine)
    assert engine.rows == 2


def test_texts_share_batches_by_length_and_equal_ones_a_row(text_encoder: Encoder) -> None:
    texts = ["a", "a much longer text than the others", "bb", "a", "c d"]
    engine = CountingEngine(text_encoder)
    rows = text_features(text_encoder, texts, engine=engine, batch_size=2)
    assert engine.rows == 4
    widths = [call["ids"][1] for call in engine.calls]
    assert widths == sorted(widths, reverse=True)
    np.testing.assert_array_equal(rows[0], rows[3])
    for place, text in enumerate(texts):
        alone = text_features(
            text_encoder, [text], engine="torch", precision="float32", cache=False
        )
        np.testing.assert_allclose(rows[place], alone[0], atol=1e-5)


def test_a_tower_of_another_modality(image_encoder: Encoder, text_encoder: Encoder) -> None:
    with pytest.raises(ModelError, match="encoder of image has no text features"):
        text_features(image_encoder, ["a"])
    with pytest.raises(ModelError, match="encoder of text has no image features"):
        image_features(text_encoder, [])


def test_engines_passed_over_are_remembered(
    image_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    from plait.engines.openvino_engine import OpenVinoEngine

    refs = save_pictures(tmp_path / "p", range(3))
    monkeypatch.setattr(
        OpenVinoEngine, "run", lambda self, x: np.ones((len(x["pixels"]), 16), np.float32)
    )
    with pytest.warns(UserWarning, match="passed over"):
        first = image_features(image_encoder, refs)
    monkeypatch.setattr(OpenVinoEngine, "__init__", lambda *_: pytest.fail("opened again"))
    again = image_features(image_encoder, refs)
    exact = image_features(image_encoder, refs, engine="torch", precision="float32", cache=False)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, exact, atol=1e-6)


def test_an_engine_stays_open_for_the_same_weights(
    image_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    from plait.engines import openvino_engine

    refs = save_pictures(tmp_path / "p", range(4))
    conversions = []
    convert = openvino_engine.convert
    monkeypatch.setattr(
        openvino_engine, "convert", lambda *args: conversions.append(1) or convert(*args)
    )
    image_features(image_encoder, refs[:2])
    image_features(image_encoder, refs)
    assert len(conversions) == 1
    with torch.no_grad():
        next(image_encoder.parameters()).mul_(1.25)
    changed = image_features(image_encoder, refs)
    assert len(conversions) == 2
    exact = image_features(image_encoder, refs, engine="torch", precision="float32")
    np.testing.assert_allclose(changed, exact, atol=0.05 * np.abs(exact).max())


def test_embed_dataset_gives_what_the_model_gives(
    model: AlignmentModel, dataset: PairDataset
) -> None:
    found = embed_dataset(model, dataset, engine="torch", precision="float32")
    assert list(found.ids) == [*(f"s{i}" for i in range(6)), "words"]
    assert found.groups.tolist() == [0, 0, 1, 2, 3, 4, 5]
    assert found.text_owner.tolist() == [0, 0, 1, 3, 4, 5, 5, 6]
    expected = model.embed(
        images=[sample.image for sample in dataset if sample.image is not None], texts=found.texts
    )
    np.testing.assert_allclose(found.image[:6], expected["image"], atol=1e-5)
    np.testing.assert_allclose(found.text, expected["text"], atol=1e-5)
    assert (found.image[6] == 0).all()
    assert found.skipped == ()


def test_embed_dataset_leaves_out_or_refuses_bad_pictures(
    model: AlignmentModel, dataset: PairDataset
) -> None:
    os.truncate(dataset[3].image.path, 200)  # type: ignore[union-attr, arg-type]
    with pytest.raises(DataError, match=r"3\.jpg"):
        embed_dataset(model, dataset, engine="torch")
    found = embed_dataset(model, dataset, engine="torch", on_bad_row="skip")
    assert "s3" not in found.ids and len(found.ids) == 6
    assert found.text_owner.tolist() == [0, 0, 1, 3, 4, 4, 5]
    (bad,) = found.skipped
    assert bad.path == "row 4" and "3.jpg" in bad.problem


def test_embed_dataset_with_one_tower(model: AlignmentModel, dataset: PairDataset) -> None:
    only = AlignmentModel({"text": model.tower("text")})
    found = embed_dataset(only, dataset, engine="torch", cache=FeatureCache())
    assert found.image.shape == (0, 12) and found.text.shape == (8, 12)
    empty = PairDataset([Sample(id="a", where="row 1")], "pairs table")
    assert embed_dataset(model, empty, engine="torch").text.shape == (0, 12)


def test_an_engine_is_chosen_once_for_a_tower(
    image_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on computes its other rows with the engine of the first ones."""
    refs = save_pictures(tmp_path / "p", range(6))
    asked: list[list[str]] = []
    engine = CountingEngine(image_encoder)

    def open_first(encoder: Encoder, wanted: list, inputs: dict) -> tuple:
        asked.append([str(choice) for choice in wanted])
        return engine, []

    monkeypatch.setattr("plait.engines.runner.open_first", open_first)
    monkeypatch.setattr(
        "plait.engines.runner.choices",
        lambda *wanted, **told: [Choice(engine.name, engine.precision), Choice("torch", "float64")],
    )
    image_features(image_encoder, refs[:2])
    image_features(image_encoder, refs, slot="flipped", augment=lambda pixels, places: pixels)
    assert [len(wanted) for wanted in asked] == [2, 1]


def test_a_text_read_through_a_dictionary_is_another_text(text_encoder: Encoder) -> None:
    """Equal weights and tokens: the preprocessing alone tells the rows of the two apart."""
    from plait.modalities.text.glosses import Glossary
    from plait.modalities.text.tokenize import TextPreprocess

    plain = text_encoder.preprocess
    assert isinstance(plain, TextPreprocess)
    before = text_features(text_encoder, ["猫"], engine="torch")
    settings = {**plain.settings}
    text_encoder.preprocess = TextPreprocess(
        plain.tokenizer, **settings, glossary=Glossary({"猫": "cat"})
    )
    after = text_features(text_encoder, ["猫"], engine="torch")
    assert not np.allclose(before, after)
    np.testing.assert_array_equal(after, text_features(text_encoder, ["cat"], engine="torch"))
    text_encoder.preprocess = TextPreprocess(plain.tokenizer, **{**settings, "max_length": 3})
    cut = text_features(text_encoder, ["a long text of many words"], engine="torch")
    text_encoder.preprocess = plain
    assert not np.allclose(cut, text_features(text_encoder, ["a long text of many words"]))
