"""Run folders behind the same endpoints, with torch."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from tests.deployment.made import alignment_model, fusion_model, jpeg, picture

from plait import api
from plait.core.errors import UserError
from plait.core.media import BytesRef
from plait.models.alignment.alignment import AlignmentModel
from plait.models.fusion.model import FusionModel
from plait.models.store.storage import save_model
from plait.serving.base.settings import Settings
from plait.serving.http.app import create_app
from plait.serving.process.worker import build_service

TEXTS = ["a red fruit", "cat", "the blue one stands under a tree"]


@pytest.fixture(scope="module")
def models() -> tuple[AlignmentModel, FusionModel]:
    return alignment_model(), fusion_model()


@pytest.fixture(scope="module")
def folders(
    models: tuple[AlignmentModel, FusionModel], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    base = tmp_path_factory.mktemp("runs")
    for model, name in zip(models, ("finder", "teller"), strict=True):
        save_model(model, base / name)
    return {name: str(base / name) for name in ("finder", "teller")}


@pytest.fixture(scope="module")
def runs(folders: dict[str, str]) -> Iterator[TestClient]:
    settings = Settings(folders, engine="torch", precision="float32", hostnames=("testserver",))
    with TestClient(create_app(build_service(settings))) as made:
        yield made


def data_url(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def test_rows_are_the_models(
    runs: TestClient, models: tuple[AlignmentModel, FusionModel], tmp_path: Path
) -> None:
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.jpg")
        files[-1].write_bytes(jpeg(picture(number)))
    expected = models[0].embed(files, TEXTS)
    urls = [data_url(file.read_bytes()) for file in files]
    reply = runs.post("/v1/embeddings", json={"input": [*urls, *TEXTS]})
    assert reply.status_code == 200, reply.text
    rows = np.array([entry["embedding"] for entry in reply.json()["data"]])
    np.testing.assert_allclose(rows[:3], expected["image"], atol=1e-5)
    np.testing.assert_allclose(rows[3:], expected["text"], atol=1e-5)


def test_answers_are_the_models(
    runs: TestClient, models: tuple[AlignmentModel, FusionModel]
) -> None:
    data = jpeg(picture(1), "PNG")
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    reply = runs.post("/v1/ask", json={"image": url, "question": "what is it?", "answers": 2})
    assert reply.status_code == 200, reply.text
    expected = api.ask(models[1], BytesRef(data, "picture"), "what is it?", answers=2)
    assert reply.json()["answer"] == expected["answer"]
    assert reply.json()["answers"] == expected["answers"]
    broken = f"data:image/png;base64,{base64.b64encode(data[:50]).decode()}"
    reply = runs.post("/v1/ask", json={"image": broken, "question": "what is it?"})
    assert reply.status_code == 400


def test_engines_that_only_bundles_have(folders: dict[str, str]) -> None:
    with pytest.raises(UserError, match="onnxruntime"):
        build_service(Settings({"finder": folders["finder"]}, engine="onnxruntime"))
