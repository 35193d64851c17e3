"""Everything that is measured of an alignment model, as nested JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from plait.core.errors import DataError
from plait.data.base.dataset import PairDataset
from plait.data.base.equal_texts import EqualTexts
from plait.data.base.notes import with_notes
from plait.evaluation.evaluate.gallery import Gallery, corrected, gallery_of
from plait.evaluation.metrics.classification import class_vectors, zero_shot
from plait.evaluation.metrics.geometry import geometry
from plait.evaluation.metrics.retrieval import mean_recall, retrieval, retrieval_by_language
from plait.models.alignment.alignment import AlignmentModel

EmbedTexts = Callable[[list[str]], Float[np.ndarray, "T D"]]


def evaluate_alignment(
    model: AlignmentModel,
    dataset: PairDataset,
    *,
    split: str = "all",
    bootstrap: int = 1000,
    seed: int = 0,
    templates: Sequence[str] = ("{}",),
    equal_texts: EqualTexts = "same",
    **embedding: Any,
) -> dict[str, Any]:
    """Embeds a split and measures it (see `evaluate_gallery` for what is returned).

    Args:
        model: what to measure.
        dataset: pairs; every text is a candidate.
        split: ``train``, ``validation``, ``test``, or ``all`` that the data set holds.
        bootstrap: replicates of the 95% intervals.
        seed: of the intervals.
        templates: prompts for zero-shot classification, each with ``{}`` for the class; used where
            the samples carry class labels.
        equal_texts: see `plait.evaluation.evaluate.gallery.gallery_of`.
        embedding: as for `plait.engines.features.embed_dataset` (engine, batch size, cache).

    Raises:
        DataError: the split holds no picture or no text.
    """
    from plait.engines.features import embed_dataset

    part = dataset.split(split)
    if not len(part):
        raise DataError(with_notes(f"no samples in the split {split!r}", dataset.notes))
    found = embed_dataset(model, part, **embedding)
    gallery = corrected(gallery_of(found, part, equal_texts=equal_texts), model.hubs)
    return evaluate_gallery(
        gallery,
        bootstrap=bootstrap,
        seed=seed,
        templates=templates,
        embed_texts=lambda texts: model.embed(texts=texts)["text"],
    )


def evaluate_gallery(
    gallery: Gallery,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    templates: Sequence[str] = ("{}",),
    embed_texts: EmbedTexts | None = None,
) -> dict[str, Any]:
    """Measures vectors that are there already.

    Args:
        gallery: unit vectors with what they stand for.
        bootstrap: replicates of the 95% intervals; 0 leaves them out.
        seed: of the intervals.
        templates: prompts, each with ``{}`` for the class.
        embed_texts: texts to unit rows, for the prompts; None leaves classification out.

    Returns:
        ``retrieval`` (see `plait.evaluation.metrics.retrieval.retrieval`, percent), ``mean_recall``,
        ``languages`` (the same as ``retrieval`` for each language, where texts have one),
        ``geometry`` (see `plait.evaluation.metrics.geometry`), ``counts``, and ``zero_shot`` where pictures
        carry at least two classes, or have one text each of few that repeat (``by``: ``label`` or
        ``text``). Where the gallery is corrected for hubs, so are the first three,
        and ``retrieval_plain`` is ``retrieval`` by cosine alone.
    """
    options: dict[str, Any] = {"bootstrap": bootstrap, "seed": seed}
    biases: dict[str, Any] = {"image_bias": gallery.image_bias, "text_bias": gallery.text_bias}
    image, text, owner = gallery.image, gallery.text, gallery.text_owner
    alike: dict[str, Any] = {"image_groups": gallery.groups, "text_words": gallery.text_words}
    figures = retrieval(image, text, owner, **alike, **biases, **options)
    languages = retrieval_by_language(
        image, text, owner, gallery.languages, **alike, **biases, **options
    )
    result: dict[str, Any] = {
        "retrieval": figures,
        "mean_recall": mean_recall(figures),
        "languages": languages,
        "geometry": geometry(image, text, owner, **alike),
        "counts": {
            "images": len(gallery.image),
            "texts": len(gallery.text),
            "groups": len(np.unique(gallery.groups)),
            "without_image": gallery.left_out,
        },
    }
    if gallery.image_bias is not None or gallery.text_bias is not None:
        result["retrieval_plain"] = retrieval(image, text, owner, **alike, **options)
    classified = None
    if embed_texts is not None:
        classified = _zero_shot(gallery, embed_texts, templates, options)
    classified = classified or _by_text(gallery, options)
    if classified is not None:
        result["zero_shot"] = classified
    return result


def _by_text(gallery: Gallery, options: dict[str, Any]) -> dict[str, Any] | None:
    """Accuracy over the texts themselves, where each picture has one of few that repeat.

    None unless there are at least two, and as many pictures of each in the mean.
    """
    if gallery.text_words is None:
        return None
    words, first, word = np.unique(gallery.text_words, return_index=True, return_inverse=True)
    own = np.full(len(gallery.image), -1)
    own[gallery.text_owner] = word
    asked = np.flatnonzero(own >= 0)
    if (own[gallery.text_owner] != word).any() or not 2 <= len(words) <= len(asked) / 2:
        return None
    names = [gallery.texts[place] for place in first.tolist()]
    found = zero_shot(gallery.image[asked], gallery.text[first], own[asked], names=names, **options)
    return {"by": "text", **found}


def _zero_shot(
    gallery: Gallery, embed_texts: EmbedTexts, templates: Sequence[str], options: dict[str, Any]
) -> dict[str, Any] | None:
    """Zero-shot accuracy over the pictures with a class; None with fewer than two classes."""
    for template in templates:
        if "{}" not in template:
            raise DataError(f"the template {template!r} has no {{}} for the class")
    rows = [row for row, label in enumerate(gallery.labels) if label is not None]
    names = sorted({str(gallery.labels[row]) for row in rows})
    if len(names) < 2:
        return None
    spoken = [name.replace("_", " ") for name in names]  # as the readers do for class folders
    prompts = embed_texts(
        [template.replace("{}", name) for name in spoken for template in templates]
    )
    classes = class_vectors(prompts.reshape(len(names), len(templates), -1))
    number = {name: place for place, name in enumerate(names)}
    labels = np.array([number[str(gallery.labels[row])] for row in rows])
    found = zero_shot(gallery.image[rows], classes, labels, names=names, **options)
    return {"by": "label", **found}
