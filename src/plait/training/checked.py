"""Leaving out pictures that cannot be used, before anything trains, and telling of each."""

from __future__ import annotations

from collections.abc import Iterator

from plait.core.errors import DataError
from plait.core.progress import track
from plait.data.dataset import PairDataset
from plait.data.fast_decode import iter_pixels
from plait.data.preprocess import ImagePreprocess
from plait.data.sample import BadRow

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
