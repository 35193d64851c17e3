"""Hand-written bundles, an application around them in this process, and a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.serving.made import write_answering_bundle, write_bundle

from plait.serving.app import create_app
from plait.serving.settings import Limits, Settings
from plait.serving.worker import build_service

KEY = "a-key-for-the-tests-0123456789"
LIMITS = Limits(body_bytes=1 << 20, inputs=64, pictures=8, pixels=1_000_000, characters=2000)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def teller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_answering_bundle(tmp_path_factory.mktemp("bundles") / "teller")


@pytest.fixture(scope="session")
def settings(bundle: Path, teller: Path) -> Settings:
    return Settings(
        models={"tiny": str(bundle), "teller": str(teller)},
        engine="onnxruntime",
        threads=1,
        limits=LIMITS,
        hostnames=("testserver",),
    )


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[TestClient]:
    app = create_app(build_service(settings))
    with TestClient(app) as made:
        yield made
