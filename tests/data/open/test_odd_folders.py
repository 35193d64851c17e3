"""Folders as people really have them: each case was misread, or told in useless words, once."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from plait.api.sources import open_split
from plait.cli import data as commands
from plait.core.errors import DataError, UserError
from plait.data import inspect, open_dataset
from plait.data.audit.audit import audit
from plait.data.base.notes import as_json

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes two pictures, 1 and 2, and any files beside them."""

    def write(files: dict[str, bytes | str], ending: str = "jpg") -> Path:
        for number in (1, 2):
            Image.new("RGB", (4, 4), (90 * number, 0, 0)).save(tmp_path / f"{number}.{ending}")
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            (tmp_path / name).write_bytes(data)
        return tmp_path

    return write


def texts(folder: Path) -> dict[str, tuple[str, ...]]:
    return {sample.id: sample.texts for sample in open_dataset(folder)}


TWO = {"1": ("one",), "2": ("two",)}


@pytest.mark.parametrize(
    "content",
    [
        "image,caption\r1.jpg,one\r2.jpg,two\r",  # Excel's "CSV (Macintosh)"
        "\n\nimage,caption\n1.jpg,one\n2.jpg,two\n",
        "\r\nimage;caption\r\n1.jpg;one\r\n2.jpg;two\r\n",
        'image;"note, in short"\n1.jpg;one\n2.jpg;two\n',
        "sep=;\nimage;caption\n1.jpg;one\n2.jpg;two\n",
        "编号,图片,标题,价格\n7,1.jpg,one,10\n8,2.jpg,two,20\n",
    ],
)
def test_tables_as_spreadsheets_write_them(make: Make, content: str) -> None:
    assert texts(make({"pairs.csv": content})) == TWO


def test_a_row_in_place_of_the_header_is_not_lost_unseen(make: Make) -> None:
    folder = make({"pairs.csv": "1.jpg,one\n2.jpg,two\n"})
    with pytest.raises(DataError, match=r"starts with a row \('1.jpg'\).*add a line such as"):
        open_dataset(folder, on_bad_row="skip")
    folder = make({"pairs.csv": "", "pairs.json": '{"1.jpg": "one", "2.jpg": "two"}'})
    with pytest.raises(DataError, match=r'as a key: write a list of {"image": "1.jpg"'):
        open_dataset(folder)


def test_a_header_that_cannot_be_read_is_not_skipped(make: Make) -> None:
    folder = make({"pairs.csv": "图片,标题\nimage,caption\n1.jpg,one\n".encode("gbk")})
    with pytest.raises(DataError, match=r"pairs.csv, row 1: byte 0x.. .*save the file as UTF-8"):
        open_dataset(folder, on_bad_row="skip")


@pytest.mark.parametrize("name", ["1.jpg", "1", "1.png"])
def test_a_name_that_differs_in_case_or_ending_gets_a_hint(make: Make, name: str) -> None:
    folder = make({"pairs.csv": f"image,title\n{name},one\n"}, ending="JPG")
    with pytest.raises(DataError, match=r"there is no file .*; did you mean '1\.JPG'\?"):
        open_dataset(folder)


def test_sidecars_in_upper_case(make: Make) -> None:
    assert texts(make({"1.TXT": "one", "2.txt": "two"}, ending="JPG")) == TWO


@pytest.mark.parametrize(
    ("name", "note"),
    [
        (
            "pairs.xlsx",
            "pairs.xlsx is not read: it is no readable workbook: save it again, or as CSV (UTF-8)",
        ),
        ("pairs.zip", "pairs.zip is not read: it is packed"),
        ("pairs.csv", "pairs.csv is not read: it is empty"),
    ],
)
def test_files_beside_bare_pictures_that_are_not_read(make: Make, name: str, note: str) -> None:
    content = b"" if name == "pairs.csv" else b"PK\x03\x04"
    result = inspect(make({name: content}))
    (told,) = result["notes"]
    assert (result["format"], told["message"], told["count"]) == ("images", note, 1)


