"""A server under siege: twice its load, a fifth of it hostile, a worker killed and one stopped.

No valid request may be lost after one retry, its latency must stay near the quiet one, memory near
that of the start, /readyz true to the state, and a stopped worker must be replaced soon.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).parent)]

from benchmarks._hostile import EVERYTHING, misdeeds  # noqa: E402
from benchmarks._requests import EMBED, pictures, texts  # noqa: E402
from benchmarks._server import Running, head, serving, settled  # noqa: E402
from benchmarks._wire import (  # noqa: E402
    LEAST_COSINE,
    Broken,
    Rows,
    Tally,
    Wires,
    capacity,
    offered,
    run_cheaply,
    whole,
)

from _measure import machine, write_results  # noqa: E402

PHOTOS = ((640, 480), (480, 640), (320, 240), (1024, 683))
SHARE = 0.2  # of hostile requests
LOAD = 2.0  # times the capacity
KILLED, STOPPED = 0.3, 0.6  # of the way
TRUE_WITHIN, REPLACED_WITHIN = 2.0, 15.0  # seconds
MOST_MEMORY = 300e6  # bytes above those of the start
LONGEST = 3.0  # p99 as a multiple of the quiet one
_LOOK = 0.25  # seconds between two looks


@dataclass
class Outage:
    """A worker that was taken away.

    Attributes:
        what: was done to it.
        began: when.
        killed: when its process was gone.
        served: when the next one served, by the server's own words.
        ready: when /readyz first said so again.
    """

    what: str
    began: float
    killed: float | None = None
    served: float | None = None
    ready: float | None = None


@dataclass
class Watcher:
    """Looks at a server from outside while it is besieged.

    Attributes:
        server: that is watched.
        outages: that were caused, the latest last.
        lies: /readyz said 200 while there was no worker, or was silent or said no while there was
            one, for more than two seconds.
        looks: at /readyz, by answer.
        memory: bytes of all processes of the server, at each look.
        most: bytes and command of each process when they were most together.
        when: that was.
    """

    server: Running
    outages: list[Outage] = field(default_factory=list)
    lies: list[str] = field(default_factory=list)
    looks: Counter[str] = field(default_factory=Counter)
    memory: list[int] = field(default_factory=list)
    most: list[tuple[int, str]] = field(default_factory=list)
    when: float = 0.0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self) -> None:
        """Begins to look."""
        self._tasks = [asyncio.create_task(job()) for job in (self._probe, self._follow)]

    def end(self) -> None:
        """Ends to look."""
        for task in self._tasks:
            task.cancel()

    def strike(self, what: str, number: signal.Signals) -> None:
        """Sends the worker a signal."""
        worker = self.server.worker
        assert worker is not None
        self.outages.append(Outage(what, time.perf_counter()))
        os.kill(worker, number)
        asyncio.get_running_loop().create_task(self._gone(self.outages[-1], worker))

    async def _gone(self, outage: Outage, worker: int) -> None:
        while psutil.pid_exists(worker):
            await asyncio.sleep(0.05)
        outage.killed = time.perf_counter()

    @property
    def down(self) -> Outage | None:
        """The outage that lasts now."""
        return next((one for one in self.outages if one.served is None), None)

    async def _follow(self) -> None:
        while True:
            shares = memory_of(self.server.process.pid)
            if sum(size for size, _ in shares) > max(self.memory, default=0):
                self.most, self.when = shares, time.perf_counter()
            self.memory.append(sum(size for size, _ in shares))
            for outage in self.outages[: self.restarts]:
                outage.served = outage.served or time.perf_counter()
            await asyncio.sleep(_LOOK)

    async def _probe(self) -> None:
        """Each look has a connection of its own, as an orchestrator's has."""
        request = head("GET", "/readyz", self.server.url, None, {})
        while True:
            began, wires = time.perf_counter(), Wires(self.server.url)
            try:
                async with asyncio.timeout(TRUE_WITHIN):
                    status, _ = await wires.ask(request)
                said = str(status)
            except TimeoutError:
                said = "silent"
            except (OSError, Broken):
                said = "broken"
            wires.close()
            self._judge(said, began, time.perf_counter())
            await asyncio.sleep(_LOOK)

    def _judge(self, said: str, began: float, now: float) -> None:
        self.looks[said] += 1
        outage, last = self.down, self.outages[-1] if self.outages else None
        if said == "200":
            if last is not None and last.ready is None and outage is None:
                last.ready = now
            # The log is read a few times a second: it may have served since the last look.
            if (
                outage is not None
                and began - outage.began > TRUE_WITHIN
                and self.restarts <= self.outages.index(outage)
            ):
                self.lies.append(f"200, {began - outage.began:.1f} s after: {outage.what}")
        elif outage is None and (last is None or now - (last.served or now) > TRUE_WITHIN):
            self.lies.append(f"{said} after {now - began:.1f} s, while a worker serves")

    @property
    def restarts(self) -> int:
        """Workers that served after the first, by the server's own words."""
        text = self.server.log.read_text(encoding="utf-8", errors="replace")
        return text.count("serving again")


