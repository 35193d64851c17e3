"""HEIC pictures, as telephones store them: through libheif, by one of the packages that bring it.

libheif turns a picture as the file's own boxes say (``irot``, ``imir``; ISO/IEC 23008-12). What its EXIF
data say of turning is a copy of that, and is not looked at.

A damaged file can end the process that libheif decodes it in. So that happens in one of their own
(`plait.modalities.image.heif_worker`): it lives on from picture to picture, and when it dies or hangs one picture
is lost, with words.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, Final

from PIL import Image, ImageFile

from plait.core.errors import DataError, install_command
from plait.modalities.image.forms import heif_package
from plait.modalities.image.heif_worker import LENGTH
from plait.modalities.image.structure import kind_of

FORMAT: Final = "HEIC"
SECONDS: Final = 120.0
"""The most that one picture takes; a photograph takes less than one."""

_SCRIPT: Final = Path(__file__).with_name("heif_worker.py")
_idle: list[subprocess.Popen[bytes]] = []
_changing = threading.Lock()


def opened(data: bytes) -> HeicImage:
    """The picture in ``data``.

    Raises:
        DataError: no package that reads HEIC is installed, or the picture is damaged.
        SyntaxError: it is no HEIC picture.
    """
    if heif_package() is None:
        raise DataError(
            f"is a HEIC picture: {install_command('heif')} reads it, or convert it to JPEG"
        )
    return HeicImage(io.BytesIO(data))


class HeicImage(ImageFile.ImageFile):
    """A file as Pillow has them; decoded when it is opened, as the size of its pixels is known only then."""

    format = FORMAT
    format_description = "HEIC"

    def _open(self) -> None:
        assert self.fp is not None
        data = self.fp.read()
        if kind_of(data) != FORMAT:
            raise SyntaxError("no HEIC file")  # as Pillow wants it of a form that is not its own
        found = _decoded(data)
        self.im, self._mode, self._size = found.im, found.mode, found.size
        self.tile = []

    def load(self) -> Any:
        """All is there."""
        return Image.Image.load(self)


def _decoded(data: bytes) -> Image.Image:
    """The picture, from a process of its own.

    Raises:
        DataError: it is damaged, or its decoder died of it.
    """
    worker = _take()
    assert worker.stdin is not None
    assert worker.stdout is not None
    late = threading.Event()

    def stop() -> None:
        late.set()
        worker.kill()

    timer = threading.Timer(SECONDS, stop)
    timer.start()
    try:
        worker.stdin.write(LENGTH.pack(len(data)) + data)
        worker.stdin.flush()
        told = json.loads(_part(worker.stdout))
        pixels = _part(worker.stdout)
    except (BrokenPipeError, EOFError):
        _close(worker)
        if late.is_set():
            problem = f"decoding the HEIC picture takes longer than {SECONDS:g} s"
        else:
            problem = f"the HEIC picture makes its decoder fail ({heif_package()})"
        raise DataError(f"{problem}: save it anew as a JPEG, or leave it out") from None
    except BaseException:
        _close(worker)
        raise
    finally:
        timer.cancel()
    with _changing:
        _idle.append(worker)
    if "problem" in told:
        raise DataError(
            f"the HEIC picture is truncated or damaged: {told['problem']}; replace the file"
        )
    return Image.frombytes(told["mode"], tuple(told["size"]), pixels)


def _part(stream: IO[bytes]) -> bytes:
    """A length and so many bytes. Raises EOFError where the stream ends before."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    (size,) = LENGTH.unpack(head)
    found = stream.read(size)
    if len(found) < size:
        raise EOFError
    return found


def _take() -> subprocess.Popen[bytes]:
    with _changing:
        while _idle:
            worker = _idle.pop()
            if worker.poll() is None:
                return worker
            _close(worker)  # it has died between two pictures
    package = heif_package()
    assert package is not None
    return subprocess.Popen(
        [sys.executable, "-P", str(_SCRIPT), package],  # -P: beside it lie files called as modules
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _close(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.communicate()


@atexit.register
def close() -> None:
    """Ends the processes that wait."""
    with _changing:
        while _idle:
            _close(_idle.pop())


if hasattr(os, "register_at_fork"):  # a child must not talk to its parent's processes
    os.register_at_fork(after_in_child=_idle.clear)