def test_every_file_is_read_or_counted_with_a_reason(make: Make) -> None:
    files = {
        "3.JXL": b"", "4.jxl": b"", "5.svg": b"<svg/>", "6.CR2": b"", "pairs.xlsx": b"PK",
        "pairs.csv": "image,caption\n1.jpg,one\n", "song.mp3": b"", "README.md": "", ".DS_Store": b"",
    }  # fmt: skip
    folder = make(files)
    (folder / "other").symlink_to(folder)
    (folder / "lost.csv").symlink_to(folder / "nowhere.csv")
    result = inspect(folder)
    notes = {
        (note["kind"], note["message"].split(":")[0]): note["count"]
        for note in result["notes"]
        if note["kind"] != "note"
    }
    assert notes == {
        ("hidden-file", ".DS_Store is not read"): 1,
        ("unnamed-picture", "2.jpg is not read"): 1,
        ("undecoded-picture", "2 files are not read (3.JXL, 4.jxl)"): 2,
        ("undecoded-picture", "5.svg is not read"): 1,
        ("undecoded-picture", "6.CR2 is not read"): 1,
        ("other-file", "README.md is not read"): 1,
        ("unread-table", "pairs.xlsx is not read"): 1,
        ("unread-table", "lost.csv is not read"): 1,
        ("unnamed-file", "song.mp3 is not read"): 1,
        ("linked-folder", "1 folders are links, which are not followed"): 1,
    }
    every = sum(path.is_file() and "other" not in path.parts for path in folder.rglob("*"))
    assert result["samples"] + sum(notes.values()) - 2 + 1 == every  # the table; not the links
    found = {finding.kind: finding for finding in audit(folder).rows}
    assert found["undecoded-picture"].severity == "warning"
    assert {kind for kind, _ in notes} - {"unnamed-picture"} <= found.keys()


def test_a_folder_name_with_other_accents_than_on_the_disk_is_found(tmp_path: Path) -> None:
    disk, stated = "U\u0308bung/cafe\u0301", "\u00dcbung/caf\u00e9"
    (tmp_path / disk).mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / disk / "1.png")
    (tmp_path / "pairs.csv").write_text(f"image,caption\n{stated}/1.png,one\n", encoding="utf-8")
    result = inspect(tmp_path)
    assert (result["samples"], result["texts"]) == (1, 1)
    assert [n["examples"] for n in result["notes"] if n["kind"] == "respelled-name"] == [
        [f"{stated}/1.png"]
    ]


