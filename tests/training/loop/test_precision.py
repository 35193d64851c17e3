from __future__ import annotations

import pytest
import torch
from torch import nn

from plait.training.loop.precision import autocast, channels_last, resolve

CPU = torch.device("cpu")


@pytest.mark.parametrize("able", [False, True])
def test_auto_is_bfloat16_where_an_encoder_trains_and_the_processor_can(
    able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plait.training.loop.precision.processor_has_bf16", lambda: able)
    expected = torch.bfloat16 if able else torch.float32
    assert resolve("auto", CPU, trains_encoder=True) == expected
    assert resolve("auto", CPU, trains_encoder=False) == torch.float32
    assert resolve("bfloat16", CPU, trains_encoder=False) == torch.bfloat16
    assert resolve("float32", CPU, trains_encoder=True) == torch.float32


def test_weights_and_gradients_stay_in_float32() -> None:
    layer = nn.Linear(4, 3)
    with autocast(CPU, torch.bfloat16):
        out = layer(torch.randn(2, 4))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert layer.weight.dtype == torch.float32
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    with autocast(CPU, torch.float32):
        assert layer(torch.randn(2, 4)).dtype == torch.float32


def test_channels_last_changes_the_layout_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 2))
    x = torch.randn(2, 3, 8, 8)
    before = model(x)
    channels_last(model)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x), before)
