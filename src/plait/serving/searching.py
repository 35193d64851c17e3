"""Search of a served index: vectors from the lanes, rows from the store."""

from __future__ import annotations

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from plait.retrieval.index import Index

_THREADS = 2


class Searcher:
    """Searches one index in threads of its own.

    Args:
        index: opened; its model is never asked.
        model: the name of the served model that made it.
    """

    def __init__(self, index: Index, model: str) -> None:
        self.index, self.model = index, model
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="search")

    async def find(
        self, vector: np.ndarray, modality: str, *, thumbnails: bool = False, **options: Any
    ) -> list[dict[str, Any]]:
        """Hits of a query's vector.

        Args:
            vector: of unit length.
            modality: of the query.
            thumbnails: add a small JPEG of each picture.
            options: ``k``, ``where`` and ``find`` of `plait.retrieval.Index.search`.

        Raises:
            UserError: a filter that does not fit.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._pool, lambda: self._find(vector, modality, thumbnails, options)
        )

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _find(
        self, vector: np.ndarray, modality: str, thumbnails: bool, options: dict[str, Any]
    ) -> list[dict[str, Any]]:
        hits = self.index.search(vector, modality=modality, **options)
        for hit in hits:
            path = hit.pop("path")  # of this machine: nobody else's business
            if thumbnails:
                hit["thumbnail"] = None if path is None else _thumbnail(Path(path))
        return hits


def _thumbnail(path: Path) -> str | None:
    """A data URL of a small JPEG; None when the picture is gone or damaged."""
    from plait.core.errors import DataError
    from plait.retrieval.rows import small_jpeg

    try:
        data = small_jpeg(path.read_bytes(), str(path))
    except (OSError, DataError):
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
