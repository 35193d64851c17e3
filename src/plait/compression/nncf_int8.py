"""int8 for OpenVINO, by NNCF's post-training quantisation with bias correction."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Final

from plait.compression.quantiser import Inputs, Made, parted
from plait.core.errors import MissingExtra
from plait.core.telemetry import switch_off
from plait.runtime.manifest import Format
from plait.runtime.sessions import OpenVinoSession, Session, import_openvino

LAYERS: Final = ("Convolution", "GroupConvolution", "MatMul", "Gather")
NO_WORK: Final = ("Constant", "Parameter", "Result")


class NncfQuantiser:
    """Quantises a float OpenVINO model: weights per channel, activations per tensor.

    Layers that stay float compute in float32, with weights that are stored in int8 per channel:
    that costs them little, and the artefact stays small. All else is stored as float16.

    Args:
        model: the float ``openvino.Model``, see `plait.compression.openvino_model`.
        samples: calibration inputs of one row each.
        folder: where int8 graphs are written.

    Raises:
        MissingExtra: nncf or openvino is not installed.
    """

    format: Format = "openvino"

    def __init__(self, model: Any, samples: Sequence[Inputs], folder: Path) -> None:
        self._nncf, self._openvino = _nncf(), import_openvino()
        self.model, self.samples, self.folder = model, list(samples), folder
        operations = [
            (op.get_friendly_name(), _has_weights(op))
            for op in model.get_ordered_ops()
            if op.get_type_name() not in NO_WORK
        ]
        self.groups, self.tail = parted(operations)
        kinds = {op.get_type_name() for op in model.get_ops()}
        self.transformer = bool(kinds & {"Softmax", "ScaledDotProductAttention"})

    def make(self, floating: Sequence[int], stem: str) -> Made:
        """See `Quantiser.make`."""
        nncf = self._nncf
        model = self.model.clone()
        if len(floating) < len(self.groups):
            names = [name for number in floating for name in self.groups[number]] + self.tail
            with _quiet():
                model = nncf.quantize(
                    model,
                    nncf.Dataset(self.samples),
                    preset=nncf.QuantizationPreset.MIXED,
                    model_type=nncf.ModelType.TRANSFORMER if self.transformer else None,
                    subset_size=len(self.samples),
                    ignored_scope=nncf.IgnoredScope(names=names, validate=False),
                )
        with _quiet():
            model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
        file = self.folder / f"{stem}.xml"
        self._openvino.save_model(model, file, compress_to_fp16=True)
        return Made(file, (file.with_suffix(".bin"),))

    def reference(self, threads: int | None = None) -> Session:
        """See `Quantiser.reference`."""
        return OpenVinoSession(self.model.clone(), "float32", threads=threads)

    def open(self, made: Made, threads: int | None = None) -> Session:
        """See `Quantiser.open`."""
        return OpenVinoSession(made.file, "int8", threads=threads)


def _has_weights(op: Any) -> bool:
    if op.get_type_name() not in LAYERS:
        return False
    return any(
        port.get_source_output().get_node().get_type_name() == "Constant" and port.get_shape()
        for port in op.inputs()
        if port.get_partial_shape().is_static
    )


def _nncf() -> Any:
    switch_off()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import nncf
    except ImportError as error:
        raise MissingExtra("nncf", "compress", "int8 for OpenVINO (--int8 nncf)") from error
    nncf.set_log_level(logging.ERROR)
    return nncf


@contextmanager
def _quiet() -> Iterator[None]:
    """NNCF draws bars on standard output, and warns of what it does itself."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
