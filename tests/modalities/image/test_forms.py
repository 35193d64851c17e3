"""Forms that other tools write: the same pairs, however they are spelt."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.data.planted import tar_file

from plait.core.errors import DataError
from plait.data import inspect, open_dataset
from plait.data.audit.audit import audit
from plait.data.readers.encoding import of_wide

COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}
EXPECTED = {((0, 0, 255), ("a blue one",)), ((255, 0, 0), ("a red one",))}


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), COLOURS[colour]).save(buffer, "PNG")
    return buffer.getvalue()


def spelt(form: str, colour: str) -> Any:
    """A picture as a cell."""
    data = png(colour)
    digits = base64.b64encode(data).decode()
    return {
        "name": f"{colour}.png",
        "list": [f"{colour}.png"],
        "list in text": f'["{colour}.png"]',
        "path": {"path": f"{colour}.png"},
        "base64": digits,
        "data URL": f"data:image/png;base64,{digits}",
        "list of base64": [digits],
    }[form]


def pairs(source: str | Path) -> set[tuple[Any, tuple[str, ...]]]:
    """What a source holds: the colour of each picture with its texts."""
    found = set()
    for sample in open_dataset(source):
        assert sample.image is not None
        with Image.open(io.BytesIO(sample.image.read())) as image:
            found.add((image.convert("RGB").getpixel((0, 0)), sample.texts))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures."""
    for colour in COLOURS:
        (tmp_path / f"{colour}.png").write_bytes(png(colour))
    return tmp_path


@pytest.mark.parametrize(
    "form", ["name", "list", "list in text", "path", "base64", "data URL", "list of base64"]
)
def test_a_picture_in_a_cell(form: str, folder: Path) -> None:
    rows = [{"images": spelt(form, one), "caption": f"a {one} one"} for one in COLOURS]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert pairs(folder / "rows.jsonl") == EXPECTED


@pytest.mark.parametrize("cell", [[], ["red.png", "blue.png"], "data:image/png;base64,iVBORw0K!"])
def test_a_cell_of_no_one_picture_is_told_shortly(cell: Any, folder: Path) -> None:
    rows = [{"image": cell, "text": "x"}, {"image": {"url": "A" * 5000}, "text": "x"}]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"is empty|lists 2 files|is no base64"):
        open_dataset(folder / "rows.jsonl")
    (folder / "rows.jsonl").write_text(json.dumps(rows[1]))
    with pytest.raises(DataError, match="must name a file") as raised:
        open_dataset(folder / "rows.jsonl")
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("others", [0, 2])
def test_parquet_with_lists_of_embedded_pictures(others: int, tmp_path: Path) -> None:
    cells = [[{"bytes": png(one), "path": f"{one}.png"}] for one in COLOURS]
    cells += [[{"bytes": b"x", "path": "x"}] * others] if others else []
    words = [f"a {one} one" for one in COLOURS] + ["x"] * (len(cells) - 2)
    pq.write_table(pa.table({"images": cells, "text": words}), tmp_path / "p.parquet")
    if not others:
        assert pairs(tmp_path / "p.parquet") == EXPECTED
    result = inspect(tmp_path / "p.parquet")
    assert result["samples"] == 2
    assert result["skipped"]["kinds"] == ({"several-pictures": 1} if others else {})


@pytest.mark.parametrize("form", ["base64", "data URL"])
def test_a_column_of_pictures_is_known_by_its_content(form: str, tmp_path: Path) -> None:
    rows = [{"scan": spelt(form, one), "title": f"a {one} one"} for one in COLOURS]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert pairs(tmp_path) == EXPECTED


def test_members_of_one_key_that_lie_apart(tmp_path: Path) -> None:
    pictures = [(f"{one}.png", png(one)) for one in COLOURS]
    words = [(f"{one}.txt", f"a {one} one".encode()) for one in COLOURS]
    meta = [(f"{one}.json", b'{"width": 4}') for one in COLOURS]
    shard = tar_file(tmp_path / "a.tar", [*pictures, *meta, *words])
    assert pairs(shard) == EXPECTED
    assert "2 keys are not adjacent" in " ".join(map(str, open_dataset(shard).notes))
    tidy = tar_file(tmp_path / "b.tar", [pictures[0], words[0], pictures[1], words[1]])
    assert not any("adjacent" in str(note) for note in open_dataset(tidy).notes)


