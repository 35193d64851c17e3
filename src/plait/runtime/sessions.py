"""A graph opened by an engine: OpenVINO or ONNX Runtime behind one call, without torch.

Shape legend: B samples.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from plait.core.errors import MissingExtra, ModelError
from plait.core.telemetry import silenced_onnxruntime, switch_off
from plait.runtime.choose import EXTRAS, cores

HINTS: Final = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""What OpenVINO computes in where a graph is not quantised."""


@runtime_checkable
class Session(Protocol):
    """Runs one graph."""

    @property
    def engine(self) -> str:
        """``openvino`` or ``onnxruntime``."""

    @property
    def precision(self) -> str:
        """``float32``, ``bfloat16`` or ``int8``."""

    def run(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """The graph's output, float32 (B, ...), of named inputs. Any thread may call it."""


class OpenVinoSession:
    """A graph compiled for this processor by OpenVINO.

    Args:
        model: an ``openvino.Model``, or the file of an ONNX or OpenVINO graph.
        precision: ``float32``, ``bfloat16``, or ``int8`` for a graph that is quantised.
        threads: inference threads in all; by default one a core.
        streams: how many calls run at the same time, each with its share of the threads; more
            than one gives throughput for latency.

    Raises:
        MissingExtra: openvino is not installed.
        ModelError: OpenVINO cannot read or compile the graph.
    """

    engine = "openvino"

    def __init__(
        self,
        model: Any,
        precision: str = "float32",
        *,
        threads: int | None = None,
        streams: int = 1,
    ) -> None:
        self.precision = precision
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": threads or cores(),
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
            "NUM_STREAMS": streams,
        }
        core = import_openvino().Core()
        try:
            if isinstance(model, str | os.PathLike):
                model = core.read_model(os.fspath(model))
            compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot run the graph: {_reason(error)}") from error
        self._names = [port.get_any_name() for port in model.inputs]
        # One request serves one caller at a time.
        self._requests: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(streams):
            self._requests.put(compiled.create_infer_request())

    def run(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """See `Session.run`."""
        inputs = [np.ascontiguousarray(tensors[name]) for name in self._names]
        request = self._requests.get()
        try:
            # share_inputs: no copy in; the output is copied, as the next call overwrites it.
            return np.asarray(request.infer(inputs, share_inputs=True)[0], dtype=np.float32)
        finally:
            self._requests.put(request)


class OnnxSession:
    """A graph run by ONNX Runtime on the processor.

    Args:
        file: an ONNX graph.
        precision: ``float32``, or ``int8`` for a graph that is quantised.
        threads: inference threads; by default one a core.

    Raises:
        MissingExtra: onnxruntime is not installed.
        ModelError: ONNX Runtime cannot read the graph.
    """

    engine = "onnxruntime"

    def __init__(
        self, file: str | Path, precision: str = "float32", *, threads: int | None = None
    ) -> None:
        self.precision = precision
        try:
            onnxruntime = silenced_onnxruntime()
        except ImportError as error:
            raise MissingExtra("onnxruntime", EXTRAS[self.engine], "this engine") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or cores()
        options.inter_op_num_threads = 1
        # A plan of memory for each shape: with shapes that vary, a third more of it and no faster.
        options.enable_mem_pattern = False
        options.log_severity_level = 3  # errors; its warnings are about its own optimisations
        try:
            self._session = onnxruntime.InferenceSession(
                os.fspath(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the library's exceptions share no public base
            raise ModelError(f"ONNX Runtime cannot run {file}: {_reason(error)}") from error
        self._names = [port.name for port in self._session.get_inputs()]

    def run(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """See `Session.run`."""
        inputs = {name: np.ascontiguousarray(tensors[name]) for name in self._names}
        return np.asarray(self._session.run(None, inputs)[0], dtype=np.float32)


def open_session(
    file: str | Path,
    engine: str,
    precision: str,
    *,
    threads: int | None = None,
    streams: int = 1,
) -> Session:
    """A graph's file in an engine; see the classes. ONNX Runtime needs no streams."""
    if engine == "openvino":
        return OpenVinoSession(file, precision, threads=threads, streams=streams)
    return OnnxSession(file, precision, threads=threads)


def import_openvino() -> Any:
    """The module. Raises MissingExtra."""
    switch_off()
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra("openvino", EXTRAS["openvino"], "engine 'openvino'") from error
    return openvino


def _reason(error: Exception) -> str:
    """The line that tells most: the libraries begin with places in their own source."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '", "["))]
    return (told or lines or [type(error).__name__])[0]
