"""From the options of `plait serve` to a running server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from plait.core.errors import UserError, did_you_mean
from plait.serving.base.environment import TOWER_KEY, take
from plait.serving.base.settings import Limits, Settings
from plait.serving.http.security import LOOPBACK, VARIABLE, read_keys
from plait.serving.process.supervisor import Supervisor, listen

LEVELS = ("debug", "info", "warning", "error")


def run_server(
    models: Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_keys: Path | None = None,
    no_keys: bool = False,
    limits: Sequence[str] = (),
    spare: bool = True,
    log_level: str = "info",
    tell: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        models: folders of bundles or runs.
        host: to bind.
        port: 0 for a free one.
        api_keys: a file; else PLAIT_API_KEYS is read.
        no_keys: other machines may call without a key.
        limits: ``name=value`` of `Limits`.
        spare: keep a process waiting that can replace the worker.
        log_level: of the worker.
        tell: is told what happens.
        settings: further fields of `Settings`.

    Raises:
        UserError: settings that do not fit, an address that cannot be bound, or a model that
            cannot be served.
    """
    if sys.platform == "win32":  # the worker inherits descriptors, and signals end it
        raise UserError(
            "plait serve needs Linux or macOS: on Windows start it in WSL or a container"
        )
    keys = read_keys(api_keys, {VARIABLE: take(VARIABLE) or ""})
    local = host in LOOPBACK
    if not (local or keys or no_keys):
        raise UserError(
            f"--host {host} lets other machines in: give --api-keys FILE (or PLAIT_API_KEYS), or "
            "--no-keys if everyone who reaches it may use it"
        )
    if log_level not in LEVELS:
        raise UserError(f"--log-level is {log_level!r}; it can be {', '.join(LEVELS)}")
    for name in ("cors", "image_hosts", "hostnames", "proxies"):
        settings[name] = tuple(settings.get(name, ()))
    index = settings.pop("index", None)
    settings["roots"] = tuple(str(Path(root).resolve()) for root in settings.get("roots", ()))
    towers = read_towers(settings.pop("towers", ()))
    made = Settings(
        models=named(models),
        index=None if index is None else str(Path(index).resolve()),
        limits=read_limits(limits),
        towers=towers,
        local_only=local and not keys,
        **settings,
    )
    parent = Supervisor(
        made,
        keys,
        listen(host, port),
        tower_key=take(TOWER_KEY),
        log_level=log_level,
        tell=tell,
        spare=spare,
    )
    parent.run()


def named(folders: Sequence[Path]) -> Mapping[str, str]:
    """Folders by the names under which they are served: their own, numbered where they are alike.

    Raises:
        UserError: one is missing.
    """
    found: dict[str, str] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder: give a bundle or a run")
        path = folder.resolve()
        name, number = path.name, 2
        while name in found:
            name, number = f"{path.name}-{number}", number + 1
        found[name] = str(path)
    return found


def read_towers(given: Sequence[str]) -> dict[str, str]:
    """``image=http://host:port`` and the like, by modality.

    Raises:
        UserError: something else.
    """
    towers: dict[str, str] = {}
    for one in given:
        modality, _, url = one.partition("=")
        if not modality or not url.startswith(("http://", "https://")):
            raise UserError(f"--tower {one}: give MODALITY=http://host:port")
        towers[modality] = url
    return towers


def read_limits(given: Sequence[str]) -> Limits:
    """``deadline=10`` and the like, over the defaults.

    Raises:
        UserError: an unknown name, or no positive number.
    """
    kinds = {entry.name: type(getattr(Limits(), entry.name)) for entry in fields(Limits)}
    changed: dict[str, Any] = {}
    for one in given:
        name, _, text = one.partition("=")
        if name not in kinds:
            hint = did_you_mean(name, kinds)
            raise UserError(f"there is no limit {name!r}{hint}; there are {', '.join(kinds)}")
        try:
            value = kinds[name](text)
        except ValueError:
            value = 0
        if not value > 0 or value == float("inf"):
            raise UserError(f"the limit {name} is {text!r}: give a positive number")
        changed[name] = value
    return Limits(**changed)
