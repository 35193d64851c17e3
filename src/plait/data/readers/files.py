"""Finding the files that rows name, and decoding text files line by line."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from plait.core.errors import DataError, cut_path
from plait.core.errors import shown as cut
from plait.core.files import regular
from plait.core.media import FileRef
from plait.data.readers import spelling
from plait.data.readers.encoding import STATED, guess, option, stated_for
from plait.data.readers.leave import OUTSIDE, Leave
from plait.data.readers.rows import Bad
from plait.modalities.image import forms

AUDIO_SUFFIXES = frozenset(["wav", "flac", "ogg", "mp3", "opus", "m4a"])
VIDEO_SUFFIXES = frozenset(["mp4", "webm", "mkv", "mov", "avi"])
SENSOR_SUFFIXES = frozenset(["npy", "npz", "ts"])
MEDIA_SUFFIXES = forms.DECODABLE | AUDIO_SUFFIXES | VIDEO_SUFFIXES | SENSOR_SUFFIXES
MOST_TEXT = 16 << 20  # bytes of a line, or of a file that is one text
MOST_DOCUMENT = 1 << 30  # bytes of a file that is parsed whole
MOST_NAME = 4096  # characters of a stated name: no file system has longer paths
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
    """Whether a name ends like that of a picture which is decoded here."""
    return suffix(name) in forms.decoded()


def shown(name: str) -> str:
    """A file name for ids and messages: bytes that are no UTF-8 become question marks."""
    return (
        name if name.isascii() else name.encode(errors="surrogateescape").decode(errors="replace")
    )


_OF_SYSTEMS = frozenset(
    [
        "@eadir",
        "__macosx",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "#recycle",
        "@recycle",
    ]
)  # thumbnails of network drives, leavings of archives, deleted files


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or a system keeps it for itself."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def walk(folder: Path) -> Iterator[str]:
    """Every file under ``folder`` as a relative POSIX path, sorted, hidden ones left out."""
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
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
        leave: where files may lie besides ``roots`` and ``wide``.

    Attributes:
        own: folders below which named files may lie without the user's leave.
        used: how many files each root gave.
    """

    def __init__(
        self, roots: Sequence[Path], wide: Sequence[Path] = (), leave: Leave | None = None
    ) -> None:
        self.roots = list(dict.fromkeys(roots))
        self._wide_from = list(dict.fromkeys(wide))
        self._wide: list[Path] | None = None
        self.own = list(dict.fromkeys([*roots, *wide]))
        self.leave = leave or Leave()
        self._permitted: dict[Path, bool] = {}
        self._links: set[Path] = set()  # and whatever else is no plain file
        self._listings: dict[Path, dict[str, str]] = {}
        self._near_names: dict[Path, dict[str, str]] = {}
        self._inner: dict[Path, dict[str, str]] = {}  # folders of a folder by composed name
        self._tops: dict[Path, frozenset[str]] = {}
        self._cases: dict[tuple[Path, str], Path] = {}
        self._flat: dict[Path, str] = {}  # which folder of another computer each folder was
        self._known: dict[str, FileRef] = {}
        self.used: dict[Path, int] = {}

    def find(self, name: str) -> FileRef:
        """The file.

        Raises:
            Bad: it is missing, remote, in several places, no regular file, or lies outside.
        """
        if name not in self._known:  # a picture has a row for each of its captions
            self._known[name] = self._find(name.strip())
        return self._known[name]

    def _find(self, name: str) -> FileRef:
        if len(name) > MOST_NAME or "\0" in name:
            raise Bad("missing-file", f"no file is called {cut(name)}")
        if name.startswith(("http://", "https://")):
            raise Bad(
                "remote-file",
                f"{cut_path(name)} is on the web: fetch the pictures first, for example with img2dataset, and name the files",
            )
        stated, name = name, spelling.local(name)
        plain = name.replace("\\", "/")
        for attempt in dict.fromkeys([name, plain]):
            found = self._in(self.roots, attempt)
            if found:
                return self._checked(FileRef(found[0], attempt))
        if found := self._only(plain):
            return self._checked(FileRef(found[0], plain))
        for other in spelling.others(name):
            if found := self._in(self.roots, other) or self._only(other):
                return self._checked(FileRef(found[0], other, stated))
        if elsewhere := self._moved(name):
            return self._checked(FileRef(*elsewhere, stated))
        self._refuse(name)
        raise Bad(
            "missing-file",
            f"there is no file {cut_path(name)} (looked in {self.roots[0]}){self._near(plain)}",
        )

    def _only(self, name: str) -> list[Path]:
        """The file in one of the subfolders. Raises `Bad` where several have one."""
        found = self._in(self._subfolders(), name, everywhere=True)
        if (
            len(found) > 1 and len(set(map(os.path.realpath, found))) > 1
        ):  # no folder and a link to it
            both = " and ".join(str(path) for path in found[:2])
            raise Bad("ambiguous-file", f"{cut_path(name)} is both {both}: state its folder too")
        return found

    def _moved(self, name: str) -> tuple[Path, str] | None:
        """A file of the same name in the same folder, that another computer had elsewhere.

        Whether there is a file at the stated place is not looked at. A bare name counts only where
        the name is a whole path, and for one folder of that computer.
        """
        for folder, rest in spelling.tails(name):
            first, inner, _ = unicodedata.normalize("NFC", rest).partition("/")
            if not inner and not spelling.is_of_a_computer(name):
                return None
            places = self.roots if inner else [*self.roots, *self._subfolders()]
            near = [one for one in places if self._permits(one) and first in self._top(one, inner)]
            found = [path for one in near for path in self._in([one], rest)]
            if found and inner:
                return found[0], rest
            if len(found) == 1 and self._flat.setdefault(found[0].parent, folder) == folder:
                return found[0], rest
        return None

    def _top(self, root: Path, folders: str) -> Collection[str]:
        """The names of the folders in a root, or of its files where none are asked for."""
        if not folders:
            return self._listing(root)
        if root not in self._tops:
            composed = (unicodedata.normalize("NFC", one.name) for one in _folders(root))
            self._tops[root] = frozenset(composed)
        return self._tops[root]

    def _checked(self, ref: FileRef) -> FileRef:
        """The same. Raises `Bad` for a link that leads outside, and for what is no regular file."""
        if ref.path in self._links:
            if not self.leave.permits(ref.path, self.own):
                raise Bad(OUTSIDE, self.leave.refusal(ref.name, ref.path))
            try:
                regular(ref.path)
            except DataError as error:
                raise Bad("unreadable-file", f"{ref.name} {error.problem}") from None
        return ref

    def _permits(self, folder: Path) -> bool:
        """Whether a folder may be looked into: what lies elsewhere is not even listed."""
        if folder not in self._permitted:
            self._permitted[folder] = self.leave.permits(folder, self.own)
        return self._permitted[folder]

    def _refuse(self, name: str) -> None:
        """Raises `Bad` for a name that was nowhere looked for, as it leads outside."""
        for attempt in dict.fromkeys([name, name.replace("\\", "/")]):
            places = [root / attempt for root in self.roots]
            if places and not any(self._permits(place.parent) for place in places):
                raise Bad(OUTSIDE, self.leave.refusal(name, places[0]))

    def _near(self, name: str) -> str:
        """A hint at a file whose name differs in upper and lower case or in the ending alone."""
        folder, _, base = name.rpartition("/")
        wanted = base.casefold()
        for root in self.roots:
            if (root, folder) not in self._cases:
                self._cases[root, folder] = self._cased(root, folder)
            place = self._cases[root, folder]
            listing = self._folded(place) if self._permits(place) else {}
            near = listing.get(wanted) or listing.get(stem(wanted))
            if near is not None:
                inside = f"{os.path.relpath(place, root)}/" if folder and place != root else ""
                return f"; did you mean {shown(inside + near)!r}?"
        for root in [*self.roots, *self._subfolders()]:
            listing = self._folded(root) if self._permits(root) else {}
            if folder and (near := listing.get(wanted)) is not None:
                inside = os.path.relpath(root / near, self.roots[0])
                return f"; did you mean {shown(inside)!r}?"
        return ""

    def _cased(self, root: Path, folder: str) -> Path:
        """The folder, with upper and lower case as on the disk where only that differs."""
        place = root / folder
        if not self._permits(root) or ".." in folder or folder.startswith("/") or place.is_dir():
            return place
        place = root
        for part in folder.split("/"):
            cased = {one.name.casefold(): one.name for one in _folders(place)}
            place /= cased.get(part.casefold(), part)
        return place

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
            if not folder.isascii() and not place.is_dir():
                place = self._spelled(root, folder)
            real = self._listing(place).get(base) if self._permits(place) else None
            if real is not None:
                found.append(place / real)
                self.used[root] = self.used.get(root, 0) + 1
                if not everywhere or name.startswith("/"):
                    break
        return found

    def _spelled(self, root: Path, folder: str) -> Path:
        """The folder with its accents composed as on the disk, where only that differs."""
        place = Path("/") if folder.startswith("/") else root
        for part in folder.split("/"):
            if part in ("", ".", "..") or (place / part).is_dir() or not self._permits(place):
                place /= part
                continue
            wanted = unicodedata.normalize("NFC", part)
            if place not in self._inner:
                self._inner[place] = {
                    unicodedata.normalize("NFC", one.name): one.name for one in _folders(place)
                }
            place /= self._inner[place].get(wanted, part)
        return place

    def _listing(self, folder: Path) -> dict[str, str]:
        if folder not in self._listings:
            try:
                with os.scandir(folder) as entries:
                    files = [entry for entry in entries if not _is_folder(entry)]
            except (OSError, ValueError):  # ValueError: a null byte
                files = []  # no such folder: whatever is looked for in it is missing
            names = [entry.name for entry in files]
            self._links.update(
                folder / entry.name for entry in files if not entry.is_file(follow_symlinks=False)
            )
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


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if _is_folder(e) and not is_hidden(e.name)]
    except OSError:
        return []  # not ours to read: the file will be reported missing
    return [folder / name for name in sorted(names)]


