"""Secrets of the environment: read once, then gone from the process and from those it starts."""

from __future__ import annotations

import ctypes
import os
from typing import Final

TOWER_KEY: Final = "PLAIT_TOWER_KEY"  # of the servers that run towers for this one
_kept: dict[str, str] = {}


def take(name: str) -> str | None:
    """The value of a variable, which is removed from the environment.

    What a process was started with stays readable in ``/proc/PID/environ`` when the variable is
    unset, so the value is overwritten there too.
    """
    value = os.environ.get(name)
    if value is None:
        return None
    if os.name == "posix":
        libc = ctypes.CDLL(None)
        libc.getenv.restype = ctypes.c_void_p
        address = libc.getenv(name.encode())
        if address is not None:
            ctypes.memset(address, 0, len(os.environb[name.encode()]))
    del os.environ[name]
    return value


def keep(name: str, value: str | None) -> None:
    """Keeps a secret for this process alone, as if it had come by its environment."""
    if value is not None:
        _kept[name] = value


def secret(name: str) -> str | None:
    """A secret that was kept, or that is in the environment."""
    return _kept.get(name, os.environ.get(name))
