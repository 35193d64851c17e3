"""The part of a run's page that tells how well a fusion model answers, classifies and matches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from plait.evaluation.report.plots import Estimate, estimates

HEADS = {
    "vqa": "Answers",
    "classification": "Classes",
    "match": "Pairs told apart",
}
CONTROLS = {
    "question_only": "no picture",
    "picture_only": "no question",
    "shuffled_pictures": "another picture",
}


def answers(result: Mapping[str, Any]) -> str:
    """Accuracy in words and as charts; empty without figures."""
    found = [name for name in HEADS if name in result]
    if not found:
        return ""
    parts = [f'<p class="lead">{escape(" ".join(_words(result)))}</p>']
    rows = list(_estimates(result))
    told = "; ".join(f"{row.name}: {row.value:.1f} percent" for row in rows)
    chart = estimates(rows, title="Right answers, %", told=told)
    counts = ", ".join(f"{row.name}: {row.count:,}" for row in rows if row.count is not None)
    parts.append(f'<div class="charts">{chart}</div>')
    parts.append(f'<p class="soft">How many each figure is of: {escape(counts)}.</p>')
    if "normaliser" in result.get("vqa", {}):
        parts.append(
            f'<p class="soft">Answers were compared by the rules {escape(result["vqa"]["normaliser"])}; '
            "lines are 95% bootstrap intervals over pictures.</p>"
        )
    return "".join(parts)


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The same as a Markdown table."""
    if not any(name in result for name in HEADS):
        return
    yield ""
    yield f"## Accuracy on the {result['split']} split, in percent"
    yield ""
    yield "| what | of | accuracy |"
    yield "|---|---|---|"
    for row in _estimates(result):
        between = "" if row.low is None else f" ({row.low:.2f} to {row.high:.2f})"
        count = "" if row.count is None else f"{row.count:,}"
        yield f"| {row.name} | {count} | {row.value:.2f}{between} |"
    yield ""
    yield "In parentheses: 95% bootstrap intervals over pictures."


def _words(result: Mapping[str, Any]) -> Iterator[str]:
    if "vqa" in result:
        right = result["vqa"]
        yield f"{right['accuracy']:.1f}% of {right['questions']:,} questions are answered rightly."
        shuffled = (result.get("controls") or {}).get("shuffled_pictures")
        if shuffled is not None:
            yield (
                f"Shown another question's picture the model gets {shuffled:.1f}%: the difference is "
                "what it reads from the picture."
            )
    for name, what in (("classification", "classes"), ("match", "pairs")):
        if name in result:
            yield f"{result[name]['accuracy']:.1f}% of the {what} are right."


def _estimates(result: Mapping[str, Any]) -> Iterator[Estimate]:
    for name, words in HEADS.items():
        if name in result:
            yield _estimate(words, result[name], 1)
    for name, figures in (result.get("vqa", {}).get("by_answer_type") or {}).items():
        yield _estimate(f"Answers: {name}", figures, 1)
    for name, accuracy in (result.get("controls") or {}).items():
        count = counted(result["vqa"])
        yield Estimate(CONTROLS.get(name, name), accuracy, None, None, None, 2, count)


def _estimate(name: str, figures: Mapping[str, Any], style: int) -> Estimate:
    low, high = figures.get("accuracy_low"), figures.get("accuracy_high")
    return Estimate(name, figures["accuracy"], low, high, None, style, counted(figures))


def counted(figures: Mapping[str, Any]) -> int | None:
    """How many questions or samples an accuracy is of."""
    found = figures.get("questions", figures.get("samples"))
    return None if found is None else int(found)
