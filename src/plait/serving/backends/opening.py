"""The models that a server is told to serve, opened."""

from __future__ import annotations

from pathlib import Path

from plait.core.errors import UserError
from plait.serving.backends.served import Served
from plait.serving.base.settings import Settings
from plait.serving.queue.decoders import Decoders


def open_models(settings: Settings, decoders: Decoders) -> dict[str, Served]:
    """Loads every model of the settings; ``decoders`` are for all pictures that they will see.

    Raises:
        UserError: nothing to serve, a folder that holds no model, or one that cannot be served.
    """
    if not settings.models:
        raise UserError("nothing to serve: give the folder of a bundle or of a run")
    return {
        name: _open(name, Path(folder), settings, decoders)
        for name, folder in settings.models.items()
    }


def _open(name: str, folder: Path, settings: Settings, decoders: Decoders) -> Served:
    from plait.runtime.manifest import MANIFEST

    created = int(folder.stat().st_mtime) if folder.exists() else 0
    if (folder / MANIFEST).is_file():
        from plait.serving.backends.bundles import open_served

        return open_served(name, folder, settings, created, decoders)
    from plait.serving.backends.runs import open_served as open_run

    return open_run(name, folder, settings, created, decoders)
