"""A small causal language model of plait's own, to be trained on the user's texts.

Pre-norm blocks with rotary positions (Su et al. 2021), and one table for input and output (Press and
Wolf 2017). Shape legend: B sequences, N new positions, P positions in the cache, D features, H heads.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from plait.core.errors import ModelError
from plait.language.base import Cache, LanguageModel
from plait.modalities.text.tokenize import TextPreprocess
from plait.nn.transformer import Mlp

ROTARY_BASE = 10_000.0


class KeyValueCache:
    """Keys and values of each layer, (B, H, P, D / H)."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer, the new ones last."""
        if layer == len(self.layers):
            self.layers.append((key, value))
        else:
            old_key, old_value = self.layers[layer]
            self.layers[layer] = (
                torch.cat([old_key, key], dim=2),
                torch.cat([old_value, value], dim=2),
            )
        return self.layers[layer]

    def select(self, rows: Int64[Tensor, " R"]) -> None:
        """See `Cache`."""
        self.layers = [(key[rows], value[rows]) for key, value in self.layers]


class CausalBlock(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, width: int, heads: int, hidden: int, number: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.number = heads, number
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden, "gelu")
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], seen: Tensor, cache: KeyValueCache | None
    ) -> Tensor:
        """(B, N, D) to the same; ``seen`` (B, 1, N, P + N) is True where a position may look."""
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = rotated(q, turn), rotated(k, turn)
        if cache is not None:
            k, v = cache.extend(self.number, k, v)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).reshape(b, n, d)))
        out: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return out


def turns(
    positions: Int64[Tensor, "B N"], size: int, dtype: torch.dtype
) -> tuple[Float[Tensor, "B 1 N S"], Float[Tensor, "B 1 N S"]]:
    """Cosines and sines by which each pair of features turns at its position, S = ``size`` / 2."""
    steps = torch.arange(0, size, 2, device=positions.device, dtype=torch.float64)
    angles = positions[:, None, :, None].to(torch.float64) * ROTARY_BASE ** (-steps / size)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """(B, H, N, S2): features i and i + S turned together, so that products tell distances."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = turn
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Decoder(LanguageModel):
    """The model.

    Args:
        preprocess: its tokenizer, with the tokens ``[CLS]`` (start) and ``[SEP]`` (end).
        width: D, a multiple of twice ``heads``.
        layers: L.
        heads: H.
        hidden: features inside the MLPs; four times ``width`` when None.
        context: the most positions.
        dropout: of what blocks add, in training.

    Raises:
        ModelError: sizes that don't fit, or a tokenizer without start and end.
    """

    def __init__(
        self,
        preprocess: TextPreprocess,
        *,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        hidden: int | None = None,
        context: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ModelError(f"width {width} is not a multiple of 2 x {heads} heads")
        start, end = (preprocess.tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
        if start is None or end is None:
            raise ModelError("a decoder's tokenizer needs the tokens [CLS] and [SEP]")
        self.preprocess, self.start, self.end = preprocess, start, end
        self.width, self.context, self.heads, self.dropout = width, context, heads, dropout
        self.hidden = hidden or 4 * width
        self.table = nn.Embedding(preprocess.vocabulary, width)
        self.layers = nn.ModuleList(
            CausalBlock(width, heads, self.hidden, number, dropout) for number in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.reset()

    def reset(self) -> None:
        """GPT-2's initial scales (Radford et al. 2019): 0.02, residual outputs / sqrt(2 L)."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                last = name.endswith(("out", "down"))
                nn.init.normal_(module.weight, std=0.02 / (2 * len(self.layers)) ** (last / 2))
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)

    @property
    def vocabulary(self) -> int:
        """See `LanguageModel`."""
        return self.table.num_embeddings

    @property
    def blocks(self) -> nn.ModuleList:
        """See `LanguageModel`."""
        return self.layers

    def embed(self, ids: Int64[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """See `LanguageModel`."""
        found: Tensor = self.table(ids)
        return found

    def forward(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B PN"], cache: Cache | None = None
    ) -> Float[Tensor, "B N D"]:
        """See `LanguageModel`."""
        assert cache is None or isinstance(cache, KeyValueCache)
        n = x.shape[1]
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -n:]
        turn = turns(positions, self.width // self.heads, x.dtype)
        seen = visible(mask, n)
        for block in self.layers:
            x = block(x, turn, seen, cache)
        out: Tensor = self.norm(x)
        return out

    def head(self) -> tuple[Tensor, Tensor | None]:
        """See `LanguageModel`."""
        return self.table.weight, None

    def new_cache(self) -> KeyValueCache:
        """See `LanguageModel`."""
        return KeyValueCache()

    def spec(self) -> dict[str, Any]:
        """See `LanguageModel`."""
        return {
            "family": "scratch",
            "width": self.width,
            "layers": len(self.layers),
            "heads": self.heads,
            "hidden": self.hidden,
            "context": self.context,
            "dropout": self.dropout,
        }


def visible(mask: Bool[Tensor, "B PN"], new: int) -> Bool[Tensor, "B 1 N PN"]:
    """Where each of the last ``new`` positions may look: itself, and real ones before it.

    Padding sees itself, so that its softmax has something to add up to 1 over.
    """
    total = mask.shape[1]
    place = torch.arange(total, device=mask.device)
    before = place[None, :] < place[-new:, None]
    itself = place[None, :] == place[-new:, None]
    return (mask[:, None, None, :] & before) | itself
