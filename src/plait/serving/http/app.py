"""The application: FastAPI with the endpoints, behind the gate and the log.

The page is mounted on it by `plait.serving.page.page.mount_page`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import HTTPException
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.cors import CORSMiddleware

from plait.core.errors import UserError
from plait.core.version import __version__
from plait.serving.base.errors import RequestError
from plait.serving.base.settings import PAGE as PAGE
from plait.serving.http import routes, status, towers
from plait.serving.http.openapi import describe
from plait.serving.http.security import LOOPBACK, Gate, Keys
from plait.serving.http.shedding import Shed
from plait.serving.http.watch import Watch
from plait.serving.service.service import Service


def create_app(
    service: Service,
    *,
    keys: Mapping[str, str] | None = None,
    free: Sequence[str] = (),
    started: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The application around a service.

    Args:
        service: that answers.
        keys: API keys by name; without any, nobody is asked for one.
        free: paths below which no key is asked for: what is mounted there sees to its own guests.
        started: called when the first request can be answered.
    """
    held = Keys(keys or {})

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        started()
        try:
            yield
        finally:
            await service.stop()

    # No pages of documentation: they would load scripts from elsewhere.
    app = FastAPI(
        title="plait",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.service = service
    app.include_router(status.router)
    app.include_router(routes.router)
    app.include_router(towers.router)
    describe(app)
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    settings = service.settings
    app.add_middleware(
        Gate,
        keys=held,
        hosts=allowed_hosts(settings.hostnames) if settings.local_only else None,
        origins=settings.cors,
        # "/" is the page's way in alone, not all that is below it.
        free=lambda path: (
            any(path == one or path.startswith(f"{one}/") for one in free)
            and not path.startswith("//")
        ),
    )
    # The latest is outermost: a browser asks for leave without a key, before it sends one.
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id", "X-Deadline"],
        )
    app.add_middleware(Shed, service=service)
    app.add_middleware(Watch, service=service)
    return app


def allowed_hosts(hostnames: Sequence[str]) -> list[str]:
    """The names that a ``Host`` header may carry on a server of this machine alone."""
    return [*LOOPBACK, *hostnames]


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    request.scope.setdefault("state", {}).update(code=error.code, status=error.status)
    return error.response()


async def _unfit(request: Request, error: Exception) -> Response:
    """An error that plait words for users, from below the endpoints."""
    return await _refused(request, RequestError(400, str(error), code="invalid_request"))


async def _unrouted(request: Request, error: Exception) -> Response:
    """No such path, or no such method."""
    assert isinstance(error, StarletteHTTPException)
    message = f"{request.method} {request.url.path[:200]}: {error.detail}"
    refused = RequestError(error.status_code, message, code="no_such_endpoint")
    refused.headers.update(error.headers or {})
    return await _refused(request, refused)


HANDLERS: Final[Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]]] = {
    RequestError: _refused,
    UserError: _unfit,
    StarletteHTTPException: _unrouted,
    HTTPException: _unrouted,
}
"""How errors are answered, by the server and by what is mounted in it."""
