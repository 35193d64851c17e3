"""Who may look at whom in a sequence of a text and a picture, and attention that uses it.

All kinds are causal, and every position of the picture sees the whole text. Within the picture a
cell at row r, column c, beside itself, sees what comes before it in raster order and

    full     nothing else is asked
    row      lies in its row
    column   lies in its column
    conv     lies in a square of side ``kernel`` around it
    corner   lies in a square of side ``kernel`` whose lower right corner it is
    raster   is one of the last ``columns`` cells, so up to the one above it

Ramesh et al. 2021 use ``raster`` in most layers, ``column`` in every fourth, and ``conv`` (with a
square that wraps around the edge) in the last; ``row`` and ``corner`` are common in later work.

Shape legend: B samples, A heads, T positions of text, R rows, C columns, N = T + R C, D features
of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from plait.core.errors import ModelError, did_you_mean

KINDS = ("full", "row", "column", "conv", "corner", "raster")


def grid_mask(kind: str, rows: int, columns: int, kernel: int) -> Bool[Tensor, "RC RC"]:
    """True where the cell of a row may look at the cell of a column; raster order."""
    cells = torch.arange(rows * columns)
    row, column = cells // columns, cells % columns
    up, left = row[:, None] - row[None], column[:, None] - column[None]
    causal = cells[:, None] >= cells[None]
    reach = kernel // 2
    seen = {
        "full": causal,
        "row": up == 0,
        "column": left == 0,
        "conv": (up <= reach) & (left.abs() <= reach),
        "corner": (up >= 0) & (up < kernel) & (left >= 0) & (left < kernel),
        "raster": cells[:, None] - cells[None] <= columns,
    }
    return seen[kind] & causal


def sequence_mask(
    kind: str, text: int, rows: int, columns: int, kernel: int
) -> Bool[Tensor, "N N"]:
    """`grid_mask` behind ``text`` positions that are causal among themselves."""
    whole = torch.ones(text + rows * columns, text + rows * columns, dtype=torch.bool).tril()
    whole[text:, text:] = grid_mask(kind, rows, columns, kernel)
    return whole


@dataclass(frozen=True)
class Band:
    """The rows of keys that a row of queries needs, so that the others are never computed.

    Attributes:
        height: how many rows, the queries' own the last.
        transposed: rows and columns exchanged first.
        mask: (rows, columns, T + height * columns) of the, perhaps exchanged, grid.
    """

    height: int
    transposed: bool
    mask: Bool[Tensor, "R C L"]


def band_of(kind: str, text: int, rows: int, columns: int, kernel: int) -> Band | None:
    """The band of a kind, or None where it would hold all rows."""
    transposed = kind == "column"
    heights = {"row": 1, "column": 1, "raster": 2, "conv": kernel // 2 + 1, "corner": kernel}
    mask = grid_mask(kind, rows, columns, kernel).view(rows, columns, rows, columns)
    if transposed:
        mask = mask.permute(1, 0, 3, 2)
        rows, columns = columns, rows
    height = heights.get(kind, rows)
    if height >= rows:
        return None
    padded = F.pad(mask, (0, 0, height - 1, 0))  # rows above the picture: never seen
    within = torch.stack([padded[r, :, r : r + height].flatten(1) for r in range(rows)])
    return Band(height, transposed, F.pad(within, (text, 0), value=True))


class GridAttention(nn.Module):
    """Multi-head self-attention of one kind over a text and the picture behind it.

    Args:
        width: features.
        heads: of the attention.
        kind: one of `KINDS`.
        text: positions of text, the start included.
        grid: rows and columns of the picture.
        kernel: side of the square of ``conv`` (odd) and ``corner``.
        dropout: of what is added to the residual stream.

    Raises:
        ModelError: an unknown kind or sizes that don't fit.
    """

    mask: Tensor
    band_mask: Tensor

    def __init__(
        self,
        width: int,
        heads: int,
        kind: str,
        text: int,
        grid: tuple[int, int],
        kernel: int = 5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ModelError(
                f"no attention kind named {kind!r}{did_you_mean(kind, KINDS)}"
                f" (kinds: {', '.join(KINDS)})"
            )
        if width % heads:
            raise ModelError(f"width {width} is not a multiple of {heads} heads")
        if kind == "conv" and kernel % 2 == 0:
            raise ModelError(f"the kernel of conv attention must be odd, not {kernel}")
        self.heads, self.kind, self.text, self.grid = heads, kind, text, grid
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        band = band_of(kind, text, *grid, kernel)
        self.height = None if band is None else band.height
        mask = sequence_mask(kind, text, *grid, kernel)
        self.register_buffer("mask", mask, persistent=False)
        within = torch.empty(0, dtype=torch.bool) if band is None else band.mask
        self.register_buffer("band_mask", within, persistent=False)

    def forward(
        self,
        x: Float[Tensor, "B n width"],
        cache: KeyValues | None = None,
        start: int = 0,
    ) -> Float[Tensor, "B n width"]:
        """Positions ``start`` to ``start + n`` of a sequence.

        Args:
            x: these positions.
            cache: keys and values of the positions before ``start``; theirs are added.
            start: 0 without a cache.
        """
        b, n, width = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if cache is not None:
            k, v = cache.extended(k, v, start)
        if self.height is not None and start == 0 and n > self.text:
            mixed = self._banded(q, k, v)
        else:
            mixed = F.scaled_dot_product_attention(
                q, k, v, attn_mask=self.mask[start : start + n, : start + n]
            )
        out: Tensor = self.dropout(self.out(mixed.transpose(1, 2).reshape(b, n, width)))
        return out

    def _banded(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Equal to the attention under `mask`, with keys of the band alone for the picture."""
        text, cells = self.text, self.grid[0] * self.grid[1]
        n = q.shape[2]
        words = F.scaled_dot_product_attention(
            q[:, :, :text], k[:, :, :text], v[:, :, :text], is_causal=True
        )
        # A picture that isn't finished is filled up; causality hides what is added.
        q_grid, k_grid, v_grid = (
            self._rows(F.pad(t[:, :, text:], (0, 0, 0, text + cells - n))) for t in (q, k, v)
        )
        keys = self._banded_keys(k[:, :, :text], k_grid)
        values = self._banded_keys(v[:, :, :text], v_grid)
        mixed = F.scaled_dot_product_attention(q_grid, keys, values, attn_mask=self.band_mask)
        b, a = q.shape[:2]
        mixed = mixed.view(b, a, *mixed.shape[1:])
        if self.kind == "column":
            mixed = mixed.transpose(2, 3)
        return torch.cat([words, mixed.reshape(b, a, cells, -1)[:, :, : n - text]], dim=2)

    def _rows(self, t: Tensor) -> Tensor:
        """(B, A, R C, D) to (B A, R, C, D), or (B A, C, R, D) for columns."""
        t = t.reshape(t.shape[0] * t.shape[1], *self.grid, t.shape[-1])
        return t.transpose(1, 2) if self.kind == "column" else t

    def _banded_keys(self, words: Tensor, grid: Tensor) -> Tensor:
        """(B A, R, T + height C, D): the text, then the rows of the band."""
        assert self.height is not None
        rows, columns, features = grid.shape[1:]
        words = words.reshape(grid.shape[0], 1, -1, features).expand(-1, rows, -1, -1)
        if self.height > 1:
            grid = F.pad(grid, (0, 0, 0, 0, self.height - 1, 0)).unfold(1, self.height, 1)
            grid = grid.permute(0, 1, 4, 2, 3).reshape(
                words.shape[0], rows, self.height * columns, features
            )
        return torch.cat([words, grid], dim=2)


class KeyValues:
    """Keys and values of one layer, written once a position.

    Args:
        positions: room for that many.
    """

    def __init__(self, positions: int) -> None:
        self.positions = positions
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def extended(self, keys: Tensor, values: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Those of all positions, after these (B, A, n, D) are written from ``start`` on."""
        b, a, n, d = keys.shape
        if self._keys is None or self._values is None:
            self._keys = keys.new_empty(b, a, self.positions, d)
            self._values = values.new_empty(b, a, self.positions, d)
        self._keys[:, :, start : start + n] = keys
        self._values[:, :, start : start + n] = values
        return self._keys[:, :, : start + n], self._values[:, :, : start + n]
