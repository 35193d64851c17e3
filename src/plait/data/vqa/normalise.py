"""Answers of visual question answering made comparable, by the rules of the VQA evaluation.

The rules are those of Antol et al. 2015 (section 3.4) and of the evaluation script that the VQA
challenge uses, its oddities included, because figures are compared with those of others:

- any of the marks below goes, leaving a space; but leaving none when the text has that mark beside
  a space, or has a comma between digits (``1,000`` is ``1000``, and in such a text ``a/b`` is
  ``ab``);
- a full stop goes unless a digit follows, up to 32 of them;
- lower case; ``none`` and ``zero`` to ``ten`` become digits; ``a``, ``an``, ``the`` go;
- contractions get their apostrophe (``dont`` is ``don't``).

A change of the rules changes `NORMALISER`, which is stored with every result.
"""

from __future__ import annotations

import functools
import re

NORMALISER = "vqa-v2/1"
"""Names the rules of this file."""

_MARKS = tuple(';/[]"{}()=+\\_-><@`,?!')
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
_MOST_STOPS = 32  # the official script hands re.UNICODE, which is 32, to `count` of re.sub
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_ARTICLES = frozenset({"a", "an", "the"})
# A contraction is also written with any one of its apostrophes missing.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't
    mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've
    should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've
    someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't
    what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's
    who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've
    you'd you'd've you'll you're you've
"""
_NO_APOSTROPHE = {"somebody'd": "somebodyd"}  # the official table has this one the other way


@functools.lru_cache(maxsize=1 << 16)  # few answers, said again and again
def normalise(answer: str) -> str:
    """An answer in the form that comparison takes. Twice gives the same as once almost always.

    (Not always: a comma that went may bring marks together, as the rules look at the text once.)
    """
    text = spaced(answer)
    together = _COMMA_IN_NUMBER.search(text) is not None
    kept = text
    for mark in _MARKS:
        if mark in kept:
            beside_space = f"{mark} " in text or f" {mark}" in text
            kept = kept.replace(mark, "" if together or beside_space else " ")
    kept = _FULL_STOP.sub("", kept, count=_MOST_STOPS)
    words = (_NUMBERS.get(word, word) for word in kept.lower().split())
    table = _spellings()
    return " ".join(table.get(word, word) for word in words if word not in _ARTICLES)


def spaced(answer: str) -> str:
    """Line ends and tabs as spaces, none around the text: all that happens to agreed answers."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


@functools.cache
def _spellings() -> dict[str, str]:
    table = dict(_NO_APOSTROPHE)
    for right in _CONTRACTIONS.split():
        for place, letter in enumerate(right):
            if letter == "'":
                table[right[:place] + right[place + 1 :]] = right
    return table
