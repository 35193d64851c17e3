"""The OpenAPI file: bodies are read and checked by plait itself, so they are described here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from plait.serving.base import schemas

_REF = "#/components/schemas/{model}"
BODIES: Mapping[str, tuple[type[BaseModel], type[BaseModel]]] = {
    "/v1/embeddings": (schemas.EmbeddingRequest, schemas.EmbeddingResponse),
    "/v1/search": (schemas.SearchRequest, schemas.SearchResponse),
    "/v1/classify": (schemas.ClassifyRequest, schemas.ClassifyResponse),
    "/v1/similarity": (schemas.SimilarityRequest, schemas.SimilarityResponse),
    "/v1/ask": (schemas.AskRequest, schemas.AskResponse),
}
PROBLEMS = {
    "400": "The request is at fault; the message says where.",
    "401": "An API key is needed.",
    "403": "The server does not go by the name in the Host header.",
    "404": "No such model, or no index.",
    "408": "The body did not arrive in time.",
    "413": "The request is too large.",
    "415": "The Content-Type is not one that is taken.",
    "429": "Too busy: come back after the seconds in Retry-After.",
    "500": "A fault of the server.",
    "502": "The server of a tower is away.",
    "504": "The deadline passed.",
}
FORM = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "input": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "contentMediaType": "application/octet-stream"},
            "description": "Files of pictures, or texts; repeat the field.",
        },
        "model": {"type": "string"},
        "encoding_format": {"type": "string", "enum": ["float", "base64"]},
        "modality": {"type": "string", "enum": ["text", "image"]},
        "dimensions": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
        "user": {"type": "string"},
    },
    "additionalProperties": False,
}


def describe(app: FastAPI) -> None:
    """Makes ``app.openapi`` give the whole description."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the application."""
    made = get_openapi(
        title=app.title,
        version=app.version,
        description="Embeddings, search, classification and answers of plait's models.",
        routes=app.routes,
    )
    shown: list[Any] = [(schemas.ErrorResponse, "serialization")]
    for asked, answer in BODIES.values():
        shown += [(asked, "validation"), (answer, "serialization")]
    names, shared = models_json_schema(shown, ref_template=_REF)
    made.setdefault("components", {}).setdefault("schemas", {}).update(shared["$defs"])
    error = _content(names[schemas.ErrorResponse, "serialization"])
    for path, (request, response) in BODIES.items():
        operation = made["paths"][path]["post"]
        content = _content(names[request, "validation"])["content"]
        if path == "/v1/embeddings":
            content["multipart/form-data"] = {"schema": FORM}
        operation["requestBody"] = {"required": True, "content": content}
        operation["parameters"] = [_DEADLINE]
        operation["responses"] = {
            "200": {"description": "OK", **_content(names[response, "serialization"])},
            **{code: {"description": about, **error} for code, about in PROBLEMS.items()},
        }
        operation["responses"]["429"]["headers"] = {
            "Retry-After": {"schema": {"type": "integer", "minimum": 1}}
        }
    made["paths"]["/readyz"]["get"]["responses"]["503"] = {
        **made["paths"]["/readyz"]["get"]["responses"]["200"],
        "description": "Not ready, or shutting down.",
    }
    made["paths"]["/metrics"]["get"]["responses"]["200"] = {
        "description": "Prometheus' text format.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    for path in ("/v1/models", "/metrics"):
        for code in ("401", "403"):
            responses = made["paths"][path]["get"]["responses"]
            responses[code] = {"description": PROBLEMS[code], **error}
    for path in ("/healthz", "/readyz"):
        responses = made["paths"][path]["get"]["responses"]
        responses["403"] = {"description": PROBLEMS["403"], **error}
    tower = made["paths"]["/v1/towers/{modality}"]["post"]
    binary = {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    }
    tower["requestBody"] = {"required": True, **binary}
    tower["parameters"] = [*tower["parameters"], _DEADLINE]
    tower["responses"] = {
        "200": {"description": "Rows, as the tensor `embeddings` in safetensors.", **binary},
        **{code: {"description": about, **error} for code, about in PROBLEMS.items()},
    }
    made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    made["security"] = [{}, {"key": []}]
    return made


_DEADLINE = {
    "name": "X-Deadline",
    "in": "header",
    "required": False,
    "description": "Seconds after which the answer is of no use; at most the server's own.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}


def _content(schema: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}
