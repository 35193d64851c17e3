"""The transformer that writes a picture's codes behind a text.

A sequence is ``start, text 1..T, code 1..N``; each position predicts the next one. Every position
of the text has a padding token of its own (Ramesh et al. 2021, Appendix B.1), so nothing is masked
for being padding and a text of any length is a text of T tokens.

Shape legend: B samples, T text positions, N = R C cells of the picture, K codes, W features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from plait.core.errors import ModelError
from plait.models.drawing.attention import GridAttention, KeyValues

DEFAULT_KINDS = ("row", "column", "row", "row", "column", "conv")
IMAGE_WEIGHT = 7.0


class DrawingLoss(NamedTuple):
    """Cross-entropies in nats per token.

    Attributes:
        loss: ``(text + weight * image) / (1 + weight)``.
        text: of the text's tokens, padding included.
        image: of the codes.
    """

    loss: Float[Tensor, ""]
    text: Float[Tensor, ""]
    image: Float[Tensor, ""]


class GatedMlp(nn.Module):
    """``down(a * gelu(b))`` with ``a, b = up(x)`` (Shazeer 2020, GEGLU)."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden)
        self.down = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) to the same."""
        value, gate = self.up(x).chunk(2, dim=-1)
        out: Tensor = self.down(self.dropout(value * F.gelu(gate)))
        return out


class DrawingBlock(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, attention: GridAttention, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), attention
        self.norm2, self.mlp = nn.LayerNorm(width), GatedMlp(width, hidden, dropout)

    def forward(self, x: Tensor, cache: KeyValues | None, start: int) -> Tensor:
        """(B, n, W) to the same."""
        x = x + self.attention(self.norm1(x), cache, start)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Cache:
    """Keys and values of all layers, and how many positions they hold."""

    def __init__(self, layers: int, positions: int) -> None:
        self.layers = [KeyValues(positions) for _ in range(layers)]
        self.length = 0


class DrawingTransformer(nn.Module):
    """Text and codes in, logits of the next token out.

    Args:
        vocabulary: token ids of the text.
        text_length: tokens of every text, padding included.
        codes: the size of the codebook.
        grid: rows and columns of codes.
        width, layers, heads: of the transformer.
        kinds: attention of the layers, repeated as needed; see `plait.models.drawing.attention`.
        kernel: side of the square of convolution-like attention.
        hidden: features within the gated MLP; default 4 times ``width``.
        dropout: of embeddings, attention's output and the MLP's hidden features.

    Raises:
        ModelError: an unknown kind or sizes that don't fit.
    """

    def __init__(
        self,
        vocabulary: int,
        text_length: int,
        codes: int,
        grid: Sequence[int],
        width: int = 256,
        layers: int = 6,
        heads: int = 4,
        kinds: Sequence[str] = DEFAULT_KINDS,
        kernel: int = 5,
        hidden: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if text_length < 1 or layers < 1 or not kinds:
            raise ModelError("a drawing transformer needs a text, a layer and an attention kind")
        self.vocabulary, self.text_length, self.code_count = vocabulary, text_length, codes
        self.grid, self.cells = (grid[0], grid[1]), grid[0] * grid[1]
        hidden = 4 * width if hidden is None else hidden
        self._spec = {
            "vocabulary": vocabulary,
            "text_length": text_length,
            "codes": codes,
            "grid": list(grid),
            "width": width,
            "layers": layers,
            "heads": heads,
            "kinds": list(kinds),
            "kernel": kernel,
            "hidden": hidden,
            "dropout": dropout,
        }
        words = vocabulary + text_length  # the padding tokens come last
        self.start = nn.Parameter(torch.empty(width))
        self.text_embedding = nn.Embedding(words, width)
        self.code_embedding = nn.Embedding(codes, width)
        self.text_position = nn.Parameter(torch.empty(text_length + 1, width))
        self.row_position = nn.Parameter(torch.empty(grid[0], width))
        self.column_position = nn.Parameter(torch.empty(grid[1], width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            DrawingBlock(
                GridAttention(
                    width,
                    heads,
                    kinds[i % len(kinds)],
                    text_length + 1,
                    self.grid,
                    kernel,
                    dropout,
                ),
                width,
                hidden,
                dropout,
            )
            for i in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.to_text, self.to_codes = nn.Linear(width, words), nn.Linear(width, codes)
        self._initialise(layers)

    def _initialise(self, layers: int) -> None:
        """Normal with 0.02; what is added to the residual stream smaller by sqrt(2 layers)."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1 or name == "start":
                residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
                nn.init.normal_(parameter, std=0.02 / ((2 * layers) ** 0.5 if residual else 1))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def spec(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON."""
        return {**self._spec, "grid": list(self.grid)}

    def padded(self, ids: Int64[Tensor, "B n"], mask: Bool[Tensor, "B n"]) -> Int64[Tensor, "B T"]:
        """Texts of ``text_length`` tokens, with each position's own token where ``mask`` is False.

        Raises:
            ModelError: texts longer than ``text_length``, or ids outside the vocabulary.
        """
        n = ids.shape[1]
        if n > self.text_length and bool(mask[:, self.text_length :].any()):
            raise ModelError(
                f"a text has more than {self.text_length} tokens, the most this model reads"
            )
        real = torch.where(mask, ids, 0)
        if real.numel() and (int(real.min()) < 0 or int(real.max()) >= self.vocabulary):
            raise ModelError(
                f"token ids must be in 0 .. {self.vocabulary - 1}: is it another tokenizer's text?"
            )
        room = self.text_length - n
        ids, mask = F.pad(ids, (0, room)), F.pad(mask, (0, room), value=False)
        own = self.vocabulary + torch.arange(self.text_length, device=ids.device)
        return torch.where(mask, ids, own)

    def embed_text(self, text: Int64[Tensor, "B T"]) -> Float[Tensor, "B T1 W"]:
        """The start and a text that `padded` gave, with positions; T + 1 of them."""
        start = self.start.expand(len(text), 1, -1)
        return torch.cat([start, self.text_embedding(text)], dim=1) + self.text_position

    def embed_codes(self, codes: Int64[Tensor, "B n"], first: int = 0) -> Float[Tensor, "B n W"]:
        """Cells ``first`` to ``first + n`` in raster order, with positions."""
        cells = torch.arange(first, first + codes.shape[1], device=codes.device)
        row, column = cells // self.grid[1], cells % self.grid[1]
        place = self.row_position[row] + self.column_position[column]
        embedded: Tensor = self.code_embedding(codes) + place
        return embedded

    def hidden(
        self, x: Float[Tensor, "B n W"], cache: Cache | None = None
    ) -> Float[Tensor, "B n W"]:
        """Normed features of positions; with a cache, of those behind what it holds."""
        start = 0 if cache is None else cache.length
        x = self.dropout(x)
        for i, block in enumerate(self.blocks):
            x = block(x, None if cache is None else cache.layers[i], start)
        if cache is not None:
            cache.length += x.shape[1]
        out: Tensor = self.norm(x)
        return out

    def new_cache(self) -> Cache:
        """An empty one for one sequence, or one batch of them."""
        return Cache(len(self.blocks), self.text_length + self.cells)

    def forward(
        self, text: Int64[Tensor, "B T"], codes: Int64[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B T words"], Float[Tensor, "B N K"]]:
        """Logits of every token from those before it.

        Text predicts text and the picture predicts the picture: two heads instead of a mask over
        one, with equal values.

        Args:
            text: from `padded`.
            codes: of whole pictures in raster order.
        """
        x = torch.cat([self.embed_text(text), self.embed_codes(codes[:, :-1])], dim=1)
        hidden = self.hidden(x)
        split = self.text_length
        return self.to_text(hidden[:, :split]), self.to_codes(hidden[:, split:])

    def loss(
        self,
        text: Int64[Tensor, "B T"],
        codes: Int64[Tensor, "B N"],
        weight: float = IMAGE_WEIGHT,
        given: Int64[Tensor, "B N"] | None = None,
    ) -> DrawingLoss:
        """``(L_text + weight L_image) / (1 + weight)``; the arguments are those of `forward`.

        ``given`` are the codes that it reads, where those differ from the ones it learns.
        """
        text_logits, code_logits = self(text, codes if given is None else given)
        text_loss = F.cross_entropy(text_logits.flatten(0, 1), text.flatten())
        image_loss = F.cross_entropy(code_logits.flatten(0, 1), codes.flatten())
        total = (text_loss + weight * image_loss) / (1 + weight)
        return DrawingLoss(total, text_loss, image_loss)
