"""Running encoders over batches in which samples share inputs, or lack them.

Shape legend: B samples, U distinct inputs of a batch, N tokens, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from plait.core.batch import Encoded, ModalityInput
from plait.encoders.base.base import Encoder

ROWS = "rows"
"""Name of the tensor (B,) that says which of U distinct inputs each row of a batch shows."""
TOKENS, MASK, POOLED, BOXES = "tokens", "tokens_mask", "pooled", "boxes_of_tokens"
"""Names of the tensors of distinct inputs that are encoded already."""


class BareTower(nn.Module):
    """An encoder without a projection, named as in `plait.models.alignment.alignment.Tower`."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder


def encode(encoder: Encoder, inputs: ModalityInput) -> Encoded:
    """Tokens of one modality; zeros, masked, where a sample lacks it.

    Inputs that several rows share (``rows``) are encoded once; those that `encode_once` has encoded
    are taken as they are. ``features`` (B, D) stand for the pooled output of a frozen encoder: one
    token.
    """
    if "features" in inputs.tensors:
        return _absent_as_zero(_alone(inputs.tensors["features"]), inputs.present)
    if TOKENS in inputs.tensors:
        return _absent_as_zero(_encoded(inputs.tensors), inputs.present)
    tensors = dict(inputs.tensors)
    rows = tensors.pop(ROWS, None)
    if rows is not None:
        return _absent_as_zero(_taken(encoder(ModalityInput.of(**tensors)), rows), inputs.present)
    if bool(inputs.present.all()):
        found: Encoded = encoder(inputs)
        return found
    return _absent_as_zero(encoder(_harmless(inputs)), inputs.present)


def can_encode_once(inputs: ModalityInput) -> bool:
    """Whether the inputs are distinct ones with ``rows``, and all there."""
    return ROWS in inputs.tensors and bool(inputs.present.all())


def encode_once(encoder: Encoder, inputs: ModalityInput) -> ModalityInput:
    """Distinct inputs encoded, for several passes over them."""
    distinct = dict(inputs.tensors)
    rows = distinct.pop(ROWS)
    found = encoder(ModalityInput.of(**distinct))
    tensors = {TOKENS: found.tokens, MASK: found.mask, POOLED: found.pooled, ROWS: rows}
    if found.boxes is not None:
        tensors[BOXES] = found.boxes
    return replace(inputs, tensors=tensors)


def _alone(features: Tensor) -> Encoded:
    """Pooled features (B, D) as the one token that they are."""
    mask = torch.ones(len(features), 1, dtype=torch.bool, device=features.device)
    return Encoded(features[:, None], mask, features)


def _encoded(tensors: Mapping[str, Tensor]) -> Encoded:
    """What `encode_once` made, one a row."""
    found = Encoded(tensors[TOKENS], tensors[MASK], tensors[POOLED], tensors.get(BOXES))
    return _taken(found, tensors[ROWS])


def _taken(found: Encoded, rows: Tensor) -> Encoded:
    """(U, ...) to (B, ...)."""
    return Encoded(
        found.tokens[rows],
        found.mask[rows],
        found.pooled[rows],
        None if found.boxes is None else found.boxes[rows],
    )


def _harmless(inputs: ModalityInput) -> ModalityInput:
    """Zeros for whatever the tensors of absent rows hold."""

    def cleaned(tensor: Tensor) -> Tensor:
        keep = inputs.present.view(-1, *[1] * (tensor.ndim - 1))
        return torch.where(keep, tensor, torch.zeros_like(tensor))

    return replace(inputs, tensors={name: cleaned(t) for name, t in inputs.tensors.items()})


def _absent_as_zero(found: Encoded, present: Tensor) -> Encoded:
    if bool(present.all()):
        return found
    return replace(
        found,
        tokens=found.tokens * present[:, None, None],
        mask=found.mask & present[:, None],
        pooled=found.pooled * present[:, None],
    )
