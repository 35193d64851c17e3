"""The nearest rows of an alignment index, put in a better order by a fusion model.

An alignment model embeds words and pictures apart, so it can search millions; a fusion model looks
at both together, but at one pair at a time. So the first finds candidates and the second orders
them (Li et al. 2021, ALBEF, section 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plait.core.errors import UserError, shown
from plait.core.media import FileRef
from plait.models.fusion.asking import match_scores
from plait.models.fusion.model import FusionModel

CANDIDATES = 50
"""How many nearest rows are looked at, if fewer are not wanted."""


def rerank(
    model: FusionModel,
    query: str | Path,
    hits: Sequence[Mapping[str, Any]],
    *,
    scale: float,
) -> list[dict[str, Any]]:
    """The same hits in another order; each gets ``match``, its log odds of matching the query.

    They are ordered by ``match + scale * score``: the cosine of the alignment model, times its
    logit scale, is a log odds too, up to a constant (as in BLIP's evaluation).

    Args:
        model: trained with the objective ``match`` or ``wra``.
        query: words, compared with the hits' pictures; or a picture, compared with their texts.
        hits: of `Index.search`.
        scale: logit scale of the index's model.

    Raises:
        UserError: a hit has no picture (or, for a picture, no text) to compare with.
        ModelError: the model was not trained to match.
        DataError: a picture that cannot be read.
    """
    if not hits:
        return []
    if isinstance(query, str):
        pictures = [FileRef(_of(hit, "path", "picture")) for hit in hits]
        texts = [query] * len(hits)
    else:
        pictures = [FileRef(query)] * len(hits)
        texts = [str(_of(hit, "text", "text")) for hit in hits]
    match = match_scores(model, pictures, texts)
    total = match + scale * np.array([hit["score"] for hit in hits], np.float32)
    order = np.argsort(-total, kind="stable")
    return [
        {**hits[place], "rank": rank, "match": round(float(match[place]), 4)}
        for rank, place in enumerate(order.tolist(), 1)
    ]


def _of(hit: Mapping[str, Any], key: str, what: str) -> Any:
    value = hit.get(key)
    if key == "path" and hit.get("outside"):
        raise UserError(
            f"the picture of the row {shown(hit['id'])} lies outside the folders of the index: "
            "state its folder (--root FOLDER), or --allow-outside"
        )
    if not value:
        raise UserError(f"the row {shown(hit['id'])} has no {what} to rerank by")
    return Path(value) if key == "path" else value
