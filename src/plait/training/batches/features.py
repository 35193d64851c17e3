"""Features of frozen towers for training: plain and augmented versions, noise and mixing.

Legend: n samples, m texts, S versions, B rows, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plait.core.batch import Batch, ModalityInput
from plait.core.random import uniform
from plait.engines.pooled import image_features, text_features
from plait.modalities.image.augment import ImageAugment, build_augment
from plait.models.store.kinds import Model
from plait.training.batches.material import Augment, Material
from plait.training.batches.supply import Change
from plait.training.recipe.stage import Features

Steps = Sequence[Mapping[str, Any]]


def frozen_features(
    model: Model,
    modality: str,
    material: Material,
    settings: Features,
    seed: int,
    *,
    training: bool,
) -> np.ndarray:
    """Pooled outputs of a frozen tower: (m, D) of texts, or (n, S, D) of pictures.

    Slot 0 is the plain picture; the others are augmented by ``settings.augment``, each picture in
    its own way. Evaluations (``training`` False) have slot 0 alone.

    Raises:
        DataError: a picture that cannot be used, with its row.
    """
    encoder = model.tower(modality).encoder
    if modality == "text":
        return text_features(
            encoder, material.texts, engine=settings.engine, precision=settings.precision
        )
    slots = settings.slots if training else 1
    found = []
    for slot in range(slots):
        change, name = None, ""
        if slot:
            steps = _image_augment(settings.augment or [])

            def change(
                pixels: Tensor, places: Sequence[int], slot: int = slot, steps: ImageAugment = steps
            ) -> Tensor:
                ids = [material.ids[place] for place in places]
                return torch.as_tensor(steps(pixels.numpy(), ids, seed=seed, slot=slot))

            name = f"{steps.fingerprint}-{seed}-{slot}"
        found.append(
            image_features(
                encoder,
                material.pictures,
                engine=settings.engine,
                precision=settings.precision,
                slot=name,
                augment=change,
                on_error=material.failed,
                title=f"Encoding pictures, version {slot + 1}"
                if slots > 1
                else "Encoding pictures",
            )
        )
    return np.stack(found, axis=1)


def augmentation(steps: Steps | None, seed: int) -> Augment | None:
    """Augmentation of pictures that are decoded every epoch; another one each epoch."""
    if not steps:
        return None
    augment = _image_augment(steps)

    def change(pixels: Tensor, ids: Sequence[str], epoch: int) -> Tensor:
        # Epoch 0 would be slot 0, which cached features keep for the plain picture.
        return torch.as_tensor(augment(pixels.numpy(), ids, seed=seed, slot=epoch + 1))

    return change


def _image_augment(steps: Steps) -> ImageAugment:
    augment = build_augment({"image": steps})["image"]
    assert isinstance(augment, ImageAugment)
    return augment


def feature_change(settings: Features, seed: int, stage: int, rank: int) -> Change | None:
    """Noise on features and mixing of rows, a function of seed, stage, epoch and batch alone."""
    if not settings.noise and not settings.mixup:
        return None

    def change(batch: Batch, epoch: int, number: int) -> Batch:
        drawn = uniform(1, seed, "features", stage, epoch, number, rank)[0]
        random = torch.Generator().manual_seed(int(drawn * 2**53))
        if settings.mixup:
            batch = mixed(batch, settings.mixup, random)
        return noisy(batch, settings.noise, random) if settings.noise else batch

    return change


def noisy(batch: Batch, amount: float, random: torch.Generator) -> Batch:
    """Gaussian noise of ``amount`` times each row's root mean square, on all features."""

    def change(features: Tensor) -> Tensor:
        size = features.square().mean(dim=1, keepdim=True).sqrt()
        return features + amount * size * torch.randn(features.shape, generator=random)

    return _on_features(batch, change)


def mixed(batch: Batch, alpha: float, random: torch.Generator) -> Batch:
    """Each row mixed with another of the batch, both modalities alike (Zhang et al. 2018, mixup).

    The weight of the row itself is max(w, 1 - w) with w from Beta(alpha, alpha), so that a row
    stays closer to its own pair than to the other's.
    """
    rows = len(batch)
    other = torch.randperm(rows, generator=random)
    gamma = torch._standard_gamma(torch.full((2, rows), alpha), generator=random)
    weight = (gamma[0] / gamma.sum(dim=0).clamp(min=1e-12))[:, None]
    weight = torch.maximum(weight, 1 - weight)
    return _on_features(batch, lambda x: weight * x + (1 - weight) * x[other])


def _on_features(batch: Batch, change: Any) -> Batch:
    modalities: dict[str, ModalityInput] = {}
    for name, part in batch.modalities.items():
        tensors = dict(part.tensors)
        if "features" in tensors:
            tensors["features"] = change(tensors["features"])
        modalities[name] = replace(part, tensors=tensors)
    return replace(batch, modalities=modalities)
