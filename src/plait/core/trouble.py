"""What the machine refuses - disk, memory, network, permission - told in one sentence.

Libraries tell of it in many ways: with an `OSError` or `MemoryError`, or with an exception of their
own that only quotes the system's words. `explained` knows them all, so that the commands need one
place that asks it, and no code that writes, reads or allocates has to.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plait.core.errors import AccessError, MachineError, PlaitError

_WRITING = "while writing "  # how a note of `note_place` begins


@dataclass(frozen=True)
class _Kind:
    """One kind of trouble.

    Attributes:
        what: is wrong.
        mend: what to do about it.
        numbers: of the system's errors.
        words: a regular expression of how libraries tell of it, case aside.
        users: the user named the file: exit code 2.
        placed: it is trouble of one file, which the sentence names.
    """

    what: str
    mend: str
    numbers: tuple[str, ...] = ()
    words: str = ""
    users: bool = False
    placed: bool = True


_KINDS = (
    _Kind(
        "no space is left on the disk",
        "make room there, or write elsewhere (--out; PLAIT_CACHE for caches)",
        ("ENOSPC",),
        "no space left on device|not enough space on the disk|disk full",
    ),
    _Kind(
        "the disk quota is used up",
        "remove something of yours, or write elsewhere (--out; PLAIT_CACHE for caches)",
        ("EDQUOT",),
        "quota exceeded",
    ),
    _Kind(
        "the file would be larger than this system or session lets files be",
        "raise the limit (`ulimit -f`), or write to another disk",
        ("EFBIG",),
        "file too large",
    ),
    _Kind(
        "the disk or drive does not work (input/output error)",
        "see the system's log, and write or read elsewhere",
        ("EIO",),
        "input/output error",
    ),
    _Kind(
        "the place is read-only",
        "name another (--out; PLAIT_CACHE for caches)",
        ("EROFS",),
        "read-only file system",
        users=True,
    ),
    _Kind(
        "this user may not read or write it",
        "change its permissions, or name another place (--out; PLAIT_CACHE for caches)",
        ("EACCES", "EPERM"),
        "permission denied|operation not permitted",
        users=True,
    ),
    _Kind(
        "it is not there, or no longer",
        "bring it back, or name another, and give the command again",
        ("ENOENT", "ESTALE", "ENXIO"),
        "no such file or directory|stale file handle",
        users=True,
    ),
    _Kind(
        "a file stands where a folder is needed, or a folder where a file is",
        "name another place",
        ("ENOTDIR", "EISDIR", "EEXIST", "ENOTEMPTY"),
        "not a directory|is a directory",
        users=True,
    ),
    _Kind(
        "the name is longer than the file system takes, or leads in a circle",
        "name another place",
        ("ENAMETOOLONG", "ELOOP"),
        "file name too long",
        users=True,
    ),
    _Kind(
        "too many files are open",
        "raise the limit (`ulimit -n`)",
        ("EMFILE", "ENFILE"),
        "too many open files",
    ),
    _Kind(
        "the graphics memory does not suffice",
        "take a smaller batch (--set stages.0.batch_size=N) or a smaller model",
        words="cuda out of memory|cuda error: out of memory|cublas_status_alloc_failed",
        placed=False,
    ),
    _Kind(
        "the memory does not suffice",
        "take a smaller batch (--set stages.0.batch_size=N) or smaller pictures, or end other programs",
        ("ENOMEM",),
        r"can't allocate memory|cannot allocate memory|not enough memory|out of memory|bad_?alloc"
        r"|failed to allocate|unable to allocate|malloc of size|failed to map segment",
        placed=False,
    ),
    _Kind(
        "no further process or thread can be started",
        "end other programs, or raise the limit (`ulimit -u`, the container's number of processes)",
        ("EAGAIN",),
        "can't start new thread",
        placed=False,
    ),
    _Kind(
        "a helper process was killed, most likely for want of memory",
        "take a smaller batch or fewer workers, and give the command again",
        words=r"dataloader worker .* (killed|exited)|process pool was terminated abruptly"
        r"|a child process terminated abruptly",
        placed=False,
    ),
    _Kind(
        "the connection was lost or could not be made",
        "see that the network and the other side work, and give the command again",
        (
            *("ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "ENETUNREACH", "EHOSTUNREACH"),
            *("ETIMEDOUT", "ENETDOWN", "ENOTCONN", "EPIPE"),
        ),
        "connection (reset|refused|aborted|timed out|error)|network is unreachable|timed out"
        "|name resolution|name or service not known|server disconnected|incomplete(read| read)"
        "|max retries exceeded|remote end closed|connection attempts failed",
        placed=False,
    ),
    _Kind(
        "the address is in use",
        "take another port, or end the program that has it",
        ("EADDRINUSE",),
        "address already in use",
        users=True,
    ),
)
_BY_NUMBER = {
    getattr(errno, name): kind for kind in _KINDS for name in kind.numbers if hasattr(errno, name)
}
_SAME_EVERYWHERE = {kind for kind in _KINDS if not kind.users}
_SYSTEMS_NUMBER = re.compile(r"\(os error (\d+)\)|\[errno (\d+)\]", re.IGNORECASE)
_MEMORY = _BY_NUMBER[errno.ENOMEM]
_NETWORK = _BY_NUMBER[errno.ECONNRESET]


def note_place(error: BaseException, path: str | Path, temporary: str) -> None:
    """Notes on an exception that ``path`` was being written, for `explained` to tell.

    Args:
        error: without a file, or with one whose name begins with ``temporary``; else left alone.
        path: what the user knows it by.
        temporary: beginning of the name that it had meanwhile.
    """
    name = getattr(error, "filename", None)
    if name is None or os.fsdecode(name).startswith(temporary):
        error.add_note(f"{_WRITING}{path}")


def explained(error: BaseException) -> PlaitError | None:
    """What the machine refused, as one sentence; None where the exception tells of nothing such.

    Looks at the exception and at what it was raised from. What it was raised *while handling* counts
    only where it can be nobody's but the machine's: a missing file may have been looked for.
    """
    place = ""
    for one, explicit in _chain(error):
        if isinstance(one, PlaitError):
            return one if explicit else None
        place = place or _place(one)
        kind = _kind(one)
        if kind is not None and (explicit or kind in _SAME_EVERYWHERE):
            type_ = AccessError if kind.users else MachineError
            where = f"{place}: " if place and kind.placed else ""
            return type_(f"{where}{kind.what}: {kind.mend}")
    if isinstance(error, OSError) and error.strerror:
        where = f"{place}: " if place else ""
        return MachineError(f"{where}the system says: {error.strerror}")
    return None


def _chain(error: BaseException) -> Iterator[tuple[BaseException, bool]]:
    """The exception and its causes; whether each was named as one."""
    explicit, seen = True, set[int]()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one, explicit
        if one.__cause__ is not None:
            one = one.__cause__
        else:
            one, explicit = None if one.__suppress_context__ else one.__context__, False


def _kind(error: BaseException) -> _Kind | None:
    if isinstance(error, MemoryError):
        return _MEMORY
    if isinstance(error, OSError) and error.errno in _BY_NUMBER:
        return _BY_NUMBER[error.errno]
    if isinstance(error, ConnectionError | TimeoutError):
        return _NETWORK
    if isinstance(error, ValueError | TypeError | LookupError | AttributeError | AssertionError):
        return None  # these may quote what a user gave, and are faults of plait
    text = str(error)
    for found in _SYSTEMS_NUMBER.finditer(text):
        kind = _BY_NUMBER.get(int(found[1] or found[2]))
        if kind is not None:
            return kind
    return next((k for k in _KINDS if k.words and re.search(k.words, text, re.IGNORECASE)), None)


def _place(error: BaseException) -> str:
    for note in reversed(getattr(error, "__notes__", ())):  # the last is of the outermost place
        if note.startswith(_WRITING):
            return str(note.removeprefix(_WRITING))
    name = getattr(error, "filename", None)
    return os.fsdecode(name) if isinstance(name, str | bytes) else ""
