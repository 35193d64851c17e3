"""From a recipe to modules: the model, its task, and what of it trains in a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plait.core.errors import RecipeError
from plait.encoders.adapt import merge_lora, set_trainable
from plait.encoders.registry import build_encoder
from plait.models.alignment import AlignmentModel, Tower
from plait.models.projection import build_projection
from plait.training import schema
from plait.training.combinations import PARTS, TEMPERATURE
from plait.training.optimise import part_of
from plait.training.tasks import Contrast, ContrastiveTask, Softening

LORA_DEFAULTS: Mapping[str, Any] = {"rank": 8, "alpha": 16}


def build_model(recipe: schema.Recipe) -> AlignmentModel:
    """The untrained model of a recipe; the same weights for the same seed.

    Raises:
        ModelError: an unknown source or option, or weights that are missing.
    """
    torch.manual_seed(recipe.seed)
    model = recipe.model
    towers = {name: _build_tower(name, part, model.dim) for name, part in model.towers.items()}
    return AlignmentModel(
        towers,
        scale_init=1 / model.temperature.init,
        max_scale=model.temperature.max_scale,
        bias_init=model.bias,
    )


def _build_tower(modality: str, tower: schema.Tower, dim: int) -> Tower:
    encoder = build_encoder(
        tower.encoder, modality=modality, pretrained=tower.pretrained, **tower.options
    )
    options = dict(tower.projection.options)
    if tower.projection.dropout is not None:
        options["dropout"] = tower.projection.dropout
    return Tower(encoder, build_projection(tower.projection.kind, encoder.width, dim, **options))


def build_task(model: AlignmentModel, stage: schema.Stage, group: Any = None) -> ContrastiveTask:
    """The objectives of a stage.

    Raises:
        RecipeError: softened targets over several processes.
    """
    if group is not None and any(task.soften is not None for task in stage.tasks):
        raise RecipeError("softened targets (tasks.soften) run in one process: leave them out")
    contrasts = [
        Contrast(
            task.objective,
            task.modalities[0],
            task.modalities[1],
            task.direction,
            task.weight,
            None if task.soften is None else Softening(**task.soften.model_dump()),
        )
        for task in stage.tasks
    ]
    return ContrastiveTask(model, contrasts, group)


def prepare_stage(model: AlignmentModel, recipe: schema.Recipe, number: int) -> None:
    """Freezes, adapts and frees the parts of a model as a stage wants them."""
    stage = recipe.stages[number]
    torch.manual_seed(recipe.seed + 1000 * (number + 1))  # of new LoRA matrices
    for name in model.modalities:
        for kind in PARTS:
            part = stage.part(f"{name}.{kind}")
            given = {
                "rank": part.rank,
                "alpha": part.alpha,
                "targets": part.targets,
            }
            lora = {**LORA_DEFAULTS, **{k: v for k, v in given.items() if v is not None}}
            module: nn.Module = getattr(model.tower(name), kind)
            set_trainable(module, part.mode, **lora if part.mode == "lora" else {})
    learn = recipe.model.temperature.learn and stage.part(TEMPERATURE).mode == "full"
    model.log_scale.requires_grad_(learn)
    if model.bias is not None:
        sigmoid = any(task.objective == "sigmoid" for task in stage.tasks)
        model.bias.requires_grad_(sigmoid and stage.part(TEMPERATURE).mode == "full")


def finish_stage(model: AlignmentModel) -> None:
    """Merges adapters, so that between stages every model has its plain architecture."""
    merge_lora(model)


def changed_before(recipe: schema.Recipe, number: int) -> set[str]:
    """The parts that stages before ``number`` trained."""
    names = [f"{tower}.{kind}" for tower in recipe.model.towers for kind in PARTS] + [TEMPERATURE]
    return {
        name
        for stage in recipe.stages[:number]
        for name in names
        if stage.part(name).mode != "frozen"
    }


def changed_tensors(
    model: nn.Module, trained: Mapping[str, Tensor], before: set[str]
) -> dict[str, Tensor]:
    """What differs from a freshly built model: enough to bring another one to this state.

    Args:
        model: the model.
        trained: what the current stage changes (`plait.training.loop.trained_tensors`).
        before: the parts that earlier stages trained.
    """
    return {
        name: value
        for name, value in model.state_dict().items()
        if name in trained or part_of(name) in before
    }
