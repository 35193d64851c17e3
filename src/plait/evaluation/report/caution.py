"""How much a figure can tell, by what it was measured on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

FEW = 20
"""Below so many test samples a figure tells little."""


def with_cautions(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result of `plait.evaluation`, with ``cautions`` where its figures tell little."""
    found = list(cautions(result))
    return {**result, "cautions": found} if found else dict(result)


def cautions(result: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on figures that come from too little; none where there is enough."""
    if figures := result.get("retrieval"):
        yield from _retrieval(figures)
    for what, count in _samples(result):
        if count < FEW:
            yield _few(count, what)


def _retrieval(figures: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    pictures, texts = figures["image_to_text"], figures["text_to_image"]
    if pictures["candidates"] < 2 or texts["candidates"] < 2:
        yield "With one candidate every answer is right, whatever the model."
    if pictures.get("distinct", FEW) < FEW:
        yield _few(pictures["distinct"], "picture")
    elif texts.get("distinct", FEW) < FEW:
        yield (
            f"The {texts['queries']:,} texts that ask are {_counted(texts['distinct'], 'text')} "
            "again and again: text to image tells little of other texts."
        )


def _samples(result: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, key, what in (
        ("vqa", "questions", "test question"),
        ("classification", "samples", "test sample"),
        ("match", "samples", "test sample"),
        ("captions", "captions", "picture"),
    ):
        if key in result.get(name, {}):
            yield what, result[name][key]
    if "reconstruction" in result:
        yield "picture", result["counts"]["pictures"]


def _few(count: int, what: str) -> str:
    return (
        f"The test figures come from {_counted(count, what)}: below {FEW} they tell little of others of "
        "the kind."
    )


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
