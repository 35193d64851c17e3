"""How well a drawing model rebuilds pictures from codes, and how well texts tell it the codes.

Legend: n pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from plait.core.errors import DataError
from plait.core.progress import track
from plait.data.base.dataset import PairDataset
from plait.data.base.notes import with_notes
from plait.modalities.image.fast_decode import load_pixels
from plait.models.base.embedding import answering
from plait.models.drawing.codebook import code_use
from plait.models.drawing.drawing import DrawingModel

AT_ONCE = 64


def evaluate_drawing(
    model: DrawingModel,
    dataset: PairDataset,
    *,
    split: str = "all",
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Rebuilds the pictures of a split, and lets the transformer guess their codes.

    Args:
        model: trained.
        dataset: samples with a picture; those with a text are guessed too, by their first.
        split: ``train``, ``validation``, ``test``, or ``all`` that the data set holds.
        bootstrap: replicates of the 95% intervals, over pictures.
        seed: of the intervals and of the control.

    Returns:
        ``reconstruction``: ``mse`` with pixels in 0..1, ``psnr`` in dB, the mean over pictures
        (each with ``_low`` and ``_high``), ``codes_used`` (share of the codebook) and
        ``perplexity`` of the codes. ``codes``: nats a code of the transformer, given the text
        (``with_text``), given another sample's (``shuffled_texts``), given none
        (``without_text``). ``counts``.

    Raises:
        DataError: no picture to measure.
    """
    samples = [s for s in dataset.split(split) if s.image is not None]
    if not samples:
        problem = f"no sample of the split {split!r} has a picture"
        raise DataError(with_notes(problem, dataset.notes))
    pictures = [s.image for s in samples if s.image is not None]
    starts = range(0, len(pictures), AT_ONCE)
    codes, errors = [], []
    with answering(model) as device:
        for start in track(starts, "Rebuilding pictures", total=len(starts)):
            part = load_pixels(pictures[start : start + AT_ONCE], model.pixels)
            pixels = torch.as_tensor(part).to(device)
            found = model.dvae.codes(pixels)
            rebuilt = model.dvae.decode(found)
            difference = (pixels.double() - rebuilt.double()).div(255)
            errors.append(difference.square().mean(dim=(1, 2, 3)).cpu())
            codes.append(found.cpu())
    squared, grid = torch.cat(errors).numpy(), torch.cat(codes)
    use = code_use(grid, model.dvae.code_count)
    ratios = -10 * np.log10(np.maximum(squared, 1e-10))
    result: dict[str, Any] = {
        "reconstruction": {
            **_mean("mse", squared, bootstrap, seed),
            **_mean("psnr", ratios, bootstrap, seed),
            "codes_used": use.share,
            "perplexity": use.perplexity,
        },
        "counts": {"pictures": len(pictures)},
    }
    told = [place for place, sample in enumerate(samples) if sample.texts]
    if told:
        texts = [samples[place].texts[0] for place in told]
        shown = grid[torch.tensor(told)]
        order = np.random.default_rng(seed).permutation(len(told))
        other = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
        readings: dict[str, Sequence[str] | None] = {
            "with_text": texts,
            "shuffled_texts": [texts[other[place]] for place in range(len(texts))],
            "without_text": None,
        }
        result["codes"] = {}
        for name, given in readings.items():
            nats = _nats(model, shown, given)
            result["codes"] |= _mean(name, nats, bootstrap, seed)
        result["counts"]["texts"] = len(texts)
    return result


def _nats(model: DrawingModel, codes: Tensor, texts: Sequence[str] | None) -> np.ndarray:
    """(n,) mean cross-entropy of the codes of each picture; texts None: none is read."""
    found = []
    with answering(model) as device:
        for start in range(0, len(codes), AT_ONCE):
            part = codes[start : start + AT_ONCE].to(device)
            given = ["x"] * len(part) if texts is None else texts[start : start + AT_ONCE]
            ids, mask = (torch.from_numpy(one).to(device) for one in model.preprocess(list(given)))
            text = model.transformer.padded(ids, mask & (texts is not None))
            _, logits = model.transformer(text, part.flatten(1))
            chances = logits.double().log_softmax(dim=-1)
            taken = chances.gather(2, part.flatten(1)[..., None])[..., 0]
            found.append(-taken.mean(dim=1).cpu())
    return np.asarray(torch.cat(found).numpy())


def _mean(
    name: str, values: Float[np.ndarray, " n"], bootstrap: int, seed: int
) -> dict[str, float]:
    """The mean and its 95% percentile interval over pictures."""
    found = {name: float(values.mean())}
    if bootstrap and len(values) > 1:
        draws = np.random.default_rng(seed).integers(len(values), size=(bootstrap, len(values)))
        low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
        found |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return found
