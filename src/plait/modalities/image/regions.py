"""Regions that a detector found before: features and boxes of one picture in a file.

A file is ``.npz`` or ``.safetensors`` with arrays ``features`` (N, D), ``boxes`` (N, 4) as x1, y1,
x2, y2, and ``size`` (width, height) where boxes are in pixels; without ``size`` they are shares of
width and height. Nothing is unpickled.

Shape legend: B pictures, N regions, D features of a region.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from plait.core.batch import ModalityInput
from plait.core.errors import DataError, did_you_mean
from plait.core.files import check_weights, digest, regular
from plait.core.media import MediaRef

FEATURES = "features_of_regions"
BOXES = "boxes"
"""Names of the tensors in `ModalityInput`."""

ARRAYS = ("features", "boxes", "size")

ROUNDING = 1e-4
"""How far beyond the picture, as a share of it, a box may reach and is cut: detectors round."""


@dataclass(frozen=True)
class Regions:
    """Regions of one picture.

    Attributes:
        features: (N, D), finite.
        boxes: (N, 4) x1, y1, x2, y2 as shares of width and height, x1 < x2 and y1 < y2.
    """

    features: Float[np.ndarray, "N D"]
    boxes: Float[np.ndarray, "N 4"]


@dataclass(frozen=True)
class RegionPreprocess:
    """How a file of regions becomes inputs: read, and checked for ``width`` features."""

    width: int

    def __call__(self, path: Path) -> Regions:
        """See `read_regions`."""
        return read_regions(path, width=self.width)

    @property
    def fingerprint(self) -> str:
        """Changes with the width."""
        return digest("regions-1", str(self.width))


def read_regions(path: Path, *, width: int | None = None) -> Regions:
    """Reads and checks the regions of one picture.

    Args:
        path: a ``.npz`` or ``.safetensors`` file.
        width: features that the model takes; None accepts any.

    Raises:
        DataError: an unreadable file, a missing array, or arrays that do not fit; names the box.
    """
    if path.suffix not in _READERS:
        raise DataError(
            f"regions are read from {' and '.join(_READERS)} files, not {path.suffix or 'this'!r}",
            path=path,
        )
    try:
        arrays = _READERS[path.suffix](path)
    except FileNotFoundError as problem:
        raise DataError("there is no such file of regions", path=path) from problem
    except DataError:
        raise
    except Exception as problem:  # the libraries raise many kinds for a damaged file
        raise DataError(f"cannot be read as regions ({problem})", path=path) from problem
    return check_regions(arrays, width=width, path=path)


def check_regions(
    arrays: Mapping[str, np.ndarray], *, width: int | None = None, path: Path | None = None
) -> Regions:
    """Regions of arrays ``features``, ``boxes`` and, where boxes are pixels, ``size``.

    Args:
        arrays: see the head of this file.
        width: features that the model takes; None accepts any.
        path: for messages.

    Raises:
        DataError: says what does not fit, with the number of the box, counted from 0.
    """
    features, boxes = (_numbers(arrays[name], name, path) for name in ("features", "boxes"))
    if features.ndim != 2 or not len(features):
        raise DataError(f"features are (regions, width), not {features.shape}", path=path)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"boxes are (regions, 4): x1, y1, x2, y2; not {boxes.shape}", path=path)
    if len(features) != len(boxes):
        raise DataError(
            f"features of {len(features)} regions, but boxes of {len(boxes)}", path=path
        )
    if width is not None and features.shape[1] != width:
        raise DataError(
            f"features are {features.shape[1]} wide, and the model takes {width};"
            f" set the encoder's width to {features.shape[1]}, or extract features again",
            path=path,
        )
    for name, values in (("features", features), ("box", boxes)):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            raise DataError(f"NaN or infinity in the {name} of region {bad[0]}", path=path)
    return Regions(features.astype(np.float32), _shares(boxes, arrays.get("size"), path))


def pad_regions(pictures: Sequence[Regions | None]) -> ModalityInput:
    """One batch: ``features_of_regions`` (B, N, D), ``boxes`` (B, N, 4), zeros where padded.

    Args:
        pictures: of equally wide features; None for a sample without a picture.

    Raises:
        DataError: features of different widths, or no picture at all.
    """
    widths = {one.features.shape[1] for one in pictures if one is not None}
    if len(widths) != 1:
        found = " and ".join(map(str, sorted(widths))) or "none"
        raise DataError(f"regions of a batch need features of one width, not {found}")
    longest = max(len(one.features) for one in pictures if one is not None)
    features = torch.zeros(len(pictures), longest, widths.pop())
    boxes = torch.zeros(len(pictures), longest, 4)
    mask = torch.zeros(len(pictures), longest, dtype=torch.bool)
    for row, one in enumerate(pictures):
        if one is not None:
            count = len(one.features)
            features[row, :count] = torch.from_numpy(one.features)
            boxes[row, :count] = torch.from_numpy(one.boxes)
            mask[row, :count] = True
    present = torch.tensor([one is not None for one in pictures])
    return ModalityInput({FEATURES: features, BOXES: boxes}, present, mask)


def load_regions(
    pictures: Sequence[MediaRef],
    preprocess: RegionPreprocess,
    *,
    on_error: Callable[[int, DataError], None] | None = None,
) -> ModalityInput:
    """Inputs of a batch from the files of regions that stand beside its pictures.

    Args:
        pictures: at least one; ``a/1.jpg`` has its regions in ``a/1.npz`` or ``a/1.safetensors``.
        preprocess: what is expected.
        on_error: told of pictures without usable regions, by position; they are absent then.
            Without it the error is raised.

    Raises:
        DataError: see `read_regions`; or no usable picture at all.
    """
    found: list[Regions | None] = []
    for position, picture in enumerate(pictures):
        try:
            found.append(preprocess(regions_beside(picture)))
        except DataError as error:
            if on_error is None:
                raise
            on_error(position, error)
            found.append(None)
    return pad_regions(found)


def regions_beside(picture: MediaRef) -> Path:
    """The file of regions of a picture: its own path with another suffix.

    Raises:
        DataError: there is none, or the picture is no file of its own.
    """
    if picture.path is None:
        raise DataError(
            "is inside an archive or a table; regions are read from files beside picture files",
            path=picture.name,
        )
    known = [picture.path.with_suffix(suffix) for suffix in _READERS]
    for path in known:
        if path.is_file():
            return path
    raise DataError(
        f"no regions are beside this picture: {' or '.join(path.name for path in known)} is"
        " expected in its folder",
        path=picture.path,
    )


def _shares(boxes: np.ndarray, size: np.ndarray | None, path: Path | None) -> np.ndarray:
    """Checked boxes as shares, float32."""
    scale, unit, edge = np.ones(4), "", "1 by 1 (shares; boxes in pixels need an array 'size')"
    if size is not None:
        size = _numbers(size, "size", path)
        if size.shape != (2,) or not (np.isfinite(size).all() and (size > 0).all()):
            raise DataError(f"size is (width, height) above 0, not {size.tolist()}", path=path)
        scale, unit = np.tile(size, 2), " pixels"
        edge = f"{size[0]:g} by {size[1]:g} pixels (width by height)"
    exact = boxes / scale
    shares: np.ndarray = exact.clip(0, 1).astype(np.float32)
    for number, box in enumerate(boxes):
        values = f"x1, y1, x2, y2 = {', '.join(f'{value:g}' for value in box)}{unit}"
        if exact[number].min() < -ROUNDING or exact[number].max() > 1 + ROUNDING:
            raise DataError(
                f"box {number} reaches beyond the picture: {values}; the picture is {edge}",
                path=path,
            )
        if not (shares[number, :2] < shares[number, 2:]).all():
            raise DataError(
                f"box {number} is empty: {values}; x2 must be above x1, and y2 above y1", path=path
            )
    return shares


def _numbers(array: np.ndarray, name: str, path: Path | None) -> np.ndarray:
    if array.dtype.kind not in "fiu":
        raise DataError(f"{name} hold {array.dtype}, not numbers", path=path)
    return array.astype(np.float64)


_MOST_UNPACKED = 1 << 30


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if path.exists() and not zipfile.is_zipfile(path):
        raise DataError("is no .npz archive; write it with numpy.savez", path=path)
    with zipfile.ZipFile(path) as packed:
        unpacked = sum(entry.file_size for entry in packed.infolist())
    most = max(_MOST_UNPACKED, 20 * regular(path, None).st_size)
    if unpacked > most:
        raise DataError(f"unpacks to {unpacked:,} bytes, at most {most:,} are read", path=path)
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in _wanted(archive.files, path)}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import safe_open

    if path.exists():
        check_weights(path)
    with safe_open(path, framework="pt") as file:  # torch knows bfloat16, numpy does not
        names = _wanted(list(file.keys()), path)
        return {name: file.get_tensor(name).to(torch.float64).numpy() for name in names}


def _wanted(names: Sequence[str], path: Path) -> list[str]:
    """Those of a file's arrays that are read."""
    for name in ("features", "boxes"):
        if name not in names:
            raise DataError(
                f"has no array {name!r}, only {', '.join(sorted(names)) or 'none'}"
                f"{did_you_mean(name, names)}",
                path=path,
            )
    return [name for name in ARRAYS if name in names]


_READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
}
