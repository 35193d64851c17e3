"""A vision-language model: encoders, one way of bringing their outputs together, and heads.

Shape legend: B samples, U distinct pictures of a batch, N tokens, D features, A answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from plait.core.batch import Batch, Encoded, Fused, ModalityInput
from plait.core.errors import ModelError
from plait.core.modality import IMAGE, TEXT
from plait.encoders.base.base import Encoder
from plait.fusion.base import Fusion
from plait.models.base.encoding import BareTower, can_encode_once, encode, encode_once
from plait.models.base.heads import AnyHead, Head, TokenHead
from plait.models.base.summary import short_repr
from plait.models.systems.base import System


class FusionModel(nn.Module):
    """Answers from several modalities together.

    Args:
        encoders: by modality. A `System` embeds texts itself: of its text encoder only the
            tokenizer is used.
        joint: a fusion of encoded modalities, or one of the classic systems.
        heads: by the name of the task that reads them.
        without: modalities that it takes for absent, whatever a batch holds: a control.

    Raises:
        ModelError: a system without an image or a text encoder, or with a third.
    """

    __repr__ = short_repr

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        joint: Fusion | System,
        heads: Mapping[str, AnyHead],
        without: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if isinstance(joint, System) and set(encoders) != {IMAGE, TEXT}:
            raise ModelError(
                f"a vision-language system reads image and text, not {', '.join(encoders)}"
            )
        self.towers = nn.ModuleDict({name: BareTower(one) for name, one in encoders.items()})
        self.joint = joint
        self.heads = nn.ModuleDict(heads)
        self.without = tuple(without)
        self.balance: nn.Module | None = None  # of the tasks of the stage that trains it

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that it reads."""
        return tuple(self.towers)

    def tower(self, modality: str) -> BareTower:
        """The tower of a modality.

        Raises:
            ModelError: the model has none.
        """
        if modality not in self.towers:
            raise ModelError(f"this model reads {', '.join(self.towers)}, not {modality!r}")
        tower = self.towers[modality]
        assert isinstance(tower, BareTower)
        return tower

    def head(self, name: str) -> AnyHead:
        """A head by the name of its task.

        Raises:
            ModelError: the model was trained without it.
        """
        if name not in self.heads:
            known = ", ".join(self.heads) or "none"
            raise ModelError(f"this model has no head for {name!r} (it has: {known})")
        head = self.heads[name]
        assert isinstance(head, Head | TokenHead)
        return head

    def labels(self, name: str) -> tuple[str, ...]:
        """What the logits of a head stand for."""
        head = self.head(name)
        assert isinstance(head, Head), name
        return head.labels

    def about(self, name: str) -> Mapping[str, str]:
        """What a head's task was (see `Head`)."""
        head = self.head(name)
        assert isinstance(head, Head), name
        return head.about

    def clamp_scale(self) -> None:
        """Nothing to bring back into range after an update."""

    def encode(self, modality: str, inputs: ModalityInput) -> Encoded:
        """Tokens of one modality; zeros, masked, where a sample lacks it.

        ``features`` (B, D) stand for the pooled output of a frozen encoder, for a fusion that
        reads nothing else; see `plait.models.base.encoding.encode`.
        """
        return encode(self.tower(modality).encoder, inputs)

    def encoded_once(self, batch: Batch, modality: str) -> Batch:
        """The batch with a modality's distinct inputs encoded, for several forward passes over it.

        Only inputs that come with ``rows`` and are all there; others stay as they are.
        """
        inputs = batch.modalities[modality]
        if modality in self.without or not can_encode_once(inputs):
            return batch
        encoded = encode_once(self.tower(modality).encoder, inputs)
        return replace(batch, modalities={**batch.modalities, modality: encoded})

    def fuse(self, batch: Batch, *, masked_regions: Tensor | None = None) -> Fused:
        """What all heads read.

        Args:
            batch: every modality of the model.
            masked_regions: (B, N) image tokens hidden from a system (masked region modelling).
        """
        if self.without:
            batch = _lacking(batch, self.without)
        if isinstance(self.joint, System):
            text = batch.modalities[TEXT]
            ids, mask = text.tensors["ids"], text.mask
            mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
            mask = mask & text.present[:, None]
            regions = self.encode(IMAGE, batch.modalities[IMAGE])
            fused: Fused = self.joint(ids, mask, regions, masked_regions=masked_regions)
            return fused
        parts, present = {}, {}
        for name in self.modalities:
            parts[name] = self.encode(name, batch.modalities[name])
            present[name] = batch.modalities[name].present
        out: Fused = self.joint(parts, present)
        return out

    forward = fuse

    def vector(self, fused: Fused) -> Tensor:
        """(B, D) what heads of whole samples read."""
        return self.joint.answer_vector(fused) if isinstance(self.joint, System) else fused.pooled

    def answer(self, batch: Batch) -> Tensor:
        """(B, A) logits of the answers."""
        return self.head("answer")(self.vector(self.fuse(batch)))


def _lacking(batch: Batch, modalities: Sequence[str]) -> Batch:
    hidden = {
        name: replace(part, present=torch.zeros_like(part.present))
        for name, part in batch.modalities.items()
        if name in modalities
    }
    return replace(batch, modalities={**batch.modalities, **hidden})