class Lines:
    """The lines of a text file one by one (see `decoded`), none longer than `MOST_TEXT`.

    Args:
        path: the file.
        newline: as `open` takes it.

    Attributes:
        head: the first characters of the file.
        taken: characters since the user of the lines last set it to 0; at most 4 * `MOST_TEXT`.
    """

    def __init__(self, path: Path, newline: str) -> None:
        regular(path, None)
        self.path, self.newline, self.taken = path, newline, 0
        try:
            with path.open("rb") as file:
                data = file.read(1 << 16)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", path=path) from error
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        try:
            stated = None if wide or data[:3] == b"\xef\xbb\xbf" else stated_for(data)
        except DataError as error:
            raise DataError(error.problem, path=path) from None
        self._encoding, self._errors = (
            ("utf-16", "strict") if wide else (stated or "utf-8-sig", "surrogateescape")
        )
        self.head = data.decode(self._encoding, "replace" if wide else self._errors)

    def __iter__(self) -> Iterator[str]:
        try:
            with self.path.open(
                encoding=self._encoding, errors=self._errors, newline=self.newline
            ) as file:
                number = 0
                while line := file.readline(MOST_TEXT + 1):
                    number += 1
                    self.taken += len(line)
                    if len(line) > MOST_TEXT or self.taken > 4 * MOST_TEXT:
                        raise DataError(
                            f"has more than {MOST_TEXT:,} characters", path=self.path, row=number
                        )
                    yield line
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", path=self.path) from error
        except UnicodeDecodeError as error:
            raise DataError(f"is not valid UTF-16: {error.reason}", path=self.path) from error


