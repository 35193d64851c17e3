"""What a path holds, by its content: names of files only order the guesses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from plait.core.errors import DataError, UserError
from plait.core.files import parse_json, regular
from plait.data.base.notes import Note, with_notes
from plait.data.base.notes import names as names_of
from plait.data.base.splits import in_splits, splits_of_names
from plait.data.readers import chinese_clip, dicom, spreadsheet
from plait.data.readers.albums import no_labels
from plait.data.readers.columns import lists_addresses
from plait.data.readers.entries import is_entry
from plait.data.readers.files import decoded, is_image, walk
from plait.data.readers.leave import Leave
from plait.data.readers.rows import Found
from plait.data.readers.sidecars import sidecars, telling
from plait.data.readers.table import about_pictures, head_of, of_pairs
from plait.data.readers.unread import ARCHIVES, SHEETS, undecoded_notes

READERS: dict[str, str] = {
    "imagefolder": "plait.data.readers.imagefolder:read",
    "classfolder": "plait.data.readers.imagefolder:read_classes",
    "sidecar": "plait.data.readers.imagefolder:read_sidecars",
    "images": "plait.data.readers.imagefolder:read_bare",
    "table": "plait.data.readers.table:read",
    "parquet": "plait.data.readers.parquet:read",
    "webdataset": "plait.data.readers.webdataset:read",
    "coco": "plait.data.readers.coco:read",
    "karpathy": "plait.data.readers.karpathy:read",
    "flickr8k": "plait.data.readers.flickr8k:read",
    "llava": "plait.data.readers.llava:read",
    "vqa": "plait.data.readers.vqa:read",
    "entries": "plait.data.readers.entries:read",
    "chinese-clip": "plait.data.readers.chinese_clip:read",
    "dicom": "plait.data.readers.dicom:read",
    "huggingface": "plait.data.readers.huggingface:read",
}
"""Format name to the generator of its rows."""

_WHY = {
    "table": "a table with named columns",
    "parquet": "Parquet files",
    "webdataset": "uncompressed tar shards",
    "coco": 'JSON with "images" and "annotations" that hold captions',
    "karpathy": 'JSON whose "images" hold "sentences"',
    "flickr8k": "lines of picture name and caption, as Flickr8k writes them",
    "llava": 'entries with "conversations" or "messages"',
    "vqa": 'JSON with "questions"',
    "entries": "one JSON object a picture",
}
_HEAD = 1 << 16
_PARSED = 4 << 20  # larger JSON is told by its first and last bytes: parsing it takes seconds
_FLICKR_ROW = re.compile(r'^("[^"]+"|.+?\.\w{3,4})\s*,')
_FLICKR_TOKEN = re.compile(r"^[^\t]+\.\w{3,4}#\d+\t")
_FLICKR_CSV = re.compile(r"^image(_name|_id)?\s*,\s*(caption|comment)s?\s*$", re.IGNORECASE)
_TEXT_FILES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json")


def detect(
    path: Path, leave: Leave | None = None, columns: Mapping[str, str] | None = None
) -> Found:
    """What ``path`` holds; the user's ``columns`` tell which of several tables is meant.

    Raises:
        DataError: nothing plait reads, or several things at once.
    """
    if not path.is_dir():
        base = chinese_clip.texts_of(path.name) or path.name
        pictures = base.removesuffix("_texts.jsonl") + "_imgs.tsv"
        if (
            base != pictures
            and path.with_name(base).is_file()
            and path.with_name(pictures).is_file()
        ):
            pairs = chinese_clip.find(path.parent, [base, pictures])
            if pairs is not None:
                pairs.root = path
                return pairs
        kind = file_kind(path)
        if kind is None:
            raise DataError(_not_readable(path), path=path)
        return Found(kind, path, (path,), f"{path.name}: {_WHY[kind]}")
    reasons: dict[str, str] = {}
    found = _folder(path, leave or Leave(), columns or {}, reasons)
    found.reasons.update(reasons)
    return found


def _not_readable(path: Path) -> str:
    if path.suffix.lower() in ARCHIVES:
        return "is packed: unpack it first (shards must be uncompressed .tar files)"
    if path.suffix.lower() in SHEETS:
        if path.suffix.lower() in spreadsheet.SUFFIXES:
            return "is no readable workbook: save it again, or as CSV (UTF-8)"
        return "is a spreadsheet of a form that plait does not read: save it as XLSX or CSV (UTF-8)"
    if path.is_file() and path.suffix.lower() == ".txt" and _is_list_of_addresses(path):
        return (
            "lists addresses of pictures in the web, not pictures: fetch them, for example with "
            f"img2dataset --url_list {path.name} --output_folder pictures, and name that folder"
        )
    if is_image(path.name):
        return "is one picture: name a folder or a table of pictures"
    return f"holds nothing that plait reads (formats: {', '.join(READERS)})"


def file_kind(path: Path) -> str | None:
    """The format of one file, from its first bytes; JSON that is not lines is parsed whole."""
    regular(path, None)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=path) from error
    if head[:4] == b"PAR1":
        return "parquet"
    if head[257:262] == b"ustar" or (path.suffix == ".tar" and head[:1] == b"\0"):
        return "webdataset"
    if path.suffix.lower() in spreadsheet.SUFFIXES:
        return "table" if spreadsheet.is_workbook(path) else None
    if path.suffix.lower() not in _TEXT_FILES:
        return None
    if not head.strip():
        return None
    text = (
        head.decode("utf-16", "replace")
        if head[:2] in (b"\xff\xfe", b"\xfe\xff")
        else decoded(head)[0]
    )
    text = text.lstrip()
    if text[:1] in ("{", "[") and path.suffix.lower() not in (".csv", ".tsv"):
        return _json_kind(path, text)
    lines = text.splitlines()
    if not lines:  # of signs that are spaces in Unicode alone
        return None
    if _FLICKR_TOKEN.match(lines[0]):
        return "flickr8k"
    if _FLICKR_CSV.match(lines[0]) and len(lines) > 1 and _FLICKR_ROW.match(lines[1]):
        return "flickr8k"
    columns = max(lines[0].count(mark) for mark in ",\t;|")
    return "table" if columns or path.suffix.lower() in (".csv", ".tsv", ".jsonl") else None


def _json_kind(path: Path, text: str) -> str | None:
    first = text.split("\n", 1)[0]
    try:
        entry = parse_json(first)
        whole = entry if "\n" not in text.rstrip() and len(text) < _HEAD else None
    except ValueError:
        entry = whole = None
    if isinstance(entry, dict) and not _document_kind(entry):  # JSON lines
        alone = whole is not None and path.suffix.lower() == ".json"
        if alone and not _is_talk(entry) and is_entry(entry, path):
            return "entries"
        return "llava" if _is_talk(entry) else "table"
    if "\n" not in text and whole is None and path.suffix.lower() in (".jsonl", ".ndjson"):
        return "llava" if _large_kind(path) == "llava" else "table"  # a first line beyond the head
    if whole is None and path.stat().st_size > _PARSED:
        return _large_kind(path)
    if whole is None:
        try:
            whole = parse_json(decoded(path.read_bytes())[0])
        except ValueError as error:
            if path.suffix.lower() == ".jsonl":
                return "table"  # its bad first line is a bad row
            if path.suffix.lower() == ".txt":
                return None  # words that begin with a bracket
            raise DataError(f"is no valid JSON: {error}", path=path) from None
    if isinstance(whole, dict):
        return _document_kind(whole) or ("entries" if is_entry(whole, path) else None)
    entries = [entry for entry in whole[:20] if isinstance(entry, dict)]
    if any(map(_is_talk, entries)):
        return "llava"
    return "table" if entries else None


def _is_talk(entry: dict[str, object]) -> bool:
    """Whether an entry holds turns: a column of texts may be called ``messages`` too."""
    turns = entry.get("messages")
    return "conversations" in entry or (
        isinstance(turns, list) and any(isinstance(turn, dict) and "role" in turn for turn in turns)
    )


def _large_kind(path: Path) -> str | None:
    with path.open("rb") as file:
        text = file.read(_HEAD)
        file.seek(max(0, path.stat().st_size - _HEAD))
        text += file.read()
    for key, kind in (
        (b'"conversations"', "llava"),
        (b'"role"', "llava"),
        (b'"sentences"', "karpathy"),
        (b'"question"', "vqa"),
        (b'"multiple_choice_answer"', "vqa"),
        (b'"segmentation"', None),  # COCO's objects, which lie beside the captions
        (b'"keypoints"', None),
        (b'"annotations"', "coco"),
        (b'"image_id"', "coco"),
    ):
        if key in text:
            return kind
    return "table" if text[:1] == b"[" else None


def _document_kind(document: dict[str, object]) -> str | None:
    def keys(name: str) -> set[str]:
        entries = document.get(name)
        some = entries[:20] if isinstance(entries, list) else []
        return {key for entry in some if isinstance(entry, dict) for key in entry}

    if "sentences" in keys("images"):
        return "karpathy"
    if "question" in keys("questions"):
        return "vqa"
    if "answers" in keys("annotations"):
        return "vqa"
    if "images" in document and "annotations" in document:
        return "coco" if "caption" in keys("annotations") else None
    return None


def _folder(root: Path, leave: Leave, columns: Mapping[str, str], reasons: dict[str, str]) -> Found:
    names = list(walk(root))
    if not names:
        raise DataError("is an empty folder", path=root, nothing=True)
    if "dataset_dict.json" in names or {"dataset_info.json", "state.json"} <= set(names):
        return Found("huggingface", root, (root,), "a folder that datasets' save_to_disk wrote")
    metadata = [
        name for name in names
        if name.rsplit("/", 1)[-1] in ("metadata.csv", "metadata.jsonl", "metadata.parquet")
    ]  # fmt: skip
    for name in metadata:
        leave.check(root / name, [root])
    if metadata and not _only_beside(root, names, metadata, leave, columns):
        return _with_files("imagefolder", root, metadata, "metadata beside pictures: ")
    pairs = chinese_clip.find(root, names)
    if pairs is not None:
        return pairs
    beside = sidecars(names)
    pictures = [name for name in names if is_image(name)]
    told = telling(root, beside, leave) if beside else 0
    mostly_beside = told > 0 and told * 2 >= len(pictures)
    apart = {file for own in beside.values() for file in own.values()}
    found = dict(_candidates(root, [name for name in names if name not in apart], leave))
    if pictures:  # img2dataset lists what it fetched, and failed to fetch, in Parquet files
        lists = [
            name for name, kind in found.items()
            if not columns and _of_addresses(root / name, kind, beside=mostly_beside)
        ]  # fmt: skip
        reasons |= dict.fromkeys(lists, "it lists addresses in the web, which img2dataset fetches")
    entries = [name for name, kind in found.items() if kind == "entries"]
    found = {name: kind for name, kind in found.items() if name not in reasons}
    found = _of_pictures(root, found, bool(pictures), columns)
    if len(entries) * 2 < len(pictures) or len(entries) < len(found):
        reasons |= dict.fromkeys(entries, "it is one row, and the others come from elsewhere")
        found = {name: kind for name, kind in found.items() if kind != "entries"}
    kinds = set(found.values())
    if len(kinds) > 1:
        kinds = _preferred(kinds)
    if len(kinds) > 1:
        shown = ", ".join(f"{name} ({kind})" for name, kind in sorted(found.items())[:6])
        raise DataError(f"holds several data sets: {shown}: name one of the files", path=root)
    if kinds:
        kind = kinds.pop()
        files = [name for name, its in found.items() if its == kind]
        if kind == "table" and len(files) > 1 and not any(splits_of_names(files).values()):
            shown = ", ".join(files[:6])
            raise DataError(f"holds several tables: {shown}: name one of them", path=root)
        return _with_files(kind, root, files, f"{_WHY[kind]}: ")
    scans = None if mostly_beside else dicom.found_in(root, names, pictures)
    if scans is not None:
        return scans
    if not pictures:
        one = next((name for name in names if _is_packed(name)), None) or next(
            (name for name in names if _is_list_of_addresses(root / name)), None
        )
        if one is not None:
            raise DataError(_not_readable(root / one), path=root / one)
        problem = with_notes(_not_readable(root), undecoded_notes(root, names))
        raise DataError(problem, path=root, nothing=True)
    classes = any("/" in rest for _, _, rest in in_splits(pictures))
    if mostly_beside or (told and not classes):
        endings = sorted({ending for own in beside.values() for ending in own})
        why = f"pictures with a {' or '.join(endings)} of the same name each"
        return Found("sidecar", root, (), why)
    if reasons and len(beside) * 2 > len(pictures):  # img2dataset's shards without captions
        reasons |= dict.fromkeys(apart, "it holds no text such as a caption")
        return Found("images", root, (), "pictures with JSON beside them that holds no texts")
    inner = [rest.rpartition("/")[0] for _, _, rest in in_splits(pictures)]
    albums = no_labels(folder for folder in inner if folder)
    if albums:
        found_bare = Found("images", root, (), "pictures in folders whose names are no labels")
        words = f"folders such as {names_of(albums)} are no classes: the pictures have no texts"
        found_bare.notes.append(Note(words, "no-label-folder", albums))
        return found_bare
    if any("/" in name for name in pictures):
        return Found("classfolder", root, (), "pictures in class folders, no metadata")
    return Found("images", root, (), "pictures without metadata or class folders: no texts")


def _of_pictures(
    root: Path, found: dict[str, str], pictures: bool, columns: Mapping[str, str]
) -> dict[str, str]:
    """The files without the tables that state no pairs, where others do or there are pictures alone.

    Of several tables those count that have pictures and texts, and a workbook does not beside a
    plain table: it is what that was saved from.
    """
    tables = [name for name, kind in found.items() if kind == "table"]
    kept = tables
    if len(tables) > 1:
        good = [name for name in tables if of_pairs(root / name, columns)]
        kept = [name for name in good if not name.lower().endswith(spreadsheet.SUFFIXES)] or good
    if pictures and not columns and (kept == tables or not kept):
        kept = [name for name in tables if about_pictures(root / name)]
    kept = kept or ([] if pictures else tables)
    return {name: kind for name, kind in found.items() if kind != "table" or name in kept}


def _only_beside(
    root: Path,
    names: list[str],
    metadata: list[str],
    leave: Leave,
    columns: Mapping[str, str],
) -> bool:
    """Whether files called metadata state no pairs, and another table of the folder does."""
    if any(not name.endswith(".csv") or of_pairs(root / name, columns) for name in metadata):
        return False
    others = dict(_candidates(root, [name for name in names if name not in metadata], leave))
    return any(kind == "table" and of_pairs(root / name, columns) for name, kind in others.items())


def _of_addresses(path: Path, kind: str, *, beside: bool) -> bool:
    """Whether a table lists addresses in the web, by the names of its columns.

    Only that of img2dataset, with the key of each picture, is told from a list that is yet to fetch,
    unless there are texts ``beside`` the pictures.
    """
    if kind not in ("parquet", "table"):
        return False
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names if kind == "parquet" else head_of(path)[0]
    except (pa.ArrowException, OSError, UserError):
        return False  # reading it will say what is wrong
    return lists_addresses(names) and (beside or {"url", "key"} <= set(names))


def _is_list_of_addresses(path: Path) -> bool:
    """Whether a text file begins with an address in the web."""
    if path.suffix.lower() != ".txt" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8).lower().startswith((b"http://", b"https:/"))


def _is_packed(name: str) -> bool:
    return name.lower().endswith(ARCHIVES)


def _candidates(root: Path, names: list[str], leave: Leave) -> Iterator[tuple[str, str]]:
    """(name, format) of the files at most two folders deep that state rows."""
    for name in names:
        base = name.rsplit("/", 1)[-1].lower()
        if name.count("/") > 2 or is_image(base) or base.startswith(("readme", "license")):
            continue
        if base in ("requirements.txt", "dataset_infos.json") or base.endswith("_stats.json"):
            continue
        if not base.endswith((*_TEXT_FILES, *spreadsheet.SUFFIXES, ".tar", ".parquet")):
            continue
        if base.startswith("~$"):  # the lock of a workbook that is open in a spreadsheet program
            continue
        if base.endswith(spreadsheet.SUFFIXES) and not spreadsheet.available():
            continue  # a note names the extra
        if not (root / name).is_file():  # a link that leads nowhere, a pipe: a note says so
            continue
        leave.check(root / name, [root])
        kind = file_kind(root / name)
        if kind is not None:
            yield name, kind


def _preferred(kinds: set[str]) -> set[str]:
    """Known annotation formats before general tables, which often lie beside them."""
    special = kinds & {"flickr8k", "karpathy", "coco", "llava", "vqa", "webdataset"}
    if len(special) == 1:
        return special
    return kinds if special else kinds - {"table"}


def _with_files(kind: str, root: Path, names: list[str], why: str) -> Found:
    stated = splits_of_names(names)
    paths = tuple(root / name for name in names)
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    by_path = {root / name: stated[name] for name in names}
    return Found(kind, root, paths, why + shown, splits=by_path)
