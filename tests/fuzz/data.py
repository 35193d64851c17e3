"""Targets that take files: pictures, data of every format, manifests, recipes; and filters."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from tests.fuzz import seeds
from tests.fuzz.kinds import MIB, Target

from plait.core.errors import UserError
from plait.core.files import read_json
from plait.data.open.open import open_dataset, stream
from plait.modalities.image.decode import decode_image
from plait.retrieval.index.manifest import read_manifest as read_index
from plait.retrieval.store.filters import parse_where
from plait.retrieval.store.predicate import facts, to_predicate, to_sql
from plait.runtime.manifest import read_manifest as read_bundle
from plait.training.recipe.recipe import list_recipes, load_recipe, recipe_text

ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".txt", ".parquet", ".tar")
"""Of the readers' files; the first byte of an input names one, ``0`` the first."""
MOST_PIXELS = 4_000_000

_HOME = tempfile.TemporaryDirectory(prefix="plait-fuzz-")
FOLDER = Path(_HOME.name)
os.environ["PLAIT_CACHE"] = str(FOLDER / "cache")
(FOLDER / seeds.PICTURE_NAME).write_bytes(seeds.picture())


def decode(data: bytes) -> None:
    """A picture."""
    pixels = decode_image(data, name="x", max_pixels=MOST_PIXELS)
    assert pixels.dtype == "uint8" and pixels.ndim == 3 and pixels.shape[2] == 3
    assert 0 < pixels.shape[0] * pixels.shape[1] <= MOST_PIXELS


def read(data: bytes) -> None:
    """A data set of one file, opened whole, then as a stream; its pictures are read."""
    path = FOLDER / f"pairs{ENDINGS[data[0] % 16 % len(ENDINGS) if data else 0]}"
    path.write_bytes(data[1:])
    try:
        dataset = open_dataset(path, on_bad_row="skip")
        for sample in dataset.samples:
            assert all(isinstance(text, str) for text in sample.texts)
            f"{sample.where}".encode()
            if sample.image is not None:
                sample.image.read()
        for bad in dataset.skipped:
            assert len(str(bad.error())) < 2000, "a message repeats much of what was sent"
        for _ in stream(path):
            pass
    finally:
        path.unlink()


_ROWS = (
    {"id": "1", "text": "a cat", "path": None, "modality": "text", "language": "en"},
    {"id": "2", "text": "x" * 5000, "path": "a/b.png", "modality": "image", "language": None},
)
_FACTS = facts({"year": 2020, "split": "test", "score": 1e300, "ok": True, "größe": "1e5"})


def filtering(data: bytes) -> None:
    """A filter as text; where it is JSON of an object, as a mapping too."""
    text = data.decode("utf-8", "surrogateescape")
    found = parse_where(text, _FACTS)
    assert found is not None
    predicate, sql = to_predicate(found), to_sql(found)
    opposite = to_predicate(parse_where(f"not ({text})", _FACTS)) if len(text) < 40_000 else None
    for row in _ROWS:
        full = {**row, **_FACTS}
        assert opposite is None or predicate(full) != opposite(full)
    assert len(sql) < 400 * (len(text) + 10), "the query is much longer than the filter"
    sql.encode()


