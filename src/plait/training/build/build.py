"""From a recipe to modules: the model, its task, and what of it trains in a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from plait.core.errors import RecipeError
from plait.core.modality import IMAGE, TEXT
from plait.modalities.text.tokenize import TextPreprocess
from plait.modalities.text.tokenizer_training import train_tokenizer
from plait.nn.adapt import merge_lora, set_trainable
from plait.encoders.base.base import Encoder
from plait.encoders.registry import build_encoder
from plait.encoders.compose.sharing import share_blocks
from plait.fusion.base import Fusion
from plait.models.alignment.alignment import AlignmentModel, Tower
from plait.models.bridged.model import BridgedModel
from plait.models.drawing.drawing import DrawingModel
from plait.models.fusion.model import FusionModel
from plait.models.base.heads import AnyHead, Head, TokenHead
from plait.models.fusion.joints import build_joint
from plait.models.store.kinds import Model
from plait.models.base.memory import check_sizes, within_memory
from plait.models.base.projection import Projection, build_projection
from plait.models.store.shared_layers import other_names
from plait.models.systems.base import System
from plait.training.recipe import schema
from plait.training.recipe import model as schema_model
from plait.training.recipe import stage as schema_stage
from plait.training.tasks.balance import Balance
from plait.training.build.bridged import build_bridged
from plait.training.build.drawing import build_drawing
from plait.training.tasks.distilling import DISTIL, DistilTask, distil_of, distillation_of
from plait.training.tasks.drawing import DrawTask, DvaeTask
from plait.training.tasks.fusion_tasks import FusionTask, Objective, special_ids
from plait.training.build.init_from import tokenizer_of
from plait.training.loop.optimise import part_of
from plait.training.recipe.parts import (
    BRIDGE,
    DVAE,
    FUSION,
    GATES,
    HEADS,
    LANGUAGE,
    PARTS,
    TEMPERATURE,
    TRANSFORMER,
    part_names,
)
from plait.training.tasks.qformer_task import QFORMER, QFormerTask, rest_text_branch
from plait.training.build.start import start_of
from plait.training.loop.task import Task
from plait.training.tasks.tasks import Contrast, ContrastiveTask, Softening
from plait.training.tasks.writing import WriteTask

LORA_DEFAULTS: Mapping[str, Any] = {"rank": 8, "alpha": 16}


def build_model(
    recipe: schema.Recipe,
    texts: Sequence[str] = (),
    labels: Mapping[str, Sequence[str]] | None = None,
) -> Model:
    """The untrained model of a recipe; the same weights for the same seed.

    Args:
        recipe: what to build.
        texts: of the training split, for tokenizers that are trained on them.
        labels: what heads choose from: ``answer``, ``classify``.

    Raises:
        ModelError: an unknown source or option, weights that are missing, or layers that the towers
            cannot share.
    """
    check_sizes(recipe.model.model_dump(mode="json"), "model")
    torch.manual_seed(recipe.seed)
    with within_memory(f"the model of the recipe {recipe.name!r:.100}"):
        model = _build_model(recipe, texts, labels)
    if recipe.data.levels is not None:
        levels = recipe.data.levels.as_settings()
        for module in model.modules():
            if isinstance(module, Encoder):
                module.take_levels(levels)
    return model


def _build_model(
    recipe: schema.Recipe, texts: Sequence[str], labels: Mapping[str, Sequence[str]] | None
) -> Model:
    model = recipe.model
    if model.kind == "drawing":
        return build_drawing(recipe, texts)
    if any(tower.encoder == schema_model.PUBLISHED for tower in model.towers.values()):
        return start_of(recipe)
    run = None if model.init_from is None else model.init_from.run
    encoders = {name: _build_encoder(name, part, texts, run) for name, part in model.towers.items()}
    share_blocks(encoders, model.shared_layers)
    if model.kind == "fusion":
        return _build_fusion(recipe, encoders, labels or {})
    if model.kind == "bridge":
        return build_bridged(recipe, encoders[IMAGE], texts)
    towers = {
        name: Tower(encoders[name], _build_projection(part, encoders[name].width, model.dim))
        for name, part in model.towers.items()
    }
    return AlignmentModel(
        towers,
        scale_init=1 / model.temperature.init,
        max_scale=model.temperature.max_scale,
        bias_init=model.bias,
    )


def _build_encoder(
    modality: str, tower: schema_model.Tower, texts: Sequence[str], run: str | None
) -> Encoder:
    options = dict(tower.options)
    if tower.vocabulary is not None and run is not None:
        options["tokenizer"] = tokenizer_of(run, modality)
    elif tower.vocabulary is not None:
        options["tokenizer"] = train_tokenizer(
            texts, kind=tower.vocabulary.kind, vocabulary=tower.vocabulary.size
        )
    return build_encoder(tower.encoder, modality=modality, pretrained=tower.pretrained, **options)


def _build_projection(tower: schema_model.Tower, width: int, dim: int) -> Projection:
    options = dict(tower.projection.options)
    if tower.projection.dropout is not None:
        options["dropout"] = tower.projection.dropout
    return build_projection(tower.projection.kind, width, dim, **options)


def _build_fusion(
    recipe: schema.Recipe, encoders: Mapping[str, Encoder], labels: Mapping[str, Sequence[str]]
) -> FusionModel:
    model = recipe.model
    assert model.fusion is not None
    options = {**model.sizes.get(model.fusion.kind, {}), **model.fusion.options}
    joint = build_joint(model.fusion.kind, encoders, model.dim, **options)
    objectives: set[str] = {task.objective for stage in recipe.stages for task in stage.tasks}
    _check_parts(model.fusion.kind, joint, objectives)
    heads: dict[str, AnyHead] = {
        name: Head(joint.width, labels[name], about=_about(recipe, name))
        for name in ("answer", "classify")
        if name in labels
    }
    if objectives & {"match", "wra"}:
        about = _about(recipe, "match") or _about(recipe, "wra")
        heads["match"] = Head(joint.width, ("apart", "together"), about=about)
    if "mlm" in objectives:
        special_ids(encoders[TEXT].preprocess)
        read = encoders[TEXT].preprocess
        assert isinstance(read, TextPreprocess)
        width = joint.text_width if isinstance(joint, System) else joint.width
        heads["mlm"] = TokenHead(width, read.vocabulary)
    if "mrfr" in objectives:
        if not isinstance(joint, System):
            raise RecipeError(
                f"mrfr hides regions from a system such as uniter; {model.fusion.kind} has no way to"
            )
        heads["mrfr"] = TokenHead(joint.image_width, joint.region_width)
    return FusionModel(encoders, joint, heads, without=recipe.data.without)


def _about(recipe: schema.Recipe, objective: str) -> dict[str, str]:
    """What evaluations must know of a task: that of the last stage that has it."""
    found: dict[str, str] = {}
    for stage in recipe.stages:
        for task in stage.tasks:
            if task.objective == objective:
                found = {"loss": task.loss} if objective == "answer" else {}
                if objective == "classify":
                    found["label"] = task.label
                text = task.text or stage.text
                if text is not None:
                    found["text"] = text
    return found


def _check_parts(kind: str, joint: Fusion | System, objectives: set[str]) -> None:
    """Sees that a way of joining keeps the tokens that objectives read.

    Raises:
        RecipeError: it does not.
    """
    kept = (TEXT, IMAGE) if isinstance(joint, System) else joint.keeps
    for objective, needed in (("mlm", (TEXT,)), ("wra", (TEXT, IMAGE))):
        missing = [name for name in needed if name not in kept]
        if objective in objectives and missing:
            raise RecipeError(
                f"{objective} reads the tokens of {' and '.join(missing)} after fusion, and {kind} "
                "keeps none: take shared_attention, co_attention, or a system"
            )
    if "wra" in objectives and isinstance(joint, System) and joint.text_width != joint.image_width:
        raise RecipeError(
            f"wra compares words and regions, but {kind} gives words of {joint.text_width} and "
            f"regions of {joint.image_width} features: make them equal in model.fusion.options"
        )


def build_task(model: Model, stage: schema_stage.Stage, group: Any = None) -> Task:
    """The objectives of a stage.

    Raises:
        RecipeError: see `contrastive_task`.
    """
    if isinstance(model, FusionModel):
        objectives = [
            Objective(task.objective, task.weight, task.loss, task.negatives)
            for task in stage.tasks
        ]
        balance = model.balance
        assert balance is None or isinstance(balance, Balance)
        return FusionTask(model, objectives, balance, group)
    if isinstance(model, BridgedModel):
        return QFormerTask(model) if stage.tasks[0].objective == QFORMER else WriteTask(model)
    if isinstance(model, DrawingModel):
        (one,) = stage.tasks
        if one.objective == "draw":
            return DrawTask(model, one.drop_text, one.image_weight, one.disturb)
        return DvaeTask(model, one.temperature, one.kl_weight, one.balance_weight)
    contrastive, distil = contrastive_task(model, stage, group), distil_of(stage)
    if distil is None:
        return contrastive
    if group is not None:
        raise RecipeError("distillation (the objective distil) runs in one process: start one")
    alone = all(task.objective == DISTIL for task in stage.tasks)
    return DistilTask(contrastive, distillation_of(distil), alone=alone)


def contrastive_task(
    model: AlignmentModel, stage: schema_stage.Stage, group: Any = None
) -> ContrastiveTask:
    """The contrastive objectives of a stage; plain InfoNCE where it has a teacher alone.

    Raises:
        RecipeError: softened targets over several processes, or the sigmoid without a bias.
    """
    if group is not None and any(task.soften is not None for task in stage.tasks):
        raise RecipeError("softened targets (tasks.soften) run in one process: leave them out")
    contrasts = [
        Contrast(
            "sigmoid" if _is_sigmoid(model, task) else "info_nce",
            task.modalities[0],
            task.modalities[1],
            task.direction,
            task.weight,
            None if task.soften is None else Softening(**task.soften.model_dump()),
        )
        for task in stage.tasks
        if task.objective != DISTIL
    ]
    return ContrastiveTask(model, contrasts or [Contrast()], group)


def _is_sigmoid(model: AlignmentModel, task: schema_stage.Task) -> bool:
    """Whether a contrastive objective is SigLIP's; ``published`` is, where the model has a bias.

    Raises:
        RecipeError: it is, and the model has none.
    """
    if task.objective == "sigmoid" and model.bias is None:
        raise RecipeError(
            "the sigmoid objective needs a bias, and the published model has none: set the "
            "objective to published or info_nce"
        )
    return task.objective == "sigmoid" or (task.objective == "published" and model.bias is not None)


def prepare_stage(model: Model, recipe: schema.Recipe, number: int) -> None:
    """Freezes, adapts and frees the parts of a model as a stage wants them."""
    stage = recipe.stages[number]
    torch.manual_seed(recipe.seed + 1000 * (number + 1))  # of new LoRA matrices
    for name, module in parts_of(model).items():
        part = stage.part(name)
        given = {"rank": part.rank, "alpha": part.alpha, "targets": part.targets}
        lora = {**LORA_DEFAULTS, **{k: v for k, v in given.items() if v is not None}}
        last = {} if part.blocks is None else {"blocks": part.blocks}
        options = {"lora": lora, "last": last}.get(part.mode, {})
        set_trainable(module, part.mode, **options)
    if isinstance(model, FusionModel):
        names = [task.objective for task in stage.tasks]
        device = next(model.parameters()).device
        model.balance = Balance(names, stage.balance).to(device) if len(names) > 1 else None
        return
    if isinstance(model, BridgedModel):
        if stage.tasks[0].objective != QFORMER:
            rest_text_branch(model)
        return
    if isinstance(model, DrawingModel):
        return
    learn = recipe.model.temperature.learn and stage.part(TEMPERATURE).mode == "full"
    model.log_scale.requires_grad_(learn)
    if model.bias is not None:
        sigmoid = any(_is_sigmoid(model, task) for task in stage.tasks)
        model.bias.requires_grad_(sigmoid and stage.part(TEMPERATURE).mode == "full")


def parts_of(model: Model) -> dict[str, nn.Module]:
    """The modules that stages freeze or train, by the names that recipes use."""
    if isinstance(model, FusionModel):
        encoders: dict[str, nn.Module] = {
            f"{name}.encoder": model.tower(name).encoder for name in model.modalities
        }
        return {**encoders, FUSION: model.joint, HEADS: model.heads}
    if isinstance(model, BridgedModel):
        parts = {f"{IMAGE}.encoder": model.tower(IMAGE).encoder, BRIDGE: model.bridge}
        if model.gates is not None:
            parts[GATES] = model.gates
        return {**parts, LANGUAGE: model.language}
    if isinstance(model, DrawingModel):
        return {DVAE: model.dvae, TRANSFORMER: model.transformer}
    return {
        f"{name}.{kind}": getattr(model.tower(name), kind)
        for name in model.modalities
        for kind in PARTS
    }


def finish_stage(model: nn.Module) -> None:
    """Merges adapters, so that between stages every model has its plain architecture."""
    merge_lora(model)
    if isinstance(model, FusionModel):
        model.balance = None


def changed_before(recipe: schema.Recipe, number: int) -> set[str]:
    """The parts that stages before ``number`` trained."""
    return {
        name
        for stage in recipe.stages[:number]
        for name in part_names(recipe)
        if stage.part(name).mode != "frozen"
    }


def changed_tensors(
    model: Model, trained: Mapping[str, Tensor], before: set[str]
) -> dict[str, Tensor]:
    """What differs from a freshly built model: enough to bring another one to this state.

    Weights that towers share are in it once, as in ``trained``: under their first name.

    Args:
        model: the model.
        trained: what the current stage changes (`plait.training.loop.loop.trained_tensors`).
        before: the parts that earlier stages trained.
    """
    again = other_names(model)
    return {
        name: value
        for name, value in model.state_dict().items()
        if name not in again and (name in trained or part_of(name) in before)
    }
