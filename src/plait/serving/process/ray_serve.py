"""The same application as a Ray Serve deployment: many replicas on a cluster.

Needs the extra ``ray``. Ray's proxy takes the requests; every replica is one `Service` with its own
models, batching and limits, and no supervisor: Ray replaces a replica whose `check_health` fails.

    from plait.serving.process.ray_serve import deployment
    from plait.serving.base.settings import Settings

    app = deployment(Settings(models={"clip": "/srv/bundle"}, local_only=False), replicas=4)
    ray.serve.run(app)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plait.core.errors import MissingExtra
from plait.core.telemetry import switch_off
from plait.serving.base.settings import Settings


def deployment(
    settings: Settings,
    *,
    keys: Mapping[str, str] | None = None,
    replicas: int = 1,
    cpus: float = 2.0,
) -> Any:
    """A bound Ray Serve application.

    Args:
        settings: of every replica; paths must be readable on every node, and ``threads`` should
            be ``cpus``.
        keys: API keys by name.
        replicas: how many.
        cpus: of one replica.

    Raises:
        MissingExtra: Ray is not installed.
    """
    switch_off()
    try:
        from ray import serve
    except ImportError as error:
        raise MissingExtra("ray[serve]", "ray", "plait.serving.process.ray_serve") from error
    given = dict(keys or {})

    def build() -> Any:
        """Called in the replica."""
        return application(settings, given)

    made: Any = serve.deployment(
        serve.ingress(build)(),
        name="plait",
        num_replicas=replicas,
        ray_actor_options={"num_cpus": cpus},
        max_ongoing_requests=settings.limits.requests,
        graceful_shutdown_timeout_s=settings.limits.deadline + 5,
        health_check_period_s=5,
    )
    return made.bind()


def application(settings: Settings, keys: Mapping[str, str]) -> Any:
    """The ASGI application of one replica: models are loaded here, in the replica's process."""
    from plait.serving.http.app import create_app
    from plait.serving.process.worker import build_service

    return create_app(build_service(settings), keys=keys)
