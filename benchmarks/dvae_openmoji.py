"""The discrete VAE on drawn emoji: how well unseen ones are rebuilt, and how many codes are used.

    python benchmarks/dvae_openmoji.py                 # the figures of docs/systems/dall-e.md
    python benchmarks/dvae_openmoji.py --steps 200     # to see that it learns

Trains on the training emoji of `openmoji`, 64 pixels, and writes
benchmarks/results/dvae_openmoji.json and .md, and a picture of unseen emoji above their
reconstructions.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from _measure import RESULTS, machine, set_threads, write_results
from plait.modalities.image.preprocess import ImagePreprocess
from plait.models.drawing.codebook import annealed, code_use
from plait.models.drawing.dvae import DiscreteVAE

BAR = 0.5
"""The least share of the codebook that the pictures must use."""
SHOWN = 16


@dataclass(frozen=True)
class Plan:
    """What a run does. ``temperature``: at its end, from 1 at its start."""

    steps: int
    batch: int
    rate: float
    temperature: float
    kl: float
    balance: float
    seed: int


def emoji_pixels(size: int) -> dict[str, Tensor]:
    """By split, uint8 (B, 3, size, size)."""
    from plait.data.open.open import open_dataset
    from plait.modalities.image.fast_decode import load_pixels

    dataset = open_dataset("openmoji")
    preprocess = ImagePreprocess(size=size, resize="pad")
    found = {}
    for split in ("train", "test"):
        refs = [one.image for one in dataset.split(split) if one.image is not None]
        found[split] = torch.from_numpy(load_pixels(refs, preprocess))
    return found


def augmented(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the pictures mirrored, all moved by up to 4 pixels; white comes in."""
    flip = torch.rand(len(pixels), generator=generator) < 0.5
    pixels = torch.where(flip[:, None, None, None], pixels.flip(3), pixels)
    moved = torch.full_like(pixels, 255)
    side = pixels.shape[3]
    steps = torch.randint(-4, 5, (len(pixels), 2), generator=generator).tolist()
    for i, (down, right) in enumerate(steps):
        (to_y, of_y), (to_x, of_x) = shift(down, side), shift(right, side)
        moved[i, :, to_y, to_x] = pixels[i, :, of_y, of_x]
    return moved


def shift(by: int, side: int) -> tuple[slice, slice]:
    """Where to, and where from, when ``side`` pixels move ``by``."""
    return slice(max(by, 0), side + min(by, 0)), slice(max(-by, 0), side - max(by, 0))


