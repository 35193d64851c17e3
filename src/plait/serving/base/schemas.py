"""Requests and responses, as the OpenAPI file shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

_NULL = {"type": "null"}
NO_TOKENS = (
    "token ids are another tokenizer's and say nothing here: send texts "
    "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
)


class Strict(BaseModel):
    """A part of a request: unknown fields are refused, so that a misspelt one does not go unnoticed.

    ``null`` stands for the default of every field that has one, as clients of other APIs send it.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        fields = cls.model_fields
        return {
            name: given
            for name, given in value.items()
            if given is not None or name not in fields or fields[name].is_required()
        }

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        made = handler(core)
        inner = handler.resolve_ref_schema(made)
        for name, field in cls.model_fields.items():
            shown = inner.get("properties", {}).get(name, {})
            if field.is_required() or _NULL in shown.get("anyOf", ()):
                continue
            beside = {key: shown.pop(key) for key in ("title", "description") if key in shown}
            default = {"default": shown.pop("default")} if "default" in shown else {}
            inner["properties"][name] = {"anyOf": [shown, _NULL], **default, **beside}
        return made


class Asked(Strict):
    """A request."""

    user: Annotated[str | None, Field(description="Ignored.")] = None


class ImageUrl(BaseModel):
    """Where a picture is."""

    url: Annotated[
        str,
        Field(
            description="A data URL (data:image/png;base64,...); http(s) only from allowed hosts."
        ),
    ]


def _named(value: Any) -> Any:
    """Some clients write the URL itself where OpenAI's have an object around it."""
    return {"url": value} if isinstance(value, str) else value


class TextPart(Strict):
    """Words."""

    type: Literal["text"]
    text: str


class ImagePart(Strict):
    """A picture."""

    type: Literal["image_url"]
    image_url: Annotated[ImageUrl, BeforeValidator(_named, json_schema_input_type=ImageUrl | str)]


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
One = str | Part
ModelName = Annotated[
    str | None, Field(description="A name of GET /v1/models; by default the first that can.")
]
Picture = Annotated[
    str, Field(description="A data URL, or base64; http(s) only from allowed hosts.")
]


def _no_tokens(value: Any) -> Any:
    """Raises PydanticCustomError for token ids, which some clients send in place of texts."""
    if isinstance(value, list) and value and all(map(_is_tokens, value)):
        raise PydanticCustomError("token_ids", NO_TOKENS)
    return value


def _is_tokens(value: Any) -> bool:
    if isinstance(value, list):
        return all(type(one) is int for one in value)
    return type(value) is int


class EmbeddingRequest(Asked):
    """Texts and pictures to embed, as OpenAI's endpoint takes them.

    Fields of other servers' endpoints are taken where they ask for what is done anyway: rows have
    unit length, and texts are cut at the model's limit.
    """

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())

    input: Annotated[
        One | list[One],
        BeforeValidator(_no_tokens),
        Field(description="Text, a data URL of a picture, a part, or a list of these."),
    ]
    model: ModelName = None
    modality: Annotated[
        Literal["text", "image"] | None,
        Field(description="What strings are; by default a data URL is a picture, the rest text."),
    ] = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[
        int | None, Field(description="Only the model's own number of dimensions is taken.")
    ] = None
    input_type: Annotated[
        str | None, Field(description="Ignored: queries and documents are embedded alike.")
    ] = None
    task: Annotated[str | None, Field(description="Ignored, as `input_type`.")] = None
    truncate: Annotated[
        bool | Literal["END", "RIGHT", "NONE", "end", "right", "none"] | None,
        Field(description="Ignored: texts are cut at their end, and `usage` counts what is left."),
    ] = None
    truncation: Annotated[bool | None, Field(description="Ignored, as `truncate`.")] = None
    normalized: Annotated[
        Literal[True] | None, Field(description="Rows have unit length anyway.")
    ] = None
    normalize: Annotated[Literal[True] | None, Field(description="As `normalized`.")] = None
    embedding_type: Annotated[
        Literal["float", "base64"] | None, Field(description="Another name of `encoding_format`.")
    ] = None
    output_dtype: Annotated[
        Literal["float"] | None, Field(description="No other numbers are made.")
    ] = None
    output_dimension: Annotated[int | None, Field(description="Another name of `dimensions`.")] = (
        None
    )
    late_chunking: Annotated[Literal[False] | None, Field(description="Not done.")] = None
    priority: Annotated[int | None, Field(description="Ignored.")] = None


