"""What a recipe may say: one pydantic model a section, with the meaning of every key.

Types are strict (``"10"`` is not a number, ``yes`` is not 1) and unknown keys are refused with the
nearest known one. What spans sections is checked in `plait.training.combinations`; files,
overrides and messages are the business of `plait.training.recipe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from plait.core.errors import did_you_mean

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Precision = Literal["auto", "float32", "bfloat16"]
Step = dict[str, Any]  # one augmentation: {kind: flip}, {kind: crop, scale: [0.5, 1.0]}


class Section(BaseModel):
    """A section of a recipe: strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for key in value:
                if key not in cls.model_fields:
                    hint = did_you_mean(str(key), cls.model_fields)
                    known = ", ".join(cls.model_fields)
                    raise PydanticCustomError(
                        "unknown_key",
                        "unknown key{hint} (known: {known})",
                        {"key": key, "hint": hint, "known": known},
                    )
        return value


class Data(Section):
    """Which pairs, and how their texts become rows.

    Attributes:
        source: a path or a catalogue name; null means that ``--data`` must say.
        columns: the user's column names, e.g. ``{image: photo, text: title}``.
        on_bad_row: ``fail`` at the first bad row, or ``skip`` and count.
        texts: ``one`` text of each image drawn anew every epoch, ``all`` (every text a row), or the
            ``first``.
        languages: keep only texts of these languages (where the data says the language).
        without: modalities that a fusion model takes for absent, in training and ever after: a
            control for how much they tell.
        cache_pixels: keep decoded, resized pictures on disk, for encoders that train over many
            epochs on large pictures.
    """

    source: str | None = None
    columns: dict[str, str] | None = None
    on_bad_row: Literal["fail", "skip"] = "fail"
    texts: Literal["one", "all", "first"] = "one"
    languages: list[str] | None = None
    without: list[str] = []
    cache_pixels: bool = False


class Projection(Section):
    """From an encoder's pooled output into the shared space.

    Attributes:
        kind: ``linear``, ``mlp`` (residual) or ``identity``.
        dropout: share of the encoder's outputs zeroed in training.
        options: further arguments of that projection.
    """

    kind: Literal["linear", "mlp", "identity"] = "linear"
    dropout: Fraction | None = None
    options: dict[str, Any] = {}


class Vocabulary(Section):
    """A tokenizer trained on the texts of the training split, for encoders from scratch.

    Attributes:
        kind: ``word``, ``character`` or ``bpe`` (see `plait.data.tokenizer_training`).
        size: the most token ids.
    """

    kind: Literal["word", "character", "bpe"] = "bpe"
    size: Annotated[int, Field(ge=8)] = 8000


class Tower(Section):
    """One modality's encoder and projection.

    Attributes:
        encoder: a source string: ``timm/NAME``, ``torchvision/NAME``, ``hf/OWNER/NAME``,
            ``pkg/NAME``, ``scratch/NAME`` or a local folder.
        pretrained: load its weights; false starts from random ones.
        options: arguments of that encoder, e.g. ``{image_size: 256}``.
        projection: into the shared space of an alignment model; fusion models have none.
        vocabulary: trains a tokenizer for a text encoder from scratch; null keeps the encoder's own.
    """

    encoder: str
    pretrained: bool = True
    options: dict[str, Any] = {}
    projection: Projection = Projection()
    vocabulary: Vocabulary | None = None


class Temperature(Section):
    """The factor of the cosine in the loss is 1 / temperature, at most ``max_scale``."""

    init: Positive = 0.07
    max_scale: Positive = 100.0
    learn: bool = True


class Joint(Section):
    """How a fusion model brings its modalities together. A bare word is short for ``{kind: WORD}``.

    Attributes:
        kind: an idea of `plait.fusion` (``concat``, ``gated``, ``co_attention``, ...) or a system of
            `plait.models.systems` (``visual_bert``, ``lxmert``, ...).
        options: its arguments.
    """

    kind: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


class InitFrom(Section):
    """Start from another run's weights. A bare word is short for ``{run: WORD}``.

    Attributes:
        run: its folder.
        leave: beginnings of the names of weights that this model has no place for, e.g.
            ``[heads.mlm]``; ``["*"]`` allows any. Without leave they are an error.
    """

    run: str
    leave: list[str] = []

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"run": value} if isinstance(value, str) else value