def decoded(data: bytes) -> tuple[str, bool]:
    """Text of a file, and whether all of it is valid.

    UTF-8 with or without a byte order mark, UTF-16 with one, or what `STATED` says. Bytes that are no UTF-8 become
    surrogates, so that one bad line can be told from the good ones (`check_text`).
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16"), True
    encoding = "utf-8" if data[:3] == b"\xef\xbb\xbf" else stated_for(data[: 1 << 16]) or "utf-8"
    if data[:3] == b"\xef\xbb\xbf":
        data = data[3:]
    try:
        return data.decode(encoding), True
    except UnicodeDecodeError:
        return data.decode(encoding, "surrogateescape"), False


def check_text(line: str) -> None:
    """Raises `Bad` when a line of `decoded` held bytes that are no UTF-8."""
    try:
        line.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = ord(line[error.start]) - 0xDC00
        stated = STATED.get()
        likely = None if stated else guess(line.encode("utf-8", "surrogateescape"))
        hint = ""
        if likely:
            hint = f"it looks like {likely}: {option(likely)}; else "
        raise Bad(
            "bad-encoding",
            f"byte 0x{byte:02x} at character {error.start + 1} is not valid {stated or 'UTF-8'}: "
            f"{hint}save the file as UTF-8",
        ) from None
