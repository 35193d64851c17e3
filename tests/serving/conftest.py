"""Hand-written bundles, an application around them in this process, and a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from tests.serving.made import (
    DIM,
    MODEL,
    encoded,
    image_row,
    noisy,
    write_answering_bundle,
    write_bundle,
)
from tests.serving.visitor import Page, serving_page

from plait.retrieval.index.manifest import Manifest
from plait.retrieval.store.lance import LanceStore
from plait.retrieval.store.store import Row
from plait.serving.base.settings import Limits, Settings
from plait.serving.http.app import create_app
from plait.serving.process.worker import build_service

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


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve noisy pictures, the odd ones of the split "test"."""
    folder = tmp_path_factory.mktemp("index")
    rows = []
    for number in range(12):
        path = folder / f"{number}.png"
        path.write_bytes(encoded(noisy(number)))
        split = "test" if number % 2 else "train"
        vector = image_row(noisy(number)).astype(np.float32)
        rows.append(
            Row(f"p{number}", vector, "image", ("noise",), str(path), None, {"split": split})
        )
    LanceStore(folder, DIM, create=True).upsert(rows)
    Manifest(dim=DIM, model=MODEL, columns=("split",), modalities=("image",)).save(folder)
    return folder


@pytest.fixture(scope="session")
def page(
    bundle: Path, teller: Path, index: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    """A server with the page, an index and a key, in a process of its own: Gradio leaves loops
    unclosed."""
    log = tmp_path_factory.mktemp("page") / "log"
    with serving_page(bundle, teller, "--index", index, key=KEY, log=log) as made:
        yield made
