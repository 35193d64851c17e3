"""Leaving out pictures that cannot be used, before anything trains, and telling of each."""

from __future__ import annotations

from collections.abc import Iterator

from plait.core.errors import DataError
from plait.core.progress import track
from plait.data.dataset import PairDataset
from plait.data.fast_decode import iter_pixels
from plait.data.preprocess import ImagePreprocess
from plait.data.sample import BadRow, MediaRef

_SMALL = ImagePreprocess(size=16)  # decoding is what is tested; the size costs nothing


def usable(dataset: PairDataset) -> PairDataset:
    """The samples whose pictures can be decoded; the others join ``skipped``."""
    places = [place for place, sample in enumerate(dataset) if sample.image is not None]
    bad: dict[int, BadRow] = {}

    def note(position: int, error: DataError) -> None:
        where = dataset[places[position]].where
        bad[places[position]] = BadRow(where, None, str(error), "unusable-picture")

    def pictures() -> Iterator[MediaRef]:
        for place in places:
            image = dataset[place].image
            assert image is not None
            yield image

    for _ in track(
        iter_pixels(pictures(), _SMALL, on_error=note), "Checking pictures", total=len(places)
    ):
        pass
    if not bad:
        return dataset
    kept = dataset.select(place for place in range(len(dataset)) if place not in bad)
    kept.skipped = (*dataset.skipped, *(bad[place] for place in sorted(bad)))
    return kept
