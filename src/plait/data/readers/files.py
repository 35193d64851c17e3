"""Finding the files that rows name, and decoding text files line by line."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from plait.data.readers.rows import Bad
from plait.data.sample import FileRef

IMAGE_SUFFIXES = frozenset(
    ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "jfif", "avif"]
)
AUDIO_SUFFIXES = frozenset(["wav", "flac", "ogg", "mp3", "opus", "m4a"])
VIDEO_SUFFIXES = frozenset(["mp4", "webm", "mkv", "mov", "avi"])
SENSOR_SUFFIXES = frozenset(["npy", "npz", "ts"])
MEDIA_SUFFIXES = IMAGE_SUFFIXES | AUDIO_SUFFIXES | VIDEO_SUFFIXES | SENSOR_SUFFIXES
_SUFFIX = re.compile(r"\.([A-Za-z0-9]{1,5})$")


def suffix(name: str) -> str:
    """``jpg`` of ``a/B.JPG``; empty without a dot."""
    base = name.rsplit("/", 1)[-1]
    return base.rsplit(".", 1)[-1].lower() if "." in base else ""


def stem(name: str) -> str:
    """A path without the ending of a media file: ``a/b.v2.jpg`` gives ``a/b.v2``."""
    match = _SUFFIX.search(name)
    return name[: match.start()] if match and match[1].lower() in MEDIA_SUFFIXES else name


def is_image(name: str) -> bool:
    """Whether a name ends like a picture's."""
    return suffix(name) in IMAGE_SUFFIXES


def shown(name: str) -> str:
    """A file name for ids and messages: bytes that are no UTF-8 become question marks."""
    return (
        name if name.isascii() else name.encode(errors="surrogateescape").decode(errors="replace")
    )


def walk(folder: Path) -> Iterator[str]:
    """Every file under ``folder`` as a relative POSIX path, sorted, hidden ones left out."""
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(base, folder)
        prefix = "" if inside == "." else inside.replace(os.sep, "/") + "/"
        yield from (prefix + name for name in sorted(files) if not name.startswith("."))


class Finder:
    """Finds files by stated names, each folder listed once.

    A name is looked for from ``roots``, in order. Only where all of them lack it, the folders
    inside ``wide`` (two levels) are tried too: captions often name files without their folder.

    Args:
        roots: folders that names may start from.
        wide: folders whose subfolders may hold the files.
    """

    def __init__(self, roots: Sequence[Path], wide: Sequence[Path] = ()) -> None:
        self.roots = list(dict.fromkeys(roots))
        self._wide_from = list(dict.fromkeys(wide))
        self._wide: list[Path] | None = None
        self._listings: dict[Path, dict[str, str]] = {}
        self._near_names: dict[Path, dict[str, str]] = {}
        self._known: dict[str, FileRef] = {}
        self.used: dict[Path, int] = {}

    def find(self, name: str) -> FileRef:
        """The file. Raises `Bad` when it is missing, empty, remote or in several places."""
        if name not in self._known:  # a picture has a row for each of its captions
            self._known[name] = self._find(name.strip())
        return self._known[name]

    def _find(self, name: str) -> FileRef:
        if name.startswith(("http://", "https://")):
            raise Bad("remote-file", f"{name} is on the web: download it and name the file")
        if name.startswith("file://"):
            name = name[len("file://") :]
        for attempt in dict.fromkeys([name, name.replace("\\", "/")]):
            found = self._in(self.roots, attempt)
            if found:
                return FileRef(found[0], attempt)
        found = self._in(self._subfolders(), name.replace("\\", "/"), everywhere=True)
        if len(found) > 1:
            both = " and ".join(str(path) for path in found[:2])
            raise Bad("ambiguous-file", f"{name} is both {both}: state its folder too")
        if found:
            return FileRef(found[0], name.replace("\\", "/"))
        hint = self._near(name.replace("\\", "/"))
        raise Bad("missing-file", f"there is no file {name} (looked in {self.roots[0]}){hint}")

    def _near(self, name: str) -> str:
        """A hint at a file whose name differs in upper and lower case or in the ending alone."""
        folder, _, base = name.rpartition("/")
        wanted = base.casefold()
        for root in self.roots:
            listing = self._folded(root / folder)
            near = listing.get(wanted) or listing.get(stem(wanted))
            if near is not None:
                return f"; did you mean {shown(near)!r}?"
        return ""

    def _folded(self, folder: Path) -> dict[str, str]:
        """Names of media files of a folder, by lower-case name and by lower-case stem."""
        if folder not in self._near_names:
            names: dict[str, str] = {}
            for base in self._listing(folder):
                if suffix(base) in MEDIA_SUFFIXES:
                    names.setdefault(stem(base.casefold()), base)
                    names[base.casefold()] = base
            self._near_names[folder] = names
        return self._near_names[folder]

    def _in(self, roots: Sequence[Path], name: str, everywhere: bool = False) -> list[Path]:
        folder, _, base = name.rpartition("/")
        base = unicodedata.normalize("NFC", base)
        found = []
        for root in roots:
            place = root / (folder or "/") if name.startswith("/") else root / folder
            real = self._listing(place).get(base)
            if real is not None:
                found.append(place / real)
                self.used[root] = self.used.get(root, 0) + 1
                if not everywhere or name.startswith("/"):
                    break
        return found

    def _listing(self, folder: Path) -> dict[str, str]:
        if folder not in self._listings:
            try:
                with os.scandir(folder) as entries:
                    names = [entry.name for entry in entries if not entry.is_dir()]
            except OSError:
                names = []  # no such folder: whatever is looked for in it is missing
            self._listings[folder] = {unicodedata.normalize("NFC", name): name for name in names}
        return self._listings[folder]

    def _subfolders(self) -> list[Path]:
        if self._wide is None:
            first = [inner for folder in self._wide_from for inner in _folders(folder)]
            second = [inner for folder in first for inner in _folders(folder)]
            roots = set(self.roots)
            every = dict.fromkeys([*self._wide_from, *first, *second])
            self._wide = [folder for folder in every if folder not in roots]
        return self._wide


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
    except OSError:
        return []  # not ours to read: the file will be reported missing
    return [folder / name for name in sorted(names)]


def decoded(data: bytes) -> tuple[str, bool]:
    """Text of a file, and whether all of it is valid.

    UTF-8 with or without a byte order mark, or UTF-16 with one. Bytes that are no UTF-8 become
    surrogates, so that one bad line can be told from the good ones (`check_text`).
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16"), True
    if data[:3] == b"\xef\xbb\xbf":
        data = data[3:]
    try:
        return data.decode("utf-8"), True
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape"), False


def check_text(line: str) -> None:
    """Raises `Bad` when a line of `decoded` held bytes that are no UTF-8."""
    try:
        line.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = ord(line[error.start]) - 0xDC00
        raise Bad(
            "bad-encoding",
            f"byte 0x{byte:02x} at character {error.start + 1} is not valid UTF-8: "
            "save the file as UTF-8",
        ) from None
