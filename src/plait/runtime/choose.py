"""Which engine runs which graph of a bundle, and with how many threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, Literal, get_args

from plait.core.errors import MissingExtra, ModelError, UserError, did_you_mean
from plait.core.telemetry import switch_off
from plait.runtime.manifest import Format, Graph

EngineName = Literal["auto", "openvino", "onnxruntime"]
Precision = Literal["auto", "float32", "bfloat16", "int8"]

READS: Final[dict[str, tuple[Format, ...]]] = {
    "openvino": ("openvino", "onnx"),
    "onnxruntime": ("onnx",),
}
"""The formats of graphs that an engine reads, best first."""

EXTRAS: Final = {"openvino": "fast", "onnxruntime": "onnx"}


@dataclass(frozen=True)
class Chosen:
    """A graph, the engine that runs it, and what it computes in."""

    engine: str
    precision: str
    graph: Graph


def engines(engine: str = "auto") -> list[str]:
    """The engines to try, best first.

    Raises:
        UserError: an unknown name.
        MissingExtra: the engine, or with ``auto`` any engine, is not installed.
    """
    _check("engine of a bundle", engine, get_args(EngineName))
    wanted = list(READS) if engine == "auto" else [engine]
    found = [name for name in wanted if find_spec(name) is not None]
    if found:
        return found
    if engine == "auto":
        raise MissingExtra("openvino or onnxruntime", "onnx", "running a bundle")
    raise MissingExtra(engine, EXTRAS[engine], f"engine {engine!r}")


def choose(graphs: Sequence[Graph], engine: str = "auto", precision: str = "auto") -> Chosen:
    """The best graph for this machine.

    Args:
        graphs: of one tower.
        engine: ``auto`` takes OpenVINO where it is installed, else ONNX Runtime.
        precision: ``auto`` takes int8 where the bundle has it, else bfloat16 where OpenVINO and
            the processor have it, else float32.

    Raises:
        UserError: an unknown name, or bfloat16 of ONNX Runtime.
        MissingExtra: see `engines`.
        ModelError: the tower has no such graph.
    """
    _check("precision of a bundle", precision, get_args(Precision))
    found = engines(engine)
    for name in found:
        for wanted in _precisions(name, precision):
            graph = _graph(graphs, name, "int8" if wanted == "int8" else "float32")
            if graph is not None:
                return Chosen(name, wanted, graph)
    have = ", ".join(f"{graph.precision} ({graph.format})" for graph in graphs) or "none"
    if precision == "bfloat16" and found == ["onnxruntime"]:
        raise UserError("bfloat16 needs the engine openvino: onnxruntime has it not on processors")
    raise ModelError(
        f"no graph for engine {' or '.join(found)} in {precision}; the bundle has {have}"
    )


def runnable(graphs: Sequence[Graph]) -> list[Chosen]:
    """Every engine and precision that this machine has for a tower's graphs."""
    found: list[Chosen] = []
    for engine in engines():
        stored = {graph.precision for graph in graphs if graph.format in READS[engine]}
        wanted: list[Any] = [name for name in ("float32", "int8") if name in stored]
        if engine == "openvino" and "float32" in stored and openvino_has_bfloat16():
            wanted.insert(1, "bfloat16")
        found += [choose(graphs, engine, precision) for precision in wanted]
    return found


def _precisions(engine: str, precision: str) -> list[str]:
    if precision == "bfloat16":
        return ["bfloat16"] if engine == "openvino" else []
    if precision != "auto":
        return [precision]
    fast = engine == "openvino" and openvino_has_bfloat16()
    return ["int8", "bfloat16", "float32"] if fast else ["int8", "float32"]


def _graph(graphs: Sequence[Graph], engine: str, stored: str) -> Graph | None:
    for kind in READS[engine]:
        for graph in graphs:
            if graph.format == kind and graph.precision == stored:
                return graph
    return None


def openvino_has_bfloat16() -> bool:
    """Whether OpenVINO multiplies bfloat16 in hardware on this processor."""
    switch_off()
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        hint = did_you_mean(value, known)
        raise UserError(f"the {what} is {value!r}; it can be {', '.join(known)}{hint}")
