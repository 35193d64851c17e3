"""One thread for all tests of this folder, and a small run that they compress."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from tests.training.conftest import TINY, colours  # noqa: F401

from plait.compression import timing
from plait.training.recipe.recipe import load_recipe
from plait.training.run.run import train


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors: a second thread only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def short_measurements() -> Iterator[None]:
    """Latencies are looked at for their form alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "LEAST_SECONDS", 0.0)
        yield


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Path:  # noqa: F811
    """A trained run of two small towers; reading only."""
    folder = tmp_path_factory.mktemp("compression")
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY), encoding="utf-8")
    overrides = ["stages.0.epochs=30", "stages.0.optimiser.lr=1e-2", "evaluation.every=10"]
    torch.set_num_threads(1)
    train(load_recipe(path, overrides, data=str(colours)), out=folder / "run")
    return folder / "run"
