"""A process that decodes HEIC pictures: ``python -P heif_worker.py PACKAGE``, bytes in, pixels out.

It imports nothing of plait. A request is its length and the bytes of a file; the answer is the length of
a JSON text, that text, and the pixels: ``{"mode", "size"}``, or ``{"problem"}``. It ends with its input.
"""

import contextlib
import importlib
import io
import json
import signal
import struct
import sys

from PIL import Image, UnidentifiedImageError

MEMORY = 4 << 30  # bytes of address space; libheif refuses pictures that need more by itself
LENGTH = struct.Struct(">Q")


def answer(data: bytes) -> tuple[dict[str, object], bytes]:
    """What to say of a file."""
    try:
        with Image.open(io.BytesIO(data), formats=["HEIF"]) as image:
            image.load()
            shown = image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGBA")
            return {"mode": shown.mode, "size": shown.size}, shown.tobytes()
    except MemoryError:
        return {"problem": "it needs too much memory"}, b""
    except UnidentifiedImageError:
        return {"problem": "its header cannot be read"}, b""
    except Exception as error:  # the packages raise almost anything on damaged content
        return {"problem": str(error) or type(error).__name__}, b""


def main() -> None:
    """Answers until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that asks
    importlib.import_module(sys.argv[1]).register_heif_opener(
        thumbnails=False, depth_images=False, aux_images=False
    )
    Image.MAX_IMAGE_PIXELS = None  # whoever sends the file has looked at its size
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    asked, said = sys.stdin.buffer, sys.stdout.buffer
    while len(head := asked.read(LENGTH.size)) == LENGTH.size:
        told, pixels = answer(asked.read(LENGTH.unpack(head)[0]))
        text = json.dumps(told).encode()
        said.write(LENGTH.pack(len(text)) + text + LENGTH.pack(len(pixels)))
        said.write(pixels)
        said.flush()


if __name__ == "__main__":
    main()
