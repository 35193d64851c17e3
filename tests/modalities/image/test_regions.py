"""Files of precomputed regions: what is read, and the exact message for what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from plait.core.errors import DataError
from plait.core.media import BytesRef, FileRef
from plait.modalities.image.regions import (
    RegionPreprocess,
    check_regions,
    load_regions,
    pad_regions,
    read_regions,
)

FEATURES = np.arange(6, dtype=np.float32).reshape(2, 3)
PIXELS = np.array([[0, 0, 50, 20], [25, 10, 100, 40]], dtype=np.float32)
SHARES = np.array([[0, 0, 0.5, 0.5], [0.25, 0.25, 1, 1]], dtype=np.float32)
SIZE = np.array([100, 40])


def write(path: Path, **arrays: Any) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file({name: torch.as_tensor(value) for name, value in arrays.items()}, path)
    return path


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
def test_pixels_with_size_and_shares_without_are_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, features=FEATURES, boxes=PIXELS, size=SIZE)
    found = RegionPreprocess(3)(path)
    np.testing.assert_array_equal(found.features, FEATURES)
    np.testing.assert_array_equal(found.boxes, SHARES)
    write(path, features=FEATURES, boxes=SHARES)
    np.testing.assert_array_equal(read_regions(path).boxes, SHARES)


def test_half_precision_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(
        {
            "features": torch.ones(1, 4, dtype=torch.bfloat16),
            "boxes": torch.tensor([[0.0, 0, 1, 1]]),
        },
        path,
    )
    assert read_regions(path).features.dtype == np.float32


def test_a_box_a_rounding_error_beyond_the_edge_is_cut() -> None:
    boxes = np.array([[-0.00001, 0, 0.5, 1.00001]])
    found = check_regions({"features": np.ones((1, 2)), "boxes": boxes})
    np.testing.assert_array_equal(found.boxes, np.float32([[0, 0, 0.5, 1]]))


GOOD: dict[str, np.ndarray] = {"features": FEATURES, "boxes": PIXELS, "size": SIZE}


def changed(place: tuple[int, int], value: float) -> np.ndarray:
    boxes = PIXELS.copy()
    boxes[place] = value
    return boxes


BAD = {
    "width": (
        {},
        "features are 3 wide, and the model takes 2048; set the encoder's width to 3, or extract"
        " features again",
    ),
    "outside": (
        {"boxes": changed((1, 2), 101)},
        "box 1 reaches beyond the picture: x1, y1, x2, y2 = 25, 10, 101, 40 pixels; the picture is"
        " 100 by 40 pixels (width by height)",
    ),
    "below zero": (
        {"boxes": changed((0, 1), -3)},
        "box 0 reaches beyond the picture: x1, y1, x2, y2 = 0, -3, 50, 20 pixels; the picture is"
        " 100 by 40 pixels (width by height)",
    ),
    "x2 < x1": (
        {"boxes": changed((0, 0), 60)},
        "box 0 is empty: x1, y1, x2, y2 = 60, 0, 50, 20 pixels; x2 must be above x1, and y2 above"
        " y1",
    ),
    "y2 = y1": (
        {"boxes": changed((1, 1), 40)},
        "box 1 is empty: x1, y1, x2, y2 = 25, 40, 100, 40 pixels; x2 must be above x1, and y2 above"
        " y1",
    ),
    "counts": ({"boxes": PIXELS[:1]}, "features of 2 regions, but boxes of 1"),
    "NaN box": ({"boxes": changed((1, 3), np.nan)}, "NaN or infinity in the box of region 1"),
    "NaN feature": (
        {"features": np.array([[1, 2, 3], [4, np.nan, 6]])},
        "NaN or infinity in the features of region 1",
    ),
    "flat": ({"features": FEATURES[0]}, "features are (regions, width), not (3,)"),
    "none": ({"features": FEATURES[:0]}, "features are (regions, width), not (0, 3)"),
    "five": (
        {"boxes": np.ones((2, 5))},
        "boxes are (regions, 4): x1, y1, x2, y2; not (2, 5)",
    ),
    "size": ({"size": np.array([100, 0])}, "size is (width, height) above 0, not [100.0, 0.0]"),
    "words": ({"features": np.array([["a", "b"]])}, "features hold <U1, not numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_said(tmp_path: Path, case: str) -> None:
    change, message = BAD[case]
    path = write(tmp_path / "a.npz", **(GOOD | change))
    with pytest.raises(DataError) as error:
        read_regions(path, width=2048 if case == "width" else None)
    assert str(error.value) == f"{path}: {message}"
    assert error.value.exit_code == 2


def test_pixels_without_size_are_told_what_is_missing() -> None:
    with pytest.raises(DataError, match=r"the picture is 1 by 1 \(shares; .* need an array 'size'"):
        check_regions({"features": FEATURES, "boxes": PIXELS})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file of regions"):
        read_regions(tmp_path / "none.npz")
    with pytest.raises(DataError, match="there is no such file of regions"):
        read_regions(tmp_path / "none.safetensors")
    with pytest.raises(DataError, match="has no array 'boxes', only box, features; did you mean"):
        read_regions(write(tmp_path / "a.npz", features=FEATURES, box=PIXELS))
    for name in ("b.npz", "b.safetensors"):
        (tmp_path / name).write_bytes(b"not what it says it is")
        with pytest.raises(DataError, match=r"is no \.npz archive|is no file of weights"):
            read_regions(tmp_path / name)
    with pytest.raises(DataError, match=r"from \.npz and \.safetensors files, not '\.pkl'"):
        read_regions(tmp_path / "a.pkl")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("unpickled",))

    path = tmp_path / "a.npz"
    trap = np.array([Trap()], dtype=object)
    np.savez(path, features=trap, boxes=PIXELS)
    with pytest.raises(DataError, match="allow_pickle"):
        read_regions(path)


def test_batches_are_padded_with_a_mask() -> None:
    two = check_regions(GOOD)
    one = check_regions({"features": FEATURES[1:], "boxes": SHARES[1:]})
    batch = pad_regions([one, None, two])
    assert batch.present.tolist() == [True, False, True]
    assert batch.mask is not None
    assert batch.mask.tolist() == [[True, False], [False, False], [True, True]]
    features, boxes = batch.tensors["features_of_regions"], batch.tensors["boxes"]
    assert features.tolist() == [[[3, 4, 5], [0, 0, 0]], [[0] * 3] * 2, FEATURES.tolist()]
    assert torch.equal(boxes[2], torch.from_numpy(SHARES)) and not boxes[1].any()
    wider = check_regions({"features": np.ones((1, 5)), "boxes": SHARES[1:]})
    with pytest.raises(DataError, match="features of one width, not 3 and 5"):
        pad_regions([one, wider])
    with pytest.raises(DataError, match="features of one width, not none"):
        pad_regions([None])


def test_regions_beside_pictures_are_one_batch(tmp_path: Path) -> None:
    write(tmp_path / "1.npz", **GOOD)
    write(tmp_path / "2.safetensors", features=FEATURES[1:], boxes=SHARES[1:])
    pictures = [FileRef(tmp_path / "2.jpg"), FileRef(tmp_path / "1.jpg")]
    batch = load_regions(pictures, RegionPreprocess(3))
    assert batch.mask is not None and batch.mask.tolist() == [[True, False], [True, True]]
    assert batch.tensors["features_of_regions"][1].tolist() == FEATURES.tolist()


def test_pictures_without_regions_are_named(tmp_path: Path) -> None:
    write(tmp_path / "1.npz", **GOOD)
    pictures = [
        FileRef(tmp_path / "1.jpg"),
        FileRef(tmp_path / "9.jpg"),
        BytesRef(b"", "x.tar!2.jpg"),
    ]
    with pytest.raises(DataError) as error:
        load_regions(pictures, RegionPreprocess(3))
    assert str(error.value) == (
        f"{tmp_path / '9.jpg'}: no regions are beside this picture: 9.npz or 9.safetensors is"
        " expected in its folder"
    )
    told: dict[int, str] = {}
    batch = load_regions(
        pictures, RegionPreprocess(3), on_error=lambda place, e: told.update({place: str(e)})
    )
    assert batch.present.tolist() == [True, False, False]
    assert told[2].startswith("x.tar!2.jpg: is inside an archive or a table")
    with pytest.raises(DataError, match="features are 3 wide, and the model takes 4"):
        load_regions(pictures[:1], RegionPreprocess(4))
