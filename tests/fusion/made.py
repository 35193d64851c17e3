"""Made-up encoder outputs, and every registered fusion over them, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from plait.core.batch import Encoded, Fused
from plait.fusion.base import Fusion
from plait.fusion.registry import FUSIONS, build_fusion

KINDS = tuple(FUSIONS)
POOLED = {"image": 10, "text": 6, "audio": 7}
TOKENS = {"image": 5, "text": 6, "audio": 4}
LENGTHS = {"image": 4, "text": 3, "audio": 5}
SMALL: dict[str, dict[str, Any]] = {"gated_cross_attention": {"heads": 2}}

TWO = ("image", "text")
THREE = ("image", "text", "audio")


def fusion(kind: str, names: tuple[str, ...] = TWO, seed: int = 0, **options: Any) -> Fusion:
    """A small one of which no parameter is zero: shut gates would hide mistakes."""
    torch.manual_seed(seed)
    built = build_fusion(
        kind,
        widths={name: POOLED[name] for name in names},
        token_widths={name: TOKENS[name] for name in names},
        width=8,
        **options,
    )
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built.double()


def parts(names: tuple[str, ...] = TWO, rows: int = 4, seed: int = 1) -> dict[str, Encoded]:
    """Random tokens, of which the first is always real, and boxes for pictures."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    made = {}
    for name in names:
        mask = torch.rand(rows, LENGTHS[name], generator=generator) < 0.6
        mask[:, 0] = True
        corners = torch.rand(rows, LENGTHS[name], 4, generator=generator).double()
        made[name] = Encoded(
            random(rows, LENGTHS[name], TOKENS[name]),
            mask,
            random(rows, POOLED[name]),
            corners if name == "image" else None,
        )
    return made


def everywhere(names: tuple[str, ...] = TWO, rows: int = 4) -> dict[str, Tensor]:
    """All modalities in all rows."""
    return {name: torch.ones(rows, dtype=torch.bool) for name in names}


def numbers(fused: Fused) -> list[Tensor]:
    """Every tensor of the result, in a fixed order."""
    found = [fused.pooled]
    for _, part in sorted(fused.parts.items()):
        found += [part.tokens, part.mask.double(), part.pooled]
        found += [] if part.boxes is None else [part.boxes]
    return found


def assert_same(one: Fused, other: Fused, tolerance: float = 1e-12) -> None:
    """All tensors of both are equal."""
    assert one.parts.keys() == other.parts.keys()
    for left, right in zip(numbers(one), numbers(other), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=tolerance)


def rows_of(made: Mapping[str, Encoded], rows: Any) -> dict[str, Encoded]:
    """Some rows, or all in another order."""
    return {
        name: Encoded(
            part.tokens[rows],
            part.mask[rows],
            part.pooled[rows],
            None if part.boxes is None else part.boxes[rows],
        )
        for name, part in made.items()
    }


def padded(made: Mapping[str, Encoded], extra: int, value: float) -> dict[str, Encoded]:
    """Every modality with ``extra`` positions more, in which, as in padding before, is ``value``."""

    def fill(tensor: Tensor, mask: Tensor) -> Tensor:
        longer = torch.nn.functional.pad(tensor, (0, 0, 0, extra))
        return torch.where(mask[..., None], longer, torch.full_like(longer, value))

    found = {}
    for name, part in made.items():
        mask = torch.nn.functional.pad(part.mask, (0, extra), value=False)
        boxes = None if part.boxes is None else fill(part.boxes, mask)
        found[name] = Encoded(fill(part.tokens, mask), mask, part.pooled, boxes)
    return found


def spoilt(
    made: Mapping[str, Encoded], present: Mapping[str, Tensor], value: float
) -> dict[str, Encoded]:
    """The same with ``value`` for all that absent rows hold, and everything there called real."""
    found = {}
    for name, part in made.items():
        here = present[name]

        def fill(tensor: Tensor, here: Tensor = here) -> Tensor:
            keep = here.view(-1, *[1] * (tensor.ndim - 1))
            return torch.where(keep, tensor, torch.full_like(tensor, value))

        found[name] = Encoded(
            fill(part.tokens),
            part.mask | ~here[:, None],
            fill(part.pooled),
            None if part.boxes is None else fill(part.boxes),
        )
    return found
