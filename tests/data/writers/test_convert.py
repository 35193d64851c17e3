"""Converting and opening again gives the same samples: a law, on random data sets."""

from __future__ import annotations

import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.data import planted

from plait.core.errors import DataError
from plait.core.media import BytesRef
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import Sample
from plait.data.open.open import open_dataset
from plait.data.writers.convert import convert
from plait.data.writers.writers import WRITERS

LETTERS = string.ascii_letters + "0123 ,.'\"[]{}<>#|;:\t-_/\\äß犬🐶"
TEXT = (
    st.text(LETTERS + "\n", min_size=1, max_size=20)
    .map(str.strip)
    .filter(lambda text: text and "<image>" not in text)
)
ID = (
    st.text("abAB1.-_ é犬~:/\\", min_size=1, max_size=10)
    .map(str.strip)
    .filter(lambda id: id and id.strip("./"))
)


Spec = tuple[str, list[tuple[str, str]], str | None, str | None, str | None]
ROW = st.tuples(
    ID,
    st.lists(st.tuples(TEXT, st.sampled_from(["en", "zh"])), min_size=1, max_size=3),
    st.sampled_from([None, "train", "validation", "test"]),
    st.sampled_from([None, "g"]),
    st.sampled_from([None, "x", "y"]),
)
ROWS = st.lists(ROW, min_size=1, max_size=4, unique_by=lambda row: row[0])


def made_of(rows: list[Spec], stated: bool, spoken: bool) -> PairDataset:
    samples = []
    for number, (id, texts, split, group, label) in enumerate(rows):
        samples.append(
            Sample(
                id,
                "made",
                BytesRef(planted.jpeg(number, size=8), f"{number}.jpg"),
                tuple(text for text, _ in texts),
                tuple(language for _, language in texts) if spoken else (),
                group,
                split if stated else None,
                labels={} if label is None else {"label": label},
            )
        )
    return PairDataset(samples, "made")


def content(dataset: PairDataset, *, one_line: bool = False) -> dict[str, object]:
    return {
        sample.id: (
            tuple(" ".join(text.split("\n")) if one_line else text for text in sample.texts),
            split,
            sample.image.read() if sample.image else None,
        )
        for sample, split in zip(dataset, dataset.splits, strict=True)
    }


def extras(dataset: PairDataset) -> dict[str, object]:
    return {sample.id: (sample.languages, sample.group, dict(sample.labels)) for sample in dataset}


@pytest.mark.parametrize("to", WRITERS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=ROWS, stated=st.booleans(), spoken=st.booleans())
def test_round_trip(to: str, rows: list[Spec], stated: bool, spoken: bool) -> None:
    dataset = made_of(rows, stated, spoken)
    with tempfile.TemporaryDirectory() as folder:
        made = convert(dataset, Path(folder) / "out", to)
        again = open_dataset(made.path)
        assert (made.samples, made.texts) == (len(dataset), dataset.texts)
        if to == "flickr8k":
            if made.lost.get("ids") or made.lost.get("groups"):
                return  # counted as lost; without them neither ids nor splits can be the same
            assert content(again) == content(dataset, one_line=True)
            return
        assert content(again) == content(dataset)
        found = extras(again)
        if to == "llava":
            for _, _, labels in found.values():
                labels.pop("conversations")
        assert found == extras(dataset)
        assert not made.lost


def test_ids_like_folders_survive(tmp_path: Path) -> None:
    """One id that no file can have: the others must not be derived anew without it."""
    picture = BytesRef(planted.jpeg(0), "x.jpg")
    samples = [Sample(id, "made", picture, (id,)) for id in ("1", "1/", "A/_")]
    for to in WRITERS:
        if to != "flickr8k":  # has no place for ids
            made = convert(PairDataset(samples, "made"), tmp_path / to, to)
            assert sorted(s.id for s in open_dataset(made.path)) == ["1", "1/", "A/_"], to


def test_chain_through_every_format(tmp_path: Path) -> None:
    """Photographs through all ten formats one after the other."""
    first = open_dataset(planted.karpathy(tmp_path / "start"))
    path = tmp_path / "start"
    for number, to in enumerate([*WRITERS, "imagefolder"]):
        path = convert(path, tmp_path / f"{number}", to).path
    last = open_dataset(path)
    assert content(last) == content(first)


def test_media_meta_and_labels_are_kept(tmp_path: Path) -> None:
    samples = [
        Sample(
            "a",
            "made",
            BytesRef(planted.jpeg(0), "x"),  # without ending: told by its bytes
            ("t",),
            media={"audio": BytesRef(b"RIFF", "y.wav")},
            labels={"answers": ["yes", "no"]},
            meta={"source": "camera", "size": 3},
        ),
        Sample("b", "made", None, ("u",), media={"audio": BytesRef(b"OggS", "z.ogg")}),
    ]
    for to in ("imagefolder", "jsonl", "parquet", "webdataset"):
        made = convert(PairDataset(samples, "made"), tmp_path / to, to)
        one, two = open_dataset(made.path)
        assert (one.id, two.id, two.image) == ("a", "b", None)
        assert one.media["audio"].read() == b"RIFF"
        assert two.media["audio"].read() == b"OggS"
        assert one.labels == {"answers": ["yes", "no"]}
        assert one.meta["source"] == "camera"
    with pytest.raises(DataError, match=r"'b' .*has no picture"):
        convert(PairDataset(samples, "made"), tmp_path / "coco", "coco")
    assert not (tmp_path / "coco").exists()
    made = convert(PairDataset(samples[:1], "made"), tmp_path / "f", "flickr8k")
    assert made.lost == {"media": 1, "labels": 1, "meta": 2}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    source = planted.jsonl_table(tmp_path / "set").parent
    target = tmp_path / "out"
    target.mkdir()
    convert(source, target, "csv")  # an empty folder is welcome
    before = (target / "pairs.csv").read_bytes()
    with pytest.raises(DataError, match="exists already"):
        convert(source, target, "csv")
    assert (target / "pairs.csv").read_bytes() == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="exists already"):
        convert(source, tmp_path / "file", "csv")


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    source = planted.jsonl_table(tmp_path / "set").parent
    dataset = open_dataset(source)
    (source / "x" / "y" / planted.NAMES[-1]).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        convert(dataset, tmp_path / "out", "coco")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]
    with pytest.raises(DataError, match="unknown format 'parqet'; did you mean 'parquet'"):
        convert(dataset, tmp_path / "out", "parqet")


def test_a_part_keeps_its_splits(tmp_path: Path) -> None:
    whole = open_dataset(planted.coco(tmp_path / "set"))
    part = whole.split("test")
    assert len(part) > 0
    again = open_dataset(convert(part, tmp_path / "out", "jsonl").path)
    assert again.splits == part.splits


def test_webdataset_of_the_library_reads_it(tmp_path: Path) -> None:
    import json

    from webdataset.tariterators import group_by_keys, tar_file_expander

    made = convert(planted.coco(tmp_path / "set"), tmp_path / "out", "webdataset")
    with (made.path / "pairs-000000.tar").open("rb") as file:
        groups = list(group_by_keys(tar_file_expander([{"url": "x", "stream": file}])))
    assert len(groups) == 26
    assert {len(json.loads(group["json"])["text"]) for group in groups} == {5}
    assert groups[3]["jpg"] == planted.jpeg(3)
