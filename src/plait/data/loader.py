"""`PairLoader`: batches of a `PairDataset`, decoded ahead of the training in threads.

Every batch follows from (seed, epoch, position) alone: starting an epoch at batch k gives what
the whole epoch gives from k on, and the shards of all processes together are the batch of one.

Shape legend: B rows, N positions, H, W pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from plait.core.batch import Batch, ModalityInput
from plait.core.errors import DataError, RecipeError
from plait.core.modality import IMAGE, TEXT
from plait.data.augment import ImageAugment, TextAugment
from plait.data.dataset import PairDataset
from plait.data.decode import MAX_PIXELS
from plait.data.fast_decode import PixelStore, read_pixels
from plait.data.order import ABSENT, Texts, all_rows, caption_of, epoch_order, shard, spread_groups
from plait.data.preprocess import ImagePreprocess, TextPreprocess

Preprocess = ImagePreprocess | TextPreprocess
Augment = ImageAugment | TextAugment

_PICTURES_A_JOB = 8  # few enough that both threads work on a small batch


class PairLoader:
    """Yields the batches of an epoch.

    Args:
        dataset: the samples of one split.
        preprocess: by modality, ``image`` and ``text``; others of the samples are not loaded.
        batch_size: rows of a batch, over all processes.
        shuffle: another order every epoch; else the order of the samples.
        seed: of order, captions and augmentation.
        texts: ``"one"`` text of each sample an epoch, each in its turn; ``"all"``: each text is
            a row, and `Batch.groups` tells which rows belong together; ``"first"``.
        augment: by modality (see `plait.data.augment`); the epoch is the slot.
        drop_last: leaves out a last batch that is smaller.
        unique_groups: spreads the rows of a group over batches, as far as that can be.
        rank, world: this process takes part ``rank`` of ``world`` of each batch.
        on_bad_row: a picture that cannot be used stops the epoch (``"fail"``), or its rows are
            left out of their batch and told of in `skipped` (``"skip"``).
        threads: that decode.
        prefetch: batches made ahead.
        store: keeps decoded, resized pixels (see `plait.data.pixel_cache`).
        max_pixels: see `plait.data.decode`.

    Attributes:
        skipped: by place (``captions.csv, row 17``), why rows were left out so far.

    Raises:
        DataError: no samples, or fewer rows than one batch with ``drop_last``.
        RecipeError: settings that do not go together.
    """

    def __init__(
        self,
        dataset: PairDataset,
        preprocess: Mapping[str, Preprocess],
        *,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        texts: Texts = "one",
        augment: Mapping[str, Augment] | None = None,
        drop_last: bool = False,
        unique_groups: bool = False,
        rank: int = 0,
        world: int = 1,
        on_bad_row: Literal["fail", "skip"] = "fail",
        threads: int = 2,
        prefetch: int = 2,
        store: PixelStore | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        _check(preprocess, augment or {}, batch_size, texts, rank, world)
        if not len(dataset):
            raise DataError("there are no samples in this split")
        self.dataset, self.batch_size, self.texts = dataset, batch_size, texts
        self.shuffle, self.seed, self.drop_last = shuffle, seed, drop_last
        self.unique_groups, self.rank, self.world = unique_groups, rank, world
        self.on_bad_row, self.threads, self.prefetch = on_bad_row, threads, prefetch
        self.store, self.max_pixels = store, max_pixels
        self.augment = dict(augment or {})
        self._image, self._text = preprocess.get(IMAGE), preprocess.get(TEXT)
        self.skipped: dict[str, str] = {}
        self._groups = dataset.group_numbers()
        self._rows = all_rows(dataset, texts)
        if not len(self):
            raise DataError(
                f"there are {len(self._rows)} rows, fewer than one batch of {batch_size}: lower "
                "the batch size, or keep the last batch"
            )

    def __len__(self) -> int:
        """Batches of an epoch: the same for every epoch and process."""
        if self.drop_last:
            return len(self._rows) // self.batch_size
        return -(-len(self._rows) // self.batch_size)

    @property
    def rows(self) -> int:
        """Rows of an epoch over all processes, those of a dropped last batch included."""
        return len(self._rows)

    def plan(self, epoch: int) -> list[np.ndarray]:
        """By batch, the (sample, text) of its rows over all processes: int64 (B, 2)."""
        order = epoch_order(len(self._rows), self.seed, epoch, shuffle=self.shuffle)
        if self.unique_groups:
            order = spread_groups(order, self._groups[self._rows[:, 0]], self.batch_size)
        rows = self._rows[order]
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        return [rows[start : start + self.batch_size] for start in starts]

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``number`` from position ``start`` on: always ``len(self) - start``.

        A batch of which every row was skipped has no rows, and so has this process's part of a
        last batch with fewer rows than processes: pass over it.

        Raises:
            DataError: a picture cannot be used, with its file and row.
        """
        plan = self.plan(number)[start:]
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="batches")
        waiting: deque[_Pending] = deque()
        try:
            for position in range(len(plan)):
                while len(waiting) <= self.prefetch and position + len(waiting) < len(plan):
                    waiting.append(self._start(pool, plan[position + len(waiting)], number))
                yield self._finish(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _start(self, pool: ThreadPoolExecutor, batch: np.ndarray, epoch: int) -> _Pending:
        """Hands the work for this process's rows of a batch to the threads."""
        rows = batch[shard(len(batch), self.rank, self.world)].copy()
        samples = rows[:, 0].tolist()
        for row, index in enumerate(samples):
            rows[row, 1] = caption_of(
                self.dataset[index], self.texts, int(rows[row, 1]), self.seed, epoch
            )
        pending = _Pending(rows, distinct=list(dict.fromkeys(samples)))
        if isinstance(self._image, ImagePreprocess):
            shape = (len(pending.distinct), 3, *self._image.size_2d)
            pending.pixels = np.empty(shape, np.uint8)
            for start in range(0, len(pending.distinct), _PICTURES_A_JOB):
                places = range(start, min(start + _PICTURES_A_JOB, len(pending.distinct)))
                pending.jobs.append(pool.submit(self._decode, pending, places, epoch))
        if isinstance(self._text, TextPreprocess):
            pending.tokens = pool.submit(self._tokenize, rows, epoch)
        return pending

    def _decode(self, pending: _Pending, places: range, epoch: int) -> dict[int, DataError]:
        """Fills ``pending.pixels`` at ``places``; returns what went wrong by sample."""
        assert isinstance(self._image, ImagePreprocess) and pending.pixels is not None
        augment, problems = self.augment.get(IMAGE), {}
        for place in places:
            sample = self.dataset[pending.distinct[place]]
            if sample.image is None:
                pending.pixels[place] = 0
                continue
            try:
                pixels = read_pixels(
                    sample.image, self._image, store=self.store, max_pixels=self.max_pixels
                )
            except DataError as error:
                problems[pending.distinct[place]] = error
                continue
            if isinstance(augment, ImageAugment):
                pixels = augment.one(pixels, sample.id, seed=self.seed, slot=epoch)
            pending.pixels[place] = pixels
        return problems

    def _tokenize(self, rows: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        assert isinstance(self._text, TextPreprocess)
        augment, texts = self.augment.get(TEXT), []
        for index, number in rows.tolist():
            sample = self.dataset[index]
            text = "" if number == ABSENT else sample.texts[number]
            if isinstance(augment, TextAugment):
                key = f"{sample.id}\0{number}"
                text = augment.one(text, key, seed=self.seed, slot=epoch)
            texts.append(text)
        return self._text(texts)

    def _finish(self, pending: _Pending) -> Batch:
        """Waits for the threads and puts the batch together."""
        problems: dict[int, DataError] = {}
        for job in pending.jobs:
            problems |= job.result()
        for index, error in problems.items():
            where = self.dataset[index].where
            if self.on_bad_row == "fail":
                raise DataError(str(error), path=where) from error
            self.skipped[where] = str(error)
        kept = [
            row for row, index in enumerate(pending.rows[:, 0].tolist()) if index not in problems
        ]
        modalities = {}
        if pending.pixels is not None:
            modalities[IMAGE] = self._images(pending, kept)
        if pending.tokens is not None:
            ids, mask = pending.tokens.result()
            present = pending.rows[kept, 1] != ABSENT
            modalities[TEXT] = ModalityInput(
                {"ids": torch.from_numpy(ids[kept])},
                torch.from_numpy(present),
                torch.from_numpy(mask[kept]),
            )
        samples = pending.rows[kept, 0]
        return Batch(
            ids=[self.dataset[index].id for index in samples.tolist()],
            groups=torch.from_numpy(self._groups[samples]),
            modalities=modalities,
            meta=[self._meta(index, text) for index, text in pending.rows[kept].tolist()],
        )

    def _images(self, pending: _Pending, kept: list[int]) -> ModalityInput:
        assert pending.pixels is not None
        samples = pending.rows[kept, 0].tolist()
        present = [self.dataset[index].image is not None for index in samples]
        pixels = pending.pixels
        if samples != pending.distinct:  # captions that share an image, or rows left out
            place = {index: number for number, index in enumerate(pending.distinct)}
            pixels = pixels[np.array([place[index] for index in samples], np.int64)]
        return ModalityInput(
            {"pixels": torch.from_numpy(pixels)}, torch.tensor(present, dtype=torch.bool)
        )

    def _meta(self, index: int, text: int) -> dict[str, Any]:
        sample = self.dataset[index]
        return {"where": sample.where, "text": None if text == ABSENT else sample.texts[text]}


@dataclass
class _Pending:
    """A batch on which threads work.

    Attributes:
        rows: (sample, text) of each row, texts chosen: (B, 2).
        distinct: the samples in the order of their first rows; each is decoded once.
        pixels: of the distinct samples, filled by ``jobs``, which return problems by sample.
        tokens: ids and mask of the rows.
    """

    rows: np.ndarray
    distinct: list[int]
    pixels: np.ndarray | None = None
    tokens: Future[tuple[np.ndarray, np.ndarray]] | None = None
    jobs: list[Future[dict[int, DataError]]] = field(default_factory=list)


def _check(
    preprocess: Mapping[str, Preprocess],
    augment: Mapping[str, Augment],
    batch_size: int,
    texts: str,
    rank: int,
    world: int,
) -> None:
    """Raises RecipeError where settings do not go together."""
    wanted = {IMAGE: (ImagePreprocess, ImageAugment), TEXT: (TextPreprocess, TextAugment)}
    for index, settings in enumerate((preprocess, augment)):
        for modality, value in settings.items():
            if modality not in wanted or not isinstance(value, wanted[modality][index]):
                raise RecipeError(
                    f"the loader of pairs takes image and text; {modality!r} with "
                    f"{type(value).__name__} does not fit"
                )
    if texts not in ("one", "all", "first"):
        raise RecipeError(f"texts is {texts!r}; it can be one, all or first")
    if batch_size < 1 or batch_size % world:
        raise RecipeError(
            f"a batch of {batch_size} rows cannot be shared evenly by {world} processes"
        )
    assert 0 <= rank < world, (rank, world)