class Hubs(Section):
    """Search and evaluation take from the score of rows that are near to every training query.

    Attributes:
        neighbours: the training queries nearest to a row that its correction is the mean cosine of.
        strength: what that mean is multiplied by.
        bank: training queries kept of each modality, at most.
    """

    neighbours: Count = 64
    strength: Annotated[float, Field(gt=0, le=1)] = 0.75
    bank: Annotated[int, Field(ge=1, le=2048)] = 2048


class Language(Section):
    """The language model of a model of kind ``bridge``.

    Attributes:
        source: ``scratch/decoder``, or ``hf/`` and a repository or folder of transformers.
        pretrained: load its weights; false starts from random ones.
        options: its arguments, e.g. ``{width: 128, layers: 4, heads: 4}``.
        vocabulary: trains the tokenizer of ``scratch/decoder``.
    """

    source: str = "scratch/decoder"
    pretrained: bool = True
    options: dict[str, Any] = {}
    vocabulary: Vocabulary | None = None


class Bridge(Section):
    """How pictures reach a language model. A bare word is short for ``{kind: WORD}``.

    Attributes:
        kind: an idea of `plait.bridges` (``linear``, ``mlp``, ``resampler``, ...).
        options: its arguments.
        injection: ``prefix`` (tokens among those of the words) or ``gated`` (cross-attention before
            layers of the language model).
        reads: ``tokens`` of the encoder, or its one ``pooled`` vector, which is computed once where
            the encoder is frozen.
        every: of ``gated``: before every so many layers.
        heads, head_width: of gated cross-attention.
        only_latest: of ``gated``: a word sees the latest picture before it, not all before it.
    """

    kind: str = "mlp"
    options: dict[str, Any] = {}
    injection: Literal["prefix", "gated"] = "prefix"
    reads: Literal["tokens", "pooled"] = "tokens"
    every: Count = 1
    heads: Count = 8
    head_width: Count = 64
    only_latest: bool = True

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


class Dvae(Section):
    """The discrete VAE of a drawing model.

    Attributes:
        image_size: pixels of a side.
        codes: the size of the codebook.
        layers: how often the grid of codes is halved: its side is ``image_size / 2 ** layers``.
        width: channels.
        blocks: residual blocks.
        code_width: features of a code.
        net: design of both halves, see `plait.models.drawing.nets`.
        likelihood: what a reconstruction is judged by, see `plait.models.drawing.likelihoods`.
    """

    image_size: Count = 64
    codes: Annotated[int, Field(ge=2)] = 512
    layers: Count = 3
    width: Count = 64
    blocks: Annotated[int, Field(ge=0)] = 2
    code_width: Count = 128
    net: Literal["strided", "paper"] = "strided"
    likelihood: Literal["mse", "smooth_l1", "logit_laplace"] = "mse"


class Drawer(Section):
    """The transformer of a drawing model.

    Attributes:
        text_length: tokens of a text; longer ones are cut.
        width, layers, heads: of the transformer.
        kinds: attention of its layers, repeated as needed, see `plait.models.drawing.attention`.
        kernel: side of the square of ``conv`` and ``corner`` attention.
        dropout: of embeddings and of what layers add.
    """

    text_length: Count = 16
    width: Count = 256
    layers: Count = 6
    heads: Count = 4
    kinds: Annotated[list[str], Field(min_length=1)] = [
        "row",
        "column",
        "row",
        "row",
        "column",
        "conv",
    ]
    kernel: Count = 5
    dropout: Fraction = 0.0


class Drawing(Section):
    """A model of kind ``drawing``: pictures from texts.

    Attributes:
        dvae: makes pictures grids of codes, and codes pictures.
        transformer: writes codes behind texts.
        vocabulary: trains the tokenizer of the texts.
    """

    dvae: Dvae = Dvae()
    transformer: Drawer = Drawer()
    vocabulary: Vocabulary = Vocabulary(size=1000)


