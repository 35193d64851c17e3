"""Batches from rows: each modality from cached features, from texts, or from picture files.

Legend: n samples, m texts, S augmented versions, B rows of a batch, D features.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, Int64

from plait.core.batch import Batch, ModalityInput
from plait.data.base.equal_texts import RightAnswers, joined
from plait.modalities.text.tokenize import TextPreprocess
from plait.training.batches.rows import Plan, Rows


@runtime_checkable
class Source(Protocol):
    """Gives one modality's inputs of some rows."""

    def __call__(self, rows: Rows) -> ModalityInput:
        """(B, ...) inputs in the order of ``rows``."""


class FeatureSource:
    """Outputs of a frozen tower, kept in memory.

    Args:
        features: (n, S, D) for samples in S augmented versions, (n, D) for samples that have one
            version, or (m, D) for texts.
        by: whether rows are looked up by ``sample`` (and slot) or by ``text``.
    """

    def __init__(self, features: np.ndarray, by: str) -> None:
        self.features, self.by = torch.from_numpy(np.ascontiguousarray(features)), by

    def __call__(self, rows: Rows) -> ModalityInput:
        """``features`` (B, D)."""
        if self.by == "text":
            found = self.features[torch.from_numpy(rows.text)]
        elif self.features.ndim == 2:
            found = self.features[torch.from_numpy(rows.sample)]
        else:
            found = self.features[torch.from_numpy(rows.sample), torch.from_numpy(rows.slot)]
        return ModalityInput.of(features=found)


class TokenSource:
    """Texts, tokenised as they are needed and padded to the longest of their batch.

    Args:
        texts: m of them, or one a sample.
        preprocess: the tokenizer.
        by: whether rows are looked up by ``text`` or by ``sample``.
    """

    def __init__(self, texts: Sequence[str], preprocess: TextPreprocess, by: str = "text") -> None:
        self.texts, self.preprocess, self.by = texts, preprocess, by

    def __call__(self, rows: Rows) -> ModalityInput:
        """``ids`` (B, N) and their mask."""
        chosen = rows.text if self.by == "text" else rows.sample
        ids, mask = self.preprocess([self.texts[i] for i in chosen])
        return ModalityInput.of(mask=torch.from_numpy(mask), ids=torch.from_numpy(ids))


class PixelSource:
    """Pictures, decoded as they are needed, each once a batch.

    Args:
        load: (positions of samples) to uint8 (U, 3, H, W).
        augment: (pixels, positions, epoch) to pixels; None for none.
        numbers: (n,) equal where samples show the same picture; None: each has its own.
        share: give each distinct picture once, with a tensor ``rows`` (B,) that says which of them
            each row shows; for models that encode it once (`plait.models.fusion.model`).
    """

    def __init__(
        self,
        load: Callable[[Sequence[int]], Any],
        augment: Callable[[torch.Tensor, Sequence[int], int], torch.Tensor] | None = None,
        *,
        numbers: Int[np.ndarray, " n"] | None = None,
        share: bool = False,
    ) -> None:
        self.load, self.augment, self.numbers, self.share = load, augment, numbers, share

    def __call__(self, rows: Rows) -> ModalityInput:
        """``pixels`` (B, 3, H, W), or (U, 3, H, W) and ``rows``."""
        shown = rows.sample if self.numbers is None else self.numbers[rows.sample]
        _, first, places = np.unique(shown, return_index=True, return_inverse=True)
        samples = [int(i) for i in rows.sample[first]]
        distinct = torch.as_tensor(self.load(samples))
        if self.share:
            if self.augment is not None:  # all rows of a picture see it augmented alike
                distinct = self.augment(distinct, samples, rows.epoch)
            present = torch.ones(len(places), dtype=torch.bool)
            return ModalityInput({"pixels": distinct, "rows": torch.from_numpy(places)}, present)
        pixels = distinct[torch.from_numpy(places)]
        if self.augment is not None:
            pixels = self.augment(pixels, [int(i) for i in rows.sample], rows.epoch)
        return ModalityInput.of(pixels=pixels)


class RegionSource:
    """Regions that a detector found before, read as they are needed.

    Args:
        load: (positions of samples) to their regions, padded to the most of them.
    """

    def __init__(self, load: Callable[[Sequence[int]], ModalityInput]) -> None:
        self.load = load

    def __call__(self, rows: Rows) -> ModalityInput:
        """``features_of_regions`` (B, N, D), ``boxes`` (B, N, 4) and their mask."""
        return self.load([int(i) for i in rows.sample])


Change = Callable[[Batch, int, int], Batch]
"""(batch, epoch, position in the epoch) to a batch."""

Targets = Callable[[Rows], Mapping[str, torch.Tensor]]
"""Rows to what they should answer."""


