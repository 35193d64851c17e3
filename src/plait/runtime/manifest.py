"""`manifest.json`: what a bundle holds, its graphs, and the hash of every file.

```
BUNDLE/
  manifest.json
  image.onnx, text.onnx       one graph a tower; or answer.onnx, which reads all modalities
  image.int8.xml, .bin        further graphs of a tower, of other formats or precisions
  image_preprocess.json, tokenizer.json, text_preprocess.json
  README.md, parity.json, parity.md, requirements.txt
```

Pixels enter a graph as uint8 and are normalised inside. An alignment model's graphs give
``embeddings``: float32 rows of unit length. A fusion model has one tower, ``answer``, whose graph
gives ``logits``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, get_args

from plait.core.errors import ModelError, shown
from plait.core.files import BadJson, is_below, own_folders, read_json, write_json
from plait.runtime.bill import BILL, write_bill

Format = Literal["onnx", "openvino"]
Stored = Literal["float32", "int8"]

MANIFEST: Final = "manifest.json"
FORMAT: Final = "plait-bundle"
VERSION: Final = 1
MOST_SIZE: Final = 1_000_000
ANSWER: Final = "answer"
"""The name of a fusion model's only tower."""


@dataclass(frozen=True)
class Port:
    """An input of a graph: its dtype, and its shape with names for sizes that vary."""

    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Graph:
    """One file that an engine runs.

    Attributes:
        file: its name in the bundle.
        format: ``onnx``, which both engines read, or ``openvino`` (.xml with its .bin).
        precision: of the weights and of what the graph computes in, ``float32`` or ``int8``.
        bytes: of the file and of those that belong to it.
        sha256: of the file.
        parts: further files that belong to it (the .bin of an .xml).
    """

    file: str
    format: Format
    precision: Stored
    bytes: int
    sha256: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class TowerEntry:
    """What one tower takes and gives, and the graphs that compute it."""

    inputs: Mapping[str, Port]
    output: str
    graphs: tuple[Graph, ...]


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        kind: ``alignment`` or ``fusion``.
        name: of the model.
        plait: the version that wrote it.
        towers: by modality; a fusion model has one, ``answer``.
        model: fingerprint of the model; an index knows the one that it was made with.
        dim: features of an embedding; None for a fusion model.
        scale: what multiplies a cosine to give a logit.
        bias: what is added to it (SigLIP).
        labels: what the logits of a fusion model stand for.
        question: the template that questions are put into, if there is one.
        independent: each answer is judged by itself (sigmoid) rather than against the others.
        files: SHA-256 of every file but the manifest, by path in the bundle.
    """

    kind: str
    name: str
    plait: str
    towers: Mapping[str, TowerEntry]
    model: str = ""
    dim: int | None = None
    scale: float = 1.0
    bias: float | None = None
    labels: tuple[str, ...] = ()
    question: str | None = None
    independent: bool = False
    files: Mapping[str, str] = field(default_factory=dict)

    def tower(self, modality: str) -> TowerEntry:
        """The entry of a tower. Raises ModelError when the bundle has none of that name."""
        if modality not in self.towers:
            known = ", ".join(self.towers)
            raise ModelError(f"the bundle {self.name} has towers for {known}, not {modality!r}")
        return self.towers[modality]


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a bundle.

    Raises:
        ModelError: no bundle, or a manifest that is damaged, incomplete or of a later version.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise ModelError(
            f"{folder} is no bundle: it has no {MANIFEST}; make one with `plait export`"
        )
    try:
        value = read_json(path)
    except BadJson as bad:
        raise ModelError(f"{path} is damaged: it {bad.problem}") from bad
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ModelError(f"{path} is not the manifest of a plait bundle")
    if value.get("version") != VERSION:
        raise ModelError(
            f"{path} has version {shown(value.get('version'))}, this plait reads {VERSION}: update plait"
        )
    try:
        manifest = _from_json(value)
    except KeyError as missing:
        raise ModelError(f"{path} lacks {missing.args[0]!r}") from missing
    except (TypeError, ValueError, AttributeError, OverflowError) as problem:
        raise ModelError(f"{path} is damaged: {problem}") from problem
    return manifest


def write_manifest(folder: str | Path, manifest: Manifest) -> Manifest:
    """Writes the manifest with the hash of every file that is in the folder now; returns it.

    The bill of materials is written anew on the way (see `plait.runtime.bill`).
    """
    folder = Path(folder)
    own = (folder / MANIFEST, folder / BILL)
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p not in own)
    files = {path.relative_to(folder).as_posix(): sha256(path) for path in found}
    write_bill(folder, manifest.name, files)
    sealed = replace(manifest, files=dict(sorted({**files, BILL: sha256(own[1])}.items())))
    write_json(folder / MANIFEST, _to_json(sealed))
    return sealed


def add_graph(
    folder: str | Path,
    modality: str,
    file: str,
    *,
    format: Format,
    precision: Stored,
    parts: Sequence[str] = (),
) -> Manifest:
    """Enters a graph that lies in the bundle's folder, in place of one of that format and precision.

    Raises:
        ModelError: no such tower.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    entry = manifest.tower(modality)
    graph = graph_of(folder, file, format=format, precision=precision, parts=parts)
    kept = [g for g in entry.graphs if (g.format, g.precision) != (format, precision)]
    towers = {**manifest.towers, modality: replace(entry, graphs=(*kept, graph))}
    return write_manifest(folder, replace(manifest, towers=towers))


