"""Writing text of any script into a picture: each character in a font that has it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from PIL import ImageDraw, ImageFont

# A package of the extra ``demo``: Noto Sans SC under the Open Font License.
_PACKAGE = "pylopdf_fonts_zh_cn"
_SYSTEM = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/google-noto-cjk/NotoSansCJK-Regular.ttc",
    "/System/Library/Fonts/PingFang.ttc",
    "/System/Library/Fonts/Hiragino Sans GB.ttc",
    "C:/Windows/Fonts/msyh.ttc",
)
Length: TypeAlias = int | float  # pixels
MISSING = "\N{WHITE VERTICAL RECTANGLE}"
_SAMPLE = "红色的水果"
_QUOTES = str.maketrans("‘’“”", "''\"\"")


@lru_cache(maxsize=1)
def font_files() -> tuple[Path, ...]:
    """Fonts to try in turn: one with Chinese characters where there is any, then DejaVu Sans."""
    import matplotlib

    found = [path for path in (_packaged(), *map(Path, _SYSTEM), _asked()) if path]
    chinese = [path for path in found if path.is_file() and set(map(ord, _SAMPLE)) <= covered(path)]
    dejavu = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    return (*chinese[:1], dejavu)


def _packaged() -> Path | None:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "NotoSansSC-Regular.otf"


def _asked() -> Path | None:
    """What fontconfig gives for Chinese, where it is installed."""
    command = shutil.which("fc-match")
    if command is None:
        return None
    told = subprocess.run(
        [command, "-f", "%{file}", ":lang=zh-cn"], capture_output=True, text=True, check=False
    )
    return Path(told.stdout) if told.returncode == 0 and told.stdout else None


@lru_cache(maxsize=8)
def covered(path: Path) -> frozenset[int]:
    """The characters that a font has."""
    from fontTools.ttLib import TTFont

    with TTFont(path, fontNumber=0, lazy=True) as font:
        return frozenset(font.getBestCmap())


@dataclass(frozen=True)
class Script:
    """Text of one size in the fonts of this machine.

    Attributes:
        size: in pixels.
    """

    size: int

    def width(self, text: str) -> Length:
        """Pixels that a line takes."""
        return sum(_font(path, self.size).getlength(part) for path, part in self._runs(text))

    def draw(
        self, pen: ImageDraw.ImageDraw, place: tuple[Length, Length], text: str, colour: str
    ) -> None:
        """Writes a line whose baseline starts at ``place``."""
        x, y = place
        for path, part in self._runs(text):
            font = _font(path, self.size)
            pen.text((x, y), part, fill=colour, font=font, anchor="ls")
            x += font.getlength(part)

    def fitted(self, text: str, width: Length) -> str:
        """The text, or its beginning with an ellipsis where it is wider than ``width``."""
        text = " ".join(text.split())
        if self.width(text) <= width:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if self.width(text[:middle].rstrip() + "…") <= width:
                low = middle
            else:
                high = middle - 1
        return text[:low].rstrip() + "…"

    def wrapped(self, text: str, width: Length, lines: int) -> list[str]:
        """At most so many lines, broken at spaces or inside Chinese; the last may be shortened."""
        rest = " ".join(text.split())
        found: list[str] = []
        while rest and len(found) < lines - 1:
            if self.width(rest) <= width:
                break
            end = self._break(rest, width)
            found.append(rest[:end].rstrip())
            rest = rest[end:].lstrip()
        return [*found, self.fitted(rest, width)] if rest else found

    def _break(self, text: str, width: Length) -> int:
        fit = 1
        while fit < len(text) and self.width(text[: fit + 1]) <= width:
            fit += 1
        for end in range(fit, 0, -1):
            if text[end - 1] == " " or text[end] == " " or ord(text[end]) >= 0x2E80:
                return end
        return fit

    def _runs(self, text: str) -> Iterator[tuple[Path, str]]:
        """Stretches of text with the font for each."""
        current: Path | None = None
        part = ""
        if not any(ord(character) >= 0x2E80 for character in text):
            text = text.translate(_QUOTES)  # Chinese fonts draw curly ones as wide as a character
        for character in text:
            path = _font_of(character)
            if path is None:
                character, path = MISSING, font_files()[-1]
            if path != current and part and current is not None:
                yield current, part
                part = ""
            current, part = path, part + character
        if part and current is not None:
            yield current, part


def unwritable(text: str) -> bool:
    """Whether some character is in none of the fonts."""
    return any(_font_of(character) is None for character in text if not character.isspace())


@lru_cache(maxsize=4096)
def _font_of(character: str) -> Path | None:
    for path in font_files():
        if ord(character) in covered(path):
            return path
    return None


@lru_cache(maxsize=32)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)
