"""Pictures that come in as arguments of a tool, and thumbnails that go out.

A tool is called by a language model, which may have read anything: it reaches the files under the
allowed folders and no others, and nothing on the network.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from plait.core.base64 import from_base64
from plait.core.errors import DataError
from plait.data.base.inline import OCTETS, data_url
from plait.modalities.image.decode import decode_image, decode_to_show, open_image
from plait.modalities.image.structure import SAFE_FORMATS

MAX_BYTES = 20_000_000
MAX_PIXELS = 50_000_000
THUMBNAIL_SIDE = 256  # pixels of the longer side

_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]{100,}={0,2}\s*")
_INLINE = "the inline picture"


@dataclass(frozen=True)
class Picture:
    """An encoded picture that a tool returns.

    Attributes:
        data: the bytes of the file.
        mime: their type, e.g. ``image/jpeg``.
        caption: what it shows, for readers and for models that take no pictures.
    """

    data: bytes
    mime: str
    caption: str


@dataclass(frozen=True)
class Doorkeeper:
    """Decides which pictures come in.

    Args:
        roots: folders whose files may be read; a relative path is looked for in each.
        max_bytes: of a file or of decoded base64.
        max_pixels: width times height.
    """

    roots: tuple[Path, ...]
    max_bytes: int = MAX_BYTES
    max_pixels: int = MAX_PIXELS

    @classmethod
    def of(cls, roots: Sequence[Path]) -> Doorkeeper:
        """One for these folders.

        Raises:
            DataError: one of them is no folder.
        """
        for root in roots:
            if not root.is_dir():
                raise DataError("is no folder: --root names a folder of pictures", path=root)
        return cls(tuple(root.resolve() for root in roots))

    def admit(self, value: str, scratch: Path) -> Path:
        """A file with the picture: the one that is named, or one in ``scratch`` for inline bytes.

        Args:
            value: a path, a ``file:`` URL, a data URL, or base64 without one.
            scratch: a folder that the caller deletes after use.

        Raises:
            DataError: outside the roots, missing, too large, or no picture.
        """
        url = data_url(value)
        if url is not None and url.is_base64 and (url.is_image or url.mime in OCTETS):
            return self._inline(value[url.start :], scratch)
        if _BASE64.fullmatch(value) and not self._is_file(value):
            return self._inline(value, scratch)
        path = self._inside(value)
        self._check_bytes(path.stat().st_size, value)
        with open_image(path.read_bytes(), name=value, max_pixels=self.max_pixels):
            return path

    def _is_file(self, value: str) -> bool:
        try:
            return any((root / value).is_file() for root in self.roots)
        except (OSError, ValueError):  # a name that no file system takes
            return False

    def _inside(self, value: str) -> Path:
        if value.startswith("file:"):
            value = unquote(urlparse(value).path)
        elif value.startswith(("http:", "https:", "ftp:", "data:")):
            raise DataError(
                f"a picture is a file path or base64 data (data:image/png;base64,...), "
                f"not {value[:60]!r}: nothing is fetched from the network"
            )
        if not value.strip() or "\0" in value or len(value) > 4096:
            raise DataError("a picture is a file path or base64 data: this is neither")
        named = Path(value)
        for root in self.roots:
            path = (root / named).resolve()  # an absolute path stays as it is; links are followed
            if path.is_relative_to(root) and path.is_file():
                return path
        allowed = ", ".join(map(str, self.roots))
        raise DataError(f"no such file under the allowed folders ({allowed})", path=value)

    def _inline(self, text: str, scratch: Path) -> Path:
        self._check_bytes(len(text) * 3 // 4 - 2, _INLINE)  # before it is decoded
        try:
            data = from_base64(text)
        except ValueError as error:
            raise DataError(f"the base64 is damaged: {error}", path=_INLINE) from error
        self._check_bytes(len(data), _INLINE)
        decode_image(data, name=_INLINE, max_pixels=self.max_pixels, formats=SAFE_FORMATS)
        path = scratch / f"picture-{len(list(scratch.iterdir()))}"
        path.write_bytes(data)
        return path

    def _check_bytes(self, size: int, name: str) -> None:
        if size > self.max_bytes:
            raise DataError(
                f"the picture has {size / 1e6:.1f} MB, more than {self.max_bytes / 1e6:g}:"
                " make it smaller",
                path=name,
            )


def thumbnail(path: Path, caption: str) -> Picture:
    """A small JPEG of the picture in a file.

    Raises:
        DataError: the file is gone or holds no picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=path) from error
    small = Image.fromarray(decode_to_show(data, name=str(path)))
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    return Picture(buffer.getvalue(), "image/jpeg", caption)


def encoded(pixels: UInt8[np.ndarray, "H W 3"], caption: str) -> Picture:
    """A PNG of a picture in memory, small ones enlarged so that they can be looked at."""
    picture = Image.fromarray(pixels)
    times = THUMBNAIL_SIDE // max(picture.size)
    if times > 1:
        size = (picture.width * times, picture.height * times)
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Picture(buffer.getvalue(), "image/png", caption)


def as_data_url(data: bytes, mime: str) -> str:
    """The bytes as a data URL."""
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
