"""What a tower costs: multiply-adds of one input, and bytes of its weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from plait.encoders.base.base import Encoder
from plait.engines.base import probe_inputs
from plait.engines.tower import PooledTower, evaluating
from plait.models.alignment.alignment import AlignmentModel


def multiply_adds(encoder: Encoder, sample: Mapping[str, np.ndarray] | None = None) -> int:
    """Multiply-adds of one row: those of matrix products, convolutions and attention.

    Args:
        encoder: read only.
        sample: inputs of which the first row is counted; None for made-up ones. A text counts with
            its padding.
    """
    sample = probe_inputs(encoder) if sample is None else sample
    device = next(encoder.parameters()).device
    first = [torch.as_tensor(np.ascontiguousarray(v[:1])).to(device) for v in sample.values()]
    tower = PooledTower(encoder, list(sample))
    counter = FlopCounterMode(display=False)
    with evaluating(encoder), torch.no_grad(), counter:
        tower(*first)
    return counter.get_total_flops() // 2


def model_cost(
    model: AlignmentModel, samples: Mapping[str, Mapping[str, np.ndarray]] | None = None
) -> dict[str, int]:
    """Multiply-adds by modality, projections included, for one row of each."""
    found = {}
    for name in model.modalities:
        tower = model.tower(name)
        sample = None if samples is None else samples.get(name)
        projection = sum(p.numel() for p in tower.projection.parameters() if p.ndim == 2)
        found[name] = multiply_adds(tower.encoder, sample) + projection
    return found


def weight_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers, shared ones once."""
    tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def own_copy(encoder: Encoder) -> Encoder:
    """A copy with weights of its own; the preprocessing is shared."""
    return copy.deepcopy(encoder, {id(encoder.preprocess): encoder.preprocess})
