"""Requests that try to take a server down, beyond the broken ones of `benchmarks._requests`."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from benchmarks._requests import Broken
from benchmarks._server import Caller
from benchmarks._wire import Misdeed


def misdeeds(url: str, kinds: Mapping[str, Broken], rng: random.Random) -> Iterator[Misdeed]:
    """Misdeeds of all kinds in turn, without an end, over connections that are kept."""
    idle: list[Caller] = []
    while True:
        for kind in kinds.values():

            async def deed(kind: Broken = kind) -> int | None:
                caller = idle.pop() if idle else Caller(url)
                reply = await kind(caller, rng)
                idle.append(caller)  # one that broke is not kept
                return None if reply is None else reply.status

            yield deed
