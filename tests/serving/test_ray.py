"""The application as a Ray Serve deployment; only where ray is installed."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from tests.serving.made import text_row

from plait.serving.settings import Settings

ray = pytest.importorskip("ray")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of ray itself
def test_a_deployment_of_two_replicas_answers(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "300")  # busy machines
    from ray import serve

    from plait.serving.ray_serve import deployment

    settings = Settings({"tiny": str(bundle)}, engine="onnxruntime", threads=1, local_only=False)
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": 18765})
        serve.run(deployment(settings, replicas=2, cpus=0.5))
        for text in ("red", "a blue picture", "the green"):
            request = urllib.request.Request(
                "http://127.0.0.1:18765/v1/embeddings",
                data=json.dumps({"input": text}).encode(),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60) as reply:
                (entry,) = json.load(reply)["data"]
            np.testing.assert_allclose(entry["embedding"], text_row(text), atol=1e-5)
    finally:
        serve.shutdown()
        ray.shutdown()
