"""Encoded modalities of different widths brought to one width, with all that is unreal taken out.

Whatever stands at padded positions, or in rows that lack a modality, is replaced by zeros before
the first multiplication. Zeros and not a mask afterwards: 0 times NaN is NaN, in gradients too.

Shape legend: B samples, N tokens, M modalities, D features of a token, P of a pooled vector, W the
width of the fusion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from plait.core.batch import Encoded
from plait.core.errors import ModelError, did_you_mean
from plait.core.modality import IMAGE, MODALITIES, VIDEO
from plait.fusion.base import Parts, Present

PLACED = (IMAGE, VIDEO)
"""Modalities whose tokens lie somewhere in a picture."""

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The box of a token that stands for the whole picture."""


@dataclass(frozen=True)
class Tokens:
    """One modality's tokens inside a fusion.

    Attributes:
        values: (B, N, W) finite everywhere, but meaningless where ``real`` is False.
        real: (B, N) False for padding and for rows without the modality.
        present: (B,) False for rows without the modality.
        boxes: as `Encoded.boxes`.
    """

    values: Float[Tensor, "B N W"]
    real: Bool[Tensor, "B N"]
    present: Bool[Tensor, " B"]
    boxes: Float[Tensor, "B N 4"] | None

    def encoded(self, values: Tensor, pooled: Tensor | None = None) -> Encoded:
        """New values (B, N, W) at the same places; pooled by their mean unless given."""
        values = only(values, self.real)
        if pooled is None:
            counts = self.real.sum(dim=1, keepdim=True).clamp(min=1)
            pooled = values.sum(dim=1) / counts
        return Encoded(values, self.real, only(pooled, self.present), self.boxes)


def in_order(names: Iterable[str], least: int = 2) -> tuple[str, ...]:
    """Modalities in the order of `plait.core.modality`, so that a mapping's order never matters.

    Raises:
        ModelError: an unknown modality, or fewer than ``least``.
    """
    given = list(names)
    for name in given:
        if name not in MODALITIES:
            raise ModelError(
                f"fusion: no modality {name!r}{did_you_mean(name, MODALITIES)}"
                f" (have: {', '.join(MODALITIES)})"
            )
    if len(given) < least:
        raise ModelError(
            f"fusion: brings at least two modalities together, got {', '.join(given) or 'none'}"
        )
    return tuple(name for name in MODALITIES if name in given)


def ordered(widths: Mapping[str, int], least: int = 2) -> dict[str, int]:
    """The same in the order of `in_order`, checked as it does."""
    return {name: int(widths[name]) for name in in_order(widths, least)}


def only(values: Tensor, keep: Tensor) -> Tensor:
    """``values`` (..., D) where ``keep`` (...), zero elsewhere, whatever stood there."""
    return torch.where(keep[..., None], values, torch.zeros_like(values))


def check_parts(parts: Parts, known: Iterable[str]) -> None:
    """Raises ModelError for a modality that the fusion does not know, or for none at all."""
    known = tuple(known)
    for name in parts:
        if name not in known:
            raise ModelError(
                f"this fusion was built for {', '.join(known)}; it got {name!r} as well"
            )
    if not parts:
        raise ModelError(f"this fusion was built for {', '.join(known)}; it got no modality")


class TokenInputs(nn.Module):
    """Tokens of each modality to one width: norm, linear, then its type and its place added.

    The place of a token of a picture is a linear function of its box (x1, y1, x2, y2); tokens
    without boxes count as the whole picture.

    Args:
        widths: features of a token, by modality.
        width: what they are brought to.
        least: how many modalities there must be.
    """

    def __init__(self, widths: Mapping[str, int], width: int, least: int = 2) -> None:
        super().__init__()
        self.widths, self.width = ordered(widths, least), width
        self.norms = nn.ModuleDict({name: nn.LayerNorm(d) for name, d in self.widths.items()})
        self.linears = nn.ModuleDict({name: nn.Linear(d, width) for name, d in self.widths.items()})
        self.places = nn.ModuleDict(
            {name: nn.Linear(4, width, bias=False) for name in self.widths if name in PLACED}
        )
        self.types = nn.Parameter(0.02 * torch.randn(len(self.widths), width))

    def forward(
        self, parts: Parts, present: Present, like: Encoded | None = None
    ) -> dict[str, Tokens]:
        """By modality, in order, whether given or not.

        ``like`` has the rows, device and dtype of what is not given; any part when None.
        """
        if like is None:
            check_parts(parts, self.widths)
            like = next(iter(parts.values()))
        found = {}
        for number, name in enumerate(self.widths):
            if name in parts:
                found[name] = self._one(name, number, parts[name], present[name])
            else:
                found[name] = self._none(name, number, like)
        return found

    def _one(self, name: str, number: int, part: Encoded, here: Tensor) -> Tokens:
        real = part.mask & here[:, None]
        boxes = None if part.boxes is None else only(part.boxes, real)
        values = self._project(name, number, only(part.tokens, real), boxes)
        return Tokens(values, real, here, boxes)

    def _none(self, name: str, number: int, other: Encoded) -> Tokens:
        """One unreal token a sample, so that every parameter still takes part in the graph."""
        nothing = other.mask.new_zeros(other.mask.shape[0], 1)
        tokens = other.tokens.new_zeros(other.mask.shape[0], 1, self.widths[name])
        return Tokens(self._project(name, number, tokens, None), nothing, nothing[:, 0], None)

    def _project(self, name: str, number: int, tokens: Tensor, boxes: Tensor | None) -> Tensor:
        values: Tensor = self.linears[name](self.norms[name](tokens)) + self.types[number]
        if name not in self.places:
            return values
        place = values.new_tensor(WHOLE) if boxes is None else boxes.to(values.dtype)
        placed: Tensor = values + self.places[name](place)
        return placed


class PooledInputs(nn.Module):
    """Pooled vectors of each modality, normalised and with zeros where it is absent.

    Args:
        widths: features of a pooled vector, by modality.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.widths = ordered(widths)
        self.norms = nn.ModuleDict({name: nn.LayerNorm(p) for name, p in self.widths.items()})

    def forward(self, parts: Parts, present: Present) -> tuple[list[Tensor], Bool[Tensor, "B M"]]:
        """([(B, P) of each modality, in order], (B, M) which are there)."""
        check_parts(parts, self.widths)
        other = next(iter(parts.values()))
        rows = other.pooled.shape[0]  # not len, which exporters take for a constant
        vectors, there = [], []
        for name, width in self.widths.items():
            if name in parts:
                vector, here = only(parts[name].pooled, present[name]), present[name]
            else:
                vector, here = other.pooled.new_zeros(rows, width), other.mask.new_zeros(rows)
            vectors.append(only(self.norms[name](vector), here))
            there.append(here)
        return vectors, torch.stack(there, dim=1)


def share(scores: Tensor, there: Bool[Tensor, "B M"]) -> Tensor:
    """Softmax over the modalities that a sample has.

    Args:
        scores: (B, M) or (B, M, W).
        there: which modalities each sample has.

    Returns:
        The same shape: weights that sum to one over M, zero for absent modalities. Equal weights
        for a sample without any.
    """
    absent = ~there if scores.ndim == 2 else ~there[..., None]
    return torch.softmax(scores.masked_fill(absent, torch.finfo(scores.dtype).min), dim=1)
