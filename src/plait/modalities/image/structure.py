"""What a picture file is made of, counted before anything is decoded.

A few kilobytes can ask a decoder for minutes of work or gigabytes of memory: thousands of scans,
chunks, tags that all point at the same bytes. Here the parts are counted by their headers alone,
in time that grows with the bytes of the file, against bounds that no camera, scanner or editor
comes near. What is damaged is not judged: the decoder says what is wrong with it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from plait.core.errors import DataError

# Formats, by Pillow's names, that are safe to take from strangers: no other program runs (EPS), and
# their decoders are the ones that everybody fuzzes.
SAFE_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
)
MAGIC_OF_DICOM: Final = b"DICM"  # after 128 bytes of anything (PS3.10, 7.1)
# Brands of ISO/IEC 23008-12, the third of pictures of any codec.
_AVIF: Final = (b"avif", b"avis")
_HEIF: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_EITHER: Final = (b"mif1", b"msf1")
_MOST_BRANDS: Final = 1024  # bytes of a list of brands that are looked at
_JPEG_MARKER: Final = re.compile(rb"\xff+([^\x00\xff])")
# The end of a scan: a marker that is neither a stuffed byte nor a restart.
_JPEG_NEXT: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_FRAME_MARKERS: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_BARE_MARKERS: Final = frozenset({0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})  # no length
_BASELINE: Final = (0xC0, 0xC1)
_TAG_BYTES: Final = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
}  # fmt: skip
_WIDTH, _HEIGHT, _SAMPLES = 256, 257, 277
_OFFSETS: Final = frozenset({273, 279, 324, 325})  # of strips and tiles, and their sizes
_COLOUR_MAP: Final = 320
_TEXTS: Final = frozenset({1, 2, 6, 7})  # types whose values stay bytes


@dataclass(frozen=True)
class Bounds:
    """The most parts that a picture file may have.

    Attributes:
        scans: of a JPEG; progressive ones have about ten.
        chunks: segments of a JPEG, chunks of a PNG or WebP beside the pixels, boxes of an AVIF,
            blocks of a GIF's extensions.
        packed: compressed texts and profiles of a PNG, each of which may grow to a megabyte.
        tags: of one directory of a TIFF or of EXIF.
        frames: of an animation, pages of a TIFF.
    """

    scans: int = 100
    chunks: int = 4096
    packed: int = 256
    tags: int = 4096
    frames: int = 20_000


@dataclass(slots=True)
class Structure:
    """What the headers of a file promise.

    Attributes:
        kind: the format by Pillow's name, one of `SAFE_FORMATS`, ``HEIC`` or ``DICOM``; None: another.
        width, height: pixels; 0 when the headers do not say.
        scans, chunks, packed, tags, frames: as in `Bounds`, the most of each.
        plain: whether the cost of decoding is known from the size alone: one pass over the pixels,
            nothing beside them to unpack, no odd header.
    """

    kind: str | None
    width: int = 0
    height: int = 0
    scans: int = 0
    chunks: int = 0
    packed: int = 0
    tags: int = 0
    frames: int = 1
    plain: bool = False

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height

    def check(self, bounds: Bounds) -> None:
        """Raises DataError where there is more of something than ``bounds`` allow."""
        for name in ("scans", "chunks", "packed", "tags", "frames"):
            found, most = getattr(self, name), getattr(bounds, name)
            if found > most:
                raise DataError(
                    f"the {self.kind} picture has more than {most:,} {_WORDS[name]}, as no camera "
                    "or editor writes: save it anew, or leave it out"
                )


_WORDS: Final = {
    "scans": "scans",
    "chunks": "segments, chunks or blocks beside its pixels",
    "packed": "compressed texts and profiles",
    "tags": "tags",
    "frames": "frames or pages",
}


def kind_of(data: bytes) -> str | None:
    """The format that the first bytes promise, of `SAFE_FORMATS`, ``HEIC``, ``DICOM``; else None."""
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[128:132] == MAGIC_OF_DICOM:
        return "DICOM"
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand in _AVIF or (brand in _EITHER and _names_avif(data)):
            return "AVIF"
        return "HEIC" if brand in _HEIF or brand in _EITHER else None
    return None


def _names_avif(data: bytes) -> bool:
    """Whether a file of any codec's brand names AVIF among those that it keeps to."""
    brands = data[16 : min(int.from_bytes(data[:4], "big"), _MOST_BRANDS)]
    return any(brands[place : place + 4] in _AVIF for place in range(0, len(brands), 4))


