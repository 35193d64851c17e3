"""CLIPScore: how well a caption fits its picture, to a model that aligns pictures and texts.

It needs no reference, so it judges what a caption says and not how others would say it. The factor
2.5 stretches the cosines of OpenAI's CLIP ViT-B/32, which lie between 0 and 0.4, to 0 to 1. Cosines
of other models lie elsewhere: scores by one model compare with each other only.

Legend: n captions, m references, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float64, Int

from plait.core.errors import DataError

if TYPE_CHECKING:
    from plait.models.alignment.alignment import AlignmentModel

_STRETCH = 2.5
PREFIX = "A photo depicts "
"""What Hessel et al. put before every caption and reference (section 3)."""


def clip_score(
    image: Float[np.ndarray, "n D"], caption: Float[np.ndarray, "n D"]
) -> Float64[np.ndarray, " n"]:
    """2.5 max(cos(image, caption), 0) of each pair, 0 to 2.5 (Hessel et al. 2021, eq. 1).

    Raises:
        DataError: an embedding without direction.
    """
    return _STRETCH * np.maximum(_products(_unit(image), _unit(caption)), 0)


def ref_clip_score(
    image: Float[np.ndarray, "n D"],
    caption: Float[np.ndarray, "n D"],
    reference: Float[np.ndarray, "m D"],
    owner: Int[np.ndarray, " m"],
) -> Float64[np.ndarray, " n"]:
    """Harmonic mean of `clip_score` and the cosine to the nearest reference (ibid., eq. 2).

    Args:
        image: (n, D) embeddings of the pictures.
        caption: (n, D) of the captions to judge.
        reference: (m, D) of what people wrote.
        owner: (m,) the caption, 0 to n - 1, that each reference is for.

    Raises:
        DataError: a caption without a reference, or an embedding without direction.
    """
    missing = np.setdiff1d(np.arange(len(caption)), owner)
    if len(missing):
        raise DataError(f"caption {missing[0] + 1} has no reference: leave it out")
    to_image = clip_score(image, caption)
    to_nearest = np.zeros(len(caption))  # the largest cosine, 0 at least
    np.maximum.at(to_nearest, owner, _products(_unit(caption)[owner], _unit(reference)))
    total = to_image + to_nearest
    return 2 * to_image * to_nearest / np.where(total > 0, total, 1)


def clip_scores(
    model: AlignmentModel,
    images: Sequence[Any],
    captions: Sequence[str],
    references: Sequence[Sequence[str]] | None = None,
    *,
    prefix: str = PREFIX,
    batch_size: int = 64,
) -> dict[str, Float64[np.ndarray, " n"]]:
    """CLIPScore of each caption by a model, and RefCLIPScore if there are references.

    Args:
        model: that aligns pictures and texts; best one that the captioner was not trained with.
        images: n paths, PIL images, uint8 arrays or media references.
        captions: n texts.
        references: for each caption what people wrote, at least one text.
        prefix: put before all texts; "" suits models that were not trained on sentences.
        batch_size: pictures or texts at a time.

    Returns:
        ``clip_score`` and, with references, ``ref_clip_score``: ready to be the ``scores`` of
        `plait.evaluation.metrics.captions.evaluate_captions`.

    Raises:
        DataError: lists of different lengths, or a caption without a reference.
    """
    for what, given in (("captions", captions), ("lists of references", references)):
        if given is not None and len(given) != len(images):
            raise DataError(f"{len(images)} images, but {len(given)} {what}")
    embedded = model.embed(images, [prefix + one for one in captions], batch_size=batch_size)
    seen, said = embedded["image"], embedded["text"]
    found = {"clip_score": clip_score(seen, said)}
    if references is not None:
        texts = [prefix + one for several in references for one in several]
        owner = np.repeat(np.arange(len(references)), [len(several) for several in references])
        written = model.embed(texts=texts, batch_size=batch_size)["text"]
        found["ref_clip_score"] = ref_clip_score(seen, said, written, owner)
    return found


def _unit(rows: Float[np.ndarray, "n D"]) -> Float64[np.ndarray, "n D"]:
    wide = rows.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    if not (norms > 0).all():  # zero, or not a number
        raise DataError(
            f"row {int(np.argmin(norms[:, 0] > 0)) + 1} of the embeddings has no direction"
        )
    return wide / norms


def _products(
    left: Float64[np.ndarray, "n D"], right: Float64[np.ndarray, "n D"]
) -> Float64[np.ndarray, " n"]:
    return (left * right).sum(axis=1)
