"""Every registered encoder goes through the same checks."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from plait.core.batch import Encoded, ModalityInput
from plait.encoders.base.base import Encoder, Example
from plait.encoders.registry import FAMILIES, build_encoder, encoder_from_spec
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.text.tokenize import TextPreprocess
from plait.nn.adapt import merged_state_dict, set_trainable

EXAMPLES = {
    f"{number} {example.source}": example
    for family in FAMILIES.values()
    for number, example in enumerate(family.examples)
}
LOCAL = {
    "hf/bert": "text",
    "hf/vit": "image",
    "hf/resnet": "image",
    "clip/image": "image",
    "clip/text": "text",
}
MODALITY_OF = {name: example.modality for name, example in EXAMPLES.items()} | LOCAL


def only(names: Iterable[str]) -> pytest.MarkDecorator:
    """The test goes through these encoders alone."""
    return pytest.mark.parametrize("encoder", names, indirect=True)


only_texts, only_images = (
    only([name for name, modality in MODALITY_OF.items() if modality == wanted])
    for wanted in ("text", "image")
)
with_layers = only([name for name in MODALITY_OF if not name.endswith("scratch/ngram")])
TEXTS = ("a cat", "a very long dog, lying on a mat of straw", "猫和狗")


@pytest.fixture(params=MODALITY_OF)
def encoder(request: pytest.FixtureRequest, local_models: Callable[[str], Example]) -> Encoder:
    """A fresh copy of each encoder."""
    name = request.param
    if name not in _built:
        _built[name] = _build(EXAMPLES.get(name) or local_models(name))
    return copy.deepcopy(_built[name])


_built: dict[str, Encoder] = {}


def _build(example: Example) -> Encoder:
    torch.manual_seed(0)
    built = build_encoder(
        example.source, modality=example.modality, pretrained=False, **example.options
    )
    with torch.no_grad():
        for parameter in built.parameters():  # zero-initialised parts would hide mistakes
            parameter.add_(0.02 * torch.randn_like(parameter))
    return built


def inputs_of(encoder: Encoder, rows: int = 3) -> ModalityInput:
    if isinstance(encoder.preprocess, ImagePreprocess):
        return ModalityInput.of(pixels=_pixels(rows, encoder.preprocess.size_2d))
    ids, mask = encoder.preprocess(TEXTS[:rows])
    return ModalityInput.of(mask=torch.from_numpy(mask), ids=torch.from_numpy(ids))


@cache
def _pixels(rows: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (rows, 3, *size), generator=generator, dtype=torch.uint8)


def test_shapes_dtypes_and_declared_widths(encoder: Encoder) -> None:
    assert not encoder.training
    inputs = inputs_of(encoder)
    out = encoder(inputs)
    assert isinstance(out, Encoded)
    assert out.tokens.shape == (3, out.mask.shape[1], encoder.token_width)
    assert out.pooled.shape == (3, encoder.width)
    assert out.pooled.dtype == torch.float32
    assert torch.isfinite(out.tokens).all() and torch.isfinite(out.pooled).all()
    in_double = encoder.double()(inputs)
    assert in_double.pooled.dtype == torch.float64
    scale = in_double.pooled.abs().max()
    assert (in_double.pooled - out.pooled).abs().max() < 1e-4 * scale


def test_every_parameter_that_pooling_uses_gets_a_gradient(encoder: Encoder) -> None:
    set_trainable(encoder, "full")
    out = encoder(inputs_of(encoder))
    generator = torch.Generator().manual_seed(2)
    loss = (out.pooled * torch.randn(out.pooled.shape, generator=generator)).sum()
    loss = loss + (out.tokens * torch.randn(out.tokens.shape, generator=generator)).sum()
    loss.backward()
    silent = [name for name, p in encoder.named_parameters() if p.grad is None]
    assert not silent


def test_alone_equals_co_batched(encoder: Encoder) -> None:
    inputs = inputs_of(encoder)
    with torch.no_grad():
        together = encoder(inputs).pooled
        for row in range(3):
            one = inputs.map(lambda tensor, row=row: tensor[row : row + 1])
            alone = encoder(one).pooled
            scale = together.abs().max()
            assert (alone[0] - together[row]).abs().max() <= 1e-5 * scale


@only_texts
def test_padding_changes_nothing(encoder: Encoder) -> None:
    preprocess = encoder.preprocess
    assert isinstance(preprocess, TextPreprocess)
    encoder.double()
    for text in TEXTS:
        ids, mask = (torch.from_numpy(x) for x in preprocess([text]))
        room = preprocess.max_length - ids.shape[1]
        extra = min(3, room)
        other = (ids.max() // 2).item()  # what stands at padded places must not matter
        longer = torch.nn.functional.pad(ids, (0, extra), value=other)
        wider = torch.nn.functional.pad(mask, (0, extra), value=False)
        if preprocess.padding == "full":
            assert room == 0
            continue
        short = encoder(ModalityInput.of(mask=mask, ids=ids)).pooled
        padded = encoder(ModalityInput.of(mask=wider, ids=longer)).pooled
        torch.testing.assert_close(padded, short, rtol=0, atol=1e-10)


@only_texts
def test_a_row_without_any_token_stays_finite(encoder: Encoder) -> None:
    set_trainable(encoder, "full")
    inputs = inputs_of(encoder)
    assert inputs.mask is not None
    inputs.mask[1] = False
    with torch.no_grad():
        kept = encoder(inputs_of(encoder)).pooled[[0, 2]]
    pooled = encoder(inputs).pooled
    torch.testing.assert_close(pooled[[0, 2]], kept)
    pooled.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


def test_spec_rebuilds_it_without_weights(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save_files(tmp_path)
    spec = json.loads(json.dumps(encoder.spec()))
    again = encoder_from_spec(spec, tmp_path)
    assert again.preprocess.fingerprint == encoder.preprocess.fingerprint
    again.load_state_dict(encoder.state_dict())
    inputs = inputs_of(encoder)
    assert torch.equal(again(inputs).pooled, encoder(inputs).pooled)
    assert again.spec() == encoder.spec()


def test_frozen_trains_nothing_and_stays_in_evaluation_mode(encoder: Encoder) -> None:
    inputs = inputs_of(encoder)
    set_trainable(encoder, "frozen")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not encoder(inputs).pooled.requires_grad
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


@with_layers
def test_lora_starts_as_identity_trains_little_and_merges(encoder: Encoder) -> None:
    inputs = inputs_of(encoder)
    with torch.no_grad():
        before = encoder(inputs).pooled
    original = {name: value.clone() for name, value in encoder.state_dict().items()}
    total = sum(p.numel() for p in encoder.parameters())
    set_trainable(encoder, "lora", rank=2)
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) < total
    with torch.no_grad():
        torch.testing.assert_close(encoder(inputs).pooled, before)
        for name, parameter in encoder.named_parameters():
            if name in trained:
                parameter.add_(0.1 * torch.randn_like(parameter))
        adapted = encoder(inputs).pooled
    assert (adapted - before).abs().max() > 1e-4 * before.abs().max()
    merged = merged_state_dict(encoder)
    assert merged.keys() == original.keys()
    encoder.train()
    for module in encoder.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            assert not module.training


@only_images
def test_pixels_may_be_bytes_or_fractions(encoder: Encoder) -> None:
    assert isinstance(encoder.preprocess, ImagePreprocess)
    encoder.double()
    pixels = _pixels(2, encoder.preprocess.size_2d)
    from_bytes = encoder(ModalityInput.of(pixels=pixels)).pooled
    from_fractions = encoder(ModalityInput.of(pixels=pixels.double() / 255)).pooled
    torch.testing.assert_close(from_bytes, from_fractions, rtol=1e-10, atol=1e-10)
    encoder.float().to(memory_format=torch.channels_last)
    in_channels_last = encoder(
        ModalityInput.of(pixels=pixels.contiguous(memory_format=torch.channels_last))
    ).pooled
    torch.testing.assert_close(in_channels_last.double(), from_bytes, rtol=1e-3, atol=1e-3)


@only_images
def test_boxes_of_tokens_tile_the_picture(encoder: Encoder) -> None:
    assert isinstance(encoder.preprocess, ImagePreprocess)
    out = encoder(inputs_of(encoder))
    assert out.boxes is not None
    assert out.boxes.shape == (*out.tokens.shape[:2], 4)
    assert torch.equal(out.boxes[0], out.boxes[2])
    boxes = out.boxes[0].double()
    assert (boxes >= 0).all() and (boxes <= 1).all()
    whole = (boxes == torch.tensor([0.0, 0, 1, 1])).all(dim=1)
    cells = boxes if len(boxes) == 1 else boxes[~whole]
    x1, y1, x2, y2 = cells.unbind(dim=1)
    assert (x2 > x1).all() and (y2 > y1).all()
    assert ((x2 - x1) * (y2 - y1)).sum() == pytest.approx(1, abs=1e-6)
    # Area 1 and no overlap: nothing is left out.
    wide = (torch.minimum(x2[:, None], x2) - torch.maximum(x1[:, None], x1)).clamp(min=0)
    high = (torch.minimum(y2[:, None], y2) - torch.maximum(y1[:, None], y1)).clamp(min=0)
    overlap = (wide * high).fill_diagonal_(0)
    assert overlap.max() < 1e-6
