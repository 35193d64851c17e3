"""The engine that is always there: the encoder itself, in evaluation mode."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from plait.encoders.base.base import Encoder
from plait.engines.tower import PooledTower, evaluating


class TorchEngine:
    """Runs the live encoder: weights that change later change its answers too.

    Args:
        encoder: on any device.
        precision: ``float32``, or ``bfloat16`` for autocast, with images in channels-last order.
    """

    name = "torch"

    def __init__(self, encoder: Encoder, precision: str = "float32") -> None:
        self.encoder, self.precision = encoder, precision
        self._device = next(encoder.parameters()).device

    def run(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """See `Engine.run`."""
        inputs = []
        for array in tensors.values():
            tensor = torch.as_tensor(array).to(self._device, non_blocking=True)
            if tensor.ndim == 4 and self.precision == "bfloat16":
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            inputs.append(tensor)
        tower = PooledTower(self.encoder, list(tensors))
        low = self.precision == "bfloat16"
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=low)
        with evaluating(self.encoder), torch.inference_mode(), autocast:
            return tower(*inputs).float().cpu().numpy()
