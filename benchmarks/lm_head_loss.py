"""The loss of a language model's head against all logits at a time: peak memory and time.

    python benchmarks/lm_head_loss.py            writes results/lm_head_loss.{json,md}
    python benchmarks/lm_head_loss.py --chunks   compares numbers of rows, writes nothing

Both sides get the same leaves (hidden states and the head's weight) and compute the gradients of
both, which the benchmark compares as well. The plain side is PyTorch's own: a linear layer, then
cross_entropy.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from _measure import (
    TUNED_ALLOCATOR,
    in_own_process,
    machine,
    peak_above,
    ratio,
    set_threads,
    summary,
    turns,
    write_results,
)

THREADS = 2
TOKENS, VOCABULARY, WIDTH = 8192, 50_257, 768
MIB = 2**20
SIDES = ("plait", "all logits")


def leaves(tokens: int, vocabulary: int, frozen: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states of unit variance, the head as GPT-2 starts it, and labels of text."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, WIDTH, generator=generator).requires_grad_()
    weight = torch.randn(vocabulary, WIDTH, generator=generator).mul_(0.02)
    labels = torch.randint(vocabulary, (tokens,), generator=generator)
    return hidden, weight.requires_grad_(not frozen), labels


def step(
    side: str, hidden: Tensor, weight: Tensor, labels: Tensor, **options: Any
) -> Callable[[], Tensor]:
    """A forward and backward pass of one side."""
    from plait.objectives import linear_cross_entropy

    def all_logits(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(hidden, weight), labels)

    function = linear_cross_entropy if side == "plait" else all_logits

    def run() -> Tensor:
        hidden.grad = weight.grad = None
        value = function(hidden, weight, labels, **options)
        value.backward()
        return value.detach()

    return run


def measure_memory(side: str, frozen: bool) -> dict[str, float]:
    """Peak memory of one step over its inputs; to be called in a process of its own."""
    inputs = leaves(TOKENS, VOCABULARY, frozen)
    step(side, *leaves(64, 512, frozen))()  # loads code and starts threads
    return {"above_mib": peak_above(step(side, *inputs)) / MIB}


def measure_time(frozen: bool, rounds: int) -> dict[str, Any]:
    """Seconds of both sides taking turns, and how far their values and gradients differ.

    Then processor seconds on one thread, which other programs on the machine hardly touch.
    """
    inputs = leaves(TOKENS, VOCABULARY, frozen)
    sides = {side: step(side, *inputs) for side in SIDES}
    found = {}
    for side, run in sides.items():
        value = run()
        found[side] = [value, *(leaf.grad for leaf in inputs[:2] if leaf.grad is not None)]
    differences = [
        float((one - other).abs().max() / other.abs().max())
        for one, other in zip(found["plait"], found["all logits"], strict=True)
    ]
    found.clear()
    seconds = turns(sides, rounds=rounds)
    set_threads(1)
    work = turns(sides, rounds=3, warm_up=0, clock=time.process_time)
    return {
        **{side: summary(seconds[side]) for side in SIDES},
        "ratio": ratio(seconds, *SIDES),
        "processor seconds on one thread": {side: summary(each) for side, each in work.items()},
        "processor ratio": ratio(work, *SIDES),
        "largest relative difference": max(differences),
    }


def compare_chunks(rounds: int) -> None:
    """Prints seconds for several numbers of rows at a time."""
    inputs = leaves(2048, VOCABULARY, False)
    sides = {str(rows): step("plait", *inputs, chunk=rows) for rows in (128, 256, 512, 1024, 2048)}
    sides["all logits"] = step("all logits", *inputs)
    for name, seconds in turns(sides, rounds=rounds).items():
        print(f"{name:>10} rows {summary(seconds)}", flush=True)


def row_of(frozen: bool, rounds: int, tuned: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row of the table, and what was measured for it."""
    environment = TUNED_ALLOCATOR if tuned else None

    def alone(*arguments: str) -> Any:
        return in_own_process(
            __file__, [*arguments, *(["--frozen"] if frozen else [])], environment
        )

    took = alone("--time", "--rounds", str(rounds))
    memory = {side: alone("--memory", side)["above_mib"] for side in SIDES}
    row = {
        "head": "frozen" if frozen else "learns",
        "allocator": "tuned" if tuned else "default",
        "plait, MiB": round(memory["plait"]),
        "all logits, MiB": round(memory["all logits"]),
        "memory, ratio": round(memory["plait"] / memory["all logits"], 3),
        "plait, s": round(took["plait"]["median"], 2),
        "all logits, s": round(took["all logits"]["median"], 2),
        "time, ratio": round(took["ratio"], 2),
        "processor time on one thread, ratio": round(took["processor ratio"], 2),
        "gradients differ by": f"{took['largest relative difference']:.0e}",
    }
    return row, {"frozen": frozen, "tuned": tuned, "time": took, "memory": memory}


def main(rounds: int) -> None:
    """Measures and writes all rows."""
    measured = []
    for frozen, tuned in ((False, False), (True, False), (False, True)):
        measured.append(row_of(frozen, rounds, tuned))
        print(measured[-1][0], flush=True)
    write_results(
        "lm_head_loss",
        "The loss of a language model's head, by rows or of all logits",
        [row for row, _ in measured],
        about=(
            f"Forward and backward of {TOKENS:,} tokens, {VOCABULARY:,} words, {WIDTH} features, "
            "float32; all logits: a linear layer and PyTorch's cross_entropy. Memory: growth of "
            "the process at its peak over the inputs, gradients included, each side in a process "
            f"of its own. Time: median of {rounds} turns after a warm-up, the sides taking turns "
            "in one process; the ratio is the median over turns. Busy neighbours (see the load "
            "average) blur the ratio of times; processor time on one thread is all but free of them."
        ),
        machine=machine(threads=THREADS),
        notes=[
            f"One matrix of all logits takes {TOKENS * VOCABULARY * 4 / MIB:,.0f} MiB, the "
            f"gradients {(TOKENS + VOCABULARY) * WIDTH * 4 / MIB:,.0f} MiB.",
            "frozen: only the hidden states need a gradient, as beside a frozen language model.",
            "tuned: both sides with " + " ".join(f"{k}={v}" for k, v in TUNED_ALLOCATOR.items()),
        ],
        details={"measured": [detail for _, detail in measured]},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunks", action="store_true", help="compare numbers of rows")
    parser.add_argument("--memory", choices=SIDES)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--frozen", action="store_true", help="the head needs no gradient")
    given = parser.parse_args()
    set_threads(THREADS)
    if given.chunks:
        compare_chunks(given.rounds)
    elif given.memory:
        print(json.dumps(measure_memory(given.memory, given.frozen)))
    elif given.time:
        print(json.dumps(measure_time(given.frozen, given.rounds)))
    else:
        main(given.rounds)
