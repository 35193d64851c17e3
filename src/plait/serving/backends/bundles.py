"""Bundles as served models: no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from plait.runtime.bundle import Bundle, open_bundle
from plait.runtime.manifest import ANSWER
from plait.runtime.ranking import answers_of
from plait.serving.backends.remote import split
from plait.serving.backends.served import ASK, Served
from plait.serving.base.settings import Limits, Settings
from plait.serving.queue.decoders import Decoders
from plait.serving.queue.lanes import HERE, Asked, Prepared, embedding_lanes, joined, pads_of


def open_served(
    name: str, folder: Path, settings: Settings, created: int, decoders: Decoders
) -> Served:
    """A bundle with its lanes; its engines are opened now.

    Raises:
        UserError: no bundle, a damaged one, or an engine that is not installed.
    """
    bundle = open_bundle(
        folder,
        engine=settings.engine,
        precision=settings.precision,
        threads=settings.threads,
        streams=settings.streams,
        elsewhere=settings.towers,
    )
    for tower in bundle.chosen:  # a damaged graph shows now
        bundle.session(tower)
    if bundle.manifest.kind == "fusion":
        lane = BundleAskLane(f"{name}/{ASK}", bundle, settings.limits, decoders)
        return Served(name, "fusion", {ASK: lane}, created=created)
    model = split(bundle, settings.towers, bundle.manifest.model)
    lanes = embedding_lanes(name, model, settings.limits, decoders, settings.towers)
    return Served(name, "alignment", lanes, model, bundle.manifest.model, created)


class BundleAskLane:
    """Questions about pictures, answered by a fusion model's bundle.

    Args:
        name: for metrics and logs.
        bundle: of a fusion model.
        limits: budget of a pass.
        decoders: of the pictures' files.
    """

    chunk, instant, group = 1, 0, HERE

    def __init__(self, name: str, bundle: Bundle, limits: Limits, decoders: Decoders) -> None:
        self.name, self.bundle, self.decoders = name, bundle, decoders
        self.rows, self.most = limits.batch_rows, float(limits.tokens)
        height, width = bundle.image_preprocess.size_2d
        self.budget, self._pixels = limits.batch_pixels, height * width
        self._pads = pads_of(bundle.text_preprocess)

    def cost(self, raw: Asked) -> int:
        """See `plait.serving.queue.lanes.Lane.cost`."""
        return 0

    def is_slow(self, raw: Asked) -> bool:
        """See `plait.serving.queue.lanes.Lane.is_slow`."""
        return not self.decoders.is_quick(raw.picture)

    def prepare(self, raws: Any) -> list[Prepared | Exception]:
        """See `plait.serving.queue.lanes.Lane.prepare`: `Asked`."""
        return [self._prepare(raw) for raw in raws]

    def _prepare(self, raw: Asked) -> Prepared:
        if self.is_slow(raw):
            pixels = self.decoders.pixels(raw.picture, self.bundle.image_preprocess, "image")
            seen = {"pixels": pixels[None]}
        else:
            levels = self.bundle.image_preprocess.levels
            array = self.decoders.picture(raw.picture, "image", levels)
            seen = self.bundle.prepare_images([array])
        template = self.bundle.manifest.question
        text = raw.question if template is None else template.format(question=raw.question)
        tensors = {**seen, **self.bundle.prepare_texts([text])}
        row = {name: part[0] for name, part in tensors.items()}
        return Prepared((row, raw.answers), self._pixels)

    def run(self, values: Any) -> list[Any]:
        """See `plait.serving.queue.lanes.Lane.run`: ranked answers of each."""
        logits = self.bundle.run(ANSWER, joined([row for row, _ in values], self._pads))
        return [
            answers_of(row, self.bundle.manifest, count)
            for row, (_, count) in zip(logits, values, strict=True)
        ]

    def probe(self) -> Any:
        """See `plait.serving.queue.lanes.Lane.probe`."""
        return Asked(np.full((8, 8, 3), 127, np.uint8), "what is it?", 1)
