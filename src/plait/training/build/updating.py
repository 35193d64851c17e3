"""What makes the updates of a stage, for training and for measuring what it costs."""

from __future__ import annotations

from typing import Any

from torch import distributed

from plait.models.store.kinds import Model
from plait.training.build import build
from plait.training.loop.optimise import build_optimiser, parameter_groups
from plait.training.loop.precision import resolve
from plait.training.recipe.stage import Stage
from plait.training.loop.update import Updater


def trains_encoder(model: Model, stage: Stage) -> bool:
    """Whether any tower's encoder changes in a stage."""
    return any(stage.part(f"{tower}.encoder").mode != "frozen" for tower in model.modalities)


def updater_of(model: Model, stage: Stage, accelerator: Any) -> Updater:
    """The updater of a stage, at its beginning.

    Args:
        model: prepared for the stage (`plait.training.build.build.prepare_stage`), on its device.
        stage: what trains, by which optimiser.
        accelerator: device and processes (`accelerate.Accelerator`).

    Raises:
        RecipeError: the objectives cannot run in several processes.
    """
    dtype = resolve(
        stage.precision, accelerator.device, trains_encoder=trains_encoder(model, stage)
    )
    group = distributed.group.WORLD if accelerator.num_processes > 1 else None
    return Updater(
        model,
        build.build_task(model, stage, group),
        build_optimiser(parameter_groups(model, stage), stage.optimiser),
        accelerator,
        dtype=dtype,
        clip=stage.clip,
        chunk=stage.chunk,
        after=model.clamp_scale,
    )
