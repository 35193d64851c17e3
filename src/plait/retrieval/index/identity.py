"""The ids of an index's rows: a picture's is its path, from the folder of the data on.

``IMG_1.jpg`` of ``/photos/2019`` is ``2019/IMG_1.jpg``. Where another picture of the index has that
id already, more of the path goes before it. A picture that is in the index by its path keeps the id
that it has there, so that indexes of older versions (which named pictures by their stems) go on. An
id that the source states stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from plait.core.errors import DataError, shown
from plait.core.files import RealPaths
from plait.core.media import TarRef
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import Sample
from plait.data.readers.files import shown as readable

Known = Mapping[str, str | None]  # path by id


def with_row_ids(dataset: PairDataset, known: Known, real: RealPaths | None = None) -> PairDataset:
    """The same samples with the ids of their rows.

    Args:
        dataset: what is to be indexed.
        known: the path of each id that the index has.
        real: of paths, for one who asks again.

    Raises:
        DataError: two samples with one id, both named.
    """
    real = real or RealPaths()
    by_path = {path: id for id, path in known.items() if path is not None and os.path.isabs(path)}  # noqa: PTH117
    root = None if dataset.root is None else os.path.abspath(dataset.root)  # noqa: PTH100
    samples: list[Sample] = []
    taken: dict[str, Sample] = {}
    for sample in dataset:
        id = sample.id if not sample.derived else _id(sample, root, known, by_path, taken, real)
        if id in taken:
            raise DataError(
                f"two samples have the id {shown(id)}: {taken[id].where} and {sample.where}; "
                "give them ids that differ"
            )
        taken[id] = sample
        samples.append(sample if id == sample.id else replace(sample, id=id))
    return PairDataset(
        samples, dataset.format, dataset.root, dataset.skipped, assigned=dataset.splits
    )


def _id(
    sample: Sample,
    root: str | None,
    known: Known,
    by_path: Mapping[str, str],
    taken: Mapping[str, Sample],
    real_paths: RealPaths,
) -> str:
    ref, member = sample.image, ""
    path = None if ref is None else ref.path
    if isinstance(ref, TarRef):
        path, member = ref.tar, f"!{ref.member}"
    if path is None:  # a cell of a table
        return sample.id if root is None else f"{os.path.basename(root)}/{sample.id}"  # noqa: PTH119
    real = real_paths(path)
    stays = by_path.get(real)
    if stays is not None and stays not in taken and not member:
        return stays
    place = os.path.abspath(path)  # noqa: PTH100  a link is a picture of its own
    parts = place.split(os.sep)  # noqa: PTH206  strings: Path takes three times as long
    least = 2
    if root is not None:
        folder = root if place.startswith(root + os.sep) else os.path.dirname(root)  # noqa: PTH120
        if place.startswith(folder + os.sep):
            least = len(parts) - folder.count(os.sep)
    for count in range(least, len(parts) + 1):
        id = readable("/".join(parts[-count:])) + member
        holder = known.get(id)
        other = holder is not None and os.path.isabs(holder) and holder != real  # noqa: PTH117
        if id not in taken and not other:
            return id
    return id
