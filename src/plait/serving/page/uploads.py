"""Pictures that people gave to the page: kept in memory, under names that nobody can guess.

No path is made of what a client sends, and nothing is written to disk.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from dataclasses import dataclass
from typing import Final

from plait.serving.base.errors import RequestError

KEPT_SECONDS: Final = 3600.0
SHARE: Final = 4  # one client may hold a quarter of all
_OVERHEAD: Final = 1024  # bytes that the smallest picture is counted as, beside its own
_BOUNDARY: Final = re.compile(r"""boundary=(?:"([^"\r\n]{1,70})"|([^\s";]{1,70}))""", re.IGNORECASE)
_HEAD_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class _Kept:
    client: str
    data: bytes
    size: int
    timer: asyncio.TimerHandle


class Uploads:
    """The pictures, the oldest of which go when there are too many.

    Args:
        most: bytes of all together; a client may hold a quarter of them.
        seconds: after which a picture goes.
    """

    def __init__(self, most: int, seconds: float = KEPT_SECONDS) -> None:
        self.most, self.seconds = most, seconds
        self.bytes = 0
        self._kept: dict[str, _Kept] = {}

    def add(self, client: str, data: bytes) -> str:
        """Keeps a picture and gives its name.

        Raises:
            RequestError: 413 for one that is larger than a client's share.
        """
        share, size = self.most // SHARE, len(data) + _OVERHEAD
        if size > share:
            raise RequestError(
                413, f"the page keeps pictures of up to {share:,} bytes", code="image_too_large"
            )
        own = [one for one, kept in self._kept.items() if kept.client == client]
        held = sum(self._kept[one].size for one in own)
        for one in own:
            if held + size <= share:
                break
            held -= self._kept[one].size
            self._drop(one)
        while self.bytes + size > self.most:
            self._drop(next(iter(self._kept)))
        name = secrets.token_hex(32)
        timer = asyncio.get_running_loop().call_later(self.seconds, self._drop, name)
        self._kept[name] = _Kept(client, data, size, timer)
        self.bytes += size
        return name

    def get(self, name: object) -> bytes | None:
        """The picture of that name; None for anything else."""
        kept = self._kept.get(name) if isinstance(name, str) else None
        return None if kept is None else kept.data

    def _drop(self, name: str) -> None:
        kept = self._kept.pop(name)
        kept.timer.cancel()
        self.bytes -= kept.size


def only_file(content_type: str, body: bytes) -> bytes:
    """The content of a form that holds one file and nothing else.

    Such a form is two marks around a head and the content: it takes no parser, whose work would
    grow with what a stranger writes between the marks.

    Raises:
        RequestError: 415 for another type, 400 for anything but one file.
    """
    kind, _, parameters = content_type.partition(";")
    boundary = _BOUNDARY.search(parameters[:300])
    if kind.strip().lower() != "multipart/form-data" or boundary is None:
        raise RequestError(415, "send the picture as multipart/form-data", code="media_type")
    mark = b"--" + (boundary[1] or boundary[2]).encode()
    start = body.find(b"\r\n\r\n", 0, _HEAD_BYTES)
    end = body.find(b"\r\n" + mark, max(start, 0) + 2)
    if (
        not body.startswith(mark + b"\r\n")
        or start < 0
        or end < start + 2
        or body[end + 2 + len(mark) :] not in (b"--", b"--\r\n")
        or b"filename" not in body[:start].lower()
    ):
        raise RequestError(400, "the form is to hold one picture", code="invalid_form")
    return body[start + 4 : end]
