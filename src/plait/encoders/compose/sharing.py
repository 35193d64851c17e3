"""Towers that share their lower layers: the first blocks of every encoder are the same modules.

A joint optimisation network: what all modalities or tasks have in common is learned once. You et
al. 2022 ("Learning Visual Representation from Modality-Shared Contrastive Language-Image
Pre-training", MS-CLIP) show that image and text transformers may share most of their weights; they
keep embeddings, layer norms and projections apart. Here whole blocks are shared, from the lowest
on, and embeddings, final norms and projections are apart.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from plait.core.errors import ModelError
from plait.encoders.base.base import Encoder
from plait.nn.transformer import Block


def share_blocks(encoders: Mapping[str, Encoder], count: int) -> None:
    """Makes the first ``count`` blocks of every encoder those of the first one, in place.

    Args:
        encoders: by modality.
        count: of blocks; 0 changes nothing.

    Raises:
        ModelError: an encoder without blocks, with too few of them, or with blocks of another
            architecture.
    """
    if count == 0:
        return
    blocks = {name: _blocks(name, encoder, count) for name, encoder in encoders.items()}
    first = next(iter(blocks))
    for name in blocks:
        for place in range(count):
            _check_alike(first, blocks[first][place], name, blocks[name][place], place)
    for name in blocks:
        for place in range(count):
            blocks[name][place] = blocks[first][place]


def shared_layers(encoders: Mapping[str, Encoder]) -> int:
    """How many of the first blocks are the same modules in every encoder."""
    found = [getattr(encoder, "blocks", ()) for encoder in encoders.values()]
    if len(found) < 2:
        return 0
    count = 0
    for layer in zip(*found, strict=False):
        if any(block is not layer[0] for block in layer):
            break
        count += 1
    return count


def separate_blocks(encoders: Mapping[str, Encoder]) -> None:
    """Gives every encoder blocks of its own where they were shared, equal in value, in place."""
    count = shared_layers(encoders)
    for encoder in list(encoders.values())[1:]:
        blocks = encoder.blocks
        assert isinstance(blocks, nn.ModuleList)
        for place in range(count):
            blocks[place] = copy.deepcopy(blocks[place])


def other_names(names: Sequence[str], first: nn.ModuleList, count: int) -> dict[str, str]:
    """The names under which shared weights stand again, to the name that they are kept under.

    Args:
        names: of the encoders within a model, such as ``towers.text.encoder``; the first keeps.
        first: the blocks of the first encoder.
        count: how many of them are shared.
    """
    weights = [f"blocks.{k}.{key}" for k in range(count) for key in first[k].state_dict()]
    return {f"{name}.{key}": f"{names[0]}.{key}" for name in names[1:] for key in weights}


def _blocks(name: str, encoder: Encoder, count: int) -> nn.ModuleList:
    blocks = getattr(encoder, "blocks", None)
    if not isinstance(blocks, nn.ModuleList) or not all(isinstance(b, Block) for b in blocks):
        raise ModelError(
            f"shared_layers {count}: the {name} tower ({type(encoder).__name__}) has no transformer "
            "blocks that could be shared: take scratch/vit for pictures and scratch/transformer for "
            "texts, or set model.shared_layers to 0"
        )
    if len(blocks) < count:
        raise ModelError(
            f"shared_layers {count}: the {name} tower has only {len(blocks)} of them: raise layers "
            f"in model.towers.{name}.options, or set model.shared_layers to at most {len(blocks)}"
        )
    return blocks


def _check_alike(first: str, left: nn.Module, name: str, right: nn.Module, place: int) -> None:
    wanted, found = _architecture(left), _architecture(right)
    differ = [key for key in wanted if wanted[key] != found[key]]
    if differ:
        told = ", ".join(f"{key} {found[key]} and {wanted[key]}" for key in differ)
        raise ModelError(
            f"shared_layers: block {place + 1} of the {name} tower cannot be that of the {first} "
            f"tower ({told}): make their {' and '.join(differ)} equal in "
            f"model.towers.{name}.options, or set model.shared_layers to {place}"
        )


def _architecture(block: nn.Module) -> dict[str, Any]:
    assert isinstance(block, Block)
    return {
        "width": block.attention.out.in_features,
        "heads": block.attention.heads,
        "hidden": block.mlp.up.out_features,
        "activation": str(block.mlp.act),
        "eps": block.norm1.eps,
    }
