"""Small systems and inputs that the tests of this folder share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plait.core.batch import Encoded, Fused
from plait.models.systems.base import System
from plait.models.systems.registry import build_system

VOCABULARY, REGION_WIDTH = 23, 5
_ONE_STREAM = {"width": 12, "layers": 2, "heads": 3, "hidden": 14, "max_length": 12}
SMALL: dict[str, dict[str, Any]] = {
    "visual_bert": _ONE_STREAM,
    "uniter": _ONE_STREAM,
    "uniter_two_stream": _ONE_STREAM,
    "vilbert": _ONE_STREAM
    | {
        "layers": 3,
        "image": {"width": 8, "layers": 2, "heads": 2, "hidden": 9},
        "joint": {"width": 10, "heads": 2},
    },
    "lxmert": {
        "width": 12,
        "text_layers": 2,
        "image_layers": 1,
        "cross_layers": 2,
        "heads": 3,
        "hidden": 14,
        "max_length": 12,
    },
}


def small(kind: str, **options: Any) -> System:
    """A system in float64 with every weight random, in evaluation mode."""
    torch.manual_seed(0)
    system = build_system(
        kind, vocabulary=VOCABULARY, region_width=REGION_WIDTH, **(SMALL[kind] | options)
    )
    with torch.no_grad():  # zero-initialised parts would hide mistakes
        for parameter in system.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return system.double().eval()


def inputs(
    rows: int = 3, words: int = 6, regions: int = 4, seed: int = 0
) -> tuple[Tensor, Tensor, Encoded]:
    """Ids, text mask and regions; lengths differ, the last row has no picture."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, VOCABULARY, (rows, words), generator=generator)
    lengths = torch.randint(3, words + 1, (rows,), generator=generator)
    text = torch.arange(words)[None] < lengths[:, None]
    seen = torch.rand(rows, regions, generator=generator) < 0.7
    seen[:, 0] = True
    seen[-1] = False
    corners = torch.rand(rows, regions, 2, 2, generator=generator, dtype=torch.float64)
    tokens = torch.randn(rows, regions, REGION_WIDTH, generator=generator, dtype=torch.float64)
    boxes = corners.sort(dim=2).values.flatten(2)
    return ids, text, Encoded(tokens, seen, tokens.mean(dim=1), boxes)


def everything(system: System, fused: Fused) -> Tensor:
    """All outputs of a batch as one vector."""
    parts = [fused.pooled, system.answer_vector(fused)]
    parts += [fused.parts[name].tokens for name in ("text", "image")]
    return torch.cat([part.flatten() for part in parts])


def close(a: Tensor, b: Tensor) -> None:
    """Equal in float64."""
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
