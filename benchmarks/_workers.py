"""Sides of a comparison that need a process each, because settings are read when one starts.

The parent tells one worker at a time to run, so that the sides take turns and never share the
processor; a worker waits on its standard input meanwhile.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plait.core.allocator import GUARD, OFF_SWITCH, SETTINGS


def default_environment() -> dict[str, str]:
    """This process's environment without plait's allocator settings."""
    return {k: v for k, v in os.environ.items() if k not in (*SETTINGS, GUARD, OFF_SWITCH)}


def tuned_environment() -> dict[str, str]:
    """The environment in which plait's commands run (see `plait.core.allocator`)."""
    return {**default_environment(), **SETTINGS, GUARD: "1"}


class Worker:
    """A process that runs ``script --worker NAME ...`` and answers requests with JSON lines."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, sys.argv[0], "--worker", name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
        )

    def ask(self, request: str) -> Any:
        """The worker's answer to one request."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"worker {self.name} ended with code {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the worker."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(answers: Mapping[str, Callable[[], Any]]) -> None:
    """The worker's side: answers requests from standard input until it is closed."""
    # Libraries print; the parent reads JSON alone.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), file=out, flush=True)


def take_turns(workers: Sequence[Worker], request: str, rounds: int) -> dict[str, list[Any]]:
    """Answers of each worker in each round; in a round they run one after the other."""
    found: dict[str, list[Any]] = {worker.name: [] for worker in workers}
    for number in range(rounds):
        for worker in workers:
            found[worker.name].append(worker.ask(request))
            print(
                f"round {number + 1}/{rounds} {worker.name}: {found[worker.name][-1]}", flush=True
            )
    return found


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over rounds of our rate divided by theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
