"""Many pictures by link: in parallel, capped, each file whole or not there."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from plait.core import progress
from plait.core.errors import DataError
from plait.core.files import replacing

LIMIT = 50 << 20
"""Bytes of one picture; more is refused."""
PROBE = 16
"""When all of this many first downloads fail, there is no network: nothing more is tried."""


def fetch(url: str, target: Path, timeout: float = 20.0) -> str | None:
    """Stores what ``url`` gives in ``target`` unless it is there; returns what went wrong."""
    if target.exists():
        return None
    if not url.startswith(("http://", "https://")):
        return "is no http or https link"
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "plait"})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            kind = answer.headers.get_content_type()
            if not kind.startswith("image/") and kind != "application/octet-stream":
                return f"is no picture but {kind}"
            data = answer.read(LIMIT + 1)
    except urllib.error.HTTPError as error:
        return f"the server answers {error.code} {error.reason}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"cannot be fetched: {error}"
    if not data or len(data) > LIMIT:
        return "is empty" if not data else f"has more than {LIMIT >> 20} MiB"
    with replacing(target) as temporary:
        temporary.write_bytes(data)
    return None


def fetch_all(jobs: Sequence[tuple[str, Path]], title: str, threads: int = 16) -> list[str | None]:
    """`fetch` for every (link, target); what went wrong with each.

    Raises:
        DataError: none of the first links can be fetched.
    """
    with ThreadPoolExecutor(threads) as pool:
        first = list(pool.map(lambda job: fetch(*job), jobs[:PROBE]))
        if first and all(first):
            raise DataError(
                f"{title}: none of {len(first)} pictures could be fetched (the first: {jobs[0][0]} "
                f"{first[0]}); is there a network?"
            )
        rest = pool.map(lambda job: fetch(*job), jobs[PROBE:])
        shown = progress.track(rest, title, len(jobs) - len(first))
        return [*first, *shown]
