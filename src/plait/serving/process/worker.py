"""The process that computes: started by `plait.serving.process.supervisor`, on a socket that it inherits.

On standard input it gets three lines of JSON: settings with the descriptors of the socket and of
the pipe for its heartbeats, then API keys by name (never as arguments, which everyone on the
machine can read, nor in its environment). It loads its libraries and waits for the third line, which makes it the worker.
When standard input ends, the parent is gone, and the worker stops as if asked to.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import uvicorn

from plait.core.errors import PlaitError, UserError
from plait.core.telemetry import switch_off
from plait.serving.backends.opening import open_models
from plait.serving.backends.served import Served
from plait.serving.base.connections import Guard
from plait.serving.base.environment import TOWER_KEY, keep
from plait.serving.base.logs import configure_logs
from plait.serving.base.settings import Settings
from plait.serving.http.app import PAGE, create_app
from plait.serving.http.protocol import guarded_protocol
from plait.serving.http.shedding import Shedding
from plait.serving.process.supervisor import BEAT, READY
from plait.serving.queue.decoders import Decoders
from plait.serving.service.search_process import Place
from plait.serving.service.searching import Searcher
from plait.serving.service.service import Service

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
DRAIN_SECONDS = 0.5  # in which what stands in the socket's backlog is still taken
_ACCEPTS = 64  # connections that are taken in one turn of the event loop, at most
_FILES = 1 << 16
# How long a thread may keep the interpreter's lock while others want it. The event loop lets go of
# it in every system call, and would wait for threads that prepare and run that long each time.
_SWITCH_SECONDS = 0.0005
_GRACE = 5.0  # beyond the deadline of the last request


def build_service(settings: Settings, *, restarts: int = 0) -> Service:
    """Everything of the settings, loaded.

    Raises:
        UserError: a model or an index that cannot be served.
    """
    decoders = Decoders(settings.limits)
    decoders.start()  # they load while the models do
    try:
        models = open_models(settings, decoders)
        # A worker that takes the place of another serves embeddings while its index is being opened.
        searcher = open_searcher(settings, models, wait=restarts == 0)
    except BaseException:
        decoders.close()
        raise
    return Service(settings, models, searcher, decoders=decoders, restarts=restarts)


def open_searcher(
    settings: Settings, models: Mapping[str, Served], *, wait: bool = True
) -> Searcher | None:
    """The index of the settings with the served model that made it; ``wait`` until it is open.

    Raises:
        UserError: no index, or none of the served models made it.
    """
    if settings.index is None:
        return None
    from plait.retrieval.index.manifest import read_manifest

    wanted = read_manifest(Path(settings.index)).model
    for name, model in models.items():
        if model.embedder is not None and model.fingerprint == wanted:
            limits = settings.limits
            place = Place(
                settings.index,
                settings.roots,
                settings.allow_outside,
                limits.picture_bytes,
                limits.pixels,
            )
            return Searcher(place, name, limits, wait=wait)
    known = ", ".join(f"{name} {model.fingerprint}" for name, model in models.items())
    raise UserError(
        f"{settings.index} was made by the model with the fingerprint {wanted}, and none of the "
        f"served ones is that ({known}): serve the model that made it, or its bundle"
    )


class Worker(uvicorn.Server):
    """A server that takes what stands in the backlog before it stops listening.

    Args:
        config: of uvicorn.
        service: that is told when the server is draining.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self.quitting: asyncio.Event | None = None

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM or SIGINT: drain first; a second SIGINT stops at once."""
        if self.service.draining and sig == signal.SIGINT:
            self.force_exit = True
        self.service.draining = True
        threading.Timer(DRAIN_SECONDS, self._exit).start()

    def _exit(self) -> None:
        self.should_exit = True


def serve(
    settings: Settings,
    keys: Mapping[str, str],
    listening: socket.socket,
    beats: int,
    *,
    restarts: int,
) -> None:
    """Serves until a signal, or until standard input ends."""
    service = build_service(settings, restarts=restarts)

    def started() -> None:
        os.write(beats, READY)
        asyncio.get_running_loop().create_task(_beat(beats, service))

    app = create_app(service, keys=keys, free=["/", PAGE] if settings.page else [], started=started)
    if settings.page:
        from plait.serving.page.page import mount_page

        mount_page(app, service, keys)
    guard = Guard(
        settings.limits,
        proxies=settings.proxies,
        refused=lambda reason: service.metrics.closed.labels(reason).inc(),
        shed=Shedding(service).refusal,
    )
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        http=cast(Any, guarded_protocol(guard)),
        ws="none",
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies),
        # uvicorn takes whole seconds; the guard ends what waits for longer than the limit.
        timeout_keep_alive=math.ceil(settings.limits.idle_seconds),
        timeout_graceful_shutdown=int(settings.limits.deadline + _GRACE),
        h11_max_incomplete_event_size=max(1 << 16, 2 * settings.limits.head_bytes),
    )
    server = Worker(config, service)
    threading.Thread(target=_follow_parent, args=(server,), daemon=True).start()
    server.run(sockets=[listening, *(listening.dup() for _ in range(accepts() - 1))])


async def _beat(beats: int, service: Service) -> None:
    """A byte a second while the event loop turns and no forward pass hangs."""
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        since = service.scheduler.busy_since
        if since is None or time.monotonic() - since < service.settings.ready_seconds:
            try:
                os.write(beats, BEAT)
            except BlockingIOError:  # the parent is busy, and has enough of them to read
                continue


def _follow_parent(server: Worker) -> None:
    """Stops the worker when its parent is gone."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def load_libraries(settings: Settings) -> None:
    """What the models will need, so that a spare process only has to load the models."""
    from plait.runtime.manifest import MANIFEST

    kinds = {(Path(folder) / MANIFEST).is_file() for folder in settings.models.values()}
    if True in kinds:
        import plait.serving.backends.bundles

        engines = ("openvino", "onnxruntime") if settings.engine == "auto" else (settings.engine,)
        for engine in engines:
            if find_spec(engine) is not None:
                importlib.import_module(engine)
                break
    if False in kinds:
        import plait.api
        import plait.models.store.storage
    if settings.index is not None:
        import plait.retrieval.index.manifest  # noqa: F401


