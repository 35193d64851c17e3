"""Who may call: API keys, and the names under which a server on this machine may be addressed."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from plait.core.errors import UserError
from plait.serving.errors import RequestError

VARIABLE = "PLAIT_API_KEYS"
LEAST_LENGTH = 16
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPEN = ("/healthz", "/readyz")  # probes of an orchestrator carry no key


class Keys:
    """API keys, kept as hashes only.

    Args:
        keys: by a name for the log.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._hashes = {name: _hash(key) for name, key in keys.items()}

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def holder(self, key: str) -> str | None:
        """The name of a key, or None; takes as long for a wrong key as for a right one."""
        wanted, found = _hash(key), None
        for name, known in self._hashes.items():
            if hmac.compare_digest(known, wanted):
                found = name
        return found


def read_keys(file: Path | None, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Keys by name: from a file, a line each (``name:key`` or ``key``), or from PLAIT_API_KEYS.

    Raises:
        UserError: the file cannot be read, holds no key, or one that is short.
    """
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the API keys in {file} cannot be read: {error}") from error
        found = [line.strip() for line in lines]
        found = [line for line in found if line and not line.startswith("#")]
        where = str(file)
        if not found:
            raise UserError(f"{file} holds no API key: write one a line, name:key")
    else:
        found = [entry.strip() for entry in environ.get(VARIABLE, "").split(",") if entry.strip()]
        where = f"the variable {VARIABLE}"
    keys: dict[str, str] = {}
    for number, entry in enumerate(found, 1):
        name, _, key = entry.rpartition(":")
        if len(key) < LEAST_LENGTH:
            raise UserError(
                f"key {number} of {where} has {len(key)} characters: at least {LEAST_LENGTH}, "
                "e.g. from `openssl rand -hex 32`"
            )
        name = name or f"key-{number}"
        if name in keys:
            raise UserError(f"{where} has two keys with the name {name!r}")
        keys[name] = key
    return keys


class Gate:
    """Lets requests pass that carry a key and name a host of this server.

    Args:
        app: behind the gate.
        keys: none: nobody is asked for one.
        hosts: names that the ``Host`` header may carry; None for any.
        free: paths below which no key is asked for (those of the page).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys,
        hosts: Sequence[str] | None,
        free: Callable[[str], bool],
    ) -> None:
        self.app, self.keys, self.free = app, keys, free
        self.hosts = None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            if self.keys and scope["path"] not in OPEN and not self.free(scope["path"]):
                scope.setdefault("state", {})["key"] = self._holder(headers)
        except RequestError as error:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await error.response()(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        if self.hosts is None:
            return
        host = headers.get("host", "").lower()
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if name not in self.hosts:
            raise RequestError(
                403,
                f"this server does not go by the name {name!r}: start it with --hostname {name}",
                code="unknown_host",
            )

    def _holder(self, headers: Headers) -> str:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        holder = self.keys.holder(key.strip()) if scheme.lower() == "bearer" else None
        if holder is None:
            raise RequestError(
                401,
                "an API key is needed: Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return holder


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
