"""What a search needs, kept in plait's cache: the tower that embeds the query, and a copy of the rows.

Loading a whole model to embed a few words, and a database to look through a thousand rows, took
most of a search's processor time. What is kept is named by the state of what it was made from: a
tower by the model's fingerprint and its files, rows by the files of the index. Where anything
changed, nothing is found here, and the search takes the long way, which checks everything and
keeps what it found anew.

Shape legend: n rows, D features.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float

from plait.core.errors import DataError, ModelError, SearchIndexError, UserError
from plait.core.files import cache_home, digest, new_folder, read_json, write_json
from plait.core.media import MediaRef
from plait.core.modality import IMAGE, TEXT
from plait.core.version import __version__
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.text.tokenize import TextPreprocess
from plait.retrieval.index.manifest import NAME, Manifest
from plait.retrieval.store.memory import passing
from plait.retrieval.store.predicate import seen_by_filters
from plait.retrieval.store.store import Hit, Row, check_k, check_vector

if TYPE_CHECKING:
    from plait.models.alignment.alignment import AlignmentModel
    from plait.retrieval.store.filters import Filter
    from plait.retrieval.store.lance import LanceStore

MOST_ROWS: Final = 20_000  # of an index that is copied; a larger one is worth its database
MOST_KEPT: Final = 16  # towers and copies; the least recently used go
LEAST_COSINE: Final = 0.9999  # of a kept tower's rows to those of torch in float32
_BATCH: Final = 32  # pictures
_GRAPH: Final = "tower.xml"
_PICTURES: Final = "image_preprocess.json"
_VECTORS: Final = "vectors.npy"
_ROWS: Final = "rows.jsonl"

Write = Callable[[Path], None]


def tower_place(manifest: Manifest, run: Path, modality: str) -> Path:
    """Where a tower of the model in ``run`` is kept, or would be."""
    state = _state(_model_files(run))
    return _home() / digest("tower-1", __version__, manifest.model, modality, state)


def rows_place(index: Path) -> Path:
    """Where a copy of an index's rows is kept, or would be, to be asked before they are read."""
    state = _state([index / NAME, *(index / "rows.lance").rglob("*")])
    return _home() / digest("rows-1", __version__, state)


def keep_tower(model: AlignmentModel, modality: str, place: Path) -> bool:
    """Keeps a tower in ``place``; False where it cannot be kept.

    That is without OpenVINO, for a model on a GPU, for a tower that OpenVINO cannot convert or
    gives other rows than torch, and for a cache that cannot be written. Queries then go through
    torch, as they would have.
    """
    if place.is_dir():
        return True
    if find_spec("openvino") is None:
        return False
    from plait.engines.base import is_cuda, probe_inputs
    from plait.engines.openvino_engine import convert_module
    from plait.engines.tower import UnitRows

    encoder = model.tower(modality).encoder
    if is_cuda(encoder):
        return False
    try:
        sample = probe_inputs(encoder)
        graph = UnitRows(model.tower(modality), list(sample))
        converted = convert_module(graph, sample)
        if not _is_faithful(converted, graph, sample):
            return False
    except ModelError:
        return False

    def write(folder: Path) -> None:
        import openvino

        openvino.save_model(converted, folder / _GRAPH, compress_to_fp16=False)
        if isinstance(encoder.preprocess, TextPreprocess):
            encoder.preprocess.save(folder)
        elif isinstance(encoder.preprocess, ImagePreprocess):
            write_json(folder / _PICTURES, encoder.preprocess.to_json())

    return _keep(place, write)


def _is_faithful(converted: Any, graph: Any, sample: dict[str, np.ndarray]) -> bool:
    import torch

    from plait.engines.tower import evaluating, least_cosine
    from plait.runtime.sessions import OpenVinoSession

    found = OpenVinoSession(converted).run(sample)
    with evaluating(graph), torch.inference_mode():
        expected = graph(*map(torch.as_tensor, sample.values())).float().numpy()
    return found.shape == expected.shape and least_cosine(found, expected)[0] >= LEAST_COSINE


@dataclass(frozen=True)
class KeptTower:
    """A tower by itself.

    Attributes:
        embed: from words, or a picture, to their unit vector (D,).
        text_preprocess: of a text tower.
    """

    embed: Callable[[Any], np.ndarray]
    text_preprocess: TextPreprocess | None = None


