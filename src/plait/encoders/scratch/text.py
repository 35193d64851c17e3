"""Small text encoders without pretrained weights: ``scratch/transformer`` and ``scratch/ngram``.

Shape legend: B samples, N positions, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from plait.core.batch import Encoded, ModalityInput
from plait.core.modality import TEXT
from plait.encoders.base.base import Encoder, token_mask
from plait.encoders.scratch.byte_tokenizer import FIRST_BYTE, VOCABULARY, byte_preprocess
from plait.modalities.text.tokenize import TextPreprocess, read_tokenizer
from plait.nn.pooling import mean_pool
from plait.nn.transformer import Block, initialise


class TransformerEncoder(Encoder):
    """A small bidirectional transformer with mean pooling.

    Args:
        preprocess: its tokenizer; bytes by default, so that any language goes in.
        width, layers, heads: of the transformer.
    """

    modality = TEXT

    def __init__(
        self, preprocess: TextPreprocess, *, width: int = 192, layers: int = 4, heads: int = 3
    ) -> None:
        super().__init__()
        self.preprocess, self.layers, self.heads = preprocess, layers, heads
        self.width = self.token_width = width
        self.word = nn.Embedding(preprocess.vocabulary, width)
        self.position = nn.Parameter(0.02 * torch.randn(preprocess.max_length, width))
        self.blocks = nn.ModuleList(
            Block(width, heads, 4 * width, "gelu", 1e-5) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.word.weight, std=0.02)
        initialise(self.blocks, width)

    def forward(self, inputs: ModalityInput) -> Encoded:
        """``ids`` (B, N) and a mask."""
        ids = inputs.tensors["ids"]
        mask = token_mask(ids, inputs.mask)
        x = self.word(ids) + self.position[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, mask[:, None, None, :])
        tokens = self.norm(x)
        return Encoded(tokens, mask, mean_pool(tokens, mask))

    def spec(self) -> dict[str, Any]:
        """See `Encoder.spec`."""
        return {
            "family": "scratch",
            "kind": "transformer",
            "width": self.width,
            "layers": self.layers,
            "heads": self.heads,
        }


class TokenIds(Encoder):
    """No network: one feature a token, its id, for systems with a text embedding of their own.

    Args:
        preprocess: the tokenizer.
    """

    modality = TEXT
    width = token_width = 1

    def __init__(self, preprocess: TextPreprocess) -> None:
        super().__init__()
        self.preprocess = preprocess

    def forward(self, inputs: ModalityInput) -> Encoded:
        """``ids`` (B, N) and a mask."""
        ids = inputs.tensors["ids"]
        mask = token_mask(ids, inputs.mask)
        tokens = ids[..., None].to(torch.get_default_dtype())
        return Encoded(tokens, mask, mean_pool(tokens, mask))

    def spec(self) -> dict[str, Any]:
        """See `Encoder.spec`."""
        return {"family": "scratch", "kind": "tokens"}


class NgramEncoder(Encoder):
    """A hashed bag of words and character n-grams, then a small residual MLP.

    After Bojanowski et al. 2017 (fastText), on UTF-8 bytes: every run of word bytes is a word;
    every span of 3 to 6 bytes that starts and ends between characters is an n-gram, so that a
    Chinese character and a pair of them are features like English trigrams. Spans are hashed by a
    random linear function of their bytes modulo a prime; all numbers stay below 2^31, so engines
    that compute integers in 32 bits agree.

    Args:
        preprocess: bytes without start and end.
        width: features.
        buckets: rows of the table, a prime below 2^17.
        orders: lengths of n-grams in bytes.
    """

    modality = TEXT
    coefficients: Tensor

    def __init__(
        self,
        preprocess: TextPreprocess,
        *,
        width: int = 256,
        buckets: int = 32749,
        orders: Sequence[int] = (3, 4, 5, 6),
    ) -> None:
        super().__init__()
        self.preprocess, self.buckets, self.orders = preprocess, buckets, list(orders)
        self.width = self.token_width = width
        length = max(preprocess.max_length, *orders)
        # Fixed pseudo-random multipliers (Knuth's constant), the same on every machine.
        steps = torch.arange(1, (len(orders) + 1) * length + 1) * 2654435761 % buckets
        self.register_buffer("coefficients", steps.view(len(orders) + 1, length), persistent=False)
        self.table = nn.Embedding(buckets, width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, N) bytes to the buckets (B, N, orders + 1) of what starts or ends at each.

        The number of buckets itself stands for nothing.
        """
        byte = (ids - FIRST_BYTE).clamp(min=0) * mask
        real = mask & (ids >= FIRST_BYTE)
        begins = real & ((byte < 128) | (byte >= 192))  # not a UTF-8 continuation
        ascii_word = ((byte >= 48) & (byte <= 57)) | ((byte >= 97) & (byte <= 122))
        wordly = real & (ascii_word | (byte >= 128))
        columns = [self._ngram(i, order, byte, real, begins) for i, order in enumerate(self.orders)]
        columns.append(self._word(byte, wordly))
        return torch.stack(columns, dim=-1)

    def _ngram(self, row: int, order: int, byte: Tensor, real: Tensor, begins: Tensor) -> Tensor:
        n = byte.shape[1]
        padded, there = F.pad(byte, (0, order)), F.pad(real, (0, order))
        # A span ends well where the next byte begins a character, or nothing follows.
        edge = F.pad(begins | ~real, (0, order), value=True)
        total, whole = torch.zeros_like(byte), begins.clone()
        for k in range(order):
            total = total + (padded[:, k : k + n] + 1) * self.coefficients[row, k] % self.buckets
            whole = whole & there[:, k : k + n]
        whole = whole & edge[:, order : order + n]
        return torch.where(whole, total % self.buckets, self.buckets)

    def _word(self, byte: Tensor, wordly: Tensor) -> Tensor:
        """The hash of each word, at its last byte."""
        n = byte.shape[1]
        index = torch.arange(n, device=byte.device)
        starts = wordly & ~F.pad(wordly, (1, 0))[:, :n]
        ends = wordly & ~F.pad(wordly, (0, 1))[:, 1:]
        # Where the last word so far began. Not cummax, which no exporter knows: words are numbered,
        # and each leaves its place under its number; place 0 is of no word.
        number = starts.long().cumsum(dim=1)  # of numbers: OpenVINO adds booleans as such
        begun = number.new_zeros(byte.shape[0], n + 1).scatter(
            1, torch.where(starts, number, 0), torch.where(starts, index, 0)
        )
        start = begun.gather(1, number)
        place = (index - start).clamp(min=0)
        terms = (byte + 1) * self.coefficients[-1][place] % self.buckets * wordly
        sums = terms.cumsum(dim=1)
        before = (sums - terms).gather(1, start)
        return torch.where(ends, (sums - before) % self.buckets, self.buckets)

    def forward(self, inputs: ModalityInput) -> Encoded:
        """``ids`` (B, N) and a mask."""
        ids = inputs.tensors["ids"]
        mask = token_mask(ids, inputs.mask)
        buckets = self.features(ids, mask)
        found = (buckets < self.buckets).to(self.table.weight.dtype)
        tokens = self._summed(buckets.clamp(max=self.buckets - 1), found)
        count = found.sum(dim=(1, 2)).clamp(min=1)[:, None]
        pooled = self.norm(tokens.sum(dim=1) / count.sqrt())
        pooled = pooled + self.down(F.gelu(self.up(pooled)))
        return Encoded(tokens, mask, pooled)

    def _summed(self, buckets: Tensor, found: Tensor) -> Tensor:
        """(B, N, D) sums of the vectors of those of (B, N, K) buckets that were found."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            # Exporters make a loop of a bag.
            return (self.table(buckets) * found[..., None]).sum(dim=2)
        bags = F.embedding_bag(
            buckets.flatten(0, 1),
            self.table.weight,
            mode="sum",
            per_sample_weights=found.flatten(0, 1),
        )
        return bags.unflatten(0, buckets.shape[:2])

    def spec(self) -> dict[str, Any]:
        """See `Encoder.spec`."""
        return {
            "family": "scratch",
            "kind": "ngram",
            "width": self.width,
            "buckets": self.buckets,
            "orders": self.orders,
        }


def transformer(
    *,
    width: int = 192,
    layers: int = 4,
    heads: int = 3,
    max_length: int = 128,
    tokenizer: str | Tokenizer | None = None,
) -> TransformerEncoder:
    """A small text transformer; ``tokenizer`` is one, or the path of a tokenizer.json."""
    preprocess = _preprocess(tokenizer, max_length)
    return TransformerEncoder(preprocess, width=width, layers=layers, heads=heads)


def tokens(*, max_length: int = 64, tokenizer: str | Tokenizer | None = None) -> TokenIds:
    """A tokenizer alone, for systems that embed its ids themselves."""
    return TokenIds(_preprocess(tokenizer, max_length))


def _preprocess(tokenizer: str | Tokenizer | None, max_length: int) -> TextPreprocess:
    """Bytes, unless a tokenizer is given."""
    if tokenizer is None:
        preprocess = byte_preprocess(max_length)
        assert preprocess.vocabulary == VOCABULARY
        return preprocess
    if isinstance(tokenizer, str):
        tokenizer = read_tokenizer(Path(tokenizer))
    return TextPreprocess(tokenizer, max_length)


def ngram(
    *,
    width: int = 256,
    buckets: int = 32749,
    orders: Sequence[int] = (3, 4, 5, 6),
    max_length: int = 256,
) -> NgramEncoder:
    """A hashed bag of words and n-grams."""
    preprocess = byte_preprocess(max_length, boundaries=False)
    return NgramEncoder(preprocess, width=width, buckets=buckets, orders=orders)


def rebuild(spec: dict[str, Any], folder: Path) -> Encoder:
    """The architecture of a spec, without weights; the tokenizer is in ``folder``."""
    preprocess = TextPreprocess.load(folder)
    settings = {key: value for key, value in spec.items() if key not in ("family", "kind")}
    if spec["kind"] == "ngram":
        return NgramEncoder(preprocess, **settings)
    if spec["kind"] == "tokens":
        return TokenIds(preprocess)
    return TransformerEncoder(preprocess, **settings)
