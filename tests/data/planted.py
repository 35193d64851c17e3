"""The same photographs with five captions each, written by hand in every format."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = [f"{1000 + number}_{number:03x}.jpg" for number in range(24)] + [
    "IMG 2.5 ünï.jpg",
    "holiday.v2.jpg",
]
WORDS = ["dog", "cat", "red", "running,", "big", '"quoted"', "beach", "two", "people's", "grass"]


def pixels(number: int, size: int = 24) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (size, size, 3), dtype=np.uint8)


def jpeg(number: int, size: int = 24) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(number, size)).save(file, "JPEG", quality=90)
    return file.getvalue()


def captions(number: int) -> list[str]:
    return [f"{WORDS[(number + k) % len(WORDS)]} caption {k}, of {number}" for k in range(5)]


def pictures(folder: Path, names: list[str] = NAMES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_bytes(jpeg(number))
    return folder


def entries() -> Iterator[tuple[int, str, list[str]]]:
    for number, name in enumerate(NAMES):
        yield number, name, captions(number)


def flickr8k_csv(root: Path) -> Path:
    pictures(root / "Images")
    lines = ["image,caption"]
    lines += [f"{name},{text}" for _, name, texts in entries() for text in texts]
    (root / "captions.txt").write_text("\n".join(lines) + "\n")
    return root


def flickr8k_csv_quoted(root: Path) -> Path:
    pictures(root / "Images")
    with (root / "captions.txt").open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_MINIMAL)
        writer.writerow(["image", "caption"])
        writer.writerows([name, text] for _, name, texts in entries() for text in texts)
    return root


def flickr8k_token(root: Path) -> Path:
    pictures(root / "Flicker8k_Dataset")
    text = root / "Flickr8k_text"
    text.mkdir()
    lines = [f"{name}#{k}\t{t}" for _, name, texts in entries() for k, t in enumerate(texts)]
    (text / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    (text / "Flickr8k.lemma.token.txt").write_text("\n".join(lines).replace("caption", "capt"))
    (text / "ExpertAnnotations.txt").write_text(f"{NAMES[0]}\t{NAMES[1]}#2\t1\t1\t1\n")
    (text / "readme.txt").write_text("Flickr8k, see the paper, and more\n")
    return root


def karpathy(root: Path) -> Path:
    pictures(root / "images")
    images = [
        {
            "filename": name,
            "imgid": number,
            "sentids": list(range(number * 5, number * 5 + 5)),
            "sentences": [
                {"raw": t, "tokens": t.split(), "imgid": number, "sentid": number * 5 + k}
                for k, t in enumerate(texts)
            ],
        }
        for number, name, texts in entries()
    ]
    (root / "dataset_mine.json").write_text(json.dumps({"images": images, "dataset": "mine"}))
    return root


def coco(root: Path) -> Path:
    pictures(root / "photos")
    (root / "annotations").mkdir()
    images = [
        {"id": 7000 - number, "file_name": name, "height": 24, "width": 24}
        for number, name, _ in entries()
    ]
    every = [
        {"id": number * 5 + k, "image_id": 7000 - number, "caption": text}
        for k in range(5)  # captions of a picture need not be neighbours
        for number, _, texts in entries()
        for text in [texts[k]]
    ]
    document = {"info": {}, "licenses": [], "images": images, "annotations": every}
    (root / "annotations" / "captions_val2017.json").write_text(json.dumps(document))
    return root


def imagefolder_jsonl(root: Path) -> Path:
    pictures(root / "data")
    lines = [
        json.dumps({"file_name": f"data/{name}", "text": texts}) for _, name, texts in entries()
    ]
    (root / "metadata.jsonl").write_text("\n".join(lines))
    return root


def imagefolder_csv(root: Path) -> Path:
    pictures(root)
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text", "id"])
        number = 0
        for _, name, texts in entries():
            for text in texts:
                number += 1
                writer.writerow([name, text, number])
    return root


def jsonl_table(root: Path) -> Path:
    pictures(root / "x" / "y")
    lines = [json.dumps({"path": f"x/y/{name}", "captions": t}) for _, name, t in entries()]
    (root / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    return root / "pairs.jsonl"


def tsv_table(root: Path) -> Path:
    folder = pictures(root / "elsewhere")
    with (root / "pairs.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["filename"] + [f"caption_{k}" for k in range(5)])
        writer.writerows([str(folder / name), *texts] for _, name, texts in entries())
    return root


def parquet_paths(root: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures(root / "images")
    rows = [{"image": f"images/{name}", "text": texts} for _, name, texts in entries()]
    pq.write_table(pa.Table.from_pylist(rows), root / "pairs.parquet")
    return root


def parquet_bytes(root: Path) -> Path:
    """As datasets' push_to_hub writes it: one row a caption, bytes with the bare name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root.mkdir(parents=True)
    rows = [
        {"image": {"bytes": jpeg(number), "path": name}, "caption": text, "image_id": number}
        for number, name, texts in entries()
        for text in texts
    ]
    table = pa.Table.from_pylist(rows)
    half = len(rows) // 2 + 1  # cuts a picture's captions apart
    pq.write_table(table.slice(0, half), root / "data-00000-of-00002.parquet", row_group_size=7)
    pq.write_table(table.slice(half), root / "data-00001-of-00002.parquet")
    return root


