"""Detector features as tokens: the laws of the shared sweep, for an encoder without parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from plait.core.batch import ModalityInput
from plait.core.errors import DataError, ModelError
from plait.encoders.registry import build_encoder, encoder_from_spec

MASK = torch.tensor([[True, True, False], [True, False, False]])


def batch(padding: float = 0.0) -> ModalityInput:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    features[~MASK] = padding
    boxes = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64).repeat(2, 3, 1)
    return ModalityInput.of(mask=MASK, features_of_regions=features, boxes=boxes)


def test_features_are_tokens_and_pooled_is_the_mean_of_the_real_ones() -> None:
    encoder = build_encoder("regions/precomputed", modality="image", width=5)
    inputs = batch()
    out = encoder(inputs)
    features = inputs.tensors["features_of_regions"]
    assert out.tokens.shape == (2, 3, encoder.token_width) and encoder.width == 5
    torch.testing.assert_close(out.pooled[0], (features[0, 0] + features[0, 1]) / 2)
    torch.testing.assert_close(out.pooled[1], features[1, 0])
    assert torch.equal(out.mask, MASK)
    assert out.boxes is not None and torch.equal(out.boxes, inputs.tensors["boxes"])


def test_padding_and_absent_rows_change_nothing() -> None:
    encoder = build_encoder("regions/precomputed", modality="image", width=5)
    plain, padded = encoder(batch()), encoder(batch(float("nan")))
    assert torch.equal(plain.pooled, padded.pooled) and torch.equal(plain.tokens, padded.tokens)
    bare = batch()
    bare.tensors["boxes"][~MASK] = 0
    assert torch.equal(encoder(ModalityInput.of(**bare.tensors)).mask, MASK)
    inputs = batch()
    inputs.present[1] = False
    absent = encoder(inputs)
    assert not absent.mask[1].any() and not absent.pooled[1].any()
    assert torch.equal(absent.pooled[0], plain.pooled[0])


def test_spec_round_trip_and_messages(tmp_path: Path) -> None:
    encoder = build_encoder("regions/precomputed", modality="image", width=5)
    again = encoder_from_spec(encoder.spec(), tmp_path)
    assert again.spec() == encoder.spec() == {"family": "regions", "width": 5}
    assert again.preprocess.fingerprint == encoder.preprocess.fingerprint
    default = build_encoder("regions/precomputed", modality="image")
    with pytest.raises(DataError, match="regions are 5 wide, and the model takes 2048"):
        default(batch())
    with pytest.raises(ModelError, match="did you mean regions/precomputed"):
        build_encoder("regions/detected", modality="image")
    with pytest.raises(ModelError, match="encodes image, not 'text'"):
        build_encoder("regions/precomputed", modality="text")
    with pytest.raises(ModelError, match="has no option 'with'; did you mean 'width'"):
        build_encoder("regions/precomputed", modality="image", **{"with": 3})
    with pytest.raises(ModelError, match="width is 0; it must be a number above 0"):
        build_encoder("regions/precomputed", modality="image", width=0)
