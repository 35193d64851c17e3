"""Planted faults, each found with file and row; and nothing found where nothing is."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from tests.data import planted

from plait.core.errors import DataError
from plait.data.audit.audit import audit
from plait.data.audit.images import near_pairs
from plait.data.audit.pairs import low_outliers, margins
from plait.data.base.equal_texts import normalised
from plait.data.base.splits import split_of
from plait.data.open.open import open_dataset


def scene(seed: int, size: int = 96) -> Image.Image:
    """Smooth blobs, as photographs have and noise has not."""
    values = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((size, size), Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def bomb(width: int, height: int) -> bytes:
    """A PNG of one black pixel's worth of bytes that claims ``width`` x ``height``."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def in_split(split: str, start: str) -> str:
    return next(f"{start}{n}" for n in range(1000) if split_of(f"{start}{n}") == split)


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    train, test = in_split("train", "a"), in_split("test", "b")
    test_near, twin = in_split("test", "c"), in_split("train", "d")
    for number in range(6):
        save(scene(number), images / f"good{number}.png")
    save(scene(20), images / f"{train}.jpg", quality=95)
    (images / f"{test}.jpg").write_bytes((images / f"{train}.jpg").read_bytes())
    save(scene(20).resize((64, 64)), images / f"{test_near}.jpg", quality=70)
    (images / f"{twin}.jpg").write_bytes((images / f"{train}.jpg").read_bytes())
    (images / "cut.jpg").write_bytes((images / f"{train}.jpg").read_bytes()[:-300])
    (images / "fake.jpg").write_text("<!doctype html>")
    (images / "bomb.png").write_bytes(bomb(30_000, 30_000))
    save(scene(30), images / "orphan.png")
    lines = ["image,text,label"]
    lines += [f"images/good{n}.png,picture {n},Cat" for n in range(4)]  # rows 2 to 5
    lines += [
        f"images/{train}.jpg,the first,cat",  # 6
        f"images/{test}.jpg,second,Cat",  # 7: leakage
        f"images/{test_near}.jpg,third,Cat",  # 8: near leakage
        f"images/{twin}.jpg,fourth,Cat",  # 9: duplicate in the same split
        "images/cut.jpg,fifth,Cat",  # 10
        "images/fake.jpg,sixth,Cat",  # 11
        "images/bomb.png,seventh,Cat",  # 12
        "images/gone.jpg,eighth,Cat",  # 13
        "images/good4.png,,Cat",  # 14
        "images/good5.png,one two three four five six seven,Cat",  # 15
        'images/good5.png,"One two, three four five six seven!",Dog',  # 16
        "images/good0.png,Picture 1.,Cat",  # 17: also the text of good1
    ]
    data = "\n".join(lines).encode() + b"\nimages/good4.png,caf\xe9,Cat\n"  # 18
    (tmp_path / "pairs.csv").write_bytes(data)
    return tmp_path


def test_planted_faults_are_found_with_their_rows(faulty: Path) -> None:
    class Words:
        max_length = 5

        def lengths(self, texts: object) -> np.ndarray:
            return np.array([len(text.split()) for text in texts])

    report = audit(faulty / "pairs.csv", text_preprocess=Words())
    found = sorted((f.kind, f.row) for f in report.rows if f.kind != "orphan-image")
    assert found == sorted(
        [
            ("leakage", 7),
            ("near-leakage", 8),
            ("duplicate-image", 9),
            ("unreadable", 10),
            ("unreadable", 11),
            ("size-bomb", 12),
            ("missing-file", 13),
            ("empty-text", 14),
            ("bad-encoding", 18),
            ("duplicate-text", 16),
            ("over-long", 15),
            ("over-long", 16),
            ("inconsistent-label", 16),
            ("label-spelling", 6),
            ("shared-text", 17),
        ]
    )
    orphans = {Path(f.path).name for f in report.rows if f.kind == "orphan-image"}
    assert orphans == {"orphan.png", "good4.png"}
    assert all(f.path == str(faulty / "pairs.csv") for f in report.rows if f.row)
    by_kind = {finding.kind: finding for finding in report.rows}
    assert "30000 x 30000 = 900,000,000 pixels" in by_kind["size-bomb"].detail
    assert "one is in train, the other in test" in by_kind["leakage"].detail
    assert report.errors == 7


