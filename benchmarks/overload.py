"""Twice as many requests as a server can answer, for a minute.

The latency of accepted requests must stay bounded, the rest must be refused with 429, none may be
lost or answered with another's rows, and the worker's memory must stay flat.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).parent)]

from benchmarks._load import Load, at_rate, closed, embedding_sender  # noqa: E402
from benchmarks._requests import EMBED, pictures, texts  # noqa: E402
from benchmarks._server import Caller, Reply, Running, serving  # noqa: E402

from _measure import machine, write_results  # noqa: E402

LEAST_COSINE = 0.9999
PHOTOS = ((640, 480), (480, 640), (320, 240), (1024, 683))


async def overload(
    server: Running, *, seconds: float, kind: str, factor: float = 2.0, seed: int = 0
) -> dict[str, Any]:
    """Measures what the server can do, then asks for ``factor`` times as much."""
    rng = random.Random(seed)
    inputs = texts(rng, 64) if kind == "texts" else pictures(rng, 24, PHOTOS)
    bodies = [json.dumps({"input": one, "encoding_format": "float"}).encode() for one in inputs]
    expected = await _alone(server, bodies)

    def right(number: int, reply: Reply) -> bool:
        row = np.array(reply.json["data"][0]["embedding"])
        return float(row @ expected[number % len(bodies)]) >= LEAST_COSINE

    send = embedding_sender(EMBED, bodies)
    await closed(server.url, send, callers=16, seconds=min(3.0, seconds / 4))  # warm
    capacity = await closed(server.url, send, callers=32, seconds=min(10.0, seconds / 3))
    rate = len(capacity.latencies) / capacity.seconds
    memory = [server.memory]

    async def watch() -> None:
        while True:
            await asyncio.sleep(1)
            memory.append(server.memory)

    watching = asyncio.create_task(watch())
    load = await at_rate(server.url, send, rate=factor * rate, seconds=seconds, check=right)
    watching.cancel()
    probe = Caller(server.url)
    ready = (await probe.get("/readyz")).status == 200
    probe.close()
    return {"kind": kind, "capacity": round(rate, 1), **_result(load, memory), "ready": ready}


async def _alone(server: Running, bodies: Sequence[bytes]) -> list[np.ndarray]:
    caller, rows = Caller(server.url), []
    for body in bodies:
        reply = await caller.send("POST", EMBED, body)
        assert reply.status == 200, reply.body
        rows.append(np.array(reply.json["data"][0]["embedding"]))
    caller.close()
    return rows


def _result(load: Load, memory: Sequence[int]) -> dict[str, Any]:
    third = max(1, len(memory) // 3)
    return {
        **load.figures(),
        "answers": sum(load.statuses.values()),
        "statuses": dict(load.statuses),
        "MB, first third": round(max(memory[:third]) / 1e6),
        "MB, last third": round(max(memory[-third:]) / 1e6),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a bundle or a run")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kinds", default="images,texts")
    given = parser.parse_args()
    rows, failed = [], False
    for kind in given.kinds.split(","):
        with (
            tempfile.TemporaryDirectory() as scratch,
            serving(given.model, "--log-level", "warning", log=Path(scratch) / "log") as server,
        ):
            found = asyncio.run(overload(server, seconds=given.seconds, kind=kind))
        rows.append(found)
        print(json.dumps(found))
        lost = found["sent"] - found["answers"]
        failed = failed or bool(lost or found["wrong"] or found["other"]) or not found["ready"]
    columns = [name for name in rows[0] if name not in ("answers", "statuses")]
    write_results(
        "overload",
        "Twice as many requests as the server can answer",
        [{name: row[name] for name in columns} for row in rows],
        about=(
            f"Requests of one input each, evenly spaced at twice the measured capacity for "
            f"{given.seconds:g} s; latency from the moment a request was due. Client on the same "
            "machine."
        ),
        machine=machine("openvino"),
        notes=[
            "refused: 429 with Retry-After. other: neither answered nor refused. wrong: not the "
            f"rows of the input (cosine below {LEAST_COSINE} to the same input asked for alone).",
        ],
        details={"runs": rows},
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
