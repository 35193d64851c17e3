"""Models behind HTTP: batching across requests, limits, keys, readiness, metrics.

`plait.serving.http.app.create_app` is the application, `plait.serving.process.supervisor` what `plait serve`
runs: a parent that holds the listening socket and a worker that computes. A bundle is served
without torch.
"""

from __future__ import annotations

from importlib.util import find_spec

from plait.core.errors import MissingExtra

LIBRARIES = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "orjson": "orjson",
    "prometheus_client": "prometheus-client",
    "python_multipart": "python-multipart",
}


def require_extra() -> None:
    """Raises MissingExtra when a library of the extra ``serve`` is not installed."""
    for module, library in LIBRARIES.items():
        if find_spec(module) is None:
            raise MissingExtra(library, "serve", "plait serve")