def test_a_twin_in_the_same_split_hides_no_leak(tmp_path: Path) -> None:
    """Three near copies, two of them in test: the second of these is told of both ways."""
    first, train, second = in_split("test", "k"), in_split("train", "l"), in_split("test", "m")
    for number, name in enumerate((first, train, second)):
        size = (96 - 8 * number, 96 - 8 * number)
        save(scene(20).resize(size), tmp_path / "images" / f"{name}.jpg", quality=90 - number)
    rows = [f"images/{name}.jpg,{name}" for name in (first, train, second)]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,text", *rows]) + "\n")
    found = [(f.kind, f.row) for f in audit(tmp_path / "pairs.csv").rows]
    assert sorted(found) == [("near-duplicate", 4), ("near-leakage", 3), ("near-leakage", 4)]


def test_a_common_group_hides_no_leak(tmp_path: Path) -> None:
    for name in "abc":
        save(scene(21), tmp_path / "images" / f"{name}.png")
    rows = "images/a.png,one,g,train\nimages/b.png,two,g,test\nimages/c.png,three,g,train\n"
    (tmp_path / "pairs.csv").write_text("image,text,group,split\n" + rows)
    found = [(f.kind, f.row) for f in audit(tmp_path / "pairs.csv").rows]
    assert found == [("leakage", 3)]


def test_report_as_json_and_table(faulty: Path) -> None:
    report = audit(faulty / "pairs.csv")
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["counts"]["unreadable"] == 2
    assert document["findings"][0]["severity"] == "error"
    assert {"kind", "severity", "path", "row", "where", "id", "detail"} <= document["findings"][
        0
    ].keys()
    text = report.table(limit=1)
    assert "pairs.csv, row 13" in text
    assert "... and 1 more of unreadable" in text
    assert str(len(report.rows)) in text.splitlines()[-1]