def structure_of(data: bytes, bounds: Bounds | None = None) -> Structure:
    """Counts the parts of a picture file.

    Args:
        data: the whole file.
        bounds: counting stops beyond them; the default is `Bounds()`.

    Raises:
        DataError: there is more of something than ``bounds`` allow.
    """
    bounds = bounds or Bounds()
    found = Structure(kind_of(data))
    reader = _READERS.get(found.kind or "")
    if reader is not None:
        try:
            reader(data, found, bounds)
        except (struct.error, IndexError):  # truncated: the decoder says so
            found.plain = False
        found.check(bounds)
    return found


def _jpeg(data: bytes, found: Structure, bounds: Bounds) -> None:
    exif, components, frame, strict, place = [], 0, 0, True, 2
    while found.scans <= bounds.scans and found.chunks <= bounds.chunks:
        match = _JPEG_MARKER.search(data, place)
        if match is None:
            break
        if match.start() != place or match.end() != place + 2:
            # Bytes between segments are skipped one at a time by the reader of headers.
            strict = False
            found.chunks += (match.end() - 2 - place) // 64
        place, marker = match.end(), match[1][0]
        if marker == 0xD9 and found.scans:
            break
        found.chunks += marker != 0xDA
        if marker in _BARE_MARKERS:
            strict = False
            continue
        (size,) = struct.unpack_from(">H", data, place)
        body = data[place + 2 : place + min(size, 32)]
        if marker in _FRAME_MARKERS:
            strict = strict and not frame and body[0] == 8
            frame, components = marker, body[5]
            found.height, found.width = struct.unpack_from(">HH", body, 1)
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            exif.append(data[place + 8 : place + size])
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            _tags(data[place + 6 : place + size], found, bounds)
        place += max(size, 2)
        if marker == 0xDA:
            found.scans += 1
            if found.scans == 1:
                # A baseline scan of all components ends the work, whatever follows.
                found.plain = (
                    strict
                    and frame in _BASELINE
                    and components in (1, 3)
                    and body[0] == components
                    and found.chunks <= 256
                )
                if found.plain:
                    break
            match = _JPEG_NEXT.search(data, place)
            if match is None:
                break
            place = match.start()
    if exif:  # the reader of headers joins them
        _tags(b"".join(exif), found, bounds)


def _png(data: bytes, found: Structure, bounds: Bounds) -> None:
    depth, interlaced, pixels, place = 0, True, 0, 8
    while found.chunks <= bounds.chunks and found.packed <= bounds.packed:
        if place + 8 > len(data):
            break
        size, kind = struct.unpack_from(">L4s", data, place)
        if kind == b"IHDR" and place == 8:
            found.width, found.height, depth = struct.unpack_from(">LLB", data, 16)
            interlaced = data[28] != 0
        elif kind in (b"IDAT", b"fdAT"):
            pixels += 1
            if pixels > bounds.chunks + len(data) // 512:  # many are empty
                found.chunks = bounds.chunks + 1
        else:
            found.chunks += 1
            found.packed += kind in (b"zTXt", b"iTXt", b"iCCP")
            if kind == b"acTL":
                (found.frames,) = struct.unpack_from(">L", data, place + 8)
                found.frames = max(1, found.frames) if found.frames < 1 << 31 else 1
        if kind == b"IEND":
            break
        place += 12 + size
    profiles = found.packed == 0 or (found.packed == 1 and b"iCCP" in data[33:4096])
    found.plain = depth in (1, 2, 4, 8) and not interlaced and profiles and found.chunks <= 256


def _gif(data: bytes, found: Structure, bounds: Bounds) -> None:
    found.width, found.height = struct.unpack_from("<HH", data, 6)
    place = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    while data[place] == 0x21 and found.chunks <= bounds.chunks:
        place += 2
        while size := data[place]:
            found.chunks += 1
            place += size + 1
            if found.chunks > bounds.chunks:
                return
        found.chunks += 1
        place += 1
    if data[place] == 0x2C:  # the first picture, which may be larger than the screen
        left, top, width, height = struct.unpack_from("<4H", data, place + 1)
        found.width = max(found.width, left + width)
        found.height = max(found.height, top + height)


def _webp(data: bytes, found: Structure, bounds: Bounds) -> None:
    frames, place, kinds = 0, 12, []
    while place + 8 <= len(data) and found.chunks <= bounds.chunks and frames <= bounds.frames:
        kind, size = struct.unpack_from("<4sL", data, place)
        body = place + 8
        if kind == b"VP8X":
            width, height = data[body + 4 : body + 7], data[body + 7 : body + 10]
            found.width = int.from_bytes(width, "little") + 1
            found.height = int.from_bytes(height, "little") + 1
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, body + 6)
            found.width = max(found.width, width & 0x3FFF)
            found.height = max(found.height, height & 0x3FFF)
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<L", data, body + 1)
            found.width = max(found.width, (bits & 0x3FFF) + 1)
            found.height = max(found.height, (bits >> 14 & 0x3FFF) + 1)
        frames += kind == b"ANMF"
        found.chunks += kind != b"ANMF"
        kinds.append(kind)
        place = body + size + (size & 1)
    found.frames = max(1, frames)
    found.plain = not frames and found.chunks <= 16 and (b"VP8 " in kinds or b"VP8L" in kinds)


