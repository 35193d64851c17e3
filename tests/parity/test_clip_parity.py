"""Bar f: plait's CLIP and SigLIP equal transformers' and open_clip's, values and gradients."""

from __future__ import annotations

import pytest
import torch
from benchmarks._clip_oracles import (
    CLIP_CASES,
    OPEN_CLIP_CASES,
    SIGLIP_CASES,
    compare,
    open_clip_case,
    transformers_case,
)

LIMIT = 1e-9


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CLIP_CASES)
def test_transformers_clip(name: str, seed: int) -> None:
    found = compare(transformers_case("clip", seed=seed, **CLIP_CASES[name]), seed)
    assert max(found.values()) <= LIMIT, found


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", SIGLIP_CASES)
def test_transformers_siglip(name: str, seed: int) -> None:
    found = compare(transformers_case("siglip", seed=seed, **SIGLIP_CASES[name]), seed)
    assert max(found.values()) <= LIMIT, found


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", OPEN_CLIP_CASES)
def test_open_clip(name: str, seed: int) -> None:
    found = compare(open_clip_case(seed=seed, **OPEN_CLIP_CASES[name]), seed)
    assert max(found.values()) <= LIMIT, found


def test_the_comparison_sees_a_wrong_activation() -> None:
    case = transformers_case("clip", seed=0)
    for block in case.ours.tower("image").encoder.blocks:  # type: ignore[union-attr]
        block.mlp.act = torch.nn.GELU()
    found = compare(case)
    assert found["image"] > 1e-4
    assert found["text"] <= LIMIT


def test_get_features_of_transformers_is_the_same_embedding() -> None:
    """transformers 5 returns an output object there; its pooler_output is projected."""
    case = transformers_case("clip", seed=3)
    out = case.reference.get_text_features(input_ids=case.ids, attention_mask=case.mask.long())
    features = getattr(out, "pooler_output", out)
    from plait.core.batch import ModalityInput

    ours = case.ours.encode_one("text", ModalityInput.of(mask=case.mask, ids=case.ids))
    theirs = torch.nn.functional.normalize(features, dim=-1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=LIMIT)
