"""Several modalities in one space: an encoder and a projection for each, and a temperature.

Sources: Radford et al. 2021 (CLIP), Zhai et al. 2022 (LiT) and 2023 (SigLIP).
Shape legend: B samples, D features of an encoder, E of the shared space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from plait.core.batch import Batch, ModalityInput
from plait.core.errors import ModelError
from plait.core.modality import IMAGE, TEXT
from plait.encoders.base.base import Encoder
from plait.models.base import embedding
from plait.models.base.hubs import HubCorrection
from plait.models.base.projection import Projection
from plait.models.base.summary import short_repr


class Tower(nn.Module):
    """An encoder and the projection of its pooled vector into the shared space."""

    def __init__(self, encoder: Encoder, projection: Projection) -> None:
        super().__init__()
        if projection.width != encoder.width:
            raise ModelError(
                f"the projection takes {projection.width} features,"
                f" the encoder gives {encoder.width}"
            )
        self.encoder, self.projection = encoder, projection

    def forward(self, inputs: ModalityInput) -> Float[Tensor, "B E"]:
        """Rows of unit length. ``features`` among the tensors stand for the pooled vector."""
        pooled = inputs.tensors.get("features")
        if pooled is None:
            pooled = self.encoder(inputs).pooled
        out: Tensor = nn.functional.normalize(self.projection(pooled), dim=-1)
        return out


class AlignmentModel(nn.Module):
    """Embeds every modality into one space; unit rows, compared by their inner product.

    The temperature is kept as ``log_scale``. `scale` is its exponential, clamped to at most
    ``max_scale`` (and at least 1). Beyond the clamp the gradient of ``log_scale`` is zero and it
    would stay there; at the bound it is the ordinary one. So a training loop calls `clamp_scale`
    after each step, as CLIP's does.

    Args:
        towers: by modality.
        scale_init: where the scale starts; CLIP's is 1 / 0.07, SigLIP's 10.
        max_scale: the largest scale; None for no limit (SigLIP).
        bias_init: where the bias of the sigmoid loss starts (SigLIP: -10); None for no bias.
        hubs: what search and evaluation take from cosines between modalities; None for nothing.
            Embeddings stay as they are.
    """

    __repr__ = short_repr

    def __init__(
        self,
        towers: Mapping[str, Tower],
        *,
        scale_init: float = 1 / 0.07,
        max_scale: float | None = 100.0,
        bias_init: float | None = None,
        hubs: HubCorrection | None = None,
    ) -> None:
        super().__init__()
        dims = {name: tower.projection.dim for name, tower in towers.items()}
        if len(set(dims.values())) != 1:
            raise ModelError(f"the towers' projections must share one dimension, not {dims}")
        heads = {name: tower.projection.heads for name, tower in towers.items()}
        if len(set(heads.values())) != 1:
            raise ModelError(f"the towers' projections must have equally many heads, not {heads}")
        if max_scale is not None and max_scale < 1:
            raise ModelError(f"max_scale {max_scale:g} is below 1")
        if not 1 <= scale_init <= (max_scale or math.inf) * (1 + 1e-6):
            raise ModelError(
                f"scale_init {scale_init:g} is not between 1 and max_scale {max_scale}"
            )
        self.towers = nn.ModuleDict(towers)
        self.max_scale = max_scale
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale_init)))
        self.bias = None if bias_init is None else nn.Parameter(torch.tensor(float(bias_init)))
        self.hubs = hubs

    @property
    def dim(self) -> int:
        """Features of the shared space."""
        return self.tower(next(iter(self.towers))).projection.dim

    @property
    def heads(self) -> int:
        """Blocks of equal length in each embedding (see `LinearProjection`)."""
        return self.tower(next(iter(self.towers))).projection.heads

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that it embeds."""
        return tuple(self.towers)

    def tower(self, modality: str) -> Tower:
        """The tower of a modality.

        Raises:
            ModelError: the model has none.
        """
        if modality not in self.towers:
            raise ModelError(f"this model embeds {', '.join(self.towers)}, not {modality!r}")
        tower = self.towers[modality]
        assert isinstance(tower, Tower)
        return tower

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What multiplies a cosine to give a logit."""
        log_scale: Tensor = self.log_scale
        limit = self._max_log_scale
        # Not `clamp`, whose gradient is zero at the bound too.
        log_scale = torch.where(log_scale < 0, torch.zeros_like(log_scale), log_scale)
        if limit is not None:
            log_scale = torch.where(log_scale > limit, torch.full_like(log_scale, limit), log_scale)
        return log_scale.exp()

    @property
    def _max_log_scale(self) -> float | None:
        if self.max_scale is None:
            return None
        # Rounded as the parameter is: a clamped parameter that lay a rounding error beyond the
        # bound would have no gradient any more.
        return torch.tensor(math.log(self.max_scale), dtype=self.log_scale.dtype).item()

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Brings the stored temperature back into its range."""
        self.log_scale.clamp_(0.0, self._max_log_scale)

    def encode(self, batch: Batch) -> dict[str, Float[Tensor, "B E"]]:
        """Unit rows of each modality in the batch that the model has a tower for.

        Rows of samples that lack a modality are zero, and the encoder never sees them: they
        change nothing for the others. Leave them out of losses (`ModalityInput.present`).
        """
        return {
            name: self.encode_one(name, inputs)
            for name, inputs in batch.modalities.items()
            if name in self.towers
        }

    forward = encode

    def encode_one(self, modality: str, inputs: ModalityInput) -> Float[Tensor, "B E"]:
        """Unit rows of one modality; zero where it is absent."""
        tower = self.tower(modality)
        present = inputs.present
        if bool(present.all()):
            rows: Tensor = tower(inputs)
            return rows
        zeros = self.log_scale.new_zeros(len(present), self.dim)
        if not bool(present.any()):
            return zeros
        found = tower(inputs.map(lambda tensor: tensor[present]))
        return zeros.to(found.dtype).index_copy(0, present.nonzero()[:, 0], found)

    def embed(
        self,
        images: Sequence[Any] | None = None,
        texts: Sequence[str] | None = None,
        *,
        batch_size: int = 32,
    ) -> dict[str, np.ndarray]:
        """Unit rows, float32, of pictures and texts; each row is independent of the others.

        Args:
            images: paths, PIL images, uint8 arrays (H, W, 3), or media references.
            texts: strings.
            batch_size: how many at once.

        Raises:
            DataError: a picture that can't be read, by name.
        """
        result = {}
        if images is not None:
            result[IMAGE] = embedding.embed_images(self, images, batch_size)
        if texts is not None:
            result[TEXT] = embedding.embed_texts(self, texts, batch_size)
        return result

    def similarity(self, images: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        """Cosines (images, texts)."""
        rows = self.embed(images, texts)
        return rows[IMAGE] @ rows[TEXT].T

    def classify(
        self,
        images: Sequence[Any],
        labels: Sequence[str],
        templates: Sequence[str] = ("{}",),
    ) -> np.ndarray:
        """Probabilities (images, labels): softmax of scaled cosines to the labels' prompts.

        Args:
            images: as in `embed`.
            labels: class names.
            templates: prompts with ``{}`` for the name; a class is the mean of its prompts'
                embeddings, brought to unit length (Radford et al. 2021, section 3.1.4).
        """
        classes = embedding.embed_labels(self, labels, templates)
        rows = self.embed(images=images)[IMAGE]
        logits = rows @ classes.T * self.scale.item()
        exp = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exp / exp.sum(axis=1, keepdims=True), dtype=np.float32)