class SearchRequest(Asked):
    """What to look for in the index."""

    query: Annotated[One, Field(description="Words, a data URL of a picture, or a part.")]
    k: Annotated[int, Field(ge=1, description="How many hits.")] = 10
    where: Annotated[
        str | None, Field(description="Keep rows that fulfil this, e.g. \"split = 'test'\".")
    ] = None
    find: Annotated[
        Literal["image", "text", "any"] | None,
        Field(description="Rows of which modality; by default pictures where there are any."),
    ] = None
    thumbnails: Annotated[
        bool, Field(description="Add a small JPEG of each picture as a data URL.")
    ] = False


class ClassifyRequest(Asked):
    """Pictures, and the labels to choose among."""

    images: Annotated[list[Picture], Field(min_length=1)]
    labels: Annotated[list[str], Field(min_length=2)]
    templates: Annotated[
        list[str], Field(min_length=1, description="Prompts with {} for the label.")
    ] = ["{}"]
    model: ModelName = None


class SimilarityRequest(Asked):
    """Pictures and texts to compare."""

    images: Annotated[list[Picture], Field(min_length=1)]
    texts: Annotated[list[str], Field(min_length=1)]
    model: ModelName = None


class AskRequest(Asked):
    """A question about a picture."""

    image: Picture
    question: str
    answers: Annotated[int, Field(ge=1, le=100, description="How many of the likeliest.")] = 5
    model: ModelName = None


class Problem(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """OpenAI's shape of an error."""

    error: Problem


class Embedding(BaseModel):
    """One row."""

    object: Literal["embedding"]
    index: int
    embedding: Annotated[
        list[float] | str, Field(description="Unit length; base64 of little-endian float32.")
    ]


class Usage(BaseModel):
    """Tokens of the texts, after each was cut at the model's limit."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(BaseModel):
    """Rows in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kind: str
    modalities: list[str]
    dimensions: int | None


class ModelList(BaseModel):
    """All models that are served."""

    object: Literal["list"]
    data: list[ModelCard]


class Hit(BaseModel):
    """A row of the index."""

    rank: int
    id: str
    score: float
    text: str | None
    texts: list[str]
    modality: str
    language: str | None
    metadata: dict[str, Any]
    thumbnail: str | None = None
    thumbnail_problem: Annotated[
        str | None, Field(description="Why there is no thumbnail, where one was asked for.")
    ] = None


class SearchResponse(BaseModel):
    """Hits, best first."""

    object: Literal["list"]
    data: list[Hit]
    model: str
    note: str | None = Field(
        None, description="Why what words found may mean nothing; null where the model reads them."
    )


class LabelShare(BaseModel):
    """A label and its probability."""

    label: str
    probability: float


class Classified(BaseModel):
    """The labels of one picture, best first."""

    index: int
    labels: list[LabelShare]


class ClassifyResponse(BaseModel):
    """One entry a picture."""

    object: Literal["list"]
    data: list[Classified]
    model: str


class SimilarityResponse(BaseModel):
    """Cosines: a row for each picture, a column for each text."""

    object: Literal["list"]
    data: list[list[float]]
    model: str


class Answer(BaseModel):
    """An answer and its probability."""

    answer: str
    probability: float


class AskResponse(BaseModel):
    """The answer, and the likeliest ones."""

    object: Literal["answer"]
    answer: str
    answers: list[Answer]
    model: str


class Health(BaseModel):
    """The process is there."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether every lane had a forward pass lately."""

    status: Literal["ready", "unready", "draining"]
    lanes: Annotated[
        dict[str, float | None],
        Field(description="Seconds since each lane's last pass or search; null: none yet."),
    ]
