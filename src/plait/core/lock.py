"""One folder, one process that writes it: a lock that the system releases when it ends, however."""

from __future__ import annotations

import os
from pathlib import Path

from plait.core.errors import UserError

NAME = ".lock"


class FolderLock:
    """Held from `acquire` to `release` or the end of the process.

    On systems without ``fcntl`` (Windows) nothing is locked.

    Args:
        folder: must exist.
        told: what the other process does, for the message: ``is training into``.
    """

    def __init__(self, folder: Path, told: str = "writes") -> None:
        self.path, self.told = folder / NAME, told
        self._handle: int | None = None

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            UserError: another process holds it.
        """
        try:
            import fcntl
        except ImportError:
            return
        while self._handle is None:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(handle)
                raise UserError(
                    f"another process {self.told} {self.path.parent}: wait for it, or take "
                    "another --out"
                ) from None
            if _is_at(handle, self.path):
                self._handle = handle
            else:  # who held it has removed the file meanwhile: a lock that nobody else sees
                os.close(handle)

    def __enter__(self) -> FolderLock:
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def release(self) -> None:
        """Gives the lock back, and removes its file."""
        if self._handle is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
