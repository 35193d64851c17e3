"""Requests of which a fifth are broken, among valid ones, against `plait serve`.

Every valid request must be answered right (its rows against rows that were asked for alone before),
every broken one with 4xx and a reason, the worker must be the same process at the end with its
memory bounded, and /readyz must say ready.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).parent)]

from benchmarks._requests import BROKEN, EMBED, pictures, texts  # noqa: E402
from benchmarks._server import Caller, Running, serving  # noqa: E402

from _measure import machine, write_results  # noqa: E402

LEAST_COSINE = 0.9999  # between rows of one input, alone and among others
SHARE = 0.2


async def poison(server: Running, *, requests: int, callers: int, seed: int = 0) -> dict[str, Any]:
    """Sends them all; what came back.

    Args:
        server: to be asked.
        requests: in all.
        callers: at the same time.
        seed: of the order and of the contents.
    """
    rng = random.Random(seed)
    valid = [*texts(rng, 40), *pictures(rng, 16)]
    first = Caller(server.url)
    expected = []
    for one in valid:
        reply = await first.post(EMBED, {"input": one})
        assert reply.status == 200, reply.body
        expected.append(_rows(reply.json)[0])
    broken = int(requests * SHARE)
    names = [list(BROKEN)[i % len(BROKEN)] for i in range(broken)]
    plan: list[str | int] = [*names, *(rng.randrange(len(valid)) for _ in range(requests - broken))]
    rng.shuffle(plan)
    worker, memory = server.worker, server.memory
    faults: list[str] = []
    statuses: Counter[str] = Counter()
    peak = memory

    async def call(caller: Caller, step: str | int) -> None:
        nonlocal peak
        if isinstance(step, int):
            reply = await _patiently(caller, {"input": valid[step]})
            statuses[f"valid {reply.status}"] += 1
            if reply.status != 200:
                faults.append(f"a valid request got {reply.status}: {reply.body[:200]!r}")
            elif (cosine := float(_rows(reply.json)[0] @ expected[step])) < LEAST_COSINE:
                faults.append(f"input {step} came back with a cosine of {cosine}")
            return
        answer = await BROKEN[step](caller, rng)
        statuses[f"broken {answer.status if answer else 'left'}"] += 1
        if answer is None:
            return
        if not 400 <= answer.status < 500:
            faults.append(f"{step}: {answer.status} {answer.body[:200]!r}")
        elif step != "no HTTP" and not answer.json["error"]["message"]:
            faults.append(f"{step}: no reason")
        peak = max(peak, server.memory)

    async def work(steps: list[str | int]) -> None:
        caller = Caller(server.url)
        for step in steps:
            try:
                await call(caller, step)
            except (OSError, asyncio.IncompleteReadError) as error:
                faults.append(f"{step}: the connection broke: {error!r}")
        caller.close()

    start = time.perf_counter()
    await asyncio.gather(*(work(plan[i::callers]) for i in range(callers)))
    seconds = time.perf_counter() - start
    ready = await first.get("/readyz")
    first.close()
    if server.worker != worker:
        faults.append("the worker was replaced")
    return {
        "requests": requests,
        "broken": broken,
        "kinds": len(BROKEN),
        "callers": callers,
        "seconds": round(seconds, 1),
        "statuses": dict(sorted(statuses.items())),
        "faults": faults,
        "ready": ready.status == 200,
        "megabytes": {
            "before": round(memory / 1e6),
            "peak": round(peak / 1e6),
            "after": round(server.memory / 1e6),
        },
    }


async def _patiently(caller: Caller, value: Any) -> Any:
    """Tries again after 429, as clients do."""
    for _ in range(50):
        reply = await caller.post(EMBED, value)
        if reply.status != 429:
            break
        await asyncio.sleep(0.2)
    return reply


def _rows(answer: Any) -> list[np.ndarray]:
    return [np.array(entry["embedding"]) for entry in answer["data"]]


def _counts(statuses: Any, which: str) -> str:
    found = [(name.split(" ")[1], count) for name, count in statuses.items() if which in name]
    return ", ".join(f"{status}: {count}" for status, count in found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a bundle or a run")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    log = Path(tempfile.mkdtemp()) / "log"
    with serving(given.model, log=log) as server:
        result = asyncio.run(
            poison(server, requests=given.requests, callers=given.callers, seed=given.seed)
        )
    memory, statuses = result["megabytes"], result["statuses"]
    rows = [
        {"what": "valid requests", "found": _counts(statuses, "valid")},
        {"what": "broken requests", "found": _counts(statuses, "broken")},
        {"what": "wrong answers, or none", "found": len(result["faults"])},
        {"what": "ready at the end", "found": "yes" if result["ready"] else "no"},
        {
            "what": "memory of the worker, MB",
            "found": f"{memory['before']} before, {memory['peak']} at most, {memory['after']} after",
        },
    ]
    write_results(
        "poison",
        "Broken requests among valid ones",
        rows,
        about=(
            f"{result['requests']} requests by {result['callers']} callers at once, "
            f"{result['broken']} of them broken in {result['kinds']} ways "
            f"(benchmarks/_requests.py), in {result['seconds']} s."
        ),
        machine=machine("openvino"),
        notes=[
            "An answer is right when its row has a cosine of at least "
            f"{LEAST_COSINE} to the row of the same input asked for alone.",
            "499 in a server's log: the client left before its answer.",
        ],
        details=result,
    )
    for row in rows:
        print(f"{row['what']}: {row['found']}")
    for fault in result["faults"][:20]:
        print(fault)
    return 1 if result["faults"] or not result["ready"] else 0


if __name__ == "__main__":
    sys.exit(main())
