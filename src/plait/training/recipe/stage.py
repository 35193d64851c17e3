"""The stages of a recipe: tasks, what trains, how long, with which optimiser."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from plait.training.recipe.base import (
    Count,
    Depth,
    Fraction,
    NonNegative,
    Positive,
    Precision,
    Section,
    Step,
    Width,
)


class Soften(Section):
    """Targets of InfoNCE mixed with similarities that a frozen tower sees in the batch.

    Attributes:
        teacher: the modality whose frozen encoder judges.
        share: of the softened part in the targets.
        temperature: of the teacher's similarities.
    """

    teacher: str = "text"
    share: Annotated[float, Field(gt=0, le=1)] = 0.3
    temperature: Positive = 0.1


CONTRASTIVE = ("info_nce", "sigmoid", "published")
AT_REST = {"dvae": "transformer", "draw": "dvae"}
"""By objective of a drawing model the part that it doesn't train."""


class Task(Section):
    """One objective.

    Attributes:
        objective: of alignment ``info_nce`` or ``sigmoid``, between two modalities, ``published``
            (whichever of both the model of ``model.published`` was trained with), and ``distil``
            (the embeddings of a teacher, beside the others or alone). Of fusion
            ``answer`` (questions about pictures), ``classify`` (a label of the sample), ``match``
            (do picture and text belong together), ``wra`` (match, with word-region alignment),
            ``mlm`` (hidden words) and ``mrfr`` (hidden regions; systems alone). Of bridge ``write``, and ``qformer``
            (BLIP-2's first stage: contrast, matching and writing added up).
            Of drawing ``dvae`` (pictures through codes) and ``draw`` (codes behind texts).
        label: of ``classify``: which of the samples' labels.
        loss: of ``answer``: ``ce`` (the most frequent answer), ``bce`` (every answer by its score)
            or ``kl`` (the scores as one distribution).
        answers: of ``answer``: at most so many, the most frequent of training.
        unknown_answers: of ``answer``: ``count`` questions whose usual answer is not among them (they
            teach nothing), or ``fail`` at the first.
        negatives: of ``match`` and ``wra``: wrong texts are ``random``, or ``hard``: of four
            random ones the one that the model takes for the likeliest.
        direction: ``both``, or ``left`` (each row of the first modality picks among the second).
        modalities: which two; default: image and text.
        text: of fusion: a text made of each sample's labels that this task reads in place of the
            stage's, e.g. ``"a {color} {shape}"``.
        prompt: of ``write``: what is given, made of the sample's labels and ``{text}``; ``<image>``
            stands for its picture, and without it the task is of texts alone.
        target: of ``write``: what is learned; of ``qformer``: the text of a picture.
        shots: of ``write``: up to so many other samples with their pictures stand before each, drawn
            anew every epoch (few-shot episodes); needs ``reads: tokens``.
        temperature: of ``dvae``: of the relaxed choice of codes in the last quarter of the stage; it
            falls from 1 until there.
        kl_weight: of ``dvae``: of the divergence of a picture's codes from equal chances, reached
            after the first quarter of the stage.
        balance_weight: of ``dvae``: of a batch's mean divergence, which keeps all codes in use.
        drop_text: of ``draw``: the share of texts that are left out, which guidance needs.
        disturb: of ``draw``: the share of codes that are read wrong in training, so that the text
            counts for more and a wrongly drawn code spoils less.
        image_weight: of ``draw``: of the codes' loss beside the text's 1.
        weight: its share in the sum of losses.
        soften: InfoNCE with softened targets; null for hard ones.
        teacher: of ``distil``: a run, or a published checkpoint's folder.
        mse, affinity, interactive: of ``distil``: weights of the squared distance to the teacher's
            rows, of its affinities between rows of the batch, and of InfoNCE against its rows.
    """

    objective: Literal[
        "info_nce",
        "sigmoid",
        "published",
        "distil",
        "answer",
        "classify",
        "match",
        "wra",
        "mlm",
        "mrfr",
        "write",
        "qformer",
        "dvae",
        "draw",
    ] = "info_nce"
    label: str = "label"
    loss: Literal["ce", "bce", "kl"] = "ce"
    answers: Width = 3129
    unknown_answers: Literal["count", "fail"] = "count"
    negatives: Literal["random", "hard"] = "random"
    soften: Soften | None = None
    direction: Literal["both", "left"] = "both"
    modalities: Annotated[list[str], Field(min_length=2, max_length=2)] = ["image", "text"]
    text: str | None = None
    prompt: str = "<image>"
    target: str = "{text}"
    shots: Annotated[int, Field(ge=0, le=32)] = 0
    temperature: Positive = 1 / 16
    kl_weight: NonNegative = 0.0
    balance_weight: NonNegative = 0.03
    drop_text: Fraction = 0.1
    disturb: Fraction = 0.0
    image_weight: Positive = 7.0
    weight: Positive = 1.0
    teacher: str | None = None
    mse: NonNegative = 1.0
    affinity: NonNegative = 1.0
    interactive: NonNegative = 0.0


