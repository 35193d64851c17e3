"""One bundle for all tests of the runtime, and the model that it was made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.deployment.made import alignment_model

from plait.deployment.export import export_bundle
from plait.models.alignment.alignment import AlignmentModel


@pytest.fixture(scope="session")
def model() -> AlignmentModel:
    return alignment_model()


@pytest.fixture(scope="session")
def folder(model: AlignmentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "small"
    export_bundle(model, out, name="small")
    return out
