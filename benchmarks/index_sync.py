"""An index that follows its folder: time of a sync, memory of the first build, and kills.

``grow``: 20,000 drawn pictures are indexed, the folder grows by 100, loses 50, moves 50, and is synced:
processor and wall time of both commands, and whether the rows are exactly the right ones. ``memory``:
peak memory of `plait index` over 5,000 and over 20,000 pictures. ``kill``: `plait index` is killed with
SIGKILL at three moments, by how many of its rows are in, each time started again, and compared with
an unbroken build; then a sync in the same way. ``data``: `plait data inspect` and `audit`
on 20,000 files, by this version and by another commit of it, in turns.

Each part leaves its figures in the working folder, and ``write`` puts them together: the parts take
minutes, and can run one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from _measure import machine, write_results

PLAIT = [sys.executable, "-m", "plait"]
MANY, FEW = 20_000, 5_000
NEW, GONE, MOVED = 100, 50, 50
A_FOLDER = 500  # pictures
MOMENTS = {"build": (0.15, 0.5, 0.75), "sync": (0.15, 0.5, 0.9)}
"""Shares of the new rows that are in the index when it is killed; in the end what is gone must go."""
BARS = {"sync": 3.0, "memory": 10.0, "data": 10.0}  # percent


def draw(path: Path, number: int) -> None:
    """A soft pattern of 64 x 64 pixels as JPEG, the same for the same number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(number).integers(256, size=(4, 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC).save(path, quality=85)


def place(folder: Path, number: int) -> Path:
    """In a folder a month, as people keep photographs."""
    month = number // A_FOLDER
    return folder / f"{1990 + month // 12}-{month % 12 + 1:02d}" / f"DSC_{number:06d}.jpg"


def pictures(folder: Path, count: int) -> Path:
    if not folder.is_dir():
        for number in range(count):
            draw(place(folder, number), number)
    return folder


def trained(here: Path, recipe: str) -> Path:
    """A run of a recipe on 48 drawn pairs."""
    run, pairs = here / f"run-{recipe}", here / "pairs"
    if not (run / "report.json").is_file():
        for number in range(48):
            draw(pairs / f"{number}.jpg", number)
        rows = [f"{number}.jpg,pattern {number}" for number in range(48)]
        (pairs / "metadata.csv").write_text("\n".join(["file_name,text", *rows]) + "\n")
        words = ["train", recipe, "--data", str(pairs), "--out", str(run)]
        timed([*words, "--set", "stages.0.epochs=2"], here / "cache-training")
    return run


def timed(words: list[str], cache: Path, source: Path | None = None) -> dict[str, Any]:
    """Wall and processor time in s, peak memory in MiB, and the output of a plait command."""
    environment = {**os.environ, "PLAIT_CACHE": str(cache)}
    if source is not None:
        environment["PYTHONPATH"] = str(source)
    begun = time.perf_counter()
    process = subprocess.Popen([*PLAIT, *words], stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    output = process.stdout.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{words} ended with {process.returncode}")
    return {
        "wall": time.perf_counter() - begun,
        "cpu": used.ru_utime + used.ru_stime,
        "mib": used.ru_maxrss / 1024,
        "output": output,
    }


def rows_of(index: Path) -> dict[str, tuple[str | None, np.ndarray]]:
    from plait.retrieval import open_index

    return {row.id: (row.path, row.vector) for row in open_index(index).store.rows()}


def grow(here: Path, recipe: str) -> dict[str, Any]:
    run, folder, index = trained(here, recipe), here / f"grown-{recipe}", here / f"index-{recipe}"
    cache = here / f"cache-{recipe}"
    for old in (folder, index, cache):
        shutil.rmtree(old, ignore_errors=True)
    pictures(folder, MANY)
    words = ["index", str(run), str(folder), "--out", str(index), "--json"]
    first = timed(words, cache)
    before = rows_of(index)
    same = timed([*words, "--sync"], cache)
    random = np.random.default_rng(0)
    chosen = random.choice(MANY, GONE + MOVED, replace=False).tolist()
    moved: dict[str, str] = {}
    for number in chosen[:GONE]:
        place(folder, number).unlink()
    for number in chosen[GONE:]:
        old = place(folder, number)
        new = folder / "2030-01" / old.name
        new.parent.mkdir(exist_ok=True)
        moved[str(new.resolve())] = str(old.resolve())
        old.rename(new)
    for number in range(MANY, MANY + NEW):
        draw(place(folder, number), number)
    grown = timed([*words, "--sync"], cache)
    counts = json.loads(grown["output"])
    right = (NEW, 0, MOVED, GONE, MANY - GONE - MOVED, MANY + NEW - GONE)
    told = tuple(
        counts[name] for name in ("added", "changed", "moved", "deleted", "unchanged", "rows")
    )
    after = rows_of(index)
    known = {path: vector for path, vector in before.values()}
    paths = {path for path, _ in after.values()}
    on_disk = {str(path.resolve()) for path in folder.rglob("*.jpg")}
    kept = all(
        np.array_equal(vector, known[moved.get(str(path), str(path))])
        for path, vector in after.values()
        if moved.get(str(path), path) in known
    )
    return {
        "first": _times(first),
        "same": _times(same),
        "grown": _times(grown),
        "share_cpu": 100 * grown["cpu"] / first["cpu"],
        "share_wall": 100 * grown["wall"] / first["wall"],
        "counts": counts,
        "exact": told == right and paths == on_disk and len(after) == len(on_disk) and kept,
    }


def memory(here: Path) -> dict[str, Any]:
    run, found = trained(here, "scratch"), {}
    for count in (FEW, MANY):
        folder = pictures(here / f"pictures-{count}", count)
        index, cache = here / "index-memory", here / "cache-memory"
        words = ["index", str(run), str(folder), "--out", str(index)]
        found[str(count)] = timed(words, cache)["mib"]
        shutil.rmtree(index)
        shutil.rmtree(cache)
    return {"mib": found, "more": 100 * (found[str(MANY)] / found[str(FEW)] - 1)}


def killed(words: list[str], cache: Path, when: Callable[[], bool]) -> None:
    """Starts a plait command, and kills it with SIGKILL as soon as ``when`` says so."""
    shutil.rmtree(cache, ignore_errors=True)  # what goes on is the index, not the cache
    environment = {**os.environ, "PLAIT_CACHE": str(cache)}
    process = subprocess.Popen([*PLAIT, *words], stdout=subprocess.DEVNULL, env=environment)
    while not when():
        if process.poll() is not None:
            raise RuntimeError(f"{words} ended before it was to be killed")
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def reached(path: Path, wanted: int) -> bool:
    return lines(path) >= wanted


def kill(here: Path) -> dict[str, Any]:
    run, count = trained(here, "scratch"), 2 * FEW
    folder, cache = here / "killed", here / "cache-kill"
    out, unbroken = here / "index-killed", here / "index-unbroken"
    for old in (folder, out, unbroken, cache):
        shutil.rmtree(old, ignore_errors=True)
    pictures(folder, count)
    words = ["index", str(run), str(folder), "--out"]
    found = {}
    for name in ("build", "sync"):
        if name == "sync":  # half of the pictures go, as many others come
            for number in range(FEW):
                place(folder, number).unlink()
                draw(place(folder, count + number), count + number)
        journal = (
            out.with_name(f".{out.name}.unfinished") if name == "build" else out
        ) / "files.jsonl"
        begun, total = lines(journal), count if name == "build" else FEW
        option = [] if name == "build" else ["--sync"]
        at = []
        for share in MOMENTS[name]:
            killed(
                [*words, str(out), *option],
                cache,
                partial(reached, journal, begun + int(share * total)),
            )
            at.append(lines(journal) - begun)
        timed([*words, str(out), *option], cache)
        shutil.rmtree(unbroken, ignore_errors=True)
        shutil.rmtree(cache)
        timed([*words, str(unbroken)], cache)
        broken, whole = rows_of(out), rows_of(unbroken)
        same = broken.keys() == whole.keys()
        most = max(float(np.abs(broken[id][1] - whole[id][1]).max()) for id in whole) if same else 1
        found[name] = {"killed_after": at, "rows": len(whole), "same_ids": same, "most": most}
    return found


def data(here: Path, commit: str, rounds: int) -> dict[str, Any]:
    source = here / f"source-{commit}"
    if not source.is_dir():
        root = Path(__file__).parents[1]
        archive = subprocess.run(
            ["git", "-C", str(root), "archive", commit, "src"], check=True, stdout=subprocess.PIPE
        )
        source.mkdir()
        subprocess.run(["tar", "-x", "-C", str(source)], input=archive.stdout, check=True)
    folder = pictures(here / f"pictures-{MANY}", MANY)
    rows = [f"{place(Path(), n)},a pattern with the number {n}" for n in range(MANY)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,text", *rows]) + "\n")
    found: dict[str, Any] = {"commit": commit}
    for verb in ("inspect", "audit"):
        seconds: dict[str, list[float]] = {"now": [], "before": []}
        for _ in range(rounds):
            for side, its in (("before", source / "src"), ("now", None)):
                words = ["data", verb, str(folder), "--json"]
                seconds[side].append(timed(words, here / "cache-data", its)["cpu"])
        ratios = [now / old for now, old in zip(seconds["now"], seconds["before"], strict=True)]
        found[verb] = {**seconds, "more": 100 * (statistics.median(ratios) - 1)}
    (folder / "metadata.csv").unlink()
    return found


def _times(one: dict[str, Any]) -> dict[str, float]:
    return {name: round(one[name], 2) for name in ("wall", "cpu", "mib")}


def write(here: Path) -> None:
    found = {path.stem: json.loads(path.read_text()) for path in (here / "parts").glob("*.json")}
    rows: list[dict[str, str]] = []

    def row(what: str, figure: str, bar: str) -> None:
        rows.append({"what": what, "figure": figure, "bar": bar})

    for name, told in (("align", "EfficientNet-Lite0"), ("scratch", "a small convolutional tower")):
        one = found.get(f"grow-{name}")
        if one is None:
            continue
        first, same, grown = one["first"], one["same"], one["grown"]
        row(
            f"first index of {MANY:,} pictures, recipe `{name}` ({told})",
            f"{first['cpu']:.1f} s of processor time, {first['wall']:.1f} s",
            "",
        )
        row("`--sync`, nothing changed", f"{same['cpu']:.1f} s, {same['wall']:.1f} s", "")
        row(
            f"`--sync`, {NEW} new, {GONE} deleted, {MOVED} moved",
            f"{grown['cpu']:.1f} s, {grown['wall']:.1f} s: {one['share_cpu']:.1f}% and "
            f"{one['share_wall']:.1f}% of the first",
            f"{BARS['sync']:.0f}%" if name == "align" else "",
        )
        row(
            "the rows of that sync",
            "exactly the right ones" if one["exact"] else "NOT the right ones",
            "exact",
        )
    if "memory" in found:
        few, many = (found["memory"]["mib"][str(count)] for count in (FEW, MANY))
        row(
            f"peak memory of the first index, {FEW:,} and {MANY:,} pictures",
            f"{few:,.0f} and {many:,.0f} MiB: {found['memory']['more']:+.1f}%",
            f"{BARS['memory']:.0f}%",
        )
    for name, one in found.get("kill", {}).items():
        row(
            f"{name} killed after {', '.join(f'{n:,}' for n in one['killed_after'])} rows, and again",
            f"{one['rows']:,} rows, {'the same ids' if one['same_ids'] else 'OTHER ids'}, vectors "
            f"differ by at most {one['most']:.1g}",
            "the same",
        )
    for verb in ("inspect", "audit"):
        if "data" in found:
            one = found["data"][verb]
            now, old = (statistics.median(one[side]) for side in ("now", "before"))
            row(
                f"`plait data {verb}`, {MANY:,} files, against commit {found['data']['commit']}",
                f"{now:.2f} s against {old:.2f} s of processor time: {one['more']:+.1f}%",
                f"{BARS['data']:.0f}%",
            )
    write_results(
        "index_sync",
        "An index that follows its folder",
        rows,
        about="Whole commands, each in a process of its own, over drawn JPEGs of 64 x 64 pixels with "
        "an empty cache at the first. Processor time is that of the command and its threads.",
        machine=machine("openvino", "lancedb"),
        notes=[
            "Another model costs more or less a picture, while a sync costs a start, the scan and "
            "the database's library whatever the model: with a tower of under 2 ms a picture it is "
            "a larger share of the first index.",
            "The parts run one by one with the same --work (`grow --recipe align`, `memory`, `kill`, "
            "`data`); a line stands here for each that has run. Other work shared the machine: wall "
            "times are long, and processor time is what to compare.",
        ],
        details=found,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "part", choices=("grow", "memory", "kill", "data", "write"), nargs="+", help="in order"
    )
    parser.add_argument("--work", type=Path, required=True, help="a folder for all that is made")
    parser.add_argument("--recipe", default="align", help="of grow: align or scratch")
    parser.add_argument("--commit", default="051736d", help="of data: what is compared with")
    parser.add_argument("--rounds", type=int, default=3, help="of data")
    options = parser.parse_args()
    here = options.work.resolve()
    (here / "parts").mkdir(parents=True, exist_ok=True)
    for part in options.part:
        if part == "write":
            write(here)
            continue
        name = f"grow-{options.recipe}" if part == "grow" else part
        found = {
            "grow": lambda: grow(here, options.recipe),
            "memory": lambda: memory(here),
            "kill": lambda: kill(here),
            "data": lambda: data(here, options.commit, options.rounds),
        }[part]()
        (here / "parts" / f"{name}.json").write_text(json.dumps(found, indent=2))
        print(name, json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
