"""The outermost layer: every request gets an id, a line of JSON in the log, and is counted."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plait.serving.base.errors import RequestError
from plait.serving.base.metrics import Metrics
from plait.serving.http.origins import SECURITY_HEADERS
from plait.serving.service.service import Service

access = logging.getLogger("plait.serving.access")

_ID = re.compile(r"[\w.:-]{1,128}")
ROUTES = frozenset(
    {
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/v1/models",
        "/v1/embeddings",
        "/v1/search",
        "/v1/classify",
        "/v1/similarity",
        "/v1/ask",
    }
)
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})


class Watch:
    """Counts and logs every request; a fault of ours becomes an answer in OpenAI's shape.

    Args:
        app: inside.
        service: whose metrics count.
    """

    def __init__(self, app: ASGIApp, *, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 0
        name = Headers(scope=scope).get("x-request-id", "")
        # Not uuid4: its system call lets go of the interpreter's lock, which is then waited for.
        name = name if _ID.fullmatch(name) else os.urandom(16).hex()
        state = scope.setdefault("state", {})

        async def passing(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = name
                headers.raw.extend(SECURITY_HEADERS)
                if self.service.draining:
                    headers["Connection"] = "close"
            await send(message)

        try:
            await self.app(scope, receive, passing)
        except Exception:  # the server outlives its own faults
            access.exception("a request failed inside plait", extra={"fields": {"id": name}})
            if status == 0:
                fault = RequestError(500, "plait failed; its log says how", code="internal")
                await fault.response()(scope, receive, passing)
        finally:
            self._note(scope, name, state, status, time.monotonic() - began)

    def _note(
        self, scope: Scope, name: str, state: dict[str, Any], status: int, seconds: float
    ) -> None:
        note(
            self.service.metrics,
            path=scope["path"],
            status=state.get("status", status),
            seconds=seconds,
            fields={
                "id": name,
                "method": scope["method"],
                "client": (scope.get("client") or ("", 0))[0],
                **{key: state[key] for key in ("key", "inputs", "code") if key in state},
            },
        )


def note(
    metrics: Metrics, *, path: str, status: int, seconds: float, fields: Mapping[str, Any]
) -> None:
    """Counts and logs one request that was answered."""
    route = path if path in ROUTES else "other"
    if path.startswith("/v1/towers/"):
        route = "/v1/towers/{modality}"
    metrics.answered(route, status, seconds)
    level = logging.DEBUG if path in _QUIET else logging.INFO
    if access.isEnabledFor(level):
        told = {"path": path[:200], "status": status, "ms": round(seconds * 1000, 2)}
        access.log(level, "request", extra={"fields": {**fields, **told}})
