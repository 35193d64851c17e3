"""Answers to requests that cannot be fulfilled, in the shape of OpenAI's errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from plait.core.errors import PlaitError, cut

KINDS: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "server_error",
    503: "server_error",
    504: "timeout_error",
}
_PARAM = 100  # characters of a field's name: a client may have made it up
CLIENT_GONE = 499  # nginx's number for a client that closed; only logs and metrics see it


class RequestError(PlaitError):
    """A request that is refused.

    Args:
        status: of HTTP.
        message: what is wrong, where, and how to mend it.
        param: the field of the request at fault, e.g. ``input[3]``.
        code: one word for programs.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.param = None if param is None else cut(param, _PARAM)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """OpenAI's shape."""
        kind = KINDS.get(self.status, "invalid_request_error")
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> Response:
        """The answer that a client gets."""
        return Response(
            orjson.dumps(self.body()),
            status_code=self.status,
            headers=self.headers,
            media_type="application/json",
        )


def overloaded(seconds: float, reason: str) -> RequestError:
    """Come back later: 429 with ``Retry-After`` in whole seconds."""
    wait = max(1, math.ceil(seconds))
    return RequestError(
        429,
        f"the server is busy ({reason}): try again in {wait} s",
        code="overloaded",
        headers={"Retry-After": str(wait)},
    )


def late() -> RequestError:
    """504: the deadline passed."""
    return RequestError(504, "the deadline passed before the answer was ready", code="deadline")