def test_shards_joined_by_two_colons(tmp_path: Path) -> None:
    for one, name in zip(COLOURS, "ab", strict=True):
        tar_file(
            tmp_path / f"{name}.tar",
            [("0.png", png(one)), ("0.txt", f"a {one} one".encode())],
        )
    assert pairs(f"{tmp_path}/a.tar::{tmp_path}/b.tar") == EXPECTED


@pytest.mark.parametrize("form", ["txt", "caption", "json", "double", "img2dataset"])
def test_texts_in_a_file_beside_each_picture(form: str, folder: Path) -> None:
    for one in COLOURS:
        stated = json.dumps({"caption": f"a {one} one", "width": 4, "key": one})
        if form in ("json", "img2dataset"):
            (folder / f"{one}.json").write_text(stated)
        if form != "json":
            name = {"caption": f"{one}.caption", "double": f"{one}.png.TXT"}.get(form, f"{one}.txt")
            (folder / name).write_text(f"a {one} one\n")
    if form == "img2dataset":
        urls = pa.table(
            {"url": ["http://x/1", "http://x/2"], "key": ["1", "2"], "caption": ["", ""]}
        )
        pq.write_table(urls, folder / "00000.parquet")
        (folder / "00000_stats.json").write_text('{"count": 2, "successes": 2}')
    assert pairs(folder) == EXPECTED
    if form in ("json", "img2dataset"):
        assert {sample.meta["width"] for sample in open_dataset(folder)} == {4}


def test_json_beside_pictures_that_states_no_text(folder: Path) -> None:
    for one in COLOURS:  # as Google Takeout writes it
        (folder / f"{one}.png.json").write_text(json.dumps({"title": f"{one}.png"}))
    assert open_dataset(folder).format == "images"


def test_tables_come_before_files_beside_pictures(folder: Path) -> None:
    (folder / "pairs.csv").write_text("image,text\nred.png,a red one\nblue.png,a blue one\n")
    for one in COLOURS:
        (folder / f"{one}.txt").write_text("tags")
    assert pairs(folder) == EXPECTED


@pytest.mark.parametrize("form", ["llava", "sharegpt", "messages", "parts", "inline parts"])
def test_conversations(form: str, folder: Path) -> None:
    def entry(colour: str) -> dict[str, Any]:
        said = f"a {colour} one"
        if form in ("llava", "sharegpt"):
            asks, answers = ("human", "gpt") if form == "llava" else ("user", "assistant")
            turns = [{"from": asks, "value": "<image>What?"}, {"from": answers, "value": said}]
            return {"conversations": turns, "images": [f"{colour}.png"]}
        url = {"type": "image_url", "image_url": {"url": spelt("data URL", colour)}}
        content = {
            "messages": "<image>What?",
            "parts": [{"type": "image"}, {"type": "text", "text": "What?"}],
            "inline parts": [url, {"type": "text", "text": "What?"}],
        }[form]
        turns = [{"role": "user", "content": content}, {"role": "assistant", "content": said}]
        own = {} if form == "inline parts" else {"images": [f"{colour}.png"]}
        return {"messages": turns, **own}

    (folder / "talk.json").write_text(json.dumps(list(map(entry, COLOURS))))
    assert pairs(folder) == EXPECTED
    turns = open_dataset(folder)[0].labels["conversations"]
    assert [turn["from"] for turn in turns[0]] == ["human", "gpt"]
    assert turns[0][0]["value"] == "<image>What?"


def test_a_conversation_about_two_pictures_is_told(folder: Path) -> None:
    turns = [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "x"}]
    entry = {"messages": turns, "images": ["red.png", "blue.png"]}
    (folder / "talk.jsonl").write_text(json.dumps(entry))
    with pytest.raises(DataError, match="lists 2 files"):
        open_dataset(folder)


def test_images_and_texts_of_the_cauldron(tmp_path: Path) -> None:
    turns = [[{"user": "What?", "assistant": f"a {one} one", "source": "s"}] for one in COLOURS]
    images = [[{"bytes": png(one), "path": None}] for one in COLOURS]
    pq.write_table(pa.table({"images": images, "texts": turns}), tmp_path / "c.parquet")
    assert pairs(tmp_path / "c.parquet") == EXPECTED
    assert open_dataset(tmp_path / "c.parquet")[0].labels["conversations"] == [
        [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "a blue one"}]
    ]


