"""The endpoints under /v1: from a request's body to an answer."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from plait.core.errors import shown
from plait.core.modality import IMAGE, TEXT
from plait.runtime.ranking import class_rows, shares
from plait.serving.backends.served import ASK
from plait.serving.base import schemas
from plait.serving.base.errors import RequestError
from plait.serving.base.inputs import (
    Input,
    image_input,
    picture,
    prompt_inputs,
    string_input,
    text_input,
)
from plait.serving.base.settings import Limits
from plait.serving.http.answering import answered, json_of
from plait.serving.service.body import Body, checked, media_type, parse_form
from plait.serving.service.service import Service

router = APIRouter()

_FORM = "multipart/form-data"
_DIGITS = 10  # of a number in a form
_THUMBNAILS = 100  # of one answer: each is a picture to decode


def one_input(value: Any, place: str, limits: Limits, modality: str | None = None) -> Input:
    """A string or a part as an input. Raises RequestError: 400, by its place."""
    if isinstance(value, schemas.TextPart):
        return text_input(value.text, place, limits, as_it_is=True)
    if isinstance(value, schemas.ImagePart):
        return image_input(value.image_url.url, place, limits)
    if modality == IMAGE:
        return image_input(value, place, limits)
    if modality == TEXT:
        return text_input(value, place, limits, as_it_is=True)
    return string_input(value, place, limits)


def check_counts(inputs: Sequence[Input], limits: Limits, field: str) -> None:
    """Raises RequestError: 400 for no inputs, or too many."""
    if not inputs:
        raise RequestError(400, f"{field} is empty", param=field, code="empty_input")
    pictures = sum(one.modality == IMAGE for one in inputs)
    for count, most, what in (
        (len(inputs), limits.inputs, "inputs"),
        (pictures, limits.pictures, "pictures"),
    ):
        if count > most:
            raise RequestError(
                400,
                f"{field} has {count} {what}, and the limit is {most}: send several requests",
                param=field,
                code="too_many_inputs",
            )


@router.post("/v1/embeddings", operation_id="embed")
async def embeddings(request: Request) -> Response:
    """Embeds texts and pictures into the model's shared space: rows of unit length."""

    async def work(service: Service, body: Body, deadline: float) -> dict[str, Any]:
        if media_type(request) == _FORM:
            wanted, inputs = await _form(request, body, service.limits)
        else:
            wanted = checked(schemas.EmbeddingRequest, json_of(request, body))
            inputs = _inputs(wanted, service.limits)
        check_counts(inputs, service.limits, "input")
        model = service.model(wanted.model, *sorted({one.modality for one in inputs}))
        assert model.embedder is not None
        for name in ("dimensions", "output_dimension"):
            if getattr(wanted, name) not in (None, model.embedder.dim):
                raise RequestError(
                    400,
                    f"the model {model.name!r} has {model.embedder.dim} dimensions, and no others",
                    param=name,
                    code="dimensions",
                )
        request.scope["state"]["inputs"] = len(inputs)
        rows, tokens = await service.embed(model, inputs, deadline)
        data = [
            {"object": "embedding", "index": place, "embedding": _encoded(row, wanted)}
            for place, row in enumerate(rows)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": model.name, "usage": usage}

    return await answered(request, work)


def _inputs(wanted: schemas.EmbeddingRequest, limits: Limits) -> list[Input]:
    if not isinstance(wanted.input, list):
        return [one_input(wanted.input, "input", limits, wanted.modality)]
    return [
        one_input(one, f"input[{place}]", limits, wanted.modality)
        for place, one in enumerate(wanted.input[: limits.inputs + 1])
    ]


async def _form(
    request: Request, body: Body, limits: Limits
) -> tuple[schemas.EmbeddingRequest, list[Input]]:
    """A form: files and texts as ``input`` (repeatable), and the fields of the JSON request."""
    fields: dict[str, Any] = {}
    values: list[str | bytes] = []
    for name, value in await parse_form(request, body):
        if name == "input":
            values.append(value)
        elif name in fields or isinstance(value, bytes):
            raise RequestError(400, f"the form has an unfit field {shown(name)}", param=name)
        else:
            number = name == "dimensions" and value.isdecimal() and len(value) < _DIGITS
            fields[name] = int(value) if number else value
    inputs: list[Input] = []
    for value in values:
        place = f"input[{len(inputs)}]"
        if isinstance(value, bytes):
            inputs.append(picture(value, place, limits))
        else:
            inputs.append(one_input(value, place, limits, fields.get("modality")))
    return checked(schemas.EmbeddingRequest, {**fields, "input": ["files"]}), inputs


def _encoded(row: np.ndarray, wanted: schemas.EmbeddingRequest) -> Any:
    if "base64" in (wanted.encoding_format, wanted.embedding_type):
        return base64.b64encode(row.astype("<f4").tobytes()).decode("ascii")
    return row


@router.post("/v1/search", operation_id="search")
async def search(request: Request) -> Response:
    """The nearest rows of the server's index to words or to a picture."""

    async def work(service: Service, body: Body, deadline: float) -> dict[str, Any]:
        searcher = service.searcher
        if searcher is None:
            raise RequestError(
                404, "this server has no index: start it with --index", code="no_index"
            )
        wanted = checked(schemas.SearchRequest, json_of(request, body))
        if wanted.k > service.limits.hits:
            raise RequestError(400, f"k is above {service.limits.hits}", param="k", code="k")
        if wanted.thumbnails and wanted.k > _THUMBNAILS:
            raise RequestError(
                400, f"thumbnails are for a k of at most {_THUMBNAILS}", param="k", code="k"
            )
        one = one_input(wanted.query, "query", service.limits)
        model = service.model(searcher.model, one.modality)
        rows, _ = await service.embed(model, [one], deadline)
        hits = await searcher.find(
            rows[0],
            one.modality,
            deadline=deadline,
            k=wanted.k,
            where=wanted.where,
            find=wanted.find,
            thumbnails=wanted.thumbnails,
        )
        note = await model.note(one)
        return {"object": "list", "data": hits, "model": model.name, "note": note}

    return await answered(request, work)


@router.post("/v1/classify", operation_id="classify")
async def classify(request: Request) -> Response:
    """The labels of each picture with probabilities: softmax of scaled cosines to their prompts."""

    async def work(service: Service, body: Body, deadline: float) -> dict[str, Any]:
        wanted = checked(schemas.ClassifyRequest, json_of(request, body))
        limits = service.limits
        pictures = _pictures(wanted.images, limits)
        asked = prompt_inputs(wanted.labels, wanted.templates, limits)
        model = service.model(wanted.model, IMAGE, TEXT)
        assert model.embedder is not None
        request.scope["state"]["inputs"] = len(pictures) + len(asked)
        rows, _ = await service.embed(model, [*pictures, *asked], deadline)
        classes = class_rows(rows[len(pictures) :], len(wanted.labels))
        found = shares(rows[: len(pictures)] @ classes.T * model.embedder.scale)
        data = [
            {"index": place, "labels": _ranked(wanted.labels, row)}
            for place, row in enumerate(found)
        ]
        return {"object": "list", "data": data, "model": model.name}

    return await answered(request, work)


def _ranked(labels: Sequence[str], row: np.ndarray) -> list[dict[str, Any]]:
    order = np.argsort(-row, kind="stable")
    return [{"label": labels[i], "probability": float(row[i])} for i in order]


def _pictures(urls: Sequence[str], limits: Limits) -> list[Input]:
    found = [
        image_input(url, f"images[{place}]", limits)
        for place, url in enumerate(urls[: limits.pictures + 1])
    ]
    check_counts(found, limits, "images")
    return found


@router.post("/v1/similarity", operation_id="compare")
async def similarity(request: Request) -> Response:
    """Cosines between pictures and texts."""

    async def work(service: Service, body: Body, deadline: float) -> dict[str, Any]:
        wanted = checked(schemas.SimilarityRequest, json_of(request, body))
        pictures = _pictures(wanted.images, service.limits)
        texts = [
            text_input(text, f"texts[{place}]", service.limits)
            for place, text in enumerate(wanted.texts[: service.limits.inputs + 1])
        ]
        check_counts(texts, service.limits, "texts")
        model = service.model(wanted.model, IMAGE, TEXT)
        request.scope["state"]["inputs"] = len(pictures) + len(texts)
        rows, _ = await service.embed(model, [*pictures, *texts], deadline)
        cosines = rows[: len(pictures)] @ rows[len(pictures) :].T
        return {"object": "list", "data": cosines, "model": model.name}

    return await answered(request, work)


@router.post("/v1/ask", operation_id="ask")
async def ask(request: Request) -> Response:
    """Answers a question about a picture."""

    async def work(service: Service, body: Body, deadline: float) -> dict[str, Any]:
        wanted = checked(schemas.AskRequest, json_of(request, body))
        model = service.model(wanted.model, ASK)
        shown = image_input(wanted.image, "image", service.limits)
        text_input(wanted.question, "question", service.limits)
        request.scope["state"]["inputs"] = 1
        found = await service.ask(model, shown, wanted.question, wanted.answers, deadline)
        answer = found[0]["answer"]
        return {"object": "answer", "answer": answer, "answers": found, "model": model.name}

    return await answered(request, work)
