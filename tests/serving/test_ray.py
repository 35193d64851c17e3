"""The application as a Ray Serve deployment; only where ray is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.serving.made import text_row

pytest.importorskip("ray")

TEXTS = ("red", "a blue picture", "the green")
# In a process of its own: the checks of shapes that tests put into plait's modules cannot be pickled.
SCRIPT = """
import json, sys, urllib.request
import ray
from ray import serve
from plait.serving.process.ray_serve import deployment
from plait.serving.base.settings import Settings

bundle, texts = sys.argv[1], sys.argv[2:]
settings = Settings({"tiny": bundle}, engine="onnxruntime", threads=1, local_only=False)
ray.init(num_cpus=2, include_dashboard=False)
serve.start(http_options={"host": "127.0.0.1", "port": 18765})
serve.run(deployment(settings, replicas=2, cpus=0.5))
rows = []
for text in texts:
    request = urllib.request.Request(
        "http://127.0.0.1:18765/v1/embeddings",
        data=json.dumps({"input": text}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        rows.append(json.load(reply)["data"][0]["embedding"])
running = serve.status().applications["default"].deployments["plait"].replica_states
serve.shutdown()
ray.shutdown()
print(json.dumps({"rows": rows, "replicas": sum(running.values())}))
"""


@pytest.mark.slow
def test_a_deployment_of_two_replicas_answers(bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(bundle), *TEXTS],
        env={**os.environ, "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "300"},  # busy machines
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["replicas"] == 2
    for text, row in zip(TEXTS, found["rows"], strict=True):
        np.testing.assert_allclose(row, text_row(text), atol=1e-5)
