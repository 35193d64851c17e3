"""Laws of the loader: what a batch holds follows from (seed, epoch, position) alone."""

from __future__ import annotations

import io
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from plait.core.batch import Batch
from plait.core.errors import DataError, RecipeError
from plait.data.augment import build_augment
from plait.data.dataset import PairDataset
from plait.data.loader import PairLoader
from plait.data.order import all_rows, caption_of, epoch_order, shard, spread_groups
from plait.data.pixel_cache import PixelCache
from plait.data.preprocess import ImagePreprocess, TextPreprocess
from plait.data.sample import BytesRef, FileRef, Sample

IMAGES = ImagePreprocess(4)


def text_preprocess() -> TextPreprocess:
    words = ["[UNK]", "[PAD]", *(f"w{number}" for number in range(60))]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return TextPreprocess(tokenizer, 16)


PREPROCESS = {"image": IMAGES, "text": text_preprocess()}


def picture(number: int) -> BytesRef:
    buffer = io.BytesIO()
    Image.fromarray(np.full((5, 6, 3), number, np.uint8)).save(buffer, "PNG")
    return BytesRef(buffer.getvalue(), f"{number}.png")


def sample(number: int, **changes: Any) -> Sample:
    """Sample n shows grey n; its captions, n % 3 + 1 of them, are words of differing counts."""
    texts = tuple(
        " ".join([f"w{number}", *["w0"] * (number % 4), f"w{50 + caption}"])
        for caption in range(number % 3 + 1)
    )
    values: dict[str, Any] = {
        "id": f"id{number}",
        "where": f"captions.csv, row {number + 2}",
        "image": picture(number),
        "texts": texts,
        "group": f"g{number // 2}",
    }
    return Sample(**(values | changes))


def pairs(count: int = 13) -> PairDataset:
    return PairDataset([sample(number) for number in range(count)], "table")


def loader(dataset: PairDataset | None = None, **options: Any) -> PairLoader:
    return PairLoader(dataset or pairs(), PREPROCESS, **({"batch_size": 4} | options))


def rows_of(batch: Batch) -> list[tuple[Any, ...]]:
    """All that a batch says of each row, without the padding, which may differ by batch."""
    result: list[tuple[Any, ...]] = []
    for row, name in enumerate(batch.ids):
        image, text = batch.modalities["image"], batch.modalities["text"]
        assert text.mask is not None
        result.append(
            (
                name,
                int(batch.groups[row]),
                image.tensors["pixels"][row].numpy().tobytes(),
                bool(image.present[row]),
                text.tensors["ids"][row][text.mask[row]].tolist(),
                bool(text.present[row]),
                batch.meta[row]["text"],
                batch.meta[row]["where"],
            )
        )
    return result


def rows_of_epoch(some: PairLoader, number: int = 0, start: int = 0) -> list[list[tuple[Any, ...]]]:
    return [rows_of(batch) for batch in some.epoch(number, start)]


def test_a_batch_by_hand() -> None:
    (batch, rest) = loader(pairs(4), shuffle=False, texts="all", batch_size=6).epoch(0)
    assert batch.ids == ["id0", "id1", "id1", "id2", "id2", "id2"] and rest.ids == ["id3"]
    assert batch.groups.tolist() == [0, 0, 0, 1, 1, 1] and rest.groups.tolist() == [1]
    image, text = batch.modalities["image"], batch.modalities["text"]
    assert image.tensors["pixels"].dtype == torch.uint8
    assert image.tensors["pixels"].shape == (6, 3, 4, 4)
    assert image.tensors["pixels"][:, 0, 0, 0].tolist() == [0, 1, 1, 2, 2, 2]
    # w_n is id n + 2; the words of caption c of sample n are w_n, w0 n % 4 times, w_(50 + c).
    assert text.tensors["ids"].tolist() == [
        [2, 52, 1, 1], [3, 2, 52, 1], [3, 2, 53, 1], [4, 2, 2, 52], [4, 2, 2, 53], [4, 2, 2, 54]
    ]  # fmt: skip
    assert text.mask is not None and text.mask.sum(1).tolist() == [2, 3, 3, 4, 4, 4]
    assert image.present.all() and text.present.all() and image.mask is None
    assert batch.meta[1] == {"where": "captions.csv, row 3", "text": "w1 w0 w50"}


