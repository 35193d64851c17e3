"""Captions that are no captions: words of programs for a missing value, and names of files.

They come from tables that were written without care: ``str(float("nan"))`` is ``nan``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from plait.core.errors import shown
from plait.data.notes import EXAMPLES, Note
from plait.data.readers.files import stem
from plait.data.sample import Sample

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
        "[]",
        "{}",
    ]
)
_LONGEST = max(map(len, _FILLERS))


def no_captions(sample: Sample) -> Iterator[int]:
    """Which texts of a sample say nothing of its picture.

    A text is none when it is a program's word for a missing value, nothing but dashes and
    dots, or the name of the sample's own file.
    """
    if "question" in sample.labels:
        return
    own = () if sample.image is None else _names(sample.image.name)
    for which, text in enumerate(sample.texts):
        if _is_filler(text) or text in own:
            yield which


def _is_filler(text: str) -> bool:
    if len(text) > _LONGEST:
        return False
    return text.casefold() in _FILLERS or not text.strip("-_. \u2013\u2014\u2026")


def _names(name: str) -> tuple[str, ...]:
    """The name of a file, with its folders and its ending and without."""
    base = name.replace("\\", "/").replace("!", "/").rsplit("/", 1)[-1]
    bare = stem(base)
    # "red" of red.png and the class "7" of 7.png are words, "DSC_0100" is none
    counted = len(bare) > 3 and any(sign.isdigit() for sign in bare)
    return (name, base, bare) if counted else (name, base)


def notes_of(samples: Iterable[Sample]) -> Sequence[Note]:
    """A note that counts such texts, where there are any."""
    words = [sample.texts[which] for sample in samples for which in no_captions(sample)]
    if not words:
        return []
    usual = [word for word, _ in Counter(words).most_common(EXAMPLES)]
    examples = ", ".join(shown(word) for word in usual)
    message = f"{len(words)} texts are no captions ({examples}): write them, or remove the rows"
    return [Note(message, "no-caption", words)]
