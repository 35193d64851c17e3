"""The page of a run: one HTML file that needs no network and no script, in light and dark."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from plait.evaluation.report.answers import HEADS, answers
from plait.evaluation.report.captions import captions
from plait.evaluation.report.curves import Curve
from plait.evaluation.report.data import ReportData
from plait.evaluation.report.finetuning import finetuning
from plait.evaluation.report.plots import bars, histogram, line_chart
from plait.evaluation.report.report_examples import mistakes, pictures, searches
from plait.evaluation.report.results import notes, results
from plait.evaluation.report.savings import savings
from plait.evaluation.report.words import duration, geometry_words, whole

Section = tuple[str, str, str]  # anchor, title, HTML


def page(data: ReportData, curves: Sequence[Curve]) -> str:
    """The whole document."""
    css = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    sections = [section for section in _sections(data, curves) if section[2]]
    links = "".join(f'<a href="#{anchor}">{escape(title)}</a>' for anchor, title, _ in sections)
    body = "".join(
        f'<section id="{anchor}"><h2>{escape(title)}</h2>{html}</section>'
        for anchor, title, html in sections
    )
    name = _name(data)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)} · plait</title><style>{css}</style></head><body><main>"
        f"<header><h1>{escape(name)}</h1><p>{_what(data)}</p>"
        f'<nav aria-label="Sections">{links}</nav></header>{_tiles(data)}{body}{_footer(data)}'
        "</main></body></html>\n"
    )


def _sections(data: ReportData, curves: Sequence[Curve]) -> Iterator[Section]:
    result = data.result
    yield "caution", "How much the figures tell", notes(result)
    yield "results", "How well it finds", results(result)
    yield "finetuning", "What fine-tuning changed", finetuning(result)
    yield "answers", "How well it answers", answers(result)
    yield "captions", "How well it describes", captions(result)
    sheet = ""
    if data.sheet:
        sheet = f'<div class="scroll" tabindex="0"><img class="sheet" src="{data.sheet}" alt="Contact sheet: queries in free words, each with the pictures found, best first"></div>'
    yield "questions", "Asked in free words", sheet
    yield "searches", "Sample searches", searches(data.examples.get("searches", ()))
    yield "pictures", "Pictures that look for words", pictures(data.examples.get("pictures", ()))
    yield "mistakes", "Worst mistakes", mistakes(data.examples.get("mistakes", ()))
    yield "training", "Training curves", _curves(curves)
    yield "health", "Training health", _health(data)
    yield "space", "The shared space", _geometry(result)
    yield "savings", "What sharing saves", savings(result)
    yield "time", "Where the time went", _seconds(result)
    yield "next", "How to go on", _next(data)
    yield "details", "Recipe, data and versions", _details(data)


def _name(data: ReportData) -> str:
    for line in data.recipe.splitlines():
        if line.startswith("name:"):
            return line.removeprefix("name:").strip().strip("'\"")
    return data.run.name


def _what(data: ReportData) -> str:
    """One line: what was trained on what."""
    told = data.data
    if not told:
        return f"Run folder <code>{escape(data.run.name)}</code>"
    splits = told.get("splits", {})
    parts = ", ".join(f"{count:,} {name}" for name, count in splits.items() if count)
    return (
        f"Trained on <code>{escape(str(told['source']))}</code>: {told['samples']:,} samples with "
        f"{told['texts']:,} texts ({parts})"
    )


def _tiles(data: ReportData) -> str:
    """The figures to remember."""
    tiles = []
    figures = data.result.get("retrieval")
    if figures:
        ask, answer = figures["text_to_image"], figures["image_to_text"]
        tiles += [
            (f"{whole(ask[name])}%", words)
            for name, words in (
                ("R@1", "right picture first"),
                ("R@10", "right picture in the first 10"),
            )
            if name in ask
        ]
        tiles.append((f"{whole(answer['R@1'])}%", "right words first"))
    zero_shot = data.result.get("zero_shot")
    if zero_shot:
        tiles.append(
            (
                f"{whole(zero_shot['top1'])}%",
                f"of pictures put in the right one of {zero_shot['classes']} classes",
            )
        )
    tiles += [
        (f"{data.result[name]['accuracy']:.1f}%", words.lower())
        for name, words in HEADS.items()
        if name in data.result
    ]
    seconds = data.result.get("seconds")
    if seconds:
        tiles.append((duration(sum(seconds.values())), "from start to finish"))
    html = "".join(f'<div class="tile"><b>{a}</b><span>{escape(b)}</span></div>' for a, b in tiles)
    return f'<div class="tiles">{html}</div>' if tiles else ""


def _curves(curves: Sequence[Curve]) -> str:
    charts = "".join(
        line_chart(
            c.series,
            title=c.title,
            told=c.told,
            x_label="update",
            zero=c.zero,
            mark=c.mark,
            mark_label=c.mark_label,
            borders=c.borders,
        )
        for c in curves
    )
    return f'<div class="charts">{charts}</div>' if charts else ""


def _health(data: ReportData) -> str:
    if "health" not in data.result:
        return ""
    lines = data.result["health"]
    if not lines:
        html = '<div class="card fine">Nothing alarming was seen: no divergence, no collapse, no dead tower, no over-fitting beyond what the best checkpoint avoids.</div>'
    else:
        items = "".join(f"<li>{escape(str(line))}</li>" for line in lines)
        html = f'<div class="card alarm"><ul class="health">{items}</ul></div>'
    notes = [str(note) for note in data.result.get("notes", ())]
    if skipped := data.result.get("skipped"):
        notes.append(f"{skipped} bad rows were left out; data.json names each.")
    if notes:
        html += f'<ul class="health">{"".join(f"<li>{escape(n)}</li>" for n in notes)}</ul>'
    return html


def _geometry(result: Mapping[str, Any]) -> str:
    geometry = result.get("geometry")
    if not geometry:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="number">{escape(value)}</td><td>{escape(words)}</td></tr>'
        for name, value, words in geometry_words(geometry)
    )
    cosines = geometry["cosines"]
    series = [("true pairs", cosines["true"]["histogram"], 1)]
    if cosines["random"]:
        series.append(("random pairs", cosines["random"]["histogram"], 2))
    told = "; ".join(
        f"{name}: mean cosine {cosines[name.split()[0]]['mean']:.2f}" for name, _, _ in series
    )
    chart = histogram(
        series,
        low=-1,
        high=1,
        title="Cosines of pairs",
        told=told,
        x_label="cosine of picture and text",
    )
    return f'<div class="wide">{chart}</div><div class="scroll"><table>{rows}</table></div>'


def _seconds(result: Mapping[str, Any]) -> str:
    seconds = result.get("seconds")
    if not seconds:
        return ""
    rows = [(name, value, duration(value)) for name, value in seconds.items()]
    told = "; ".join(f"{name} {words}" for name, _, words in rows)
    return f'<div class="wide">{bars(rows, title="Seconds per step", told=told)}</div>'


def _next(data: ReportData) -> str:
    run = shlex.quote(str(data.run))
    source = shlex.quote(str(data.data.get("source", "PATH")))
    index = shlex.quote(str(data.run / "index"))
    if data.kind == "drawing":
        return _next_of_drawing(run, str(data.run))
    if data.kind == "bridge":
        return _next_of_bridge(run, str(data.run), data.result)
    if data.kind == "fusion" or any(name in data.result for name in HEADS):
        return _next_of_fusion(run, str(data.run), data.result)
    made = (data.run / "index" / "manifest.json").is_file()
    lines = [] if made else [f"plait index {run} {source} --out {index}"]
    lines += [
        f'plait search {index} "words to look for" -k 8 --sheet found.png',
        f"plait search {index} --image PICTURE.jpg",
        f"plait evaluate {run} --data YOUR_PAIRS --split test",
        "plait train align --data YOUR_PAIRS --out runs/mine",
    ]
    code = (
        "import plait\n\n"
        f"model = plait.load({str(data.run)!r})\n"
        'model.similarity(images=["a.jpg"], texts=["a red apple", "a green pear"])'
    )
    return (
        f'<p>In a shell:</p><pre tabindex="0">{escape(chr(10).join(lines))}</pre>'
        f'<p>In Python:</p><pre tabindex="0">{escape(code)}</pre>'
    )


def _next_of_drawing(run: str, folder: str) -> str:
    lines = [
        f'plait draw {run} "what to draw" -n 8 --out sheet.png',
        f"plait evaluate {run} --split test",
    ]
    code = (
        f'import plait\n\nplait.draw({folder!r}, "a red apple", 8, out="sheet.png")\n'
        f'plait.load({folder!r}).draw(["a red apple"], 8)  # uint8 (1, 8, 3, H, W)'
    )
    return (
        f'<p>In a shell:</p><pre tabindex="0">{escape(chr(10).join(lines))}</pre>'
        f'<p>In Python:</p><pre tabindex="0">{escape(code)}</pre>'
    )


def _next_of_bridge(run: str, folder: str, result: Mapping[str, Any]) -> str:
    if "vqa" in result:
        lines = [f'plait ask {run} PICTURE.jpg "what is this?"']
        code = f'import plait\n\nplait.ask({folder!r}, "a.jpg", "what is this?")["answer"]'
    else:
        lines = [f"plait caption {run} PICTURE.jpg"]
        code = f'import plait\n\nplait.caption({folder!r}, ["a.jpg"])[0]["caption"]'
    lines.append(f"plait evaluate {run} --split test")
    return (
        f'<p>In a shell:</p><pre tabindex="0">{escape(chr(10).join(lines))}</pre>'
        f'<p>In Python:</p><pre tabindex="0">{escape(code)}</pre>'
    )


def _next_of_fusion(run: str, folder: str, result: Mapping[str, Any]) -> str:
    lines = [f"plait evaluate {run} --split test"]
    code = f"import plait\n\nmodel = plait.load({folder!r})"
    if "vqa" in result:
        lines.insert(0, f'plait ask {run} PICTURE.jpg "what is this?"')
        code = f'import plait\n\nplait.ask({folder!r}, "a.jpg", "what is this?")["answer"]'
    if "match" in result:
        lines.append(f'plait search INDEX "words to look for" --rerank {run}')
    return (
        f'<p>In a shell:</p><pre tabindex="0">{escape(chr(10).join(lines))}</pre>'
        f'<p>In Python:</p><pre tabindex="0">{escape(code)}</pre>'
    )


def _details(data: ReportData) -> str:
    parts = []
    if data.recipe:
        parts.append(
            f'<details><summary>Recipe, with every default</summary><pre tabindex="0">{escape(data.recipe)}</pre></details>'
        )
    for title, table in (("Data", data.data), ("Versions", data.versions)):
        if table:
            rows = "".join(
                f'<tr><th scope="row">{escape(str(key))}</th><td>{escape(_short(value))}</td></tr>'
                for key, value in table.items()
            )
            parts.append(
                f'<details><summary>{title}</summary><div class="scroll"><table>{rows}</table></div></details>'
            )
    return "".join(parts)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    if isinstance(value, list):
        return f"{len(value)}" if value else "none"
    return "not installed" if value is None else str(value)


def _footer(data: ReportData) -> str:
    started = data.versions.get("started", "")
    version = data.versions.get("plait", "")
    return f"<footer>Made by plait {escape(str(version))}{f', run started {escape(str(started))}' if started else ''}.</footer>"