@pytest.mark.parametrize(
    "text",
    [
        "nan",
        "None",
        "N/A",
        "-",
        "...",
        "DSC_0100.png",
        "DSC_0100",
        "nan.",
        "(none)",
        "nan nan",
        "[UNK]",
        "no_caption",
        "&nbsp;",
        "<br/>",
        "IMG_2041",
        "photos/other.JPG",
        "0 0.51 0.5 0.1 0.25",
        "？",
    ],
)
def test_texts_that_are_no_captions(text: str, folder: Path) -> None:
    (folder / "red.png").rename(folder / "DSC_0100.png")
    (folder / "p.csv").write_text(f"image,caption\nblue.png,blue\nDSC_0100.png,{text}\n")
    rows = [row for row in audit(folder, images=False).rows if row.kind == "no-caption"]
    assert [(row.row, row.severity) for row in rows] == [(3, "warning")]
    assert "1 texts are no captions" in " ".join(map(str, open_dataset(folder).notes))


@pytest.mark.parametrize(
    "text", ["cat", "7", "A", "C++", "中", "none of them", "nana", "1.5", "\U0001f600"]
)
def test_short_texts_that_are_captions(text: str, folder: Path) -> None:
    (folder / "p.csv").write_text(f"image,caption\nblue.png,{text}\n")
    assert not [row for row in audit(folder, images=False).rows if row.kind == "no-caption"]


@pytest.mark.parametrize("text", ["\u200b", "\u2800", "\ufeff\u200d", "\u3164"])
def test_texts_that_nobody_sees_are_empty(text: str, folder: Path) -> None:
    (folder / "p.csv").write_text(f"image,caption\nblue.png,\U0001f600\nred.png,{text}\n")
    with pytest.raises(DataError, match="row 3: the text is empty"):
        open_dataset(folder)


def test_base64_in_tsv_and_texts_of_chinese_clip(tmp_path: Path) -> None:
    for split, id, one in (("train", 7, "blue"), ("valid", 8, "red")):
        before = f"{id}0\t{spelt('base64', 'red')}\n"  # of another length than the next
        lines = before + f"{id}\t{spelt('base64', one)}\n"
        (tmp_path / f"{split}_imgs.tsv").write_text(lines)
        texts = [
            {"text": f"a {one} one", "image_ids": [id]},
            {"text": "a red one", "image_ids": [id * 10]},
        ]
        (tmp_path / f"{split}_texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    assert pairs(tmp_path) == EXPECTED
    assert [(one.id, one.split) for one in open_dataset(tmp_path)] == [
        ("70", "train"),
        ("7", "train"),
        ("80", "validation"),
        ("8", "validation"),
    ]
    for name in ("train_imgs.tsv", "train_texts.jsonl"):
        assert [one.id for one in open_dataset(tmp_path / name)] == ["70", "7"]
    lines = [{"text": "x", "image_ids": [9]}, {"text": "", "image_ids": [7]}, {"text": "y"}]
    (tmp_path / "train_texts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    skipped = inspect(tmp_path)["skipped"]["kinds"]
    assert skipped == {"missing-file": 1, "empty-text": 3, "missing-column": 1}


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("gbk", "一只红色的鸟站在树枝上"),
        ("big5", "一隻紅色的鳥站在樹枝上"),
        ("shift_jis", "赤い鳥が枝にとまっている"),
        ("latin-1", "un café près de la fenêtre"),
    ],
)
def test_other_encodings_are_named_and_read(encoding: str, words: str, folder: Path) -> None:
    (folder / "p.csv").write_bytes(f"image,caption\nred.png,{words}\n".encode(encoding))
    with pytest.raises(DataError, match=f"looks like {encoding}: --encoding {encoding} reads it"):
        open_dataset(folder)
    assert [one.texts for one in open_dataset(folder, encoding=encoding)] == [(words,)]
    assert inspect(folder, encoding=encoding)["examples"][0]["texts"] == [words]
    assert not [row for row in audit(folder, encoding=encoding).rows if row.severity == "error"]
    with pytest.raises(DataError, match="unknown encoding 'gkb'"):
        open_dataset(folder, encoding="gkb")


