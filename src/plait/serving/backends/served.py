"""The models that a server serves, by name, each with its lanes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from plait.core.modality import TEXT
from plait.modalities.text.scripts import query_note
from plait.serving.base.inputs import Input
from plait.serving.queue.lanes import Embedder, Lane

ASK = "ask"


@dataclass(frozen=True)
class Served:
    """A model that is served.

    Attributes:
        name: that requests use.
        kind: ``alignment`` or ``fusion``, or the class of another model.
        lanes: by modality; ``ask`` for questions about pictures.
        embedder: of a model that embeds.
        fingerprint: of an embedding model, which an index knows (see `plait.retrieval.index.manifest`).
        created: when its folder was written, in seconds since 1970.
    """

    name: str
    kind: str
    lanes: Mapping[str, Lane]
    embedder: Embedder | None = None
    fingerprint: str = ""
    created: int = 0

    @property
    def modalities(self) -> list[str]:
        """What it embeds, or looks at to answer."""
        return ["image", "text"] if self.embedder is None else list(self.embedder.modalities)

    async def note(self, query: Input) -> str | None:
        """Why what words find may mean nothing (`plait.modalities.text.scripts`); None where they are read."""
        if query.modality != TEXT or self.embedder is None:
            return None
        preprocess = self.embedder.text_preprocess
        return await asyncio.to_thread(query_note, preprocess, str(query.value))


__all__ = ["ASK", "Served"]
