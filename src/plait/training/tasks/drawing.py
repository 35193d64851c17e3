"""Training models that draw: what their two stages read, their losses, and what is watched.

First pictures pass through codes (``dvae``), then a transformer learns to write the codes behind
texts (``draw``). The codes of a picture are computed once and kept.

Shape legend: n samples, B rows, N words, H, W pixels, h, w the grid of codes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from plait.core.batch import Batch, ModalityInput
from plait.core.modality import IMAGE, TEXT
from plait.core.progress import track
from plait.modalities.image.fast_decode import load_pixels
from plait.modalities.image.pixel_cache import PixelCache
from plait.models.drawing.codebook import annealed, code_use
from plait.models.drawing.drawing import DrawingModel
from plait.training.batches.material import Augment, Material
from plait.training.batches.rows import Rows
from plait.training.batches.supply import Change, PixelSource, Source, Supply, TokenSource
from plait.training.loop.precision import autocast
from plait.training.loop.task import TaskLoss
from plait.training.recipe.stage import Stage

PROGRESS = "progress"
"""Name of the target (B,) that tells how much of the stage is done, in 0..1."""
CODES = "codes"
AT_ONCE = 128  # pictures that are encoded together
WARM, COLD = 0.25, 0.75  # of a stage: the divergence weighs in full; the temperature is lowest


class CodeSource:
    """Codes of pictures, kept in memory.

    Args:
        codes: of n samples.
    """

    def __init__(self, codes: Int64[Tensor, "n h w"]) -> None:
        self.codes = codes

    def __call__(self, rows: Rows) -> ModalityInput:
        """``codes`` (B, h, w)."""
        return ModalityInput.of(**{CODES: self.codes[torch.from_numpy(rows.sample)]})


def drawing_sources(
    model: DrawingModel,
    material: Material,
    objective: str,
    *,
    augment: Augment | None = None,
    cache_pixels: bool = False,
) -> dict[str, Source]:
    """Where the inputs of a stage come from.

    Args:
        model: whose discrete VAE gives the codes of ``draw``.
        material: the split.
        objective: ``dvae`` or ``draw``.
        augment: of pictures, (pixels, ids, epoch) to pixels; None for none.
        cache_pixels: keep decoded pictures on disk.

    Raises:
        DataError: a picture that cannot be used, with its row.
    """
    store = PixelCache(model.pixels) if cache_pixels else None

    def load(positions: Sequence[int]) -> Any:
        return load_pixels(
            [material.pictures[i] for i in positions],
            model.pixels,
            store=store,
            on_error=lambda place, error: material.failed(int(positions[place]), error),
        )

    def change(pixels: Tensor, positions: Sequence[int], epoch: int) -> Tensor:
        assert augment is not None
        changed: Tensor = augment(pixels, [material.ids[i] for i in positions], epoch)
        return changed

    if objective == "dvae":
        return {IMAGE: PixelSource(load, None if augment is None else change)}
    starts = range(0, len(material), AT_ONCE)
    device = model.transformer.start.device
    found = [
        model.dvae.codes(
            torch.as_tensor(load(range(k, min(k + AT_ONCE, len(material))))).to(device)
        ).cpu()
        for k in track(starts, "Encoding pictures", total=len(starts))
    ]
    codes = torch.cat(found) if found else torch.empty(0, *model.dvae.grid, dtype=torch.int64)
    return {IMAGE: CodeSource(codes), TEXT: TokenSource(material.texts, model.preprocess)}


def with_progress(stage: Stage, steps_an_epoch: int) -> Change:
    """Adds to every batch how much of the stage is done before it."""
    steps = stage.steps or (stage.epochs or 0) * steps_an_epoch

    def change(batch: Batch, epoch: int, number: int) -> Batch:
        done = torch.full((len(batch),), (epoch * steps_an_epoch + number) / steps)
        return replace(batch, targets={**batch.targets, PROGRESS: done})

    return change


class DvaeTask:
    """The discrete VAE's loss, while the choice of codes gets harder.

    Args:
        model: whose VAE trains.
        temperature: of the choice in the last quarter; it falls from 1 by half a cosine until then.
        kl_weight: of the divergence from equal chances, after a quarter in which it rises.
        balance_weight: of the imbalance.
    """

    def __init__(
        self, model: DrawingModel, temperature: float, kl_weight: float, balance_weight: float
    ) -> None:
        self.model, self.temperature = model, temperature
        self.kl_weight, self.balance_weight = kl_weight, balance_weight

    def loss(self, batch: Batch) -> TaskLoss:
        """The loss of a batch, with its graph."""
        done = float(batch.targets[PROGRESS][0])
        out = self.model.dvae(
            batch.modalities[IMAGE].tensors["pixels"],
            # Codes are read without noise, so the end of the stage runs at the lowest temperature.
            heat(done, self.temperature),
            self.kl_weight * min(1.0, done / WARM),
            balance_weight=self.balance_weight,
        )
        parts = {"error": out.error, "divergence": out.divergence, "imbalance": out.imbalance}
        return TaskLoss(out.loss, {name: value.detach() for name, value in parts.items()})


def heat(done: float, lowest: float) -> float:
    """The temperature when a share ``done`` of the stage is over."""
    return annealed(min(done / COLD, 1.0), 1, 1.0, lowest)


class DrawTask:
    """Cross-entropy of codes behind texts.

    Args:
        model: whose transformer trains.
        drop_text: share of texts that are left out.
        image_weight: of the codes' loss beside the text's 1.
        disturb: share of the codes that are read wrong (`plait.models.drawing.drawing.disturbed`).
    """

    def __init__(
        self, model: DrawingModel, drop_text: float, image_weight: float, disturb: float = 0.0
    ) -> None:
        self.model, self.drop_text, self.image_weight = model, drop_text, image_weight
        self.disturb = disturb

    def loss(self, batch: Batch) -> TaskLoss:
        """The loss of a batch, with its graph."""
        found = self.model.loss(
            *codes_of(batch), self.drop_text, self.image_weight, disturb=self.disturb
        )
        parts = {"text": found.text.detach(), "image": found.image.detach()}
        return TaskLoss(found.loss, parts)


def codes_of(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (B, N) and mask (B, N) of texts, codes (B, h, w) of pictures."""
    text = batch.modalities[TEXT]
    assert text.mask is not None
    return text.tensors["ids"], text.mask, batch.modalities[IMAGE].tensors[CODES]