def test_nothing_is_found_in_good_data(tmp_path: Path) -> None:
    for number in range(30):
        save(scene(number), tmp_path / "images" / f"{number}.png")
    rows = [json.dumps({"image": f"images/{n}.png", "text": f"number {n}"}) for n in range(30)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    report = audit(tmp_path)
    assert report.rows == []
    assert report.table().endswith("nothing found")
    assert (report.samples, report.texts) == (30, 30)


def test_open_data_set_is_audited_too(faulty: Path) -> None:
    dataset = open_dataset(faulty / "pairs.csv", on_bad_row="skip")
    kinds = {finding.kind for finding in audit(dataset).rows}
    assert {"leakage", "unreadable", "missing-file", "empty-text", "size-bomb"} <= kinds
    assert "unreadable" not in {f.kind for f in audit(dataset, images=False).rows}


def test_a_source_that_fails_as_a_whole(tmp_path: Path) -> None:
    planted.pictures(tmp_path, ["1.jpg"])
    (tmp_path / "pairs.csv").write_text("image,number,x\n1.jpg,1,2\n")
    [finding] = [f for f in audit(tmp_path / "pairs.csv").rows if f.severity == "error"]
    assert finding.kind == "unreadable-source"
    assert "no column names the texts" in finding.detail
    with pytest.raises(DataError, match="no file, folder"):
        audit(tmp_path / "gone")


@pytest.mark.parametrize("change", ["small", "quality", "png", "blur", "bright"])
def test_copies_are_near_duplicates(tmp_path: Path, change: str) -> None:
    picture = scene(5, 200)
    save(picture, tmp_path / "a.png")
    changed = {
        "small": lambda: picture.resize((70, 70)),
        "quality": lambda: picture,
        "png": lambda: picture.convert("P", palette=Image.Palette.ADAPTIVE),
        "blur": lambda: picture.filter(ImageFilter.GaussianBlur(1)),
        "bright": lambda: picture.point(lambda value: min(255, value + 4)),
    }[change]()
    if change == "quality":
        save(changed, tmp_path / "b.jpg", quality=40)
    else:
        save(changed, tmp_path / "b.png")
    save(scene(6, 200), tmp_path / "c.png")
    kinds = [finding.kind for finding in audit(tmp_path).rows]
    assert kinds in (["near-duplicate"], ["near-leakage"])


def test_same_content_told_as_a_group_is_no_finding(tmp_path: Path) -> None:
    data = io.BytesIO()
    scene(1).save(data, "PNG")
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(data.getvalue())
    lines = [json.dumps({"image": f"{n}.png", "text": "same", "group": "g"}) for n in range(3)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    assert audit(tmp_path).rows == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(0, 12))
def test_banding_finds_what_comparing_all_finds(seed: int, count: int, most: int) -> None:
    generator = np.random.default_rng(seed)
    centres = generator.integers(0, 2, (3, 128))
    flips = generator.random((count, 128)) < generator.random((count, 1)) * 0.1
    every = centres[generator.integers(0, 3, count)] ^ flips
    colours = generator.integers(0, 12, (count, 192)).astype(np.uint8)
    limit = 4.0
    expected = [
        (i, j)
        for i in range(count)
        for j in range(i + 1, count)
        if (every[i] != every[j]).sum() <= most
        and np.abs(colours[i].astype(int) - colours[j].astype(int)).mean() <= limit
    ]
    bits = np.packbits(every.astype(np.uint8), axis=1)
    assert near_pairs(bits, colours, most, limit) == expected


def test_normalised() -> None:
    assert normalised("  A dog, RUNNING! ") == normalised("a Dog running")
    assert normalised("ＡＢＣ") == "abc"
    assert normalised("?!") == "?!"  # nothing but punctuation stays itself
    assert normalised("狗。") == "狗"


def vectors(count: int, swapped: list[tuple[int, int]], noise: float = 0.3) -> SimpleNamespace:
    generator = np.random.default_rng(0)
    image = generator.normal(size=(count, 32))
    owner = np.repeat(np.arange(count), 2)
    meant = owner.copy()
    for left, right in swapped:
        meant[left], meant[right] = owner[right], owner[left]
    text = image[meant] + noise * generator.normal(size=(count * 2, 32))
    return SimpleNamespace(
        ids=[str(number) for number in range(count)],
        image=image / np.linalg.norm(image, axis=1, keepdims=True),
        text=text / np.linalg.norm(text, axis=1, keepdims=True),
        text_owner=owner,
    )


def test_swapped_pairs_are_mismatches(tmp_path: Path) -> None:
    for number in range(60):
        save(scene(number, 16), tmp_path / f"{number}.png")
    lines = ["image,text,x"] + [f"{n}.png,text {n} {k},x" for n in range(60) for k in range(2)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    swapped = [(10, 41), (77, 90)]  # texts; text t is on row t + 2
    report = audit(tmp_path, embeddings=vectors(60, swapped), images=False)
    found = [finding for finding in report.rows if finding.kind == "mismatch"]
    assert {finding.row for finding in found} == {12, 43, 79, 92}
    one = next(finding for finding in found if finding.row == 12)
    assert one.id == "5"
    assert "and '20' with 0.9" in one.detail
    assert not [
        f for f in audit(tmp_path, embeddings=vectors(60, []), images=False).rows
        if f.kind == "mismatch"
    ]  # fmt: skip
    other = vectors(61, [])
    with pytest.raises(DataError, match=r"embeddings are of another data set: .*'60'"):
        audit(tmp_path, embeddings=other, images=False)


def test_margins_by_hand() -> None:
    """Three pictures and texts on axes: pair (0, 0) has cosine 1, all else 0."""
    eye = np.eye(3)
    margin, own, other = margins(eye, eye[[0, 2, 1]], np.arange(3), np.arange(3), chunk=2)
    assert own.tolist() == [1, 0, 0]
    # text 1 lies on picture 2: others' mean is (1 + 0) / 2; picture 1 with text 2: the same
    assert margin.tolist() == [1.0, -0.5, -0.5]
    assert other.tolist()[1:] == [2, 1]


def test_groups_are_no_alternatives() -> None:
    eye = np.eye(3)
    margin, _, _ = margins(eye, eye[[1, 0, 2]], np.arange(3), np.array([0, 0, 1]))
    assert margin[0] == 0.0  # its twin's text does not count against it


def test_low_outliers() -> None:
    values = np.array([0.5, 0.52, 0.48, 0.51, 0.49, 0.5, -0.9, 3.0])
    assert low_outliers(values).tolist() == [False] * 6 + [True, False]
    assert not low_outliers(np.ones(5)).any()
