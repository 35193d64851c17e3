"""Float candidates: a pruned model that is healed, and a student that is taught.

Both are trained by recipes like any other run, so what they are made of can be read in their
``recipe.yaml``. The teacher is the run that is compressed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from plait.compression.prune import prune
from plait.core.errors import ModelError, UserError
from plait.core.files import read_json
from plait.core.modality import IMAGE, TEXT
from plait.encoders.registry import build_encoder
from plait.models.alignment.alignment import AlignmentModel, Tower
from plait.models.store.files import CONFIG_FILE
from plait.models.store.shared_layers import shared_layers
from plait.models.store.storage import model_spec, save_model
from plait.training.recipe.overrides import apply_overrides
from plait.training.recipe.recipe import check, load_recipe
from plait.training.recipe.schema import Recipe
from plait.training.run.run import train

HEAL_RATE: Final = 1e-4
HEAL_BATCH: Final = 16
WEIGHTS: Final = {True: {"mse": 1.0, "affinity": 1.0}, False: {"mse": 1.0, "affinity": 0.0}}
"""Of the objective ``distil`` in a whole recipe, and in a student with one tower of its own."""
BATCHES_TO_PRUNE_BY: Final = 16
"""Rows of calibration inputs that go through an encoder at a time."""
UNBOUNDED: Final = 1e4
"""Stands in a recipe for a logit scale without a limit (SigLIP's is some 120)."""
Tell = Callable[[str], None]


def pruned_model(
    model: AlignmentModel,
    fraction: float,
    samples: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    tell: Tell,
) -> AlignmentModel:
    """A copy whose towers need ``fraction`` fewer multiply-adds; not healed yet.

    Args:
        model: read only.
        fraction: of each tower's multiply-adds.
        samples: calibration inputs by modality.
        tell: is told what went.

    Raises:
        UserError: more than the blocks can spare, or encoders whose blocks are not known.
        ModelError: towers that share layers.
    """
    if shared_layers(model):
        raise ModelError("towers that share layers cannot be pruned each by itself")
    towers = {}
    for name in model.modalities:
        tower = model.tower(name)
        found = prune(tower.encoder, fraction, _batches(samples[name]))
        towers[name] = Tower(found.encoder, tower.projection)
        kept, before = (sum(pair[k] for pair in found.kept.values()) for k in (0, 1))
        tell(
            f"pruned the {name} encoder: {found.after / 1e6:.1f} of {found.before / 1e6:.1f} million "
            f"multiply-adds; {kept} of {before} units stay in {len(found.kept)} blocks"
        )
    made = AlignmentModel(
        towers,
        scale_init=float(model.scale.detach()),
        max_scale=model.max_scale,
        bias_init=None if model.bias is None else float(model.bias.detach()),
        hubs=model.hubs,
    )
    return made.eval()


def _batches(rows: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Pictures together; texts each alone, as their lengths differ."""
    if "pixels" not in rows[0]:
        return [dict(row) for row in rows]
    found = []
    for start in range(0, len(rows), BATCHES_TO_PRUNE_BY):
        part = rows[start : start + BATCHES_TO_PRUNE_BY]
        found.append({"pixels": np.concatenate([row["pixels"] for row in part])})
    return found


def heal(
    model: AlignmentModel,
    recipe: Recipe,
    teacher: Path,
    folder: Path,
    *,
    steps: int,
    overrides: Sequence[str] = (),
) -> Path:
    """Trains a pruned model for some steps under the unpruned one.

    Args:
        model: pruned.
        recipe: of the run that was pruned: its data and its sizes.
        teacher: the run's folder.
        folder: where ``cut`` (before) and ``healed`` (after) are written.
        steps: updates; 0 leaves the model as it was cut.
        overrides: of the healing's recipe.

    Returns:
        The healed run's folder.
    """
    cut = folder / "cut"
    save_model(model, cut)
    if not steps:
        return cut
    content = recipe.model_dump(mode="json")
    spell_out(content, model_spec(model), teacher)
    content["name"] = f"{recipe.name}-pruned"
    for tower in content["model"]["towers"].values():
        tower |= {"encoder": f"run/{cut}", "options": {}, "vocabulary": None, "pretrained": True}
    content["model"]["init_from"] = {"run": str(cut)}
    parts = {
        f"{name}.{part}": "full" for name in model.modalities for part in ("encoder", "projection")
    }
    if any(t["projection"]["kind"] == "identity" for t in content["model"]["towers"].values()):
        parts = {name: mode for name, mode in parts.items() if name.endswith("encoder")}
    content["stages"] = [
        {
            "name": "heal",
            "tasks": [{"objective": "distil", "teacher": str(teacher)}],
            "train": parts,
            "steps": steps,
            "batch_size": HEAL_BATCH,
            "optimiser": {"kind": "adamw", "lr": HEAL_RATE},
        }
    ]
    content["evaluation"] = {"test": None, "best": False, "every": steps}
    apply_overrides(content, overrides)
    train(check(content, "the recipe that heals"), out=folder / "healed")
    return folder / "healed"


def student_recipe(
    source: str, recipe: Recipe | None, teacher: Path, data: str | None, overrides: Sequence[str]
) -> Recipe:
    """The recipe of a student.

    Args:
        source: an encoder for the tower of its modality (``pkg/efficientnet-lite0``,
            ``text=scratch/transformer``), or a recipe (a built-in name, or a ``.yaml`` file).
        recipe: of the teacher; a student that is given by its encoder takes the rest from it.
        teacher: its run folder.
        data: to train on.
        overrides: ``"model.towers.image.options.size=192"`` and the like.

    Raises:
        UserError: a source that is neither, or a teacher without a recipe.
    """
    whole = source.endswith((".yaml", ".yml")) or "/" not in source
    if whole:
        content = load_recipe(source, data=data).model_dump(mode="json")
    else:
        if recipe is None:
            raise UserError(
                f"--student {source}: {teacher} has no recipe to take the rest from; give a whole "
                "recipe (a .yaml file) as the student"
            )
        content = recipe.model_dump(mode="json")
        spell_out(content, read_json(teacher / CONFIG_FILE), teacher)
        content["data"]["source"] = data or content["data"]["source"]
        modality = exchange(content, source)
        _keep_the_other(content, modality, teacher)
    content["name"] = f"{content['name']}-student"
    for stage in content["stages"]:
        # Beside a tower that is the teacher's own, the teacher's rows are all there is to learn;
        # labels of small data would rather be learned by heart.
        kept = [t for t in stage["tasks"] if whole and t["objective"] != "distil"]
        stage["tasks"] = [*kept, {"objective": "distil", "teacher": str(teacher)} | WEIGHTS[whole]]
    content["evaluation"]["test"] = None
    apply_overrides(content, overrides)
    return check(content, f"the recipe of --student {source}")


def spell_out(content: dict[str, Any], spec: Mapping[str, Any], run: Path) -> None:
    """Puts the sizes of a published model in place of its name, so that parts can be exchanged.

    Args:
        content: of a recipe; changed in place where it trains a published model on.
        spec: of the model that the recipe gave (`plait.models.store.storage.model_spec`).
        run: its folder, where encoders come from.
    """
    model = content["model"]
    if model["published"] is None:
        return
    for name, part in spec["towers"].items():
        options = {k: v for k, v in part["projection"].items() if k not in ("kind", "width", "dim")}
        model["towers"][name] |= {
            "encoder": f"run/{run}",
            "projection": {"kind": part["projection"]["kind"], "options": options},
        }
        model["dim"] = part["projection"]["dim"]
    model["temperature"]["max_scale"] = spec["max_scale"] or UNBOUNDED
    model |= {"published": None, "wise_ft": None, "bias": 0.0 if spec["bias"] else None}


def _keep_the_other(content: dict[str, Any], modality: str, teacher: Path) -> None:
    """The tower that is not exchanged is the teacher's, and rests.

    So rows of its modality, and the part of an index that holds them, stay the same (after the
    weight inheritance of Wu et al. 2023, "TinyCLIP", of a whole tower).
    """
    content["model"]["init_from"] = {"run": str(teacher), "leave": [f"towers.{modality}"]}
    for stage in content["stages"]:
        for other in content["model"]["towers"]:
            if other != modality:
                parts = (f"{other}.encoder", f"{other}.projection")
                stage["train"] |= {key: {"mode": "frozen"} for key in parts}


def exchange(content: dict[str, Any], source: str) -> str:
    """Puts an encoder into the tower of its modality; options that it has not are left out.

    Args:
        content: of a recipe; changed in place.
        source: ``pkg/efficientnet-lite0``, or ``text=scratch/transformer``.

    Returns:
        The modality.

    Raises:
        UserError: no tower of the model takes it.
    """
    asked, equals, name = source.partition("=")
    wanted = (asked,) if equals else (IMAGE, TEXT)
    name = name if equals else source
    towers = content["model"]["towers"]
    problems = []
    for modality in wanted:
        if modality not in towers:
            raise UserError(f"--student {source}: the model has no tower {modality!r}")
        options = towers[modality]["options"]
        try:
            kept = _accepted(name, modality, options)
        except ModelError as problem:
            problems.append(str(problem))
            continue
        untrained = name.startswith("scratch/")
        towers[modality] |= {"encoder": name, "options": kept, "pretrained": True}
        if not untrained:
            towers[modality]["vocabulary"] = None
        content["model"] |= {"init_from": None, "shared_layers": 0}
        for stage in content["stages"]:
            if untrained:
                stage["train"][f"{modality}.encoder"] = {"mode": "full"}
        return modality
    raise UserError(f"--student {source}: {problems[-1]}")


def _accepted(source: str, modality: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that an encoder has.

    Raises:
        ModelError: an unknown encoder, or one of another modality.
    """
    kept = dict(options)
    while True:
        try:
            build_encoder(source, modality=modality, pretrained=False, **kept)
            return kept
        except ModelError as problem:
            foreign = [name for name in kept if f"has no option {name!r}" in str(problem)]
            if not foreign:
                raise
            kept.pop(foreign[0])
