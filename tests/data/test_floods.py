"""What a message repeats of people's data is cut: a photograph in base64 never floods a terminal."""

from __future__ import annotations

import base64
import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from plait.core.errors import DataError, UserError, cut_path, tamed
from plait.data import inspect, open_dataset
from plait.data.audit.audit import audit

LONG = base64.b64encode(random.Random(0).randbytes(30_000)).decode()
MOST = 5000  # characters of all that is told of one or two rows, and of two files


def lines(*rows: dict[str, Any]) -> dict[str, bytes]:
    return {"p.jsonl": "\n".join(map(json.dumps, rows)).encode()}


def coco(image: dict[str, Any], annotation: dict[str, Any]) -> dict[str, bytes]:
    return {"c.json": json.dumps({"images": [image], "annotations": [annotation]}).encode()}


CASES: dict[str, dict[str, bytes]] = {
    "no such column": lines({"pic": LONG, "caption": "a"}),
    "as a name": lines({"image": LONG, "caption": "a"}),
    "as a name with an ending": lines({"image": f"{LONG[:4000]}.png", "caption": "a"}),
    "on the web": lines({"image": f"http://{LONG}", "caption": "a"}),
    "damaged base64": lines({"image": f"data:image/png;base64,{LONG}!", "caption": "a"}),
    "object": lines({"image": {"x": LONG}, "caption": "a"}),
    "several": lines({"image": [LONG, LONG], "caption": "a"}),
    "split": lines({"image": "1.png", "caption": "a", "split": LONG}),
    "text of bytes": lines({"image": "1.png", "caption": {"x": LONG}}),
    "ids": lines(*({"image": f"{n}.png", "caption": "a", "sample_id": LONG} for n in (1, 2))),
    "long ids": lines(*({"image": f"{n}.png", "caption": "a", "sample_id": LONG[:499]} for n in (1, 2))),
    "groups": lines(*({"image": "1.png", "caption": str(n), "group": LONG[n:n + 400]} for n in (1, 2))),
    "labels": lines(*({"image": "1.png", "caption": str(n), "label": LONG[n:]} for n in (1, 2))),
    "spellings": lines(*({"image": f"{n}.png", "caption": "a", "label": one} for n, one in ((1, LONG.lower()), (2, LONG.upper())))),
    "texts": lines({"image": "1.png", "caption": LONG}, {"image": "2.png", "caption": LONG}),
    "header": {"p.csv": f"image,caption,{LONG},{LONG}\n1.png,a,1,2\n".encode()},
    "row for header": {"p.tsv": f"1\ta\t{LONG}\n2\tb\t{LONG}\n".encode()},
    "key of JSON": {"p.json": json.dumps({f"{LONG}.png": "a"}).encode()},
    "ids of COCO": coco({"id": LONG, "file_name": "1.png"}, {"id": 0, "image_id": LONG[1:], "caption": "a"}),
    "Chinese-CLIP": {
        "x_imgs.tsv": f"{LONG}\n1\t{LONG}!\n".encode(),
        "x_texts.jsonl": json.dumps({"text": "x", "image_ids": [LONG]}).encode(),
    },
    "turns": lines({"messages": [{"role": LONG, "content": "x"}], "image": "1.png"}),
    "beside": {"1.txt": LONG.encode(), "2.json": json.dumps({"caption": {"x": LONG}}).encode()},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_long_value_is_cut_wherever_it_stands(case: str, tmp_path: Path) -> None:
    for number in (1, 2):
        Image.new("RGB", (8, 8), (99 * number, 0, 0)).save(tmp_path / f"{number}.png")
    for name, data in CASES[case].items():
        (tmp_path / name).write_bytes(data)
    told = []
    for look in (inspect, lambda path: audit(path).to_json(), open_dataset):
        try:
            result = look(tmp_path)
        except UserError as error:
            told.append(str(error))
        else:
            told.append(json.dumps(result) if isinstance(result, dict) else "")
    assert all(LONG[100:400] not in one.replace("\n", "") for one in told)
    assert max(map(len, told)) < MOST


def test_lists_of_bytes_in_parquet(tmp_path: Path) -> None:
    cell = [[{"bytes": LONG.encode(), "path": "a.png"}, {"bytes": b"x", "path": "b"}]]
    pq.write_table(pa.table({"images": cell, "text": ["a"]}), tmp_path / "l.parquet")
    with pytest.raises(DataError) as raised:
        open_dataset(tmp_path / "l.parquet")
    assert len(str(raised.value)) < 400


def test_endless_words_are_cut_and_prose_is_not() -> None:
    assert tamed("a " * 4000) == "a " * 4000
    assert tamed("x" * 299) == "x" * 299
    assert tamed(f"say {'x' * 300} here") == f"say {'x' * 80}... (300 characters) here"
    assert str(DataError("p", path="f", row=LONG)).startswith(f"f, row {LONG[:200]}... (40,000")
    assert cut_path("a/b.png") == "a/b.png"
    assert cut_path("a" * 60 + "b" * 60) == "a" * 40 + "..." + "b" * 40 + " (120 characters)"


@pytest.mark.parametrize("rows", [3, 40])  # below and above what is parsed whole
@pytest.mark.parametrize("ending", ["jsonl", "ndjson"])
def test_first_lines_longer_than_what_is_looked_at(ending: str, rows: int, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (200, 200), random.Random(1).randbytes(120_000)).save(buffer, "PNG")
    picture = base64.b64encode(buffer.getvalue()).decode()
    assert len(picture) > 1 << 16
    path = tmp_path / f"p.{ending}"
    path.write_text(
        "".join(json.dumps({"image": picture, "text": f"row {n}"}) + "\n" for n in range(rows))
    )
    (sample,) = open_dataset(path)  # the same picture each time
    assert sample.texts == tuple(f"row {n}" for n in range(rows))
