"""Memory allocator settings that spare PyTorch on Linux most of its page faults.

With glibc's defaults every large buffer is mapped anew and given back to the kernel after use, so
each forward pass faults in all its pages again. Keeping freed memory (``MALLOC_*``) and asking for
huge pages (``THP_MEM_ALLOC_ENABLE``, read by PyTorch) removes that; figures in
docs/performance.md. Both are read when a process starts, so they can only be set from outside: the
command line calls `ensure_tuned`, which starts the process over once. Libraries never do; they
leave the advice to ``plait doctor``, through `describe`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

GIB: Final = 1 << 30

SETTINGS: Final[Mapping[str, str]] = {
    "MALLOC_MMAP_THRESHOLD_": str(4 * GIB),  # buffers below this size come from the heap
    "MALLOC_TRIM_THRESHOLD_": str(8 * GIB),  # and stay there when freed
    "MALLOC_TOP_PAD_": str(GIB // 4),  # the heap grows in steps of this size
    "THP_MEM_ALLOC_ENABLE": "1",  # huge pages for PyTorch's buffers
}
MIB: Final = 1 << 20
SERVING: Final[Mapping[str, str]] = {
    "MALLOC_MMAP_THRESHOLD_": str(4 * MIB),  # what one large request took is given back
    "MALLOC_TRIM_THRESHOLD_": str(64 * MIB),
    "MALLOC_TOP_PAD_": str(8 * MIB),
    "MALLOC_ARENA_MAX": "2",
    "THP_MEM_ALLOC_ENABLE": "1",
}
OFF_SWITCH: Final = "PLAIT_TUNE"  # "0" leaves the process as it is
GUARD: Final = "PLAIT_TUNED"  # set in the process that was started over

_TUNABLE_OF: Final = {
    "MALLOC_MMAP_THRESHOLD_": "glibc.malloc.mmap_threshold",
    "MALLOC_TRIM_THRESHOLD_": "glibc.malloc.trim_threshold",
    "MALLOC_TOP_PAD_": "glibc.malloc.top_pad",
}
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@dataclass(frozen=True)
class AllocatorReport:
    """How this process allocates memory.

    Attributes:
        applies: whether the settings mean anything here (Linux with glibc).
        active: the settings in force, by variable.
        missing: those that are not, with the value plait would give them.
        huge_pages: the kernel's policy: "always", "madvise", "never", or None where unknown.
        advice: what to do, or an empty string when nothing is to be gained.
    """

    applies: bool
    active: Mapping[str, str]
    missing: Mapping[str, str]
    huge_pages: str | None
    advice: str


def is_glibc() -> bool:
    """Whether this process runs on Linux with the GNU C library."""
    if sys.platform != "linux":
        return False
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError):  # musl does not know the name
        return False


def missing_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that ``environ`` leaves open; what a user chose is never overruled."""
    tunables = environ.get("GLIBC_TUNABLES", "")
    return {
        name: value
        for name, value in SETTINGS.items()
        if name not in environ and _TUNABLE_OF.get(name, "\0") not in tunables
    }


def ensure_tuned() -> None:
    """Starts the process over, once, with the allocator settings in its environment.

    Only for a program's entry point. Does nothing when nothing is missing, off Linux and glibc,
    with ``PLAIT_TUNE=0``, or once torch is loaded (the process is then somebody else's, such as
    a notebook or a test run).
    """
    environ = os.environ
    if environ.get(OFF_SWITCH) == "0" or GUARD in environ or "torch" in sys.modules:
        return
    if not is_glibc() or not sys.executable or not (wanted := missing_settings(environ)):
        return
    command = [sys.executable, *sys.orig_argv[1:]]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(sys.executable, command, {**environ, **wanted, GUARD: "1"})
    except OSError as error:
        print(f"plait: memory settings not applied ({error}); going on", file=sys.stderr)


def without_tuning(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` for a small process beside this one, which shall give back what it frees.

    What `ensure_tuned` set is left out; what a user chose stays.
    """
    tuned = GUARD in environ
    return {
        name: value
        for name, value in environ.items()
        if not (tuned and SETTINGS.get(name) == value)
    }


def for_serving(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` for a server's worker: it keeps some freed memory, not all that a crowd took."""
    kept = without_tuning(environ)
    return kept if kept == dict(environ) else {**SERVING, **kept}


class _Mallinfo2(ctypes.Structure):
    """The C library's ``struct mallinfo2``."""

    _fields_: ClassVar = [(f"field{n}", ctypes.c_size_t) for n in range(8)] + [
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    ]


def give_back(least: int = 0) -> bool:
    """Gives the kernel the pages that the C library keeps though nothing is on them.

    Args:
        least: free bytes below which nothing is done, since they will be used again soon.

    Returns:
        whether it was done.
    """
    if not is_glibc():
        return False
    libc = ctypes.CDLL(None)
    if least and hasattr(libc, "mallinfo2"):  # since glibc 2.33
        libc.mallinfo2.restype = _Mallinfo2
        if libc.mallinfo2().fordblks < least:
            return False
    libc.malloc_trim(0)
    return True


def describe() -> AllocatorReport:
    """What `plait doctor` shows about memory allocation."""
    if not is_glibc():
        return AllocatorReport(False, {}, {}, None, "")
    missing = missing_settings(os.environ)
    active = {name: os.environ[name] for name in SETTINGS if name in os.environ}
    advice = ""
    if missing:
        pairs = " ".join(f"{name}={value}" for name, value in missing.items())
        advice = (
            "PyTorch runs faster with these set before Python starts "
            f"(the plait command sets them itself): {pairs}"
        )
    return AllocatorReport(True, active, missing, _huge_page_policy(), advice)


def _huge_page_policy() -> str | None:
    try:
        text = _HUGE_PAGES.read_text()
    except OSError:
        return None
    return text[text.find("[") + 1 : text.find("]")] if "[" in text else None