@pytest.mark.parametrize(
    "damage",
    [
        b'{"image": "a.png", "text": "a"}\n' + bytes(1 << 12),
        b"image,text\na.png,\0b\n",
        b"image,text\n" + bytes(9),
    ],
)
def test_zeros_of_damage_are_no_utf_16(damage: bytes) -> None:
    assert of_wide(damage) is None
    assert of_wide(damage[1:]) is None


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "txt"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_named_and_with_one_read(
    encoding: str, form: str, folder: Path
) -> None:
    words = "一只红色的鸟"
    content = {
        "csv": f"image,caption\nred.png,{words}\n",
        "jsonl": json.dumps({"image": "red.png", "caption": words}, ensure_ascii=False),
        "json": json.dumps([{"image": "red.png", "caption": words}], ensure_ascii=False),
        "txt": words,
    }[form]
    name = "red.txt" if form == "txt" else f"p.{form}"
    if form == "txt":  # of Chinese alone nobody could tell
        (folder / "blue.png").unlink()
        content = f"{words}, {words}\n"
    (folder / name).write_bytes(content.encode(encoding))
    with pytest.raises(DataError, match=f"looks like {encoding} without .* --encoding {encoding} "):
        open_dataset(folder)
    for stated in (encoding, "utf-16"):
        (sample,) = open_dataset(folder, encoding=stated)
        assert words in sample.texts[0]
    mark = b"\xff\xfe" if encoding == "utf-16-le" else b"\xfe\xff"
    (folder / name).write_bytes(mark + content.encode(encoding))
    assert words in open_dataset(folder)[0].texts[0]


def test_every_command_that_reads_data_takes_an_encoding(folder: Path) -> None:
    from typer.main import get_command

    from plait.api.sources import data_overrides, open_split
    from plait.cli.commands import app
    from plait.training.recipe.recipe import load_recipe
    from plait.training.run.run import opened

    top = get_command(app)
    every = {**top.commands, **top.commands["data"].commands}  # type: ignore[attr-defined]
    reading = {"inspect", "audit", "convert", "train", "compare", "compress", "evaluate", "embed"}
    for name in reading | {"index"}:
        assert "encoding" in {option.name for option in every[name].params}, name
    words = "一只红色的鸟站在树枝上"
    (folder / "p.csv").write_bytes(f"image,caption\nred.png,{words}\n".encode("gbk"))
    stated = data_overrides(None, False, "gbk")
    assert opened(load_recipe("align", stated, data=str(folder)))[0].texts == (words,)
    assert open_split(folder, "all", "fail", encoding="gbk")[0].texts == (words,)


@pytest.mark.parametrize("form", ["one line", "indented", "base64"])
def test_one_json_object_a_picture(form: str, folder: Path) -> None:
    for one in COLOURS:
        entry = {
            "image": spelt("base64" if form == "base64" else "name", one),
            "caption": f"a {one} one",
        }
        (folder / "ann").mkdir(exist_ok=True)
        text = json.dumps(entry, indent=None if form == "one line" else 2)
        (folder / "ann" / f"x{one}.json").write_text(text)
    assert (open_dataset(folder).format, pairs(folder)) == ("entries", EXPECTED)
    (folder / "ann" / "xred.json").write_text('{"image": "gone.png", "caption": "a"}')
    result = inspect(folder)
    assert (result["samples"], result["skipped"]["kinds"]) == (1, {"missing-file": 1})


def test_one_indented_object_is_a_row_of_its_own_file(folder: Path) -> None:
    (folder / "x.json").write_text(json.dumps({"image": "red.png", "caption": "a"}, indent=1))
    assert [one.texts for one in open_dataset(folder / "x.json")] == [("a",)]
    for number in range(4):
        (folder / f"{number}.png").write_bytes(png("red"))
    assert open_dataset(folder).format == "images"  # most pictures are not of that file
    told = [note["message"] for note in inspect(folder)["notes"]]
    assert told == ["x.json is not read: it is one row, and the others come from elsewhere"]


@pytest.mark.parametrize("value", ["a {} one", ["a {} one"], [{"caption": "a {} one"}]])
def test_json_beside_pictures_that_is_the_text(value: Any, folder: Path) -> None:
    for one in COLOURS:
        (folder / f"{one}.json").write_text(json.dumps(value).replace("{}", one))
    assert pairs(folder) == EXPECTED