def webdataset_json(root: Path) -> Path:
    def members() -> Iterator[tuple[str, bytes]]:
        for number, name, texts in entries():
            yield name, jpeg(number)
            yield name.removesuffix("jpg") + "json", json.dumps({"captions": texts}).encode()

    return _tars(root, members, 2)


def webdataset_lines(root: Path) -> Path:
    def members() -> Iterator[tuple[str, bytes]]:
        for number, name, texts in entries():
            yield name, jpeg(number)
            yield name.removesuffix("jpg") + "txt", "\n".join(texts).encode()

    return _tars(root, members, 1)


def _tars(root: Path, members: Callable[[], Iterator[tuple[str, bytes]]], shards: int) -> Path:
    root.mkdir(parents=True)
    every = list(members())
    size = len(every) // shards // 2 * 2
    for shard in range(shards):
        stop = len(every) if shard == shards - 1 else (shard + 1) * size
        tar_file(root / f"pairs-{shard:06d}.tar", every[shard * size : stop])
    return root


def tar_file(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def save_to_disk(root: Path) -> Path:
    import datasets

    rows = [
        {"image": {"bytes": jpeg(number), "path": name}, "caption": texts}
        for number, name, texts in entries()
    ]
    features = datasets.Features(
        {"image": datasets.Image(), "caption": datasets.List(datasets.Value("string"))}
    )
    datasets.disable_progress_bars()
    made = datasets.Dataset.from_list(rows, features=features)
    # an indices mapping, as select and shuffle leave it
    made.select(list(range(len(rows)))[::-1]).save_to_disk(str(root))
    return root


def llava(root: Path) -> Path:
    pictures(root / "images")
    every = [
        {
            "id": f"{number}-{k}",
            "image": f"images/{name}",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is this?"},
                {"from": "gpt", "value": text},
            ],
        }
        for number, name, texts in entries()
        for k, text in enumerate(texts)
    ]
    (root / "chat.json").write_text(json.dumps(every, indent=1))
    return root


FORMS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "flickr8k csv": (flickr8k_csv, "flickr8k"),
    "flickr8k csv, quoted": (flickr8k_csv_quoted, "flickr8k"),
    "flickr8k token": (flickr8k_token, "flickr8k"),
    "karpathy": (karpathy, "karpathy"),
    "coco": (coco, "coco"),
    "imagefolder jsonl": (imagefolder_jsonl, "imagefolder"),
    "imagefolder csv": (imagefolder_csv, "imagefolder"),
    "jsonl table": (jsonl_table, "table"),
    "tsv table": (tsv_table, "table"),
    "parquet with paths": (parquet_paths, "parquet"),
    "parquet with bytes": (parquet_bytes, "parquet"),
    "webdataset, json": (webdataset_json, "webdataset"),
    "webdataset, lines": (webdataset_lines, "webdataset"),
    "save_to_disk": (save_to_disk, "huggingface"),
    "llava": (llava, "llava"),
}
