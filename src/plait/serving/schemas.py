"""Requests and responses, as the OpenAPI file shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """A request: unknown fields are refused, so that a misspelt one does not go unnoticed."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ImageUrl(BaseModel):
    """Where a picture is."""

    url: Annotated[
        str,
        Field(
            description="A data URL (data:image/png;base64,...); http(s) only from allowed hosts."
        ),
    ]


class TextPart(Strict):
    """Words."""

    type: Literal["text"]
    text: str


class ImagePart(Strict):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
One = str | Part
ModelName = Annotated[
    str | None, Field(description="A name of GET /v1/models; by default the first that can.")
]
Picture = Annotated[str, Field(description="A data URL; http(s) only from allowed hosts.")]


class EmbeddingRequest(Strict):
    """Texts and pictures to embed, as OpenAI's endpoint takes them."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())

    input: Annotated[
        One | list[One],
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
    user: Annotated[str | None, Field(description="Ignored.")] = None


class SearchRequest(Strict):
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


class ClassifyRequest(Strict):
    """Pictures, and the labels to choose among."""

    images: Annotated[list[Picture], Field(min_length=1)]
    labels: Annotated[list[str], Field(min_length=2)]
    templates: Annotated[
        list[str], Field(min_length=1, description="Prompts with {} for the label.")
    ] = ["{}"]
    model: ModelName = None


class SimilarityRequest(Strict):
    """Pictures and texts to compare."""

    images: Annotated[list[Picture], Field(min_length=1)]
    texts: Annotated[list[str], Field(min_length=1)]
    model: ModelName = None


class AskRequest(Strict):
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
