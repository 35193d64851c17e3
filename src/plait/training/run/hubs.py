"""After the last stage: the training queries that a correction for hubs is told by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from plait.core.modality import IMAGE, TEXT
from plait.core.random import permutation
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import Sample
from plait.models.alignment.alignment import AlignmentModel
from plait.models.base.hubs import HubCorrection
from plait.training.recipe.model import Hubs


def hub_correction(
    model: AlignmentModel, dataset: PairDataset, settings: Hubs, *, seed: int, **embedding: Any
) -> HubCorrection:
    """Embeds pictures and texts drawn from the training split, each text once.

    The same for the same model, data and seed, so that a run that was stopped and went on has the
    same correction.

    Args:
        model: trained, with towers for pictures and texts.
        dataset: the training split.
        settings: of the recipe.
        seed: of the draw.
        embedding: as for `plait.engines.features.embed_dataset`.
    """
    from plait.engines.features import embed_dataset

    pictured = [sample for sample in dataset if sample.image is not None]
    texts = list(dict.fromkeys(text for sample in dataset for text in sample.texts))
    pictures = [
        replace(pictured[place], texts=(), languages=())
        for place in permutation(len(pictured), seed, "hubs", IMAGE)[: settings.bank].tolist()
    ]
    words = [
        Sample(id=f"text {place}", where="a training text", texts=(texts[place],))
        for place in permutation(len(texts), seed, "hubs", TEXT)[: settings.bank].tolist()
    ]
    found = embed_dataset(model, PairDataset([*pictures, *words], dataset.format), **embedding)
    banks = {
        IMAGE: torch.from_numpy(found.image[: len(pictures)]),
        TEXT: torch.from_numpy(found.text),
    }
    return HubCorrection(banks, neighbours=settings.neighbours, strength=settings.strength)
