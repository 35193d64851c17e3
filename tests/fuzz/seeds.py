"""Well-formed inputs of the formats that plait reads, made by code, and small."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PICTURE_NAME = "cat.png"


def picture(kind: str = "PNG", mode: str = "RGB", size: int = 8, **options: Any) -> bytes:
    """A file with a picture of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 4), dtype=np.uint8)
    image = Image.fromarray(noise, "RGBA" if mode == "RGBA" else "CMYK").convert(mode)
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def pictures() -> list[bytes]:
    """One of every format and mode that matters to the decoder."""
    frame = Image.new("P", (6, 6), 3)
    exif = Image.Exif()
    exif[274] = 6
    found = [picture("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
    found += [picture("JPEG", mode) for mode in ("L", "RGB", "CMYK")]
    found += [picture("JPEG", "RGB", progressive=True, exif=exif.tobytes())]
    found += [picture("TIFF", mode) for mode in ("1", "L", "RGB", "I", "F", "CMYK", "LAB")]
    found += [picture("TIFF", "RGB", compression=how) for how in ("tiff_lzw", "tiff_deflate")]
    found += [picture("WEBP", "RGB"), picture("WEBP", "RGBA", lossless=True)]
    found += [picture("BMP", mode) for mode in ("1", "L", "RGB", "RGBA")]
    found += [picture("GIF", "P"), picture("GIF", "P", save_all=True, append_images=[frame] * 2)]
    found += [picture(kind, "RGB") for kind in ("PPM", "TGA", "PCX", "ICO", "JPEG2000", "AVIF")]
    found += [picture("PNG", "RGB", save_all=True, append_images=[frame.convert("RGB")])]
    return found


def with_png_checks(data: bytes) -> bytes:
    """A PNG with the checksum of every chunk made right."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    mended, place = bytearray(data), 8
    while place + 12 <= len(mended):
        (size,) = struct.unpack_from(">I", mended, place)
        end = place + 8 + size
        if end + 4 > len(mended):
            break
        struct.pack_into(">I", mended, end, zlib.crc32(mended[place + 4 : end]))
        place = end + 4
    return bytes(mended)


def with_tar_checks(data: bytes) -> bytes:
    """A tar with the checksum of every header made right, as far as sizes lead from one to another."""
    mended, place = bytearray(data), 0
    while place + 512 <= len(mended):
        header = mended[place : place + 512]
        if not header.strip(b"\0"):  # the end mark
            break
        total = sum(header) - sum(header[148:156]) + 8 * 32
        mended[place + 148 : place + 156] = b"%06o\0 " % total
        try:
            size = int(bytes(header[124:136]).split(b"\0")[0] or b"0", 8)
        except ValueError:
            break
        place += 512 + -(-max(size, 0) // 512) * 512
    return bytes(mended)


def tar(*, pax: bool = False) -> bytes:
    """Two samples of a shard."""
    sink = io.BytesIO()
    kind = tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT
    with tarfile.open(fileobj=sink, mode="w", format=kind) as file:
        for name, content in (
            ("a/1.png", picture(size=2)),
            ("a/1.txt", b"a cat"),
            ("a/1.json", b'{"split": "train", "year": 2020}'),
            ("b" * 120 + ".txt" if pax else "2.txt", b"no picture"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return sink.getvalue()


def parquet(*, embedded: bool = False, **options: Any) -> bytes:
    """A table of two pairs."""
    image: Any = [PICTURE_NAME, PICTURE_NAME]
    if embedded:
        image = [{"bytes": picture(size=2), "path": None}] * 2
    table = pa.table({"image": image, "text": ["a cat", "a dog"], "year": [1, 2]})
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def documents() -> Iterator[tuple[str, Any]]:
    """(format, value) of the JSON that plait reads besides plain records."""
    images = [{"id": 1, "file_name": PICTURE_NAME, "height": 8, "width": 8}]
    notes = [{"id": 7, "image_id": 1, "caption": "a cat"}]
    yield "coco", {"images": images, "annotations": notes, "info": {}}
    words = [{"raw": "a cat", "tokens": ["a", "cat"], "sentid": 0}]
    yield (
        "karpathy",
        {
            "images": [
                {"filename": PICTURE_NAME, "sentences": words, "split": "train", "imgid": 0}
            ],
            "dataset": "x",
        },
    )
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "a cat"}]
    yield "llava", [{"id": "1", "image": PICTURE_NAME, "conversations": turns}]
    yield (
        "vqa",
        {
            "questions": [
                {"image_id": 1, "question": "What?", "question_id": 3, "image": PICTURE_NAME}
            ],
            "annotations": [
                {
                    "question_id": 3,
                    "image_id": 1,
                    "multiple_choice_answer": "cat",
                    "answers": [{"answer": "cat", "answer_id": 1}],
                }
            ],
        },
    )
    yield "records", [{"image": PICTURE_NAME, "text": ["a", "b"], "labels": {"x": 1}}]


def readable() -> list[bytes]:
    """Inputs of the readers: one byte that names the file's ending, see there, and its content."""
    found = [
        b'0image,text,split\ncat.png,a cat,train\ncat.png,"a, dog",test\n',
        b"0image;caption_en;caption_zh\ncat.png;a cat;\xe7\x8c\xab\n",
        b"1image\ttext\ncat.png\ta cat\n",
        b'2{"image": "cat.png", "text": "a cat", "id": 1}\n{"image": "x", "text": null}\n',
        b"4cat.png,a cat\ncat.png#1\ta cat\n",
        b"4cat.png#0\ta cat\n",
        b"0image,caption\ncat.png,a cat\n",
        b"0image,text\n" + "cat.png,a cat\n".encode("utf-16"),
    ]
    found += [b"3" + json.dumps(value).encode() for _, value in documents()]
    found += [b"5" + parquet(), b"5" + parquet(embedded=True, compression="gzip")]
    found += [b"5" + parquet(use_dictionary=False, compression="none", version="1.0")]
    found += [b"6" + tar(), b"6" + tar(pax=True)]
    return found
