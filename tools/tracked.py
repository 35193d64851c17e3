"""Refuses what does not belong into the repository: large files, and binaries outside their place.

python tools/tracked.py  # part of `make check`; exit code 1 and one line for each
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 1_000_000
"""Bytes of a tracked file."""
BINARIES = ("tests/", "docs/images/")
"""Where pictures and the like may be."""


def tracked(root: Path) -> list[str]:
    """Paths that git tracks under ``root``, relative to it.

    Raises:
        subprocess.CalledProcessError: it is no git repository.
    """
    names = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z"], check=True, capture_output=True
    ).stdout
    return [name for name in names.decode().split("\0") if name]


def faults(root: Path, names: Iterable[str]) -> list[str]:
    """One sentence for each file that must not be there."""
    found = []
    for name in names:
        path = root / name
        if path.is_symlink() or not path.is_file():
            continue  # git holds a link's target as text; a file that was deleted has no size
        content = path.read_bytes()
        if len(content) > LARGEST:
            found.append(f"{name}: {len(content):,} bytes; the limit is {LARGEST:,}")
        if not name.startswith(BINARIES) and binary(content):
            found.append(f"{name}: binary; these belong under {' or '.join(BINARIES)}")
    return found


def binary(content: bytes) -> bool:
    """Whether it is no text in UTF-8, or one with a NUL."""
    try:
        return "\0" in content.decode("utf-8")
    except UnicodeDecodeError:
        return True


def main(root: Path = ROOT) -> int:
    """Prints the faults; 1 if there are any."""
    found = faults(root, tracked(root))
    for fault in found:
        print(fault, file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
