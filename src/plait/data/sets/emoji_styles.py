"""OpenMoji, and with it the same signs as others draw them, and icons: more pictures to learn from.

The unseen emoji are those of `plait.data.sets.openmoji`. Every further picture is for training, and
none of them shows or names a member of an unseen family: what has the code of one is left out in
every style, and so is every icon that is called by a name or an alias of one.

Pictures of one emoji share a group, whatever their style, and so do icons of one name, so that none is
a wrong answer for another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from plait.core.files import cache_home
from plait.data.dataset import PairDataset
from plait.data.sample import FileRef, Sample
from plait.data.sets import openmoji
from plait.data.sets.iconify import Icon, IconSet, read_icons
from plait.data.sets.openmoji import Emoji, base_of, has_skin_tone, hexcode_of, letters_of
from plait.data.sets.rasterise import rasterise_all

NAME = "emoji-styles"

SETS = (
    IconSet(
        "twemoji",
        "1.2.5",
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        "CC BY 4.0",
        "Twitter",
    ),
    IconSet(
        "noto",
        "1.2.9",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        "Apache-2.0",
        "Google",
    ),
    IconSet(
        "fluent-emoji-flat",
        "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        "MIT",
        "Microsoft",
    ),
    IconSet(
        "emojione",
        "1.2.3",
        "T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        "CC BY 4.0",
        "JoyPixels",
    ),
    IconSet(
        "game-icons",
        "1.2.4",
        "/HDDZxowXgDJcOEwPspUCq5RuDdl25OyZKdtxqqiPJQNTrWIym7r4StLzIVs77DyNzOWWhH5wDqwYR3WHeDfkg==",
        "CC BY 3.0",
        "the authors of game-icons.net",
    ),
)
"""Where further pictures come from; every sample names its licence and author."""

_TONE = re.compile(r"(light|medium|dark)-skin-tone|-(light|medium|medium-light|medium-dark|dark)$")
_PLURAL = re.compile(r"s\b")


class Names:
    """What a picture of another set is called, or that it must not be seen.

    Args:
        emoji: all, with skin tones.
        family: of each, by hexcode (see `openmoji.families`).
        unseen: the families that are asked for in validation and test.
    """

    def __init__(
        self, emoji: Sequence[Emoji], family: Mapping[str, str], unseen: Iterable[str]
    ) -> None:
        held = set(unseen)
        self._family = family
        self._of_code = {one.code: one for one in emoji}
        self._of_name: dict[str, Emoji] = {}
        for one in emoji:
            for name in one.names["en"]:
                self._of_name.setdefault(letters_of(name), one)
        self._texts = dict(
            zip((one.hexcode for one in emoji), openmoji.captions(emoji), strict=True)
        )
        self._held = {one.hexcode for one in emoji if family[one.hexcode] in held}
        self._forbidden = {
            form
            for one in emoji
            if one.hexcode in self._held
            for name in one.names["en"]
            for form in _forms(name)
        }

    def emoji_of(self, icon: Icon) -> Emoji | None:
        """The emoji that a picture shows: by its code, or by its name where it states none."""
        return self._of_code.get(icon.code) or self._of_name.get(letters_of(_words(icon.name)))

    def texts(self, icon: Icon) -> dict[str, tuple[str, ...]] | None:
        """By language, what it is called; None when it must be left out."""
        emoji, words = self.emoji_of(icon), _words(icon.name)
        if _TONE.search(icon.name) or not letters_of(words):
            return None
        if emoji is not None and (has_skin_tone(emoji.code) or emoji.hexcode in self._held):
            return None
        texts: dict[str, tuple[str, ...]] = {"en": (words,)}
        if emoji is not None:
            texts = self._texts[emoji.hexcode]
        if any(form in self._forbidden for text in texts["en"] for form in _forms(text)):
            return None
        return texts

    def group(self, icon: Icon) -> str:
        """Equal for pictures of one emoji, and for icons of one name."""
        emoji = self.emoji_of(icon)
        return letters_of(_words(icon.name)) if emoji is None else hexcode_of(base_of(emoji.code))


def load(*, size: int = openmoji.SIZE, cache: Path | None = None) -> PairDataset:
    """Emoji in five styles, and icons, with their names: some 11,000 pictures.

    Args:
        size: pixels of a side.
        cache: folder of packages and pictures; None: a folder of plait's cache.

    Raises:
        MissingExtra: a package is not installed, or there is no npm.
        DataError: a set cannot be fetched.
    """
    home = cache or cache_home() / "sets"
    own = None if cache is None else cache / openmoji.NAME
    samples = list(openmoji.load(size=size, cache=own))
    unseen = {str(sample.meta["family"]) for sample in samples if sample.split != "train"}
    names = Names(*openmoji.with_families(size=size, cache=own), unseen)
    jobs: list[tuple[Path | str, Path]] = []
    for icons in SETS:
        folder = home / NAME / f"{icons.name}-{icons.version}-{size}"
        for icon in read_icons(icons, home / "iconify"):
            texts = names.texts(icon)
            if texts is not None:
                target = folder / f"{icon.name}.png"
                jobs.append((icon.svg, target))
                samples.append(_sample(icons, icon, texts, target, names.group(icon)))
    rasterise_all(jobs, size, "Drawing other styles and icons")
    told = ", ".join(icons.name for icons in SETS)
    return PairDataset(samples, NAME, home / NAME, detected=f"OpenMoji, {told}")


def _sample(
    icons: IconSet, icon: Icon, texts: Mapping[str, tuple[str, ...]], target: Path, group: str
) -> Sample:
    return Sample(
        id=f"{icons.name}/{icon.name}",
        where=f"@iconify-json/{icons.name}, {icon.name}",
        image=FileRef(target, f"{icons.name}/{target.name}"),
        texts=tuple(text for its in texts.values() for text in its),
        languages=tuple(language for language, its in texts.items() for _ in its),
        group=group,
        split="train",
        meta={"licence": f"{icons.licence}, {icons.author}"},
    )


def _words(name: str) -> str:
    return " ".join(name.split("-"))


def _forms(name: str) -> set[str]:
    """The letters of a name, and those of its singular."""
    return {letters_of(name), letters_of(_PLURAL.sub("", name))}