@dataclass(frozen=True)
class Alike:
    """Which rows of a batch show the same thing or have texts that read the same.

    Of a distributed run ids are made of the rows of all processes, so that each makes the same.

    Attributes:
        groups: (n,) equal where samples show the same thing.
        words: (m,) equal where texts read the same; None: texts join nothing.
        own_words: by task, (n,) of the texts that it reads in place of those.
    """

    groups: Int64[np.ndarray, " n"]
    words: Int64[np.ndarray, " m"] | None = None
    own_words: Mapping[str, Int64[np.ndarray, " n"]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        groups: Int64[np.ndarray, " n"],
        counts: Int64[np.ndarray, " n"],
        words: Int64[np.ndarray, " m"],
        own_words: Mapping[str, Int64[np.ndarray, " n"]] | None = None,
    ) -> Alike:
        """The same; words are left out where no two groups share one, which costs nothing then.

        Args:
            groups: of samples.
            counts: texts of each sample.
            words: of texts.
            own_words: by task.
        """
        owner = np.repeat(np.arange(len(counts)), counts)
        shared = len(RightAnswers.of(groups, owner, words).pair_label) > 0
        return cls(groups, words if shared else None, own_words or {})

    def __call__(self, rows: Rows, *, task: str | None = None) -> Int64[np.ndarray, " B"]:
        """(B,) ids of the rows, for all tasks or for one with texts of its own."""
        groups = self.groups[rows.sample]
        own = None if task is None else self.own_words.get(task)
        if own is not None:
            return joined(groups, own[rows.sample])
        return groups if self.words is None else joined(groups, self.words[rows.text])


class Supply:
    """The batches of a stage.

    Args:
        plan: which rows make up which batch.
        sources: by modality.
        alike: who is whose positive.
        ids: (n,) names of samples.
        rank, world: this process among how many.
        change: made to every batch at last (noise on features).
        targets: what the rows should answer; None for contrastive tasks.
        tasks: (epoch, position in the epoch) to the tasks of a batch; None: all of them.
        texts: by task, where its text comes from if not from ``sources``.
        ahead: batches to prepare in the background while the last one trains; 0 for none.
    """

    def __init__(
        self,
        plan: Plan,
        sources: Mapping[str, Source],
        alike: Alike,
        ids: Sequence[str],
        *,
        rank: int = 0,
        world: int = 1,
        change: Change | None = None,
        targets: Targets | None = None,
        tasks: Callable[[int, int], tuple[str, ...]] | None = None,
        texts: Mapping[str, Source] | None = None,
        ahead: int = 2,
    ) -> None:
        self.targets, self.tasks, self.texts = targets, tasks, dict(texts or {})
        self.plan, self.sources, self.ids = plan, dict(sources), ids
        self.alike = alike
        self.rank, self.world, self.change = rank, world, change
        in_memory = all(isinstance(source, FeatureSource) for source in self.sources.values())
        self.ahead = 0 if in_memory else ahead

    @property
    def steps(self) -> int:
        """Batches of one epoch."""
        return self.plan.steps

    def batch(self, epoch: int, number: int) -> Batch:
        """The share of this process in batch ``number`` (from 0) of an epoch."""
        whole = self.plan.batch(epoch, number)
        rows, part = whole.share(self.rank, self.world), whole.part(self.rank, self.world)
        tasks = () if self.tasks is None else self.tasks(epoch, number)
        own = {
            name: source(rows) for name, source in self.texts.items() if not tasks or name in tasks
        }
        batch = Batch(
            ids=[self.ids[i] for i in rows.sample],
            groups=torch.from_numpy(self.alike(whole)[part]),
            modalities={name: source(rows) for name, source in self.sources.items()},
            targets={} if self.targets is None else self.targets(rows),
            tasks=tasks,
            texts=own,
            groups_of={name: torch.from_numpy(self.alike(whole, task=name)[part]) for name in own},
        )
        return batch if self.change is None else self.change(batch, epoch, number)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from position ``start`` on."""
        makers = (lambda k=k: self.batch(number, k) for k in range(start, self.steps))
        if self.ahead == 0:
            return (make() for make in makers)
        return _ahead(makers, self.ahead)


def _ahead(makers: Iterator[Callable[[], Batch]], depth: int) -> Iterator[Batch]:
    """Runs ``makers`` in a thread, at most ``depth`` results ahead; errors come out in their place."""
    ready: queue.Queue[tuple[Batch | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(batch: Batch | None, error: BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                ready.put((batch, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for make in makers:
                if not put(make(), None):
                    return
            put(None, None)
        except BaseException as error:
            put(None, error)

    thread = threading.Thread(target=work, name="plait-batches", daemon=True)
    thread.start()
    try:
        while True:
            batch, error = ready.get()
            if error is not None:
                raise error
            if batch is None:
                return
            yield batch
    finally:
        stopped.set()
        thread.join()
