"""What the page admits: a short list of routes, each within the server's limits.

Gradio draws the page: its HTML, its settings and its scripts. Whatever a visitor sends is read
here instead: pictures, presses of a button, and the size of a login. Gradio's own routes for these
take paths and URLs, keep files and queues, and have no limits; none of them can be reached, nor any
that a later release adds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plait.core.errors import shown
from plait.serving.base.errors import RequestError
from plait.serving.base.inputs import kind_of, picture
from plait.serving.http.answering import unless_gone, within
from plait.serving.http.security import Guesses
from plait.serving.page.html import error_html
from plait.serving.page.uploads import Uploads, only_file
from plait.serving.service.body import Hold, client_in, parse_json, read_body
from plait.serving.service.service import Service

RUN_BYTES: Final = 1 << 20  # of a button's press: texts alone, the pictures came before
LOGIN_BYTES: Final = 8 << 10
FORM_BYTES: Final = 8 << 10  # around a picture
SESSIONS: Final = 1000  # logins that are remembered; the oldest goes
_FILE: Final = re.compile(r"(?:[\w@+-][\w@.+-]*/)*[\w@+-][\w@.+-]*", re.ASCII)
# Not Origin, for which Gradio would give other sites leave to read, nor X-Forwarded-Host.
_PASSED: Final = frozenset(
    (
        b"host",
        b"cookie",
        b"content-type",
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"if-none-match",
        b"if-modified-since",
        b"x-forwarded-proto",
    )
)
Handler = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Button:
    """What a press does.

    Attributes:
        handler: gets the values and gives what the page shows.
        inputs: components of the page whose values are sent.
        outputs: components that show the result, one of them as HTML.
    """

    handler: Handler
    inputs: Sequence[Any]
    outputs: Sequence[Any]

    def failed(self, reason: str) -> list[str]:
        """What the outputs show instead: the reason, in the first that is HTML."""
        kinds = [one.get_block_name() for one in self.outputs]
        place = kinds.index("html")
        return [error_html(reason) if n == place else "" for n in range(len(kinds))]


class PageGuard:
    """The routes of a page in one language.

    Args:
        gradio: the application that draws the page; asked for nothing but its drawing and logins.
        buttons: by their number in the page's settings.
        service: whose limits count.
        uploads: the pictures of all languages.
        guesses: counts the wrong keys of the page; None where nobody is asked for one.
        say: words of the language.
    """

    def __init__(
        self,
        gradio: Any,
        buttons: Mapping[int, Button],
        service: Service,
        uploads: Uploads,
        *,
        guesses: Guesses | None,
        say: Mapping[str, str],
    ) -> None:
        self.gradio, self.buttons, self.service, self.uploads = gradio, buttons, service, uploads
        self.guesses, self.say = guesses, say

    def routes(self) -> list[Route]:
        """All that is admitted."""
        api = "/gradio_api"
        return [
            Route("/", self.draw, methods=["GET"]),
            Route("/theme.css", self.draw, methods=["GET"]),
            Route("/assets/{file:path}", self.draw, methods=["GET"]),
            Route("/static/{file:path}", self.draw, methods=["GET"]),
            Route("/config", self.draw_for_guests, methods=["GET"]),
            Route(f"{api}/info", self.draw_for_guests, methods=["GET"]),
            Route("/login", self.log_in, methods=["POST"]),
            Route(f"{api}/upload", self.take_picture, methods=["POST"]),
            Route(f"{api}/file={{name}}", self.show_picture, methods=["GET"]),
            Route(f"{api}/run/predict", self.press, methods=["POST"]),
        ]

    def application(self, handlers: Mapping[Any, Any]) -> ASGIApp:
        """The routes as an application, with the server's handlers of errors."""
        made = Starlette(routes=self.routes(), exception_handlers=dict(handlers))
        made.router.redirect_slashes = False
        return made

    async def draw(self, request: Request) -> ASGIApp:
        """A part of the page from Gradio."""
        file = request.path_params.get("file")
        if file is not None and (_FILE.fullmatch(file) is None or ".." in file):
            raise RequestError(404, "there is no such file", code="no_such_endpoint")
        return self._gradio(request, b"")

    async def draw_for_guests(self, request: Request) -> ASGIApp:
        """A part of the page that only those see who are logged in."""
        self._guest(request)
        return self._gradio(request, b"")

    async def log_in(self, request: Request) -> ASGIApp:
        """A name and a key for a cookie, slower after wrong ones."""
        with self.service.intake.admitted(client_in(request)) as hold:
            body = await self._body(request, hold, LOGIN_BYTES)
        while len(self.gradio.tokens) >= SESSIONS:
            del self.gradio.tokens[next(iter(self.gradio.tokens))]
        return self._gradio(request, body, partial(self._slowed, request))

    async def _slowed(self, request: Request, answer: Message) -> None:
        """Makes Gradio's answer to a wrong key what one at the endpoints is: late, and 429."""
        if answer["status"] != 400 or self.guesses is None:
            return
        wait = self.guesses.wrong(_address(request))
        await self.guesses.hold_back(wait)
        if wait:
            answer["status"] = 429
            answer["headers"].append((b"retry-after", f"{wait:.0f}".encode()))

    async def take_picture(self, request: Request) -> Response:
        """Keeps a picture, and answers with its name as Gradio's page wants it: a list of one."""
        guest = self._guest(request)
        try:
            with self.service.intake.admitted(client_in(request)) as hold:
                most = self.service.limits.picture_bytes + FORM_BYTES
                body = await self._body(request, hold, most)
                data = only_file(request.headers.get("content-type", ""), body)
                picture(data, "the file", self.service.limits)
                return _json([self.uploads.add(guest, data)])
        except RequestError as error:  # the page shows the answer as it is
            request.scope.setdefault("state", {}).update(code=error.code)
            return PlainTextResponse(error.message, error.status, error.headers)

    async def show_picture(self, request: Request) -> Response:
        """A picture that was given, for the one who knows its name."""
        self._guest(request)
        data = self.uploads.get(request.path_params["name"])
        if data is None:
            raise RequestError(404, "there is no such picture", code="no_such_picture")
        kind = kind_of(data)
        assert kind is not None
        headers = {"Cache-Control": "private, no-store", "Content-Security-Policy": "sandbox"}
        return Response(data, media_type=f"image/{kind.lower()}", headers=headers)

    async def press(self, request: Request) -> Response:
        """Does what a button does: what its outputs show, in the shape that Gradio's page reads."""
        self._guest(request)
        deadline = time.monotonic() + self.service.limits.deadline
        with self.service.intake.admitted(client_in(request)) as hold:
            asked = parse_json(await self._body(request, hold, RUN_BYTES))
            button, given = self._button(asked)
            try:
                values = [self._value(one, value) for one, value in zip(button.inputs, given)]
                work = within(button.handler(*values), deadline)
                done = await unless_gone(request, work)
            except RequestError as error:
                # Gradio's page shows no reason of an answer that is not 200.
                request.scope.setdefault("state", {}).update(code=error.code, status=error.status)
                return _json({"data": button.failed(error.message)})
        return _json({"data": list(done) if isinstance(done, tuple) else [done]})

    def _button(self, asked: Any) -> tuple[Button, list[Any]]:
        """The button that a request names, and a value for each of its inputs, unread so far."""
        number = asked.get("fn_index") if isinstance(asked, dict) else None
        button = self.buttons.get(number) if type(number) is int else None
        given = asked.get("data") if isinstance(asked, dict) else None
        if button is None or not isinstance(given, list) or len(given) != len(button.inputs):
            raise RequestError(400, "this page has no such button", code="invalid_request")
        return button, given

    def _value(self, component: Any, value: Any) -> Any:
        kind = component.get_block_name()
        if kind == "image":
            return self._picture(value)
        if kind == "slider":
            if (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and component.minimum <= value <= component.maximum
            ):
                return value
        elif value is None or isinstance(value, str):
            return value or ""
        raise RequestError(
            400, f"{component.label} cannot be {shown(value)}", code="invalid_request"
        )

    def _picture(self, value: Any) -> bytes | None:
        """The bytes of a picture that was given; its name is looked up and nothing else is read."""
        if value is None:
            return None
        data = self.uploads.get(value.get("path")) if isinstance(value, dict) else None
        if data is None:
            raise RequestError(400, self.say["gone"], code="no_such_picture")
        return data

    def _guest(self, request: Request) -> str:
        """Who asks: the name of the key, or the address where none is asked for.

        Raises:
            RequestError: 401 for one who is not logged in.
        """
        if self.guesses is None:
            return client_in(request)
        kind = self.gradio.cookie_id
        for cookie in (f"access-token-{kind}", f"access-token-unsecure-{kind}"):
            name = self.gradio.tokens.get(request.cookies.get(cookie))
            if name is not None:
                request.scope.setdefault("state", {})["key"] = name
                return str(name)
        raise RequestError(401, "log in on the page first", code="invalid_api_key")

    async def _body(self, request: Request, hold: Hold, most: int) -> bytes:
        total = 0

        def check(size: int) -> None:
            if size > most:
                raise RequestError(
                    413,
                    f"the request has more than {most:,} bytes",
                    code="request_too_large",
                    headers={"Connection": "close"},
                )

        async def receive() -> Message:
            nonlocal total
            message = await request.receive()
            total += len(message.get("body", b""))
            check(total)
            return message

        declared = request.headers.get("content-length", "")
        if declared.isdecimal():
            check(int(declared[:20]))
        return bytes((await read_body(Request(request.scope, receive), hold)).take())

    def _gradio(
        self,
        request: Request,
        body: bytes,
        seen: Callable[[Message], Awaitable[None]] | None = None,
    ) -> ASGIApp:
        """Gradio's answer to a request: without its query, with few of its headers, this body."""

        async def forward(scope: Scope, receive: Receive, send: Send) -> None:
            headers = [pair for pair in scope["headers"] if pair[0] in _PASSED]
            headers.append((b"content-length", str(len(body)).encode()))
            inner = {**scope, "headers": headers, "query_string": b"", "app": self.gradio}
            sent = False

            async def given() -> Message:
                nonlocal sent
                if sent:
                    return await receive()
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}

            async def passing(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [_own_cookie(pair) for pair in message["headers"]]
                    if seen is not None:
                        await seen(message)
                await send(message)

            await self.gradio(inner, given, passing)

        return forward


def _own_cookie(pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """Gradio's cookies go along with requests of other sites; the page has no use for that."""
    name, value = pair
    if name.lower() == b"set-cookie":
        value = re.sub(rb"samesite=none", b"SameSite=lax", value, flags=re.IGNORECASE)
    return name, value


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")
