"""More requests than a server can answer: up to four times as many, a fifth of them broken.

The goodput of valid requests must not fall with the load, the latency of accepted ones must stay
bounded, the rest must be refused with 429, none may be lost or answered with another's rows, and
the worker's memory must stay flat.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).parent)]

from benchmarks._hostile import misdeeds  # noqa: E402
from benchmarks._requests import BROKEN, EMBED, pictures, texts  # noqa: E402
from benchmarks._server import Caller, Running, serving, settled  # noqa: E402
from benchmarks._wire import LEAST_COSINE, Rows, Tally, capacity, offered, run_cheaply, whole  # noqa: E402  # noqa: E402

from _measure import machine, write_results  # noqa: E402

PHOTOS = ((640, 480), (480, 640), (320, 240), (1024, 683))
LEAST_GOODPUT, LONGEST_P99 = 0.9, 3.0  # of the capacity; seconds, at the largest load


async def overload(
    server: Running,
    *,
    seconds: float,
    kind: str,
    factors: Sequence[float],
    poison: float,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measures what the server can do, then asks for each factor times as much.

    Args:
        server: to be asked.
        seconds: of each load.
        kind: of valid requests: ``images``, ``texts``, or ``mixed``.
        factors: of the load, as multiples of the capacity.
        poison: share of broken requests; the load counts them too.
        seed: of contents and order.
    """
    rng = random.Random(seed)
    inputs = {
        "texts": lambda: texts(rng, 64),
        "images": lambda: pictures(rng, 24, PHOTOS),
        "mixed": lambda: [*texts(rng, 40), *pictures(rng, 20, PHOTOS)],
    }[kind]()
    rng.shuffle(inputs)
    requests = [
        whole(EMBED, server.url, {"input": one, "encoding_format": "base64"}) for one in inputs
    ]
    await settled(server)
    rows = await Rows.alone(server.url, requests)
    await capacity(server.url, requests, seconds=min(5.0, seconds / 3))  # warm
    quiet = await capacity(server.url, requests, seconds=min(15.0, seconds), check=rows.right)
    found = []
    for factor in factors:
        rate = factor * quiet.goodput
        numbers, deeds = itertools.count(), misdeeds(server.url, BROKEN, rng)
        plan: list[Any] = []
        for _ in range(int(rate * seconds)):
            if rng.random() < poison:
                plan.append(next(deeds))
            else:
                number = next(numbers)
                plan.append((number, requests[number % len(requests)]))
        memory = [server.memory]
        watching = asyncio.create_task(_watch(server, memory))
        tally = await offered(server.url, plan, rate=rate, check=rows.right)
        watching.cancel()
        found.append(
            {
                "kind": kind,
                "load": f"{factor:g}x",
                "broken": f"{poison:.0%}",
                "capacity": round(quiet.goodput, 1),
                **_result(tally, quiet, memory),
                "ready": await _is_ready(server),
            }
        )
        print(json.dumps(found[-1]), flush=True)
        await asyncio.sleep(1.0)
    return found


async def _watch(server: Running, memory: list[int]) -> None:
    while True:
        await asyncio.sleep(1)
        memory.append(server.memory)


async def _is_ready(server: Running) -> bool:
    probe = Caller(server.url)
    ready = (await probe.get("/readyz")).status == 200
    probe.close()
    return ready


def _result(tally: Tally, quiet: Tally, memory: Sequence[int]) -> dict[str, Any]:
    third = max(1, len(memory) // 3)
    figures = tally.figures()
    return {
        "valid": figures.pop("valid"),
        "good per s": figures.pop("good per s"),
        "of capacity": round(tally.goodput / quiet.goodput, 3),
        **figures,
        "MB, first third": round(max(memory[:third]) / 1e6),
        "MB, last third": round(max(memory[-third:]) / 1e6),
        "statuses": dict(tally.statuses),
        "statuses of broken ones": dict(tally.hostile),
    }


def failed(row: dict[str, Any], *, largest: bool) -> list[str]:
    """Which bars a load missed."""
    found = [name for name in ("lost", "other", "wrong") if row[name]]
    if not row["ready"]:
        found.append("ready")
    if largest and row["of capacity"] < LEAST_GOODPUT:
        found.append("goodput")
    if row["p99, s"] is None or row["p99, s"] > LONGEST_P99:
        found.append("p99")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a bundle or a run")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each load")
    parser.add_argument("--kinds", default="mixed,images,texts")
    parser.add_argument("--factors", default="1,2,4", help="of the capacity")
    parser.add_argument("--poison", type=float, default=0.2, help="share of broken requests")
    given = parser.parse_args()
    factors = [float(factor) for factor in given.factors.split(",")]
    rows, missed = [], []
    for kind in given.kinds.split(","):
        with (
            tempfile.TemporaryDirectory() as scratch,
            serving(given.model, "--log-level", "warning", log=Path(scratch) / "log") as server,
        ):
            work = overload(
                server, seconds=given.seconds, kind=kind, factors=factors, poison=given.poison
            )
            found = run_cheaply(work)
        for row, factor in zip(found, factors, strict=True):
            missed += [
                f"{kind} {row['load']}: {bar}"
                for bar in failed(row, largest=factor == max(factors))
            ]
        rows += found
    columns = [name for name in rows[0] if not name.startswith("statuses")]
    write_results(
        "overload",
        "More requests than the server can answer",
        [{name: row[name] for name in columns} for row in rows],
        about=(
            f"Requests of one input each, evenly spaced at multiples of the measured capacity for "
            f"{given.seconds:g} s, {given.poison:.0%} of them broken in {len(BROKEN)} ways "
            "(benchmarks/_requests.py); latency from the moment a request was due. Capacity: valid "
            "requests alone, of 64 callers that each wait for their answer."
        ),
        machine=machine("openvino"),
        notes=[
            "The client runs on the machine that it loads and takes its share of the processor: "
            "the more, the higher the load. It is kept cheap (benchmarks/_wire.py).",
            "refused: 429 with Retry-After. lost: no answer after one retry. other: neither. "
            "wrong: not the rows of the input (cosine below "
            f"{LEAST_COSINE} to the same input asked for alone).",
            "Missed: " + (", ".join(missed) or "nothing") + ".",
        ],
        details={"runs": rows, "missed": missed},
    )
    print("missed:", ", ".join(missed) or "nothing")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
