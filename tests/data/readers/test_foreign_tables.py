"""Tables that somebody else wrote: what they may name, and what they may unpack to."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from plait.core.errors import DataError
from plait.data import open_dataset, stream
from plait.data.audit.audit import audit
from plait.data.readers import parquet


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    return path


def csv(folder: Path, names: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [f"{name},a text {number}" for number, name in enumerate(names)]
    (folder / "pairs.csv").write_text("\n".join(["image,text", *rows]))
    return folder / "pairs.csv"


def lines(folder: Path, names: list[str]) -> Path:
    rows = [json.dumps({"image": name, "text": "a text"}) for name in names]
    (folder / "pairs.jsonl").write_text("\n".join(rows))
    return folder / "pairs.jsonl"


def entries(folder: Path, names: list[str]) -> Path:
    (folder / "pairs.json").write_text(json.dumps([{"image": n, "text": "a"} for n in names]))
    return folder / "pairs.json"


def columns(folder: Path, names: list[str]) -> Path:
    pq.write_table(pa.table({"image": names, "text": ["a"] * len(names)}), folder / "p.parquet")
    return folder / "p.parquet"


def embedded(folder: Path, names: list[str]) -> Path:
    cells = [{"bytes": None, "path": name} for name in names]
    pq.write_table(pa.table({"image": cells, "text": ["a"] * len(names)}), folder / "p.parquet")
    return folder / "p.parquet"


def coco(folder: Path, names: list[str]) -> Path:
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    captions = [{"id": n, "image_id": n, "caption": "a"} for n in range(len(names))]
    (folder / "coco.json").write_text(json.dumps({"images": images, "annotations": captions}))
    return folder / "coco.json"


def karpathy(folder: Path, names: list[str]) -> Path:
    images = [
        {"filepath": name.rpartition("/")[0], "filename": name.rsplit("/", 1)[-1],
         "sentences": [{"raw": "a"}]} for name in names
    ]  # fmt: skip
    (folder / "k.json").write_text(json.dumps({"images": images}))
    return folder / "k.json"


def llava(folder: Path, names: list[str]) -> Path:
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a"}]
    (folder / "l.json").write_text(
        json.dumps([{"id": "1", "image": name, "conversations": turns} for name in names])
    )
    return folder / "l.json"


def flickr8k(folder: Path, names: list[str]) -> Path:
    (folder / "captions.txt").write_text("\n".join(f"{name}#0\ta text" for name in names) + "\n")
    return folder / "captions.txt"


def metadata(folder: Path, names: list[str]) -> Path:
    rows = [json.dumps({"file_name": name, "text": "a text"}) for name in names]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


FORMATS = [
    csv, lines, entries, columns, embedded, coco, karpathy, llava, flickr8k, metadata,
]  # fmt: skip


@pytest.mark.parametrize("write", FORMATS)
def test_a_table_names_files_of_its_own_folder_and_stated_ones(
    write: Callable[[Path, list[str]], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "table"
    picture(folder / "own.png")
    scan = picture(tmp_path / "private" / "scan.png")
    (folder / "link.png").symlink_to(scan)
    for outside in (str(scan), "../private/scan.png", "link.png"):
        names = ["own.png", outside]
        source = write(folder, names)
        with pytest.raises(DataError, match=r"1 row names a file outside.*--allow-outside") as info:
            open_dataset(source)
        assert f"--root {tmp_path / 'private'} " in str(info.value)
        assert len(str(info.value)) < 900
        skipped = open_dataset(source, on_bad_row="skip")
        assert [row.kind for row in skipped.skipped] == ["outside-file"]
        assert len(skipped) == 1
        for leave in ({"root": tmp_path / "private"}, {"allow_outside": True}):
            both = open_dataset(source, **leave)
            assert sum(sample.image is not None for sample in both) == 2
            assert all(sample.image.read() for sample in both if sample.image)
        with pytest.raises(DataError, match="outside the folder"):
            open_dataset(source, root=folder)
        with pytest.raises(DataError, match="outside the folder"):
            list(stream(source))


def test_all_that_lies_outside_is_counted_in_one_message(tmp_path: Path) -> None:
    places = [picture(tmp_path / "mine" / part / f"{n}.png") for part in "ab" for n in range(4)]
    source = csv(tmp_path / "table", [f"file://{place}" for place in places] + ["/etc/secret.png"])
    with pytest.raises(DataError, match="9 rows name files outside") as info:
        open_dataset(source)
    assert str(info.value).count("row ") < 8
    source = csv(tmp_path / "table", [str(place) for place in places])
    with pytest.raises(DataError, match=f"--root {tmp_path / 'mine'} lets"):
        open_dataset(source)
    assert len(open_dataset(source, root=[tmp_path / "mine" / "a", tmp_path / "mine" / "b"])) == 8
    with pytest.raises(DataError, match="4 rows name"):
        open_dataset(source, root=tmp_path / "mine" / "a")
    with pytest.raises(DataError, match="is no folder"):
        open_dataset(source, root=tmp_path / "none")
    kinds = {finding.kind for finding in audit(source, images=False).rows}
    assert "outside-file" in kinds
    assert "outside-file" not in {
        finding.kind for finding in audit(source, images=False, allow_outside=True).rows
    }


def test_what_lies_outside_is_not_even_looked_for(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    source = csv(tmp_path / "table", ["../secret/is-there.png"])
    with pytest.raises(DataError) as missing:
        open_dataset(source)
    picture(tmp_path / "secret" / "is-there.png")
    with pytest.raises(DataError) as there:
        open_dataset(source)
    assert str(missing.value) == str(there.value)


@pytest.mark.parametrize("kind", ["bare", "classes", "sidecars"])
def test_links_out_of_a_folder_of_pictures_are_refused(kind: str, tmp_path: Path) -> None:
    secret = picture(tmp_path / "secret.png")
    folder = tmp_path / "pictures"
    inner = folder / "cat" if kind == "classes" else folder
    for name in ("a", "b", "c"):
        picture(inner / f"{name}.png")
        if kind == "sidecars":
            (inner / f"{name}.txt").write_text("a text")
    (inner / "c.png").unlink()
    (inner / "c.png").symlink_to(secret)
    with pytest.raises(DataError, match="1 row names a file outside"):
        open_dataset(folder)
    assert len(open_dataset(folder, allow_outside=True)) == 3
    if kind == "sidecars":
        (tmp_path / "secret.txt").write_text("a secret")
        (inner / "a.txt").unlink()
        (inner / "a.txt").symlink_to(tmp_path / "secret.txt")
        with pytest.raises(DataError, match="2 rows name files outside"):
            open_dataset(folder)


def test_a_table_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    source = csv(tmp_path / "private", ["a.png"])
    picture(tmp_path / "folder" / "a.png")
    (tmp_path / "folder" / "pairs.csv").symlink_to(source)
    with pytest.raises(DataError, match="is a link"):
        open_dataset(tmp_path / "folder")
    assert len(open_dataset(tmp_path / "folder", root=tmp_path / "private")) == 1


def test_the_cache_of_the_hub_is_made_of_links_and_read(tmp_path: Path) -> None:
    repository = tmp_path / "datasets--a--b"
    picture(repository / "blobs" / "0123.png")
    folder = repository / "snapshots" / "abc"
    csv_path = csv(folder.parent, ["a.png"]).rename(repository / "blobs" / "4567")
    folder.mkdir(parents=True)
    (folder / "a.png").symlink_to("../../blobs/0123.png")
    (folder / "pairs.csv").symlink_to(os.path.relpath(csv_path, folder))
    assert len(open_dataset(folder)) == 1


def test_rows_that_name_no_regular_file_never_block(tmp_path: Path) -> None:
    folder = tmp_path / "table"
    source = csv(folder, ["pipe.png", "big.png"])
    os.mkfifo(folder / "pipe.png")
    with (folder / "big.png").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="is a named pipe"):
        open_dataset(source)
    opened = open_dataset(source, on_bad_row="skip")
    with pytest.raises(DataError, match="more than the"):
        opened[0].image.read()  # type: ignore[union-attr]
    os.mkfifo(folder / "more.csv")
    with pytest.raises(DataError, match="is a named pipe"):
        open_dataset(folder)
    with pytest.raises(DataError, match="is a named pipe"):
        open_dataset(folder / "more.csv")


def test_long_lines_fields_and_headers_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    path = tmp_path / "pairs.jsonl"
    with path.open("wb") as file:
        file.write(b'{"image": "a.png", "text": "a"}\n')
        file.truncate(1 << 33)  # sparse: eight gigabytes without a line's end
    with pytest.raises(DataError, match="row 2: has more than"):
        open_dataset(path)
    path = tmp_path / "pairs.csv"
    with path.open("wb") as file:
        file.write(b"image,text\n")
        file.truncate(1 << 33)
    with pytest.raises(DataError, match="row 2: has more than"):
        open_dataset(path)
    path.write_text("image,text\n" + '"\n",' * 18_000_000)
    with pytest.raises(DataError, match="has more than"):
        open_dataset(path)
    path.write_text(",".join(f"c{n}" for n in range(200_000)) + "\n")
    with pytest.raises(DataError, match="200,000 columns"):
        open_dataset(path)
    path.write_text("image,text\n" + "a/" * 1_000_000 + ",text\n")
    with pytest.raises(DataError, match="no file is called") as info:
        open_dataset(path)
    assert len(str(info.value)) < 600


@pytest.mark.parametrize("ending", ["json", "jsonl"])
@pytest.mark.parametrize("depth", [100_000, 2_000_000])
@pytest.mark.parametrize("opening", ["[", '{"image":', '[{"image":'])
def test_nesting_is_one_message(ending: str, depth: int, opening: str, tmp_path: Path) -> None:
    path = tmp_path / f"pairs.{ending}"
    path.write_text(opening * (depth // len(opening)))
    with pytest.raises(DataError, match=r"JSON|nested|holds nothing") as info:
        open_dataset(path)
    assert len(str(info.value)) < 1000


def test_parquet_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    text = "x" * 400_000
    table = pa.table({"image": ["a.png"] * 4000, "text": pa.DictionaryArray.from_arrays(
        pa.array([0] * 4000, pa.int32()), pa.array([text])
    )})  # fmt: skip
    path = tmp_path / "repeats.parquet"
    pq.write_table(table, path, store_schema=False)  # else it stays a dictionary when read
    assert path.stat().st_size < 100_000
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match="unpacks to more than"):
        open_dataset(path)
    assert pa.total_allocated_bytes() - before < 100e6
    struct = pa.StructArray.from_arrays([table["text"].chunk(0)], ["bytes"])
    pq.write_table(pa.table({"image": struct, "text": ["a"] * 4000}), path, store_schema=False)
    with pytest.raises(DataError, match="unpacks to more than"):
        open_dataset(path)
    rows = pa.table({"image": pa.nulls(5_000_000)})
    pq.write_table(rows.append_column("text", rows["image"]), path)
    with pytest.raises(DataError, match="unpacks to more than"):
        open_dataset(path)


def test_pictures_that_repeat_at_first_are_read(tmp_path: Path) -> None:
    """Arrow cannot keep such inner columns in their stored form."""
    data = [bytes([7]) * 5000] * 600 + [bytes([n % 256, n // 256]) * 2500 for n in range(2400)]
    cells = [{"bytes": one, "path": f"{n}.png"} for n, one in enumerate(data)]
    path = tmp_path / "p.parquet"
    table = pa.table({"image": cells, "text": ["a text"] * 3000})
    pq.write_table(table, path, row_group_size=2000, dictionary_pagesize_limit=100_000)
    opened = open_dataset(path)
    assert [s.image.read() for s in opened if s.image] == data


def test_parquet_that_is_merely_well_packed_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    names = [f"{number}.png" for number in range(3000)]
    for name in names:
        (tmp_path / name).touch()
    texts = [f"{'long ' * 50}{number % 7}" for number in range(3000)]
    table = pa.table({"image": names, "text": texts, "list": [["a", "b"]] * 3000})
    pq.write_table(table, tmp_path / "p.parquet", row_group_size=1100)
    assert [s.texts[0] for s in open_dataset(tmp_path / "p.parquet")] == texts
    monkeypatch.setattr(parquet, "_PIECE", 10_000)
    monkeypatch.setattr(parquet, "MOST_UNPACKED", 800_000)  # into the cache, in pieces
    monkeypatch.setattr(parquet, "MOST_RATIO", 1000)
    opened = open_dataset(tmp_path / "p.parquet")
    assert [s.texts[0] for s in opened] == texts
    assert opened[5].meta["list"] == ["a", "b"]
    assert list((tmp_path / "cache" / "arrow").iterdir())


def _header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[257:263] = b"ustar\0"
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "data",
    [
        _header(b"a.jpg", b"-2000"),
        _header(b"a.jpg", b"\x80" + b"\xff" * 11),
        _header(b"x", b"%011o" % 512, b"x") + b"0 path=a\n".ljust(512, b"\0"),
        _header(b"x", b"%011o" % 512, b"x") + b"-9 path=a\n".ljust(512, b"\0"),
        _header(b"x", b"%011o" % 512, b"x") + b"12 size=abc\n".ljust(512, b"\0"),
        _header(b"x", b"%011o" % 512, b"x") + b"10 \xff\xfe=abc\n".ljust(512, b"\0"),
        _header(b"x", b"%011o" % (1 << 21), b"L") + bytes(1 << 21),
    ],
)
@pytest.mark.timeout(20)
def test_lying_tars_end(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(data + bytes(1024))
    with pytest.raises(DataError, match="cannot be read to its end"):
        open_dataset(tmp_path / "a.tar")


def test_a_text_of_a_shard_has_a_size(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("1.jpg", b"x"), ("1.txt", bytes(17 << 20))):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    with pytest.raises(DataError, match="no text"):
        open_dataset(tmp_path / "a.tar")


def test_packed_regions_have_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from plait.modalities.image import regions
    from plait.modalities.image.regions import read_regions

    monkeypatch.setattr(regions, "_MOST_UNPACKED", 10 << 20)

    with zipfile.ZipFile(tmp_path / "r.npz", "w", zipfile.ZIP_DEFLATED) as packed:
        with packed.open("features.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": (3_000_000,)}
            )
            for _ in range(12):
                file.write(bytes(1_000_000))
        packed.writestr("boxes.npy", b"")
    with pytest.raises(DataError, match="unpacks to"):
        read_regions(tmp_path / "r.npz")


_CHILD = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from plait.cli.main import main
for path in sys.argv[1:]:
    sys.argv = ["plait", "data", "inspect", path]
    try:
        main()
    except SystemExit as end:
        print("code", end.code, flush=True)
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


def test_commands_refuse_within_four_gigabytes(tmp_path: Path) -> None:
    text = "x" * 1_000_000
    repeats = pa.DictionaryArray.from_arrays(pa.array([0] * 6000, pa.int32()), pa.array([text]))
    table = pa.table({"image": ["a.png"] * 6000, "text": repeats})
    pq.write_table(table, tmp_path / "a.parquet", store_schema=False)
    (tmp_path / "c.json").write_text("[" * 2_000_000)
    (tmp_path / "d.json").write_text('{"images":[' + "[]," * 10_000_000)
    for name in ("e.jsonl", "f.csv"):
        with (tmp_path / name).open("wb") as file:
            file.write(b"image,text\n")
            file.truncate(1 << 40)
    os.mkfifo(tmp_path / "g.csv")
    csv(tmp_path / "h", ["/etc/passwd"])
    names = sorted(str(path) for path in tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *names], capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    codes = [line for line in done.stdout.splitlines() if line.startswith("code")]
    assert codes == ["code 2"] * len(names), done.stdout + done.stderr
    assert done.stderr.count("DataError:") == len(names)
    assert int(done.stdout.split()[-1]) < 3000
