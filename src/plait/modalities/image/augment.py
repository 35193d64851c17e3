"""Random changes of pictures and texts that leave their meaning: more data from the same data.

A list of steps, each plain data, e.g. ``[{"kind": "crop", "scale": [0.5, 1.0]}, {"kind":
"flip"}]``. What a step does to a sample follows from (seed, sample, slot, step) alone: neither
the batch nor the order matters. A slot is an epoch, or one of a few fixed views when features
are cached.

Shape legend: B samples, H, W pixels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from plait.core.errors import RecipeError, did_you_mean
from plait.core.files import digest
from plait.core.modality import IMAGE, TEXT
from plait.core.random import uniform
from plait.modalities.image.augment_image import IMAGE_STEPS

# A word with the space behind it; every Chinese or Japanese character is a word.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORDS = re.compile(rf"[{_CJK}]\s*|[^\s{_CJK}]+\s*")


@runtime_checkable
class ImageStep(Protocol):
    """One change of one picture."""

    kind: ClassVar[str]
    draws: ClassVar[int]

    def apply(self, pixels: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """A picture uint8 (3, H, W) changed as ``draws`` numbers in [0, 1) say."""


@runtime_checkable
class TextStep(Protocol):
    """One change of one text."""

    kind: ClassVar[str]

    def apply(self, text: str, *purpose: int | str) -> str:
        """The text changed as random numbers for ``purpose`` say."""


@dataclass(frozen=True)
class DropWords:
    """Each word is left out with ``probability``; at least one stays."""

    kind: ClassVar[str] = "drop_words"
    probability: float = 0.1

    def apply(self, text: str, *purpose: int | str) -> str:
        """The text without the words that the draw takes."""
        words = _WORDS.findall(text)
        if not words:
            return text
        draw = uniform(len(words), *purpose)
        draw[np.argmax(draw)] = 1
        return "".join(
            word for word, value in zip(words, draw) if value >= self.probability
        ).strip()


TEXT_STEPS = {step.kind: step for step in (DropWords,)}


class ImageAugment:
    """Image steps, one after the other."""

    def __init__(self, steps: Sequence[ImageStep]) -> None:
        self.steps = tuple(steps)

    def __call__(
        self, pixels: UInt8[np.ndarray, "B 3 H W"], keys: Sequence[str], *, seed: int, slot: int
    ) -> UInt8[np.ndarray, "B 3 H W"]:
        """View ``slot`` of each picture; ``keys`` tell samples apart."""
        return np.stack(
            [self.one(row, key, seed=seed, slot=slot) for row, key in zip(pixels, keys)]
        )

    def one(
        self, pixels: UInt8[np.ndarray, "3 H W"], key: str, *, seed: int, slot: int
    ) -> UInt8[np.ndarray, "3 H W"]:
        """View ``slot`` of one picture."""
        for index, step in enumerate(self.steps):
            draw = uniform(step.draws, seed, step.kind, index, key, slot)
            pixels = step.apply(pixels, draw)
        return pixels

    def to_json(self) -> list[dict[str, Any]]:
        """Plain data from which `build_augment` makes the same."""
        return _to_json(self.steps)

    @property
    def fingerprint(self) -> str:
        """Changes with every step and setting."""
        return digest("augment-image-1", json.dumps(self.to_json()))


class TextAugment:
    """Text steps, one after the other."""

    def __init__(self, steps: Sequence[TextStep]) -> None:
        self.steps = tuple(steps)

    def __call__(
        self, texts: Sequence[str], keys: Sequence[str], *, seed: int, slot: int
    ) -> list[str]:
        """View ``slot`` of each text; ``keys`` tell texts apart."""
        return [self.one(text, key, seed=seed, slot=slot) for text, key in zip(texts, keys)]

    def one(self, text: str, key: str, *, seed: int, slot: int) -> str:
        """View ``slot`` of one text."""
        for index, step in enumerate(self.steps):
            text = step.apply(text, seed, step.kind, index, key, slot)
        return text

    def to_json(self) -> list[dict[str, Any]]:
        """Plain data from which `build_augment` makes the same."""
        return _to_json(self.steps)

    @property
    def fingerprint(self) -> str:
        """Changes with every step and setting."""
        return digest("augment-text-1", json.dumps(self.to_json()))


def build_augment(
    settings: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, ImageAugment | TextAugment]:
    """By modality, from plain data such as ``{"image": [{"kind": "flip"}]}``.

    Raises:
        RecipeError: an unknown modality, step or setting, or a value out of its range.
    """
    result: dict[str, ImageAugment | TextAugment] = {}
    for modality, steps in settings.items():
        if modality == IMAGE:
            result[modality] = ImageAugment([_step(step, IMAGE_STEPS, modality) for step in steps])
        elif modality == TEXT:
            result[modality] = TextAugment([_step(step, TEXT_STEPS, modality) for step in steps])
        else:
            raise RecipeError(f"augmentation of {modality!r} is not known; it can be image or text")
    return result


def _step(settings: Mapping[str, Any], known: Mapping[str, type], modality: str) -> Any:
    values = dict(settings)
    kind = str(values.pop("kind", ""))
    if kind not in known:
        raise RecipeError(
            f"augmentation of {modality}: kind {kind!r} is not one of {', '.join(known)}"
            f"{did_you_mean(kind, known)}"
        )
    defaults = {entry.name: entry.default for entry in fields(known[kind])}
    checked = {}
    for name, value in values.items():
        if name not in defaults:
            raise RecipeError(
                f"augmentation {kind!r} has no setting {name!r}{did_you_mean(name, defaults)}"
            )
        checked[name] = _value(f"augmentation {kind!r}: {name}", name, value, defaults[name])
    return known[kind](**checked)


def _value(place: str, name: str, value: Any, default: Any) -> float | tuple[float, float]:
    """``value`` as what ``default`` is: a number, or a span of two."""

    def number(part: Any) -> bool:
        return isinstance(part, int | float) and not isinstance(part, bool)

    if isinstance(default, tuple):
        pair = list(value) if isinstance(value, Sequence) else []
        if len(pair) != 2 or not all(map(number, pair)) or not 0 < pair[0] <= pair[1]:
            raise RecipeError(f"{place} is {value!r}; give two positive numbers, the smaller first")
        if name in ("area", "scale") and default[1] <= 1 and pair[1] > 1:
            raise RecipeError(f"{place} is {value!r}; a share of the picture is at most 1")
        return float(pair[0]), float(pair[1])
    greatest = {"hue": 0.5, "fill": 255.0, "degrees": 180.0}.get(name, 1.0)
    if not number(value) or not 0 <= value <= greatest:
        raise RecipeError(f"{place} is {value!r}; give a number from 0 to {greatest:g}")
    return float(value)


def _to_json(steps: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {"kind": step.kind}
        | {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(step).items()
        }
        for step in steps
    ]
