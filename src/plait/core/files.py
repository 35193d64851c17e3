"""Writing files so that a crash leaves the old one or the new one, and telling files apart."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plait.core.errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; on success it takes the place of ``path`` at once.

    The bytes are flushed to disk before the exchange, so that a machine that stops at any moment
    has either the old content or the new.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes it private; users expect their umask
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_free(out: str | Path) -> None:
    """Raises UserError when ``out`` is a file, or a folder that holds something."""
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: name another folder, or delete it")


@contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """Yields a folder beside ``out`` that takes its place when all went well, and else vanishes.

    Raises:
        UserError: see `check_free`.
    """
    out = Path(out)
    check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp makes it private
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text in one step (see `replacing`)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes indented UTF-8 JSON in one step; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


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
