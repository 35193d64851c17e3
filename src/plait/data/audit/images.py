"""Pictures: damaged, too large, in there twice, and in two splits.

A picture is reduced to 128 bits (is it brighter to the right, and below, on a 9 x 9 grid) and to
8 x 8 colours. Two pictures are near duplicates when few bits and little colour differ: scaled,
recompressed and slightly retouched copies do; other photographs of the same scene mostly do not.
"""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from plait.core import progress
from plait.core.errors import DataError
from plait.core.media import MediaRef
from plait.data.audit.rows import Audited, Finding
from plait.modalities.image.decode import (
    MAX_PIXELS,
    UNTOLD,
    Deep,
    deep_of,
    open_image,
    orientation_of,
    to_rgb,
    used_range,
)
from plait.modalities.image.exif import upright
from plait.modalities.image.levels import narrow_share
from plait.modalities.image.whole import with_end

BITS = 10
"""Of 128: near duplicates differ in at most this many."""
COLOUR = 6.0
"""Of 255: and by at most this much, in the mean over the 8 x 8 colours."""
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)

__all__ = ["MAX_PIXELS", "Look", "image_findings", "look", "near_pairs", "near_to"]


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a picture tells.

    Attributes:
        problem: kind and words of what is wrong, or None.
        sha: SHA-256 of the file's bytes, empty when they cannot be read.
        bits: (16,) uint8, 128 bits.
        colours: (192,) uint8, 8 x 8 RGB.
        note: what is odd about a picture that can be used, or empty.
        narrow: in which few of its values a picture of more than 8 bits is, in words, or empty.
    """

    problem: tuple[str, str] | None
    sha: bytes = b""
    bits: np.ndarray | None = None
    colours: np.ndarray | None = None
    note: str = ""
    narrow: str = ""


def look(ref: MediaRef, max_pixels: int = MAX_PIXELS) -> Look:
    """Reads a picture once; more than ``max_pixels`` by the header are not decoded."""
    sha, note, narrow = b"", "", ""
    try:
        data = ref.read()
        sha = hashlib.sha256(data).digest()
        image = open_image(data, name=ref.name, max_pixels=sys.maxsize)
        width, height = image.size
        if width * height > max_pixels:
            problem = f"{width} x {height} = {width * height:,} pixels, limit {max_pixels:,}"
            return Look(("size-bomb", problem), sha)
        deep = deep_of(image, data)
        try:
            small = _small(image, deep)
            narrow = _narrow(image, deep)
        except OSError:
            whole = with_end(data)
            if whole is None:
                raise
            note = "the JPEG lacks its end marker; all its pixels are there"
            small = _small(open_image(whole, name=ref.name, max_pixels=max_pixels))
    except DataError as error:
        return Look(("unreadable", error.problem), sha)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise almost anything on damaged content
        return Look(("unreadable", f"truncated or damaged: {error}"), sha)
    return Look(None, sha, *_summary(small), note, narrow)


def _narrow(image: Image.Image, deep: Deep) -> str:
    """What to tell of a picture of more than 8 bits that uses few of its values."""
    found = used_range(image, deep)
    if found is None:
        return ""
    least, greatest, black, white = found
    share = narrow_share(found)
    if share is None:
        return ""
    percent = f"{100 * share:.0f}" if share >= 0.01 else f"{100 * share:.1g}"
    return (
        f"uses {percent}% of its range ({least:,.6g} to {greatest:,.6g} of {black:,.6g} to "
        f"{white:,.6g}), and is dark or flat to a model: data.levels of a recipe stretches it"
    )


def _small(image: Image.Image, deep: Deep = UNTOLD) -> Image.Image:
    image.draft("RGB", (72, 72))  # JPEG decodes to an eighth for a fraction of the time
    image.load()
    return Image.fromarray(upright(to_rgb(image, deep=deep), orientation_of(image)))


def _summary(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    gray = np.asarray(image.convert("L").resize((9, 9), Image.Resampling.BOX)).astype(np.int16)
    # two levels of margin, so that the noise of JPEG in flat areas is no pattern
    right = gray[:8, 1:] - gray[:8, :-1] > 2
    below = gray[1:, :8] - gray[:-1, :8] > 2
    bits = np.packbits(np.concatenate([right.ravel(), below.ravel()]))
    return bits, np.asarray(image.resize((8, 8), Image.Resampling.BOX)).reshape(-1)


def image_findings(audited: Audited, max_pixels: int, threads: int = 4) -> Iterator[Finding]:
    """Everything about pictures: see the table in `plait.data.audit.audit`."""
    refs = {  # all questions about a picture share one: look once
        id(sample.image): (number, sample.image)
        for number, sample in reversed(list(enumerate(audited.samples)))
        if sample.image is not None
    }
    first = sorted(refs.values(), key=lambda one: one[0])
    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(lambda one: look(one[1], max_pixels), first)
        looks = list(progress.track(results, "Looking at pictures", len(first)))
    good: list[tuple[int, Look]] = []
    for (number, ref), seen in zip(first, looks, strict=True):
        if seen.problem is not None:
            place, id_ = audited.places[number][0], audited.samples[number].id
            yield Finding(seen.problem[0], "error", *place, id_, f"{ref.name}: {seen.problem[1]}")
        if seen.note:
            place, id_ = audited.places[number][0], audited.samples[number].id
            yield Finding("no-end-marker", "note", *place, id_, f"{ref.name}: {seen.note}")
        if seen.narrow:
            place, id_ = audited.places[number][0], audited.samples[number].id
            yield Finding("narrow-range", "warning", *place, id_, f"{ref.name} {seen.narrow}")
        if seen.bits is not None:
            good.append((number, seen))
    yield from _duplicates(audited, good)


def _duplicates(audited: Audited, good: Sequence[tuple[int, Look]]) -> Iterator[Finding]:
    by_content: dict[bytes, list[int]] = defaultdict(list)
    for number, seen in good:
        by_content[seen.sha].append(number)
    for same in by_content.values():
        for number in same[1:]:
            yield from _pair(audited, same[0], number, exact=True)
    looks = dict(good)
    firsts = [(same[0], looks[same[0]]) for same in by_content.values()]
    if len(firsts) < 2:
        return
    bits = np.stack([seen.bits for _, seen in firsts if seen.bits is not None])
    colours = np.stack([seen.colours for _, seen in firsts if seen.colours is not None])
    reported: dict[int, set[bool]] = defaultdict(set)
    for left, right in near_pairs(bits, colours):
        one, other = firsts[left][0], firsts[right][0]
        across = audited.splits[one] != audited.splits[other]
        if across not in reported[other]:  # one finding of each kind for a picture is enough
            reported[other].add(across)
            yield from _pair(audited, one, other, exact=False)


def _pair(audited: Audited, one: int, other: int, *, exact: bool) -> Iterator[Finding]:
    left, right = audited.samples[one], audited.samples[other]
    if left.group_key == right.group_key and audited.splits[one] == audited.splits[other]:
        return  # told to show the same thing
    assert left.image is not None
    assert right.image is not None
    same = "is the same picture as" if exact else "is almost the same picture as"
    detail = f"{right.image.name} {same} {left.image.name} [{left.id}] ({left.where})"
    place = audited.places[other][0]
    if audited.splits[one] != audited.splits[other]:
        detail += f": one is in {audited.splits[one]}, the other in {audited.splits[other]}"
        kind = "leakage" if exact else "near-leakage"
        yield Finding(kind, "error" if exact else "warning", *place, right.id, detail)
    else:
        kind = "duplicate-image" if exact else "near-duplicate"
        yield Finding(kind, "warning", *place, right.id, detail)


def near_pairs(
    bits: np.ndarray, colours: np.ndarray, most_bits: int = BITS, most_colour: float = COLOUR
) -> list[tuple[int, int]]:
    """All pairs i < j of near duplicates, sorted.

    Two 128-bit words that differ in at most k bits agree in one of k + 1 bands (there are more
    bands than differences), so that only words that share a band are compared.

    Args:
        bits: (n, 16) uint8.
        colours: (n, C) uint8.
        most_bits: how many bits may differ.
        most_colour: how much the colours may differ in the mean.
    """
    every = np.unpackbits(bits, axis=1)
    pairs: set[tuple[int, int]] = set()
    for band in np.array_split(np.arange(every.shape[1]), most_bits + 1):
        keys = every[:, band].astype(np.int64) @ (1 << np.arange(len(band)))
        order = np.argsort(keys, kind="stable")
        edges = np.flatnonzero(np.diff(keys[order])) + 1
        for bucket in np.split(order, edges):
            if len(bucket) > 1:
                pairs |= _compare(bucket, bits, colours, most_bits, most_colour)
    return sorted(pairs)


def near_to(
    word: np.ndarray,
    colour: np.ndarray,
    bits: np.ndarray,
    colours: np.ndarray,
    most_bits: int = BITS,
    most_colour: float = COLOUR,
) -> np.ndarray:
    """Which pictures are near duplicates of one, as positions: see `near_pairs`.

    Args:
        word: (16,) uint8, the bits of the one.
        colour: (C,) uint8, its colours.
        bits: (n, 16) uint8, of the others.
        colours: (n, C) uint8, of the others.
        most_bits: how many bits may differ.
        most_colour: how much the colours may differ in the mean.
    """
    near = np.flatnonzero(_ONES[bits ^ word].sum(axis=1) <= most_bits)
    gap = np.abs(colours[near].astype(np.int16) - colour.astype(np.int16)).mean(axis=1)
    return near[gap <= most_colour]


def _compare(
    bucket: np.ndarray, bits: np.ndarray, colours: np.ndarray, most_bits: int, most_colour: float
) -> set[tuple[int, int]]:
    bucket = np.sort(bucket)
    words = bits[bucket]
    found: set[tuple[int, int]] = set()
    for row in range(len(bucket) - 1):
        rest, seen = bucket[row + 1 :], bucket[row]
        near = near_to(
            words[row], colours[seen], words[row + 1 :], colours[rest], most_bits, most_colour
        )
        found |= {(int(seen), int(other)) for other in rest[near]}
    return found