@pytest.mark.parametrize("texts", ["one", "all", "first"])
def test_an_epoch_holds_every_row_once(texts: str) -> None:
    some = loader(texts=texts)
    names = Counter(name for batch in some.epoch(0) for name in batch.ids)
    expected = {f"id{n}": n % 3 + 1 if texts == "all" else 1 for n in range(13)}
    assert names == expected
    assert some.rows == sum(expected.values()) and len(some) == -(-some.rows // 4)


options = st.fixed_dictionaries(
    {
        "texts": st.sampled_from(["one", "all", "first"]),
        "shuffle": st.booleans(),
        "drop_last": st.booleans(),
        "unique_groups": st.booleans(),
        "seed": st.integers(0, 3),
    }
)
AUGMENT = build_augment(
    {"image": [{"kind": "colour"}], "text": [{"kind": "drop_words", "probability": 0.4}]}
)


@settings(deadline=None, max_examples=20)
@given(options, st.integers(0, 4), st.integers(0, 3))
def test_resuming_gives_the_rest_of_the_epoch(
    options: dict[str, Any], epoch: int, start: int
) -> None:
    whole = rows_of_epoch(loader(augment=AUGMENT, **options), epoch)
    again = loader(augment=AUGMENT, **options)
    assert rows_of_epoch(again, epoch, start) == whole[start:]
    assert rows_of_epoch(again, epoch) == whole  # whatever was asked for before
    assert len(whole) == len(again)


@settings(deadline=None, max_examples=20)
@given(options, st.sampled_from([2, 4]), st.integers(0, 3))
def test_shards_together_are_the_batch(options: dict[str, Any], world: int, epoch: int) -> None:
    whole = rows_of_epoch(loader(augment=AUGMENT, **options), epoch)
    parts = [
        rows_of_epoch(loader(augment=AUGMENT, rank=rank, world=world, **options), epoch)
        for rank in range(world)
    ]
    assert {len(part) for part in parts} == {len(whole)}
    for position, batch in enumerate(whole):
        together = [row for part in parts for row in part[position]]
        assert together == batch
        if len(batch) == 4:
            assert {len(part[position]) for part in parts} == {4 // world}


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 5), st.integers(0, 5), st.integers(1, 9))
def test_threads_and_prefetching_change_nothing(threads: int, prefetch: int, size: int) -> None:
    plain = rows_of_epoch(loader(batch_size=size, threads=1, prefetch=0, augment=AUGMENT))
    assert plain == rows_of_epoch(
        loader(batch_size=size, threads=threads, prefetch=prefetch, augment=AUGMENT)
    )


def test_what_a_sample_gets_does_not_depend_on_its_batch() -> None:
    small = [row for batch in rows_of_epoch(loader(augment=AUGMENT), 2) for row in batch]
    large = loader(augment=AUGMENT, batch_size=13, shuffle=False)
    assert sorted(rows_of_epoch(large, 2)[0]) == sorted(small)


