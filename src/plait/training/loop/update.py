"""One update of the weights: loss, gradients, clipping, optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from plait.core.batch import Batch
from plait.objectives.contrastive.gradient_caching import cached_step
from plait.training.loop.optimise import part_of, set_rate
from plait.training.loop.precision import autocast
from plait.training.loop.task import EmbeddingTask, Task, TaskLoss


@dataclass(frozen=True)
class UpdateRecord:
    """What one update was like.

    Attributes:
        loss: the total.
        parts: named parts of it.
        grad_norm: of all gradients, before clipping.
        part_norms: of the gradients of each part (``image.projection``).
        rows: size of the global batch.
        floor: the least that InfoNCE can be on it: the mean over its rows of the logarithm of how many
            are positives, 0 where each has one.
    """

    loss: float
    parts: Mapping[str, float]
    grad_norm: float
    part_norms: Mapping[str, float]
    rows: int
    floor: float = 0.0

    @property
    def finite(self) -> bool:
        """Whether loss and gradients are numbers."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class Updater:
    """Makes updates.

    Args:
        model: its trainable parameters change.
        task: gives the loss.
        optimiser: over the trainable parameters.
        accelerator: device and processes (`accelerate.Accelerator`).
        dtype: of the computation.
        clip: largest gradient norm; None for no clipping.
        chunk: rows encoded at a time (gradient caching); None for the whole batch.
        after: called after every update, e.g. to bring the temperature back into its range.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        optimiser: torch.optim.Optimizer,
        accelerator: Any,
        *,
        dtype: torch.dtype = torch.float32,
        clip: float | None = None,
        chunk: int | None = None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        self.after = after
        self.task, self.optimiser, self.accelerator = task, optimiser, accelerator
        self.dtype, self.clip, self.chunk = dtype, clip, chunk
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.parameters = [parameter for _, parameter in named]
        self.parts = [part_of(name) for name, _ in named]

    def __call__(self, batch: Batch, factor: float) -> UpdateRecord:
        """One update at ``factor`` of the learning rate; none where the gradient is no number."""
        set_rate(self.optimiser, factor)
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._reduce(self.backward(batch))
        grads = [p.grad for p in self.parameters if p.grad is not None]
        record = self._record(loss, batch)
        if record.finite:
            if self.clip is not None and record.grad_norm > self.clip:
                torch._foreach_mul_(grads, self.clip / record.grad_norm)
            self.optimiser.step()
            self.after()
        return record

    def backward(self, batch: Batch) -> TaskLoss:
        """Gradients of this process's rows."""
        if self.chunk is not None and self.chunk < len(batch):
            assert isinstance(self.task, EmbeddingTask)
            return self._cached_backward(self.task, batch, self.chunk)
        with autocast(self.accelerator.device, self.dtype):
            loss = self.task.loss(batch)
        loss.total.backward()  # type: ignore[no-untyped-call]
        return loss

    def _cached_backward(self, task: EmbeddingTask, batch: Batch, chunk: int) -> TaskLoss:
        """The same gradients in the memory of one chunk (`plait.objectives.contrastive.gradient_caching`)."""
        device, losses = self.accelerator.device, []

        def embed(part: Batch) -> Mapping[str, Tensor]:
            with autocast(device, self.dtype):
                return task.embed(part)

        def loss_of_embeddings(embeddings: Mapping[str, Tensor]) -> Tensor:
            losses.append(task.loss_of_embeddings(embeddings, batch))
            return losses[0].total

        parts = [batch.rows(k, k + chunk) for k in range(0, len(batch), chunk)]
        cached_step(embed, parts, loss_of_embeddings)
        return losses[0]

    def _reduce(self, loss: TaskLoss) -> TaskLoss:
        """Averages gradients, the loss and its parts over the processes; gives the averaged loss.

        A parameter that has a gradient in some processes alone counts as zero in the others; one
        that has none anywhere (the head of a task that was not drawn) stays without, so that the
        optimiser passes it over as it does in one process.

        Not by DistributedDataParallel: its hooks expect one backward pass an update, and gradient
        caching makes one a chunk.
        """
        if self.accelerator.num_processes == 1:
            return loss
        with torch.no_grad():
            grads = [p.grad for p in self._having_gradients() if p.grad is not None]
            figures = torch.stack(
                [one.detach().to(loss.total) for one in (loss.total, *loss.parts.values())]
            )
            flat = torch.cat([figures, *(grad.reshape(-1) for grad in grads)])
            flat = self.accelerator.reduce(flat, reduction="mean")
            figures, *pieces = _split(flat, [figures, *grads])
            for grad, piece in zip(grads, pieces, strict=True):
                grad.copy_(piece)
        return TaskLoss(figures[0], dict(zip(loss.parts, figures[1:], strict=True)))

    def _having_gradients(self) -> list[nn.Parameter]:
        """The parameters with a gradient in any process; here too, if need be of zeros."""
        here = [float(parameter.grad is not None) for parameter in self.parameters]
        mask = torch.tensor(here, device=self.accelerator.device)
        anywhere = self.accelerator.reduce(mask, reduction="sum") > 0
        having = [p for p, one in zip(self.parameters, anywhere.tolist(), strict=True) if one]
        for parameter in having:
            if parameter.grad is None:  # a process whose rows lack a modality
                parameter.grad = torch.zeros_like(parameter)
        return having

    def _record(self, loss: TaskLoss, batch: Batch) -> UpdateRecord:
        squares: dict[str, float] = dict.fromkeys(self.parts, 0.0)
        having = [
            (part, p.grad) for part, p in zip(self.parts, self.parameters) if p.grad is not None
        ]
        norms = torch._foreach_norm([grad for _, grad in having])
        for (part, _), norm in zip(having, torch.stack(norms).tolist()):
            squares[part] += norm * norm
        return UpdateRecord(
            loss=float(loss.total.detach()),
            parts={name: float(value) for name, value in loss.parts.items()},
            grad_norm=math.sqrt(sum(squares.values())),
            part_norms={part: math.sqrt(square) for part, square in squares.items()},
            rows=len(batch) * self.accelerator.num_processes,
            floor=info_nce_floor(self.accelerator.gather(batch.groups)),
        )


def info_nce_floor(ids: Int64[Tensor, " B"]) -> float:
    """The least InfoNCE of rows that are positives of those of their id."""
    count = ids.unique(return_counts=True)[1].double()
    return float((count * count.log()).sum() / count.sum())


def _split(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    pieces = flat.split([tensor.numel() for tensor in like])
    return [piece.view_as(tensor) for piece, tensor in zip(pieces, like, strict=True)]
