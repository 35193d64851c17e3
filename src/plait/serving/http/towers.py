"""The endpoint of a tower for other servers: prepared tensors in, rows out (see `remote`)."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response
from safetensors.numpy import load, save

from plait.core.modality import IMAGE, TEXT
from plait.serving.backends.remote import MEDIA_TYPE, MODEL_HEADER, ROWS
from plait.serving.backends.served import Served
from plait.serving.base.errors import RequestError
from plait.serving.base.settings import Limits
from plait.serving.http.answering import unless_gone, wanted_seconds
from plait.serving.queue.lanes import Tensors
from plait.serving.service.body import client_in, media_type, read_body
from plait.serving.service.service import Service

router = APIRouter()


@router.post("/v1/towers/{modality}", operation_id="tower", response_class=Response)
async def tower(request: Request, modality: str) -> Response:
    """Rows of tensors that another server prepared: safetensors in, safetensors out."""
    service: Service = request.app.state.service
    deadline = time.monotonic() + wanted_seconds(request, service.limits)
    with service.intake.admitted(client_in(request)) as hold:
        body = bytes((await read_body(request, hold)).take())
        if media_type(request) != MEDIA_TYPE:
            raise RequestError(415, f"send the tensors as {MEDIA_TYPE}", code="media_type")
        if modality not in (IMAGE, TEXT):
            raise RequestError(404, f"there is no tower {modality[:50]!r}", code="no_such_tower")
        rows = tensor_rows(body, service.limits)
        model = model_of(service, modality, request.headers.get(MODEL_HEADER))
        request.scope["state"]["inputs"] = len(rows)
        found = await unless_gone(request, service.run_tensors(model, modality, rows, deadline))
        return Response(save({ROWS: found}), media_type=MEDIA_TYPE)


def model_of(service: Service, modality: str, fingerprint: str | None) -> Served:
    """The model whose tower is asked for; without a fingerprint the first that has one.

    Raises:
        RequestError: 400 when it is not served here: rows of another model would mean nothing.
    """
    if fingerprint is None:
        return service.model(None, modality)
    for model in service.models.values():
        if modality in model.lanes and model.fingerprint == fingerprint:
            return model
    raise RequestError(
        400,
        f"the {modality} tower of the model with the fingerprint {fingerprint[:64]} is not served "
        "here: serve the same bundle on both machines",
        code="other_model",
    )


def tensor_rows(body: bytes, limits: Limits) -> list[Tensors]:
    """The rows of a batch of tensors.

    Raises:
        RequestError: 400 for no safetensors, no tensors, or unequal or too many rows.
    """
    try:
        tensors = load(body)
    except Exception as error:  # the library raises several kinds on damaged content
        raise RequestError(400, f"the tensors cannot be read: {error}", code="tensors") from error
    counts = {array.shape[0] if array.ndim else 0 for array in tensors.values()}
    if len(counts) != 1 or 0 in counts:
        raise RequestError(400, "all tensors need the same number of rows", code="tensors")
    (count,) = counts
    if count > limits.inputs:
        raise RequestError(400, f"more than {limits.inputs} rows", code="too_many_inputs")
    return [Tensors({name: array[i] for name, array in tensors.items()}) for i in range(count)]
