"""A bundle in use: embeds pictures and texts, or answers questions, without torch.

Shape legend: B samples, E features of the shared space, A answers.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np

from plait.core.errors import DataError, ModelError, RecipeError, shown
from plait.core.files import BadJson, read_json
from plait.core.modality import IMAGE, TEXT
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.text.glosses import GLOSSES_FILE
from plait.modalities.text.tokenize import TextPreprocess
from plait.runtime.choose import Chosen, choose
from plait.runtime.external import external_files
from plait.runtime.inputs import checked
from plait.runtime.manifest import ANSWER, Graph, Manifest, check_files, read_manifest
from plait.runtime.pictures import pixels_of
from plait.runtime.ranking import answers_of, class_rows, prompts, shares
from plait.runtime.sessions import Session, open_session

IMAGE_PREPROCESS: Final = "image_preprocess.json"
MOST_EDGE: Final = 8192  # pixels of a side that an encoder reads
TOKENIZER_FILES: Final = ("tokenizer.json", "text_preprocess.json")

Tensors = Mapping[str, np.ndarray]


def open_bundle(
    path: str | Path,
    *,
    engine: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    streams: int = 1,
    elsewhere: Collection[str] = (),
) -> Bundle:
    """Opens a bundle. Each tower's graph is checked and compiled when it is first used.

    Args:
        path: the folder.
        engine: ``openvino``, ``onnxruntime``, or ``auto``: the first of these that is installed.
        precision: ``float32``, ``bfloat16`` (OpenVINO), ``int8``, or ``auto``: int8 where the
            bundle has it, else bfloat16 where OpenVINO and the processor have it, else float32.
        threads: inference threads; by default one a core.
        streams: see `OpenVinoSession`.
        elsewhere: towers that run on other machines: their graphs may be missing here.

    Raises:
        ModelError: no bundle, an incomplete one, or one without such a graph.
        MissingExtra: the engine is not installed.
        UserError: an unknown engine or precision.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    chosen = {
        name: choose(entry.graphs, engine, precision)
        for name, entry in manifest.towers.items()
        if name not in elsewhere
    }
    return Bundle(folder, manifest, chosen, threads=threads, streams=streams)


