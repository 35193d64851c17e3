"""`plait serve` against an earlier plait: requests a second of the same bundle, in turns.

Tells whether a change of the server costs throughput, on whatever machine it is asked. The earlier
sources are a checkout of their own; both run in this environment:

    git worktree add OLD COMMIT
    python benchmarks/server_before.py BUNDLE --before OLD/src --rounds 5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).parent)]

from benchmarks._requests import EMBED, pictures, texts  # noqa: E402
from benchmarks._server import serving  # noqa: E402
from benchmarks.server import CALLERS, KINDS, SIZES, Side, agreement, capacity  # noqa: E402

from _measure import machine, write_results  # noqa: E402

NOW = Path(__file__).resolve().parents[1] / "src"
LEAST_COSINE = 0.999


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="of a model named clip")
    parser.add_argument("--before", type=Path, required=True, help="the earlier sources")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    given = parser.parse_args()
    scratch = Path(tempfile.mkdtemp())
    rng = random.Random(0)
    inputs = {"images": pictures(rng, 48, SIZES), "texts": texts(rng, 256)}
    quiet = ("--log-level", "warning")
    before = {"PYTHONPATH": str(given.before.resolve())}
    now = {"PYTHONPATH": str(NOW)}
    with (
        serving(given.bundle, *quiet, log=scratch / "before.log", environ=before) as old,
        serving(given.bundle, *quiet, log=scratch / "now.log", environ=now) as new,
    ):
        sides = [Side("before", old.url, EMBED), Side("now", new.url, EMBED)]
        same = asyncio.run(agreement(sides, {k: v[:12] for k, v in inputs.items()}))
        found = asyncio.run(capacity(sides, inputs, rounds=given.rounds, seconds=given.seconds))
    good = {k: {n: [f["good per s"] for f in fs] for n, fs in found[k].items()} for k in KINDS}
    middle = {k: {n: statistics.median(v) for n, v in by.items()} for k, by in good.items()}
    ratios = {k: round(by["now"] / by["before"], 3) for k, by in middle.items()}
    rows = [
        {
            "what": kind,
            "server": name,
            "good per s": middle[kind][name],
            "least": min(good[kind][name]),
            "most": max(good[kind][name]),
            "p99, ms": statistics.median(f["p99, ms"] for f in found[kind][name]),
        }
        for kind in KINDS
        for name in ("before", "now")
    ]
    write_results(
        "server_before",
        "plait serve before and after its walls",
        rows,
        about=(
            f"The same bundle (CLIP ViT-B/32), {CALLERS} callers with one input a request, medians "
            f"of {given.rounds} rounds of {given.seconds:g} s in turns, client on the same machine."
        ),
        machine=machine("openvino"),
        notes=[
            *(f"{kind}: now {ratio} of before" for kind, ratio in ratios.items()),
            f"Least cosine between the two servers' rows of an input: {same}.",
        ],
        details={"ratios": ratios, "rounds": good},
    )
    print(json.dumps(ratios))
    return 0 if min(same.values()) >= LEAST_COSINE else 1


if __name__ == "__main__":
    sys.exit(main())
