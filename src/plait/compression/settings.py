"""What `plait compress` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from plait.core.errors import MissingExtra, UserError, did_you_mean

INT8: Final = ("auto", "nncf", "onnx", "none")


@dataclass(frozen=True)
class Settings:
    """How a run is made smaller.

    Attributes:
        int8: ``nncf`` (OpenVINO), ``onnx`` (ONNX Runtime), ``none``, or ``auto``: the first whose
            libraries are installed.
        students: encoders or recipes of students.
        prune: shares of multiply-adds that pruned candidates lose.
        max_recall_drop: points of recall@1 that may be lost on the validation split.
        samples: of the training split to calibrate with.
        heal_steps: updates of a pruned model under its teacher.
        overrides: ``PATH=VALUE`` of the recipes that train candidates.
        threads: of inference; None: one a core.
        seed: of draws and intervals.
        root: folders below which the files that rows name may lie besides the data's own.
        allow_outside: they may lie anywhere.
        encoding: of text files that are not UTF-8.
    """

    int8: str = "auto"
    students: tuple[str, ...] = ()
    prune: tuple[float, ...] = ()
    max_recall_drop: float = 1.0
    samples: int = 200
    heal_steps: int = 200
    overrides: tuple[str, ...] = ()
    threads: int | None = None
    seed: int = 0
    root: tuple[str, ...] = ()
    allow_outside: bool = False
    encoding: str | None = None

    def check(self) -> None:
        """Raises UserError for values out of range, MissingExtra for missing libraries."""
        if self.int8 not in INT8:
            hint = did_you_mean(self.int8, INT8)
            raise UserError(f"--int8 is {self.int8!r}; it can be {', '.join(INT8)}{hint}")
        for fraction in self.prune:
            if not 0 < fraction < 1:
                raise UserError(f"--prune {fraction:g}: give the share that goes, between 0 and 1")
        if self.max_recall_drop < 0:
            raise UserError(f"--max-recall-drop {self.max_recall_drop:g} is below 0")
        if self.samples < 1 or self.heal_steps < 0:
            raise UserError("--samples is at least 1, and --heal-steps at least 0")
        if self.int8 == "none" and not self.students and not self.prune:
            raise UserError(
                "nothing to do: --int8 none leaves weights as they are; give --prune or --student"
            )
        if self.overrides and not self.students and not self.prune:
            raise UserError("--set changes the training of --prune and --student; neither is given")
        if self.int8 != "none":
            self.method()

    def method(self) -> str:
        """``nncf`` or ``onnx``.

        Raises:
            MissingExtra: its libraries are not installed.
        """
        nncf = find_spec("nncf") is not None and find_spec("openvino") is not None
        if self.int8 == "onnx" or (self.int8 == "auto" and not nncf):
            if find_spec("onnxruntime") is None:
                raise MissingExtra("nncf or onnxruntime", "compress", "int8")
            return "onnx"
        if not nncf:
            missing = "nncf" if find_spec("nncf") is None else "openvino"
            raise MissingExtra(missing, "compress", "int8 for OpenVINO (--int8 nncf)")
        return "nncf"
