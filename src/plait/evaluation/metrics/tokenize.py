"""Captions cut into the words that caption measures count.

The rules follow the evaluation of COCO captions (Chen et al. 2015, section 3): lower case, words as
the Penn Treebank cuts them (``don't`` is ``do n't``, ``dog's`` is ``dog 's``), then all punctuation
goes. The original runs a Java program of some thousand rules; these few lines agree with it on
ordinary sentences and not on every URL, abbreviation with one full stop (``mr.``) or square bracket.
Scripts written without spaces, Chinese and Japanese, are cut into characters.

A change of the rules changes `TOKENISER`, which is stored with every result.
"""

from __future__ import annotations

import functools
import re
import unicodedata

TOKENISER = "caption-words/1"
"""Names the rules of this file."""

_CHARACTERS = (
    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u2032", "'"))
_TAIL = re.compile(r"(.+?)(n't|'(?:s|m|d|re|ve|ll))$")
_TWO_WORDS = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "lemme": ("lem", "me"),
    "gimme": ("gim", "me"),
}
_KEPT = frozenset("#%&*@/\\")  # punctuation to Unicode, words to the Penn Treebank


def caption_words(text: str) -> list[str]:
    """The words of a caption, without punctuation.

    >>> caption_words("A man's dog, which doesn't bark.")
    ['a', 'man', "'s", 'dog', 'which', 'does', "n't", 'bark']
    >>> caption_words("两只猫，在睡觉")
    ['两', '只', '猫', '在', '睡', '觉']
    """
    words: list[str] = []
    normal = unicodedata.normalize("NFKC", text).lower().translate(_APOSTROPHES)
    for token in _tokens().findall(normal):
        if token in _TWO_WORDS:
            words += _TWO_WORDS[token]
        elif len(token) == 1 and not token.isalnum():
            if token in _KEPT or unicodedata.category(token).startswith("S"):
                words.append(token)  # a sign such as $, + or an emoji
        else:
            words += _without_tails(token)
    return words


def _without_tails(token: str) -> list[str]:
    """``she'd've`` as ``she 'd 've``."""
    tails: list[str] = []
    while match := _TAIL.match(token):
        token = match[1]
        tails.append(match[2])
    return [token, *reversed(tails)]


@functools.cache
def _tokens() -> re.Pattern[str]:
    """What may become a word, vowel signs of Indian scripts (no word characters to Python) included."""
    every = (chr(code) for code in range(0x300, 0xFE00))
    marks = "".join(c for c in every if unicodedata.category(c) in ("Mn", "Mc"))
    letter = rf"(?:[^\W_{_CHARACTERS}]|[{marks}])"
    return re.compile(
        rf"[{_CHARACTERS}]"
        r"|\d+(?:[.,:]\d+)+"  # 3.5, 1,000, 10:30
        rf"|(?<!\w)(?:[^\W\d_{_CHARACTERS}]\.){{2,}}"  # u.s., p.m.
        rf"|{letter}+(?:[-'&]{letter}+)*"  # t-shirt, o'clock
        r"|[^\w\s]"
    )
