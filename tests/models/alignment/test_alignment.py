"""The alignment model: unit rows, missing modalities, temperature, independence of company."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from plait.core.batch import Batch, ModalityInput
from plait.core.errors import DataError, ModelError
from plait.encoders.registry import build_encoder
from plait.models.alignment.alignment import AlignmentModel, Tower
from plait.models.base.projection import build_projection
from plait.nn.adapt import set_trainable

TEXTS = ["a cat", "a very long dog, lying on a mat of straw", "猫和狗", "", "sun"]


def batch_of(model: AlignmentModel, rows: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (rows, 3, 16, 16), generator=generator, dtype=torch.uint8)
    ids, mask = model.tower("text").encoder.preprocess(TEXTS[:rows])  # type: ignore[operator]
    return Batch(
        ids=[str(i) for i in range(rows)],
        groups=torch.arange(rows),
        modalities={
            "image": ModalityInput.of(pixels=pixels),
            "text": ModalityInput.of(mask=torch.from_numpy(mask), ids=torch.from_numpy(ids)),
        },
    )


def test_rows_have_unit_length(model: AlignmentModel) -> None:
    rows = model.encode(batch_of(model))
    assert set(rows) == {"image", "text"}
    for value in rows.values():
        assert value.shape == (4, 6)
        torch.testing.assert_close(value.norm(dim=1), torch.ones(4))


def test_absent_rows_are_zero_and_change_nothing(model: AlignmentModel) -> None:
    batch = batch_of(model)
    full = model.encode(batch)["image"]
    image = batch.modalities["image"]
    image.present[1] = False
    image.tensors["pixels"][1] = 255
    set_trainable(model, "full")
    rows = model.encode(batch)["image"]
    assert torch.equal(rows[1], torch.zeros(6))
    torch.testing.assert_close(rows[[0, 2, 3]], full[[0, 2, 3]])
    rows.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    image.present[:] = False
    assert torch.equal(model.encode(batch)["image"], torch.zeros(4, 6))


def test_cached_features_stand_for_the_encoder(model: AlignmentModel) -> None:
    batch = batch_of(model)
    for name in ("image", "text"):
        pooled = model.tower(name).encoder(batch.modalities[name]).pooled
        cached = model.encode_one(name, ModalityInput.of(features=pooled))
        torch.testing.assert_close(cached, model.encode_one(name, batch.modalities[name]))


def test_scale_is_clamped_and_its_gradient_is_as_documented(model: AlignmentModel) -> None:
    assert model.scale.item() == pytest.approx(1 / 0.07)
    for value, expected, passes in (
        (math.log(50.0), 50.0, True),
        (math.log(100.0) + 0.1, 100.0, False),
        (-0.1, 1.0, False),
    ):
        model.log_scale.data.fill_(value)
        model.log_scale.grad = None
        model.scale.backward()
        assert model.scale.item() == pytest.approx(expected)
        assert (float(model.log_scale.grad) != 0) == passes  # type: ignore[arg-type]
    model.log_scale.data.fill_(9.0)
    model.clamp_scale()
    model.log_scale.grad = None
    model.scale.backward()
    assert float(model.log_scale.grad) == pytest.approx(100.0, rel=1e-5)  # type: ignore[arg-type]


def test_a_temperature_out_of_range_is_refused(model: AlignmentModel) -> None:
    towers = {name: model.tower(name) for name in model.modalities}
    with pytest.raises(ModelError, match="scale_init 200 is not between 1 and max_scale 100"):
        AlignmentModel(towers, scale_init=200.0)
    assert AlignmentModel(towers, scale_init=200.0, max_scale=None).scale > 199


def test_towers_must_agree(model: AlignmentModel) -> None:
    image, text = model.tower("image"), model.tower("text")
    other = Tower(text.encoder, build_projection("linear", 12, 7))
    with pytest.raises(ModelError, match=r"share one dimension, not \{'image': 6, 'text': 7\}"):
        AlignmentModel({"image": image, "text": other})
    with pytest.raises(ModelError, match="takes 13 features, the encoder gives 12"):
        Tower(text.encoder, build_projection("linear", 13, 6))
    with pytest.raises(ModelError, match="embeds image, text, not 'audio'"):
        model.tower("audio")


def test_embeddings_do_not_depend_on_company(
    model: AlignmentModel, pictures: list[np.ndarray]
) -> None:
    together = model.embed(pictures, TEXTS, batch_size=5)
    for i in range(5):
        alone = model.embed(pictures[i : i + 1], TEXTS[i : i + 1])
        for name in ("image", "text"):
            assert alone[name].dtype == np.float32
            assert np.abs(alone[name][0] - together[name][i]).max() <= 1e-6
    pairs = model.embed(pictures, TEXTS, batch_size=2)
    for name in ("image", "text"):
        assert np.abs(pairs[name] - together[name]).max() <= 1e-6


def test_pictures_may_come_in_any_form(
    model: AlignmentModel, pictures: list[np.ndarray], tmp_path
) -> None:
    from plait.core.media import BytesRef

    path = tmp_path / "a.png"
    Image.fromarray(pictures[0]).save(path)
    forms = [
        pictures[0],
        path,
        str(path),
        Image.fromarray(pictures[0]),
        BytesRef(path.read_bytes(), "a.png"),
    ]
    rows = model.embed(images=forms)["image"]
    assert np.abs(rows - rows[0]).max() < 1e-6
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    white = np.full((20, 20, 3), 255, np.uint8)
    both = model.embed(images=[clear, white])["image"]
    assert np.abs(both[0] - both[1]).max() < 1e-6


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("nowhere.png", "nowhere.png"),
        (np.zeros((4, 4), np.uint8), r"image 0 is an array of uint8 \(4, 4\)"),
        (7, "image 0 is a int"),
    ],
)
def test_what_is_no_picture_is_named(model: AlignmentModel, picture: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        model.embed(images=[picture])


def test_embed_leaves_the_mode_as_it_was(model: AlignmentModel) -> None:
    model.train()
    assert model.training
    rows = [model.embed(texts=["a cat"])["text"] for _ in range(2)]
    assert np.array_equal(rows[0], rows[1])  # no dropout
    assert model.training
    assert model.embed(texts=[], images=[])["text"].shape == (0, 6)


def test_similarity_is_the_cosine(model: AlignmentModel, pictures: list[np.ndarray]) -> None:
    rows = model.embed(pictures[:2], TEXTS[:3])
    expected = np.array([[a @ b for b in rows["text"]] for a in rows["image"]])
    np.testing.assert_allclose(model.similarity(pictures[:2], TEXTS[:3]), expected, atol=1e-6)


def test_classify_averages_templates_and_renormalises(
    model: AlignmentModel, pictures: list[np.ndarray]
) -> None:
    templates = ("a photo of {}", "{}!")
    found = model.classify(pictures, ["cat", "dog", "sun"], templates)
    image = model.embed(pictures)["image"].astype(np.float64)
    logits = []
    for label in ("cat", "dog", "sun"):
        rows = model.embed(texts=[t.format(label) for t in templates])["text"].astype(np.float64)
        mean = (rows[0] + rows[1]) / 2
        logits.append(image @ (mean / np.sqrt((mean**2).sum())) / 0.07)
    exp = np.exp(np.array(logits).T)
    np.testing.assert_allclose(found, exp / exp.sum(1, keepdims=True), rtol=1e-4)
    with pytest.raises(ModelError, match=r"has no \{\} for the label"):
        model.classify(pictures, ["cat"], ["a photo"])
    with pytest.raises(ModelError, match="at least one label"):
        model.classify(pictures, [])


def test_identity_projection_needs_equal_widths() -> None:
    with pytest.raises(ModelError, match="keeps the encoder's 8 features"):
        build_projection("identity", 8, 4)
    with pytest.raises(ModelError, match="did you mean 'linear'"):
        build_projection("liner", 8, 4)
    with pytest.raises(ModelError, match="depth"):
        build_projection("linear", 8, 4, depth=3)


def test_frozen_towers_stay_frozen_inside_the_model() -> None:
    image = build_encoder("timm/test_resnet", modality="image", pretrained=False, size=64)
    model = AlignmentModel({"image": Tower(image, build_projection("linear", image.width, 4))})
    set_trainable(image, "frozen")
    model.train()
    assert not any(module.training for module in image.modules())
    assert model.tower("image").projection.training
    set_trainable(image, "full")
    model.train()
    assert all(module.training for module in image.modules())


def test_the_tutorial_model_is_expressible() -> None:
    """ResNet-18 and a [CLS] text encoder, linear projections to 256, temperature 0.07."""
    image = build_encoder("torchvision/resnet18", modality="image", pretrained=False)
    assert image.width == 512
    assert image.preprocess.mean == (0.485, 0.456, 0.406)  # type: ignore[union-attr]
    model = AlignmentModel(
        {"image": Tower(image, build_projection("linear", 512, 256))}, scale_init=1 / 0.07
    )
    assert model.scale.item() == pytest.approx(14.2857, rel=1e-4)
