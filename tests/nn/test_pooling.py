"""Pooling against sums by hand, and its laws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.core.errors import ModelError
from plait.encoders.registry import build_encoder
from plait.nn.adapt import lora_targets, set_trainable
from plait.nn.pooling import Pool


def test_by_hand() -> None:
    tokens = torch.tensor([[[1.0, 4.0], [3.0, 0.0], [100.0, 100.0]]])
    mask = torch.tensor([[True, True, False]])
    assert Pool("mean")(tokens, mask).tolist() == [[2.0, 2.0]]
    assert Pool("max")(tokens, mask).tolist() == [[3.0, 4.0]]
    assert Pool("cls")(tokens, mask).tolist() == [[1.0, 4.0]]
    assert Pool("last")(tokens, mask).tolist() == [[3.0, 0.0]]
    assert Pool("mean+max")(tokens, mask).tolist() == [[2.0, 2.0, 3.0, 4.0]]
    assert Pool("mean", skip=1)(tokens, mask).tolist() == [[3.0, 0.0]]
    gem = Pool("gem")(tokens, mask)
    assert gem[0, 0].item() == pytest.approx(((1 + 27) / 2) ** (1 / 3), rel=1e-5)


def test_unknown_pooling_gets_a_suggestion() -> None:
    with pytest.raises(ModelError, match="did you mean 'mean'"):
        Pool("meen")


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["mean", "max", "gem", "mean+max"]),
    rows=st.integers(1, 3),
    length=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_order_and_padding_do_not_matter(kind: str, rows: int, length: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(rows, length, 3, generator=generator, dtype=torch.float64)
    mask = torch.ones(rows, length, dtype=torch.bool)
    pooled = Pool(kind)(tokens, mask)
    order = torch.randperm(length, generator=generator)
    torch.testing.assert_close(Pool(kind)(tokens[:, order], mask), pooled)
    padded = torch.nn.functional.pad(tokens, (0, 0, 0, 2), value=7.0)
    wider = torch.nn.functional.pad(mask, (0, 2), value=False)
    torch.testing.assert_close(Pool(kind)(padded, wider), pooled)


def test_lora_adapts_the_repeated_layers_and_says_what_it_cannot() -> None:
    vit = build_encoder("scratch/vit-tiny", modality="image", size=16, width=12, layers=2)
    assert set(lora_targets(vit)) == {
        f"blocks.{block}.{layer}"
        for block in range(2)
        for layer in ("attention.qkv", "attention.out", "mlp.up", "mlp.down")
    }
    with pytest.raises(ModelError, match="no layer is called 'q_proj'"):
        set_trainable(vit, "lora", targets=["q_proj"])
    set_trainable(vit, "lora", rank=2, targets=["attention.qkv"])
    trained = [name for name, p in vit.named_parameters() if p.requires_grad]
    assert len(trained) == 4 and all("attention.qkv.lora_" in name for name in trained)
    ngram = build_encoder("scratch/ngram", modality="text", buckets=101)
    with pytest.raises(ModelError, match="NgramEncoder has no linear or convolution layers"):
        set_trainable(ngram, "lora")