def accepts() -> int:
    """How often the listening socket is listened on, within a small part of the open files.

    uvloop accepts one connection a turn from each: a crowd, such as waits for a new worker, would
    wait for as many turns.
    """
    if find_spec("resource") is None:
        return 1
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ACCEPTS if files == resource.RLIM_INFINITY else max(1, min(_ACCEPTS, files // 128))


def allow_many_connections() -> None:
    """As many open files as the system lets this user have: a connection is one."""
    if find_spec("resource") is None:  # not on Windows
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if most != resource.RLIM_INFINITY else _FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, _FILES), most))


def lines_of_input() -> Iterator[Any]:
    """The lines of JSON on standard input, read without a buffer: `_follow_parent` reads on."""
    given = b""
    while block := os.read(0, 1 << 16):
        given += block
        *lines, given = given.split(b"\n")
        for line in lines:
            yield json.loads(line)


def main() -> int:
    """Runs the worker that the parent describes on standard input."""
    switch_off()
    lines = lines_of_input()
    try:
        start, keys = next(lines), next(lines)
        settings = Settings.from_json(start["settings"])
        configure_logs(start["log_level"])
        load_libraries(settings)
        keep(TOWER_KEY, start["tower_key"])
        go = next(lines)
    except StopIteration:  # the parent is gone
        return 0
    allow_many_connections()
    sys.setswitchinterval(_SWITCH_SECONDS)
    listening = socket.socket(fileno=start["listening"])
    os.set_blocking(start["beats"], False)
    for inherited in (listening.fileno(), start["beats"]):  # by this process alone
        os.set_inheritable(inherited, False)
    try:
        serve(settings, keys, listening, start["beats"], restarts=go["restarts"])
    except PlaitError as error:
        log.error("%s", error)
        print(json.dumps({"type": type(error).__name__, "message": str(error)}), flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
