"""The same photographs in six formats: same samples, same splits, and training works on each.

The formats are written here by hand, without plait.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.e2e.conftest import Photos

from plait.data import open_dataset


def flickr8k(photos: Photos, folder: Path) -> Path:
    shutil.copytree(photos.folder, folder / "Images")
    with (folder / "captions.txt").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption"])
        writer.writerows((name, text) for name, texts in photos.texts.items() for text in texts)
    return folder


def karpathy(photos: Photos, folder: Path) -> Path:
    shutil.copytree(photos.folder, folder / "images")
    images = [
        {
            "filename": name,
            "imgid": number,
            "sentids": list(range(5 * number, 5 * number + 5)),
            "sentences": [
                {"raw": text, "tokens": text.split(), "imgid": number, "sentid": 5 * number + place}
                for place, text in enumerate(texts)
            ],
        }
        for number, (name, texts) in enumerate(photos.texts.items())
    ]
    document = {"dataset": "photos", "images": images}
    (folder / "dataset.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def coco(photos: Photos, folder: Path) -> Path:
    shutil.copytree(photos.folder, folder / "images")
    images, annotations = [], []
    for number, (name, texts) in enumerate(photos.texts.items()):
        images.append({"id": 1000 + number, "file_name": name})
        for text in texts:
            entry = {"id": len(annotations), "image_id": 1000 + number, "caption": text}
            annotations.append(entry)
    document = {"images": images, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def imagefolder(photos: Photos, folder: Path) -> Path:
    shutil.copytree(photos.folder, folder / "images")
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text"])
        for name, texts in photos.texts.items():
            writer.writerows((f"images/{name}", text) for text in texts)
    return folder


def parquet(photos: Photos, folder: Path) -> Path:
    names = list(photos.texts)
    images = [{"bytes": (photos.folder / name).read_bytes(), "path": name} for name in names]
    rows = pa.table({"image": images, "captions": [photos.texts[name] for name in names]})
    pq.write_table(rows, folder / "train-00000-of-00001.parquet")
    return folder


def webdataset(photos: Photos, folder: Path) -> Path:
    names = list(photos.texts)
    for shard in range(2):
        with tarfile.open(folder / f"photos-{shard:06d}.tar", "w") as tar:
            for name in names[shard::2]:
                stem = name.split(".")[0]
                members = {
                    f"{stem}.jpg": (photos.folder / name).read_bytes(),
                    f"{stem}.json": json.dumps({"captions": photos.texts[name]}).encode(),
                }
                for member, data in members.items():
                    info = tarfile.TarInfo(member)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


FORMATS = [flickr8k, karpathy, coco, imagefolder, parquet, webdataset]


@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_same_samples_and_splits(write: Callable, photos: Photos, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path = write(photos, folder)
    dataset = open_dataset(path)
    found = {sample.id: sorted(sample.texts) for sample in dataset}
    expected = {name.split(".")[0]: sorted(texts) for name, texts in photos.texts.items()}
    assert found == expected
    reference = open_dataset(imagefolder(photos, tmp_path / "reference"))
    for split in ("train", "validation", "test"):
        ids = {sample.id for sample in dataset.split(split)}
        assert ids == {sample.id for sample in reference.split(split)}
        assert ids


@pytest.mark.slow
@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_align_trains(write: Callable, photos: Photos, tmp_path: Path, plait: Callable) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path = write(photos, folder)
    result = plait("train", "align", "--data", path, "--out", tmp_path / "run", "--json").json
    assert result["retrieval"]["text_to_image"]["R@10"] >= 0
