"""What an engine is, and opening the best one that is faithful to the tower in torch float32.

Shape legend: B samples, D features of a tower's pooled output.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from plait.core.errors import ModelError
from plait.encoders.base.base import Encoder
from plait.engines.choices import Choice, choices
from plait.engines.tower import least_cosine
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.text.tokenize import TextPreprocess

LEAST_MEAN_COSINE: Final = 0.995
LEAST_COSINE: Final = 0.99
"""How close to torch float32 the pooled vectors of an engine chosen automatically are, on average
and each."""

PROBE_ROWS = 8
PROBE_TEXTS = (
    "a dog runs over the grass",
    "red",
    "two people in front of a shop, one of them with an umbrella",
    "smiling face with heart-shaped eyes",
)

Inputs = Mapping[str, np.ndarray]


class EngineWarning(UserWarning):
    """An engine was passed over; the message says why."""


@runtime_checkable
class Engine(Protocol):
    """Runs one tower."""

    @property
    def name(self) -> str:
        """``torch`` or ``openvino``."""

    @property
    def precision(self) -> str:
        """What the tower computes in, ``float32`` or ``bfloat16``."""

    def run(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """The pooled output, float32 (B, D), of a batch of named inputs.

        Images: ``pixels`` uint8 (B, 3, H, W). Text: ``ids`` int64 and ``mask`` bool, (B, N).
        May be called from several threads.
        """


def is_cuda(encoder: Encoder) -> bool:
    """Whether the encoder's weights are on a CUDA device."""
    return next(encoder.parameters()).is_cuda


def open_engine(
    encoder: Encoder,
    *,
    kind: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    sample: Inputs | None = None,
) -> Engine:
    """An engine for a tower.

    Args:
        encoder: read only.
        kind: ``torch``, ``openvino``, or ``auto``: the fastest that keeps the rows of ``sample``
            at a cosine to torch float32 of at least 0.995 on average and 0.99 each.
        precision: ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the processor has it.
        threads: inference threads of OpenVINO; by default as many as torch uses.
        sample: a few rows of real inputs; without it, made-up ones.

    Raises:
        MissingExtra: OpenVINO is asked for and not installed.
        ModelError: OpenVINO is asked for and cannot convert the tower.
    """
    wanted = choices(kind, precision, cuda=is_cuda(encoder))
    return open_first(encoder, wanted, sample or probe_inputs(encoder), threads=threads)[0]


def open_first(
    encoder: Encoder, wanted: Sequence[Choice], sample: Inputs, *, threads: int | None = None
) -> tuple[Engine, list[Choice]]:
    """(the first faithful engine of ``wanted``, those passed over); one alone is not questioned."""
    from plait.engines.torch_engine import TorchEngine

    sample = {name: array[:PROBE_ROWS] for name, array in sample.items()}
    if len(next(iter(sample.values()))) < 4:  # see `openvino_engine.convert`
        sample = {name: np.resize(array, (4, *array.shape[1:])) for name, array in sample.items()}
    exact = TorchEngine(encoder)
    opener = _Opener(encoder, sample, threads)
    if len(wanted) == 1:
        return opener.open(wanted[0]), []
    expected: np.ndarray | None = None
    rejected: list[Choice] = []
    for choice in wanted:
        if choice == Choice("torch", "float32"):
            break
        expected = exact.run(sample) if expected is None else expected
        try:
            engine = opener.open(choice)
            found = engine.run(sample)
            if found.shape != expected.shape:  # tracing made a constant of the batch's size
                raise ModelError(f"it gives {len(found)} rows for {len(expected)}")
        except (ModelError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            _warn(f"{choice} is passed over for the {encoder.modality} encoder: {reason}")
            rejected.append(choice)
            continue
        least, mean = least_cosine(found, expected)
        if mean >= LEAST_MEAN_COSINE and least >= LEAST_COSINE:
            return engine, rejected
        _warn(
            f"{choice} is passed over for the {encoder.modality} encoder: its cosine to torch "
            f"float32 is {mean:.4f} on average and {least:.4f} at worst "
            f"({LEAST_MEAN_COSINE} and {LEAST_COSINE} are asked for)"
        )
        rejected.append(choice)
    return exact, rejected


class _Opener:
    """Opens engines of one encoder; what OpenVINO converted serves every precision."""

    def __init__(self, encoder: Encoder, sample: Inputs, threads: int | None) -> None:
        self.encoder, self.sample, self.threads = encoder, sample, threads
        self._converted: Any = None
        self._failure: ModelError | None = None

    def open(self, choice: Choice) -> Engine:
        if choice.name == "torch":
            from plait.engines.torch_engine import TorchEngine

            return TorchEngine(self.encoder, choice.precision)
        from plait.engines.openvino_engine import OpenVinoEngine, convert

        if self._failure is not None:
            raise self._failure
        if self._converted is None:
            try:
                self._converted = convert(self.encoder, self.sample)
            except ModelError as error:
                self._failure = error
                raise
        return OpenVinoEngine(self._converted, choice.precision, threads=self.threads)


def probe_inputs(encoder: Encoder) -> dict[str, np.ndarray]:
    """Made-up inputs: short texts, or pictures of smooth random blotches.

    Raises:
        ModelError: an encoder of precomputed regions, which has nothing to run.
    """
    preprocess = encoder.preprocess
    if isinstance(preprocess, TextPreprocess):
        ids, mask = preprocess(PROBE_TEXTS)
        return {"ids": ids, "mask": mask}
    if not isinstance(preprocess, ImagePreprocess):
        raise ModelError("precomputed regions need no engine: their encoder computes nothing")
    random = np.random.default_rng(0)
    pictures = [
        preprocess(
            np.kron(random.integers(0, 256, (4, 4, 3)), np.ones((64, 64, 1))).astype("uint8")
        )
        for _ in range(4)
    ]
    return {"pixels": np.stack(pictures)}


def _warn(message: str) -> None:
    warnings.warn(message, EngineWarning, stacklevel=3)
