"""What is wrong in a recipe although every key and type is right."""

from __future__ import annotations

from collections.abc import Iterator

from plait.core.errors import RecipeError, did_you_mean
from plait.core.modality import IMAGE, MODALITIES, TEXT
from plait.training.recipe import sharing
from plait.training.recipe.bridge_faults import bridge_faults
from plait.training.recipe.drawing_faults import drawing_faults, drawing_stage_faults
from plait.training.recipe.parts import LANGUAGE, TEMPERATURE, part_names
from plait.training.recipe.published_faults import published_faults
from plait.training.recipe.schema import Recipe
from plait.training.recipe.stage import CONTRASTIVE, Stage, Task

Place = tuple[str | int, ...]
Fault = tuple[Place, str]

METRICS = {
    "alignment": (
        "mean_recall",
        *(f"{way}.R@{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)),
        "loss",
    ),
    "fusion": ("vqa.accuracy", "classification.accuracy", "match.accuracy", "loss"),
    "bridge": ("vqa.accuracy", "loss"),
    "drawing": ("loss",),
}
"""What a model of each kind can be chosen by; the first is the default."""
OWNERS = {
    "unknown_answers": ("answer",),
    "negatives": ("match", "wra"),
    "prompt": ("write",),
    "target": ("write", "qformer"),
    "shots": ("write",),
    "temperature": ("dvae",),
    "kl_weight": ("dvae",),
    "balance_weight": ("dvae",),
    "drop_text": ("draw",),
    "disturb": ("draw",),
    "image_weight": ("draw",),
    "teacher": ("distil",),
    "mse": ("distil",),
    "affinity": ("distil",),
    "interactive": ("distil",),
}
"""The objectives that a key of a task belongs to."""
OBJECTIVES = {
    "alignment": (*CONTRASTIVE, "distil"),
    "fusion": ("answer", "classify", "match", "wra", "mlm", "mrfr"),
    "bridge": ("write", "qformer"),
    "drawing": ("dvae", "draw"),
}


def watched_metric(recipe: Recipe, stage: Stage) -> str:
    """What the evaluations of a stage are compared by.

    The recipe's metric where the stage has a task that gives it; else the first that its tasks do.
    """
    given = [name for name in METRICS[recipe.model.kind] if _measures(stage, name)]
    wanted = recipe.evaluation.metric
    return wanted if wanted in given else given[0]


def _measures(stage: Stage, metric: str) -> bool:
    """Whether a stage's tasks give a metric."""
    needs = {"vqa": {"answer"}, "classification": {"classify"}, "match": {"match", "wra"}}
    wanted = needs.get(metric.partition(".")[0])
    written = metric == "vqa.accuracy" and any(_writes_answers(task) for task in stage.tasks)
    return wanted is None or written or any(task.objective in wanted for task in stage.tasks)


def _writes_answers(task: Task) -> bool:
    return task.objective == "write" and task.target == "{answer}"


def faults(recipe: Recipe) -> Iterator[Fault]:
    """Every impossible combination, as its place in the recipe and a message."""
    yield from _level_faults(recipe)
    yield from _model_faults(recipe)
    metric, known_metrics = recipe.evaluation.metric, METRICS[recipe.model.kind]
    if metric is not None and metric not in known_metrics:
        known = ", ".join(known_metrics)
        hint = did_you_mean(metric, known_metrics)
        yield ("evaluation", "metric"), f"{metric!r} is not measured{hint} (known: {known})"
    for number, stage in enumerate(recipe.stages):
        for place, message in _stage_faults(recipe, stage):
            yield ("stages", number, *place), message


def _level_faults(recipe: Recipe) -> Iterator[Fault]:
    if recipe.data.levels is None:
        return
    if recipe.model.kind == "drawing":
        yield ("data", "levels"), "drawing models have none: they take pictures of 8 bits"
    try:
        recipe.data.levels.as_settings()
    except RecipeError as error:
        yield ("data", "levels"), str(error)


def _model_faults(recipe: Recipe) -> Iterator[Fault]:
    model = recipe.model
    heat = model.temperature
    if not 1 / heat.max_scale <= heat.init * (1 + 1e-6) or heat.init > 1:
        yield (
            ("model", "temperature", "init"),
            f"{heat.init:g} is not between 1 / max_scale = {1 / heat.max_scale:g} and 1",
        )
    if model.kind == "bridge":
        yield from bridge_faults(recipe)
    elif model.kind == "drawing":
        yield from drawing_faults(recipe)
    elif len(model.towers) < 2:
        yield (
            ("model", "towers"),
            f"an {model.kind} needs two towers, not {len(model.towers)}".replace("an f", "a f"),
        )
    for name in recipe.data.without:
        if name not in model.towers:
            hint = did_you_mean(name, model.towers)
            yield ("data", "without"), f"the model has no tower {name!r}{hint}"
        elif model.kind != "fusion" or len(set(recipe.data.without)) >= len(model.towers):
            yield ("data", "without"), "a fusion model can do without some of its modalities"
    if model.hubs is not None:
        yield from _hub_faults(recipe)
    yield from sharing.model_faults(recipe)
    yield from published_faults(recipe)
    if model.kind == "fusion":
        yield from _fusion_faults(recipe)
    elif model.fusion is not None:
        yield ("model", "fusion"), "belongs to models of kind fusion: set model.kind to fusion"
    for name, tower in model.towers.items():
        place = ("model", "towers", name)
        if name not in MODALITIES:
            hint = did_you_mean(name, MODALITIES)
            yield place, f"not a modality{hint} (known: {', '.join(MODALITIES)})"
        if tower.projection.kind == "identity" and tower.projection.dropout:
            yield (*place, "projection", "dropout"), "an identity projection has no dropout"
        always_frozen = all(s.part(f"{name}.encoder").mode == "frozen" for s in recipe.stages)
        has_weights = tower.encoder != "scratch/tokens"
        untrained = tower.encoder.startswith("scratch/") or not tower.pretrained
        if not _shown(recipe):
            continue
        if always_frozen and untrained and has_weights and model.init_from is None:
            yield (
                (*place, "encoder"),
                f"{tower.encoder} starts from random weights and no stage trains it: set "
                f"stages.0.train.{name}.encoder to full, or take a pretrained encoder",
            )


def _shown(recipe: Recipe) -> bool:
    """Whether any task shows pictures; those of a language model may be of texts alone."""
    tasks = [task for stage in recipe.stages for task in stage.tasks]
    return recipe.model.kind != "bridge" or any("<image>" in task.prompt for task in tasks)


def _hub_faults(recipe: Recipe) -> Iterator[Fault]:
    model, hubs = recipe.model, recipe.model.hubs
    assert hubs is not None
    if model.kind == "fusion":
        yield ("model", "hubs"), "corrects the cosines of alignment models: leave it out"
        return
    for name in (IMAGE, TEXT):
        if name not in model.towers:
            yield ("model", "hubs"), f"corrects search from words to pictures: no tower {name!r}"
    if hubs.neighbours > hubs.bank:
        yield (
            ("model", "hubs", "neighbours"),
            f"{hubs.neighbours} neighbours are more than the bank of {hubs.bank} holds",
        )


def _fusion_faults(recipe: Recipe) -> Iterator[Fault]:
    # They load torch, which other recipes need only later.
    from plait.models.fusion.joints import JOINTS
    from plait.models.systems.registry import SYSTEMS

    model = recipe.model
    if model.fusion is None:
        yield (
            ("model", "fusion"),
            f"a fusion model needs to know how: set model.fusion (known: {', '.join(JOINTS)})",
        )
    elif model.fusion.kind not in JOINTS:
        hint = did_you_mean(model.fusion.kind, JOINTS)
        yield (
            ("model", "fusion", "kind"),
            f"no fusion {model.fusion.kind!r}{hint} (known: {', '.join(JOINTS)})",
        )

    reads_ids = model.fusion is not None and model.fusion.kind in SYSTEMS
    for name, tower in model.towers.items():
        if tower.encoder == "scratch/tokens" and model.fusion is not None and not reads_ids:
            yield (
                ("model", "towers", name, "encoder"),
                "scratch/tokens is a tokenizer alone, for systems that embed words themselves "
                f"({', '.join(SYSTEMS)}): take scratch/transformer for {model.fusion.kind}",
            )
    for kind in model.sizes:
        if kind not in JOINTS:
            yield ("model", "sizes", kind), f"no fusion {kind!r}{did_you_mean(kind, JOINTS)}"


def _stage_faults(recipe: Recipe, stage: Stage) -> Iterator[Fault]:
    if (stage.epochs is None) == (stage.steps is None):
        key, got = ("epochs", "neither") if stage.epochs is None else ("steps", "both")
        yield (key,), f"a stage needs either epochs or steps, {got} given"
    if stage.chunk is not None and recipe.model.kind != "alignment":
        yield ("chunk",), "chunks (gradient caching) are for contrastive objectives: leave it out"
    elif stage.chunk is not None and stage.chunk > stage.batch_size:
        yield ("chunk",), f"a chunk of {stage.chunk} rows is larger than the batch_size"
    warmup = stage.schedule.warmup
    if warmup >= 1 and not warmup.is_integer():
        yield (
            ("schedule", "warmup"),
            f"{warmup} is neither a share below 1 nor a whole number of steps",
        )
    yield from _task_faults(recipe, stage)
    yield from _distil_faults(recipe, stage)
    if recipe.model.kind == "fusion":
        yield from _several_task_faults(stage)
    yield from _part_faults(recipe, stage)
    yield from sharing.stage_faults(recipe, stage)
    if recipe.model.kind == "drawing":
        yield from drawing_stage_faults(stage)
        return
    yield from _feature_faults(recipe, stage)


def _task_faults(recipe: Recipe, stage: Stage) -> Iterator[Fault]:
    towers = recipe.model.towers
    for number, task in enumerate(stage.tasks):
        place = ("tasks", number)
        known = OBJECTIVES[recipe.model.kind]
        for key, owners in OWNERS.items():
            if task.objective not in owners and _changed(task, key):
                yield (*place, key), f"belongs to {' and '.join(owners)}, not {task.objective}"
        if task.objective not in known:
            yield (
                (*place, "objective"),
                f"{task.objective!r} is no objective of a model of kind {recipe.model.kind} "
                f"(known: {', '.join(known)})",
            )
            continue
        if task.objective not in CONTRASTIVE:
            yield from _foreign_faults(task, place)
            continue
        if task.text is not None:
            yield (*place, "text"), "belongs to tasks of fusion models: set the stage's text"
        for modality in task.modalities:
            if modality not in towers:
                hint = did_you_mean(modality, towers)
                yield (*place, "modalities"), f"the model has no tower {modality!r}{hint}"
        if task.modalities[0] == task.modalities[1]:
            yield (*place, "modalities"), "an objective needs two different modalities"
        if task.soften is not None:
            yield from _soften_faults(recipe, stage, number)
        if task.objective == "sigmoid":
            if task.direction != "both":
                yield (*place, "direction"), "the sigmoid objective has no direction: leave it out"
            if recipe.model.bias is None and recipe.model.published is None:
                yield (
                    (*place, "objective"),
                    "the sigmoid objective needs a bias: set model.bias (SigLIP starts at -10)",
                )


def _several_task_faults(stage: Stage) -> Iterator[Fault]:
    names = [task.objective for task in stage.tasks]
    for number, name in enumerate(names):
        if name in names[:number]:
            yield ("tasks", number, "objective"), f"{name!r} is there twice in one stage"
    if stage.balance == "gradients" and stage.sampling != "together":
        yield (
            ("balance",),
            "gradients of several tasks are compared in one update: set sampling to together",
        )
    if stage.features.mixup:
        yield ("features", "mixup"), "mixup mixes pairs, not answers: it is for alignment alone"


def _foreign_faults(task: Task, place: Place) -> Iterator[Fault]:
    for name in ("soften", "direction", "modalities"):
        if _changed(task, name):
            yield (*place, name), f"belongs to {' and '.join(CONTRASTIVE)}, not {task.objective}"


def _distil_faults(recipe: Recipe, stage: Stage) -> Iterator[Fault]:
    numbers = [number for number, task in enumerate(stage.tasks) if task.objective == "distil"]
    for number in numbers:
        task, place = stage.tasks[number], ("tasks", number)
        if task.teacher is None:
            yield (*place, "teacher"), "distil needs a teacher: a run folder"
        if not (task.mse or task.affinity or task.interactive):
            yield place, "nothing of the teacher is learned: set mse, affinity or interactive"
        for modality in (IMAGE, TEXT):
            if modality not in recipe.model.towers:
                yield place, f"distil needs pictures and texts: the model has no tower {modality!r}"
    if len(numbers) > 1:
        yield ("tasks", numbers[1], "objective"), "one teacher a stage: 'distil' is there twice"
    if numbers and stage.features.mixup:
        yield (
            ("features", "mixup"),
            "mixes rows whose teacher's embeddings stay as they are: leave it out with distil",
        )


def _changed(task: Task, key: str) -> bool:
    """Not "was it given": a run's own recipe spells every default out."""
    return bool(getattr(task, key) != Task.model_fields[key].default)


def _soften_faults(recipe: Recipe, stage: Stage, number: int) -> Iterator[Fault]:
    task, place = stage.tasks[number], ("tasks", number, "soften")
    assert task.soften is not None
    teacher = task.soften.teacher
    if task.objective != "info_nce" or task.direction != "both":
        yield place, "softened targets belong to info_nce in both directions"
    if teacher not in recipe.model.towers:
        hint = did_you_mean(teacher, recipe.model.towers)
        yield (*place, "teacher"), f"the model has no tower {teacher!r}{hint}"
    elif stage.part(f"{teacher}.encoder").mode != "frozen" or stage.features.cache is False:
        yield (
            (*place, "teacher"),
            f"the teacher must be frozen and cached: set train.{teacher}.encoder to frozen",
        )


def _part_faults(recipe: Recipe, stage: Stage) -> Iterator[Fault]:
    known = part_names(recipe)
    for name, part in stage.train.items():
        place = ("train", name)
        if name not in known:
            yield place, f"no such part{did_you_mean(name, known)} (known: {', '.join(known)})"
        elif part.mode == "lora" and not (name.endswith(".encoder") or name == LANGUAGE):
            yield place, "LoRA is for encoders and language models: train this part in full"
        elif part.mode == "last" and not (name.endswith(".encoder") or name == LANGUAGE):
            yield place, "last blocks are of encoders and language models: train this part in full"
        elif part.mode != "lora" and (part.rank or part.alpha or part.targets):
            yield place, "rank, alpha and targets belong to mode: lora"
        elif part.mode != "last" and part.blocks:
            yield place, "blocks belongs to mode: last"
        elif part.mode == "frozen" and (part.lr is not None or part.weight_decay is not None):
            yield place, "a frozen part has no learning rate or weight decay"
    empty = {
        f"{n}.projection" for n, t in recipe.model.towers.items() if t.projection.kind == "identity"
    }
    weighty = [name for name in known if name != TEMPERATURE and name not in empty]
    if all(stage.part(name).mode == "frozen" for name in weighty):
        yield ("train",), "nothing trains in this stage: every encoder and projection is frozen"


def _feature_faults(recipe: Recipe, stage: Stage) -> Iterator[Fault]:
    features = stage.features
    trained = [t for t in recipe.model.towers if stage.part(f"{t}.encoder").mode != "frozen"]
    frozen = [t for t in recipe.model.towers if t not in trained]
    if features.cache is True and not frozen:
        yield (
            ("features", "cache"),
            f"features cannot be cached: {' and '.join(trained)} encoders train in this stage",
        )
    keeps = _keeps_features(recipe)
    if features.cache is True and not keeps:
        joined = recipe.model.fusion or recipe.model.bridge
        what = "the model" if joined is None else joined.kind
        yield (
            ("features", "cache"),
            f"{what} reads tokens, and pooled features alone are kept: leave it "
            "at auto, or take concat, gated or late",
        )
    if features.slots > 1 and features.augment is None:
        yield ("features", "slots"), "several slots need features.augment to fill them"
    if features.augment is not None and features.slots == 1:
        yield ("features", "augment"), "set features.slots above 1 to cache augmented versions"
    if features.mixup and trained:
        yield (
            ("features", "mixup"),
            "mixup of features needs every encoder frozen, so that all batches are features",
        )
    cached = keeps and features.cache is not False
    if stage.augment is not None and "image" in frozen and cached:
        yield (
            ("augment",),
            "the image encoder is frozen and its features are cached, so images are not decoded "
            "every epoch: use features.augment with features.slots, or features.cache: false",
        )


def _keeps_features(recipe: Recipe) -> bool:
    """Whether pooled features of frozen encoders are all that a model reads."""
    if recipe.model.kind == "bridge":
        return recipe.model.bridge is None or recipe.model.bridge.reads == "pooled"
    if recipe.model.kind != "fusion" or recipe.model.fusion is None:
        return True
    from plait.fusion.registry import FUSIONS  # loads torch

    fusion = FUSIONS.get(recipe.model.fusion.kind)
    return bool(getattr(fusion, "pooled_only", False))
