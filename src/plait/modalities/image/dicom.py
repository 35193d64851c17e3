"""DICOM pictures, as scanners of hospitals store them: through pydicom (extra ``medical``).

What is shown is what a viewer shows: values after the file's own rescaling (PS3.3, C.11.1), through its
first window or table (C.11.2), inverted for MONOCHROME1. Of several frames it is the middle one; the
others can be sought as those of any clip. What is read of a file's words, see
`plait.data.readers.dicom_fields`.

Shape legend: H, W a picture.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from PIL import Image, ImageFile

from plait.core.errors import DataError, install_command
from plait.modalities.image.forms import has_pydicom
from plait.modalities.image.structure import MAGIC_OF_DICOM, structure_of

FORMAT: Final = "DICOM"
MOST_INFLATED: Final = 1 << 30
"""Bytes that a deflated file may become."""

_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_LENGTH_OF_META: Final = (
    140  # where the length of the first group stands, and its end is counted from 144
)
_HEAD: Final = 1 << 12  # bytes in which the first group, and how the rest is stored, is stated
_GRAY: Final = ("MONOCHROME1", "MONOCHROME2")
_MOST_FRAMES: Final = 1 << 20


def opened(data: bytes) -> DicomImage:
    """The picture in ``data``.

    Raises:
        DataError: pydicom is not installed, or the file is damaged or holds no picture.
        SyntaxError: it is no DICOM file.
    """
    if not has_pydicom():
        raise DataError(
            f"is a DICOM picture: {install_command('medical')} reads it, or convert it to PNG"
        )
    return DicomImage(io.BytesIO(data))


def header(file: io.BufferedIOBase, fields: Sequence[str] | None = None) -> Any:
    """The data set of an open file without its pixels, of which no more is read than that.

    Args:
        file: at its start.
        fields: keywords of those that are wanted; None: all.

    Raises:
        DataError: it is damaged, or would become too large.
    """
    return _read(file, stop_before_pixels=True, specific_tags=fields)


def _read(file: io.BufferedIOBase, **options: Any) -> Any:
    import pydicom

    head = file.read(_HEAD)
    if _DEFLATED.encode() in head:
        _check_inflated(head + file.read())
    file.seek(0)
    try:
        return pydicom.dcmread(file, **options)
    except MemoryError:
        raise
    except Exception as error:  # it raises almost anything on damaged content
        raise DataError(f"the DICOM file is truncated or damaged: {error}") from error


def _check_inflated(data: bytes) -> None:
    """Raises DataError for a deflated file that becomes too large: pydicom unpacks it whole."""
    try:
        (length,) = struct.unpack_from("<L", data, _LENGTH_OF_META)
    except struct.error:
        return
    unpacking, found = zlib.decompressobj(-zlib.MAX_WBITS), 0
    left = data[_LENGTH_OF_META + 4 + length :]
    try:
        while left and not unpacking.eof:
            found += len(unpacking.decompress(left, 1 << 20))
            left = unpacking.unconsumed_tail
            if found > MOST_INFLATED:
                raise DataError(f"the DICOM file unpacks to more than {MOST_INFLATED:,} bytes")
    except zlib.error as error:
        raise DataError(f"the DICOM file is truncated or damaged: {error}") from error


class DicomImage(ImageFile.ImageFile):
    """A file as Pillow has them: mode ``F`` with the values after rescaling, or ``RGB``.

    Attributes:
        window: the values that become black and white; None for a picture in colour.
        curve: from values to 0..1, where what the file states is no line; ``window`` is (0, 1) then.
        inverted: the lowest value is white.
    """

    format = FORMAT
    format_description = "DICOM"

    def _open(self) -> None:
        assert self.fp is not None
        self._data = self.fp.read()
        if self._data[128:132] != MAGIC_OF_DICOM:
            raise SyntaxError("no DICOM file")  # as Pillow wants it of a form that is not its own
        found = header(io.BytesIO(self._data))
        try:
            height, width = int(found.Rows), int(found.Columns)
            kind = str(found.PhotometricInterpretation)
            self.n_frames = int(found.get("NumberOfFrames") or 1)
        except (AttributeError, TypeError, ValueError) as error:
            raise DataError(
                "holds no picture: it is a DICOM file of another kind (a report, a plan, a directory)"
            ) from error
        if not 0 < self.n_frames <= _MOST_FRAMES:
            raise DataError(f"the DICOM file states {self.n_frames:,} frames")
        self._size = (width, height)
        self._mode = "F" if kind in _GRAY else "RGB"
        self.inverted = kind == "MONOCHROME1" or found.get("PresentationLUTShape") == "INVERSE"
        self.is_animated = self.n_frames > 1
        self.window: tuple[float, float] | None = None
        self.curve: Callable[[np.ndarray], np.ndarray] | None = None
        self._frame, self._loaded_frame = self.n_frames // 2, -1
        self.tile = []

    def tell(self) -> int:
        """The number of the frame."""
        return self._frame

    def seek(self, frame: int) -> None:
        """Chooses a frame. Raises EOFError beyond the last."""
        if not 0 <= frame < self.n_frames:
            raise EOFError(f"there are {self.n_frames} frames")
        if frame != self._frame:
            self._frame = frame

    def load(self) -> Any:
        """Decodes the frame.

        Raises:
            DataError: it is damaged, or compressed in a way that needs a further package.
        """
        if self._loaded_frame != self._frame:
            found = _read(io.BytesIO(self._data))
            values = _stored_values(found, self._frame, self.width * self.height)
            if self.mode == "F":
                values = self._rescaled(found, values)
            image = Image.fromarray(values)
            self.im, self._size = image.im, image.size
            self._loaded_frame = self._frame
        return Image.Image.load(self)

    def _rescaled(self, found: Any, values: np.ndarray) -> np.ndarray:
        """Values of one frame after the file's rescaling, (H, W) float32; learns the window."""
        from pydicom.pixels import apply_modality_lut

        rescaling = _group(found, self._frame, "PixelValueTransformationSequence") or found
        padding = found.get("PixelPaddingValue")
        inside = values != padding if isinstance(padding, int) else np.ones(values.shape, bool)
        rescaled = np.asarray(apply_modality_lut(values, rescaling), np.float32)
        showing = _group(found, self._frame, "FrameVOILUTSequence") or found
        self.curve = _table_of(showing) or _sigmoid_of(showing)
        bits = int(found.get("BitsStored") or 16)
        if self.curve is not None:
            self.window = (0.0, 1.0)
        elif (window := _window_of(showing)) is not None:
            self.window = window
        elif bits <= 8 and rescaling.get("RescaleSlope") in (None, 1):
            self.window = (0.0, float((1 << bits) - 1))
        else:
            shown = rescaled[inside] if inside.any() else rescaled
            self.window = (float(shown.min()), float(shown.max()))
        return rescaled