def test_errors_come_with_what_was_not_read(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.JXL").write_bytes(b"")
    with pytest.raises(DataError, match=r"IMG_1\.JXL is not read: JPEG XL pictures.*convert them"):
        open_dataset(tmp_path)


def test_a_folder_of_a_zip_alone_says_so(tmp_path: Path) -> None:
    (tmp_path / "pairs.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"pairs\.zip: is packed: unpack it first"):
        open_dataset(tmp_path)


def test_an_audit_that_finds_no_sample_is_no_success(tmp_path: Path) -> None:
    rows = pa.table({"image": pa.array([], pa.string()), "text": pa.array([], pa.string())})
    pq.write_table(rows, tmp_path / "pairs.parquet")
    report = audit(tmp_path)
    assert [finding.kind for finding in report.rows] == ["unreadable-source"]
    assert report.errors == 1


def test_columns_on_the_command_line(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make({"pairs.csv": "image,caption,shop\n1.jpg,one,x\n2.jpg,two,y\n"})
    out = tmp_path.parent / f"{tmp_path.name}-out"
    commands.convert(str(folder), out, "csv", column=["text=shop"])
    assert texts(out) == {"1": ("x",), "2": ("y",)}
    commands.inspect(str(folder), column=["text=shop"])
    assert "texts from 'shop'" in capsys.readouterr().out
    with pytest.raises(UserError, match="write ROLE=COLUMN"):
        commands.audit(str(folder), column=["text"])


def test_inspect_shows_bad_rows_and_brackets_in_full(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "1.jpg,[laughs] so\nnowhere/to/be/found/in/this/folder/here.jpg,two\n"
    commands.inspect(str(make({"pairs.csv": "image,title\n" + rows})))
    shown = capsys.readouterr().out
    assert "1 missing-file" in shown
    assert "here.jpg" in shown
    assert "[laughs]" in shown


@pytest.mark.parametrize(
    "content",
    [
        ",image,caption\n0,1.jpg,one\n1,2.jpg,two\n",  # an index of pandas
        "Unnamed: 0,Unnamed: 0.1,image,caption\n0,0,1.jpg,one\n1,1,2.jpg,two\n",
        ",file,words\n0,1.jpg,one\n1,2.jpg,two\n",
        "image,caption,,\n1.jpg,one,,\n2.jpg,two,,\n",
        "image,text\n1.jpg,one,,\n2.jpg,two,\n",
        "image,caption,,\n1.jpg,one\n2.jpg,two,,\n",
    ],
)
def test_columns_without_a_name_are_ignored(make: Make, content: str) -> None:
    folder = make({"pairs.csv": content})
    assert texts(folder) == TWO
    assert [dict(sample.meta) for sample in open_dataset(folder)] == [{}, {}]
    assert not any("without a name" in str(note) for note in open_dataset(folder).notes)


def test_a_column_without_a_name_that_holds_something_is_told(make: Make) -> None:
    folder = make({"pairs.csv": "image,caption,\n1.jpg,one,x\n2.jpg,two,y\n"})
    assert texts(folder) == TWO
    assert (
        "pairs.csv: a column without a name is ignored (it holds 'x')" in open_dataset(folder).notes
    )
    folder = make({"pairs.csv": "image,\n1.jpg,one\n"})
    with pytest.raises(DataError, match="one has no name, write 'text' above it"):
        open_dataset(folder)


PAIRS = "image,text\n1.jpg,one\n2.jpg,two\n"


@pytest.mark.parametrize(
    ("files", "unread"),
    [
        (
            {"captions.csv": PAIRS, "metadata.csv": "file_name,camera,lens\n1.jpg,x,y\n"},
            "metadata.csv",
        ),
        ({"metadata.csv": PAIRS, "captions.csv": "image,caption\n1.jpg,x\n"}, "captions.csv"),
        ({"train.csv": PAIRS, "submission.csv": "file,score,rank\n1.jpg,0,1\n"}, "submission.csv"),
        ({"train.csv": PAIRS, "test.csv": "image\n1.jpg\n"}, "test.csv"),
    ],
)
def test_a_second_table_is_told(make: Make, files: dict[str, bytes | str], unread: str) -> None:
    folder = make(files)
    assert texts(folder) == TWO
    (note,) = [note for note in inspect(folder)["notes"] if note["kind"] == "unread-table"]
    (read,) = files.keys() - {unread}
    assert note["message"] == f"{unread} is not read: the rows come from {read}"


def test_two_tables_of_pairs_are_refused_or_splits(make: Make) -> None:
    folder = make({"a.csv": PAIRS, "b.csv": PAIRS})
    with pytest.raises(DataError, match=r"several tables: a.csv, b.csv: name one"):
        open_dataset(folder)
    for name in "ab":
        (folder / f"{name}.csv").unlink()
    folder = make({"train.csv": PAIRS[:21], "test.csv": "image,text\n2.jpg,two\n"})
    assert [sample.split for sample in open_dataset(folder)] == ["test", "train"]


def test_a_table_of_addresses_says_how_to_get_the_pictures(make: Make) -> None:
    folder = make({"laion.tsv": "URL\tTEXT\nhttp://x/1.jpg\tone\n"})
    with pytest.raises(
        DataError, match=r"in the web .*img2dataset .*--url_col URL --caption_col TEX"
    ):
        open_dataset(folder)


def test_errors_tell_the_files_they_come_of(make: Make) -> None:
    folder = make(
        {"pairs.csv": "image,title,split\n1.jpg,a,train\n", "test.xls": b"x", "3.svg": ""}
    )
    for split in ("validation", "test"):  # filled from train, which has one picture
        with pytest.raises(DataError, match=f"no samples in the split '{split}'") as raised:
            open_split(folder, split, "fail")
        assert "test.xls is not read: save it as XLSX or CSV" in str(raised.value)
        assert "3.svg is not read: SVG pictures" in str(raised.value)


def test_notes_are_copied_whole_and_told_by_an_audit_in_json(make: Make) -> None:
    folder = make({f"{number}.svg": "" for number in range(5)} | {"x.zip": b"x"})
    (finding,) = [one for one in audit(folder).to_json()["findings"] if "svg" in one["detail"]]
    assert finding["kind"] == "undecoded-picture"
    note = next(one for one in open_dataset(folder).notes if "svg" in one)
    for again in (copy.deepcopy(note), pickle.loads(pickle.dumps(note))):
        assert as_json(again) == as_json(note)
        assert as_json(again)["count"] == 5


def test_thumbnails_of_network_drives_are_no_photographs(make: Make) -> None:
    folder = make({})
    for place in ("@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/1.jpg", "#recycle/old.jpg"):
        (folder / place).parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / place)
    dataset = open_dataset(folder)
    assert dataset.ids == ["1", "2"]
    (note,) = dataset.notes
    assert as_json(note)["count"] == 3
    assert "hidden, or kept by a system for itself" in note


def test_a_link_to_itself_hides_no_other_file(make: Make) -> None:
    folder = make({"pairs.csv": "image,title\n1.jpg,one\n2.jpg,two\n"})
    (folder / "round.jpg").symlink_to("round.jpg")
    (folder / "inner").mkdir()
    (folder / "inner" / "3.jpg").write_bytes((folder / "1.jpg").read_bytes())
    (folder / "again").symlink_to("inner")
    assert texts(folder) == TWO
    (folder / "pairs.csv").write_text(
        "image,title\n3.jpg,three\n"
    )  # in one folder, and a link to it
    assert texts(folder) == {"3": ("three",)}


def test_notes_that_begin_with_a_bracket_stop_nothing(tmp_path: Path) -> None:
    for number in range(2):
        Image.new("RGB", (8, 8), (90 * number, 9, 9)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"picture {number}")
    (tmp_path / "more").mkdir()
    for name, words in (("notes", "[section]\na = b\n"), ("draft", "{not finished")):
        (tmp_path / "more" / f"{name}.txt").write_text(words)
    dataset = open_dataset(tmp_path)
    assert [sample.texts for sample in dataset] == [("picture 0",), ("picture 1",)]
    told = str([as_json(note) for note in dataset.notes])
    assert "notes.txt" in told and "draft.txt" in told
