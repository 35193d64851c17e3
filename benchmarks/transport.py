"""IPOT against exact optimal transport: how far its plans are from the cheapest.

Problems are drawn with random numbers of words and regions, cut to them by masks in one padded
batch, with the cosine cost of random features of few dimensions (so that costs fill 0..2) and
uniform weights. The exact cost is that of the network simplex of POT.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import ot
import torch
from torch import Tensor

from _measure import machine, set_threads, write_results
from plait.objectives import cosine_cost, ipot

ITERATIONS = (10, 50, 200, 1000, 2000)
BARS = {50: 3e-3, 2000: 1e-4}
"""The mean gap must stay below these."""
LARGEST = 40
"""Words or regions of a problem; the smallest has two."""


def problems(count: int, width: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(count, N, M) float32 costs with their masks (count, N) and (count, M)."""
    generator = torch.Generator().manual_seed(seed)

    def side() -> tuple[Tensor, Tensor]:
        sizes = torch.randint(2, LARGEST + 1, (count, 1), generator=generator)
        features = torch.randn(count, LARGEST, width, generator=generator)
        return features, torch.arange(LARGEST)[None, :] < sizes

    (words, word_mask), (regions, region_mask) = side(), side()
    return cosine_cost(words, regions), word_mask, region_mask


def exact(cost: Tensor, rows: Tensor, columns: Tensor) -> np.ndarray:
    """(count,) least costs, each problem without its padding, in float64."""
    least = []
    for one, row, column in zip(cost, rows, columns, strict=True):
        part = one[row][:, column].double().numpy()
        weights = [np.full(size, 1 / size) for size in part.shape]
        least.append(float(ot.emd2(*weights, part)))
    return np.array(least)


def row_of(
    iterations: int, cost: Tensor, rows: Tensor, columns: Tensor, least: np.ndarray
) -> dict[str, Any]:
    start = time.process_time()
    plan = ipot(cost, rows, columns, iterations=iterations).double()
    seconds = time.process_time() - start
    real = rows[:, :, None] & columns[:, None, :]
    spent = (cost.double().masked_fill(~real, 0) * plan).sum(dim=(1, 2)).numpy()
    gap = np.abs(spent - least)
    wanted = rows / rows.sum(dim=1, keepdim=True)
    return {
        "iterations": iterations,
        "mean gap": float(gap.mean()),
        "largest gap": float(gap.max()),
        "mean gap wanted": BARS.get(iterations),
        "row sums off by": float((plan.sum(dim=2) - wanted).abs().max()),
        "on padding": float(plan.masked_fill(real, 0).abs().max()),
        "processor ms": 1000 * seconds,
    }


def main(count: int, width: int, seed: int) -> int:
    set_threads(1)
    cost, rows, columns = problems(count, width, seed)
    least = exact(cost, rows, columns)
    measured = [row_of(number, cost, rows, columns, least) for number in ITERATIONS]
    missed = [
        one
        for one in measured
        if one["mean gap wanted"] is not None and one["mean gap"] >= one["mean gap wanted"]
    ]
    shown = [
        {
            **one,
            "mean gap": f"{one['mean gap']:.1e}",
            "largest gap": f"{one['largest gap']:.1e}",
            "mean gap wanted": "" if one["mean gap wanted"] is None
            else f"< {one['mean gap wanted']:.0e}",
            "row sums off by": f"{one['row sums off by']:.1e}",
            "processor ms": round(one["processor ms"]),
        }
        for one in measured
    ]  # fmt: skip
    square = int((rows.sum(1) == columns.sum(1)).sum())
    write_results(
        "transport",
        "IPOT against exact optimal transport",
        shown,
        about=(
            f"{count} random problems of 2 to {LARGEST} words and regions ({count - square} of them "
            f"not square), one padded batch in float32, beta 0.5, one inner step; cosine costs of "
            f"random features of {width} dimensions, in {cost.min():.2f}..{cost.max():.2f}, uniform "
            "weights. Gap: absolute difference of the plan's cost from the exact one of POT's "
            f"network simplex, which is {least.mean():.3f} in the mean."
        ),
        machine=machine("POT", threads=1),
        notes=[
            "Column sums are exact to rounding by construction; row sums are not, so a plan may "
            "cost a little less than the exact one. Processor time is that of the whole batch.",
            "All means are below what was wanted." if not missed else "A mean is too large.",
        ],
        details={"measured": measured, "exact": least.tolist(), "seed": seed},
    )
    for one in shown:
        print(one)
    return 1 if missed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=50)
    parser.add_argument("--width", type=int, default=4, help="dimensions of the features")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    raise SystemExit(main(given.problems, given.width, given.seed))
