"""Run folders as served models, with torch in the worker: for what cannot be exported."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plait.core.errors import UserError
from plait.core.modality import IMAGE
from plait.modalities.image.preprocess import ImagePreprocess
from plait.serving.backends.remote import split
from plait.serving.backends.served import ASK, Served
from plait.serving.base.settings import Settings
from plait.serving.queue.decoders import Decoders
from plait.serving.queue.lanes import HERE, Asked, Prepared, embedding_lanes


def open_served(
    name: str, folder: Path, settings: Settings, created: int, decoders: Decoders
) -> Served:
    """A run with its lanes.

    Raises:
        UserError: no run, or one of a model that can neither embed nor answer.
    """
    import torch

    from plait import api
    from plait.models.alignment.alignment import AlignmentModel
    from plait.models.bridged.model import BridgedModel
    from plait.models.fusion.model import FusionModel
    from plait.retrieval.index.manifest import model_fingerprint

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    model = api.load(folder)
    if isinstance(model, AlignmentModel):
        own = RunEmbedder(model, settings.engine, settings.precision, threads=settings.threads)
        known = model_fingerprint(model)
        embedder = split(own, settings.towers, known)
        lanes = embedding_lanes(name, embedder, settings.limits, decoders, settings.towers)
        return Served(name, "alignment", lanes, embedder, known, created)
    if isinstance(model, FusionModel | BridgedModel):
        lane = RunAskLane(f"{name}/{ASK}", model, decoders)
        kind = "fusion" if isinstance(model, FusionModel) else "language"
        return Served(name, kind, {ASK: lane}, created=created)
    raise UserError(f"{folder} holds a {type(model).__name__}, which answers no requests")


class RunEmbedder:
    """An alignment model through the engines of its towers (see `plait.serving.queue.lanes.Embedder`).

    Args:
        model: read only.
        engine: ``auto``, ``torch`` or ``openvino`` (see `plait.engines.base.open_engine`).
        precision: ``auto``, ``float32`` or ``bfloat16``.
        threads: of inference.

    Raises:
        UserError: an engine or a precision that only bundles have.
    """

    def __init__(
        self,
        model: Any,
        engine: str = "auto",
        precision: str = "auto",
        *,
        threads: int | None = None,
    ) -> None:
        from plait.core.modality import IMAGE, TEXT
        from plait.engines.base import open_engine

        self._model = model.eval()
        self.modalities = [name for name in (IMAGE, TEXT) if name in model.modalities]
        self.dim, self.scale = int(model.dim), float(model.scale.item())
        self._engines = {
            name: open_engine(
                model.tower(name).encoder, kind=engine, precision=precision, threads=threads
            )
            for name in self.modalities
        }

    @property
    def image_preprocess(self) -> Any:
        """Of the image tower."""
        return self._model.tower("image").encoder.preprocess

    @property
    def text_preprocess(self) -> Any:
        """Of the text tower."""
        return self._model.tower("text").encoder.preprocess

    def prepare_images(self, images: Sequence[Any]) -> dict[str, np.ndarray]:
        """``pixels`` of uint8 arrays (H, W, 3)."""
        from plait.models.base.embedding import image_input

        found = image_input(images, self._model.tower("image").encoder.preprocess, 0)
        return {"pixels": found.tensors["pixels"].numpy()}

    def prepare_texts(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """``ids`` and ``mask``."""
        ids, mask = self._model.tower("text").encoder.preprocess(texts)
        return {"ids": ids, "mask": mask}

    def run(self, modality: str, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Unit rows."""
        import torch

        pooled = self._engines[modality].run(tensors)
        with torch.inference_mode():
            projected = self._model.tower(modality).projection(torch.from_numpy(pooled))
            return torch.nn.functional.normalize(projected.float(), dim=-1).numpy()


class RunAskLane:
    """Questions about pictures, answered one after another by torch.

    Args:
        name: for metrics and logs.
        model: a fusion model that answers, or a language model that sees.
        decoders: of the pictures' files.
    """

    chunk = rows = budget = 1
    instant = 0
    group = HERE
    most = float("inf")

    def __init__(self, name: str, model: Any, decoders: Decoders) -> None:
        self.name, self.model, self.decoders = name, model, decoders
        preprocess = model.tower(IMAGE).encoder.preprocess
        self._levels = preprocess.levels if isinstance(preprocess, ImagePreprocess) else None
        self._computing = threading.Lock()

    def cost(self, raw: Asked) -> int:
        """See `plait.serving.queue.lanes.Lane.cost`."""
        return 0

    def is_slow(self, raw: Asked) -> bool:
        """See `plait.serving.queue.lanes.Lane.is_slow`."""
        return not self.decoders.is_quick(raw.picture)

    def prepare(self, raws: Sequence[Asked]) -> list[Prepared | Exception]:
        """See `plait.serving.queue.lanes.Lane.prepare`: the picture is decoded here, to find its faults."""
        from PIL import Image

        found: list[Prepared | Exception] = []
        for raw in raws:
            try:
                array = self.decoders.picture(raw.picture, "image", self._levels)
            except UserError as error:
                found.append(error)
            else:
                asked = Asked(Image.fromarray(array), raw.question, raw.answers)
                found.append(Prepared(asked, 1))
        return found

    def run(self, values: Sequence[Asked]) -> list[Any]:
        """See `plait.serving.queue.lanes.Lane.run`: ranked answers of each."""
        return [self._answer(value) for value in values]

    def _answer(self, asked: Asked) -> list[dict[str, Any]]:
        import io

        from plait import api
        from plait.core.media import BytesRef

        buffer = io.BytesIO()
        asked.picture.save(buffer, "PNG", compress_level=1)
        ref = BytesRef(buffer.getvalue(), "image")
        with self._computing:
            found = api.ask(self.model, ref, asked.question, answers=asked.answers)
        answers: list[dict[str, Any]] = found["answers"]
        return answers

    def probe(self) -> Any:
        """See `plait.serving.queue.lanes.Lane.probe`."""
        return Asked(np.full((8, 8, 3), 127, np.uint8), "what is it?", 1)
