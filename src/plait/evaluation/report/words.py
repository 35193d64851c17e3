"""Figures in plain words, for reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

WAYS = {"text_to_image": "words find the picture", "image_to_text": "a picture finds its words"}


def retrieval_words(figures: Mapping[str, Mapping[str, Any]], split: str | None = None) -> str:
    """What the recall from text to image means."""
    ask = figures["text_to_image"]
    k = [int(name[2:]) for name in ask if name.startswith("R@") and name[2:].isdigit()]
    first, last = min(k), max(k)
    pool, right = ask["candidates"], max(1.0, ask.get("right", 1.0))
    one = "the right one" if right < 1.5 else f"one of the {right:.0f} right ones (in the mean)"
    told = (
        f"Ask with a text among {pool:,} pictures{_unseen(split)} ({ask['queries']:,} texts asked): {one} is "
        f"{_among(first)} in {whole(ask[f'R@{first}'])} of 100 cases and {_among(last)} in "
        f"{whole(ask[f'R@{last}'])}. Guessing would give {_chance(first, pool, right)} and "
        f"{_chance(last, pool, right)}."
    )
    low, high = ask.get(f"R@{first}_low"), ask.get(f"R@{first}_high")
    if low is not None and high is not None:
        told += (
            f" With other pictures of the same kind, {whole(low)} to {whole(high)} of 100 for the first "
            "place would be no surprise (95% interval)."
        )
    return told


def correction_words(plain: Mapping[str, Mapping[str, Any]] | None) -> str:
    """That figures are corrected for hubs, and what they would be; empty where they are not."""
    if not plain:
        return ""
    told = " and ".join(
        f"{whole(plain[way]['R@1'])} of 100 ({words})"
        for way, words in WAYS.items()
        if "R@1" in plain[way]
    )
    return (
        "Scores are corrected for hubs, answers that are near to every query"
        f"{f'; by cosine alone the first place is right in {told}' if told else ''}."
    )


def _unseen(split: str | None) -> str:
    if split == "test":
        return " that training never touched"
    return f" of the {split} split" if split else ""


def _among(k: int) -> str:
    return "the first answer" if k == 1 else f"among the first {k}"


def chance_of(k: int, pool: int, right: float) -> float:
    """Percentage that guessing gives: some of ``right`` among ``k`` of a pool, none drawn twice."""
    missed = 1.0
    for drawn in range(min(k, pool)):
        missed *= max(0.0, 1 - right / (pool - drawn))
    return 100 * (1 - missed)


def _chance(k: int, pool: int, right: float) -> str:
    share = chance_of(k, pool, right)
    return f"{share:.2g}" if share < 10 else f"{share:.0f}"


def language_words(languages: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """How the languages compare, or an empty string for fewer than two."""
    if len(languages) < 2:
        return ""
    recalls = {name: figures["text_to_image"] for name, figures in languages.items()}
    k = max(int(name[2:]) for name in next(iter(recalls.values())) if name[2:].isdigit())
    told = ", ".join(
        f"{whole(row[f'R@{k}'])} with texts in {language_name(name)}"
        for name, row in recalls.items()
    )
    return f"The right picture is among the first {k} in: {told} (of 100 cases)."


def language_name(code: str) -> str:
    """English name of a language code, where it is a common one."""
    names = {"en": "English", "zh": "Chinese", "de": "German", "fr": "French", "es": "Spanish"}
    names |= {
        "ja": "Japanese",
        "ko": "Korean",
        "pt": "Portuguese",
        "it": "Italian",
        "ru": "Russian",
    }
    return names.get(code, code)


def geometry_words(geometry: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(measure, value, what it means) for each measure."""
    found = []
    cosines = geometry["cosines"]
    if cosines["separation"] is not None:
        true, random = cosines["true"]["mean"], cosines["random"]["mean"]
        found.append(
            (
                "Separation of pairs",
                f"{100 * cosines['separation']:.1f}%",
                f"A true pair is closer than a random one this often (50% is guessing). On average "
                f"the cosine of a true pair is {signed(true)}, of a random one {signed(random)}.",
            )
        )
    dims = geometry["dimensions"]
    for name, rank in geometry["rankme"].items():
        found.append(
            (
                f"Effective rank, {name}s",
                f"{rank:.0f} of {dims}",
                "How many directions the vectors use (RankMe). A few of many means collapse.",
            )
        )
    found.append(
        (
            "Modality gap",
            f"{geometry['modality_gap']:.2f}",
            "Distance between the mean picture and the mean text. 0: both fill the same region; "
            "near 1 and above: they live apart, which search survives and mixed lists don't.",
        )
    )
    found.append(
        (
            "Alignment",
            f"{geometry['alignment']:.2f}",
            "Mean squared distance of true pairs, 0 to 4; low is good.",
        )
    )
    for name, value in geometry["uniformity"].items():
        if value is not None:
            found.append(
                (
                    f"Uniformity, {name}s",
                    signed(value),
                    "0: all vectors in one place; towards \N{MINUS SIGN}4: spread evenly.",
                )
            )
    return found


def whole(value: float | int) -> int:
    """Rounded, halves up (Python rounds them to even)."""
    return math.floor(value + 0.5 + 1e-9)


def signed(value: float | int) -> str:
    """Two digits after the point, with a real minus sign and without a negative zero."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float | int) -> str:
    """``0.4 s``, ``37 s``, ``2 min 5 s``, ``3 h 20 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
