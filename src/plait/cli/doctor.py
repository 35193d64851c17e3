"""``plait doctor``: what works on this machine, and what is missing."""

from __future__ import annotations

from typing import Any

from plait.cli.output import JsonOption, emit, table


def doctor(as_json: JsonOption = False) -> None:
    """Check the installation, the processor, the engines and the settings."""
    from plait import api

    api.tune_process()  # so that it shows what the other commands run with
    report: list[dict[str, Any]] = api.doctor()
    rows = [(item["name"], _mark(item["ok"]), item["detail"]) for item in report]
    emit(report, as_json, lambda: table("", ["what", "", "detail"], rows))


def _mark(ok: bool | None) -> str:
    return {True: "ok", False: "missing", None: "note"}[ok]
