"""A search asked of a running server, whose models are loaded already: no library but Python's own."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from plait.core.errors import MOST_CUT, PlaitError, UserError, cut
from plait.core.files import read_regular

SERVER: Final = "PLAIT_SERVER"
KEY: Final = "PLAIT_API_KEY"
SECONDS: Final = 60.0
MOST_BYTES: Final = 64 << 20  # of an answer


def ask_server(
    url: str, query: str | None, image: Path | None, *, k: int, where: str | None
) -> list[dict[str, Any]]:
    """The hits of ``POST /v1/search``; the key is the one in PLAIT_API_KEY.

    Raises:
        UserError: no URL of a server, a picture that cannot be read, or a request that the server
            refuses, with its reason.
        PlaitError: a server that is away, busy or failing, or answers with something else.
    """
    import http.client  # the other way to search needs it not

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--server {cut(url)}: give http://host:port, as `plait serve` prints it")
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    headers = {"Content-Type": "application/json"}
    if os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {os.environ[KEY]}"
    body = json.dumps({"query": _query(query, image), "k": k, "where": where})
    try:
        connection = kind(parts.hostname, parts.port, timeout=SECONDS)
        try:
            connection.request("POST", f"{parts.path.rstrip('/')}/v1/search", body, headers)
            with connection.getresponse() as response:
                status, answer = response.status, response.read(MOST_BYTES)
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = cut(str(error) or type(error).__name__)
        raise PlaitError(
            f"{cut(url)} cannot be reached: {reason}; is `plait serve` running?"
        ) from error
    return _hits(cut(url), status, answer)


def _query(query: str | None, image: Path | None) -> Any:
    if image is None:
        # A part, so that words that look like a data URL stay words.
        return {"type": "text", "text": query}
    data = base64.b64encode(read_regular(image)).decode("ascii")
    return f"data:{_media_type(image)};base64,{data}"


def _media_type(image: Path) -> str:
    import mimetypes

    return mimetypes.guess_type(image.name)[0] or "image/jpeg"


def _hits(url: str, status: int, answer: bytes) -> list[dict[str, Any]]:
    try:
        told = json.loads(answer)
        if status == 200:
            note = {} if told.get("note") is None else {"note": str(told["note"])}
            return [{**hit, "path": None, "outside": False, **note} for hit in told["data"]]
        reason = str(told["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PlaitError(
            f"{url} answers with status {status} and something else than plait: "
            f"{answer[:MOST_CUT].decode(errors='replace')}"
        ) from error
    kind = UserError if 400 <= status < 500 and status != 429 else PlaitError
    mend = f" (set {KEY})" if status == 401 else ""
    raise kind(f"{url} answers with status {status}: {cut(reason)}{mend}")
