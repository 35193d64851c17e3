"""Which engines suit a machine, before anything is converted or compiled."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

from plait.core.errors import MissingExtra, UserError, did_you_mean

Kind = Literal["auto", "torch", "openvino"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Choice:
    """An engine that could run a tower."""

    name: str
    precision: str

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"


def processor_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choices(kind: str = "auto", precision: str = "auto", *, cuda: bool = False) -> list[Choice]:
    """Which engines to try, best first. With ``"auto"`` the last is always torch.

    Args:
        kind: ``auto``, ``torch`` or ``openvino``.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        cuda: whether the tower is on a CUDA device, which OpenVINO does not use.

    Raises:
        UserError: an unknown engine or precision, or OpenVINO for a tower on a CUDA device.
        MissingExtra: OpenVINO is asked for and not installed.
    """
    _check("engine", kind, get_args(Kind))
    _check("precision of an engine", precision, get_args(Precision))
    if precision == "auto":
        fast = cuda or processor_has_bf16()
        precisions = ["bfloat16", "float32"] if fast else ["float32"]
    else:
        precisions = [precision]
    if kind == "torch":
        return [Choice("torch", precisions[0])]
    installed = find_spec("openvino") is not None
    if kind == "openvino":
        if not installed:
            raise MissingExtra("openvino", "fast", "engine 'openvino'")
        if cuda:
            raise UserError("engine 'openvino' runs on the processor, and the model is on a GPU")
        return [Choice("openvino", precisions[0])]
    if installed and not cuda:
        found = [Choice("openvino", name) for name in precisions]
    else:
        found = [Choice("torch", name) for name in precisions]
    last = Choice("torch", precisions[-1])
    return found if found[-1] == last else [*found, last]


def _check(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        hint = did_you_mean(value, known)
        raise UserError(f"{what} is {value!r}; it can be {', '.join(known)}{hint}")