class Bundle:
    """See `open_bundle`.

    Attributes:
        folder: where its files are.
        manifest: what it holds.
        chosen: by tower that runs here, the engine, precision and graph that run it.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        chosen: Mapping[str, Chosen],
        *,
        threads: int | None = None,
        streams: int = 1,
    ) -> None:
        self.folder, self.manifest, self.chosen = folder, manifest, dict(chosen)
        self._threads, self._streams = threads, streams
        self._sessions: dict[str, Session] = {}
        self._opening, self._reading = threading.Lock(), threading.Lock()
        self._text: TextPreprocess | None = None
        self._inputs = {name for entry in manifest.towers.values() for name in entry.inputs}
        self._image = self._checked_files()

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it embeds; of a fusion model ``("answer",)``."""
        return tuple(self.manifest.towers)

    @property
    def dim(self) -> int:
        """Features of an embedding. Raises ModelError for a fusion model."""
        return self._dim("embeddings")

    @property
    def scale(self) -> float:
        """What multiplies a cosine to give a logit."""
        return self.manifest.scale

    @property
    def image_preprocess(self) -> ImagePreprocess:
        """How pictures become pixels. Raises ModelError when the bundle sees none."""
        if self._image is None:
            raise ModelError(f"the bundle {self.manifest.name} has no image tower")
        return self._image

    @property
    def text_preprocess(self) -> TextPreprocess:
        """How texts become ids. Raises ModelError when the bundle reads none."""
        if "ids" not in self._inputs:
            raise ModelError(f"the bundle {self.manifest.name} has no text tower")
        with self._reading:
            if self._text is None:  # vocabularies take a quarter of a second: only when needed
                self._text = TextPreprocess.load(self.folder)
            return self._text

    def prepare_images(self, images: Sequence[Any], first: int = 0) -> dict[str, np.ndarray]:
        """``pixels`` uint8 (B, 3, h, w) of paths, bytes of files, PIL images or uint8 arrays.

        Raises:
            DataError: a picture that can't be used, by its name or number, counted from ``first``.
        """
        return {"pixels": pixels_of(images, self.image_preprocess, first)}

    def prepare_texts(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """``ids`` int64 and ``mask`` bool, both (B, N), padded to the longest."""
        ids, mask = self.text_preprocess(texts)
        return {"ids": ids, "mask": mask}

    def run(self, modality: str, tensors: Tensors) -> np.ndarray:
        """Rows float32 (B, E) of prepared tensors, or logits (B, A); any thread may call it.

        Raises:
            ModelError: no such tower, or its graph is damaged.
            DataError: tensors that don't fit the tower.
        """
        entry = self.manifest.tower(modality)
        inputs = checked(tensors, entry, modality)
        if not len(next(iter(inputs.values()))):
            return np.zeros((0, self.manifest.dim or len(self.manifest.labels)), np.float32)
        return self.session(modality).run(inputs)

    def session(self, modality: str) -> Session:
        """The open engine of a tower."""
        known = self._sessions.get(modality)
        if known is not None:  # no waiting for another tower that is being compiled
            return known
        with self._opening:
            if modality not in self._sessions:
                if modality not in self.chosen:
                    raise ModelError(f"the {modality} tower of this bundle runs elsewhere")
                chosen = self.chosen[modality]
                graph = chosen.graph
                check_files(self.folder, self.manifest, (graph.file, *graph.parts))
                if graph.format == "onnx":
                    self._check_external(graph)
                self._sessions[modality] = open_session(
                    self.folder / graph.file,
                    chosen.engine,
                    chosen.precision,
                    threads=self._threads,
                    streams=self._streams,
                )
            return self._sessions[modality]

    def embed(
        self,
        images: Sequence[Any] | None = None,
        texts: Sequence[str] | None = None,
        *,
        batch_size: int = 32,
    ) -> dict[str, np.ndarray]:
        """Unit rows, float32 (n, E), by modality.

        Args:
            images: as for `prepare_images`.
            texts: strings.
            batch_size: how many at once.

        Raises:
            DataError: a picture that can't be used.
            ModelError: a fusion model, or no such tower.
        """
        for name, given in (("images", images), ("texts", texts)):
            if isinstance(given, str | bytes | Path):
                raise DataError(
                    f"{name} is one {type(given).__name__}: give a list, [{given!r:.60}]"
                )
        found = {}
        if images is not None:
            found[IMAGE] = self._embed_images(images, batch_size)
        if texts is not None:
            found[TEXT] = self._embed_texts(texts, batch_size)
        return found

    def similarity(self, images: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        """Cosines (images, texts)."""
        rows = self.embed(images, texts)
        return np.asarray(rows[IMAGE] @ rows[TEXT].T)

    def classify(
        self, images: Sequence[Any], labels: Sequence[str], templates: Sequence[str] = ("{}",)
    ) -> np.ndarray:
        """Probabilities (images, labels): softmax of scaled cosines to the labels' prompts.

        Args:
            images: as for `prepare_images`.
            labels: class names.
            templates: prompts with ``{}`` for the name, whose embeddings are averaged.

        Raises:
            ModelError: no label, no template, or a template without ``{}``.
            DataError: a picture that can't be used, or a string in place of a list.
        """
        if isinstance(labels, str) or isinstance(templates, str):
            raise DataError("labels and templates are lists of strings")
        if isinstance(labels, str) or isinstance(templates, str):
            raise DataError("labels and templates are lists of strings")
        asked = prompts(labels, templates)
        classes = class_rows(self.embed(texts=asked)[TEXT], len(labels))
        rows = self.embed(images=images)[IMAGE]
        return shares(rows @ classes.T * self.scale)

    def ask(self, image: Any, question: str, *, answers: int = 5) -> list[dict[str, Any]]:
        """The likeliest answers to a question about a picture: ``answer`` and ``probability``.

        Raises:
            ModelError: the bundle holds no fusion model.
            DataError: a picture that cannot be used, or an empty question.
        """
        if self.manifest.kind != "fusion":
            raise ModelError(f"the bundle {self.manifest.name} embeds, and answers no questions")
        if not question.strip():
            raise DataError("the question is empty")
        template = self.manifest.question
        text = question if template is None else template.format(question=question)
        tensors = {**self.prepare_images([image]), **self.prepare_texts([text])}
        (logits,) = self.run(ANSWER, tensors)
        return answers_of(logits, self.manifest, answers)

    def _embed_images(self, images: Sequence[Any], batch_size: int) -> np.ndarray:
        rows = [np.zeros((0, self._dim("embeddings of images")), np.float32)]
        for start in range(0, len(images), batch_size):
            tensors = self.prepare_images(images[start : start + batch_size], start)
            rows.append(self.run(IMAGE, tensors))
        return np.concatenate(rows)

    def _embed_texts(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        """Texts of like length share a batch, so that little is padded."""
        rows = np.zeros((len(texts), self._dim("embeddings of texts")), np.float32)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(texts), batch_size):
            places = order[start : start + batch_size]
            rows[places] = self.run(TEXT, self.prepare_texts([texts[i] for i in places]))
        return rows

    def _dim(self, what: str) -> int:
        if self.manifest.dim is None:
            raise ModelError(
                f"the bundle {self.manifest.name} answers questions, and has no {what}"
            )
        return self.manifest.dim

    def _checked_files(self) -> ImagePreprocess | None:
        """Checks everything but the content of graphs; how pictures become pixels, if it sees."""
        for graph in (chosen.graph for chosen in self.chosen.values()):
            for file in (graph.file, *graph.parts):
                if not (self.folder / file).is_file():
                    raise ModelError(
                        f"{self.folder / file} is missing: the bundle is incomplete, copy all of "
                        "it again"
                    )
        if "ids" in self._inputs:
            glosses = [GLOSSES_FILE] if (self.folder / GLOSSES_FILE).is_file() else []
            check_files(self.folder, self.manifest, (*TOKENIZER_FILES, *glosses))
        if "pixels" not in self._inputs:
            return None
        check_files(self.folder, self.manifest, [IMAGE_PREPROCESS])
        path = self.folder / IMAGE_PREPROCESS
        try:
            found = ImagePreprocess.from_json(read_json(path))
            edge = found.size if isinstance(found.size, int) else max(found.size)
            if edge > MOST_EDGE:
                raise ValueError(f"pictures of {edge:,} pixels a side")
        except (BadJson, RecipeError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{path} is damaged: {str(error)[:300]}") from error
        return found

    def _check_external(self, graph: Graph) -> None:
        """Raises ModelError when a graph keeps weights in files that are not listed as its own."""
        beside = PurePosixPath(graph.file).parent
        for name in external_files(self.folder / graph.file):
            if str(beside / name) not in graph.parts:
                raise ModelError(
                    f"{self.folder / graph.file} takes weights from {shown(name)}, which the "
                    "manifest does not list"
                )