def kept_tower(modality: str, place: Path) -> KeptTower | None:
    """The tower; None when it is not kept."""
    if not place.is_dir() or find_spec("openvino") is None:
        return None
    from plait.runtime.sessions import OpenVinoSession

    os.utime(place)  # last use, see `_prune`
    try:
        read = TextPreprocess.load(place) if modality == TEXT else None
        prepare = _pictures(place) if read is None else _texts(read)
        session = OpenVinoSession(place / _GRAPH)
    except UserError:  # a file of it is damaged or gone: the next search keeps it anew
        shutil.rmtree(place, ignore_errors=True)
        return None
    return KeptTower(lambda query: session.run(prepare(query))[0], read)


def _texts(preprocess: TextPreprocess) -> Callable[[str], dict[str, np.ndarray]]:
    def prepare(text: str) -> dict[str, np.ndarray]:
        ids, mask = preprocess([text])
        return {"ids": ids, "mask": mask}

    return prepare


def _pictures(folder: Path) -> Callable[[Any], dict[str, np.ndarray]]:
    from plait.runtime.pictures import pixels_of

    preprocess = ImagePreprocess.from_json(read_json(folder / _PICTURES))
    return lambda picture: {"pixels": pixels_of([picture], preprocess)}


class KeptPictures:
    """The image tower by itself, for several pictures.

    Args:
        place: where it is kept.
    """

    def __init__(self, place: Path) -> None:
        from plait.runtime.sessions import OpenVinoSession

        self._preprocess = ImagePreprocess.from_json(read_json(place / _PICTURES))
        self._session = OpenVinoSession(place / _GRAPH)

    def vectors(
        self, refs: Sequence[MediaRef]
    ) -> tuple[Float[np.ndarray, "n D"], dict[int, DataError]]:
        """Unit rows, and what is wrong with pictures that have none, by their place."""
        from plait.runtime.choose import cores
        from plait.runtime.pictures import pixels_of

        errors: dict[int, DataError] = {}

        def pixels(place: int) -> np.ndarray | None:
            try:
                return pixels_of([refs[place]], self._preprocess, place)[0]
            except DataError as error:
                errors[place] = error
                return None

        found: dict[int, np.ndarray] = {}
        with ThreadPoolExecutor(cores()) as pool:
            for start in range(0, len(refs), _BATCH):
                places = range(start, min(start + _BATCH, len(refs)))
                decoded = dict(zip(places, pool.map(pixels, places), strict=True))
                usable = {at: one for at, one in decoded.items() if one is not None}
                if usable:
                    rows = self._session.run({"pixels": np.stack(list(usable.values()))})
                    found |= zip(usable, rows, strict=True)
        width = len(next(iter(found.values()))) if found else 0
        result = np.zeros((len(refs), width), np.float32)
        for place, row in found.items():
            result[place] = row
        return result, errors


def kept_pictures(place: Path) -> KeptPictures | None:
    """The image tower; None when it is not kept."""
    if not place.is_dir() or find_spec("openvino") is None:
        return None
    os.utime(place)
    try:
        return KeptPictures(place)
    except UserError:  # damaged, as in `kept_tower`
        shutil.rmtree(place, ignore_errors=True)
        return None


