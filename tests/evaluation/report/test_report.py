"""The page of a run: complete, self-contained, readable by machines, safe against its own texts."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plait.core.errors import DataError
from plait.core.files import write_json
from plait.core.media import FileRef
from plait.evaluation import evaluate_gallery, write_report
from plait.evaluation.report.curves import curves
from plait.evaluation.report.data import read_run, thumbnail, write_examples
from plait.evaluation.report.plots import Series, histogram, line_chart, short, thinned, ticks
from plait.evaluation.report.results import _estimates, results
from plait.evaluation.report.words import duration, retrieval_words, signed, whole

VOID = {"meta", "img", "br", "line", "circle", "rect", "polyline", "polygon"}
EVIL = "<script>alert('x')</script> & \"quotes\""


class Page(HTMLParser):
    """Collects tags, checks that they close in order, and the text that people read."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "title"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def records() -> list[dict]:
    found: list[dict] = []
    for step in range(1, 41):
        stage = "first" if step <= 20 else "second"
        common = {"stage": stage, "run_step": step, "epoch": step // 4}
        found.append(
            {"kind": "update", **common, "loss": 5 / step, "scale": 14.0 + step, "grad_norm": 1.0}
        )
        if step % 10 == 0:
            figures = {"text_to_image": {"R@1": step * 1.0}, "image_to_text": {"R@1": 2.0}}
            found.append(
                {
                    "kind": "validation",
                    **common,
                    "loss": 2.0,
                    "mean_recall": 30.0 if step == 30 else 20.0,
                    "rank": {"image": 50.0, "text": 60.0},
                    "retrieval": figures,
                }
            )
    return found


@pytest.fixture
def run(gallery, tmp_path: Path) -> Path:
    """A finished run folder, with a text that tries to break out."""
    gallery = replace(gallery, texts=[EVIL, *gallery.texts[1:]])
    folder = tmp_path / "my run"
    folder.mkdir()
    result = {
        "run": str(folder),
        "split": "test",
        **evaluate_gallery(gallery, bootstrap=50),
        "seconds": {"data": 1.25, "image features": 75.0},
        "skipped": 3,
        "health": ["first: the loss & more <stuck>"],
        "notes": ["2 pictures have no text"],
    }
    write_json(folder / "report.json", result)
    lines = "\n".join(json.dumps(record) for record in records())
    (folder / "metrics.jsonl").write_text(lines + "\n")
    (folder / "recipe.yaml").write_text("name: mine\ndata: {source: pairs}\n")
    data = {"source": "pairs", "samples": 12, "texts": 24, "splits": {"train": 10, "test": 2}}
    write_json(folder / "data.json", data)
    write_json(folder / "versions.json", {"plait": "0.1.0", "openvino": None})
    Image.new("RGB", (60, 40), "red").save(folder / "sheet.png")
    write_examples(folder, gallery)
    return folder


def test_a_full_page(run: Path) -> None:
    path = write_report(run)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path == run / "report.html" and (run / "curves.png").is_file()
    for title in (
        "How well it finds", "Asked in free words", "Sample searches", "Worst mistakes",
        "Training curves", "Training health", "The shared space", "Where the time went",
        "How to go on", "Recipe, data and versions",
    ):  # fmt: skip
        assert title in page.text
    assert page.tags["section"] == 11 and page.tags["a"] == 11
    assert "first: the loss & more <stuck>" in page.text
    assert "3 bad rows were left out" in page.text
    assert "1 min 16 s" in page.text  # 76.25 seconds in all
    assert f"plait evaluate '{run}' --data" in page.text


def test_nothing_leaves_the_page_and_no_text_becomes_markup(run: Path) -> None:
    text = write_report(run).read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags["script"] == page.tags["link"] == page.tags["iframe"] == 0
    assert EVIL in page.text
    for _tag, attributes in page.attributes:
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#"))
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in text and "@import" not in text


def test_pictures_and_charts_speak_to_those_who_cannot_see_them(run: Path) -> None:
    page = Page(write_report(run).read_text(encoding="utf-8"))
    images = [attributes for tag, attributes in page.attributes if tag == "img"]
    assert len(images) > 30 and all(image.get("alt") for image in images)
    charts = [attributes for tag, attributes in page.attributes if tag == "svg"]
    assert len(charts) == 3 + 5 + 1 + 1
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    anchors = {a["id"] for tag, a in page.attributes if tag == "section"}
    links = {a["href"] for tag, a in page.attributes if tag == "a"}
    assert links == {f"#{anchor}" for anchor in anchors}


def luminance(colour: str) -> float:
    full = "".join(c * 2 for c in colour) if len(colour) == 3 else colour
    parts = [int(full[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_have_contrast_in_light_and_dark() -> None:
    import plait.evaluation.report.html as module

    css = Path(module.__file__).with_name("report.css").read_text(encoding="utf-8")
    themes = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): #([0-9a-f]+);", theme))
        for ink in ("ink", "soft", "c1", "c2", "c3", "c4", "good", "bad"):
            for ground in ("paper", "card"):
                pair = sorted([luminance(colours[ink]), luminance(colours[ground])])
                ratio = (pair[1] + 0.05) / (pair[0] + 0.05)
                assert ratio >= 4.5, (ink, ground, ratio)  # WCAG 2.2, 1.4.3


def test_an_empty_folder_has_a_page_and_damage_is_named(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "How to go on" in page.text and page.tags["section"] == 1
    (tmp_path / "metrics.jsonl").write_text('{"kind": "update"\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, row 1"):
        write_report(tmp_path)
    with pytest.raises(DataError, match="no such run folder"):
        write_report(tmp_path / "nothing")


def test_curves_tell_the_best_and_where_stages_begin() -> None:
    found = {curve.title: curve for curve in curves(records())}
    assert len(found) == 5
    recall = found["Validation recall, %"]
    assert recall.mark == (30, 30.0) and recall.mark_label == "best 30.0"
    assert recall.borders == (21,)
    loss = found["Loss"]
    assert [line.name for line in loss.series] == ["training", "validation"]
    assert loss.series[0].points[0] == (1.0, 5.0) and loss.series[0].points[-1] == (40.0, 0.125)
    assert curves([]) == []


def test_lines_stay_inside_their_chart_and_keep_their_order() -> None:
    random = np.random.default_rng(0)
    points = [(int(x), float(y)) for x, y in zip(range(5, 60), random.normal(size=55) * 1e4)]
    svg = line_chart([Series("a", points)], title="t", told="s", x_label="x")
    drawn = [
        tuple(map(float, pair.split(",")))
        for pair in re.search(r'points="([^"]*)"', svg)[1].split()  # type: ignore[index]
    ]
    assert len(drawn) == 55
    assert all(0 <= x <= 360 and 0 <= y <= 220 for x, y in drawn)
    # higher values stand higher, in proportion
    slope = np.polyfit([y for _, y in points], [-y for _, y in drawn], 1)[0]
    assert slope > 0
    assert np.corrcoef([y for _, y in points], [-y for _, y in drawn])[0, 1] > 0.99999
    assert line_chart([Series("a", [])], title="t", told="s", x_label="x") == ""
    assert "circle" in line_chart([Series("a", [(1, 2)])], title="t", told="s", x_label="x")


def test_a_histogram_shows_only_where_something_is() -> None:
    shares = [0.0] * 40 + [0.25] * 4 + [0.0] * 6
    svg = histogram([("a", shares, 1)], low=-1, high=1, title="t", told="s", x_label="x")
    ticks_shown = re.findall(r'text-anchor="middle">([^<]*)<', svg)
    assert ticks_shown[0] == "0.6" and ticks_shown[-2] in ("0.75", "0.8")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0.02, 0.11, [0.02, 0.04, 0.06, 0.08, 0.1]),
        (-3, 4, [-2, 0, 2, 4]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round(low, high, expected) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_thinning_keeps_the_mean() -> None:
    points = [(i, float(i * i)) for i in range(100)]
    few = thinned(points, 10)
    assert len(few) == 10
    assert np.mean([y for _, y in few]) == pytest.approx(np.mean([y for _, y in points]))
    assert thinned([], 10) == []


def test_words() -> None:
    ask = {
        "R@1": 40.0,
        "R@1_low": 33.4,
        "R@1_high": 46.6,
        "R@10": 70.0,
        "candidates": 200,
        "queries": 200,
    }
    told = retrieval_words({"text_to_image": ask}, "test")
    assert "among 200 pictures that training never touched" in told
    assert "the first answer in 40 of 100 cases and among the first 10 in 70" in told
    assert "Guessing would give 0.5 and 5" in told and "33 to 47 of 100" in told
    assert [duration(s) for s in (0.04, 9.96, 59.4, 125, 7260)] == [
        "0.0 s", "10.0 s", "59 s", "2 min 5 s", "2 h 1 min",
    ]  # fmt: skip
    assert [whole(v) for v in (28.5, 28.4, 30.5, 31.49)] == [29, 28, 31, 31]
    assert signed(-0.001) == "0.00" and signed(-0.5) == "\N{MINUS SIGN}0.50"
    assert short(0.00001) == "1e-5" and short(200000) == "2e5" and short(0) == "0"


def test_guessing_counts_every_text_of_a_picture() -> None:
    row = {"R@1": 50.0, "R@5": 60.0, "median_rank": 1.0}
    figures = {
        "text_to_image": {**row, "queries": 20, "candidates": 10},
        "image_to_text": {**row, "queries": 10, "candidates": 20},
    }
    html = results({"retrieval": figures})
    span, left = 360 - 122 - 54, 122
    drawn = [float(x) for x in re.findall(r'class="chance" x1="([\d.]+)"', html)]
    # 1 - C(18, k) / C(20, k): 2 of 20 texts are right
    expected = [0.1, 0.5, 0.1, 1 - (18 * 17 * 16 * 15 * 14) / (20 * 19 * 18 * 17 * 16)]
    np.testing.assert_allclose((np.array(drawn) - left) / span, expected, atol=1e-3)


def test_pictures_of_a_page_have_the_size_that_is_shown(run: Path, tmp_path: Path) -> None:
    """Contact sheets by half; thumbnails with two dots for each of 80 pixels; both ways' colours."""

    def opened(url: str | None) -> Image.Image:
        assert url is not None
        return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))

    assert opened(read_run(run).sheet).size == (30, 20)
    (run / "sheet.png").unlink()
    assert read_run(run).sheet is None
    wide, narrow = tmp_path / "wide.png", tmp_path / "narrow.png"
    Image.new("RGB", (400, 300), "red").save(wide)
    Image.new("RGB", (10, 20), "red").save(narrow)
    found = opened(thumbnail(FileRef(wide)))
    assert (found.size, found.format) == ((160, 120), "JPEG")
    assert opened(thumbnail(FileRef(narrow))).size == (10, 20)
    assert thumbnail(FileRef(tmp_path / "gone.png")) is None
    row = {"R@1": 5.0, "candidates": 4, "queries": 4}
    both = _estimates({"text_to_image": row, "image_to_text": row})
    assert [(one.name, one.chance, one.style) for one in both] == [
        ("picture in top 1", 25, 1),
        ("words in top 1", 25, 2),
    ]
