"""The section ``model`` of a recipe: towers, fusion, language model, bridge, drawing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from plait.core.modality import IMAGE, TEXT
from plait.training.recipe.base import (
    Count,
    Depth,
    Fraction,
    Positive,
    Section,
    Width,
)

PUBLISHED = "published"
"""The encoder of a tower that comes whole from ``model.published``."""


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
        kind: ``word``, ``character`` or ``bpe`` (see `plait.modalities.text.tokenizer_training`).
        size: the most token ids.
    """

    kind: Literal["word", "character", "bpe"] = "bpe"
    size: Annotated[int, Field(ge=8, le=10_000_000)] = 8000


class Tower(Section):
    """One modality's encoder and projection.

    Attributes:
        encoder: a source string: ``timm/NAME``, ``torchvision/NAME``, ``hf/OWNER/NAME``,
            ``pkg/NAME``, ``scratch/NAME`` or a local folder; or ``published``: the whole tower of
            ``model.published``, its projection included.
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

    neighbours: Width = 64
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
    heads: Depth = 8
    head_width: Width = 64
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

    image_size: Width = 64
    codes: Annotated[int, Field(ge=2, le=1_000_000)] = 512
    layers: Depth = 3
    width: Width = 64
    blocks: Annotated[int, Field(ge=0, le=10_000)] = 2
    code_width: Width = 128
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

    text_length: Width = 16
    width: Width = 256
    layers: Depth = 6
    heads: Depth = 4
    kinds: Annotated[list[str], Field(min_length=1)] = [
        "row",
        "column",
        "row",
        "row",
        "column",
        "conv",
    ]
    kernel: Width = 5
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
        published: a CLIP or SigLIP checkpoint in transformers' or open_clip's format (a folder, or
            OWNER/NAME on the model hub), or a run of an alignment model, that is trained on as it
            is: towers, projections, temperature and bias are its own.
        wise_ft: shares of the fine-tuned weights, the rest being the published ones, of which the
            best on the validation split is kept (Wortsman et al. 2022); null keeps the fine-tuned.
        hubs: of alignment: a correction of scores, made after the last stage; null for none.
        shared_layers: the first so many transformer blocks are the same weights in all towers (see
            `plait.encoders.compose.sharing`).
    """

    kind: Literal["alignment", "fusion", "bridge", "drawing"] = "alignment"
    dim: Width = 256
    towers: dict[str, Tower] = {}
    temperature: Temperature = Temperature()
    bias: float | None = None
    fusion: Joint | None = None
    language: Language | None = None
    bridge: Bridge | None = None
    drawing: Drawing | None = None
    sizes: dict[str, dict[str, Any]] = {}
    init_from: InitFrom | None = None
    published: str | None = None
    wise_ft: (
        Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1, max_length=101)]
        | None
    ) = None
    hubs: Hubs | None = None
    shared_layers: Annotated[int, Field(ge=0, le=10_000)] = 0

    @model_validator(mode="before")
    @classmethod
    def _towers_of_published(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("published") and not value.get("towers"):
            towers = {name: {"encoder": PUBLISHED} for name in (IMAGE, TEXT)}
            return {**value, "towers": towers}
        return value