class Model(Section):
    """What is trained.

    Attributes:
        kind: ``alignment`` (every modality into one space, compared by cosine), ``fusion`` (one
            representation of all modalities, read by heads), ``bridge`` (a language model that
            sees) or ``drawing`` (pictures from texts).
        dim: features of the shared space, or of the fused representation.
        towers: by modality; none of kind ``drawing``.
        temperature, bias: of alignment; ``bias`` starts the sigmoid loss's bias.
        fusion: of fusion models.
        language, bridge: of kind ``bridge``.
        drawing: of kind ``drawing``.
        sizes: options of ways of joining and of bridges, by kind, for whichever ``fusion`` names; so that
            ``plait compare`` can exchange the kind alone.
        init_from: a run whose weights, and tokenizer, this one starts from.
        hubs: of alignment: a correction of scores, made after the last stage; null for none.
        shared_layers: the first so many transformer blocks are the same weights in all towers (see
            `plait.encoders.sharing`).
    """

    kind: Literal["alignment", "fusion", "bridge", "drawing"] = "alignment"
    dim: Count = 256
    towers: dict[str, Tower] = {}
    temperature: Temperature = Temperature()
    bias: float | None = None
    fusion: Joint | None = None
    language: Language | None = None
    bridge: Bridge | None = None
    drawing: Drawing | None = None
    sizes: dict[str, dict[str, Any]] = {}
    init_from: InitFrom | None = None
    hubs: Hubs | None = None
    shared_layers: Annotated[int, Field(ge=0)] = 0


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


CONTRASTIVE = ("info_nce", "sigmoid")
AT_REST = {"dvae": "transformer", "draw": "dvae"}
"""By objective of a drawing model the part that it doesn't train."""


class Task(Section):
    """One objective.

    Attributes:
        objective: of alignment ``info_nce`` or ``sigmoid``, between two modalities, and ``distil``
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
    answers: Count = 3129
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
    image_weight: Positive = 7.0
    weight: Positive = 1.0
    teacher: str | None = None
    mse: NonNegative = 1.0
    affinity: NonNegative = 1.0
    interactive: NonNegative = 0.0


class Part(Section):
    """How one part trains. A bare word is short for ``{mode: WORD}``.

    Attributes:
        mode: ``frozen``, ``lora`` (small added matrices, encoders only) or ``full``.
        lr: its learning rate, in place of the stage's.
        weight_decay: its weight decay, in place of the stage's.
        rank, alpha, targets: of LoRA: width, scaling, names of the layers to adapt.
    """

    mode: Literal["frozen", "lora", "full"] = "full"
    lr: Positive | None = None
    weight_decay: NonNegative | None = None
    rank: Count | None = None
    alpha: Count | None = None
    targets: list[str] | None = None

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
    slots: Count = 1
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
            their ``gradients`` (see `plait.training.balance`).
        together: rows that share a picture come in one batch, which encodes it once for all.
        ema: decay of an exponential moving average of the weights, which is then evaluated and
            saved; null for none.
    """

    name: str = "train"
    tasks: Annotated[list[Task], Field(min_length=1)] = [Task()]
    train: dict[str, Part] = {}
    epochs: Count | None = None
    steps: Count | None = None
    batch_size: Annotated[int, Field(ge=2)] = 256
    chunk: Count | None = None
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


class Evaluation(Section):
    """Validation during training, and the test at the end.

    Attributes:
        split: what early stopping and the choice of the best weights look at.
        every: evaluate after this many epochs.
        best: keep the weights of the best evaluation rather than the last.
        metric: what is compared: of alignment ``mean_recall`` (mean of R@1, 5, 10 both ways),
            ``text_to_image.R@5`` and the like; of fusion ``vqa.accuracy``; ``loss`` of all. null:
            the first of these.
        patience: stop a stage after so many evaluations without improvement; null: never.
        test: the split of the final figures.
    """

    split: Literal["validation", "test", "train"] = "validation"
    every: Count = 1
    best: bool = True
    metric: str | None = None
    patience: Count | None = None
    test: Literal["validation", "test", "train"] | None = "test"


class Checkpoints(Section):
    """When to save what a killed run goes on from.

    Attributes:
        steps: after so many updates; null: not by count.
        seconds: after so long.
        keep: how many to keep.
    """

    steps: Count | None = None
    seconds: Annotated[float, Field(ge=0)] = 120.0
    keep: Count = 2


class Recipe(Section):
    """A whole run."""

    name: str
    data: Data = Data()
    model: Model
    stages: Annotated[list[Stage], Field(min_length=1)]
    evaluation: Evaluation = Evaluation()
    checkpoints: Checkpoints = Checkpoints()
    seed: Annotated[int, Field(ge=0)] = 0
