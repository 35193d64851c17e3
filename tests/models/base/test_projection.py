from __future__ import annotations

import pytest
import torch

from plait.core.errors import ModelError
from plait.models.base.projection import build_projection


def test_heads_have_equal_length_and_their_own_dropout() -> None:
    torch.manual_seed(0)
    projection = build_projection("linear", 6, 8, heads=4, dropout=0.5)
    pooled = torch.randn(3, 6)
    projection.eval()
    lengths = projection(pooled).unflatten(1, (4, 2)).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones(3, 4))
    plain = projection.linear(pooled).unflatten(1, (4, 2))
    torch.testing.assert_close(
        projection(pooled), (plain / plain.norm(dim=-1, keepdim=True)).flatten(1)
    )
    projection.train()
    with torch.no_grad():  # equal heads differ in training alone, by what each drops
        projection.linear.weight.copy_(projection.linear.weight[:2].repeat(4, 1))
        projection.linear.bias.copy_(projection.linear.bias[:2].repeat(4))
    first, second, *_ = projection(pooled).unflatten(1, (4, 2)).unbind(1)
    assert not torch.equal(first, second)
    assert build_projection(**projection.spec()).spec() == projection.spec()


def test_heads_divide_the_space() -> None:
    with pytest.raises(ModelError, match="3 heads do not divide the shared space's 8 features"):
        build_projection("linear", 6, 8, heads=3)
