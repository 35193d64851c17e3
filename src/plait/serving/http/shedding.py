"""Refuses what would be refused anyway, before anything is spent on it.

A refusal by the scheduler is exact, and costs ten times as much: the way through the framework, a
parsed body, a decoded picture. Far over its load, a server would be busy refusing. What is here
knows only the head and, while a lane is full, the first bytes of the body; when in doubt it lets pass.
A request that is there in one piece is refused by the connection itself, before the framework.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plait.core.modality import IMAGE, TEXT
from plait.serving.base.errors import RequestError, overloaded
from plait.serving.http.protocol import LOOKED_AT
from plait.serving.http.watch import note
from plait.serving.service.service import Service

_ONE_LANE = frozenset({"/v1/embeddings", "/v1/search"})  # whose inputs tell which lane they need
_PICTURES = (b"data:image", b'"image_url"', b'"image"')  # what a body with a picture holds
_TELLING = 8192  # bytes of a body that tell, without its rest, what is in it
_SECONDS = 1.0  # that the first part of a body is waited for here


class Shedding:
    """Knows whether a request would be refused anyway.

    Args:
        service: that knows its queues.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.lanes: dict[str, Sequence[str]] = {
            modality: [
                model.lanes[modality].name
                for model in service.models.values()
                if modality in model.lanes
            ]
            for modality in (TEXT, IMAGE)
        }

    def check_all(self) -> None:
        """Raises RequestError: 429 when no request could be taken, whatever it holds."""
        with self.service.intake.admitted():
            pass
        wait = self.service.scheduler.shortest_wait
        if wait > self.service.limits.queue_seconds:
            raise overloaded(wait, f"the wait would be {wait:.1f} s")

    def looks_at(self, path: str) -> bool:
        """Whether what is in a body decides."""
        return path in _ONE_LANE and any(map(self._wait, self.lanes))

    def check_body(self, body: bytes) -> None:
        """Raises RequestError: 429 when the lane that a JSON body needs is full."""
        if body[:1] != b"{":
            return
        modality = IMAGE if any(mark in body for mark in _PICTURES) else TEXT
        if wait := self._wait(modality):
            raise overloaded(wait, f"the wait would be {wait:.1f} s")

    def refusal(self, target: str, body: bytes, client: str) -> RequestError | None:
        """Of a whole request that was not parsed yet; counted and logged if there is one."""
        path = target.partition("?")[0]
        if not path.startswith("/v1/"):
            return None
        try:
            self.check_all()
            if self.looks_at(path):
                self.check_body(body)
        except RequestError as error:
            name = os.urandom(16).hex()
            error.headers["X-Request-Id"] = name
            note(
                self.service.metrics,
                path=path,
                status=error.status,
                seconds=0.0,
                fields={"id": name, "method": "POST", "client": client, "code": error.code},
            )
            return error
        return None

    def _wait(self, modality: str) -> float:
        """Seconds that inputs of a modality would wait in any model, where that is too long."""
        lanes = self.lanes[modality]
        wait = min(map(self.service.scheduler.expected_wait, lanes), default=0.0)
        return wait if wait > self.service.limits.queue_seconds else 0.0


class Shed:
    """Answers with 429 while the server is far over its load.

    Args:
        app: inside.
        service: that knows its queues.
    """

    def __init__(self, app: ASGIApp, *, service: Service) -> None:
        self.app, self.shedding = app, Shedding(service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if (
            scope["type"] != "http"
            or scope["method"] != "POST"
            or not scope["path"].startswith("/v1/")
            or scope.get(LOOKED_AT, False)
        ):
            await self.app(scope, receive, send)
            return
        try:
            self.shedding.check_all()
            if self.shedding.looks_at(scope["path"]):
                receive = await self._looked_at(receive)
        except RequestError as error:
            scope.setdefault("state", {})["code"] = error.code
            await error.response()(scope, receive, send)
            return
        await self.app(scope, receive, send)

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
        if not first.get("more_body", False) or len(body) >= _TELLING:
            self.shedding.check_body(body)
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return first

        return again
