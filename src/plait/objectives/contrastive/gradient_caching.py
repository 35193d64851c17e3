"""Contrastive batches larger than the encoders' memory, with exact gradients (GradCache).

Gao, Zhang, Han, Callan: Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup
(2021). Embed chunk by chunk without a graph; differentiate the loss of all embeddings with respect
to them; then embed each chunk again with a graph and hand it its rows of that gradient. Memory is
that of one chunk, the price is one more forward pass.

Plain accumulation of a contrastive loss over micro-batches shrinks the set of negatives;
accumulation with *full* negatives is the same as the above, with the micro-batches as chunks. The
loss is computed once, so that parameters of the loss itself (logit scale, bias) get their gradient
once and not once per chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor

from plait.core.errors import UserError

Chunk = TypeVar("Chunk")


def cached_step(
    embed: Callable[[Chunk], Mapping[str, Tensor]],
    batch_chunks: Sequence[Chunk],
    loss_of_embeddings: Callable[[dict[str, Tensor]], Tensor],
    *,
    backward: Callable[[Tensor], None] = torch.Tensor.backward,
    no_sync: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Tensor:
    """Adds to every parameter's gradient what ``backward`` of the whole batch's loss would add.

    Random numbers of the second pass are those of the first, so that dropout drops the same; the
    generators end where the first pass and the loss left them. ``embed`` must treat each row on its
    own: batch normalisation in training mode would see chunks instead of the batch.

    Args:
        embed: one chunk to named embeddings, each (rows, ...); called twice a chunk.
        batch_chunks: parts of the batch, or micro-batches to be accumulated.
        loss_of_embeddings: the loss of the whole batch, from each name's rows of all chunks.
        backward: starts the backward pass of the loss; for loss scaling and accelerate.
        no_sync: context of all chunks but the last, such as
            ``DistributedDataParallel.no_sync``, so that gradients are averaged once.

    Returns:
        The loss, detached.

    Raises:
        UserError: no chunks.
    """
    if not batch_chunks:
        raise UserError("a step needs at least one chunk")
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    states, embedded = [], []
    with torch.no_grad():
        for chunk in batch_chunks:
            states.append(_random_state(devices))
            embedded.append(dict(embed(chunk)))
    leaves = {
        name: torch.cat([part[name] for part in embedded]).requires_grad_() for name in embedded[0]
    }
    sizes = [{name: len(tensor) for name, tensor in part.items()} for part in embedded]
    del embedded
    with torch.enable_grad():
        loss = loss_of_embeddings(leaves)
    with no_sync():
        backward(loss)
    with torch.random.fork_rng(devices=devices):
        _replay(embed, batch_chunks, (states, devices), _split(leaves, sizes), no_sync)
    return loss.detach()


def _split(
    leaves: Mapping[str, Tensor], sizes: Sequence[Mapping[str, int]]
) -> list[dict[str, Tensor]]:
    """The gradient of each leaf, cut into each chunk's rows."""
    parts: list[dict[str, Tensor]] = [{} for _ in sizes]
    for name, leaf in leaves.items():
        if leaf.grad is None:  # the loss doesn't use it
            continue
        for part, rows in zip(parts, leaf.grad.split([size[name] for size in sizes]), strict=True):
            part[name] = rows
    return parts


def _replay(
    embed: Callable[[Chunk], Mapping[str, Tensor]],
    chunks: Sequence[Chunk],
    random: tuple[Sequence[tuple[Tensor, list[Tensor]]], Sequence[int]],
    gradients: Sequence[Mapping[str, Tensor]],
    no_sync: Callable[[], AbstractContextManager[object]],
) -> None:
    states, devices = random
    for number, (chunk, state, gradient) in enumerate(zip(chunks, states, gradients, strict=True)):
        last = number == len(chunks) - 1
        _set_random_state(state, devices)
        with nullcontext() if last else no_sync(), torch.enable_grad():
            outputs = embed(chunk)
            learnt = [name for name in gradient if outputs[name].requires_grad]
            if learnt:  # none where all towers are frozen
                torch.autograd.backward(
                    [outputs[name] for name in learnt], [gradient[name] for name in learnt]
                )


def _random_state(devices: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), [torch.cuda.get_rng_state(device) for device in devices]


def _set_random_state(state: tuple[Tensor, list[Tensor]], devices: Sequence[int]) -> None:
    torch.set_rng_state(state[0])
    for device, part in zip(devices, state[1], strict=True):
        torch.cuda.set_rng_state(part, device)