def filtering_mapping(data: bytes) -> None:
    """A filter as a mapping."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    found = parse_where(value, _FACTS)
    if found is not None:
        to_sql(found).encode()
        predicate = to_predicate(found)
        for row in _ROWS:
            predicate({**row, **_FACTS})


def any_filter(data: bytes) -> None:
    """A mapping after ``:``, else a text."""
    if data[:1] == b":":
        filtering_mapping(data[1:])
    else:
        filtering(data)


def manifest(data: bytes) -> None:
    """What the first byte names: the manifest of an index, of a bundle, a recipe, a model."""
    kind, content = data[:1], data[1:]
    if kind == b"r":
        path = FOLDER / "recipe.yaml"
        path.write_bytes(content)
        load_recipe(path, ["seed=1"])
        return
    path = FOLDER / ("model.json" if kind == b"m" else "manifest.json")
    path.write_bytes(content)
    if kind == b"b":
        made = read_bundle(FOLDER)
        for tower in made.towers.values():
            assert all(isinstance(graph.file, str) for graph in tower.graphs)
    elif kind == b"m":
        from plait.models.store.storage import load_model

        load_model(FOLDER)
    elif kind == b"j":
        read_json(path)
    else:
        read_index(FOLDER)


def manifests() -> list[bytes]:
    """Of each kind a well-formed one."""
    index = {
        "format": "plait-index",
        "version": 3,
        "dim": 4,
        "model": "0123456789abcdef",
        "columns": ["year"],
        "modalities": ["image", "text"],
        "run": None,
        "run_relative": "../run",
        "corrected": False,
        "roots": ["/tmp/x"],
        "seal": "",
        "created_by": "plait 0.1.0",
        "created": "2026-01-01T00:00:00Z",
    }
    graph = {
        "file": "image.onnx",
        "format": "onnx",
        "precision": "float32",
        "bytes": 3,
        "sha256": "00",
        "parts": ["image.bin"],
    }
    tower = {
        "inputs": {"pixels": {"dtype": "uint8", "shape": ["batch", 224, 224, 3]}},
        "output": "embeddings",
        "graphs": [graph],
    }
    bundle = {
        "format": "plait-bundle",
        "version": 1,
        "kind": "alignment",
        "name": "x",
        "plait": "0.1.0",
        "model": "0123",
        "dim": 4,
        "scale": 10.0,
        "bias": None,
        "towers": {"image": tower},
        "files": {"image.onnx": "00"},
    }
    fusion = {**bundle, "kind": "fusion", "labels": ["a", "b"], "question": "{}"}
    fusion["independent"] = True
    preprocess = {"size": [8, 8], "resize": "squash", "crop_fraction": 1.0, "mean": [0.5] * 3}
    preprocess |= {"interpolation": "bilinear", "std": [0.5] * 3, "fill": [255] * 3}
    preprocess["crop_rounding"] = "even"
    encoder = {"family": "scratch", "kind": "cnn", "widths": [4], "preprocess": preprocess}
    projection = {"kind": "linear", "width": 4, "dim": 4, "bias": True, "dropout": 0.0, "heads": 1}
    model = {
        "format": "plait-model",
        "version": 1,
        "kind": "alignment",
        "towers": {"image": {"encoder": encoder, "projection": projection}},
        "max_scale": 100.0,
        "bias": False,
    }
    recipes = [recipe_text(entry["name"]).encode() for entry in list_recipes()]
    small = [b"r" + one for one in sorted(recipes, key=len)[:6]]
    aliases = b"ra: &a [1, 2]\nb: [*a, *a]\n<<: {c: 1}\n"
    values = ((b"i", index), (b"b", bundle), (b"b", fusion), (b"m", model), (b"j", [1, {"a": {}}]))
    return [*small, aliases, *(kind + json.dumps(value).encode() for kind, value in values)]


_WORDS_OF_FILTERS = [
    "and",
    "or",
    "not",
    "in",
    "like",
    "is",
    "null",
    "true",
    "false",
    "<=",
    ">=",
    "!=",
    "<>",
    "==",
    "(",
    ")",
    ",",
    "'",
    '"',
    "%",
    "_",
    "''",
]
_NAMES = ["id", "text", "path", "modality", "language", *_FACTS]

TARGETS = (
    Target(
        "decoders",
        decode,
        seeds.pictures,
        (UserError,),
        words=(b"IHDR", b"IDAT", b"tRNS", b"PLTE", b"acTL", b"fcTL", b"iCCP", b"zTXt", b"iTXt")
        + (b"eXIf", b"\xff\xd8", b"\xff\xda", b"\xff\xc0", b"\xff\xc2", b"\xff\xe1", b"VP8X")
        + (b"ANIM", b"ALPH", b"ftypavif", b"jp2c", b"II*\0", b"MM\0*", b"GIF89a", b"P6\n"),
        repair=seeds.with_png_checks,
        longest=16_384,
        memory=192 * MIB,
    ),
    Target(
        "readers",
        read,
        seeds.readable,
        (UserError,),
        words=(b"cat.png", b"image", b"text", b"caption", b"PAR1", b"ustar", b"\xef\xbb\xbf")
        + (b"\xff\xfe", b"annotations", b"image_id", b"questions", b"sentences", b"conversations")
        + (b"NaN", b"null", b"1e999", b"\\ud800", b"[[", b'{"', b'""', b"\r\n", b"\0", b"../"),
        repair=lambda data: data[:1] + seeds.with_tar_checks(data[1:]) if data[257:] else data,
        longest=8192,
        memory=256 * MIB,
    ),
    Target(
        "filters",
        any_filter,
        lambda: [
            b"split = 'test' and text like '%cat%' and year >= 2020",
            b"not (id in ('1', 'a''b', 3, true) or \"path\" is not null)",
            b"text not like '_a%' or score <> -1.5e10 and ok != false",
            b':{"split": "test", "year": [1, 2.5, true], "path": null}',
        ],
        (UserError,),
        words=[word.encode() for word in (*_WORDS_OF_FILTERS, *_NAMES)],
        longest=60_000,
        memory=128 * MIB,
    ),
    Target(
        "manifests",
        manifest,
        manifests,
        (UserError,),
        words=(b"&a", b"*a", b"<<: ", b"!!python/object:", b"null", b"1e999", b"NaN", b"- ", b"? ")
        + (b"stages", b"towers", b"encoder", b"format", b"version", b"\\ud800", b"[[[[", b"{{{{"),
        longest=8192,
        memory=256 * MIB,
    ),
)
