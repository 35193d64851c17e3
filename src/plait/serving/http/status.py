"""Endpoints about the server itself: health, readiness, metrics, the list of models."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from plait.serving.base import schemas
from plait.serving.base.metrics import CONTENT_TYPE
from plait.serving.service.service import Service

router = APIRouter()


@router.get("/healthz", operation_id="health", response_model=schemas.Health)
async def healthz() -> Any:
    """Whether the process answers; says nothing about the models."""
    return Response(b'{"status":"ok"}', media_type="application/json")


@router.get("/readyz", operation_id="readiness", response_model=schemas.Readiness)
async def readyz(request: Request) -> Any:
    """200 when every lane had a real forward pass lately, else 503; 503 too while shutting down."""
    service: Service = request.app.state.service
    state = "draining" if service.draining else "ready" if service.ready else "unready"
    service.metrics.ready.set(state == "ready")
    body = orjson.dumps({"status": state, "lanes": service.ages()})
    return Response(
        body, status_code=200 if state == "ready" else 503, media_type="application/json"
    )


@router.get("/metrics", operation_id="metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus metrics of this worker."""
    service: Service = request.app.state.service
    service.metrics.ready.set(service.ready and not service.draining)
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)


@router.get("/v1/models", operation_id="models", response_model=schemas.ModelList)
async def models(request: Request) -> Any:
    """The models that are served, the default first."""
    service: Service = request.app.state.service
    data = [
        {
            "id": model.name,
            "object": "model",
            "created": model.created,
            "owned_by": "plait",
            "kind": model.kind,
            "modalities": model.modalities,
            "dimensions": None if model.embedder is None else model.embedder.dim,
        }
        for model in service.models.values()
    ]
    return Response(orjson.dumps({"object": "list", "data": data}), media_type="application/json")
