"""int8 for ONNX Runtime: static scales, quantise and dequantise nodes, weights per channel."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from plait.compression.quantiser import Inputs, Made, parted
from plait.core.errors import MissingExtra
from plait.core.telemetry import switch_off
from plait.runtime.manifest import Format
from plait.runtime.sessions import OnnxSession, Session

LAYERS: Final = ("Conv", "MatMul", "Gemm", "Gather")
"""What is quantised of graphs with attention. Their additions stay float: one of them adds the mask
of padding, minus infinity, to scores whose range calibration saw without it."""


class OnnxQuantiser:
    """Quantises an ONNX graph: activations uint8 per tensor, weights int8 per channel.

    Args:
        graph: the float graph.
        samples: calibration inputs of one row each.
        folder: where int8 graphs are written.

    Raises:
        MissingExtra: onnx or onnxruntime is not installed.
    """

    format: Format = "onnx"

    def __init__(self, graph: Path, samples: Sequence[Inputs], folder: Path) -> None:
        onnx, quantization = _libraries()
        self._quantization = quantization
        self.samples, self.folder = list(samples), folder
        self.prepared = folder / f"{graph.stem}.prepared.onnx"
        _prepare(graph, self.prepared)
        loaded = onnx.load(str(self.prepared))
        attends = any(node.op_type == "Softmax" for node in loaded.graph.node)
        self.types = list(LAYERS) if attends else None
        weights = {tensor.name for tensor in loaded.graph.initializer}
        self.groups, self.tail = parted(
            [
                (node.name, node.op_type in LAYERS and any(n in weights for n in node.input))
                for node in loaded.graph.node
                if node.op_type != "Constant"
            ]
        )

    def make(self, floating: Sequence[int], stem: str) -> Made:
        """See `Quantiser.make`."""
        file = self.folder / f"{stem}.onnx"
        if len(floating) >= len(self.groups):
            file.write_bytes(self.prepared.read_bytes())
            return Made(file)
        quantization = self._quantization
        names = [name for number in floating for name in self.groups[number]] + self.tail
        with _quiet():
            quantization.quantize_static(
                str(self.prepared),
                str(file),
                _Reader(self.samples),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                op_types_to_quantize=self.types,
                nodes_to_exclude=names,
            )
        return Made(file)

    def reference(self, threads: int | None = None) -> Session:
        """See `Quantiser.reference`."""
        return OnnxSession(self.prepared, "float32", threads=threads)

    def open(self, made: Made, threads: int | None = None) -> Session:
        """See `Quantiser.open`."""
        return OnnxSession(made.file, "int8", threads=threads)


def quantise_dynamically(graph: Path, file: Path) -> None:
    """Writes a graph whose activations get their scales from each batch; for comparison alone.

    Its answers depend on what else is in a batch, so no bundle gets it.
    """
    onnx, quantization = _libraries()
    prepared = file.with_name(f"{file.stem}.prepared.onnx")
    _prepare(graph, prepared)
    model = onnx.load(str(prepared))
    prepared.unlink()
    # The quantiser turns weights of Gemm round, and trips over the shapes that they had.
    del model.graph.value_info[:]
    with _quiet():
        quantization.quantize_dynamic(
            model, str(file), weight_type=quantization.QuantType.QInt8, per_channel=True
        )


def _prepare(graph: Path, file: Path) -> None:
    """Writes the float graph as the library's quantisers want it: folded, with inferred shapes."""
    onnx, quantization = _libraries()
    # In one file: the tool loses weights that lie beside a graph.
    whole = file.with_name(f"{graph.stem}.whole.onnx")
    onnx.save(onnx.load(str(graph)), str(whole))
    with _quiet():
        # Symbolic inference of shapes fails on graphs of torch's exporter, and is not needed.
        quantization.shape_inference.quant_pre_process(
            str(whole), str(file), skip_symbolic_shape=True
        )
    whole.unlink()


class _Reader:
    """Calibration inputs one after the other, as the library asks for them."""

    def __init__(self, samples: Sequence[Inputs]) -> None:
        self._left = iter(samples)

    def get_next(self) -> Inputs | None:
        """The next ones, or None at the end."""
        return next(self._left, None)


def _libraries() -> tuple[Any, Any]:
    switch_off()
    try:
        import onnx
        from onnxruntime import quantization
        from onnxruntime.quantization import shape_inference  # noqa: F401
    except ImportError as error:
        raise MissingExtra("onnxruntime", "compress", "int8 by ONNX Runtime") from error
    return onnx, quantization


@contextmanager
def _quiet() -> Iterator[None]:
    """The library warns on the root logger of what this module has done already."""
    root = logging.getLogger()
    level = root.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root.setLevel(logging.ERROR)
        try:
            yield
        finally:
            root.setLevel(level)
