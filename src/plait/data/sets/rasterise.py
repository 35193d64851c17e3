"""SVG drawings to PNG files on white, in parallel, once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from plait.core import progress
from plait.core.errors import DataError, MissingExtra

_PNG_END = b"IEND\xaeB`\x82"


def rasterise_all(jobs: Sequence[tuple[Path | str, Path]], size: int, title: str) -> int:
    """Draws every (svg, png) whose PNG is not there yet; returns how many were drawn.

    An SVG is a file, or the document itself.

    A file is there in whole or not at all, so that a stopped call goes on where it was.

    Raises:
        MissingExtra: resvg-py is not installed.
        DataError: a file is no SVG.
    """
    missing = [job for job in jobs if not _whole(job[1])]
    if not missing:
        return 0
    try:
        import resvg_py
    except ImportError as error:
        raise MissingExtra("resvg-py", "demo", "drawing SVG files") from error
    for folder in {target.parent for _, target in missing}:
        folder.mkdir(parents=True, exist_ok=True)

    def draw(job: tuple[Path | str, Path]) -> None:
        _draw(resvg_py.svg_to_bytes, *job, size)

    # Threads do: resvg works without the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in progress.track(pool.map(draw, missing), title, len(missing)):
            pass
    return len(missing)


def _draw(render: Any, source: Path | str, target: Path, size: int) -> None:
    given = {"svg_string": source} if isinstance(source, str) else {"svg_path": str(source)}
    try:
        data = bytes(
            render(
                **given,
                width=size,
                height=size,
                background="white",
                skip_system_fonts=True,
            )
        )
    except ValueError as error:
        name = f"the drawing of {target.name}" if isinstance(source, str) else source
        raise DataError(f"cannot be drawn: {error}", path=name) from error
    # Not `core.files.replacing`: thousands of files, and waiting for the disk at each takes longer
    # than drawing. A file torn by a power cut is noticed by its end, and drawn again.
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _whole(path: Path) -> bool:
    """Whether a PNG is there up to its last byte."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_PNG_END), os.SEEK_END)
            return file.read() == _PNG_END
    except OSError:
        return False
