"""Contrastive losses, forward and backward, against open_clip's: peak memory and time.

    python benchmarks/contrastive_loss.py            writes results/contrastive_loss.{json,md}
    python benchmarks/contrastive_loss.py --tiles    compares shapes of tiles, writes nothing

Both sides get the same leaves (features and scale, and bias for the sigmoid), so that both compute
the same gradients, which the benchmark compares as well.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from _measure import (
    TUNED_ALLOCATOR,
    in_own_process,
    machine,
    peak_above,
    peak_total,
    ratio,
    set_threads,
    summary,
    turns,
    write_results,
)

THREADS = 2
ROWS, WIDTH, LARGE = 8192, 512, 65_536
MIB = 2**20
# name of the case: (loss, scale, bias)
CASES: dict[str, tuple[str, float, float | None]] = {
    "InfoNCE": ("info_nce", 1 / 0.07, None),
    "InfoNCE, scale at its clamp": ("info_nce", 100.0, None),
    "sigmoid": ("sigmoid", 10.0, -10.0),
    "sigmoid, scale of a trained model": ("sigmoid", 117.0, -12.9),
}

BOTH = ("InfoNCE", "sigmoid")  # with either allocator and both sizes
SIZES = (4096, ROWS)


def leaves(rows: int, scale: float, bias: float | None) -> list[Tensor]:
    """Pairs of unit rows that resemble one another, scale and bias; all of them learn."""
    generator = torch.Generator().manual_seed(0)
    left, noise = (torch.randn(rows, WIDTH, generator=generator) for _ in range(2))
    right = normalize(left + 8 * noise, dim=1)  # cosine about 0.12
    numbers = [torch.tensor(scale)] + ([] if bias is None else [torch.tensor(bias)])
    return [tensor.requires_grad_() for tensor in (normalize(left, dim=1), right, *numbers)]


def step(side: str, loss: str, inputs: list[Tensor], **options: Any) -> Callable[[], Tensor]:
    """A forward and backward pass of one side."""
    from open_clip.loss import ClipLoss, SigLipLoss

    from plait.objectives import info_nce, sigmoid_loss

    ours = {"info_nce": info_nce, "sigmoid": sigmoid_loss}
    theirs = {"info_nce": ClipLoss(), "sigmoid": SigLipLoss()}
    function = ours[loss] if side == "plait" else theirs[loss]

    def run() -> Tensor:
        for tensor in inputs:
            tensor.grad = None
        value = function(*inputs, **options)
        value.backward()
        return value.detach()

    return run


def measure_memory(side: str, case: str, rows: int) -> dict[str, float]:
    """Peak memory of one step; to be called in a process of its own."""
    loss, scale, bias = CASES[case]
    inputs = leaves(rows, scale, bias)
    step(side, loss, leaves(64, scale, bias))()  # loads code and starts threads
    before = peak_total()
    seconds: list[float] = []

    def run() -> None:
        seconds.extend(turns({side: step(side, loss, inputs)}, rounds=1, warm_up=0)[side])

    above = peak_above(run)
    return {
        "above_mib": above / MIB,
        "total_mib": max(before, peak_total()) / MIB,
        **summary(seconds),
    }


def measure_time(case: str, rounds: int, batch: int) -> dict[str, Any]:
    """Seconds of both sides taking turns, and how far their values and gradients differ.

    Then processor seconds on one thread, which other programs on the machine hardly touch.
    """
    loss, scale, bias = CASES[case]
    inputs = leaves(batch, scale, bias)
    gradients = {}
    sides = {}
    for side in ("open_clip", "plait"):
        sides[side] = step(side, loss, inputs)
        value = sides[side]()
        gradients[side] = [value, *(tensor.grad for tensor in inputs)]
    differences = [
        float((one - other).abs().max() / other.abs().max())
        for one, other in zip(gradients["plait"], gradients["open_clip"], strict=True)
    ]
    seconds = turns(sides, rounds=rounds)
    set_threads(1)
    work = turns(sides, rounds=max(3, rounds // 2), clock=time.process_time)
    return {
        "plait": summary(seconds["plait"]),
        "open_clip": summary(seconds["open_clip"]),
        "ratio": ratio(seconds, "plait", "open_clip"),
        "processor seconds on one thread": {side: summary(each) for side, each in work.items()},
        "processor ratio": ratio(work, "plait", "open_clip"),
        "largest relative difference": max(differences),
    }


def compare_tiles(rounds: int) -> None:
    """Prints seconds for several shapes of tiles."""
    shapes = [(r, c) for r in (256, 512, 1024, 2048) for c in (256, 512, 1024, 2048)]
    for case in BOTH:
        loss, scale, bias = CASES[case]
        inputs = leaves(4096, scale, bias)
        sides = {str(shape): step("plait", loss, inputs, tile=shape) for shape in shapes}
        for name, seconds in turns(sides, rounds=rounds).items():
            print(f"{case:10} tile {name:14} {summary(seconds)}", flush=True)


def alone(*arguments: object, tuned: bool = False) -> Any:
    return in_own_process(__file__, [str(a) for a in arguments], TUNED_ALLOCATOR if tuned else None)


def row_of(
    case: str, batch: int, rounds: int, tuned: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row of the table, and what was measured for it."""
    took = alone("--time", case, "--batch", batch, "--rounds", rounds, tuned=tuned)
    memory = {
        side: alone("--memory", side, case, batch, tuned=tuned) for side in ("plait", "open_clip")
    }
    times_less = memory["open_clip"]["above_mib"] / memory["plait"]["above_mib"]
    row = {
        "loss": case,
        "B": batch,
        "allocator": "tuned" if tuned else "default",
        "plait, MiB": round(memory["plait"]["above_mib"]),
        "open_clip, MiB": round(memory["open_clip"]["above_mib"]),
        "times less memory": round(times_less, 1),
        "plait, s": round(took["plait"]["median"], 2),
        "open_clip, s": round(took["open_clip"]["median"], 2),
        "time, ratio": round(took["ratio"], 2),
        "processor time on one thread, ratio": round(took["processor ratio"], 2),
        "gradients differ by": f"{took['largest relative difference']:.0e}",
    }
    return row, {"case": case, "B": batch, "tuned": tuned, "time": took, "memory": memory}