def graph_of(
    folder: Path, file: str, *, format: Format, precision: Stored, parts: Sequence[str] = ()
) -> Graph:
    """The entry of a graph that lies in a folder."""
    size = sum((folder / name).stat().st_size for name in (file, *parts))
    return Graph(file, format, precision, size, sha256(folder / file), tuple(parts))


def check_files(folder: str | Path, manifest: Manifest, names: Iterable[str]) -> None:
    """Compares files with the hashes in the manifest.

    Raises:
        ModelError: a file is missing, or is not the one that the manifest was written for.
    """
    for name in names:
        path = Path(folder) / name
        if not is_below(path, own_folders([Path(folder)])):
            raise ModelError(f"{path} is a link that leads out of the bundle: copy the file itself")
        if not path.is_file():
            raise ModelError(f"{path} is missing: the bundle is incomplete, copy all of it again")
        if manifest.files.get(name) != (found := sha256(path)):
            raise ModelError(
                f"{path} is not the file that {MANIFEST} was written for: its SHA-256 is "
                f"{found[:16]}..., the manifest has {manifest.files.get(name, 'none')[:16]}...; "
                "copy the bundle again, or export it anew"
            )


def sha256(path: Path) -> str:
    """64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_json(manifest: Manifest) -> dict[str, Any]:
    value: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "kind": manifest.kind,
        "name": manifest.name,
        "plait": manifest.plait,
        "model": manifest.model,
    }
    if manifest.kind == "alignment":
        value |= {"dim": manifest.dim, "scale": manifest.scale, "bias": manifest.bias}
    else:
        value |= {
            "question": manifest.question,
            "independent": manifest.independent,
            "labels": list(manifest.labels),
        }
    value["towers"] = {name: _tower_json(entry) for name, entry in manifest.towers.items()}
    return {**value, "files": dict(manifest.files)}


def _tower_json(entry: TowerEntry) -> dict[str, Any]:
    return {
        "inputs": {
            name: {"dtype": port.dtype, "shape": list(port.shape)}
            for name, port in entry.inputs.items()
        },
        "output": entry.output,
        "graphs": [
            {
                "file": graph.file,
                "format": graph.format,
                "precision": graph.precision,
                "bytes": graph.bytes,
                "sha256": graph.sha256,
                **({"parts": list(graph.parts)} if graph.parts else {}),
            }
            for graph in entry.graphs
        ],
    }


def _from_json(value: Mapping[str, Any]) -> Manifest:
    kind = value["kind"]
    if kind not in ("alignment", "fusion"):
        raise ValueError(f"a bundle of an unknown kind, {shown(kind)}")
    for name in value["files"]:
        _check_name(name)
    return Manifest(
        kind=kind,
        name=str(value["name"]),
        plait=str(value["plait"]),
        towers={name: _tower_from(entry) for name, entry in value["towers"].items()},
        model=str(value["model"]),
        dim=_size(value["dim"], "dim") if kind == "alignment" else None,
        scale=_finite(value["scale"], "scale") if kind == "alignment" else 1.0,
        bias=None if value.get("bias") is None else _finite(value["bias"], "bias"),
        labels=_words(value["labels"], "labels") if kind == "fusion" else (),
        question=None if value.get("question") is None else _word(value["question"], "question"),
        independent=bool(value.get("independent", False)),
        files={name: _word(sha, "files") for name, sha in value["files"].items()},
    )


def _tower_from(value: Mapping[str, Any]) -> TowerEntry:
    return TowerEntry(
        inputs={
            name: Port(_word(port["dtype"], "dtype"), _shape(port["shape"]))
            for name, port in value["inputs"].items()
        },
        output=_word(value["output"], "output"),
        graphs=tuple(_graph_from(graph) for graph in value["graphs"]),
    )


def _graph_from(value: Mapping[str, Any]) -> Graph:
    for name, known in (("format", get_args(Format)), ("precision", get_args(Stored))):
        if value[name] not in known:
            raise ValueError(
                f"a graph's {name} is {shown(value[name])}; it can be {', '.join(known)}"
            )
    parts = _words(value.get("parts", []), "parts")
    for name in (value["file"], *parts):
        _check_name(name)
    return Graph(
        value["file"],
        value["format"],
        value["precision"],
        int(value["bytes"]),
        _word(value["sha256"], "sha256"),
        parts,
    )


def _word(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} must be a string, not {shown(value)}")
    value.encode()  # half a character, as JSON can spell it, is a ValueError
    return value


def _words(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{what} must be a list of strings, not {shown(value)}")
    return tuple(_word(one, what) for one in value)


def _finite(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{what} must be a finite number, not {shown(value)}")
    return float(value)


def _size(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_SIZE:
        raise ValueError(f"{what} must be a size from 1 to {MOST_SIZE:,}, not {shown(value)}")
    return value


def _shape(value: Any) -> tuple[int | str, ...]:
    if not isinstance(value, list) or len(value) > 8:
        raise ValueError(f"a shape must be a list of sizes, not {shown(value)}")
    return tuple(
        _word(one, "shape") if isinstance(one, str) else _size(one, "a size") for one in value
    )


def _check_name(name: str) -> None:
    """A bundle may come from anywhere: its names stay inside it."""
    name = _word(name, "a file name")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise ValueError(f"the file name {shown(name)} leads out of the bundle")
