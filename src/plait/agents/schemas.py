"""What goes into the tools and what comes out: their JSON schemas are made from these classes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MAX_RESULTS = 50
MAX_PICTURES = 16
MAX_TEXTS = 256

ImageIn = Annotated[
    str,
    Field(
        min_length=1,
        description="A picture: a file path, or base64 as data:image/png;base64,...",
    ),
]
Words = Annotated[str, Field(min_length=1, max_length=2000)]


class Arguments(BaseModel):
    """Base of the arguments of a tool: what the schema does not name is an error."""

    model_config = ConfigDict(extra="forbid")


class SearchIn(Arguments):
    """Arguments of ``search``."""

    query: Words | None = Field(None, description="Words to look for. Give this or image.")
    image: ImageIn | None = Field(None, description="A picture to look for instead of words.")
    k: int = Field(10, ge=1, le=MAX_RESULTS, description="How many results.")
    where: str | None = Field(
        None, max_length=2000, description="Keep rows that fulfil this, e.g. split = 'test'."
    )
    thumbnails: int = Field(4, ge=0, le=12, description="So many of the results with a picture.")


class Hit(BaseModel):
    """One row that was found."""

    rank: int
    id: str
    score: float
    text: str | None
    path: str | None
    metadata: dict[str, Any]
    picture: int | None = Field(
        None, description="Place (from 0) of its thumbnail among the pictures of this result."
    )
    picture_problem: str | None = Field(None, description="Why a thumbnail is missing.")


class SearchOut(BaseModel):
    """Result of ``search``."""

    hits: list[Hit]
    note: str | None = Field(
        None, description="Why what words found may mean nothing: tell the user."
    )


class ClassifyIn(Arguments):
    """Arguments of ``classify``."""

    images: list[ImageIn] = Field(min_length=1, max_length=MAX_PICTURES, description="Pictures.")
    labels: list[Words] = Field(
        min_length=2, max_length=MAX_TEXTS, description="Labels to choose from, in your words."
    )
    templates: list[Words] = Field(
        ["{}"],
        min_length=1,
        max_length=MAX_PICTURES,
        description="Prompts with {} for the label; several are averaged.",
    )


class LabelShare(BaseModel):
    """A label and its probability among the given labels."""

    label: str
    probability: float


class Classified(BaseModel):
    """The labels of one picture, the likeliest first."""

    image: int = Field(description="Its place (from 0) among the given pictures.")
    labels: list[LabelShare]


class ClassifyOut(BaseModel):
    """Result of ``classify``."""

    pictures: list[Classified]


class SimilarityIn(Arguments):
    """Arguments of ``similarity``."""

    images: list[ImageIn] = Field(min_length=1, max_length=MAX_PICTURES, description="Pictures.")
    texts: list[Words] = Field(min_length=1, max_length=MAX_TEXTS, description="Texts.")


class SimilarityOut(BaseModel):
    """Result of ``similarity``."""

    cosines: list[list[float]] = Field(description="One row a picture, one column a text.")


class AskIn(Arguments):
    """Arguments of ``ask``."""

    image: ImageIn
    question: Words = Field(description="A question about the picture.")
    answers: int = Field(3, ge=1, le=20, description="List so many answers, the likeliest first.")


class AnswerShare(BaseModel):
    """An answer and its probability."""

    answer: str
    probability: float


class AskOut(BaseModel):
    """Result of ``ask``."""

    answer: str
    answers: list[AnswerShare]


class CaptionIn(Arguments):
    """Arguments of ``caption``."""

    images: list[ImageIn] = Field(min_length=1, max_length=MAX_PICTURES, description="Pictures.")


class CaptionOut(BaseModel):
    """Result of ``caption``."""

    captions: list[str] = Field(description="One a picture, in their order.")


class DrawIn(Arguments):
    """Arguments of ``draw``."""

    text: Words = Field(description="What to draw.")
    n: int = Field(1, ge=1, le=MAX_PICTURES, description="How many pictures.")
    temperature: float = Field(1.0, ge=0, le=10, description="Below 1 for fewer surprises.")
    top_k: int | None = Field(None, ge=1, description="Only so many codes for each cell.")
    guidance: float = Field(1.0, ge=0, le=20, description="Above 1: closer to the text.")
    prime: ImageIn | None = Field(None, description="A picture whose upper half is kept.")
    seed: int = Field(0, ge=0, lt=2**63, description="The same seed, the same pictures.")


class DrawnPicture(BaseModel):
    """One picture that was drawn."""

    number: int = Field(description="In the order of drawing, from 1.")
    picture: int = Field(description="Its place (from 0) among the pictures of the result.")


class DrawOut(BaseModel):
    """Result of ``draw``."""

    pictures: list[DrawnPicture]
