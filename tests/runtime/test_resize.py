"""The runtime's pixels are training's, without torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.deployment.made import jpeg, picture

from plait.modalities.image.fast_decode import decode_fast, preprocess_fast
from plait.modalities.image.preprocess import ImagePreprocess
from plait.runtime.pictures import pixels_of
from plait.runtime.resize import preprocess_exactly

VECTOR = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
needs_vector = pytest.mark.skipif(not VECTOR, reason="torch resizes otherwise on this processor")


@needs_vector
@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 120),
    st.sampled_from(["bilinear", "bicubic"]),
    st.sampled_from(["squash", "pad", "shortest"]),
    st.integers(0, 2**32 - 1),
)
def test_pixels_equal_torchs(
    height: int, width: int, size: int, interpolation: str, resize: str, seed: int
) -> None:
    preprocess = ImagePreprocess(size=size, interpolation=interpolation, resize=resize)
    if max(preprocess.resized(height, width)) > 4000:
        return  # a line of pixels, blown up
    array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = preprocess_fast(array, preprocess)
    np.testing.assert_array_equal(preprocess_exactly(array, preprocess), expected)


@needs_vector
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_large_scales_keep_every_bit(interpolation: str) -> None:
    # The weights of a far reduction have more bits than float32 sums hold: the product in halves.
    array = np.random.default_rng(0).integers(0, 256, (3000, 40, 3), dtype=np.uint8)
    preprocess = ImagePreprocess(size=8, interpolation=interpolation, resize="squash")
    expected = preprocess_fast(array, preprocess)
    np.testing.assert_array_equal(preprocess_exactly(array, preprocess), expected)


def test_files_give_the_pixels_of_training() -> None:
    preprocess = ImagePreprocess(size=32, interpolation="bicubic", crop_fraction=0.875)
    files = [
        jpeg(picture(0, 120, 90)),
        jpeg(picture(1, 50, 200), quality=30, progressive=True),
        jpeg(picture(2, 64, 64), "PNG"),
        jpeg(picture(3, 33, 44), "WEBP", lossless=True),
    ]
    found = pixels_of(files, preprocess)
    for row, data in zip(found, files, strict=True):
        expected = preprocess_fast(decode_fast(data, name="x"), preprocess)
        assert np.abs(row.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("interpolation", ["nearest", "box", "lanczos", "hamming"])
def test_other_filters_are_pillows(interpolation: str) -> None:
    preprocess = ImagePreprocess(size=16, interpolation=interpolation)
    array = picture(1, 60, 47)
    np.testing.assert_array_equal(preprocess_exactly(array, preprocess), preprocess(array))


def test_no_pictures() -> None:
    assert pixels_of([], ImagePreprocess(size=(4, 6))).shape == (0, 3, 4, 6)
