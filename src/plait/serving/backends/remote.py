"""Towers that run on other servers: prepared tensors go there, rows come back.

Shape legend: B inputs, E features of the shared space.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from plait.core.errors import UserError
from plait.core.shapes import Float32
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.text.tokenize import TextPreprocess
from plait.serving.base.environment import TOWER_KEY, secret
from plait.serving.base.errors import RequestError, overloaded
from plait.serving.queue.lanes import Embedder

MODEL_HEADER: Final = "X-Plait-Model"
ROWS: Final = "embeddings"
MEDIA_TYPE: Final = "application/octet-stream"
SECONDS: Final = 20.0  # for one batch


class RemoteTower:
    """One tower behind ``POST /v1/towers/{modality}`` of another server.

    Args:
        modality: of the tower.
        url: of the server, e.g. ``http://10.0.0.2:8001``.
        key: API key, if the server wants one.
        model: fingerprint of the model whose tower it must be.
        dim: features of its rows.

    Raises:
        UserError: no http or https URL.
    """

    def __init__(
        self, modality: str, url: str, key: str | None = None, *, model: str, dim: int
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"--tower {modality}={url}: give http://host:port")
        self.modality, self.url = modality, url.rstrip("/")
        self._parts, self._path = parts, f"{parts.path.rstrip('/')}/v1/towers/{modality}"
        self._headers, self._dim = {"Content-Type": MEDIA_TYPE, MODEL_HEADER: model}, dim
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._connection: http.client.HTTPConnection | None = None
        self._one = threading.Lock()  # one batch at a time goes over the connection

    def close(self) -> None:
        """Closes the connection."""
        with self._one:
            self._drop()

    def run(self, tensors: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "B E"]:
        """The rows of a batch.

        Raises:
            RequestError: 429 when the other server is busy, 502 when it is away or refuses.
        """
        body = save({name: np.ascontiguousarray(array) for name, array in tensors.items()})
        try:
            with self._one:
                status, headers, data = self._ask(body)
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise self._failed(f"cannot be reached: {reason}") from error
        if status == 429:
            wait = headers.get("Retry-After", "1")
            raise overloaded(float(wait) if wait.isdecimal() else 1.0, f"the {self.modality} tower")
        if status != 200:
            raise self._failed(
                f"answers with status {status}: {data[:200].decode(errors='replace')}"
            )
        try:
            rows: np.ndarray = load(data)[ROWS]
        except (SafetensorError, KeyError) as error:
            raise self._failed("answers with something else than rows") from error
        if rows.shape != (len(next(iter(tensors.values()))), self._dim):
            raise self._failed(f"answers with rows of another shape, {rows.shape}")
        return rows

    def _ask(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Over the kept connection; one that was closed meanwhile is made anew."""
        if self._connection is not None:
            try:
                return self._send(self._connection, body)
            except (http.client.RemoteDisconnected, ConnectionError):
                self._drop()
        self._connection = self._connected()
        return self._send(self._connection, body)

    def _connected(self) -> http.client.HTTPConnection:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        assert self._parts.hostname is not None
        return kind(self._parts.hostname, self._parts.port, timeout=SECONDS)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(
        self, connection: http.client.HTTPConnection, body: bytes
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        try:
            connection.request("POST", self._path, body, self._headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        except BaseException:
            self._drop()
            raise

    def _failed(self, reason: str) -> RequestError:
        return RequestError(
            502, f"the server of the {self.modality} tower {reason}", code="tower_failed"
        )


class SplitEmbedder:
    """A model of which some towers run elsewhere (see `plait.serving.queue.lanes.Embedder`).

    Args:
        model: prepares everything, and runs the towers that are here.
        towers: those that are not, by modality.

    Raises:
        UserError: a tower that the model has not.
    """

    def __init__(self, model: Embedder, towers: Mapping[str, RemoteTower]) -> None:
        for name in towers:
            if name not in model.modalities:
                known = ", ".join(model.modalities)
                raise UserError(f"--tower {name}=...: the model embeds {known}")
        self._model, self.towers = model, dict(towers)
        self.modalities: Sequence[str] = model.modalities
        self.dim, self.scale = model.dim, model.scale

    def close(self) -> None:
        """Closes the connections."""
        for tower in self.towers.values():
            tower.close()

    @property
    def image_preprocess(self) -> ImagePreprocess:
        """See `Embedder`."""
        return self._model.image_preprocess

    @property
    def text_preprocess(self) -> TextPreprocess:
        """See `Embedder`."""
        return self._model.text_preprocess

    def prepare_images(self, images: Sequence[Any]) -> Mapping[str, np.ndarray]:
        """See `Embedder`."""
        return self._model.prepare_images(images)

    def prepare_texts(self, texts: Sequence[str]) -> Mapping[str, np.ndarray]:
        """See `Embedder`."""
        return self._model.prepare_texts(texts)

    def run(self, modality: str, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """See `Embedder`."""
        tower = self.towers.get(modality)
        return self._model.run(modality, tensors) if tower is None else tower.run(tensors)


def split(model: Embedder, urls: Mapping[str, str], fingerprint: str) -> Embedder:
    """The model with the towers of these URLs elsewhere; PLAIT_TOWER_KEY is their key."""
    if not urls:
        return model
    key = secret(TOWER_KEY)
    towers = {
        name: RemoteTower(name, url, key, model=fingerprint, dim=model.dim)
        for name, url in urls.items()
    }
    return SplitEmbedder(model, towers)