def _bmp(data: bytes, found: Structure, bounds: Bounds) -> None:
    (header,) = struct.unpack_from("<L", data, 14)
    form = "<HH" if header == 12 else "<ll"
    width, height = struct.unpack_from(form, data, 18)
    found.width, found.height = abs(width), abs(height)


def _boxed(data: bytes, found: Structure, bounds: Bounds) -> None:
    for _, size, kind in _boxes(data, 0, len(data)):
        found.chunks += 1 if size or kind else 0
        if found.chunks > bounds.chunks:
            return
    # Sizes stand in boxes of one form, however deep.
    for match in re.finditer(rb"\0\0\0\x14ispe\0\0\0\0(.{8})", data, re.DOTALL):
        width, height = struct.unpack(">LL", match[1])
        found.width, found.height = max(found.width, width), max(found.height, height)
        found.chunks += 1
        if found.chunks > bounds.chunks:
            return


def _boxes(data: bytes, place: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """(place, size, kind) of the boxes of a file of ISO/IEC 14496-12."""
    while place + 8 <= end:
        size, kind = struct.unpack_from(">L4s", data, place)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, place + 8)
        yield place, size, kind
        if size < 8:  # 0: up to the end of the file
            return
        place += size


def _tiff(data: bytes, found: Structure, bounds: Bounds) -> None:
    _tags(data, found, bounds, pages=True)


def _tags(block: bytes, found: Structure, bounds: Bounds, *, pages: bool = False) -> None:
    """The first directory of a TIFF or of EXIF; with ``pages`` its sizes and those that follow.

    Raises:
        DataError: values that overlap many times over, strips without end, or a ring of pages.
    """
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return
    try:
        (start,) = struct.unpack_from(f"{order}L", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        found.tags = max(found.tags, count)
        if count > bounds.tags:
            return
        sizes, counts = _entries(block, order, start, count)
    except struct.error:  # the directory points beyond the block
        return
    if sizes > 2 * len(block) + (1 << 16):
        raise DataError(
            "the tags of the picture name the same bytes many times over, as no camera or editor "
            "writes: save it anew, or leave it out"
        )
    if pages:
        found.width, found.height = counts.pop(_WIDTH, 0), counts.pop(_HEIGHT, 0)
        samples = min(counts.pop(_SAMPLES, 1), 64)
        most = 1024 + samples * (found.height + found.pixels // 256)
        for tag, number in counts.items():
            if number > (3 << 16 if tag == _COLOUR_MAP else most if tag in _OFFSETS else 1024):
                raise DataError(
                    f"the TIFF picture has {number:,} values of tag {tag}, more than its size "
                    "allows: save it anew, or leave it out"
                )
        found.frames = _pages(block, order, start, bounds.frames)


def _entries(block: bytes, order: str, start: int, count: int) -> tuple[int, dict[int, int]]:
    """(bytes of all values that are stored apart, numbers of values by tag).

    Of width, height and samples the value itself.
    """
    sizes, counts = 0, {}
    for place in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, number, offset = struct.unpack_from(f"{order}HHLL", block, place)
        size = number * _TAG_BYTES.get(kind, 0)
        if tag in (_WIDTH, _HEIGHT, _SAMPLES):
            short = kind == 3
            (counts[tag],) = struct.unpack_from(order + "HL"[not short], block, place + 8)
        elif size > 4 and offset + size <= len(block):  # the reader leaves out the others
            sizes += size
            if kind not in _TEXTS and tag < 512:
                counts[tag] = max(number, counts.get(tag, 0))
    return sizes, counts


def _pages(block: bytes, order: str, start: int, most: int) -> int:
    """How many directories follow each other, counted up to one beyond ``most``."""
    seen: set[int] = set()
    while start and len(seen) <= most:
        if start in seen:
            raise DataError("the pages of the TIFF picture form a ring: save it anew")
        seen.add(start)
        try:
            (count,) = struct.unpack_from(f"{order}H", block, start)
            (start,) = struct.unpack_from(f"{order}L", block, start + 2 + 12 * count)
        except struct.error:
            break
    return len(seen)


_READERS: Final[dict[str, Callable[[bytes, Structure, Bounds], None]]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "WEBP": _webp,
    "BMP": _bmp,
    "AVIF": _boxed,
    "HEIC": _boxed,
    "TIFF": _tiff,
}