def memory_of(pid: int) -> list[tuple[int, str]]:
    """Resident bytes, without shared pages, of a process and all below it, with the command."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                sizes = process.memory_info()
                found.append((sizes.rss - sizes.shared, " ".join(process.cmdline())[-40:]))
    return found


def tree_memory(pid: int) -> int:
    """Resident bytes of a process and all below it, without what they share."""
    return sum(size for size, _ in memory_of(pid))


async def besiege(server: Running, *, requests: int, seed: int) -> dict[str, Any]:
    """Sends all requests; what came back."""
    rng = random.Random(seed)
    inputs = [*texts(rng, 40), *pictures(rng, 20, PHOTOS)]
    rng.shuffle(inputs)
    valid = [
        whole(EMBED, server.url, {"input": one, "encoding_format": "base64"}) for one in inputs
    ]
    await settled(server)
    rows = await Rows.alone(server.url, valid)
    await capacity(server.url, valid, seconds=3.0)  # warm
    most = await capacity(server.url, valid, seconds=8.0, check=rows.right)
    rate = LOAD * most.goodput
    # Quiet: as many valid requests a second as there will be, and nothing else.
    plan: list[Any] = [(n, valid[n % len(valid)]) for n in range(requests // 8)]
    quiet = await offered(server.url, plan, rate=(1 - SHARE) * rate, check=rows.right)
    await asyncio.sleep(2.0)

    kinds = misdeeds(server.url, EVERYTHING, rng)
    hostile = set(rng.sample(range(requests), int(SHARE * requests)))
    plan = [next(kinds) if n in hostile else (n, valid[n % len(valid)]) for n in range(requests)]
    watcher = Watcher(server)
    at_start = memory_of(server.process.pid)
    start = sum(size for size, _ in at_start)
    watcher.begin()
    began = time.perf_counter()
    seconds = requests / rate
    loop = asyncio.get_running_loop()
    loop.call_later(KILLED * seconds, watcher.strike, "killed", signal.SIGKILL)
    loop.call_later(STOPPED * seconds, watcher.strike, "stopped", signal.SIGSTOP)
    tally = await offered(server.url, plan, rate=rate, check=rows.right)
    await asyncio.sleep(3.0)
    watcher.end()
    return {
        "requests": requests,
        "hostile": len(hostile),
        "kinds": len(EVERYTHING),
        "capacity": round(most.goodput, 1),
        "rate": round(rate, 1),
        "seconds": round(tally.seconds, 1),
        "quiet": quiet.figures(),
        "siege": tally.figures(),
        "statuses": dict(tally.statuses),
        "statuses of hostile ones": dict(tally.hostile),
        "outages": [_told(outage) for outage in watcher.outages],
        "readyz": {"looks": dict(watcher.looks), "lies": watcher.lies},
        "memory": {
            "start": start,
            "worker": [max(size for size, _ in one) for one in (at_start, watcher.most)],
            "processes at the start": sorted(at_start, reverse=True),
            "peak": max(watcher.memory),
            "peak after, s": round(watcher.when - began, 1),
            "processes at the peak": sorted(watcher.most, reverse=True),
            "end": tree_memory(server.process.pid),
        },
        "faults": faults(quiet, tally, watcher, start),
    }


def _told(outage: Outage) -> dict[str, Any]:
    def after(when: float | None) -> float | None:
        return None if when is None else round(when - outage.began, 2)

    return {
        "what": outage.what,
        "gone after, s": after(outage.killed),
        "served again after, s": after(outage.served),
        "ready again after, s": after(outage.ready),
    }


def faults(quiet: Tally, tally: Tally, watcher: Watcher, start: int) -> list[str]:
    """Which bars were missed."""
    found = list(watcher.lies)
    for status, count in tally.statuses.items():
        if status not in ("200", "429"):
            found.append(f"{count} valid requests: {status}")
    if tally.wrong:
        found.append(f"{tally.wrong} wrong answers")
    for status, count in tally.hostile.items():
        if status == "500":
            found.append(f"{count} hostile requests: {status}")
    usual, most = quiet.latency(0.99), tally.latency(0.99)
    if usual is None or most is None or most > LONGEST * usual:
        found.append(f"p99 {most} s, quiet {usual} s")
    peak = max(watcher.memory) - start
    if peak > MOST_MEMORY:
        found.append(f"memory grew by {peak / 1e6:.0f} MB")
    if watcher.restarts > len(watcher.outages):
        found.append(f"the worker died {watcher.restarts - len(watcher.outages)} more times")
    for outage in watcher.outages:
        if outage.served is None or outage.served - outage.began > REPLACED_WITHIN:
            found.append(f"the worker that was {outage.what} was not replaced in time")
        elif outage.ready is None or outage.ready - outage.served > TRUE_WITHIN:
            found.append(f"/readyz was late after a worker was {outage.what}")
    return found


def table(result: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """The bars, and what was found."""
    siege, quiet, memory = result["siege"], result["quiet"], result["memory"]
    rows = [
        ("valid requests", siege["valid"], ""),
        (
            "answered, refused with 429",
            f"{result['statuses'].get('200', 0)}, {siege['refused']}",
            "",
        ),
        ("lost after one retry, other answers", f"{siege['lost']}, {siege['other']}", "0, 0"),
        ("wrong rows", siege["wrong"], "0"),
        ("valid requests that needed their retry", siege["retried"], ""),
        ("good a second; quiet", f"{siege['good per s']}; {quiet['good per s']}", ""),
        ("p50, s; quiet", f"{siege['p50, s']}; {quiet['p50, s']}", ""),
        ("p99, s; quiet", f"{siege['p99, s']}; {quiet['p99, s']}", f"{LONGEST:g} times the quiet"),
        (
            "memory of all processes, MB: start, peak, end",
            ", ".join(f"{memory[name] / 1e6:.0f}" for name in ("start", "peak", "end")),
            f"start + {MOST_MEMORY / 1e6:.0f}",
        ),
        (
            "of these the worker, MB: start, then",
            ", ".join(f"{size / 1e6:.0f}" for size in memory["worker"]),
            "",
        ),
        ("/readyz untrue for more than 2 s", len(result["readyz"]["lies"]), "0"),
    ]
    for outage in result["outages"]:
        rows.append(
            (
                f"worker {outage['what']}: served, ready again after, s",
                f"{outage['served again after, s']}, {outage['ready again after, s']}",
                f"{REPLACED_WITHIN:g}, {TRUE_WITHIN:g} later",
            )
        )
    return [{"what": what, "found": found, "bar": bar} for what, found, bar in rows]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a bundle or a run")
    parser.add_argument("--index", help="an index to search, for hostile filters")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    options = ["--log-level", "warning", *(("--index", given.index) if given.index else ())]
    with (
        tempfile.TemporaryDirectory() as scratch,
        serving(given.model, *options, log=Path(scratch) / "log") as server,
    ):
        result = run_cheaply(besiege(server, requests=given.requests, seed=given.seed))
    rows = table(result)
    write_results(
        "siege",
        "A server under siege",
        rows,
        about=(
            f"{result['requests']:,} requests of one input each at {LOAD:g} times the capacity of "
            f"{result['capacity']} a second, {result['hostile']:,} of them hostile in "
            f"{result['kinds']} ways (benchmarks/_requests.py, benchmarks/_hostile.py); on the way "
            "the worker was killed (SIGKILL) and, later, stopped (SIGSTOP). Quiet: the same rate of "
            "valid requests alone. Latency from the moment a request was due."
        ),
        machine=machine("openvino"),
        notes=[
            "At twice the capacity about half must be refused with 429: that is an answer. Lost: "
            "the connection ended without one, twice.",
            "The client runs on the machine that it loads, from one address, and is kept cheap "
            "(benchmarks/_wire.py).",
            "Memory: resident without shared pages, of the parent, the worker, the spare and their "
            f"children. A row is right with a cosine of at least {LEAST_COSINE} to that of the same "
            "input asked for alone.",
            "Missed: " + ("; ".join(result["faults"]) or "nothing") + ".",
        ],
        details=result,
    )
    for row in rows:
        print(f"{row['what']}: {row['found']}" + (f" (bar: {row['bar']})" if row["bar"] else ""))
    print(json.dumps(result["statuses of hostile ones"]))
    for fault in result["faults"][:20]:
        print("missed:", fault)
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
