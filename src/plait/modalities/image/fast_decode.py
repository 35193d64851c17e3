"""Decoding and resizing at several times Pillow's speed, and over several threads.

JPEGs go through torchvision's decoder, whose pixels equal Pillow's (both use libjpeg-turbo), and
every picture through torch's integer resize, whose weights are coarser than Pillow's: pixels differ by
at most one level of 255, but for fewer than one in 10,000, which differ by two. Whatever does not fit
takes the slow twin: `decode_image` and `ImagePreprocess`.

Shape legend: H, W a picture, h, w the encoder's input, n pictures.
"""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch.nn import functional

from plait.core.errors import DataError
from plait.core.media import MediaRef
from plait.modalities.image.decode import MAX_PIXELS, decode_image, open_image, orientation_of
from plait.modalities.image.exif import upright
from plait.modalities.image.levels import Levels
from plait.modalities.image.preprocess import ImagePreprocess

# What to do with a picture that cannot be used: called with its position and the error.
OnError = Callable[[int, DataError], None]


@runtime_checkable
class PixelStore(Protocol):
    """Where finished pixels are kept (see `plait.modalities.image.pixel_cache`)."""

    def get(self, ref: MediaRef) -> np.ndarray | None:
        """The pixels (3, h, w) of a picture, or None when they are not kept."""

    def put(self, ref: MediaRef, pixels: np.ndarray) -> None:
        """Keeps the pixels of a picture."""


