"""Augmentation: what each step does where it can be derived, and what it may not depend on."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.core.errors import RecipeError
from plait.core.random import permutation, uniform
from plait.modalities.image.augment import DropWords, ImageAugment, TextAugment, build_augment
from plait.modalities.image.augment_image import Affine, Colour, Crop, Erase, Flip

EVERYTHING: dict[str, list[dict[str, Any]]] = {
    "image": [
        {"kind": "crop", "scale": [0.3, 0.9]},
        {"kind": "flip"},
        {"kind": "colour", "hue": 0.1},
        {"kind": "affine"},
        {"kind": "erase", "probability": 0.5},
    ],
    "text": [{"kind": "drop_words", "probability": 0.3}],
}


def pictures(count: int, height: int = 24, width: int = 20) -> np.ndarray:
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, 3, height, width), dtype=np.uint8)


def image_augment() -> ImageAugment:
    augment = build_augment(EVERYTHING)["image"]
    assert isinstance(augment, ImageAugment)
    return augment


def text_augment() -> TextAugment:
    augment = build_augment(EVERYTHING)["text"]
    assert isinstance(augment, TextAugment)
    return augment


def test_numbers_are_those_of_philox() -> None:
    # The first block of Philox 4x64-10 under the key that SHA-256 of the purpose gives, by the
    # definition of Salmon et al. 2011, in plain integers. numpy's first counter is 1.
    import hashlib

    key = hashlib.sha256(b"int:3\0str:x").digest()[:16]
    k0, k1 = (int.from_bytes(key[i : i + 8], "little") for i in (0, 8))
    full, counter = 2**64, [1, 0, 0, 0]
    for _ in range(10):
        left, right = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [
            (right // full) ^ counter[1] ^ k0,
            right % full,
            (left // full) ^ counter[3] ^ k1,
            left % full,
        ]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % full, (k1 + 0xBB67AE8584CAA73B) % full
    expected = [(value >> 11) / 2**53 for value in counter]
    assert uniform(4, 3, "x").tolist() == expected


def test_numbers_are_uniform_and_belong_to_their_purpose() -> None:
    values = uniform(20_000, 0, "a")
    assert values.min() >= 0 and values.max() < 1
    counts = np.histogram(values, 10, (0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 30  # chi square, 9 degrees: p = 0.0004
    np.testing.assert_array_equal(uniform(5, 0, "a"), values[:5])
    purposes: list[tuple[int | str, ...]] = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), ("0", "a")]
    purposes += [("a", "b"), ("a\0str:b",), ("ab",)]
    firsts = [float(uniform(1, *purpose)[0]) for purpose in purposes]
    assert len(set(firsts[:5])) == 5 and firsts[5] != firsts[7]
    assert sorted(permutation(50, "p").tolist()) == list(range(50))


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(6)), st.integers(1, 5), st.integers(0, 9))
def test_pictures_do_not_depend_on_order_or_batch(order: list[int], split: int, slot: int) -> None:
    augment, images = image_augment(), pictures(6)
    keys = [f"id{index}" for index in range(6)]
    whole = augment(images, keys, seed=3, slot=slot)
    for part in (order[:split], order[split:]):
        found = augment(images[part], [keys[index] for index in part], seed=3, slot=slot)
        np.testing.assert_array_equal(found, whole[part])


def test_views_differ_by_sample_slot_and_seed() -> None:
    augment, image = image_augment(), pictures(1)[0]
    views = [
        augment.one(image, key, seed=seed, slot=slot).tobytes()
        for key, seed, slot in [("a", 0, 0), ("b", 0, 0), ("a", 1, 0), ("a", 0, 1)]
    ]
    assert len(set(views)) == 4


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 50))
def test_any_size_keeps_its_shape_and_its_input(height: int, width: int, slot: int) -> None:
    image = pictures(1, height, width)[0]
    before = image.copy()
    image.flags.writeable = False  # as from a cache
    result = image_augment().one(image, "a", seed=0, slot=slot)
    assert result.shape == image.shape and result.dtype == np.uint8
    np.testing.assert_array_equal(image, before)


def draw(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


def test_crop_by_hand() -> None:
    image = pictures(1, 8, 8)[0]
    whole = Crop(scale=(1.0, 1.0), ratio=(1.0, 1.0)).apply(image, draw(0.5, 0.5, 0.5, 0.5))
    np.testing.assert_array_equal(whole, image)
    # A quarter of the area from the lower right corner, whose four pixels are one colour each.
    blocks = np.kron(np.arange(16).reshape(4, 4), np.ones((2, 2)))[None].repeat(3, 0)
    corner = Crop(scale=(0.25, 0.25), ratio=(1.0, 1.0)).apply(
        (blocks * 10).astype(np.uint8), draw(0, 0, 0.999, 0.999)
    )
    assert corner[0, 0, 0] == 100 and corner[0, 0, -1] == 110
    assert corner[0, -1, 0] == 140 and corner[0, -1, -1] == 150


def test_flip_by_hand() -> None:
    image = pictures(1)[0]
    np.testing.assert_array_equal(Flip(0.5).apply(image, draw(0.4)), image[:, :, ::-1])
    np.testing.assert_array_equal(Flip(0.5).apply(image, draw(0.5)), image)


NO_COLOUR = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


@pytest.mark.parametrize(
    ("setting", "values", "expected"),
    [
        ({}, (0.9, 0.9, 0.9, 0.9), (200, 100, 50)),
        ({"brightness": 0.5}, (0.0, 0.5, 0.5, 0.5), (100, 50, 25)),
        # Saturation 0 is the luma: 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2.
        ({"saturation": 1.0}, (0.5, 0.5, 0.0, 0.5), (124, 124, 124)),
        # Contrast 0 is the mean luma everywhere; with one colour that is its own.
        ({"contrast": 1.0}, (0.5, 0.0, 0.5, 0.5), (124, 124, 124)),
        # A third of a circle about the grey axis takes red to green to blue to red.
        ({"hue": 1 / 3}, (0.5, 0.5, 0.5, 1.0), (50, 200, 100)),
        ({"hue": 1 / 3}, (0.5, 0.5, 0.5, 0.0), (100, 50, 200)),
        ({"brightness": 1.0, "probability": 0.5}, (0, 0, 0, 0), (200, 100, 50)),
    ],
)
def test_colour_by_hand(
    setting: dict[str, float], values: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    image = np.broadcast_to(np.array([200, 100, 50], np.uint8)[:, None, None], (3, 4, 4))
    result = Colour(**(NO_COLOUR | setting)).apply(image, draw(*values, 0.7))
    assert result[:, 0, 0].tolist() == list(expected)


def test_erase_by_hand() -> None:
    image = np.full((3, 20, 20), 9, np.uint8)
    step = Erase(1.0, area=(0.25, 0.25), ratio=(1.0, 1.0))
    result = step.apply(image, draw(0, 0, 0, 0, 0.999, 0.5))
    expected = image.copy()
    expected[:, :10, 10:] = 128
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(Erase(0.3).apply(image, draw(0.3, 0, 0, 0, 0, 0)), image)


def test_affine_by_hand() -> None:
    image = pictures(1, 20, 20)[0]
    still = {"degrees": 0.0, "shift": 0.0, "scale": (1.0, 1.0)}
    centre = (0.5, 0.5, 0.5, 0.5)
    np.testing.assert_array_equal(Affine(**still).apply(image, draw(*centre)), image)
    quarter = Affine(**(still | {"degrees": 90.0})).apply(image, draw(1.0, 0.5, 0.5, 0.5))
    clockwise = np.rot90(image, -1, axes=(1, 2))
    assert np.abs(quarter.astype(int) - clockwise).max() <= 1
    moved = Affine(**(still | {"shift": 0.1})).apply(image, draw(0.5, 0.5, 1.0, 0.0))
    expected = np.full_like(image, 255)
    expected[:, :-2, 2:] = image[:, 2:, :-2]  # two pixels to the right, two up
    assert np.abs(moved.astype(int) - expected).max() <= 1
    dot = np.zeros((3, 21, 31), np.uint8)
    dot[:, 10, 15] = 200
    half = Affine(**(still | {"scale": (2.0, 2.0)})).apply(dot, draw(*centre))
    assert half[0, 10, 15] == 200 and half[0, 10, 14] == 100 and half[0, 10, 13] == 0


@pytest.mark.parametrize("height", [20, 33])
def test_a_turn_keeps_shapes_on_pictures_that_are_not_square(height: int) -> None:
    # A disc about the centre is still a disc after a turn.
    y, x = np.mgrid[:height, :48]
    disc = ((y - (height - 1) / 2) ** 2 + (x - 23.5) ** 2 < 64) * 200
    image = np.broadcast_to(disc.astype(np.uint8), (3, height, 48))
    step = Affine(degrees=90.0, shift=0.0, scale=(1.0, 1.0), fill=0.0)
    turned = step.apply(image, draw(0.7, 0.5, 0.5, 0.5))
    inside = np.hypot(y - (height - 1) / 2, x - 23.5)
    assert (turned[0][inside < 6.5] > 190).all() and (turned[0][inside > 9.5] < 10).all()


def test_dropping_words() -> None:
    keep = DropWords(0.0)
    assert keep.apply("a  red\ncat", 0) == "a  red\ncat"
    assert keep.apply("", 0) == "" and keep.apply("  ", 0) == "  "
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    counts = np.zeros(10)
    for slot in range(400):
        kept = text_augment().one(" ".join(words), "a", seed=0, slot=slot).split()
        assert kept == [word for word in words if word in kept]
        counts += [word in kept for word in words]
    assert np.abs(counts / 400 - 0.7).max() < 0.1  # 0.1 is four standard deviations
    assert all(len(DropWords(1.0).apply("a b c", slot).split()) == 1 for slot in range(9))


def test_characters_of_chinese_texts_are_words() -> None:
    found = {DropWords(0.5).apply("红色的 cat", slot) for slot in range(60)}
    assert {"红色的 cat", "红色的", "红 cat"} & found
    assert all(set(text) <= set("红色的 cat") and text for text in found) and len(found) > 5


def test_texts_do_not_depend_on_order() -> None:
    texts, keys = ["a b c d e", "f g h i j", "k l m n o"], ["1", "2", "3"]
    whole = text_augment()(texts, keys, seed=1, slot=2)
    assert text_augment()(texts[::-1], keys[::-1], seed=1, slot=2) == whole[::-1]


def test_plain_data_round_trip() -> None:
    built = build_augment(EVERYTHING)
    plain = {modality: augment.to_json() for modality, augment in built.items()}
    again = build_augment(json.loads(json.dumps(plain)))
    assert {name: augment.fingerprint for name, augment in again.items()} == {
        name: augment.fingerprint for name, augment in built.items()
    }
    assert again["image"].steps == built["image"].steps
    fewer = build_augment({"image": EVERYTHING["image"][:2]})["image"]
    assert fewer.fingerprint != built["image"].fingerprint
    assert math.isclose(built["image"].to_json()[0]["ratio"][1], 4 / 3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"images": []}, "'images' is not known"),
        ({"image": [{"kind": "flop"}]}, "did you mean 'flip'"),
        ({"image": [{}]}, "kind '' is not one of crop"),
        ({"text": [{"kind": "crop"}]}, "kind 'crop' is not one of drop_words"),
        ({"image": [{"kind": "flip", "probabilty": 1}]}, "did you mean 'probability'"),
        ({"image": [{"kind": "flip", "probability": 2}]}, "from 0 to 1"),
        ({"image": [{"kind": "flip", "probability": True}]}, "from 0 to 1"),
        ({"image": [{"kind": "crop", "scale": [0.9, 0.1]}]}, "the smaller first"),
        ({"image": [{"kind": "crop", "scale": 0.5}]}, "two positive numbers"),
        ({"image": [{"kind": "crop", "scale": [0.5, 2]}]}, "at most 1"),
        ({"image": [{"kind": "colour", "hue": 0.7}]}, "from 0 to 0.5"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        build_augment(settings)
