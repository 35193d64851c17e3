"""A whole data set in the shared space of a model: towers through engines, projections in torch.

Shape legend: n samples, m texts, D features of a tower, E of the shared space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64

from plait.core.batch import ModalityInput
from plait.core.errors import DataError
from plait.core.modality import IMAGE, TEXT
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import BadRow
from plait.engines.cache import FeatureCache
from plait.engines.pooled import IMAGE_BATCH, cache_of, image_features, text_features
from plait.engines.runner import TowerRunner
from plait.engines.tower import evaluating
from plait.modalities.image.fast_decode import PixelStore
from plait.models.alignment.alignment import AlignmentModel

__all__ = ["Embeddings", "embed_dataset", "image_features", "project", "text_features"]

PROJECTED_AT_ONCE = 4096


@dataclass(frozen=True)
class Embeddings:
    """The vectors of a data set.

    Attributes:
        ids: of the n samples.
        groups: (n,) equal where samples show the same thing.
        image: (n, E) unit rows; zero where a sample has no picture. (0, E) without an image tower.
        text: (m, E) unit rows. (0, E) without a text tower.
        text_owner: (m,) the sample of each text, as a row of ``ids``.
        texts: the m texts.
        skipped: samples left out, with the reason.
    """

    ids: Sequence[str]
    groups: Int64[np.ndarray, " n"]
    image: Float[np.ndarray, "_ E"]
    text: Float[np.ndarray, "_ E"]
    text_owner: Int64[np.ndarray, " m"]
    texts: Sequence[str] = ()
    skipped: Sequence[BadRow] = field(default=())


def embed_dataset(
    model: AlignmentModel,
    dataset: PairDataset,
    *,
    engine: str | Mapping[str, str] = "auto",
    precision: str = "auto",
    batch_size: int = IMAGE_BATCH,
    cache: FeatureCache | bool = True,
    pixels: PixelStore | None = None,
    on_bad_row: Literal["fail", "skip"] = "fail",
    title: str = "Encoding pictures",
    runners: dict[str, TowerRunner] | None = None,
) -> Embeddings:
    """Unit vectors of every picture and every text.

    Args:
        model: with an image tower, a text tower, or both.
        dataset: samples without a picture get a zero row, so that their texts keep an owner.
        engine: for all towers, or by modality; see `image_features`.
        precision: see `image_features`.
        batch_size: pictures that an engine takes at a time.
        cache: see `image_features`; False writes nothing, as suits towers that train.
        pixels: where decoded pictures are kept.
        on_bad_row: whether a picture that cannot be used stops the run, or its sample is left out
            and listed in ``skipped``.
        title: of the pictures' progress bar.
        runners: what ran the towers, kept from one part of a large data set to the next; the other
            options are then those of the first part.

    Raises:
        DataError: an unusable picture under ``on_bad_row="fail"``.
    """
    samples = list(dataset)
    bad: dict[int, DataError] = {}
    runners = {} if runners is None else runners
    for modality in model.modalities:
        if modality not in runners:
            runners[modality] = TowerRunner(
                model.tower(modality).encoder,
                _of(engine, modality),
                precision,
                cache=cache_of(cache),
            )
    image = np.zeros((len(samples), model.dim), np.float32)
    if IMAGE in model.modalities:
        pictured = [place for place, sample in enumerate(samples) if sample.image is not None]

        def note(position: int, error: DataError) -> None:
            bad[pictured[position]] = error

        features = image_features(
            model.tower(IMAGE).encoder,
            [ref for place in pictured if (ref := samples[place].image) is not None],
            batch_size=batch_size,
            pixels=pixels,
            on_error=note if on_bad_row == "skip" else None,
            title=title,
            runner=runners[IMAGE],
        )
        image[pictured] = project(model, IMAGE, features)
    kept = [place for place in range(len(samples)) if place not in bad]
    texts = [text for place in kept for text in samples[place].texts]
    owner = [row for row, place in enumerate(kept) for _ in samples[place].texts]
    text = np.zeros((0, model.dim), np.float32)
    if TEXT in model.modalities:
        encoder = model.tower(TEXT).encoder
        text = project(model, TEXT, text_features(encoder, texts, runner=runners[TEXT]))
    return Embeddings(
        ids=tuple(samples[place].id for place in kept),
        groups=dataset.group_numbers()[kept],
        image=image[kept] if IMAGE in model.modalities else image[:0],
        text=text,
        text_owner=np.array(owner, dtype=np.int64),
        texts=tuple(texts),
        skipped=tuple(
            BadRow(samples[place].where, None, str(error), "unusable-picture")
            for place, error in sorted(bad.items())
        ),
    )


def project(
    model: AlignmentModel, modality: str, features: Float[np.ndarray, "n D"]
) -> Float[np.ndarray, "n E"]:
    """Pooled features to unit rows of the shared space, by the model's own projection."""
    weight = next(model.parameters())
    blocks = [np.zeros((0, model.dim), np.float32)]
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(features), PROJECTED_AT_ONCE):
            block = torch.from_numpy(features[start : start + PROJECTED_AT_ONCE])
            inputs = ModalityInput.of(features=block.to(weight.device, weight.dtype))
            blocks.append(model.encode_one(modality, inputs).float().cpu().numpy())
    return np.concatenate(blocks)


def _of(engine: str | Mapping[str, str], modality: str) -> str:
    return engine if isinstance(engine, str) else engine.get(modality, "auto")
