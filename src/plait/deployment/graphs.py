"""Towers as ONNX graphs whose batch and text length stay dynamic.

Shape legend: B samples, N tokens, E features of the shared space, A answers.
"""

from __future__ import annotations

import copy
import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from plait.core.errors import MissingExtra, ModelError
from plait.core.modality import IMAGE, TEXT
from plait.encoders.base.base import Encoder
from plait.engines.tower import MASK, UnitRows, traced_input
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.text.tokenize import TextPreprocess
from plait.models.alignment.alignment import AlignmentModel
from plait.models.fusion.model import FusionModel
from plait.models.store.kinds import Model
from plait.models.systems.base import System
from plait.runtime.manifest import ANSWER, Port

MOST_ROWS: Final = 4096
_INLINE_BYTES: Final = 1_000_000
"""Larger weights lie beside their graph, where engines map them into memory: a third less of it
at the start than copies out of the graph take. More than 2 GiB would not fit into it at all."""


@dataclass(frozen=True)
class Exportable:
    """A module from positional tensors to one output, and what it takes.

    Attributes:
        module: called with the inputs in order.
        inputs: by name.
        output: ``embeddings`` or ``logits``.
    """

    module: nn.Module
    inputs: Mapping[str, Port]
    output: str

    def __call__(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """The output in torch, float32: what an exported graph must give."""
        device = next(self.module.parameters()).device
        rows = [torch.as_tensor(tensors[name]).to(device) for name in self.inputs]
        with torch.inference_mode():
            out: np.ndarray = self.module(*rows).float().cpu().numpy()
        return out


class AnswerGraph(nn.Module):
    """A fusion model that gets every modality: pixels, ids and mask to logits of its answers.

    `FusionModel.fuse` without the branches for what is absent, which no graph can hold.
    """

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, A)."""
        model = self.model
        image = traced_input(["pixels"], [pixels])
        text = traced_input(["ids", MASK], [ids, mask])
        seen = model.tower(IMAGE).encoder(image)
        if isinstance(model.joint, System):
            fused = model.joint(ids, mask, seen, masked_regions=None)
        else:
            parts = {IMAGE: seen, TEXT: model.tower(TEXT).encoder(text)}
            parts = {name: parts[name] for name in model.modalities}
            fused = model.joint(parts, {IMAGE: image.present, TEXT: text.present})
        out: Tensor = model.head("answer")(model.vector(fused))
        return out


def exportables(model: Model) -> dict[str, Exportable]:
    """What can be exported of a model, by the name of the tower; the model is copied.

    Raises:
        ModelError: a model that writes or draws, one of precomputed regions, or a fusion model
            without answers.
    """
    if not isinstance(model, AlignmentModel | FusionModel):
        raise ModelError(
            "only alignment models and fusion models that answer can be exported; this run holds "
            "one that writes or draws, step by step"
        )
    model = copy.deepcopy(model).float().cpu().eval()
    for part in model.modules():  # a frozen encoder keeps modes of its own
        part.training = False
    if isinstance(model, AlignmentModel):
        found = {}
        for name in model.modalities:
            ports = _ports(model.tower(name).encoder)
            graph = UnitRows(model.tower(name), list(ports))
            found[name] = Exportable(graph.eval(), ports, "embeddings")
        return found
    if "answer" not in model.heads or set(model.modalities) != {IMAGE, TEXT}:
        raise ModelError(
            "this fusion model has no answers to questions about pictures; it cannot be exported"
        )
    if model.without:
        raise ModelError(
            f"this model is a control that takes no {' and no '.join(model.without)}; it is not "
            "for use, and cannot be exported"
        )
    ports = {**_ports(model.tower(IMAGE).encoder), **_ports(model.tower(TEXT).encoder)}
    return {ANSWER: Exportable(AnswerGraph(model).eval(), ports, "logits")}


def _ports(encoder: Encoder) -> dict[str, Port]:
    preprocess = encoder.preprocess
    if isinstance(preprocess, ImagePreprocess):
        return {"pixels": Port("uint8", ("batch", 3, *preprocess.size_2d))}
    if isinstance(preprocess, TextPreprocess):
        full = preprocess.padding == "full"
        length = preprocess.max_length if full else "length"
        return {
            "ids": Port("int64", ("batch", length)),
            "mask": Port("bool", ("batch", length)),
        }
    raise ModelError("a model of precomputed regions cannot be exported: it sees no pictures")


def export_graph(exportable: Exportable, path: Path, *, longest: int = 0) -> list[str]:
    """Writes the graph as ONNX.

    Args:
        exportable: what to trace.
        path: the file to write.
        longest: the most tokens of a text.

    Returns:
        The names of files written beside it: its weights, unless they are small.

    Raises:
        MissingExtra: onnx or onnxscript is not installed.
        ModelError: the model has an operation without an ONNX equivalent, or a size became a
            constant.
    """
    for library in ("onnx", "onnxscript"):
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise MissingExtra(library, "onnx", "export") from error
    names = list(exportable.inputs)
    examples = tuple(_example(port, longest) for port in exportable.inputs.values())
    shapes = _dynamic_shapes(exportable.inputs, longest)
    size = sum(t.nbytes for t in exportable.module.state_dict().values())
    outside = size > _INLINE_BYTES
    with _quiet():
        try:
            program = torch.onnx.export(
                exportable.module,
                examples,
                dynamo=True,
                dynamic_shapes=_as_signature(exportable.module, shapes),
                input_names=names,
                output_names=[exportable.output],
                external_data=outside,
                verbose=False,
            )
            assert program is not None
            program.save(str(path), external_data=outside)
        except Exception as error:  # the exporter raises many kinds
            raise ModelError(f"ONNX cannot express this model: {_reason(error)}") from error
    assert_dynamic(path, exportable)
    beside = path.with_name(path.name + ".data")
    return [beside.name] if beside.exists() else []


def _example(port: Port, longest: int) -> Tensor:
    """Three rows and a length off every power of two: sizes of 1 would become constants, and
    kernels treat round sizes apart.
    """
    length = min(max(longest, 2), 7)
    shape = [
        {"batch": 3, "length": length}.get(s, 0) if isinstance(s, str) else s for s in port.shape
    ]
    generator = torch.Generator().manual_seed(0)
    if port.dtype == "uint8":
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    if port.dtype == "bool":
        mask = torch.ones(shape, dtype=torch.bool)
        mask[1, -1] = False
        return mask
    return torch.randint(0, 2, shape, generator=generator)


def _dynamic_shapes(inputs: Mapping[str, Port], longest: int) -> list[dict[int, Any]]:
    dims = {
        "batch": torch.export.Dim("batch", min=1, max=MOST_ROWS),
        "length": torch.export.Dim("length", min=1, max=max(longest, 2)),
    }
    return [
        {place: dims[size] for place, size in enumerate(port.shape) if isinstance(size, str)}
        for port in inputs.values()
    ]


def _as_signature(module: nn.Module, shapes: list[dict[int, Any]]) -> Any:
    """In the form of the module's own parameters: ``*tensors``, or one name each."""
    if isinstance(module, AnswerGraph):
        return dict(zip(("pixels", "ids", "mask"), shapes, strict=True))
    return {"tensors": tuple(shapes)}


def assert_dynamic(path: Path, exportable: Exportable) -> None:
    """Raises ModelError when a size that varies became a constant in the graph."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    for value in graph.input:
        wanted = exportable.inputs[value.name].shape
        found = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for size, have in zip(wanted, found, strict=True):
            if isinstance(size, str) != isinstance(have, str):
                raise ModelError(
                    f"{path.name}: the {size} of {value.name} became the constant {have} in the "
                    "export"
                )
    first = graph.output[0].type.tensor_type.shape.dim[0]
    if not first.dim_param:
        raise ModelError(f"{path.name}: the batch became the constant {first.dim_value}")


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of its own progress and of names of dimensions that it shares."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """The innermost cause's first line: the exporter wraps errors in advice about itself."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
