"""What a fuzz target is, and how its findings and inputs are written down."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SECONDS = 2.0  # of the processor for one input
BLOCKED = 20.0  # seconds that one input may take by the clock: other processes want the cores too
MIB = 1 << 20


@dataclass(frozen=True)
class Target:
    """Code that takes bytes of strangers.

    Attributes:
        name: as the driver and the files of the corpus have it.
        run: gives it an input; what it may raise is in ``allowed``, anything else is a crash.
        seeds: well-formed inputs, made by code.
        allowed: exceptions that tell a sender what is wrong.
        words: of the format, for the mutator.
        repair: makes checksums right again, so that mutations come past them.
        longest: bytes of an input.
        memory: bytes that one input may add to the process.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    allowed: tuple[type[Exception], ...]
    words: Sequence[bytes] = ()
    repair: Callable[[bytes], bytes] | None = None
    longest: int = 4096
    memory: int = 256 * MIB


def kept(folder: str, name: str) -> list[bytes]:
    """The inputs of ``corpus`` or ``findings`` of a target: base64, one a line, ``#`` for remarks."""
    path = HERE / folder / f"{name}.txt"
    if not path.exists():
        return []
    lines = path.read_text(encoding="ascii").splitlines()
    return [base64.b64decode(line.partition("#")[0]) for line in lines if line[:1] != "#"]


def written(data: bytes) -> str:
    """An input as a line of those files."""
    return base64.b64encode(data).decode("ascii")
