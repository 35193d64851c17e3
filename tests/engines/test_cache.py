"""Rows come back as they went in, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.engines.cache import KEY_BYTES, MOST_FILES, CacheWarning, FeatureCache, RowStore


def key(number: int) -> bytes:
    return number.to_bytes(KEY_BYTES, "big")


def rows_of(numbers: list[int], width: int = 3) -> np.ndarray:
    return np.array([[number, number / 7, -number][:width] for number in numbers], np.float32)


def add(store: RowStore, numbers: list[int]) -> None:
    store.add([key(number) for number in numbers], rows_of(numbers))


def test_rows_survive_the_process(tmp_path: Path) -> None:
    store = RowStore(tmp_path / "a")
    assert len(store) == 0 and store.width is None and not (tmp_path / "a").exists()
    add(store, [1, 2])
    add(store, [3])
    for again in (store, RowStore(tmp_path / "a")):
        assert len(again) == 3 and again.width == 3
        assert again.find([key(3), key(9), key(1)]).tolist() == [True, False, True]
        np.testing.assert_array_equal(again.rows([key(3), key(1), key(3)]), rows_of([3, 1, 3]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sets(st.integers(0, 30), min_size=1, max_size=6), max_size=8))
def test_any_order_of_additions(tmp_path_factory: pytest.TempPathFactory, blocks: list) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = RowStore(folder)
    for block in blocks:
        add(store, sorted(block))
    known = sorted(set().union(*blocks)) if blocks else []
    again = RowStore(folder)
    assert again.find([key(n) for n in range(31)]).tolist() == [n in known for n in range(31)]
    if known:
        np.testing.assert_array_equal(again.rows([key(n) for n in known]), rows_of(known))


def test_many_small_files_become_one(tmp_path: Path) -> None:
    store = RowStore(tmp_path)
    for number in range(MOST_FILES + 1):
        add(store, [number])
    assert len(list(tmp_path.glob("*.npy"))) == 1
    numbers = list(range(MOST_FILES + 1))
    for again in (store, RowStore(tmp_path)):
        np.testing.assert_array_equal(again.rows([key(n) for n in numbers]), rows_of(numbers))


def test_two_writers(tmp_path: Path) -> None:
    left, right = RowStore(tmp_path), RowStore(tmp_path)
    add(left, [1, 2])
    add(right, [2, 3])
    assert RowStore(tmp_path).find([key(n) for n in (1, 2, 3)]).all()


@pytest.mark.parametrize("place", [2, 60, 100, -1])
def test_a_changed_byte_is_noticed(tmp_path: Path, place: int) -> None:
    store = RowStore(tmp_path)
    add(store, [1, 2])
    add(store, [3])
    damaged = sorted(tmp_path.glob("*.npy"))[0]
    data = bytearray(damaged.read_bytes())
    data[place] ^= 0x10
    damaged.write_bytes(bytes(data))
    with pytest.warns(CacheWarning, match="is damaged; it is removed"):
        again = RowStore(tmp_path)
    found = again.find([key(1), key(2), key(3)]).tolist()
    assert found in ([True, True, False], [False, False, True])
    assert not damaged.exists()
    RowStore(tmp_path)  # no warning a second time


@pytest.mark.parametrize("length", [0, 5, 130])
def test_a_file_cut_short_is_noticed(tmp_path: Path, length: int) -> None:
    add(RowStore(tmp_path), list(range(5)))
    path = next(tmp_path.glob("*.npy"))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.warns(CacheWarning):
        assert len(RowStore(tmp_path)) == 0


def test_pickled_files_are_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "x-00000000.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.warns(CacheWarning):
        assert len(RowStore(tmp_path)) == 0


def test_folders_differ_in_every_part() -> None:
    cache = FeatureCache()
    parts = ["weights", "torch", "float32", "slot"]
    folders = {cache.folder(*parts)}
    for place in range(4):
        folders.add(cache.folder(*(p + "x" if i == place else p for i, p in enumerate(parts))))
    assert len(folders) == 5


def test_passed_over(cache_home: Path) -> None:
    FeatureCache().pass_over("w", "openvino", "bfloat16")
    assert FeatureCache().is_passed_over("w", "openvino", "bfloat16")
    assert not FeatureCache().is_passed_over("w", "openvino", "float32")
    assert not FeatureCache().is_passed_over("v", "openvino", "bfloat16")


def test_taken(cache_home: Path) -> None:
    FeatureCache().take("w", "openvino", "bfloat16")
    assert FeatureCache().is_taken("w", "openvino", "bfloat16")
    assert not FeatureCache().is_taken("w", "openvino", "float32")
    assert not FeatureCache().is_passed_over("w", "openvino", "bfloat16")


def test_prune_removes_the_least_recently_used(tmp_path: Path) -> None:
    limit = 2.5 * 4000 / 2**30  # two folders of about 4,000 bytes fit, three do not
    cache = FeatureCache(tmp_path, limit=limit)
    folders = []
    for age, name in enumerate("abc"):
        store = cache.store(name, "torch", "float32")
        store.add([key(1)], np.zeros((1, 950), np.float32))
        os.utime(store.folder, (age, age))
        folders.append(store.folder)
    assert len(cache.store("a", "torch", "float32")) == 1  # used: now the youngest
    assert cache.prune(keep=folders[2]) == [folders[1]]
    assert [folder.exists() for folder in folders] == [True, False, True]
    assert cache.prune() == []
