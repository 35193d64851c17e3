"""The table of tools: which model or index can do what, and the function that does it.

A new tool is a pair of classes in `plait.agents.schemas`, a function here and a row of
`CAPABILITIES`: schemas, the choice among several runs, limits, errors and the server follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from plait import api
from plait.agents.pictures import Picture, encoded, thumbnail
from plait.agents.schemas import (
    Arguments,
    AskIn,
    AskOut,
    CaptionIn,
    CaptionOut,
    Classified,
    ClassifyIn,
    ClassifyOut,
    DrawIn,
    DrawnPicture,
    DrawOut,
    Hit,
    SearchIn,
    SearchOut,
    SimilarityIn,
    SimilarityOut,
)
from plait.core.errors import DataError, UserError
from plait.models.alignment.alignment import AlignmentModel
from plait.models.bridged.model import BridgedModel
from plait.models.drawing.drawing import DrawingModel
from plait.models.fusion.model import FusionModel
from plait.retrieval.index.index import Index
from plait.retrieval.sheet.drawn import draw_pictures

Admit = Callable[[str], Path]


@dataclass(frozen=True)
class Answer:
    """What a tool gives back.

    Attributes:
        result: typed and structured.
        pictures: beside it.
    """

    result: BaseModel
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Capability:
    """A tool that some models or indexes can serve.

    Attributes:
        name: of the tool.
        about: for the language model that chooses.
        arguments: what goes in.
        result: what comes out.
        can: whether a loaded model or an open index can do it.
        do: does it, given that model or index, valid arguments, and what opens their pictures.
        chooses: the argument that names one of several: ``run`` or ``index``.
    """

    name: str
    about: str
    arguments: type[Arguments]
    result: type[BaseModel]
    can: Callable[[object], bool]
    do: Callable[..., Answer]
    chooses: str = "run"


def _search(index: Index, given: SearchIn, admit: Admit) -> Answer:
    if (given.query is None) == (given.image is None):
        raise UserError("give query (words to look for) or image (a picture), one of the two")
    wanted = given.query if given.image is None else admit(given.image)
    assert wanted is not None
    hits: list[Hit] = []
    pictures: list[Picture] = []
    for found in index.search(wanted, k=given.k, where=given.where):
        hit = Hit.model_validate({key: found[key] for key in Hit.model_fields if key in found})
        if found["outside"] and hit.rank <= given.thumbnails:
            hit.picture_problem = "the picture lies outside the folders of the index"
        elif found["path"] is not None and hit.rank <= given.thumbnails:
            try:
                shown = thumbnail(Path(found["path"]), f"result {hit.rank}: {hit.text or hit.id}")
            except DataError as error:
                hit.picture_problem = str(error)
            else:
                hit.picture = len(pictures)
                pictures.append(shown)
        hits.append(hit)
    return Answer(SearchOut(hits=hits, note=index.note(wanted)), tuple(pictures))


def _classify(model: AlignmentModel, given: ClassifyIn, admit: Admit) -> Answer:
    images = [admit(image) for image in given.images]
    found = api.classify(model, images, given.labels, given.templates)
    rows = [
        Classified.model_validate({"image": place, "labels": entry["labels"]})
        for place, entry in enumerate(found)
    ]
    return Answer(ClassifyOut(pictures=rows))


def _similarity(model: AlignmentModel, given: SimilarityIn, admit: Admit) -> Answer:
    cosines = model.similarity([admit(image) for image in given.images], given.texts)
    return Answer(SimilarityOut(cosines=[[round(float(c), 6) for c in row] for row in cosines]))


def _ask(model: FusionModel | BridgedModel, given: AskIn, admit: Admit) -> Answer:
    found = api.ask(model, admit(given.image), given.question, answers=given.answers)
    return Answer(AskOut.model_validate({key: found[key] for key in AskOut.model_fields}))


def _caption(model: BridgedModel, given: CaptionIn, admit: Admit) -> Answer:
    found = api.caption(model, [admit(image) for image in given.images])
    return Answer(CaptionOut(captions=[entry["caption"] for entry in found]))


def _draw(model: DrawingModel, given: DrawIn, admit: Admit) -> Answer:
    drawn = draw_pictures(
        model,
        given.text,
        given.n,
        temperature=given.temperature,
        top_k=given.top_k,
        guidance=given.guidance,
        prime=None if given.prime is None else admit(given.prime),
        seed=given.seed,
    )
    rows = [DrawnPicture(number=one.number, picture=place) for place, one in enumerate(drawn)]
    shown = [encoded(one.pixels, f"drawing {one.number}: {given.text}") for one in drawn]
    return Answer(DrawOut(pictures=rows), tuple(shown))


def _aligns(subject: object) -> bool:
    return isinstance(subject, AlignmentModel) and {"image", "text"} <= set(subject.modalities)


def _answers(subject: object) -> bool:
    if isinstance(subject, BridgedModel):
        return "answer" in subject.tasks
    return isinstance(subject, FusionModel) and "answer" in subject.heads


def _describes(subject: object) -> bool:
    return isinstance(subject, BridgedModel) and "caption" in subject.tasks


CAPABILITIES = (
    Capability(
        "search",
        "Finds pictures in an index, by words or by a picture. Returns the nearest, best first.",
        SearchIn,
        SearchOut,
        lambda subject: isinstance(subject, Index),
        _search,
        chooses="index",
    ),
    Capability(
        "classify",
        "Says which of the given labels fits each picture best, without training for them.",
        ClassifyIn,
        ClassifyOut,
        _aligns,
        _classify,
    ),
    Capability(
        "similarity",
        "Cosines between pictures and texts: higher means that the text describes the picture "
        "better. Compare values with one another; they are no probabilities.",
        SimilarityIn,
        SimilarityOut,
        _aligns,
        _similarity,
    ),
    Capability(
        "ask",
        "Answers a question about a picture, with the likeliest answers and their probabilities.",
        AskIn,
        AskOut,
        _answers,
        _ask,
    ),
    Capability(
        "caption",
        "Describes each picture in words.",
        CaptionIn,
        CaptionOut,
        _describes,
        _caption,
    ),
    Capability(
        "draw",
        "Draws pictures of a text. Another seed gives other pictures.",
        DrawIn,
        DrawOut,
        lambda subject: isinstance(subject, DrawingModel),
        _draw,
    ),
)