def main(rounds: int, cases: list[str]) -> None:
    measured = []
    both = [(case, size, tuned) for tuned in (False, True) for size in SIZES for case in BOTH]
    others = [(case, ROWS, False) for case in CASES if case not in BOTH]
    for case, size, tuned in [each for each in both + others if each[0] in cases]:
        measured.append(row_of(case, size, rounds, tuned))
        print(measured[-1][0], flush=True)
    large = {case: alone("--memory", "plait", case, LARGE) for case in BOTH}
    notes = [
        f"{case}, B = {LARGE:,}: {one['total_mib'] / 1024:.2f} GiB of the whole process at its "
        f"peak ({one['above_mib']:.0f} MiB above the inputs), {one['median']:.0f} s. "
        f"One matrix of logits would take {LARGE**2 * 4 / 2**30:.0f} GiB."
        for case, one in large.items()
    ]
    notes.append(f"InfoNCE of uninformative embeddings would be ln({ROWS}) = {math.log(ROWS):.2f}.")
    notes.append(
        "tuned: both sides with " + " ".join(f"{k}={v}" for k, v in TUNED_ALLOCATOR.items())
    )
    write_results(
        "contrastive_loss",
        "Contrastive losses against open_clip",
        [row for row, _ in measured],
        about=(
            f"Forward and backward of features, scale and bias, D = {WIDTH}, float32. "
            "Memory: growth of the process at its peak over the inputs, each side in a process of "
            f"its own. Time: median of {rounds} turns, the sides taking turns in one process; the "
            "ratio is the median over turns. Busy neighbours (see the load average) slow both sides "
            "and blur the ratio of times; processor time on one thread is all but free of them."
        ),
        machine=machine("open_clip_torch", threads=THREADS),
        notes=notes,
        details={"measured": [detail for _, detail in measured], "large": large},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--tiles", action="store_true", help="compare shapes of tiles")
    parser.add_argument("--memory", nargs=3, metavar=("SIDE", "CASE", "ROWS"))
    parser.add_argument("--time", metavar="CASE")
    parser.add_argument("--batch", type=int, default=ROWS, help="pairs, with --time")
    given = parser.parse_args()
    set_threads(THREADS)
    if given.tiles:
        compare_tiles(given.rounds)
    elif given.memory:
        side, case, rows = given.memory
        print(json.dumps(measure_memory(side, case, int(rows))))
    elif given.time:
        print(json.dumps(measure_time(given.time, given.rounds, given.batch)))
    else:
        assert Path(__file__).parent.name == "benchmarks"
        main(given.rounds, given.cases)
