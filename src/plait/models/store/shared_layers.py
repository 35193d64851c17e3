"""Models whose towers share layers: under which names the weights stand, and how many there are."""

from __future__ import annotations

import copy

from torch import nn

from plait.encoders.base.base import Encoder
from plait.encoders.compose import sharing
from plait.models.store.kinds import Model


def encoders_of(model: Model) -> dict[str, Encoder]:
    """The encoders by modality."""
    return {name: model.tower(name).encoder for name in model.modalities}


def shared_layers(model: Model) -> int:
    """How many of the first blocks are the same in all towers."""
    return sharing.shared_layers(encoders_of(model))


def other_names(model: Model) -> dict[str, str]:
    """The names in ``state_dict`` of shared weights after the first, each to that first one.

    Saved models and checkpoints hold the first alone.
    """
    count = shared_layers(model)
    if not count:
        return {}
    encoders = encoders_of(model)
    blocks = next(iter(encoders.values())).blocks
    assert isinstance(blocks, nn.ModuleList)
    return sharing.other_names([f"towers.{name}.encoder" for name in encoders], blocks, count)


def separated(model: Model) -> Model:
    """A copy of the model in which every tower has blocks of its own, equal in value."""
    copied = copy.deepcopy(model)
    sharing.separate_blocks(encoders_of(copied))
    return copied


def parameter_count(module: nn.Module) -> int:
    """Numbers in the parameters of a module, shared ones counted once."""
    return sum(parameter.numel() for parameter in module.parameters())