class DvaeValidator:
    """How well a split is rebuilt from its codes, and how many codes it uses.

    Args:
        model: what to measure.
        supply: the split's rows in order.
        device, dtype: to compute on and in.
    """

    def __init__(
        self, model: DrawingModel, supply: Supply, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.model, self.supply, self.device, self.dtype = model, supply, device, dtype

    def __call__(self) -> tuple[float, dict[str, Any]]:
        """(minus the mean squared error with pixels in 0..1; all metrics)."""
        total, count, seen = 0.0, 0, []
        for batch in self.supply.epoch(0):
            pixels = batch.modalities[IMAGE].tensors["pixels"].to(self.device)
            with autocast(self.device, self.dtype):
                codes = self.model.dvae.codes(pixels)
                rebuilt = self.model.dvae.decode(codes)
            squared = (pixels.float() - rebuilt.float()).div(255).square()
            total += float(squared.mean(dim=(1, 2, 3)).double().sum())
            count += len(pixels)
            seen.append(codes.cpu())
        error = total / count
        use = code_use(torch.cat(seen), self.model.dvae.code_count)
        found = {"loss": error, "psnr": -10 * math.log10(max(error, 1e-10))}
        return -error, {**found, "codes_used": use.share, "perplexity": use.perplexity}


class DrawValidator:
    """Cross-entropy of the codes and texts of a split; the arguments are `DvaeValidator`'s."""

    def __init__(
        self, model: DrawingModel, supply: Supply, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.model, self.supply, self.device, self.dtype = model, supply, device, dtype

    def __call__(self) -> tuple[float, dict[str, Any]]:
        """(minus the codes' nats a token; all metrics)."""
        totals, count = [0.0, 0.0], 0
        with torch.no_grad():
            for batch in self.supply.epoch(0):
                with autocast(self.device, self.dtype):
                    found = self.model.loss(*codes_of(batch.to(self.device)))
                for place, value in enumerate((found.image, found.text)):
                    totals[place] += float(value) * len(batch)
                count += len(batch)
        image, text = (total / count for total in totals)
        return -image, {"loss": image, "text": text}