def test_seeds_and_epochs_give_other_orders() -> None:
    def ids(seed: int, epoch: int) -> list[str]:
        return [name for batch in loader(seed=seed).epoch(epoch) for name in batch.ids]

    orders = [tuple(ids(seed, epoch)) for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    assert len(set(orders)) == 4 and ids(0, 0) == ids(0, 0)
    assert tuple(ids(0, 0)) != tuple(f"id{n}" for n in range(13))


def test_each_caption_comes_once_before_any_comes_again() -> None:
    one = sample(2)
    for seed in range(3):
        drawn = [caption_of(one, "one", 0, seed, epoch) for epoch in range(9)]
        assert all(sorted(drawn[start : start + 3]) == [0, 1, 2] for start in (0, 3, 6))
    first = {tuple(caption_of(one, "one", 0, s, e) for e in range(3)) for s in range(60)}
    assert len(first) == 6
    assert caption_of(one, "first", 0, 0, 5) == 0 and caption_of(one, "all", 2, 0, 5) == 2


def test_absent_modalities_have_dummies() -> None:
    dataset = PairDataset([sample(1), sample(2, image=None), sample(3, texts=())], "table")
    (batch,) = loader(dataset, shuffle=False, texts="first", augment=AUGMENT).epoch(0)
    image, text = batch.modalities["image"], batch.modalities["text"]
    assert image.present.tolist() == [True, False, True]
    assert image.tensors["pixels"][1].eq(0).all()
    assert text.present.tolist() == [True, True, False]
    assert text.mask is not None and text.mask[2].tolist() == [True] + [False] * (
        text.mask.shape[1] - 1
    )
    assert batch.meta[2]["text"] is None
    (batch,) = loader(dataset, shuffle=False, texts="all", batch_size=9).epoch(0)
    assert batch.ids == ["id1", "id1", "id2", "id2", "id2", "id3"]


def test_only_asked_modalities_are_loaded() -> None:
    broken = PairDataset([sample(1, image=BytesRef(b"", "x"))], "table")
    (batch,) = PairLoader(broken, {"text": PREPROCESS["text"]}, batch_size=2).epoch(0)
    assert list(batch.modalities) == ["text"]
    (batch,) = PairLoader(pairs(2), {"image": IMAGES}, batch_size=2).epoch(0)
    assert list(batch.modalities) == ["image"] and len(batch) == 2


def planted(tmp_path: Path) -> PairDataset:
    changes: dict[int, Any] = {
        3: BytesRef(b"nothing", "images/3.png"),
        7: FileRef(tmp_path / "7.png", "images/7.png"),
    }
    return PairDataset(
        [sample(n, **({"image": changes[n]} if n in changes else {})) for n in range(13)], "table"
    )


def test_a_bad_row_stops_the_epoch_with_file_and_row(tmp_path: Path) -> None:
    before = threading.active_count()
    batches = loader(planted(tmp_path), shuffle=False).epoch(0)
    with pytest.raises(DataError) as caught:
        next(batches)
    assert str(caught.value) == (
        "captions.csv, row 5: images/3.png: is not a picture "
        "(JPEG, PNG, WebP, GIF, TIFF, BMP or another that Pillow reads)"
    )
    assert threading.active_count() == before


@pytest.mark.parametrize("texts", ["one", "all"])
def test_skipped_rows_are_left_out_and_told(tmp_path: Path, texts: str) -> None:
    some = loader(planted(tmp_path), on_bad_row="skip", texts=texts, augment=AUGMENT)
    good = loader(augment=AUGMENT, texts=texts)
    expected = [
        [row for row in rows if row[0] not in ("id3", "id7")] for rows in rows_of_epoch(good)
    ]
    assert rows_of_epoch(some) == expected
    rows_of_epoch(some, 1)
    assert sorted(some.skipped) == ["captions.csv, row 5", "captions.csv, row 9"]
    assert "7.png: cannot be read" in some.skipped["captions.csv, row 9"]


def test_a_batch_of_which_nothing_is_left_has_no_rows() -> None:
    changes = [BytesRef(b"x", "0.png"), BytesRef(b"x", "1.png"), picture(2)]
    dataset = PairDataset([sample(n, image=ref) for n, ref in enumerate(changes)], "table")
    some = loader(dataset, shuffle=False, on_bad_row="skip", batch_size=2)
    empty, rest = some.epoch(0)
    assert len(empty) == 0 and empty.modalities["image"].tensors["pixels"].shape == (0, 3, 4, 4)
    assert rest.ids == ["id2"] and len(some.skipped) == 2


def test_work_ahead_is_bounded_and_ends_with_the_reader() -> None:
    taken: set[str] = set()

    class Watched(BytesRef):
        def read(self) -> bytes:
            taken.add(self.name)
            return super().read()

    refs = [picture(n) for n in range(40)]
    dataset = PairDataset(
        [sample(n, image=Watched(ref.data, ref.name)) for n, ref in enumerate(refs)], "table"
    )
    before = threading.active_count()
    batches = loader(dataset, prefetch=2).epoch(0)
    next(batches)
    assert len(taken) <= 3 * 4
    batches.close()
    assert threading.active_count() == before and len(taken) <= 3 * 4


def test_an_image_with_several_captions_is_decoded_once_a_batch() -> None:
    counts: Counter[str] = Counter()

    class Counted(BytesRef):
        def read(self) -> bytes:
            counts[self.name] += 1
            return super().read()

    image = picture(2)
    dataset = PairDataset([sample(2, image=Counted(image.data, image.name))], "table")
    (batch,) = loader(dataset, texts="all").epoch(0)
    assert len(batch) == 3 and counts == {"2.png": 1}


def test_pixels_from_a_cache_are_the_same(tmp_path: Path) -> None:
    plain = rows_of_epoch(loader(augment=AUGMENT))
    with PixelCache(IMAGES, tmp_path) as cache:
        assert rows_of_epoch(loader(augment=AUGMENT, store=cache)) == plain
        assert len(cache) == 13
        assert rows_of_epoch(loader(augment=AUGMENT, store=cache)) == plain


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 5))
def test_groups_are_spread_where_they_can_be(groups: list[int], size: int, seed: int) -> None:
    numbers = np.array(groups, np.int64)
    order = epoch_order(len(groups), seed, 0, shuffle=True)
    spread = spread_groups(order, numbers, size)
    assert sorted(spread.tolist()) == list(range(len(groups)))
    if size == 1 or len(set(groups)) == len(groups):
        np.testing.assert_array_equal(spread, order)


