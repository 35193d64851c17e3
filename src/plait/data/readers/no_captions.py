"""Captions that are no captions: words of programs for a missing value, and names of files.

They come from tables that were written without care: ``str(float("nan"))`` is ``nan``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from plait.core.errors import shown
from plait.data.base.notes import EXAMPLES, Note
from plait.data.base.sample import Sample
from plait.data.readers.files import is_image, stem

_FILLERS = frozenset(
    [
        "nan",
        "none",
        "null",
        "nil",
        "undefined",
        "n/a",
        "na",
        "#n/a",
        "#value!",
        "#ref!",
        "<na>",
        "nat",
        "(null)",
        "<null>",
        "n.a.",
        "#div/0!",
        "#name?",
        "tbd",
        "todo",
        "untitled",
        "n.a",
        "<image>",
        "unk",
        "no text",
        "not available",
        "无标题",
        "no caption",
        "no description",
        "无",
        "暂无",
        "暂无描述",
        "无描述",
        "なし",
        "[]",
        "{}",
    ]
)
_AROUND = "-_.?*!,:;'\"`()[]{}<>/\\|&# \u2013\u2014\u2026\uff1f\u3000\u300c\u300d\uff08\uff09\u3002"
_MARKS = "-_.?* '\"`\u2013\u2014\u2026\uff1f"
_EMPTY = frozenset(["nan", "none", "null", "nil", "nbsp", "br", "n/a", "na"])
# IMG_0001 without its ending, the lines of a file of boxes: class, centre and size
_CAMERA = re.compile(r"(IMG|DSC[NF]?|PXL|MVI|GOPR|DJI)[-_ ]?\d{3,}(\(\d+\))?", re.IGNORECASE)
_BOXES = re.compile(r"\d+( -?\d*\.\d+){4,}\s*(\n\d+( -?\d*\.\d+){4,}\s*)*")
_LONGEST = max(map(len, _FILLERS))


def no_captions(sample: Sample) -> Iterator[int]:
    """Which texts of a sample say nothing of its picture.

    A text is none when it is a program's word for a missing value, nothing but dashes, dots and
    question marks, or the name of a picture file, its own above all.
    """
    if not sample.texts or "question" in sample.labels:
        return
    own = () if sample.image is None else _names(sample.image.name)
    for which, text in enumerate(sample.texts):
        if _is_filler(text) or _as_name(text) in own or _is_file(text):
            yield which


def _is_filler(text: str) -> bool:
    if len(text) > _LONGEST:
        return bool(_BOXES.fullmatch(text))
    words = text.casefold()
    bare = words.replace("_", " ").strip(_AROUND)
    if words in _FILLERS or bare in _FILLERS or _CAMERA.fullmatch(text) or _BOXES.fullmatch(text):
        return True
    parts = set(bare.split())
    return parts <= _EMPTY if parts else not text.strip(_MARKS)  # "!" and "#" are drawn


def _names(name: str) -> tuple[str, ...]:
    """The name of a file, with its folders and its ending and without."""
    base = name.replace("\\", "/").replace("!", "/").rsplit("/", 1)[-1]
    bare = stem(base)
    # "red" of red.png and the class "7" of 7.png are words, "DSC_0100" is none
    counted = len(bare) > 3 and any(sign.isdigit() for sign in bare)
    return tuple(map(_as_name, (name, base, bare) if counted else (name, base)))


def _as_name(text: str) -> str:
    """A name as it compares: cameras, disks and programs differ in case, blanks and underscores."""
    return text.replace("_", " ").replace("-", " ").casefold()


def _is_file(text: str) -> bool:
    """Whether a text is the name of some picture: ``photos/DSC_0001.JPG``."""
    return is_image(text) and not any(map(str.isspace, text)) and len(stem(text)) > 0


def notes_of(samples: Iterable[Sample]) -> Sequence[Note]:
    """A note that counts such texts, where there are any."""
    words = [sample.texts[which] for sample in samples for which in no_captions(sample)]
    if not words:
        return []
    usual = [word for word, _ in Counter(words).most_common(EXAMPLES)]
    examples = ", ".join(shown(word) for word in usual)
    message = f"{len(words)} texts are no captions ({examples}): write them, or remove the rows"
    return [Note(message, "no-caption", words)]
