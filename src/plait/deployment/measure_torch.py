"""The same figures as `plait.runtime.measure`, of a run in torch: what bundles are compared with.

python -m plait.deployment.measure_torch RUN --precision float32
"""

from __future__ import annotations

import time

_STARTED = time.perf_counter()

import argparse  # noqa: E402  the clock starts before anything is imported
import json  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
from collections.abc import Mapping, Sequence  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

from plait.core.errors import ModelError, UserError  # noqa: E402
from plait.runtime.measure import (  # noqa: E402
    figures,
    latencies,
    made_up_files,
    peak_bytes,
    text_of,
)


def measure(
    run: Path,
    precision: str,
    *,
    threads: int | None = None,
    batches: Sequence[int],
    tokens: int = 16,
    seconds: float = 1.0,
) -> dict[str, Any]:
    """See `plait.runtime.measure.measure`; eager torch, bfloat16 by autocast."""
    import torch

    from plait.data.fast_decode import decode_fast, preprocess_fast
    from plait.data.preprocess import ImagePreprocess
    from plait.deployment.export import preprocessing
    from plait.deployment.graphs import exportables
    from plait.models.loading import open_model

    if threads is not None:
        torch.set_num_threads(threads)
    model = open_model(Path(run))
    image, text = preprocessing(model)
    opened, first = time.perf_counter() - _STARTED, None
    files = made_up_files(max(batches)) if image is not None else []

    def rows(names: Sequence[str], count: int) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        if "pixels" in names:
            assert isinstance(image, ImagePreprocess)
            arrays = [decode_fast(data, name="made up") for data in files[:count]]
            found["pixels"] = np.stack([preprocess_fast(array, image) for array in arrays])
        if "ids" in names:
            assert text is not None
            found["ids"], found["mask"] = text([text_of(tokens, text.lengths)] * count)
        return found

    towers = []
    low = precision == "bfloat16"
    for modality, exportable in exportables(model).items():
        names = list(exportable.inputs)
        tensors = rows(names, max(batches))

        def compute(count: int, tensors: Mapping[str, np.ndarray] = tensors) -> Any:
            part = {name: array[:count] for name, array in tensors.items()}
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                return exportable(part)  # noqa: B023  called in this turn only

        before = time.perf_counter()
        compute(1)
        start = time.perf_counter() - before
        first = time.perf_counter() - _STARTED if first is None else first
        after_first = peak_bytes()
        measured = [
            {
                "batch": batch,
                **figures(latencies(partial(compute, batch), seconds=seconds), batch),
            }
            for batch in batches
        ]
        prepare = latencies(partial(rows, names, 1), seconds=0.0)
        towers.append(
            {
                "tower": modality,
                "first_seconds": round(start, 4),
                "prepare_ms": round(statistics.median(prepare) * 1e3, 4),
                "peak_bytes_after_first": after_first,
                "batches": measured,
            }
        )
    return {
        "engine": "torch",
        "precision": precision,
        "threads": torch.get_num_threads(),
        "tokens": tokens,
        "opened_seconds": round(opened, 4),
        "first_seconds": round(first or 0.0, 4),
        "towers": towers,
        "peak_bytes": peak_bytes(),
    }


def main() -> None:
    """The program; see the head of this file."""
    parser = argparse.ArgumentParser(prog="python -m plait.deployment.measure_torch")
    parser.add_argument("run", type=Path)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=1.0)
    given = parser.parse_args()
    if given.precision not in ("float32", "bfloat16"):
        raise ModelError(f"torch measures float32 or bfloat16, not {given.precision!r}")
    found = measure(
        given.run,
        given.precision,
        threads=given.threads,
        batches=[int(batch) for batch in given.batches.split(",")],
        tokens=given.tokens,
        seconds=given.seconds,
    )
    print(json.dumps(found))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
