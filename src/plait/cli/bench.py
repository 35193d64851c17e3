"""``plait bench``: latency, throughput and memory of a bundle or a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.cli.output import JsonOption, emit, say, table
from plait.core.errors import UserError


def bench(
    path: Annotated[Path, typer.Argument(help="A bundle, or a run folder (measured in torch).")],
    engine: Annotated[
        str | None, typer.Option(help="Only this one: openvino, onnxruntime or torch.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Only this one: float32, bfloat16 or int8.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Inference threads (default: one a core).")
    ] = None,
    batches: Annotated[str, typer.Option(help="Rows at once, with commas between.")] = "1,8,32",
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of each text.")] = 16,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="For each point; at least seven rounds are taken.")
    ] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Measure latency, throughput, start and memory, every engine in a process of its own."""
    from plait import api

    try:
        sizes = [int(batch) for batch in batches.split(",")]
    except ValueError:
        raise UserError(f"--batches is {batches!r}; give numbers, such as 1,8,32") from None
    found = api.bench(
        path,
        engine=engine,
        precision=precision,
        threads=threads,
        batches=sizes,
        tokens=tokens,
        seconds=seconds,
        tell=say,
    )

    def page() -> None:
        rows = [
            (
                tower["tower"],
                f"{choice['engine']} {choice['precision']}",
                point["batch"],
                f"{point['p50_ms']:.2f}",
                f"{point['p95_ms']:.2f}",
                f"{point['per_second']:.1f}",
            )
            for choice in found
            for tower in choice["towers"]
            for point in tower["batches"]
        ]
        table("Inference", ["tower", "engine", "batch", "p50 ms", "p95 ms", "a second"], rows)
        starts = [
            (
                f"{choice['engine']} {choice['precision']}",
                f"{choice['first_seconds']:.2f}",
                f"{choice['peak_bytes'] / 2**20:.0f}",
                *(f"{tower['tower']} {tower['prepare_ms']:.2f}" for tower in choice["towers"]),
            )
            for choice in found
        ]
        header = ["engine", "first row after s", "peak MiB"]
        header += ["ms to prepare a row"] * (len(starts[0]) - len(header))
        table("Process", header, starts)

    emit(found, as_json, page)
