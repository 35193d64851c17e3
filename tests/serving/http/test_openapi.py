"""Requests made from the OpenAPI file, fitting and unfitting ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from plait.serving.base.settings import Settings
from plait.serving.http.app import create_app
from plait.serving.service.service import Service

# schemathesis draws from `random` in its own strategies.
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")

DOCUMENT: dict[str, Any] = create_app(Service(Settings(models={}), {})).openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]

OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]


def test_the_file_is_that_of_the_application() -> None:
    file = Path(__file__).parents[3] / "docs" / "openapi.json"
    assert json.loads(file.read_text(encoding="utf-8")) == DOCUMENT


def exercise(client: TestClient, path: str, method: str, mode: GenerationMode, count: int) -> None:
    operation = SCHEMA[path][method.upper()]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        request = case.as_transport_kwargs(base_url="http://testserver")
        request.pop("cookies")  # there are none; the client warns of the argument
        if isinstance(request.get("data"), bytes | str):  # and of this name for bytes
            request["content"] = request.pop("data")
        if request.get("files") is not None:
            request["files"] = [(name, sendable(value)) for name, value in pairs(request["files"])]
        reply = client.request(**request)
        reply.request.read()
        checks = CHECKS
        if reply.status_code == 504 and "x-deadline" in reply.request.headers:
            assert reply.json()["error"]["code"] == "deadline"  # as short as the client wished
            checks = CHECKS[1:]
        case.validate_response(reply, checks=checks)

    check()


def pairs(files: Any) -> list[tuple[str, Any]]:
    return list(files.items()) if isinstance(files, dict) else list(files)


def sendable(value: Any) -> Any:
    """A part of a form as the client takes it: it cannot send numbers."""
    if isinstance(value, tuple):
        return (value[0], sendable(value[1]), *value[2:])
    return value if value is None or isinstance(value, bytes | str) else str(value)


# Nothing about a GET here can be unfitting.
CASES = [
    (path, method, mode)
    for path, method in OPERATIONS
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if method == "post" or mode is GenerationMode.POSITIVE
]


@pytest.mark.parametrize(("path", "method", "mode"), CASES)
def test_every_operation(client: TestClient, path: str, method: str, mode: GenerationMode) -> None:
    exercise(client, path, method, mode, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method", "mode"), CASES)
def test_every_operation_at_length(
    client: TestClient, path: str, method: str, mode: GenerationMode
) -> None:
    exercise(client, path, method, mode, 300)
