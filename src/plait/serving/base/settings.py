"""What a server may be asked for, and how it is reached: plain data that travels to the worker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of one request, and of all that are being answered.

    Attributes:
        body_bytes: of a request.
        inflight_bytes: of the bodies of all requests that are being read or answered.
        body_seconds: in which a body must have arrived.
        body_rate: bytes a second that a body must come at on average, after its first seconds.
        head_bytes: of a request, before its body; also of what may come before it is answered.
        target_bytes: of a request's path with its query.
        headers: lines in the head of a request.
        head_seconds: in which a head must have arrived, counted from the connection's beginning.
        idle_seconds: that a connection may wait for its next request.
        answer_seconds: in which a client must have taken what it is sent.
        connections: at once, as far as the system's limit on open files allows.
        client_share: of the connections and of ``inflight_bytes`` that one client may hold.
        inputs: texts and pictures in a request.
        pictures: in a request.
        picture_bytes: of one, encoded.
        pixels: of one, width times height, by its header.
        picture_seconds: of processor time that decoding one may take.
        characters: of one text.
        tokens: of all texts in a request, after each is cut at the model's limit.
        labels: in a request to classify, times its templates.
        hits: of one search.
        requests: that are being read or answered at once.
        queue: texts and pictures that wait in a lane; more are refused with 429.
        queue_seconds: the expected wait beyond which requests are refused with 429.
        deadline: seconds after which a request is given up with 504.
        batch_rows: texts or pictures in one forward pass.
        batch_tokens: in one forward pass, padding included.
        batch_pixels: of the encoder's input in one forward pass.
        batch_wait: seconds that a pass which is not full waits for inputs in preparation.
        page_bytes: of the pictures that the page keeps in memory for those who look at it.
    """

    body_bytes: int = 32 * MIB
    inflight_bytes: int = 256 * MIB
    body_seconds: float = 30.0
    body_rate: int = 1024
    head_bytes: int = 16_384
    target_bytes: int = 8192
    headers: int = 100
    head_seconds: float = 10.0
    idle_seconds: float = 20.0
    answer_seconds: float = 60.0
    connections: int = 4096
    client_share: float = 0.5
    inputs: int = 2048
    pictures: int = 64
    picture_bytes: int = 20 * MIB
    pixels: int = 25_000_000
    picture_seconds: float = 5.0
    characters: int = 20_000
    tokens: int = 131_072
    labels: int = 1000
    hits: int = 1000
    requests: int = 1024
    queue: int = 4096
    queue_seconds: float = 1.25
    deadline: float = 30.0
    batch_rows: int = 64
    batch_tokens: int = 2048
    batch_pixels: int = 16 * 224 * 224
    batch_wait: float = 0.002
    page_bytes: int = 128 * MIB


PAGE = "/page"  # where the page for people is


@dataclass(frozen=True)
class Settings:
    """One server.

    Attributes:
        models: folders of bundles or runs, by the name that requests use; the first is the default.
        index: folder of an index to search.
        roots: folders whose pictures the index may show, besides its own and those that this user
            made it from.
        allow_outside: the index may show any picture of this machine.
        engine, precision: of bundles (see `plait.runtime.open_bundle`).
        threads: of inference; None for one a core.
        streams: passes that run at the same time, each with its share of the threads.
        prepare_threads: that decode and tokenise; None for one a core.
        limits: see there.
        image_hosts: hosts from which pictures may be fetched; none by default.
        cors: origins whose pages may call the server; none by default.
        hostnames: further names that the ``Host`` header may carry.
        proxies: addresses of reverse proxies, whose ``X-Forwarded-For`` tells the client.
        local_only: only requests to a loopback name are taken (against DNS rebinding).
        towers: modality to the base URL of another server that runs the tower.
        page: whether there is a page for people under ``/page``.
        ready_seconds: how recent the last forward pass of every lane must be.
    """

    models: Mapping[str, str]
    index: str | None = None
    roots: tuple[str, ...] = ()
    allow_outside: bool = False
    engine: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    streams: int = 1
    prepare_threads: int | None = None
    limits: Limits = field(default_factory=Limits)
    image_hosts: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    hostnames: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    local_only: bool = True
    towers: Mapping[str, str] = field(default_factory=dict)
    page: bool = False
    ready_seconds: float = 30.0

    def to_json(self) -> str:
        """One line of JSON; holds no secret."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The inverse of `to_json`."""
        value: dict[str, Any] = json.loads(text)
        value["limits"] = Limits(**value["limits"])
        for entry in fields(cls):
            if isinstance(value.get(entry.name), list):
                value[entry.name] = tuple(value[entry.name])
        return cls(**value)
