"""The heads that the systems were published with.

Output matrices that are tied (to the word table, to UNITER's region projection) are handed in with
the tokens, so that each weight lives in one place.

Shape legend: B samples, N positions, D features of a token, V words, R features of a region,
C classes, A answers.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from plait.core.errors import ModelError
from plait.models.systems.base import System
from plait.models.systems.bert import EPS, initialise

REGION_CLASSES, ATTRIBUTES = 1600, 400
"""Visual Genome classes of the detector behind the published models; with background: 1601."""


class Transform(nn.Module):
    """Linear, GELU, LayerNorm: what stands before the output matrix of token heads."""

    def __init__(self, width: int, *, eps: float = EPS) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, tokens: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Same shape."""
        out: Tensor = self.norm(F.gelu(self.linear(tokens)))
        return out


class MaskedWordHead(nn.Module):
    """Which word stood here: (..., D) to (..., V), tied to the word table."""

    def __init__(self, width: int, vocabulary: int, *, eps: float = EPS) -> None:
        super().__init__()
        self.transform = Transform(width, eps=eps)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        initialise(self)

    def forward(
        self, tokens: Float[Tensor, "... D"], table: Float[Tensor, "V D"]
    ) -> Float[Tensor, "... V"]:
        """Logits; ``table`` is `System.word_table`."""
        return F.linear(self.transform(tokens), table, self.bias)


class MatchHead(nn.Module):
    """Whether words and picture belong together: (B, P) to (B, 2), column 1 for yes.

    VisualBERT and ViLBERT were published with column 0 for yes; reading their checkpoints swaps
    the rows of this head.
    """

    def __init__(self, width: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, 2)
        initialise(self)

    def forward(self, pooled: Float[Tensor, "B P"]) -> Float[Tensor, "B C"]:
        """Logits."""
        out: Tensor = self.linear(self.dropout(pooled))
        return out


class RegionFeatureHead(nn.Module):
    """UNITER's region feature regression, tied to the transpose of the region projection."""

    def __init__(self, width: int, region_width: int) -> None:
        super().__init__()
        self.transform = Transform(width)
        self.bias = nn.Parameter(torch.zeros(region_width))
        initialise(self)

    def forward(
        self, tokens: Float[Tensor, "... D"], matrix: Float[Tensor, "D R"]
    ) -> Float[Tensor, "... R"]:
        """Features; ``matrix`` is `Uniter.region_matrix`."""
        return F.linear(self.transform(tokens), matrix.T, self.bias)


class RegionClassHead(nn.Module):
    """Which object a region shows, as UNITER and ViLBERT ask: (..., D) to (..., C)."""

    def __init__(self, width: int, classes: int = REGION_CLASSES + 1) -> None:
        super().__init__()
        self.transform = Transform(width)
        self.out = nn.Linear(width, classes)
        initialise(self)

    def forward(self, tokens: Float[Tensor, "... D"]) -> Float[Tensor, "... C"]:
        """Logits; class 0 is the background in the published models."""
        out: Tensor = self.out(self.transform(tokens))
        return out


class ObjectHead(nn.Module):
    """LXMERT's three questions about a region, over one transform.

    Args:
        width: of a token.
        objects: number of object classes.
        attributes: number of attribute classes.
        region_width: features to regress.
    """

    def __init__(
        self,
        width: int,
        *,
        objects: int = REGION_CLASSES,
        attributes: int = ATTRIBUTES,
        region_width: int = 2048,
    ) -> None:
        super().__init__()
        self.transform = Transform(width)
        self.objects = nn.Linear(width, objects)
        self.attributes = nn.Linear(width, attributes)
        self.features = nn.Linear(width, region_width)
        initialise(self)

    def forward(
        self, tokens: Float[Tensor, "... D"]
    ) -> tuple[Float[Tensor, "... O"], Float[Tensor, "... A"], Float[Tensor, "... R"]]:
        """Logits of objects, logits of attributes, features."""
        x = self.transform(tokens)
        return self.objects(x), self.attributes(x), self.features(x)


class AnswerHead(nn.Module):
    """Linear, GELU, LayerNorm, linear over the answer vector: UNITER, ViLBERT, LXMERT."""

    def __init__(self, width: int, answers: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(2 * width, eps=EPS)
        self.out = nn.Linear(2 * width, answers)
        initialise(self)

    def forward(self, vectors: Float[Tensor, "B D"]) -> Float[Tensor, "B A"]:
        """Logits."""
        out: Tensor = self.out(self.norm(F.gelu(self.up(self.dropout(vectors)))))
        return out


class LinearAnswerHead(nn.Module):
    """Dropout and one linear layer over the answer vector: VisualBERT."""

    def __init__(self, width: int, answers: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, answers)
        initialise(self)

    def forward(self, vectors: Float[Tensor, "B D"]) -> Float[Tensor, "B A"]:
        """Logits."""
        out: Tensor = self.out(self.dropout(vectors))
        return out


PUBLISHED: dict[str, tuple[str, ...]] = {
    "visual_bert": ("words", "match", "answer"),
    "uniter": ("words", "match", "features", "classes", "answer"),
    "uniter_two_stream": ("words", "match", "features", "classes", "answer"),
    "vilbert": ("words", "match", "classes", "answer"),
    "lxmert": ("words", "match", "objects", "answer"),
}
"""Heads by system, as published."""


def published_head(
    name: str,
    system: System,
    *,
    classes: int = REGION_CLASSES,
    attributes: int = ATTRIBUTES,
    answers: int = 3129,
) -> nn.Module:
    """A head of a system with random weights, of the published form.

    Args:
        name: one that `PUBLISHED` lists for the system.
        system: whose widths it takes.
        classes: of objects; heads with a background class have one more.
        attributes: of LXMERT's head.
        answers: of the answer head.

    Raises:
        ModelError: the system was published without it.
    """
    known = PUBLISHED[system.kind]
    if name not in known:
        raise ModelError(f"{system.kind} has no head {name!r} (it has: {', '.join(known)})")
    if name == "words":
        eps = getattr(system, "eps", EPS)
        return MaskedWordHead(system.text_width, system.vocabulary, eps=eps)
    if name == "match":
        return MatchHead(system.width, dropout=0.1 if system.kind == "vilbert" else 0.0)
    if name == "features":
        return RegionFeatureHead(system.image_width, system.region_width)
    if name == "classes":
        return RegionClassHead(system.image_width, classes + 1)
    if name == "objects":
        return ObjectHead(
            system.image_width,
            objects=classes,
            attributes=attributes,
            region_width=system.region_width,
        )
    if system.kind == "visual_bert":
        return LinearAnswerHead(system.width, answers)
    return AnswerHead(system.width, answers, dropout=0.1 if system.kind == "vilbert" else 0.0)
