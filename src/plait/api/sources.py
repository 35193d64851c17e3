"""What every duty takes: models by folder or as they are, and splits of data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from plait.core.errors import DataError, UserError, shown

if TYPE_CHECKING:
    from plait.data import PairDataset
    from plait.models.alignment.alignment import AlignmentModel
    from plait.models.store.kinds import Model
    from plait.training.recipe.schema import Data

Source = str | Path
Roots = str | Path | Sequence[str | Path] | None


def load(
    path: Source | Model,
    *,
    device_map: str | Mapping[str, int | str] | None = None,
    max_memory: Mapping[int | str, int | str] | None = None,
    offload: Source | None = None,
) -> Model:
    """A trained model (`AlignmentModel` or `FusionModel`) from a run folder, or from a published CLIP or SigLIP checkpoint's folder.

    A model that is loaded already comes back as it is: `classify` and `ask` take one too.

    Args:
        path: the folder.
        device_map: for a model larger than one device (see `plait.models.base.dispatch.dispatched`):
            ``auto``, or a device by part (``{"towers.image": 0, "towers.text": "cpu"}``).
        max_memory: by device, at most so much.
        offload: a folder for weights that fit nowhere else.

    Raises:
        UserError: a device map that leaves parts out, or weights that fit nowhere.
        ModelError: the folder holds neither, or a weight is missing, left over or of another shape.
    """
    from plait.models.store.loading import open_model

    model = open_model(Path(path)) if isinstance(path, str | Path) else path
    if device_map is None:
        return model
    from plait.models.base.dispatch import dispatched

    return dispatched(model, device_map, max_memory=max_memory, offload=offload)


def aligned_model(path: Source | Model, duty: str) -> AlignmentModel:
    """A model that embeds.

    Raises:
        ModelError: the run holds another kind.
    """
    from plait.models.store.kinds import aligned

    return aligned(load(path), duty)


def data_of(run: Source) -> Data:
    """The data that a run was trained on: source, names of columns, where files may lie."""
    from plait.training.recipe.recipe import read_run_recipe

    data = read_run_recipe(Path(run)).data
    if data.source is None:
        raise UserError(f"the recipe of {run} names no data: give --data PATH")
    return data


def data_overrides(root: Roots, allow_outside: bool, encoding: str | None) -> list[str]:
    """Changes of a recipe that state where files may lie, and how texts are written."""
    roots = root if root is None or isinstance(root, str | Path) else [str(one) for one in root]
    stated = [] if roots is None else [roots if isinstance(roots, list) else str(roots)]
    changes = [f"data.root={json.dumps(one)}" for one in stated]
    changes += ["data.allow_outside=true"] if allow_outside else []
    return changes + ([] if encoding is None else [f"data.encoding={json.dumps(encoding)}"])


def open_split(
    source: Source,
    split: str,
    on_bad_row: str,
    columns: Mapping[str, str] | None = None,
    *,
    root: Roots = None,
    allow_outside: bool = False,
    encoding: str | None = None,
    every_picture: bool = False,
) -> PairDataset:
    """A split of a data set.

    Raises:
        DataError: it has no samples.
    """
    from plait.data import open_dataset
    from plait.data.base.notes import with_notes

    dataset = open_dataset(
        source,
        columns=columns,
        on_bad_row=checked_policy(on_bad_row),
        root=root,
        allow_outside=allow_outside,
        encoding=encoding,
        every_picture=every_picture,
    )
    part = dataset.split(split)
    if not len(part):
        problem = f"no samples in the split {split!r}"
        raise DataError(with_notes(problem, dataset.notes), path=str(source))
    return part


def checked_policy(on_bad_row: str) -> Literal["fail", "skip"]:
    """The policy of that name. Raises UserError for another."""
    if on_bad_row == "fail":
        return "fail"
    if on_bad_row == "skip":
        return "skip"
    raise UserError(f"--on-bad-row is 'fail' or 'skip', not {on_bad_row!r}")


def checked_equal_texts(run: Source, equal_texts: str | None) -> Literal["same", "apart"]:
    """Whether equal texts are one; None: as the run's recipe has it, if there is one."""
    if equal_texts == "same":
        return "same"
    if equal_texts == "apart":
        return "apart"
    if equal_texts is not None:
        raise UserError(f"--equal-texts is 'same' or 'apart', not {shown(equal_texts)}")
    from plait.training.recipe.recipe import RUN_RECIPE, read_run_recipe

    folder = Path(run)
    if not (folder / RUN_RECIPE).is_file():
        return "same"
    return read_run_recipe(folder).data.equal_texts
