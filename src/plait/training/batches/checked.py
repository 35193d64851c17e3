"""The data as a run takes them: pictures that can be used, texts in the languages asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from plait.core.errors import DataError
from plait.core.progress import track
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import BadRow
from plait.modalities.image.fast_decode import iter_pixels
from plait.modalities.image.preprocess import ImagePreprocess

_SMALL = ImagePreprocess(size=16)  # decoding is what is tested; the size costs nothing


def usable(dataset: PairDataset) -> PairDataset:
    """The samples whose pictures can be decoded; the others join ``skipped``."""
    bad = {
        place: BadRow(dataset[place].where, None, str(error), "unusable-picture")
        for place, error in unusable(dataset)
    }
    if not bad:
        return dataset
    kept = dataset.select(place for place in range(len(dataset)) if place not in bad)
    kept.skipped = (*dataset.skipped, *(bad[place] for place in sorted(bad)))
    return kept


def require_usable(dataset: PairDataset) -> None:
    """Decodes every picture.

    Raises:
        DataError: the first that cannot be used, with its row.
    """
    for place, error in unusable(dataset):
        raise DataError(str(error), path=dataset[place].where) from error


def unusable(dataset: PairDataset) -> Iterator[tuple[int, DataError]]:
    """Position and error of each sample whose picture cannot be decoded."""
    places = [place for place, sample in enumerate(dataset) if sample.image is not None]
    pictures = [image for place in places if (image := dataset[place].image) is not None]
    found: list[tuple[int, DataError]] = []
    decoded = iter_pixels(
        pictures, _SMALL, on_error=lambda position, error: found.append((places[position], error))
    )
    for _ in track(decoded, "Checking pictures", total=len(places)):
        yield from found
        found.clear()
    yield from found


def only_languages(dataset: PairDataset, languages: Sequence[str]) -> PairDataset:
    """The same samples with their texts in these languages; those left without a text are left out.

    Raises:
        DataError: no text is in any of them.
    """
    kept, assigned = [], []
    for sample, split in zip(dataset, dataset.splits, strict=True):
        own = [k for k, language in enumerate(sample.languages) if language in languages]
        if own:
            texts = tuple(sample.texts[k] for k in own)
            kept.append(
                replace(sample, texts=texts, languages=tuple(sample.languages[k] for k in own))
            )
            assigned.append(split)
    if not kept:
        known = ", ".join(dataset.language_counts) or "none: the data don't say"
        raise DataError(f"no text is in {' or '.join(languages)} (languages there: {known})")
    return PairDataset(
        kept,
        dataset.format,
        dataset.root,
        dataset.skipped,
        detected=dataset.detected,
        notes=dataset.notes,
        assigned=assigned,
    )
