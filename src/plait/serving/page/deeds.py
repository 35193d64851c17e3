"""What the page's buttons do: the same inputs, limits and lanes as the endpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from plait.core.errors import UserError
from plait.core.modality import IMAGE, TEXT
from plait.retrieval.store.columns import Column
from plait.runtime.ranking import class_rows, shares
from plait.serving.backends.served import ASK, Served
from plait.serving.base.errors import RequestError
from plait.serving.base.inputs import Input, picture, prompt_inputs, text_input
from plait.serving.http.answering import within
from plait.serving.service.searching import Searcher
from plait.serving.service.service import Service


class Deeds:
    """Search, classify and ask for a person at a page.

    Args:
        service: of the server.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    @property
    def classifying(self) -> list[str]:
        """Names of models that embed pictures and texts."""
        found = self.service.models.items()
        return [name for name, model in found if {IMAGE, TEXT} <= set(model.lanes)]

    @property
    def answering(self) -> list[str]:
        """Names of models that answer questions."""
        return [name for name, model in self.service.models.items() if ASK in model.lanes]

    async def search(
        self, words: str, shown: bytes | None, count: int, where: str
    ) -> tuple[list[dict[str, Any]], str, float, str | None]:
        """(hits, the model's name, seconds, a note) for words, or for a picture.

        The note says why what words found may mean nothing (`plait.modalities.text.scripts`).

        Raises:
            RequestError: an input that cannot be used, or a busy server.
            UserError: an unfit filter.
        """
        searcher = self._searcher
        start = time.perf_counter()
        one = (
            self._picture(shown)
            if shown is not None
            else text_input(words, "query", self.service.limits)
        )
        model = self.service.model(searcher.model, one.modality)
        deadline = self._deadline()
        rows, _ = await self.service.embed(model, [one], deadline)
        hits = await self._found(rows[0], one.modality, count, where, deadline)
        return hits, model.name, time.perf_counter() - start, await model.note(one)

    async def similar(self, key: str, count: int, where: str) -> tuple[list[dict[str, Any]], float]:
        """(hits like the row of that key, seconds). Raises as `search`."""
        start, deadline = time.perf_counter(), self._deadline()
        hits = await self._found(key, None, count, where, deadline)
        return hits, time.perf_counter() - start

    async def show(self, key: str) -> dict[str, Any]:
        """One row of the index with its picture, large. Raises as `search`."""
        deadline = self._deadline()
        return await within(self._searcher.show(key, deadline=deadline), deadline)

    async def columns(self) -> list[Column]:
        """What filters of the index can name. Raises as `search`."""
        deadline = self._deadline()
        return await within(self._searcher.columns(deadline=deadline), deadline)

    async def _found(
        self, like: Any, modality: str | None, count: int, where: str, deadline: float
    ) -> list[dict[str, Any]]:
        found = self._searcher.find(
            like,
            modality,
            deadline=deadline,
            k=count,
            where=where.strip() or None,
            find=None,
            thumbnails=True,
            files=True,
        )
        return await within(found, deadline)

    @property
    def _searcher(self) -> Searcher:
        assert self.service.searcher is not None
        return self.service.searcher

    async def classify(
        self, name: str, shown: bytes, labels: Sequence[str], template: str
    ) -> list[tuple[str, float]]:
        """Labels with probabilities, the likeliest first. Raises as `search`."""
        model, limits = self.service.model(name, IMAGE, TEXT), self.service.limits
        assert model.embedder is not None
        asked = prompt_inputs(labels, [template], limits)
        inputs = [self._picture(shown), *asked]
        rows, _ = await self.service.embed(model, inputs, self._deadline())
        classes = class_rows(rows[1:], len(labels))
        found = shares(rows[:1] @ classes.T * model.embedder.scale)[0]
        return sorted(zip(labels, map(float, found), strict=True), key=lambda one: -one[1])

    async def ask(self, name: str, shown: bytes, question: str) -> list[tuple[str, float]]:
        """Answers with probabilities, the likeliest first. Raises as `search`."""
        model: Served = self.service.model(name, ASK)
        text_input(question, "question", self.service.limits)
        found = await self.service.ask(model, self._picture(shown), question, 5, self._deadline())
        return [(one["answer"], float(one["probability"])) for one in found]

    def _picture(self, data: bytes) -> Input:
        return picture(data, "picture", self.service.limits)

    def _deadline(self) -> float:
        return time.monotonic() + self.service.limits.deadline


__all__ = ["Deeds", "RequestError", "UserError"]
