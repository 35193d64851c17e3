"""What flows between the folders: `Batch` into encoders, `Encoded` out of them.

Shape legend: B samples, N positions (patches, grid cells, words), D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from plait.core.modality import TEXT


@dataclass(frozen=True)
class ModalityInput:
    """One modality of a batch, as its encoder takes it.

    Attributes:
        tensors: named inputs, each of shape (B, ...). Images: ``pixels`` uint8 (B, 3, H, W), not
            yet normalised (the encoder does that, so that every engine sees the same bytes).
            Text: ``ids`` int64 (B, N). Output of a frozen tower read from a cache: ``features``
            float (B, D), which stands for the encoder's pooled output.
        present: (B,) False where the sample lacks this modality; its tensors are then ignored.
        mask: (B, N) True for real positions, False for padding; None when all are real.
    """

    tensors: Mapping[str, Tensor]
    present: Bool[Tensor, " B"]
    mask: Bool[Tensor, "B N"] | None = None

    @classmethod
    def of(cls, mask: Tensor | None = None, **tensors: Tensor) -> ModalityInput:
        """All samples present: ``ModalityInput.of(pixels=...)``."""
        first = next(iter(tensors.values()))
        present = torch.ones(len(first), dtype=torch.bool, device=first.device)
        return cls(tensors, present, mask)

    def __len__(self) -> int:
        return len(self.present)

    def map(self, function: Callable[[Tensor], Tensor]) -> ModalityInput:
        """The same with ``function`` applied to every tensor (to move, index or pin them)."""
        return ModalityInput(
            {name: function(tensor) for name, tensor in self.tensors.items()},
            function(self.present),
            None if self.mask is None else function(self.mask),
        )


@dataclass(frozen=True)
class Batch:
    """What collation yields and tasks consume.

    Attributes:
        ids: the sample id of each row; one sample may give several rows (its captions).
        groups: (B,) rows with the same number show the same thing or have the same text, so that
            each is a positive of the others in contrastive objectives.
        modalities: by modality name (see `plait.core.modality`).
        targets: named supervision tensors, each (B, ...).
        meta: raw values of each row for reports, or empty.
        tasks: names of the tasks that this batch is for; empty means all.
        texts: by task, the text that it reads in place of the batch's.
        groups_of: by task, the groups where its own text makes other ones.
    """

    ids: Sequence[str]
    groups: Int64[Tensor, " B"]
    modalities: Mapping[str, ModalityInput]
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    meta: Sequence[Mapping[str, Any]] = ()
    tasks: tuple[str, ...] = ()
    texts: Mapping[str, ModalityInput] = field(default_factory=dict)
    groups_of: Mapping[str, Int64[Tensor, " B"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The same with ``function`` applied to every tensor."""
        return replace(
            self,
            groups=function(self.groups),
            modalities={name: part.map(function) for name, part in self.modalities.items()},
            targets={name: function(tensor) for name, tensor in self.targets.items()},
            texts={name: part.map(function) for name, part in self.texts.items()},
            groups_of={name: function(groups) for name, groups in self.groups_of.items()},
        )

    def of(self, task: str) -> Batch:
        """The batch as one task reads it: with the text of its own, if it has one."""
        own = self.texts.get(task)
        if own is None:
            return self
        groups = self.groups_of.get(task, self.groups)
        modalities = {**self.modalities, TEXT: own}
        return replace(self, groups=groups, modalities=modalities, texts={}, groups_of={})

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def rows(self, start: int, stop: int) -> Batch:
        """Rows ``start`` to ``stop``, as a batch of its own (for chunks of a large batch)."""
        part = self.map(lambda tensor: tensor[start:stop])
        return replace(part, ids=self.ids[start:stop], meta=self.meta[start:stop])


@dataclass(frozen=True)
class Encoded:
    """What every encoder of every modality returns.

    Attributes:
        tokens: (B, N, D) one vector a position.
        mask: (B, N) True for real positions.
        pooled: (B, P) one vector a sample; P differs from D where pooling concatenates.
        boxes: (B, N, 4) where each token of a picture lies: x1, y1, x2, y2 as shares of width and
            height. A token that stands for the whole picture has 0, 0, 1, 1. None: no places.
    """

    tokens: Float[Tensor, "B N D"]
    mask: Bool[Tensor, "B N"]
    pooled: Float[Tensor, "B P"]
    boxes: Float[Tensor, "B N 4"] | None = None


@dataclass(frozen=True)
class Fused:
    """What every fusion and every vision-language system returns.

    Attributes:
        pooled: (B, P) one vector a sample, made of all its modalities.
        parts: by modality its tokens after they saw the others, with their mask; empty where an
            idea keeps none.
    """

    pooled: Float[Tensor, "B P"]
    parts: Mapping[str, Encoded] = field(default_factory=dict)
