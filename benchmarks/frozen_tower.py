"""A frozen image tower over a folder of JPEGs: plait against torch float32 with Pillow.

Both run EfficientNet-Lite0 with the same weights over the same files, in batches of 32, on the same
number of threads, each in a process of its own. The peer is the usual loop: PIL, torchvision's
transforms, float32, with glibc's allocator as it is and with the settings of plait's commands. plait is `image_features` without its cache, in the
environment that the plait command sets up.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from _measure import machine, write_results
from _photos import make_photographs
from _workers import (
    Worker,
    default_environment,
    median_ratio,
    serve,
    take_turns,
    tuned_environment,
)

BATCH = 32
SOURCE = "pkg/efficientnet-lite0"
PEER, TUNED = "torch float32 + PIL", "torch float32 + PIL, plait's allocator"


def peer(paths: list[Path], threads: int) -> tuple[Callable[[], np.ndarray], dict[str, Any]]:
    """The usual loop; (a pass, its parts alone)."""
    import torch
    from PIL import Image
    from torchvision import transforms

    from plait.encoders.registry import build_encoder

    torch.set_num_threads(threads)
    encoder = build_encoder(SOURCE, modality="image")
    network, settings = encoder.model.eval(), encoder.preprocess
    transform = transforms.Compose(
        [
            transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(settings.mean, settings.std),
        ]
    )

    def load(batch: list[Path]) -> Any:
        return torch.stack([transform(Image.open(path).convert("RGB")) for path in batch])

    def one_pass() -> np.ndarray:
        rows = []
        with torch.inference_mode():
            for start in range(0, len(paths), BATCH):
                rows.append(network(load(paths[start : start + BATCH])).numpy())
        return np.concatenate(rows)

    def decode() -> None:
        for start in range(0, len(paths), BATCH):
            load(paths[start : start + BATCH])

    block = load(paths[:BATCH])

    def infer() -> None:
        with torch.inference_mode():
            for _ in range(0, len(paths), BATCH):
                network(block)

    return one_pass, {"decoding": decode, "inference": infer}


def ours(paths: list[Path], threads: int) -> tuple[Callable[[], np.ndarray], dict[str, Any]]:
    """plait's; (a pass with the engine open, its parts alone)."""
    import torch

    from plait.core.media import FileRef
    from plait.encoders.registry import build_encoder
    from plait.engines.base import open_engine
    from plait.engines.features import image_features
    from plait.modalities.image.fast_decode import load_pixels, pixel_batches

    torch.set_num_threads(threads)
    encoder = build_encoder(SOURCE, modality="image")
    refs = [FileRef(path) for path in paths]
    block = {"pixels": load_pixels(refs[:BATCH], encoder.preprocess)}
    start = time.perf_counter()
    engine = open_engine(encoder, sample=block)
    opening = time.perf_counter() - start

    def one_pass() -> np.ndarray:
        return image_features(
            encoder, refs, engine=engine, batch_size=BATCH, cache=False, threads=threads
        )

    def decode() -> None:
        for _ in pixel_batches(refs, encoder.preprocess, batch_size=BATCH, threads=threads):
            pass

    def infer() -> None:
        for _ in range(0, len(paths), BATCH):
            engine.run(block)

    about = {"engine": f"{engine.name} {engine.precision}", "seconds to open it": round(opening, 2)}
    return one_pass, {"decoding": decode, "inference": infer, "about": about}


def work(name: str, folder: Path, threads: int) -> None:
    """A worker process."""
    paths = sorted(folder.glob("*.jpg"))
    one_pass, parts = {PEER: peer, TUNED: peer, "plait": ours}[name](paths, threads)
    about = parts.pop("about", {})
    kept: dict[str, np.ndarray] = {}

    def rate(run: Callable[[], Any]) -> float:
        start = time.perf_counter()
        kept["rows"] = run()
        return round(len(paths) / (time.perf_counter() - start), 2)

    def save() -> str:
        path = folder / f"{name.split()[0]}.npy"
        np.save(path, one_pass())
        return str(path)

    serve(
        {
            "pass": lambda: rate(one_pass),
            **{part: (lambda run=run: rate(run)) for part, run in parts.items()},
            "about": lambda: about,
            "rows": save,
        }
    )


def fidelity(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Cosines between the two sides' rows, and how often the nearest neighbour is the same."""
    ours, theirs = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (ours, theirs))
    cosines = (ours * theirs).sum(axis=1)
    nearest = [(rows @ rows.T - 9 * np.eye(len(rows))).argmax(axis=1) for rows in (ours, theirs)]
    return {
        "cosine mean": round(float(cosines.mean()), 5),
        "cosine min": round(float(cosines.min()), 5),
        "nearest neighbour kept, %": round(100 * float((nearest[0] == nearest[1]).mean()), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker")
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    if chosen.worker:
        work(chosen.worker, chosen.folder, chosen.threads)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make_photographs(folder, chosen.images)
        arguments = ["--folder", name, "--threads", str(chosen.threads)]
        workers = [
            Worker(PEER, arguments, default_environment()),
            Worker(TUNED, arguments, tuned_environment()),
            Worker("plait", arguments, tuned_environment()),
        ]
        rows = [np.load(worker.ask("rows")) for worker in workers]  # warms both up, too
        passes = take_turns(workers, "pass", chosen.rounds)
        parts = {part: take_turns(workers, part, 2) for part in ("decoding", "inference")}
        about = workers[-1].ask("about")
        size = sum(path.stat().st_size for path in paths) / len(paths)
        for worker in workers:
            worker.close()
    table = []
    for worker in workers:
        table.append(
            {
                "side": worker.name,
                "images/s, whole pass": statistics.median(passes[worker.name]),
                "decoding alone": statistics.median(parts["decoding"][worker.name]),
                "inference alone": statistics.median(parts["inference"][worker.name]),
            }
        )
    ratio, fair = (median_ratio(passes["plait"], passes[side]) for side in (PEER, TUNED))
    same = fidelity(rows[-1], rows[0])
    write_results(
        "frozen_tower",
        "A frozen image tower over a folder of JPEGs",
        table,
        about=f"EfficientNet-Lite0's pooled features of {chosen.images} JPEGs of 500 x 375 pixels "
        f"({size / 1024:.0f} KiB on average), batches of {BATCH}, medians of {chosen.rounds} passes "
        "that take turns.",
        machine=machine("timm", "torchvision", "openvino", "pillow", threads=chosen.threads),
        notes=[
            f"plait is {fair:.1f} times as fast with the same allocator settings on both sides, "
            f"{ratio:.1f} times with glibc's own on the peer's (medians over rounds).",
            f"plait ran {about['engine']}; opening it took {about['seconds to open it']} s, once.",
            "plait's rows against torch float32 with PIL: "
            + ", ".join(f"{name} {value}" for name, value in same.items())
            + ".",
        ],
        details={
            "ratio": round(ratio, 2),
            "same allocator": round(fair, 2),
            "passes": passes,
            "parts": parts,
            **same,
            **about,
        },
    )
    print(f"ratio {fair:.2f} with one allocator, {ratio:.2f}; {same}")


if __name__ == "__main__":
    main()