def test_spreading_two_captions_each() -> None:
    rows = np.arange(40, dtype=np.int64)
    groups = rows // 2  # in order, each batch would hold every group twice
    spread = spread_groups(rows, groups, 8)
    for start in range(0, 32, 8):  # the last batch takes what is left
        assert len(set(groups[spread[start : start + 8]].tolist())) == 8


def test_unique_groups_in_the_loader() -> None:
    dataset = PairDataset([sample(n, group=f"g{n % 8}") for n in range(16)], "table")
    for batch in loader(dataset, texts="first", unique_groups=True, shuffle=False).epoch(0):
        assert len(set(batch.groups.tolist())) == 4


@given(st.integers(0, 100), st.integers(1, 9))
def test_shards_cover_a_batch(rows: int, world: int) -> None:
    parts = [list(range(rows))[shard(rows, rank, world)] for rank in range(world)]
    assert [row for part in parts for row in part] == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_rows_of_samples() -> None:
    samples = [sample(0), sample(1), sample(2, texts=())]
    assert all_rows(samples, "all").tolist() == [[0, 0], [1, 0], [1, 1], [2, -1]]
    assert all_rows(samples, "one").tolist() == [[0, 0], [1, 0], [2, -1]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch of 0 rows"),
        ({"batch_size": 5, "world": 2}, "cannot be shared evenly by 2"),
        ({"augment": {"text": AUGMENT["image"]}}, "'text' with ImageAugment does not fit"),
    ],
)
def test_unfit_settings_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        loader(**options)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="13 rows, fewer than one batch of 14"):
        loader(texts="first", batch_size=14, drop_last=True)
    with pytest.raises(DataError, match="no samples"):
        PairLoader(PairDataset([], "table"), PREPROCESS, batch_size=2)
    with pytest.raises(RecipeError, match="'audio'"):
        PairLoader(pairs(), {"audio": IMAGES}, batch_size=2)
