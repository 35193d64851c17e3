"""Bridges against flamingo-pytorch and transformers, in float64.

Six of the twenty random configurations each; `python benchmarks/parity.py bridges` runs all.
"""

from __future__ import annotations

import pytest
import torch
from benchmarks._bridge_oracles import CASES

from plait.bridges import gated, projections
from plait.bridges.qformer_layers import QFormerLayer

torch.set_num_threads(1)
LIMIT = 1e-9


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str, seed: int) -> None:
    found = CASES[name](seed)
    assert {"gradients", *(["gradients of tokens"] if name != "gated" else [])} <= set(found)
    assert max(found.values()) <= LIMIT, found


def test_the_comparison_sees_a_picture_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_before(time, media_mask, only_latest=True):  # type: ignore[no-untyped-def]
        number = torch.arange(1, media_mask.shape[1] + 1)
        return ((time[..., None] >= number)[..., None] & media_mask[:, None]).flatten(2)

    monkeypatch.setattr(gated, "visible_media", all_before)
    assert max(CASES["gated"](seed)["words"] for seed in (0, 2, 4)) > 1e-3


def test_the_comparison_sees_blocks_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = projections.space_to_depth

    def turned(tokens, grid, factor):  # type: ignore[no-untyped-def]
        rows, columns = grid
        tokens = tokens.unflatten(1, (rows, columns)).transpose(1, 2).flatten(1, 2)
        return plain(tokens, (columns, rows), factor)

    monkeypatch.setattr(projections, "space_to_depth", turned)
    assert max(CASES["internvl"](seed)["tokens"] for seed in range(4)) > 1e-3


def test_the_comparison_sees_a_shared_feed_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = QFormerLayer.forward

    def shared(self, x, queries, seen, media, media_mask):  # type: ignore[no-untyped-def]
        own, self.query_feed_forward = self.query_feed_forward, self.text_feed_forward
        out = plain(self, x, queries, seen, media, media_mask)
        self.query_feed_forward = own
        return out

    monkeypatch.setattr(QFormerLayer, "forward", shared)
    with pytest.raises(AssertionError, match="query_feed_forward"):
        CASES["qformer"](0)  # a parameter without a gradient
