"""Towers through OpenVINO: several times faster than torch on x86 processors.

Settings and figures: docs/performance.md. A tower is converted once, straight from its torch
module; pixels enter as uint8 and are normalised inside the graph; batch and text length stay
dynamic. The engine keeps the weights of the moment it was made.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from plait.core.errors import ModelError
from plait.encoders.base.base import Encoder
from plait.engines.tower import PooledTower, evaluating
from plait.runtime.sessions import OpenVinoSession, import_openvino


def convert(encoder: Encoder, sample: Mapping[str, np.ndarray]) -> Any:
    """The tower as an ``openvino.Model`` with dynamic batch and text length.

    Args:
        encoder: read only.
        sample: real inputs, at least two of them: an example of one row is traced as the constant
            one.

    Raises:
        MissingExtra: openvino is not installed.
        ModelError: the encoder has an operation that OpenVINO does not.
    """
    # A copy, because OpenVINO shares the memory of weights, and these may be trained later.
    own = copy.deepcopy(encoder, {id(encoder.preprocess): encoder.preprocess})
    return convert_module(PooledTower(own, list(sample)), sample)


def convert_module(tower: nn.Module, sample: Mapping[str, np.ndarray]) -> Any:
    """A module of positional tensors as an ``openvino.Model``, which shares its weights' memory.

    Arguments and errors are those of `convert`.
    """
    openvino = import_openvino()
    inputs = tuple(torch.as_tensor(_example(array)) for array in sample.values())
    with evaluating(tower), torch.inference_mode(), warnings.catch_warnings():
        # Tracing is what OpenVINO converts best, and deprecated in torch; tracer warnings speak of
        # shape checks in model code, whose outcome does not change between batches.
        warnings.simplefilter("ignore")
        try:
            traced = torch.jit.trace(tower, inputs, check_trace=False, strict=False)
            model = openvino.convert_model(traced, example_input=inputs)
        except Exception as error:  # the library raises many kinds
            raise ModelError(f"OpenVINO cannot convert this encoder: {_reason(error)}") from error
    shapes = {}
    for port, (name, array) in zip(model.inputs, sample.items(), strict=True):
        port.get_tensor().set_names({name})
        # Pictures have one size; whatever has two dimensions has a length that varies.
        shapes[port] = [-1, *(array.shape[1:] if array.ndim > 2 else [-1] * (array.ndim - 1))]
    model.reshape(shapes)
    return model


def _example(array: np.ndarray) -> np.ndarray:
    """What to trace with: other sizes than the sample's, so that comparing them tells whether a
    size became a constant.
    """
    array = array[:3] if len(array) > 3 else array[:2]
    return array[:, : max(2, array.shape[1] - 1)] if array.ndim == 2 else array


def _reason(error: Exception) -> str:
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("No conversion rule")]
    return (telling or lines or [type(error).__name__])[0]


class OpenVinoEngine:
    """A converted tower, compiled for this processor.

    Args:
        model: from `convert`.
        precision: ``float32`` or ``bfloat16``.
        threads: inference threads; by default as many as torch uses.
    """

    name = "openvino"

    def __init__(
        self, model: Any, precision: str = "float32", *, threads: int | None = None
    ) -> None:
        self.precision = precision
        self._session = OpenVinoSession(
            model, precision, threads=threads or torch.get_num_threads()
        )

    def run(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """See `Engine.run`."""
        return self._session.run(tensors)
