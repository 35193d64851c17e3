"""Writing files so that a crash leaves the old one or the new one, telling files apart, and reading
what strangers wrote or named.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plait.core.errors import DataError, UserError
from plait.core.lock import FolderLock
from plait.core.trouble import note_place

MOST_FILE = 512 << 20
"""Bytes of one picture, recording or text that a row names."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# Windows has neither flag: a descriptor is private there already, and no path is a pipe.
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_OF_THE_SYSTEM = ("/proc", "/sys")  # regular files by name, of no size, made while they are read


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; on success it takes the place of ``path`` at once.

    The bytes are flushed to disk before the exchange, so that a machine that stops at any moment
    has either the old content or the new.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        os.close(handle)
        yield temporary
        _flush(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes it private; users expect their umask
        temporary.replace(path)
        _flush(path.parent)
    except Exception as error:
        note_place(error, path, str(path.with_name(f".{path.name}.")))
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():  # folders cannot be opened there
        return
    # Windows flushes only what could be written.
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_FEW = 64  # files; more are waited for in one call, which takes the whole machine's with them


def _flush_below(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    if len(files) > _FEW and hasattr(os, "sync"):
        os.sync()
        return
    for file in files:
        _flush(file)


def check_free(out: str | Path) -> None:
    """Raises UserError when ``out`` is a file, or a folder that holds something."""
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: name another folder, or delete it")


@contextmanager
def new_folder(out: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a folder beside ``out`` that takes its place when all went well, and else vanishes.

    Args:
        out: the folder.
        overwrite: what is there gives way, once the new one is whole.

    Raises:
        UserError: see `check_free`; not with ``overwrite``.
    """
    out = Path(out)
    if not overwrite:
        check_free(out)
    temporary = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes it private
        _flush_below(temporary)
        _take_place(temporary, out)
    except Exception as error:
        note_place(error, out, str(out.with_name(f".{out.name}.")))
        raise
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def unfinished_folder(out: str | Path) -> Iterator[Path]:
    """As `new_folder` with ``overwrite``, but it goes on with what a killed process left.

    The folder beside ``out`` has a name of its own, and one process at a time works in it. Whatever
    is raised clears it away; only what ends a process at once (``kill -9``, a power cut) leaves it.

    Raises:
        UserError: another process is making the same folder.
    """
    out = Path(out)
    unfinished = out.with_name(f".{out.name}.unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(unfinished, "is making")
    lock.acquire()
    try:
        _end_exchange(unfinished, out)
        yield unfinished
        _flush_below(unfinished)
        lock.release()  # its file is not part of what was made; nothing is written from here on
        _take_place(unfinished, out)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(error, Exception):
            note_place(error, out, str(unfinished))
        raise
    finally:  # where all went well, another process may work in a new folder of this name by now
        lock.release()


def _old(new: Path) -> Path:
    return new.with_name(f"{new.name}.old")


def _end_exchange(new: Path, out: Path) -> None:
    """Undoes or ends an exchange in which a process was killed."""
    old = _old(new)
    if old.exists():
        shutil.rmtree(old) if out.exists() else old.rename(out)


def _take_place(new: Path, out: Path) -> None:
    """Exchanges two folders; the old one is deleted only when the new one stands in its place."""
    old = None
    if out.exists():
        old = _old(new)
        out.rename(old)
    try:
        new.rename(out)
        _flush(out.parent)
    finally:
        if old is not None:
            if not out.exists():
                old.rename(out)
            shutil.rmtree(old, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text in one step (see `replacing`)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes indented UTF-8 JSON in one step; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def regular(path: str | Path, most_bytes: int | None = MOST_FILE) -> os.stat_result:
    """The status of a regular file of at most ``most_bytes`` (None: of any size); nothing is opened.

    Raises:
        DataError: no such file, or it is a folder, pipe, socket or device, one of the system's own
            (``/proc``), or too large.
    """
    try:
        status = os.stat(path)  # noqa: PTH116  half the time of Path.stat
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise DataError(f"cannot be read: {_reason(error)}", path=path) from error
    _check_status(path, status, most_bytes)
    return status


def read_regular(path: str | Path, *, most_bytes: int = MOST_FILE) -> bytes:
    """The bytes of a regular file, whose kind and size are checked before anything is read.

    Raises:
        DataError: as `regular`, or the file cannot be read.
    """
    regular(path, most_bytes)  # opening a device may already do something
    try:
        # another file may stand there by now: an open that cannot block, and the checks once more
        handle = os.open(path, _READ)
        with open(handle, "rb", buffering=0) as file:  # noqa: PTH123  a descriptor
            status = os.fstat(handle)
            _check_status(path, status, most_bytes)
            data = file.read(status.st_size)
            while len(data) < status.st_size and (more := file.read(status.st_size - len(data))):
                data += more  # one read gives at most 2 GB
    except OSError as error:
        raise DataError(f"cannot be read: {_reason(error)}", path=path) from error
    except MemoryError:
        raise DataError("does not fit in memory", path=path) from None
    return data


def _check_status(path: str | Path, status: os.stat_result, most_bytes: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "no file")
        raise DataError(f"is {kind}: only regular files are read", path=path)
    if most_bytes is not None and status.st_size > most_bytes:
        raise DataError(
            f"has {status.st_size:,} bytes, more than the {most_bytes:,} that are read", path=path
        )
    # few regular files are of less than one page and of no blocks: only then it is worth a look
    if getattr(status, "st_blocks", 1) == 0 and os.path.realpath(path).startswith(_OF_THE_SYSTEM):
        raise DataError("is a file of the system's own: only regular files are read", path=path)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def own_folders(folders: Iterable[Path]) -> list[Path]:
    """The folders, and where the files of those that the hub's cache made of links lie."""
    found = list(folders)
    return found + [one.parent.parent / "blobs" for one in found if one.parent.name == "snapshots"]


def is_below(path: str | Path, roots: Iterable[str | Path]) -> bool:
    """Whether a path, with its symbolic links and ``..`` followed, lies in (or is) one of ``roots``.

    The path need not exist.
    """
    real = os.path.realpath(path)
    return any(
        real == root or real.startswith(root.rstrip(os.sep) + os.sep)
        for root in map(os.path.realpath, roots)
    )


class RealPaths:
    """Paths with their links followed; what a folder is, is asked once for all files in it.

    Each path is asked for once, too.
    """

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}
        self._known: dict[str, str] = {}

    def __call__(self, path: str | Path) -> str:
        """The same as ``os.path.realpath``, in a fraction of its time for many files of a folder."""
        stated = os.fspath(path)
        found = self._known.get(stated)
        if found is None:
            found = self._known[stated] = self._followed(stated)
        return found

    def _followed(self, path: str) -> str:
        folder, name = os.path.split(path)
        if name in ("", ".", "..") or os.path.islink(path):  # noqa: PTH114  many
            return os.path.realpath(path)
        real = self._folders.get(folder)
        if real is None:
            real = self._folders[folder] = os.path.realpath(folder)
        return f"{real.rstrip(os.sep)}{os.sep}{name}"


class BadJson(DataError, ValueError):
    """A file that holds no JSON, or more than is read."""


def read_json(path: str | Path, *, most_bytes: int = 128 << 20) -> Any:
    """Reads a JSON file.

    Raises:
        BadJson: it is no valid JSON, larger than ``most_bytes``, nested too deeply, or no regular
            file.
        OSError: there is no such file.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    try:
        return parse_json(read_regular(path, most_bytes=most_bytes).decode("utf-8"))
    except DataError as error:
        raise BadJson(error.problem, path=path) from error
    except ValueError as error:
        raise BadJson(f"is no valid JSON: {error}", path=path) from error


_PARTS = 10_000_000  # parts of a document that are parsed without a look at the memory
_BYTES_A_PART = 100  # of an empty list or object and its place in another


def parse_json(text: str) -> Any:
    """The value of a JSON text; a few bytes of JSON can take hundreds of memory, so they are counted.

    Raises:
        ValueError: not JSON, nested too deeply, or more parts than there is memory for.
    """
    if len(text) > _PARTS:
        parts = sum(map(text.count, "[{,:"))
        if parts > _PARTS and parts * _BYTES_A_PART > _free_memory() // 2:
            raise ValueError(
                f"its {parts:,} parts would take {parts * _BYTES_A_PART / 1e9:.1f} GB of memory"
            )
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested more deeply than is read") from None
    except MemoryError:
        raise ValueError("it does not fit in memory") from None


def _free_memory() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


_MOST_HEADER = 16 << 20


def check_weights(path: str | Path) -> None:
    """Looks at the header of a safetensors file, which is parsed whole, before a library does.

    Raises:
        DataError: no regular file, or a header longer than the file or than any model's.
    """
    size = regular(path, None).st_size
    with Path(path).open("rb") as file:
        stated = int.from_bytes(file.read(8), "little")
    if stated > min(size - 8, _MOST_HEADER):
        raise DataError(f"is no file of weights: it states a header of {stated:,} bytes", path=path)


def digest(*parts: bytes | str | Path) -> str:
    """SHA-256, shortened to 16 hex digits, of byte strings, strings and the contents of paths."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as file:
                while block := file.read(1 << 20):
                    sha.update(block)
        else:
            sha.update(part.encode() if isinstance(part, str) else part)
        sha.update(b"\0")  # so that ("ab", "c") and ("a", "bc") differ
    return sha.hexdigest()[:16]


def cache_home() -> Path:
    """Where plait keeps what it can make again: ``$PLAIT_CACHE``, else ``~/.cache/plait``."""
    configured = os.environ.get("PLAIT_CACHE")
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plait"
