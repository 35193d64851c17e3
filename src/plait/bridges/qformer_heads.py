"""What BLIP-2's first stage reads off a Q-Former: embeddings, match, and the next word.

Source: Li et al. 2023, section 3.2. The losses are in `plait.objectives.matching.qformer`.
Shape legend: B samples, Q queries, N words, D the Q-Former's features, E of embeddings, V words.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from plait.bridges.qformer_layers import EPS
from plait.core.errors import ModelError


class QFormerHeads(nn.Module):
    """The heads of the first stage, which are dropped after it.

    Args:
        inner: D, the Q-Former's features.
        vocabulary: V, its words.
        width: E, features of embeddings.
        temperature: at the start. Its logarithm is learned, so that it stays above 0.

    Raises:
        ModelError: a size below 1.
    """

    def __init__(
        self, inner: int, vocabulary: int, *, width: int = 256, temperature: float = 0.07
    ) -> None:
        super().__init__()
        if min(inner, vocabulary, width) < 1 or temperature <= 0:
            raise ModelError("Q-Former heads: widths, words and temperature must be above 0")
        self.inner, self.vocabulary, self.width = inner, vocabulary, width
        self.image = nn.Linear(inner, width)
        self.text = nn.Linear(inner, width)
        self.match = nn.Linear(inner, 2)
        self.transform = nn.Linear(inner, inner)
        self.norm = nn.LayerNorm(inner, eps=EPS)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        for linear in (self.image, self.text, self.match, self.transform):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    @property
    def temperature(self) -> Float[Tensor, ""]:
        """By which similarities are divided."""
        return self.log_temperature.exp()

    def image_embeddings(self, queries: Float[Tensor, "B Q D"]) -> Float[Tensor, "B Q E"]:
        """One unit vector a query."""
        return F.normalize(self.image(queries), dim=-1)

    def text_embedding(self, words: Float[Tensor, "B N D"]) -> Float[Tensor, "B E"]:
        """One unit vector a text: of its first word, [CLS]."""
        return F.normalize(self.text(words[:, 0]), dim=-1)

    def match_logits(self, queries: Float[Tensor, "B Q D"]) -> Float[Tensor, "B Q 2"]:
        """What each query says: not matched (0) or matched (1). Their mean is the answer."""
        out: Tensor = self.match(queries)
        return out

    def word_logits(
        self, words: Float[Tensor, "B N D"], table: Float[Tensor, "V D"]
    ) -> Float[Tensor, "B N V"]:
        """Which word comes next, as BERT's head: ``table`` is that of the Q-Former's words."""
        out: Tensor = F.linear(self.norm(F.gelu(self.transform(words))), table, self.bias)
        return out

    def spec(self) -> dict[str, Any]:
        """JSON arguments that rebuild it; the temperature is among the weights."""
        return {"inner": self.inner, "vocabulary": self.vocabulary, "width": self.width}