def test_texts_beside_some_pictures_and_two_beside_one(folder: Path) -> None:
    for number in range(5):
        (folder / f"{number}.png").write_bytes(png("red"))
    (folder / "red.txt").write_text("a red one")
    (folder / "red.caption").write_text("red, tags")
    (folder / "lost.txt").write_text("of no picture")
    result = inspect(folder)
    assert (result["format"], result["samples"]) == ("sidecar", 1)
    assert result["skipped"]["kinds"] == {"empty-text": 6}
    told = {note["examples"][0]: note["kind"] for note in result["notes"]}
    assert told == {"red.caption": "unpaired-text", "lost.txt": "unpaired-text"} | {
        name: kind for name, kind in told.items() if name.endswith(".png")
    }


def test_fetched_pictures_without_captions_are_bare(tmp_path: Path) -> None:
    for number, one in enumerate(COLOURS):
        place = tmp_path / "00000" / f"{number:09}"
        place.parent.mkdir(exist_ok=True)
        place.with_suffix(".png").write_bytes(png(one))
        place.with_suffix(".json").write_text(json.dumps({"url": "http://x", "status": "success"}))
    listed = pa.table({"url": ["http://x"] * 2, "key": ["0", "1"]})
    pq.write_table(listed, tmp_path / "00000.parquet")
    result = inspect(tmp_path)
    assert (result["format"], result["samples"], result["texts"]) == ("images", 2, 0)
    told = {note["message"]: note["count"] for note in result["notes"]}
    assert told == {
        "00000.parquet is not read: it lists addresses in the web, which img2dataset fetches": 1,
        "2 files are not read (00000/000000000.json, 00000/000000001.json): "
        "it holds no text such as a caption": 2,
    }


def test_lists_of_addresses_say_how_to_fetch_them(tmp_path: Path) -> None:
    (tmp_path / "urls.txt").write_text("https://x/1.jpg\nhttps://x/2.jpg\n")
    for source in (tmp_path, tmp_path / "urls.txt"):
        with pytest.raises(DataError, match=r"img2dataset --url_list urls\.txt"):
            open_dataset(source)
    (tmp_path / "p.csv").write_text("image,caption\nhttps://x/1.jpg,a\n")
    with pytest.raises(DataError, match="is on the web: fetch the pictures first"):
        open_dataset(tmp_path / "p.csv")


def test_lists_of_one_picture_in_annotation_files(folder: Path) -> None:
    images = [{"id": n, "file_name": [f"{one}.png"]} for n, one in enumerate(COLOURS)]
    captions = [
        {"id": n, "image_id": n, "caption": f"a {one} one"} for n, one in enumerate(COLOURS)
    ]
    (folder / "c.json").write_text(json.dumps({"images": images, "annotations": captions}))
    assert pairs(folder) == EXPECTED
    images[0]["file_name"] = ["red.png", "blue.png"]
    (folder / "c.json").write_text(json.dumps({"images": images, "annotations": captions}))
    with pytest.raises(DataError, match="'file_name' lists 2 files"):
        open_dataset(folder)


def test_a_row_with_a_picture_inside_in_place_of_the_header(tmp_path: Path) -> None:
    lines = [f"{n}\t{n}\ta {one} one\t{spelt('base64', one)}" for n, one in enumerate(COLOURS)]
    (tmp_path / "ofa.tsv").write_text("\n".join(lines))
    with pytest.raises(
        DataError, match=r"starts with a row \('iVBOR.*add a line such as"
    ) as raised:
        open_dataset(tmp_path)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("picture", "text"),
    [
        ("images/{}.png", "captions/{}.txt"),
        ("data/img/a/{}.png", "data/text/a/{}.txt"),
        ("{}.png", "txt/{}.txt"),
    ],
)
def test_texts_in_a_folder_of_their_own(picture: str, text: str, tmp_path: Path) -> None:
    for one in COLOURS:
        for name, data in ((picture, png(one)), (text, f"a {one} one".encode())):
            (tmp_path / name.format(one)).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name.format(one)).write_bytes(data)
    assert pairs(tmp_path) == EXPECTED