def decode_fast(
    data: bytes, *, name: str, max_pixels: int = MAX_PIXELS, levels: Levels | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """The same as `decode_image`, same errors included; JPEGs in three quarters of the time."""
    decoder = _jpeg_decoder()
    if decoder is None or not data.startswith(b"\xff\xd8\xff"):
        return decode_image(data, name=name, max_pixels=max_pixels, levels=levels)
    with open_image(data, name=name, max_pixels=max_pixels) as image:
        if image.format not in ("JPEG", "MPO") or image.mode != "RGB":
            return decode_image(data, name=name, max_pixels=max_pixels)
        orientation, (width, height) = orientation_of(image), image.size
    try:
        # A copy: torch warns of memory that it may not write to.
        tensor = decoder(torch.frombuffer(bytearray(data), dtype=torch.uint8), 0, False)
    except RuntimeError:  # damaged: Pillow says what is wrong, or manages all the same
        return decode_image(data, name=name, max_pixels=max_pixels)
    if tuple(tensor.shape) != (3, height, width):
        return decode_image(data, name=name, max_pixels=max_pixels)
    return upright(tensor.numpy().transpose(1, 2, 0), orientation)


def preprocess_fast(
    array: UInt8[np.ndarray, "H W 3"], preprocess: ImagePreprocess
) -> UInt8[np.ndarray, "3 h w"]:
    """The same as ``preprocess(array)``, up to rounding (see the head of this file)."""
    size = preprocess.resized(*array.shape[:2])
    if size == array.shape[:2] or not _resizes_natively(preprocess.interpolation):
        return preprocess(array)
    if not array.flags.writeable:
        array = array.copy()  # torch warns of memory that it may not write to
    # Strides that say "channels last" even for a batch of one: the kernel is fastest so, and
    # leaves its result in the same layout.
    height, width = array.shape[:2]
    source = torch.from_numpy(np.ascontiguousarray(array)).as_strided(
        (1, 3, height, width), (3 * height * width, 1, 3 * width, 3)
    )
    resized = functional.interpolate(
        source, size=size, mode=preprocess.interpolation, antialias=True, align_corners=False
    )
    cropped = preprocess.crop(resized[0].permute(1, 2, 0).numpy())
    return np.ascontiguousarray(cropped.transpose(2, 0, 1))


def read_pixels(
    ref: MediaRef,
    preprocess: ImagePreprocess,
    *,
    store: PixelStore | None = None,
    max_pixels: int = MAX_PIXELS,
) -> UInt8[np.ndarray, "3 h w"]:
    """The pixels of one picture for an encoder, from ``store`` where it has them.

    Raises:
        DataError: the file is missing, or is no picture that can be used.
    """
    known = None if store is None else store.get(ref)
    if known is not None:
        return known
    array = decode_fast(ref.read(), name=ref.name, max_pixels=max_pixels, levels=preprocess.levels)
    pixels = preprocess_fast(array, preprocess)
    if store is not None:
        store.put(ref, pixels)
    return pixels


def iter_pixels(
    refs: Iterable[MediaRef],
    preprocess: ImagePreprocess,
    *,
    threads: int = 2,
    ahead: int = 64,
    on_error: OnError | None = None,
    store: PixelStore | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[UInt8[np.ndarray, "3 h w"] | None]:
    """Yields the pixels of each picture in order, decoded ahead of the consumer in threads.

    Args:
        refs: taken one by one, never more than ``ahead`` beyond what was consumed.
        preprocess: of the encoder.
        threads: that decode; Pillow and torch let other Python threads run meanwhile.
        ahead: the most pictures decoded or being decoded and not yet consumed.
        on_error: called for an unusable picture, in the consumer's thread and in order; None is
            then yielded in its place. Without it the error is raised.
        store: looked up first, and filled.
        max_pixels: see `decode_image`.

    Raises:
        DataError: a picture is unusable and ``on_error`` is None.
    """

    def job(ref: MediaRef) -> np.ndarray:
        return read_pixels(ref, preprocess, store=store, max_pixels=max_pixels)

    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    remaining = iter(refs)
    try:
        waiting: deque[Future[np.ndarray]] = deque(
            pool.submit(job, ref) for ref in islice(remaining, max(1, ahead))
        )
        position = 0
        while waiting:
            done = waiting.popleft()
            try:
                pixels: np.ndarray | None = done.result()
            except DataError as error:
                if on_error is None:
                    raise
                on_error(position, error)
                pixels = None
            waiting.extend(pool.submit(job, ref) for ref in islice(remaining, 1))
            yield pixels
            position += 1
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def pixel_batches(
    refs: Iterable[MediaRef], preprocess: ImagePreprocess, *, batch_size: int, **options: Any
) -> Iterator[tuple[list[int], UInt8[np.ndarray, "n 3 h w"]]]:
    """Yields (positions in ``refs``, pixels) of ``batch_size`` usable pictures at a time.

    Takes the options of `iter_pixels`. Decoding goes on while the consumer works on a batch.
    """
    options.setdefault("ahead", 2 * batch_size)
    positions: list[int] = []
    rows: list[np.ndarray] = []
    for position, pixels in enumerate(iter_pixels(refs, preprocess, **options)):
        if pixels is None:
            continue
        positions.append(position)
        rows.append(pixels)
        if len(rows) == batch_size:
            yield positions, np.stack(rows)
            positions, rows = [], []
    if rows:
        yield positions, np.stack(rows)


def load_pixels(
    refs: Sequence[MediaRef], preprocess: ImagePreprocess, **options: Any
) -> UInt8[np.ndarray, "n 3 h w"]:
    """All pictures at once; takes the options of `iter_pixels`.

    Unusable pictures are left out when ``on_error`` is given (it learns their positions).
    """
    height, width = preprocess.size_2d
    result = np.empty((len(refs), 3, height, width), np.uint8)
    count = 0
    for pixels in iter_pixels(refs, preprocess, **options):
        if pixels is not None:
            result[count] = pixels
            count += 1
    return result[:count]


@cache
def _jpeg_decoder() -> Callable[..., torch.Tensor] | None:
    """Torchvision's JPEG decoder, or None in a build without it.

    The operator itself: the function around it is deprecated, and warns at every call.
    """
    if not _load_operators():
        import torchvision.io  # noqa: F401  loads them, after all of its models

    try:
        return torch.ops.image.decode_jpeg
    except (AttributeError, RuntimeError):
        return None


@cache
def _resizes_natively(interpolation: str) -> bool:
    """Whether torch resizes uint8 by this filter with Pillow's arithmetic on this machine."""
    vector = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return vector and interpolation in ("bilinear", "bicubic")


def _load_operators() -> bool:
    """Loads torchvision's image operators without its Python package, which takes seconds."""
    spec = importlib.util.find_spec("torchvision")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        for name in ("image_stable.so", "image.so"):  # from 0.29 on, before
            file = Path(place) / name
            if file.exists():
                torch.ops.load_library(file)
                return True
    return False