class Part(Section):
    """How one part trains. A bare word is short for ``{mode: WORD}``.

    Attributes:
        mode: ``frozen``, ``lora`` (small added matrices, encoders only), ``last`` (the last blocks
            and what follows them, encoders only) or ``full``.
        lr: its learning rate, in place of the stage's.
        weight_decay: its weight decay, in place of the stage's.
        rank, alpha, targets: of LoRA: width, scaling, names of the layers to adapt.
        blocks: of ``last``: how many; 2 by default.
    """

    mode: Literal["frozen", "lora", "last", "full"] = "full"
    lr: Positive | None = None
    weight_decay: NonNegative | None = None
    rank: Width | None = None
    alpha: Width | None = None
    targets: list[str] | None = None
    blocks: Depth | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value


class Optimiser(Section):
    """Adam with decoupled weight decay (``adamw``), or with none (``adam``).

    Norms, biases, single vectors and the temperature never decay.
    """

    kind: Literal["adamw", "adam"] = "adamw"
    lr: Positive = 1e-3
    weight_decay: NonNegative = 0.0
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    eps: Positive = 1e-8


class Schedule(Section):
    """The learning rate over a stage.

    Attributes:
        kind: after warm-up ``constant``, or down to ``floor`` times the rate by ``cosine`` or
            ``linear``.
        warmup: below 1 a share of the stage's steps, from 1 on a number of steps.
        floor: the last rate as a share of the full one.
    """

    kind: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: NonNegative = 0.05
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0


class Features(Section):
    """Frozen encoders run once, not every epoch.

    Attributes:
        cache: true (a part that trains refuses), false, or ``auto`` (wherever a tower is frozen and
            its inputs are the same every epoch).
        slots: number of augmented versions of every image in the cache; one is drawn each epoch.
        augment: the augmentation that makes slots 1, 2, ... (slot 0 is the plain image).
        engine: what runs the frozen encoders: ``openvino``, ``torch``, or ``auto``: the fastest that
            is faithful.
        precision: of that engine.
        noise: standard deviation of noise added to cached features in training, in units of each
            row's root mean square.
        mixup: Beta(a, a) mixing of pairs of rows of features (both modalities alike); 0 for none.
    """

    cache: Literal["auto", True, False] = "auto"
    slots: Width = 1
    augment: list[Step] | None = None
    engine: Literal["auto", "torch", "openvino"] = "auto"
    precision: Precision = "auto"
    noise: NonNegative = 0.0
    mixup: NonNegative = 0.0


class Stage(Section):
    """One piece of training: what trains, on what, how long.

    Attributes:
        name: a word for reports.
        tasks: objectives, added up by weight.
        train: by part (``image.encoder``, ``image.projection``, ``temperature``) how it trains.
            Not named: encoders and language models are frozen, the rest trains (of a drawing
            model the part that the objective is about).
        epochs: passes over the data; or
        steps: a number of updates.
        batch_size: rows of one update, over all processes.
        chunk: rows encoded at a time (gradient caching): the loss still sees the whole batch, the
            memory only one chunk. null encodes the batch at once.
        clip: largest norm of the gradient; null for no clipping.
        precision: ``float32``, ``bfloat16`` (master weights stay float32) or ``auto``: bfloat16
            where an encoder trains and this machine computes it natively.
        augment: augmentation of images that are decoded every epoch.
        texts: in place of the data section's ``texts``.
        share: of the training samples that this stage sees, drawn by picture.
        text: a text made of each sample's labels in place of its texts, e.g.
            ``"{question} {answer}"``.
        sampling: tasks of an update: all ``together``, or one, drawn in turn (``round_robin``), in
            proportion to the rows that have its target (``proportional``), or to that number to the
            power of 1 / ``sampling_temperature`` (``temperature``).
        balance: how tasks are weighed: ``fixed`` weights, by ``uncertainty``, or by the size of
            their ``gradients`` (see `plait.training.tasks.balance`).
        together: rows that share a picture come in one batch, which encodes it once for all.
        ema: decay of an exponential moving average of the weights, which is then evaluated and
            saved; null for none.
    """

    name: str = "train"
    tasks: Annotated[list[Task], Field(min_length=1, max_length=100)] = [Task()]
    train: dict[str, Part] = {}
    epochs: Count | None = None
    steps: Count | None = None
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 256
    chunk: Width | None = None
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    clip: Positive | None = 1.0
    precision: Precision = "auto"
    features: Features = Features()
    augment: list[Step] | None = None
    texts: Literal["one", "all", "first"] | None = None
    together: bool = False
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    text: str | None = None
    sampling: Literal["together", "round_robin", "proportional", "temperature"] = "together"
    sampling_temperature: Annotated[float, Field(ge=1)] = 2.0
    balance: Literal["fixed", "uncertainty", "gradients"] = "fixed"
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None

    def part(self, name: str) -> Part:
        """How the part ``name`` trains in this stage."""
        at_rest = ("language", AT_REST.get(self.tasks[0].objective))
        frozen = name.endswith(".encoder") or name in at_rest
        default = Part(mode="frozen") if frozen else Part(mode="full")
        return self.train.get(name, default)
