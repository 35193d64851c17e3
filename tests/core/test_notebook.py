"""Notebooks: short reprs, pictures where there are some, nothing unescaped, bars in cells."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from plait.core import progress
from plait.core.media import BytesRef, FileRef
from plait.core.notebook import MOST_LINES, Report, reported
from plait.data.audit.audit import audit
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import Sample
from plait.retrieval.index.rows import Hits

BAD = "<script>alert(1)</script>"


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), "red").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Pictures in memory and on disk, one that is gone, and one without."""
    (tmp_path / "a.png").write_bytes(png())
    images = [BytesRef(png(), "b.png"), FileRef(tmp_path / "a.png"), FileRef(tmp_path / "no"), None]
    return [
        Sample(f"s{n}", "row", image, (BAD, "x" * 900), meta={"note": BAD})
        for n, image in enumerate([*images, *[images[0]] * 6])
    ]


def test_datasets_and_samples_are_short_and_show_pictures(samples: list[Sample]) -> None:
    dataset = PairDataset(samples, "images")
    page = dataset._repr_html_()
    assert page.count("data:image/jpeg") == 4 and "and 4 more" in page and len(page) < 40_000
    assert len(repr(dataset)) < 100
    for sample in samples:
        assert len(repr(sample)) < 300 and "\\x" not in repr(sample)
        assert len(repr(sample.image)) < 300
    shown = samples[0]._repr_html_()
    assert "data:image/jpeg" in shown and len(shown) < 6000
    assert "data:image" not in samples[2]._repr_html_() + samples[3]._repr_html_()
    for told in (page, shown):
        assert "<script>" not in told and "&lt;script&gt;" in told


def test_hits_show_no_picture_from_outside(samples: list[Sample], tmp_path: Path) -> None:
    path = str(tmp_path / "a.png")
    hits = Hits(
        {"rank": n, "score": 0.5, "id": f"s{n}", "text": BAD, "path": path, "outside": n > 2}
        for n in range(1, 21)
    )
    page = hits._repr_html_()
    assert page.count("data:image/jpeg") == 2 and "and 8 more" in page and "<script>" not in page
    assert repr(hits).startswith("Hits (20)\n  1  0.500  ") and repr(hits).count("\n") == 13
    assert json.loads(json.dumps(hits)) == list(hits)


def test_results_stay_dictionaries_and_are_told_in_few_lines() -> None:
    found: Any = reported(lambda: {"recall": {"R@1": 0.123456}, "rows": list(range(9)), "t": BAD})()
    assert found == {"recall": {"R@1": 0.123456}, "rows": list(range(9)), "t": BAD}
    assert isinstance(found, Report) and json.loads(json.dumps(found)) == found
    assert repr(found).splitlines()[:3] == [
        "Report of recall, rows, t",
        "  recall.R@1: 0.1235",
        "  rows: 9 values",
    ]
    assert "<script>" not in found._repr_html_() and "<th" in found._repr_html_()
    large = Report({f"k{n}": {"inner": n} for n in range(500)})
    assert large._repr_html_().count("<tr>") == MOST_LINES + 1
    assert reported(lambda: [1])() == [1] and reported(lambda: None)() is None


def test_the_audit_of_a_folder_is_short(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    report = audit(tmp_path)
    assert len(repr(report)) < 300 and report._repr_html_().startswith("<table>")


def test_a_model_is_one_line() -> None:
    from torch import nn

    from plait.models.alignment.alignment import AlignmentModel
    from plait.models.base.summary import short_repr
    from plait.models.store.kinds import Model

    model = nn.Module()
    model.towers = nn.ModuleDict({"image": nn.Linear(1000, 1200), "text": nn.ReLU()})
    model.head = nn.Linear(2, 3)
    for one in model.head.parameters():
        one.requires_grad = False
    assert short_repr(model) == (
        "Module(image: Linear, text: ReLU, head: Linear, 1.2 M parameters, 1.2 M of them trainable)"
    )
    assert all(one.__repr__ is short_repr for one in Model.__args__)  # type: ignore[attr-defined]
    assert AlignmentModel.__repr__ is short_repr


def test_progress_is_drawn_in_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    handle = SimpleNamespace(update=drawn.append)
    shown = SimpleNamespace(
        HTML=lambda text: text,
        display=lambda html, display_id: [drawn.append(html), handle][1],
    )
    shell = SimpleNamespace(kernel=object())
    ipython = SimpleNamespace(get_ipython=lambda: shell, display=shown)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    monkeypatch.setattr(progress, "_shown", None)
    assert list(progress.track(range(1000), BAD)) == list(range(1000))
    assert 2 <= len(drawn) < 20  # not one for every step
    assert 'value="1000" max="1000"' in drawn[-1] and "1,000/1,000" in drawn[-1]
    assert "<script>" not in drawn[-1]
    drawn.clear()
    progress.configure(False)
    list(progress.track(range(3), "quiet"))
    progress.configure(None)
    shell.kernel = None  # IPython in a terminal
    list(progress.track(range(3), "terminal"))
    assert drawn == []
