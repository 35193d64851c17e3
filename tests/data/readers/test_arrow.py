"""Parquet and Hugging Face tables: what datasets writes, large files, streaming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data import planted

from plait.core.errors import DataError
from plait.data.audit.audit import audit
from plait.data.open.open import open_dataset, stream
from plait.data.readers import parquet


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def pictures(count: int, **columns: list[Any]) -> list[dict[str, Any]]:
    return [
        {
            "image": {"bytes": planted.jpeg(number), "path": f"{number}.jpg"},
            **{name: values[number] for name, values in columns.items()},
        }
        for number in range(count)
    ]


def test_large_files_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    root = planted.parquet_bytes(tmp_path / "set")
    small = open_dataset(root)
    monkeypatch.setattr(parquet, "IN_MEMORY", 0)
    large = open_dataset(root)
    copies = sorted((tmp_path / "cache" / "arrow").iterdir())
    assert len(copies) == 2
    assert large.fingerprint == small.fingerprint
    for one, other in zip(large, small, strict=True):
        assert one.image is not None
        assert other.image is not None
        assert one.image.read() == other.image.read()
    before = [copy.stat().st_mtime_ns for copy in copies]
    open_dataset(root)
    assert [copy.stat().st_mtime_ns for copy in copies] == before


def test_faults_of_rows(tmp_path: Path) -> None:
    rows = pictures(5, text=["a", "", None, "d", "e"], split=["train", "test", "test", "x", None])
    rows += [{"image": None, "text": "f", "split": None}]
    rows += [{"image": {"bytes": None, "path": "gone.jpg"}, "text": "g", "split": None}]
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    dataset = open_dataset(path, on_bad_row="skip")
    assert dataset.ids == ["0", "4"]
    assert [(bad.kind, bad.row) for bad in dataset.skipped] == [
        ("empty-text", 2),
        ("empty-text", 3),
        ("bad-split", 4),
        ("missing-file", 6),
        ("missing-file", 7),
    ]
    assert [finding.row for finding in audit(path).rows if finding.severity == "error"] == [
        2, 3, 4, 6, 7,
    ]  # fmt: skip


def test_bytes_without_names_take_a_naming_column_or_their_content(tmp_path: Path) -> None:
    rows = [
        {"image": {"bytes": planted.jpeg(number), "path": None}, "text": "a", "filename": name}
        for number, name in enumerate(["x.jpg", "y.jpg"])
    ]
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert open_dataset(path).ids == ["x", "y"]
    pq.write_table(pa.Table.from_pylist([{**row, "filename": None} for row in rows]), path)
    import hashlib

    expected = [hashlib.sha256(planted.jpeg(number)).hexdigest()[:16] for number in (0, 1)]
    assert open_dataset(path).ids == expected
    raw = [{"jpg": planted.jpeg(0), "caption": "a"}, {"jpg": planted.jpeg(0), "caption": "b"}]
    pq.write_table(pa.Table.from_pylist(raw), path)
    [sample] = open_dataset(path)
    assert (sample.id, sample.texts) == (expected[0], ("a", "b"))


def test_missing_column(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist([{"image": "1.jpg", "number": 1}]), path)
    with pytest.raises(DataError, match=r"pairs.parquet: no column names the texts"):
        open_dataset(path)


def test_named_classes_are_texts(tmp_path: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "polar bear"])}
    )
    made = datasets.Dataset.from_list(pictures(3, label=[0, 1, 0]), features=features)
    made.save_to_disk(str(tmp_path / "set"))
    dataset = open_dataset(tmp_path / "set")
    assert [sample.texts for sample in dataset] == [("cat",), ("polar bear",), ("cat",)]
    assert dataset[1].labels == {"label": "polar bear"}
    made.to_parquet(str(tmp_path / "set.parquet"))
    assert open_dataset(tmp_path / "set.parquet")[1].texts == ("polar bear",)


def test_save_to_disk_with_splits(tmp_path: Path) -> None:
    def part(number: int) -> datasets.Dataset:
        features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
        rows = pictures(number + 1, text=["a"] * (number + 1))[number:]
        return datasets.Dataset.from_list(rows, features=features)

    made = datasets.DatasetDict(train=part(0), validation=part(1), test=part(2))
    made.save_to_disk(str(tmp_path / "set"))
    dataset = open_dataset(tmp_path / "set")
    assert dict(zip(dataset.ids, dataset.splits, strict=True)) == {
        "0": "train", "1": "validation", "2": "test",
    }  # fmt: skip
    (tmp_path / "set" / "train" / "state.json").unlink()
    with pytest.raises(DataError, match="cannot be loaded by datasets"):
        open_dataset(tmp_path / "set")


def test_hub_set_is_streamed_and_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is played by a local table; everything from load_dataset's answer on is real."""
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(pictures(4, caption=["a", "b", "", "d"])), path)
    asked = []

    def load(name: str, config: str | None, streaming: bool) -> Any:
        asked.append((name, config, streaming))
        kept = {} if streaming else {"cache_dir": str(tmp_path / "hf")}
        made = real("parquet", data_files=str(path), streaming=streaming, **kept)
        for split in made:
            made[split] = made[split].cast_column("image", datasets.Image())
        return made

    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", load)
    dataset = open_dataset("hf/someone/pictures:small", on_bad_row="skip")
    assert asked == [("someone/pictures", "small", False)]
    assert (dataset.ids, dataset.format) == (["0", "1", "3"], "huggingface")
    assert dataset[0].image is not None
    assert dataset[0].image.read() == planted.jpeg(0)
    streamed = list(stream("hf/someone/pictures", on_bad_row="skip"))
    assert asked[-1] == ("someone/pictures", None, True)
    assert [sample.id for sample in streamed] == ["0", "1", "3"]
    assert streamed[2].image is not None
    assert streamed[2].image.read() == planted.jpeg(3)


def test_unreachable_hub_is_one_sentence() -> None:
    with pytest.raises(DataError, match=r"someone/nothing could not be loaded .*save_to_disk") as e:
        open_dataset("hf/someone/nothing")
    assert "\n" not in str(e.value)