def train(model: DiscreteVAE, pixels: Tensor, plan: Plan) -> float:
    """Seconds it took."""
    generator = torch.Generator().manual_seed(plan.seed)
    torch.manual_seed(plan.seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=plan.rate, weight_decay=1e-4)
    begin = time.perf_counter()
    for step in range(plan.steps):
        optimiser.param_groups[0]["lr"] = annealed(step, plan.steps, plan.rate, plan.rate / 20)
        chosen = torch.randint(len(pixels), (plan.batch,), generator=generator)
        # The last quarter runs at the lowest temperature: that is how codes are read.
        heat = annealed(step, 3 * plan.steps // 4, 1.0, plan.temperature)
        warm = plan.kl * min(1.0, 4 * step / plan.steps)
        out = model(augmented(pixels[chosen], generator), heat, warm, balance_weight=plan.balance)
        optimiser.zero_grad(set_to_none=True)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 0 or step == plan.steps - 1:
            print(
                f"step {step}: error {out.error:.4f}, divergence {out.divergence:.1f}, "
                f"imbalance {out.imbalance:.2f}, "
                f"temperature {heat:.2f}, {time.perf_counter() - begin:.0f} s",
                flush=True,
            )
    return time.perf_counter() - begin


def codes_of(model: DiscreteVAE, pixels: Tensor) -> Tensor:
    """In parts, to spare memory."""
    return torch.cat([model.codes(part) for part in pixels.split(64)])


def measure(model: DiscreteVAE, pixels: Tensor) -> dict[str, float]:
    """Error of pictures rebuilt from hard codes, pixels in 0..1, and the use of the codebook."""
    codes = codes_of(model, pixels)
    rebuilt = torch.cat([model.decode(part) for part in codes.split(64)])
    use = code_use(codes, model.code_count)
    return {**errors(pixels, rebuilt), "codes used": use.share, "perplexity": use.perplexity}


def errors(pixels: Tensor, rebuilt: Tensor) -> dict[str, float]:
    """Mean squared error over all, and the mean over pictures of the signal-to-noise ratio."""
    squared = (pixels.double() - rebuilt.double()).div(255).square().mean(dim=(1, 2, 3))
    return {
        "MSE": float(squared.mean()),
        "PSNR": float((-10 * squared.clamp(min=1e-10).log10()).mean()),
    }


def coarse(pixels: Tensor, grid: int) -> Tensor:
    """What a picture of ``grid`` by ``grid`` pixels shows: a control."""
    small = F.interpolate(pixels.float(), size=grid, mode="area")
    return F.interpolate(small, size=pixels.shape[2], mode="bicubic").round().clamp(0, 255)


def sheet(model: DiscreteVAE, pixels: Tensor, path: Path) -> None:
    """Originals above what is rebuilt of them, two rows of `SHOWN`."""
    from PIL import Image

    shown = pixels[:: max(1, len(pixels) // (2 * SHOWN))][: 2 * SHOWN]
    rebuilt = model.decode(model.codes(shown))
    rows = [part for pair in zip(shown.split(SHOWN), rebuilt.split(SHOWN)) for part in pair]
    lines = [F.pad(row, (2, 2, 2, 2), value=255).permute(1, 2, 0, 3).flatten(2) for row in rows]
    Image.fromarray(torch.cat(lines, dim=1).permute(1, 2, 0).numpy()).save(path)


def main(model: DiscreteVAE, plan: Plan, out: Path | None, name: str) -> int:
    set_threads(2)
    pixels = emoji_pixels(model.image_size)
    seconds = train(model, pixels["train"], plan)
    model.eval()
    unseen, seen = measure(model, pixels["test"]), measure(model, pixels["train"])
    grid = model.grid[0]
    controls = {
        "white": errors(pixels["test"], torch.full_like(pixels["test"], 255)),
        f"{grid} x {grid} pixels": errors(pixels["test"], coarse(pixels["test"], grid)),
    }
    measured = {"training emoji": seen, "unseen emoji": unseen, **controls}
    folder = out or RESULTS
    sheet(model, pixels["test"], folder / f"{name}.png")
    rows = [{"what": what, **shown(figures)} for what, figures in measured.items()]
    for row in rows:
        print(row)
    if out is None:
        publish(model, plan, rows, measured, seconds, len(pixels["train"]), name)
    else:
        from plait.models.store.drawing import save_dvae

        save_dvae(model, out)
    return 0 if seen["codes used"] > BAR else 1


def shown(figures: dict[str, float]) -> dict[str, Any]:
    """Rounded, with a blank where there is no figure."""
    return {
        "MSE": f"{figures['MSE']:.4f}",
        "PSNR, dB": f"{figures['PSNR']:.2f}",
        "codes used": f"{figures['codes used']:.1%}" if "codes used" in figures else "",
        "perplexity": f"{figures['perplexity']:.0f}" if "perplexity" in figures else "",
    }


def publish(
    model: DiscreteVAE,
    plan: Plan,
    rows: list[dict[str, Any]],
    measured: dict[str, Any],
    seconds: float,
    pictures: int,
    name: str,
) -> None:
    """Writes the results."""
    write_results(
        name,
        "The discrete VAE on OpenMoji",
        rows,
        about=(
            f"{pictures} training emoji and 200 unseen ones, "
            f"{model.image_size} pixels; {model.code_count} codes, {model.grid[0]} x "
            f"{model.grid[1]} of them a picture. {plan.steps} steps of {plan.batch} pictures in "
            f"{seconds:.0f} s. Errors of pictures rebuilt from hard codes, pixels in 0..1; PSNR is "
            "the mean over pictures."
        ),
        machine=machine(threads=2),
        notes=[
            f"Controls: a white picture, and the picture made {model.grid[0]} pixels small.",
            f"The bar is {BAR:.0%} of the codes on training emoji.",
        ],
        details={"measured": measured, "model": model.spec(), "plan": vars(plan)},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--temperature", type=float, default=1 / 16)
    parser.add_argument("--kl", type=float, default=0.0, help="weight of the divergence")
    parser.add_argument("--balance", type=float, default=0.03, help="weight of the imbalance")
    parser.add_argument("--codes", type=int, default=512)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--net", default="strided")
    parser.add_argument("--error", default="mse")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a folder for the model and the picture")
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    raise SystemExit(
        main(
            DiscreteVAE(
                codes=given.codes,
                width=given.width,
                blocks=given.blocks,
                net=given.net,
                error=given.error,
            ),
            Plan(
                given.steps,
                given.batch,
                given.rate,
                given.temperature,
                given.kl,
                given.balance,
                given.seed,
            ),
            given.out,
            "dvae_openmoji",
        )
    )
