"""Scores less a correction for hubs, in stores that know nothing but cosines.

For a row r with the correction b (see `plait.models.base.hubs`) a store gets the unit vector

    r' = [c r, -c b at the place of the row's modality, 0 at the others, p],  c = 1 / sqrt 2,

p making it one of unit length, which needs |b| <= 1. A query q becomes q' = [q, f, 0] / |[q, f]|
with f = 1 at the places of the modalities that it is corrected for, so that

    cos(q', r') = c (q . r - f b) / |[q, f]|:

the order of the corrected scores for rows of another modality than the query's, that of cosines
for rows of its own, and either score exactly but for a constant factor.

Shape legend: D features of the model, S = D + 3 of the store.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from plait.core.modality import IMAGE, TEXT
from plait.retrieval.store.store import Row

if TYPE_CHECKING:  # queries need no torch
    from plait.models.base.hubs import HubCorrection

PLACES = {IMAGE: 0, TEXT: 1}
EXTRA = len(PLACES) + 1
"""Features that a store's vector has beyond the model's."""
SHARE = math.sqrt(0.5)


def corrected_rows(rows: Sequence[Row], hubs: HubCorrection) -> list[Row]:
    """The rows in their order, with vectors for the store."""
    result = list(rows)
    for modality, asked_by in ((IMAGE, TEXT), (TEXT, IMAGE)):
        places = [place for place, row in enumerate(rows) if row.modality == modality]
        if not places:
            continue
        vectors = _unit(np.stack([rows[place].vector for place in places]))
        bias = hubs.bias(modality, vectors, asked_by)
        for place, vector in zip(places, extended(vectors, bias, modality), strict=True):
            result[place] = replace(rows[place], vector=vector)
    return result


def extended(
    vectors: Float[np.ndarray, "n D"], bias: Float[np.ndarray, " n"], modality: str
) -> Float[np.ndarray, "n S"]:
    """Unit rows and their corrections as unit rows of a store, float32."""
    bias = np.clip(bias, -1, 1)
    extra = np.zeros((len(vectors), EXTRA))
    extra[:, PLACES[modality]] = -SHARE * bias
    extra[:, -1] = np.sqrt((1 - bias**2) / 2)  # 1 - c^2 (1 + b^2)
    return np.concatenate([SHARE * vectors, extra], axis=1).astype(np.float32)


def extended_query(
    vector: Float[np.ndarray, " D"], corrects: Collection[str]
) -> tuple[Float[np.ndarray, " S"], float]:
    """A query for a store, and the factor from the store's cosines to scores.

    Args:
        vector: unit vector.
        corrects: the modalities of rows whose scores are corrected.
    """
    extra = np.zeros(EXTRA)
    for modality in corrects:
        extra[PLACES[modality]] = 1
    length = math.sqrt(1 + len(corrects))
    made = np.concatenate([_unit(vector), extra]) / length
    return made.astype(np.float32), length / SHARE


def _unit(vectors: Float[np.ndarray, "*n D"]) -> Float[np.ndarray, "*n D"]:
    """Exactly unit: bfloat16 engines leave a length within some 1e-3 of it."""
    vectors = vectors.astype(np.float64)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
