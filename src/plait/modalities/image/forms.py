"""Forms of pictures by the endings of their names: which are decoded here, and what of the others."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import Final

from PIL import features

from plait.core.errors import install_command

_HEIC: Final = "heic heics heif heifs hif"
_DICOM: Final = "dcm dicom dic ima"
_JPEG_2000: Final = "jp2 j2k jpf jpx jpc j2c"
_RAW: Final = "3fr arw cr2 cr3 crw dng erf iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"

_ALWAYS: Final = frozenset(
    ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "jfif"]
)
HEIF_PACKAGES: Final = ("pi_heif", "pillow_heif")
"""Either reads HEIC. The first is what the extra ``heif`` installs: it has no encoder, hence no GPL."""


@dataclass(frozen=True, slots=True)
class Undecoded:
    """A form that is not decoded here: its name, and what to do about such pictures."""

    name: str
    advice: str

    def __str__(self) -> str:
        return f"{self.name} pictures, which plait does not decode: {self.advice}"


_NEVER: Final = {
    "jxl": Undecoded("JPEG XL", "convert them to PNG or JPEG"),
    "svg svgz": Undecoded("SVG", "draw them as PNG"),
    "ico cur icns": Undecoded("icon", "save them as PNG"),
    "psd psb": Undecoded("Photoshop", "save them as PNG or JPEG"),
    "xcf tga exr hdr dds pcx eps ai wmf emf": Undecoded("other", "save them as PNG or JPEG"),
    _RAW: Undecoded("camera raw", "develop them to JPEG"),
}


def heif_package() -> str | None:
    """The installed package that reads HEIC."""
    found = (name for name in HEIF_PACKAGES if importlib.util.find_spec(name) is not None)
    return next(found, None)


def has_pydicom() -> bool:
    """Whether DICOM can be read."""
    return importlib.util.find_spec("pydicom") is not None


def _optional() -> dict[str, tuple[bool, Undecoded]]:
    """Endings of what some installations decode: whether this one does, and what to say if not."""
    heic = f"{install_command('heif')} reads them, or convert them to JPEG"
    medical = f"{install_command('medical')} reads them, or convert them to PNG"
    built = "this Pillow was built without it; convert them to PNG or JPEG"
    return {
        _HEIC: (heif_package() is not None, Undecoded("HEIC", heic)),
        _DICOM: (has_pydicom(), Undecoded("DICOM", medical)),
        "avif avifs": (bool(features.check("avif")), Undecoded("AVIF", built)),
        _JPEG_2000: (bool(features.check("jpg_2000")), Undecoded("JPEG 2000", built)),
    }


@cache
def decoded() -> frozenset[str]:
    """The endings of pictures that are decoded here."""
    able = {end for ends, (able, _) in _optional().items() if able for end in ends.split()}
    return _ALWAYS | able


@cache
def _undecoded() -> dict[str, Undecoded]:
    unable = {ends: form for ends, (able, form) in _optional().items() if not able}
    return {end: form for ends, form in (_NEVER | unable).items() for end in ends.split()}


def undecoded(ending: str) -> Undecoded | None:
    """The form of pictures with this ending, in lower case, that is not decoded here; else None."""
    return _undecoded().get(ending)


DECODABLE: Final = _ALWAYS | frozenset(f"{_HEIC} {_DICOM} avif avifs {_JPEG_2000}".split())
"""Endings of pictures that this or another installation decodes."""
