"""``manifest.json`` of an index: which model made it, and what it holds."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.core.errors import DataError, SearchIndexError, shown
from plait.core.files import digest, read_regular, write_json
from plait.core.modality import IMAGE, TEXT
from plait.core.version import __version__
from plait.retrieval.index.roots import is_own, seal
from plait.retrieval.store.corrected import EXTRA

if TYPE_CHECKING:  # reading a manifest needs no torch
    from plait.models.alignment.alignment import AlignmentModel

NAME = "manifest.json"
VERSION = 3  # 1 knew no `corrected`, 2 no roots
MOST_BYTES = 16 << 20  # of a manifest
MOST_FEATURES = 65_536  # of a vector


@dataclass(frozen=True)
class Manifest:
    """What an index was made with.

    Attributes:
        dim: features of the model's vectors.
        model: fingerprint of the model (see `model_fingerprint`).
        run: the model's folder, absolute; None when it was never saved.
        run_relative: the same seen from the index, so that both may move together.
        columns: metadata keys that a filter may name.
        modalities: of the rows.
        corrected: scores are corrected for hubs (see `plait.retrieval.store.corrected`).
        roots: folders of the data, absolute: pictures below them may be shown.
        seal: proves that this user stated the roots (see `plait.retrieval.index.roots`).
        created_by: the version of plait.
        created: when, in UTC.
    """

    dim: int
    model: str
    run: str | None = None
    run_relative: str | None = None
    columns: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    corrected: bool = False
    roots: tuple[str, ...] = ()
    seal: str = ""
    created_by: str = f"plait {__version__}"
    created: str = ""

    @property
    def stored_dim(self) -> int:
        """Features of a vector in the store."""
        return self.dim + (EXTRA if self.corrected else 0)

    @property
    def own_roots(self) -> tuple[str, ...]:
        """The roots, if this user stated them; those of a stranger do not count."""
        return self.roots if is_own(self.model, self.roots, self.seal) else ()

    def with_roots(self, more: Sequence[str]) -> Manifest:
        """The same with more roots, sealed."""
        known = self.own_roots
        if known and set(more) <= set(known):
            return self
        roots = united(known, more)
        return replace(self, roots=roots, seal=seal(self.model, roots))

    def save(self, folder: Path) -> None:
        """Writes the manifest of the index in ``folder``, in one step."""
        write_json(folder / NAME, {"format": "plait-index", "version": VERSION, **asdict(self)})


def new_manifest(model: AlignmentModel, folder: Path, run: Path | None) -> Manifest:
    """The manifest of an empty index that is to stand in ``folder``."""
    absolute = None if run is None else run.resolve()
    return Manifest(
        dim=model.dim,
        model=model_fingerprint(model),
        run=None if absolute is None else str(absolute),
        run_relative=None if absolute is None else os.path.relpath(absolute, folder.resolve()),
        corrected=model.hubs is not None,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an index.

    Raises:
        SearchIndexError: there is no index, a damaged one, or one of a newer plait.
    """
    path = folder / NAME
    if not path.exists():
        raise SearchIndexError(f"{folder} is no index of plait: it has no {NAME} (plait index)")
    try:
        stored = json.loads(read_regular(path, most_bytes=MOST_BYTES))
        kind, version = stored.pop("format"), stored.pop("version")
    except DataError as error:
        raise SearchIndexError(str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        raise SearchIndexError(f"{path} is damaged: index the data again") from error
    if kind != "plait-index":
        raise SearchIndexError(f"{path} is of the kind {shown(kind)}, not an index of plait")
    if isinstance(version, int) and version > VERSION:
        made_by = shown(stored.get("created_by"))
        raise SearchIndexError(f"{folder} was made by a newer plait ({made_by})")
    manifest = _parsed(stored)
    if manifest is None:
        raise SearchIndexError(f"{path} is damaged: index the data again")
    return manifest


_KINDS: dict[str, Any] = {"dim": int, "corrected": bool, "run": (str, type(None))}
_KINDS |= {"run_relative": _KINDS["run"]}
_TUPLES = ("columns", "modalities", "roots")


def _parsed(stored: dict[str, Any]) -> Manifest | None:
    """The manifest; None where a field is missing, unknown or of another type."""
    if not {"dim", "model", "columns", "modalities"} <= stored.keys():
        return None
    if not stored.keys() <= {entry.name for entry in fields(Manifest)}:
        return None
    for name, value in stored.items():
        if name in _TUPLES:
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                return None
            stored[name] = tuple(value)
        elif not isinstance(value, _KINDS.get(name, str)) or (name == "dim" and value is True):
            return None
    manifest = Manifest(**stored)
    fits = 1 <= manifest.dim <= MOST_FEATURES and set(manifest.modalities) <= {IMAGE, TEXT}
    return manifest if fits else None


def run_folder(manifest: Manifest, folder: Path) -> Path:
    """Where the model of an index is, also after both moved together.

    Raises:
        SearchIndexError: it is nowhere.
    """
    if manifest.run is None or manifest.run_relative is None:
        raise SearchIndexError(
            f"{folder} was made by a model that was not saved: name the model's folder (--run RUN)"
        )
    for place in (folder / manifest.run_relative, Path(manifest.run)):
        if place.is_dir():
            return place
    raise SearchIndexError(
        f"the model of {folder} is no longer in {manifest.run}: name its folder (--run RUN)"
    )


def model_fingerprint(model: AlignmentModel) -> str:
    """16 hex digits of all weights, the towers' preprocessing and a correction for hubs."""
    from plait.models.store.files import weights_fingerprint

    parts = [model.tower(name).encoder.preprocess.fingerprint for name in sorted(model.modalities)]
    if model.hubs is not None:
        parts.append(json.dumps(model.hubs.spec(), sort_keys=True))
    return digest(weights_fingerprint(model), *parts)


def check_same_model(manifest: Manifest, fingerprint: str, folder: Path) -> None:
    """Refuses a model that did not make the index: its vectors mean something else.

    Raises:
        SearchIndexError: naming both fingerprints.
    """
    if fingerprint != manifest.model:
        raise SearchIndexError(
            f"{folder} was made by the model with the fingerprint {manifest.model}, but this model "
            f"has the fingerprint {fingerprint}: use the model that made the index"
            f"{f' ({manifest.run})' if manifest.run else ''}, or index the data anew"
        )


def united(old: Sequence[str], new: Sequence[str]) -> tuple[str, ...]:
    """Names of both, sorted, each once."""
    return tuple(sorted({*old, *new}))
