"""What sharing saves, as a report tells it."""

from __future__ import annotations

from typing import Any

from plait.evaluation.report.savings import lines, savings

LAYERS: dict[str, Any] = {
    "blocks": 2,
    "towers": ["image", "text"],
    "together": {
        "parameters": 750_000,
        "optimiser_bytes": 6_000_000,
        "update_seconds": 0.02,
        "update_seconds_low": 0.018,
        "update_seconds_high": 0.03,
    },
    "apart": {"parameters": 1_000_000, "optimiser_bytes": 8_000_000, "update_seconds": 0.016},
    "saved_percent": 25.0,
    "rows": 64,
}
TASKS: dict[str, Any] = {
    "names": ["answer", "classify", "match"],
    "together": {"parameters": 400},
    "apart": {"parameters": 1000},
    "saved_percent": 60.0,
}


def test_layers_in_words_and_figures() -> None:
    told = list(lines({"savings": {"layers": LAYERS}}))
    assert told[1] == "## What sharing saves"
    assert told[3].startswith(
        "The first 2 transformer blocks of the towers for image and text are the same weights, so "
        "that 25.0% of the parameters are saved."
    )
    assert "An update of 64 rows" in told[3]
    assert (
        told[-3:]
        == [
            "| parameters | 750,000 | 1,000,000 | 25.0% |",
            "| optimiser's memory | 6.00 MB | 8.00 MB | 25.0% |",
            "| one update | 20.00 (18.00 to 30.00) ms | 16.00 ms | -25.0% |",  # a slower one is told as it is
        ]
    )


def test_tasks_without_a_measurement() -> None:
    told = list(lines({"savings": {"tasks": TASKS}}))
    assert told[3] == (
        "One network does answer, classify and match. With a network for each, encoders and fusion "
        "would be there 3 times: 60.0% of those parameters are saved."
    )
    assert told[-1] == "| parameters | 400 | 1,000 | 60.0% |"


def test_a_page_has_both_and_escapes_names() -> None:
    entry = {**LAYERS, "blocks": 1, "towers": ["<b>", "text"]}
    html = savings({"savings": {"layers": entry, "tasks": TASKS}})
    assert "first transformer block of the towers for &lt;b&gt; and text is the same" in html
    assert html.count("<table>") == 2 and "<b>" not in html


def test_nothing_shared_nothing_told() -> None:
    assert savings({}) == "" and not list(lines({"vqa": {}}))
