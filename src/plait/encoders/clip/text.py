"""The text tower of CLIP and SigLIP.

Sources: Radford et al. 2021 (CLIP); Zhai et al. 2023 (SigLIP).
Shape legend: B samples, N positions, D features.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plait.core.batch import Encoded, ModalityInput
from plait.core.errors import DataError, ModelError
from plait.core.modality import TEXT
from plait.encoders.base.base import Encoder, token_mask
from plait.modalities.text.tokenize import TextPreprocess
from plait.nn.transformer import Block, initialise

POOLS = ("eos", "highest", "last")


@dataclass(frozen=True)
class TextConfig:
    """Shape of a text tower.

    Attributes:
        vocabulary: token ids are below it.
        context: most positions.
        width, layers, heads, hidden: of the transformer; ``hidden`` is inside its MLPs.
        act: see `transformer.ACTIVATIONS`.
        eps: of the layer norms.
        causal: True (CLIP): a position sees itself and earlier ones, and padding is never seen.
            False (SigLIP): every position of the full context sees every other, padding
            included, as in its training; shorter inputs are padded to the context here.
        pool: ``eos``: the first position that holds ``eos_id`` (position 0 without any);
            ``highest``: the first position with the highest id (open_clip, and transformers' old
            configurations whose eos id is 2); ``last``: the last position of the context.
        eos_id: end of text.
        pad_id: what fills short inputs of a tower that isn't causal.
    """

    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    hidden: int
    act: str = "quick_gelu"
    eps: float = 1e-5
    causal: bool = True
    pool: str = "eos"
    eos_id: int = 49407
    pad_id: int = 1

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise ModelError(f"text tower: no pooling named {self.pool!r} (have: {POOLS})")


class ClipText(Encoder):
    """Text tower of the CLIP family. Tokens are the positions after the last norm."""

    modality = TEXT

    def __init__(self, config: TextConfig, preprocess: TextPreprocess) -> None:
        super().__init__()
        self.config, self.preprocess = config, preprocess
        c = config
        self.width = self.token_width = c.width
        self.word = nn.Embedding(c.vocabulary, c.width)
        self.position = nn.Parameter(0.01 * torch.randn(c.context, c.width))
        self.blocks = nn.ModuleList(
            Block(c.width, c.heads, c.hidden, c.act, c.eps) for _ in range(c.layers)
        )
        self.post_norm = nn.LayerNorm(c.width, eps=c.eps)
        nn.init.normal_(self.word.weight, std=0.02)
        initialise(self.blocks, c.width)

    def forward(self, inputs: ModalityInput) -> Encoded:
        """``ids`` (B, N); the mask says where padding is and changes a pooled vector never."""
        ids = inputs.tensors["ids"]
        if ids.shape[1] > self.config.context:
            raise DataError(
                f"this text tower takes {self.config.context} tokens, not {ids.shape[1]}"
            )
        mask = token_mask(ids, inputs.mask)
        if not self.config.causal:
            missing = self.config.context - ids.shape[1]
            ids = F.pad(ids, (0, missing), value=self.config.pad_id)
            mask = F.pad(mask, (0, missing), value=False)
        tokens = self.encode(ids)
        return Encoded(tokens, mask, self.pooled(tokens, ids))

    def encode(self, ids: Tensor) -> Tensor:
        """(B, N) to tokens (B, N, D)."""
        x = self.word(ids) + self.position[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, causal=self.config.causal)
        tokens: Tensor = self.post_norm(x)
        return tokens

    def pooled(self, tokens: Tensor, ids: Tensor) -> Tensor:
        """Tokens (B, N, D) and their ids (B, N) to (B, D)."""
        if self.config.pool == "last":
            return tokens[:, -1]
        if self.config.pool == "eos":
            where = (ids == self.config.eos_id).int().argmax(dim=1)
        else:
            where = ids.argmax(dim=1)
        return tokens[torch.arange(tokens.shape[0], device=tokens.device), where]

    def spec(self) -> dict[str, Any]:
        """See `Encoder.spec`."""
        return {"family": "clip", "kind": "text", "config": asdict(self.config)}


def rebuild(spec: dict[str, Any], folder: Path) -> ClipText:
    """The architecture of a spec, without weights; the tokenizer is in ``folder``."""
    return ClipText(TextConfig(**spec["config"]), TextPreprocess.load(folder))
