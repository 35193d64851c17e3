"""Bridges that keep the encoder's tokens, each through the same small network.

Sources: Liu et al. 2023 (LLaVA: linear) and 2023b (LLaVA-1.5: MLP), Chen et al. 2024 (InternVL 1.5)
and Marafioti et al. 2025 (SmolVLM) for blocks of r x r tokens made into one.

Shape legend: B samples, N tokens of the encoder, D their features, Q tokens for the language model,
W its features, h and w rows and columns of a grid, r the side of a block.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from plait.bridges.base import Bridge, only
from plait.core.batch import Encoded
from plait.core.errors import ModelError


class MlpBridge(Bridge):
    """Linear layers with GELU between (``mlp2x_gelu`` of LLaVA-1.5 where ``layers`` is 2).

    Args:
        token_width: features of the encoder's tokens.
        width: features of the language model.
        layers: of the network; all but the first are ``width`` x ``width``.
        skip: tokens at the front to leave out, such as the class token (LLaVA leaves it out).

    Raises:
        ModelError: no layer, or a negative ``skip``.
    """

    kind = "mlp"

    def __init__(self, token_width: int, width: int, *, layers: int = 2, skip: int = 0) -> None:
        super().__init__()
        _check(self.kind, skip=(skip, 0), layers=(layers, 1))
        self.token_width, self.width, self.layers, self.skip = token_width, width, layers, skip
        self.network = mlp(token_width, width, layers)

    def forward(self, encoded: Encoded) -> tuple[Float[Tensor, "B Q W"], Bool[Tensor, "B Q"]]:
        """See `Bridge.forward`."""
        self.count(encoded.tokens.shape[1])
        tokens, mask = self.real(encoded)[:, self.skip :], encoded.mask[:, self.skip :]
        return only(self.network(tokens), mask), mask

    def count(self, tokens: int) -> int:
        """As many as the encoder gives, less those at the front."""
        return _after_skip(self.kind, tokens, self.skip)

    def spec(self) -> dict[str, Any]:
        """See `Bridge.spec`."""
        return {
            "kind": self.kind,
            "token_width": self.token_width,
            "width": self.width,
            "layers": self.layers,
            "skip": self.skip,
        }


class LinearBridge(MlpBridge):
    """One linear layer (LLaVA's first version, and the cheapest bridge there is).

    Args:
        token_width: features of the encoder's tokens.
        width: features of the language model.
        skip: tokens at the front to leave out.

    Raises:
        ModelError: a negative ``skip``.
    """

    kind = "linear"

    def __init__(self, token_width: int, width: int, *, skip: int = 0) -> None:
        super().__init__(token_width, width, layers=1, skip=skip)

    def spec(self) -> dict[str, Any]:
        """See `Bridge.spec`."""
        return {name: value for name, value in super().spec().items() if name != "layers"}


class PixelShuffleBridge(Bridge):
    """Blocks of r x r tokens side by side as one of r^2 D features, then an MLP.

    The grid is read off the tokens' boxes; without boxes it must be square.

    Args:
        token_width: features of the encoder's tokens.
        width: features of the language model.
        factor: r, the side of a block.
        layers: of the MLP: 1 in SmolVLM (there without bias), 2 in InternVL.
        norm: LayerNorm before it, as in InternVL.
        skip: tokens at the front that are not of the grid, such as the class token.

    Raises:
        ModelError: a factor or number of layers below 1, or a negative ``skip``.
    """

    kind = "pixel_shuffle"

    def __init__(
        self,
        token_width: int,
        width: int,
        *,
        factor: int = 2,
        layers: int = 2,
        norm: bool = False,
        skip: int = 0,
    ) -> None:
        super().__init__()
        _check(self.kind, skip=(skip, 0), layers=(layers, 1), factor=(factor, 1))
        self.token_width, self.width = token_width, width
        self.factor, self.layers, self.skip = factor, layers, skip
        inside = token_width * factor**2
        self.norm: nn.Module = nn.LayerNorm(inside) if norm else nn.Identity()
        self.network = mlp(inside, width, layers)

    def forward(self, encoded: Encoded) -> tuple[Float[Tensor, "B Q W"], Bool[Tensor, "B Q"]]:
        """See `Bridge.forward`. A block is real where any of its tokens is; the others are 0."""
        tokens, mask = self.real(encoded)[:, self.skip :], encoded.mask[:, self.skip :]
        self.count(encoded.tokens.shape[1])
        grid = self._grid(encoded)
        blocks = space_to_depth(tokens, grid, self.factor)
        kept = space_to_depth(mask[..., None], grid, self.factor).any(dim=-1)
        return only(self.network(self.norm(blocks)), kept), kept

    def count(self, tokens: int) -> int:
        """The tokens of the grid, over r^2."""
        left = _after_skip(self.kind, tokens, self.skip)
        if left % self.factor**2:
            raise ModelError(
                f"bridge {self.kind!r} makes one token of {self.factor} x {self.factor}, and"
                f" {self._grid_of(left)} are no whole number of such blocks: choose another factor,"
                " another size of pictures, or skip if some tokens at the front are not of the grid"
            )
        return left // self.factor**2

    def spec(self) -> dict[str, Any]:
        """See `Bridge.spec`."""
        return {
            "kind": self.kind,
            "token_width": self.token_width,
            "width": self.width,
            "factor": self.factor,
            "layers": self.layers,
            "norm": isinstance(self.norm, nn.LayerNorm),
            "skip": self.skip,
        }

    def _grid_of(self, tokens: int) -> str:
        return f"{tokens} tokens" + (f" (without the first {self.skip})" if self.skip else "")

    def _grid(self, encoded: Encoded) -> tuple[int, int]:
        """Rows and columns, both multiples of the factor."""
        left = int(encoded.tokens.shape[1]) - self.skip
        if encoded.boxes is None:
            side = math.isqrt(left)
            grid, source = (side, side), "without boxes a grid must be square"
        else:
            real = encoded.mask.any(dim=1)
            if not real.any():  # nothing is read off it; any split will do
                return self.factor, left // self.factor
            boxes = encoded.boxes[real][:, self.skip :]
            grid, source = _grid_of_boxes(boxes), "their boxes, row by row, are those of no grid"
        if grid[0] * grid[1] != left:
            raise ModelError(
                f"bridge {self.kind!r} needs a grid, and {self._grid_of(left)} are none: {source}."
                " If some at the front stand for the whole picture, leave them out with skip"
            )
        if grid[0] % self.factor or grid[1] % self.factor:
            shared = math.gcd(*grid)
            fitting = [str(d) for d in range(1, shared + 1) if shared % d == 0]
            raise ModelError(
                f"bridge {self.kind!r}: a grid of {grid[0]} x {grid[1]} tokens has no blocks of"
                f" {self.factor} x {self.factor}; factors that fit: {', '.join(fitting)}"
            )
        return grid


def mlp(inside: int, width: int, layers: int) -> nn.Sequential:
    """Linear layers with GELU between; all but the first are ``width`` x ``width``."""
    parts: list[nn.Module] = [nn.Linear(inside, width)]
    for _ in range(layers - 1):
        parts += [nn.GELU(), nn.Linear(width, width)]
    return nn.Sequential(*parts)


def space_to_depth(tokens: Tensor, grid: tuple[int, int], factor: int) -> Tensor:
    """(B, h w, D) to (B, h w / r^2, r^2 D): blocks row by row, in each its tokens row by row."""
    rows, columns = grid
    blocks = tokens.reshape(
        len(tokens), rows // factor, factor, columns // factor, factor, tokens.shape[-1]
    )
    return blocks.transpose(2, 3).flatten(3).flatten(1, 2)


def _grid_of_boxes(boxes: Float[Tensor, "B N 4"]) -> tuple[int, int]:
    """Rows and columns of boxes that go through a grid row by row; (0, 0) where they do not."""
    first = boxes[0]
    if not torch.equal(boxes, first.expand_as(boxes)):
        return 0, 0
    columns = int((first[:, 1] == first[0, 1]).sum())  # as many as begin as high as the first
    if not columns or len(first) % columns:
        return 0, 0
    cells = first.reshape(-1, columns, 4)
    aligned = torch.equal(cells[:, :, [1, 3]], cells[:, :1, [1, 3]].expand(-1, columns, 2))
    stacked = torch.equal(cells[:, :, [0, 2]], cells[:1, :, [0, 2]].expand(len(cells), -1, 2))
    onward = bool((cells[0, 1:, 0] > cells[0, :-1, 0]).all())
    downward = bool((cells[1:, 0, 1] > cells[:-1, 0, 1]).all())
    return (len(cells), columns) if aligned and stacked and onward and downward else (0, 0)


def _after_skip(kind: str, tokens: int, skip: int) -> int:
    if tokens <= skip:
        raise ModelError(
            f"bridge {kind!r} leaves out the first {skip} tokens, and the encoder gives {tokens}"
        )
    return tokens - skip


def _check(kind: str, **options: tuple[int, int]) -> None:
    """Raises ModelError where a (value, least) is too small."""
    for name, (value, least) in options.items():
        if value < least:
            raise ModelError(f"bridge {kind!r}: {name} is {value}; it must be at least {least}")
