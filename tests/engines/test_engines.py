"""Engines give what torch float32 gives; what cannot is passed over, with the reason."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from plait.core.batch import Encoded, ModalityInput
from plait.core.errors import MissingExtra, ModelError, UserError, install_command
from plait.encoders.base.base import Encoder
from plait.encoders.registry import FAMILIES, build_encoder
from plait.engines import choices as choices_module
from plait.engines.base import EngineWarning, open_engine, probe_inputs
from plait.engines.choices import Choice, choices
from plait.engines.openvino_engine import OpenVinoEngine
from plait.engines.tower import evaluating, fingerprint, least_cosine
from plait.modalities.text.tokenize import TextPreprocess

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not HAS_OPENVINO, reason="openvino is not installed")

SAME_MODULE = {"timm/tf_efficientnet_lite0"}  # as a packaged encoder
EXAMPLES = [
    example
    for family in FAMILIES.values()
    for example in family.examples
    if example.source not in SAME_MODULE
]


def inputs_of(encoder: Encoder, rows: int, words: int) -> dict[str, np.ndarray]:
    """Random pictures, or texts of 1 to ``words`` words."""
    random = np.random.default_rng(rows)
    preprocess = encoder.preprocess
    if isinstance(preprocess, TextPreprocess):
        texts = ["red dog on grass " * int(random.integers(1, words + 1)) for _ in range(rows)]
        ids, mask = preprocess(texts)
        return {"ids": ids, "mask": mask}
    pictures = random.integers(0, 256, (rows, 50, 60, 3), dtype=np.uint8)
    return {"pixels": np.stack([preprocess(picture) for picture in pictures])}


def directly(encoder: Encoder, inputs: dict[str, np.ndarray]) -> np.ndarray:
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    mask = tensors.pop("mask", None)
    with evaluating(encoder), torch.no_grad():
        return encoder(ModalityInput.of(mask, **tensors)).pooled.numpy()


@needs_openvino
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.source)
def test_every_encoder_runs_in_openvino(example: Any) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(
        example.source, modality=example.modality, pretrained=False, **example.options
    )
    engine = open_engine(encoder, kind="openvino", precision="float32", threads=1)
    assert (engine.name, engine.precision) == ("openvino", "float32")
    for rows, words in ((1, 1), (5, 3)):  # other batch sizes and lengths than converted
        inputs = inputs_of(encoder, rows, words)
        expected = directly(encoder, inputs)
        found = engine.run(inputs)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@needs_openvino
def test_a_row_does_not_depend_on_its_company(image_encoder: Encoder) -> None:
    inputs = inputs_of(image_encoder, 6, 1)
    for precision in ("float32", "bfloat16"):
        engine = open_engine(image_encoder, kind="openvino", precision=precision, threads=1)
        together = engine.run(inputs)
        alone = np.concatenate(
            [engine.run({"pixels": inputs["pixels"][i : i + 1]}) for i in range(6)]
        )
        assert least_cosine(together, alone)[0] > 0.9999


@needs_openvino
def test_openvino_keeps_the_weights_it_was_made_with(image_encoder: Encoder) -> None:
    inputs = inputs_of(image_encoder, 2, 1)
    engine = open_engine(image_encoder, kind="openvino", precision="float32")
    before = engine.run(inputs)
    with torch.no_grad():
        for weight in image_encoder.parameters():
            weight.mul_(1.5)
    np.testing.assert_array_equal(engine.run(inputs), before)


class BakedBatch(Encoder):
    """Traced, its batch size becomes a constant."""

    modality, width, token_width = "image", 4, 4

    def __init__(self, preprocess: Any) -> None:
        super().__init__()
        self.preprocess, self.weight = preprocess, nn.Parameter(torch.ones(4))

    def forward(self, inputs: ModalityInput) -> Encoded:
        pixels = inputs.tensors["pixels"].float()
        tokens = pixels[:, :1, :2, :4].flatten(1, 2) + self.weight.expand(len(pixels), 1, -1)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        return Encoded(tokens, mask, tokens[:, 0])

    def spec(self) -> dict[str, Any]:
        return {"family": "test"}


@needs_openvino
@pytest.mark.parametrize("rows", [1, 3, 4, 8])
def test_a_size_that_became_a_constant_is_noticed(image_encoder: Encoder, rows: int) -> None:
    encoder = BakedBatch(image_encoder.preprocess)
    with pytest.warns(EngineWarning, match="passed over"):
        engine = open_engine(encoder, sample=inputs_of(encoder, rows, 1))
    assert engine.name == "torch"


def test_torch_runs_in_evaluation_mode_and_restores_the_mode(text_encoder: Encoder) -> None:
    text_encoder.blocks.append(nn.Dropout(0.5))  # type: ignore[union-attr]
    text_encoder.train()
    text_encoder.blocks[0].eval()  # type: ignore[index]
    modes = [part.training for part in text_encoder.modules()]
    tower = open_engine(build_encoder("scratch/cnn", modality="image"), kind="torch")
    assert tower.name == "torch"
    with evaluating(text_encoder):
        assert not any(part.training for part in text_encoder.modules())
    assert [part.training for part in text_encoder.modules()] == modes


def test_torch_bfloat16_is_near(image_encoder: Encoder) -> None:
    inputs = inputs_of(image_encoder, 4, 1)
    engine = open_engine(image_encoder, kind="torch", precision="bfloat16")
    found = engine.run(inputs)
    assert engine.precision == "bfloat16" and found.dtype == np.float32
    least, _ = least_cosine(found, directly(image_encoder, inputs))
    assert 0.999 < least < 1.0  # near, and not the same computation


@needs_openvino
def test_unfaithful_engines_are_passed_over(
    image_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = OpenVinoEngine.run

    def distorted(self: OpenVinoEngine, tensors: Any) -> np.ndarray:
        rows = honest(self, tensors)
        return rows + rows.std() * np.random.default_rng(0).normal(size=rows.shape).astype("f4")

    monkeypatch.setattr(OpenVinoEngine, "run", distorted)
    with pytest.warns(EngineWarning, match=r"its cosine to torch float32 is 0\.\d{4} on average"):
        engine = open_engine(image_encoder, kind="auto")
    assert (engine.name, engine.precision) == ("torch", "float32")


class Untraceable(Encoder):
    """Has an operation that OpenVINO does not know."""

    modality, width, token_width = "image", 4, 4

    def __init__(self, preprocess: Any) -> None:
        super().__init__()
        self.preprocess, self.weight = preprocess, nn.Parameter(torch.ones(1))

    def forward(self, inputs: ModalityInput) -> Encoded:
        pixels = inputs.tensors["pixels"].float() * self.weight
        tokens = torch.linalg.svdvals(pixels[:, 0])[:, None, :4]
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        return Encoded(tokens, mask, tokens[:, 0])

    def spec(self) -> dict[str, Any]:
        return {"family": "test"}


@needs_openvino
def test_encoders_that_openvino_cannot_run(image_encoder: Encoder) -> None:
    encoder = Untraceable(image_encoder.preprocess)
    with pytest.raises(ModelError, match=r"OpenVINO cannot convert this encoder: .*svdvals"):
        open_engine(encoder, kind="openvino")
    with pytest.warns(EngineWarning, match=r"passed over for the image encoder: .*svdvals"):
        assert open_engine(encoder).name == "torch"


def test_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices_module, "find_spec", lambda _: object())
    monkeypatch.setattr(choices_module, "processor_has_bf16", lambda: True)
    exact = Choice("torch", "float32")
    low, high = Choice("openvino", "bfloat16"), Choice("openvino", "float32")
    assert choices() == [low, high, exact]
    assert choices(precision="float32") == [high, exact]
    assert choices("openvino") == [low]
    assert choices(cuda=True) == [Choice("torch", "bfloat16"), exact]
    assert choices("torch", "float32") == [exact]
    monkeypatch.setattr(choices_module, "processor_has_bf16", lambda: False)
    assert choices() == [high, exact]
    with pytest.raises(UserError, match="on a GPU"):
        choices("openvino", cuda=True)
    monkeypatch.setattr(choices_module, "find_spec", lambda _: None)
    assert choices() == [exact]
    with pytest.raises(MissingExtra, match=re.escape(install_command("fast"))):
        choices("openvino")
    with pytest.raises(UserError, match=r"'openvin'; .*did you mean 'openvino'"):
        choices("openvin")
    with pytest.raises(UserError, match="'float64'; it can be auto, float32, bfloat16"):
        choices("torch", "float64")


def test_probe_inputs_fit(image_encoder: Encoder, text_encoder: Encoder) -> None:
    for encoder in (image_encoder, text_encoder):
        assert np.isfinite(directly(encoder, probe_inputs(encoder))).all()


def test_fingerprint_changes_with_weights_settings_and_preprocessing(
    image_encoder: Encoder,
) -> None:
    first = fingerprint(image_encoder)
    image_encoder.train()
    assert fingerprint(image_encoder) == first  # the mode is no part of it
    weight = next(image_encoder.parameters())
    with torch.no_grad():
        weight.view(-1)[0] += 1e-6
    second = fingerprint(image_encoder)
    preprocess = image_encoder.preprocess.to_json() | {"mean": [0.5, 0.5, 0.25]}
    image_encoder.preprocess = type(image_encoder.preprocess).from_json(preprocess)
    assert len({first, second, fingerprint(image_encoder)}) == 3


def test_least_cosine() -> None:
    left = np.array([[1, 0], [0, 0], [3, 4]], np.float32)
    right = np.array([[2, 0], [0, 0], [4, 3]], np.float32)
    assert least_cosine(left, right) == pytest.approx((0.96, (1 + 1 + 0.96) / 3))
    right[0] = np.nan
    assert least_cosine(left, right)[0] == -1
    assert least_cosine(left[:1], np.zeros((1, 2), np.float32))[0] == 0