class CopiedRows:
    """The rows of an index, read only, searched as by `plait.retrieval.store.memory.MemoryStore`.

    Args:
        place: of the copy.
    """

    def __init__(self, place: Path) -> None:
        self._vectors = np.load(place / _VECTORS, mmap_mode="r", allow_pickle=False)
        self._lines = (place / _ROWS).read_bytes().splitlines()

    @property
    def dim(self) -> int:
        """Features of a vector."""
        return int(self._vectors.shape[1])

    def __len__(self) -> int:
        return len(self._lines)

    def rows(self, ids: Sequence[str] | None = None) -> list[Row]:
        """Rows by key; all of them, or those with these ids."""
        found = map(self._row, range(len(self)))
        return [row for row in found if ids is None or row.id in ids]

    def facts(self, most: int) -> list[dict[str, str | None]]:
        """What filters see of the first ``most`` rows."""
        return [seen_by_filters(self._row(place)) for place in range(min(most, len(self)))]

    def upsert(self, rows: Sequence[Row]) -> None:
        """Refused: the copy is of the index, not the index."""
        raise SearchIndexError("this index was opened to search: open it without kept=True")

    def delete(self, ids: Sequence[str]) -> int:
        """Refused."""
        raise SearchIndexError("this index was opened to search: open it without kept=True")

    def paths(self) -> dict[str, str | None]:
        """The path of each id, without reading a vector."""
        return {row.id: row.path for row in self.rows()}

    def optimize(self) -> None:
        """Nothing to give back."""

    def search(self, vector: np.ndarray, k: int, where: Filter | None) -> list[Hit]:
        """The ``k`` best rows that pass the filter, best first, equal scores by key."""
        check_vector(vector, self.dim, "the query")
        check_k(k)
        query = vector.astype(np.float32) / np.linalg.norm(vector.astype(np.float32))
        scores = self._vectors @ query
        kept = np.arange(len(self))
        if where is not None:
            kept = kept[passing(where, map(self._row, range(len(self))))]
        order = kept[np.argsort(-scores[kept], kind="stable")[:k]]  # rows are in the order of keys
        return [Hit(self._row(int(place)), float(scores[place])) for place in order]

    def _row(self, place: int) -> Row:
        stored = json.loads(self._lines[place])
        return Row(**{**stored, "texts": tuple(stored["texts"])}, vector=self._vectors[place])


def keep_rows(store: LanceStore, place: Path) -> bool:
    """Keeps a copy of all rows of an index, by key; False where it cannot be kept."""
    if place.is_dir():
        return True
    keys = store.keys()
    if not 0 < len(keys) <= MOST_ROWS:
        return False
    at = {key: number for number, key in enumerate(sorted(keys))}

    def write(folder: Path) -> None:
        lines = [b""] * len(at)
        shape = (len(at), store.dim)
        vectors = np.lib.format.open_memmap(folder / _VECTORS, "w+", np.float32, shape)
        for row in store.scan():
            unit = row.vector.astype(np.float32)
            vectors[at[row.key]] = unit / np.linalg.norm(unit)
            stored = {name: value for name, value in vars(row).items() if name != "vector"}
            lines[at[row.key]] = json.dumps(stored).encode()  # ASCII: no sign in it ends a line
        vectors.flush()
        (folder / _ROWS).write_bytes(b"\n".join(lines) + b"\n")

    return _keep(place, write)


def kept_rows(place: Path) -> CopiedRows | None:
    """The copy of an index's rows; None when there is none of its present state."""
    if not place.is_dir():
        return None
    os.utime(place)
    try:
        return CopiedRows(place)
    except (OSError, ValueError, EOFError):  # damaged, as in `kept_tower`
        shutil.rmtree(place, ignore_errors=True)
        return None


def _home() -> Path:
    return cache_home() / "search"


def _keep(place: Path, write: Write) -> bool:
    """A new folder in one step. A cache that is full or read-only is no reason to fail."""
    try:
        with new_folder(place) as folder:
            write(folder)
        _prune(place)
    except (OSError, RuntimeError, UserError):  # OpenVINO raises RuntimeError where it cannot write
        return place.is_dir()  # another process was first
    return True


def _prune(new: Path) -> None:
    """Removes what was not used for longest; towers of this moment's other searches are recent."""
    found = sorted(new.parent.glob("[0-9a-f]*/"), key=lambda path: path.stat().st_mtime)
    for path in found[:-MOST_KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def _model_files(run: Path) -> list[Path]:
    """The files that make a model what it is: reports beside them may change."""
    if not (run / "model.json").is_file():
        return list(run.iterdir())  # a published checkpoint
    return [*run.glob("model.*"), *(run / TEXT).rglob("*"), *(run / IMAGE).rglob("*")]


def _state(files: Iterable[Path]) -> str:
    """Path, size and time of change of all regular files: as good as their content, and sooner."""
    found = []
    for path in files:
        status = path.stat() if path.exists() else None
        if status is not None and stat.S_ISREG(status.st_mode):
            found.append((os.path.realpath(path), status.st_size, status.st_mtime_ns))
    return json.dumps(sorted(found))