def _stored_values(found: Any, frame: int, pixels: int) -> np.ndarray:
    """The values of a frame as the file stores them, (H, W), or (H, W, 3) uint8 in colour.

    Raises:
        DataError: it is damaged, or compressed in a way that needs a further package.
    """
    from pydicom.pixels import apply_color_lut, get_decoder, pixel_array

    syntax = found.file_meta.get("TransferSyntaxUID")
    try:
        decoder = get_decoder(syntax)
    except (NotImplementedError, TypeError, AttributeError):
        raise DataError(
            f"the DICOM picture is stored in a way that pydicom does not read ({syntax}): convert it"
        ) from None
    if not decoder.is_available:
        raise DataError(
            f"the DICOM picture is compressed as {decoder.UID.name}, for which pydicom lacks a "
            "plugin: install one of "
            f"{'; '.join(decoder.missing_dependencies)}, or save the picture uncompressed"
        )
    try:
        if decoder.is_encapsulated:
            _check_frame(found, frame, pixels)
        values = pixel_array(found, index=frame)
        if found.PhotometricInterpretation == "PALETTE COLOR":
            values = apply_color_lut(values, found)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # plugins raise almost anything on damaged content
        raise DataError(f"the DICOM picture is truncated or damaged: {error}") from error
    if found.PhotometricInterpretation in _GRAY:
        return values
    return (values >> 8).astype(np.uint8) if values.dtype.itemsize > 1 else values[..., :3]


def _check_frame(found: Any, frame: int, pixels: int) -> None:
    """Raises DataError where a compressed frame has more pixels than its file states."""
    from pydicom.encaps import get_frame

    data = get_frame(found.PixelData, frame, number_of_frames=int(found.get("NumberOfFrames") or 1))
    inner = structure_of(data).pixels
    if data[:4] == b"\xff\x4f\xff\x51":  # a JPEG 2000 codestream, SIZ
        width, height = struct.unpack_from(">LL", data, 8)
        inner = width * height
    if inner > pixels:
        raise DataError(
            f"a frame of the DICOM picture has {inner:,} pixels, and its file states {pixels:,}"
        )


def _group(found: Any, frame: int, name: str) -> Any:
    """What an enhanced file states for a frame or for all of them; None where it does not."""
    each = found.get("PerFrameFunctionalGroupsSequence") or []
    places = [*each[frame : frame + 1], *(found.get("SharedFunctionalGroupsSequence") or [])]
    return next((place[name].value[0] for place in places if place.get(name)), None)


def _first(value: Any) -> float | None:
    """The first of perhaps several numbers."""
    if value is None or isinstance(value, str):
        return None
    return float(value) if isinstance(value, int | float) else float(value[0]) if value else None


def _window_of(found: Any) -> tuple[float, float] | None:
    """The values that become black and white (PS3.3, C.11.2.1.2 and C.11.2.1.3.2)."""
    centre, width = _first(found.get("WindowCenter")), _first(found.get("WindowWidth"))
    if centre is None or width is None:
        return None
    if found.get("VOILUTFunction") == "LINEAR_EXACT":
        return (centre - width / 2, centre + width / 2) if width > 0 else None
    if width < 1:
        return None
    return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2


def _sigmoid_of(found: Any) -> Callable[[np.ndarray], np.ndarray] | None:
    """The curve of a window of the kind SIGMOID (PS3.3, C.11.2.1.3.1)."""
    centre, width = _first(found.get("WindowCenter")), _first(found.get("WindowWidth"))
    if found.get("VOILUTFunction") != "SIGMOID" or centre is None or not width:
        return None
    return lambda values: 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -80, 80)))


def _table_of(found: Any) -> Callable[[np.ndarray], np.ndarray] | None:
    """The curve of the first table of the file (PS3.3, C.11.2.1.1)."""
    tables = found.get("VOILUTSequence")
    if not tables:
        return None
    entries, first, bits = (int(value) for value in tables[0].LUTDescriptor)
    raw = tables[0].LUTData
    stored = np.frombuffer(raw, "<u2") if isinstance(raw, bytes) else np.asarray(raw)
    table = stored[: entries or 1 << 16].astype(np.float64) / ((1 << bits) - 1)
    return lambda values: table[np.clip(values - first, 0, len(table) - 1).astype(np.int64)]
