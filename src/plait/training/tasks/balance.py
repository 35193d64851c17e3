"""How the losses of several tasks are weighed against one another.

Legend: T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["fixed", "uncertainty", "gradients"]
MEASURE_EVERY = 10  # updates between two looks at the tasks' gradients
KEEP = 0.9  # share of the old gradient norm kept at a look

Mean = Callable[[Tensor], Tensor]
"""A tensor of every process to their mean, the same in all of them."""


def alone(tensor: Tensor) -> Tensor:
    """The mean of one process."""
    return tensor


class Balance(nn.Module):
    """Weights of tasks: fixed, learned from uncertainty, or by the size of their gradients.

    - ``fixed``: the recipe's weights.
    - ``uncertainty``: each loss L becomes ``exp(-s) L + s / 2`` with s = the log variance of the
      task, learned along (Kendall et al. 2018, equation 10, with 1/2 taken into the loss).
    - ``gradients``: each loss is scaled so that the norms of the tasks' gradients of the shared
      parameters are in the proportion of the recipe's weights (the aim of GradNorm, Chen et al.
      2018, with r = 1, reached directly instead of by gradient descent).

    With two tasks or more the cosine between their gradients of the shared parameters is measured
    now and then, whatever the kind: below zero they pull against one another (Yu et al. 2020).

    Args:
        tasks: their names.
        kind: see above.
    """

    norms: Tensor
    updates: Tensor

    def __init__(self, tasks: Sequence[str], kind: Kind = "fixed") -> None:
        super().__init__()
        self.tasks, self.kind = tuple(tasks), kind
        # Without a gradient for the other kinds; a parameter all the same, so that checkpoints keep
        # this module's buffers like those of every module that trains.
        self.log_variance = nn.Parameter(torch.zeros(len(tasks)))
        self.register_buffer("norms", torch.zeros(len(tasks)))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        losses: Mapping[str, Tensor],
        weights: Mapping[str, float],
        model: nn.Module,
        mean: Mean = alone,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(the weighted sum, notes for the record).

        Args:
            losses: of this update's tasks, with their graphs.
            weights: the recipe's.
            model: its part ``joint`` holds the shared parameters.
            mean: over processes that share a batch: gradients are measured after it, so that all
                of them weigh the tasks alike.
        """
        notes: dict[str, Tensor] = {}
        if len(losses) > 1 and torch.is_grad_enabled():
            if int(self.updates) % MEASURE_EVERY == 0:
                notes |= self._look(losses, model, mean)
            self.updates += 1
        terms = []
        for name, loss in losses.items():
            place = self.tasks.index(name)
            if self.kind == "uncertainty":
                spread = self.log_variance[place]
                terms.append(weights[name] * (loss * torch.exp(-spread) + spread / 2))
                notes[f"weight/{name}"] = torch.exp(-spread.detach())
            else:
                scale = self._scale(place, losses) if self.kind == "gradients" else 1.0
                terms.append(weights[name] * scale * loss)
        return torch.stack([term.to(torch.float32) for term in terms]).sum(), notes

    def _scale(self, place: int, losses: Mapping[str, Tensor]) -> float:
        """Mean of the gradients' norms over the norm of this task's; 1 before the first look."""
        own = float(self.norms[place])
        others = [float(self.norms[self.tasks.index(name)]) for name in losses]
        if own <= 0 or min(others) <= 0:
            return 1.0
        return sum(others) / len(others) / own

    def _look(
        self, losses: Mapping[str, Tensor], model: nn.Module, mean: Mean
    ) -> dict[str, Tensor]:
        """Measures norms and cosines of the tasks' gradients of the shared parameters."""
        shared = [p for p in _shared(model) if p.requires_grad]
        if not shared:
            return {}
        flat = {}
        for name, loss in losses.items():
            grads = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
            pieces = [
                torch.zeros_like(p).flatten() if g is None else g.detach().flatten()
                for p, g in zip(shared, grads, strict=True)
            ]
            flat[name] = mean(torch.cat([piece.float() for piece in pieces]))
            place, norm = self.tasks.index(name), flat[name].norm()
            old = self.norms[place]
            self.norms[place] = torch.where(old > 0, KEEP * old + (1 - KEEP) * norm, norm)
        names = list(flat)
        notes = {f"gradient/{name}": flat[name].norm() for name in names}
        for number, one in enumerate(names):
            for other in names[number + 1 :]:
                cosine = nn.functional.cosine_similarity(flat[one], flat[other], dim=0)
                notes[f"agreement/{one}-{other}"] = cosine
        return notes


def _shared(model: nn.Module) -> list[nn.Parameter]:
    joint = getattr(model, "joint", model)
    return list(joint.parameters())
