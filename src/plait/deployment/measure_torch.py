"""The same figures as `plait.runtime.measure`, of a run in torch: what bundles are compared with.

python -m plait.deployment.measure_torch RUN --precision float32
"""

from __future__ import annotations

import time

_STARTED = time.perf_counter()

from collections.abc import Mapping, Sequence  # noqa: E402  the clock starts before all imports
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

from plait.core.errors import ModelError  # noqa: E402
from plait.runtime.measure import (  # noqa: E402
    answer,
    command_line,
    given_settings,
    made_up_files,
    of_towers,
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

    from plait.deployment.export import preprocessing
    from plait.deployment.graphs import Exportable, exportables
    from plait.modalities.image.fast_decode import decode_fast, preprocess_fast
    from plait.models.store.loading import open_model

    if threads is not None:
        torch.set_num_threads(threads)
    model = open_model(Path(run))
    image, text = preprocessing(model)
    opened = time.perf_counter() - _STARTED
    files: list[bytes] = []

    def rows(names: Sequence[str], count: int) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        if "pixels" in names:
            assert image is not None
            files.extend(made_up_files(count) if len(files) < count else ())
            arrays = [decode_fast(data, name="made up") for data in files[:count]]
            found["pixels"] = np.stack([preprocess_fast(array, image) for array in arrays])
        if "ids" in names:
            assert text is not None
            found["ids"], found["mask"] = text([text_of(tokens, text.lengths)] * count)
        return found

    def compute(exportable: Exportable, tensors: Mapping[str, np.ndarray]) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return exportable(tensors)

    towers = {
        modality: (partial(rows, list(one.inputs)), partial(compute, one))
        for modality, one in exportables(model).items()
    }
    return {
        "engine": "torch",
        "precision": precision,
        "threads": torch.get_num_threads(),
        "tokens": tokens,
        "opened_seconds": round(opened, 4),
        **of_towers(towers, batches, seconds, _STARTED),
    }


def main() -> dict[str, Any]:
    """The program; see the head of this file."""
    given = command_line("plait.deployment.measure_torch", "float32").parse_args()
    if given.precision not in ("float32", "bfloat16"):
        raise ModelError(f"torch measures float32 or bfloat16, not {given.precision!r}")
    return measure(given.path, given.precision, **given_settings(given))


if __name__ == "__main__":
    answer(main)
