"""Refuses what would be refused anyway, before anything is spent on it.

A refusal by the scheduler is exact, and costs ten times as much: the way through the framework, a
parsed body, a decoded picture. Far over its load, a server would be busy refusing. This layer knows
only the head and, while a lane is full, the first bytes of the body; when in doubt it lets pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plait.core.modality import IMAGE, TEXT
from plait.serving.errors import RequestError, overloaded
from plait.serving.service import Service

_ONE_LANE = frozenset({"/v1/embeddings", "/v1/search"})  # whose inputs tell which lane they need
_PICTURES = (b"data:image", b'"image_url"')  # what a body with a picture holds
_SECONDS = 1.0  # that the first part of a body is waited for here


class Shed:
    """Answers with 429 while the server is far over its load.

    Args:
        app: inside.
        service: that knows its queues.
    """

    def __init__(self, app: ASGIApp, *, service: Service) -> None:
        self.app, self.service = app, service
        self.lanes: dict[str, Sequence[str]] = {
            modality: [
                model.lanes[modality].name
                for model in service.models.values()
                if modality in model.lanes
            ]
            for modality in (TEXT, IMAGE)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if (
            scope["type"] != "http"
            or scope["method"] != "POST"
            or not scope["path"].startswith("/v1/")
        ):
            await self.app(scope, receive, send)
            return
        try:
            self._check_all()
            if scope["path"] in _ONE_LANE and any(map(self._wait, self.lanes)):
                receive = await self._looked_at(receive)
        except RequestError as error:
            scope.setdefault("state", {})["code"] = error.code
            await error.response()(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _check_all(self) -> None:
        """Raises RequestError: 429 when no request could be taken, whatever it holds."""
        with self.service.intake.admitted():
            pass
        wait = self.service.scheduler.shortest_wait
        if wait > self.service.limits.queue_seconds:
            raise overloaded(wait, f"the wait would be {wait:.1f} s")

    def _wait(self, modality: str) -> float:
        """Seconds that inputs of a modality would wait in any model, where that is too long."""
        lanes = self.lanes[modality]
        wait = min(map(self.service.scheduler.expected_wait, lanes), default=0.0)
        return wait if wait > self.service.limits.queue_seconds else 0.0

    async def _looked_at(self, receive: Receive) -> Receive:
        """``receive`` once more from the beginning.

        Raises:
            RequestError: 429 when the lane that the body needs is full.
        """
        try:
            async with asyncio.timeout(_SECONDS):
                first = await receive()
        except TimeoutError:
            return receive
        body = first.get("body", b"")
        if body[:1] == b"{" and not first.get("more_body", False):  # the whole of a JSON body
            modality = IMAGE if any(mark in body for mark in _PICTURES) else TEXT
            if wait := self._wait(modality):
                raise overloaded(wait, f"the wait would be {wait:.1f} s")
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return first

        return again
