"""What every causal language model is: embeddings of tokens in, hidden states out.

Embeddings rather than ids, since some positions hold pictures. Shape legend: B sequences, N new
positions, P positions in the cache, D features, V vocabulary, L layers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from plait.modalities.text.tokenize import TextPreprocess


@runtime_checkable
class Cache(Protocol):
    """Keys and values of the positions that a model has seen."""

    def select(self, rows: Int64[Tensor, " R"]) -> None:
        """Keeps these sequences, in this order; one may be there several times (beams)."""


class LanguageModel(nn.Module, ABC):
    """A causal language model.

    Attributes:
        width: D.
        context: the most positions it was made for; None: any number.
        preprocess: its tokenizer.
        start: id that begins a sequence; None: it has none.
        end: id that ends one.
    """

    width: int
    context: int | None
    preprocess: TextPreprocess
    start: int | None
    end: int

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """V: rows of its table; every id of its tokenizer is below."""

    @abstractmethod
    def embed(self, ids: Int64[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """Rows of its table."""

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "B N D"],
        mask: Bool[Tensor, "B PN"],
        cache: Cache | None = None,
    ) -> Float[Tensor, "B N D"]:
        """Hidden states after the last norm: each position sees itself and what is before it.

        Args:
            x: embeddings of the new positions.
            mask: False at padding, of the positions in the cache and the new ones. Padding may be
                on either side, and counts nowhere: positions are numbered without it.
            cache: made by `new_cache`; it grows by the new positions. None: there are none before.
        """

    @abstractmethod
    def head(self) -> tuple[Tensor, Tensor | None]:
        """(weight (V, D), bias (V,) or None) from hidden states to logits."""

    @abstractmethod
    def new_cache(self) -> Cache:
        """An empty cache."""

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """Its L layers; each takes hidden states (B, N, D) as its first argument."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """JSON that rebuilds the architecture, with ``family``."""

    def save_files(self, folder: Path) -> None:
        """Writes the tokenizer into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.preprocess.save(folder)

    def logits(self, hidden: Float[Tensor, "*S D"]) -> Float[Tensor, "*S V"]:
        """Scores of the next token."""
        weight, bias = self.head()
        return nn.functional.linear(hidden, weight, bias)

    def train(self, mode: bool = True) -> LanguageModel:
        """Training mode; without a trainable parameter it stays in evaluation mode."""
        super().train(mode and any(p.requires_grad for p in self.parameters()))
        return self
