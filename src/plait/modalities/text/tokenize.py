"""From texts to token ids, around `tokenizers.Tokenizer`; nothing here needs torch.

Shape legend: B texts, N positions.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from tokenizers import Tokenizer

from plait.core.errors import DataError, ModelError, shown
from plait.core.files import digest, read_json, replacing, write_json
from plait.core.shapes import Bool, Int64
from plait.modalities.text.glosses import GLOSSES_FILE, Glossary
from plait.modalities.text.scripts import script_counts, vocabulary_scripts
from plait.modalities.text.tokenizer_files import CLIP_PIECES, read_tokenizer, read_tokenizer_folder

TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "text_preprocess.json"

MOST_LENGTH = 1_000_000  # tokens of a text that a model reads
Padding = Literal["longest", "full"]

_CHARACTERS: Final = 8  # a token, in the beginning of a long text that is read at first
# Signs that never combine with what stands before them: a text can be cut there.
_PLAIN: Final = re.compile("[\t\n -~\u0400-\u0482\u048a-\u052f\u3400-\u9fff\uac00-\ud7a3]")

# Parts of tokenizers that look at neighbouring signs alone, and those that end words among them.
_LOCAL_NORMALIZERS: Final = frozenset(
    [
        "BertNormalizer",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Lowercase",
        "StripAccents",
        "Strip",
        "Precompiled",
        "Replace",
    ]
)
_SPLITTERS: Final = frozenset(
    ["BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel", "Metaspace", "Split"]
)
_LOCAL_PARTS: Final = frozenset({"Punctuation", "Digits", "Metaspace without a split"})
# A class of signs, a run of them, or the pieces of CLIP's words.
_LOCAL_PATTERN: Final = re.compile(
    r"\[(?:\\.|[^\]\\])+\]\+?|\\s\+| \{2,\}| \+|" + re.escape(CLIP_PIECES)
)


class TextPreprocess:
    """Token ids of texts, padded on the right.

    A text longer than ``max_length`` loses words before its final special token, which stays
    (CLIP pools there, BERT was trained with it). A text that gives no token at all gets one
    position with the padding id that counts as real, so that no encoder averages over nothing.

    Args:
        tokenizer: it lower-cases, splits and adds special tokens. It is copied, and truncation
            or padding set on it is ignored.
        max_length: the most positions a text gets, special tokens included.
        pad_id: the id at padded positions. Default: what the tokenizer was set to pad with, else
            its ``<pad>`` or ``[PAD]``, else 0.
        padding: to the ``"longest"`` text of the call, or always to ``max_length`` (``"full"``;
            SigLIP was trained so).
        glossary: rewrites texts before the tokenizer sees them (Chinese into English words).

    Attributes:
        scripts: letters of the training texts by script (`plait.modalities.text.scripts`), after any glossary;
            None: not known.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_length: int,
        pad_id: int | None = None,
        padding: Padding = "longest",
        glossary: Glossary | None = None,
    ) -> None:
        if padding not in ("longest", "full"):
            raise ModelError(f"padding of texts is {padding!r}; it can be 'longest' or 'full'")
        self.max_length, self.padding, self.glossary = max_length, padding, glossary
        self.scripts: dict[str, int] | None = None
        self.pad_id = _pad_id(tokenizer) if pad_id is None else pad_id
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        special = self.tokenizer.num_special_tokens_to_add(is_pair=False)
        if max_length <= special:
            raise ModelError(
                f"max_length of texts is {max_length}, and the tokenizer adds {special} special "
                f"tokens to each: set at least {special + 1}"
            )
        # A second tokenizer rather than a switch: calls come from several threads.
        self._truncating = Tokenizer.from_str(self.tokenizer.to_str())
        self._truncating.enable_truncation(max_length)

    @property
    def vocabulary(self) -> int:
        """The number of token ids, so that every id is below it."""
        return max(self.tokenizer.get_vocab().values(), default=-1) + 1

    def __call__(
        self, texts: Sequence[str]
    ) -> tuple[Int64[np.ndarray, "B N"], Bool[np.ndarray, "B N"]]:
        """(ids, mask): mask is True at real positions."""
        rows = self._rows(texts)
        longest = max((len(row) for row in rows), default=1)
        width = self.max_length if self.padding == "full" else max(1, longest)
        ids = np.full((len(rows), width), self.pad_id, np.int64)
        mask = np.zeros((len(rows), width), np.bool_)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : max(1, len(row))] = True
        return ids, mask

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, cut at ``max_length``: of long texts only a beginning is read."""
        most = _CHARACTERS * self.max_length if self._is_local else sys.maxsize
        begun = [self._beginning(text, most) for text in texts]
        rows = [e.ids for e in self._truncating.encode_batch_fast([text for text, _ in begun])]
        for place, (text, whole) in enumerate(begun):
            if not whole and not self._settles(text):
                (entire,) = self._rewritten(texts[place : place + 1])
                rows[place] = self._truncating.encode_batch_fast([entire])[0].ids
        return rows

    def _beginning(self, text: str, most: int) -> tuple[str, bool]:
        """(a text as the tokenizer gets it, or a beginning of it; whether that is all)."""
        if self.glossary is not None:
            text, whole = self.glossary.beginning(text, most)
            if not whole:
                return text, False
        cut = _safe_cut(text, most)
        return text[:cut], cut == len(text)

    def _settles(self, beginning: str) -> bool:
        """Whether a text that goes on has the same first tokens as its beginning.

        Words are apart for all tokenizers that `_is_local` allows, so more text changes nothing but
        the last words of the beginning, or a special token that the cut went through.
        """
        (encoding,) = self.tokenizer.encode_batch([beginning], add_special_tokens=False)
        sure = len(beginning) - self._margin
        last = next(
            (word for word, (_, end) in zip(encoding.word_ids, encoding.offsets) if end > sure),
            None,
        )
        if last is None:
            return False
        return encoding.word_ids.index(last) >= self.max_length

    @cached_property
    def _margin(self) -> int:
        """Characters before a cut whose words more text may change."""
        added = self.tokenizer.get_added_tokens_decoder().values()
        return 8 + max((len(token.content) for token in added), default=0)

    @cached_property
    def _is_local(self) -> bool:
        """Whether the tokenizer splits a text into words, each by the signs next to it alone."""
        parts = json.loads(self.tokenizer.to_str())
        normalizers = set(_types(parts["normalizer"]))
        splitters = set(_types(parts["pre_tokenizer"]))
        return (
            normalizers <= _LOCAL_NORMALIZERS
            and not splitters.isdisjoint(_SPLITTERS)
            and (splitters <= _SPLITTERS | _LOCAL_PARTS)
        )

    def lengths(self, texts: Sequence[str]) -> Int64[np.ndarray, " B"]:
        """How many tokens each text has before truncation, special tokens included."""
        encodings = self.tokenizer.encode_batch_fast(self._rewritten(texts))
        return np.array([len(encoding.ids) for encoding in encodings], np.int64)

    def _rewritten(self, texts: Sequence[str]) -> list[str]:
        return [self.rewritten(text) for text in texts]

    def rewritten(self, text: str) -> str:
        """A text as the tokenizer sees it."""
        return text if self.glossary is None else self.glossary(text)

    def note_scripts(self, texts: Iterable[str]) -> None:
        """Adds training texts to `scripts`."""
        counts = Counter(self.scripts or {})
        counts.update(script_counts(map(self.rewritten, texts)))
        self.scripts = dict(counts.most_common())

    @cached_property
    def vocabulary_scripts(self) -> dict[str, int]:
        """See `plait.modalities.text.scripts.vocabulary_scripts`."""
        return vocabulary_scripts(self)

    @cached_property
    def unknown_id(self) -> int | None:
        """The id of what the vocabulary does not have, None where it has everything."""
        names = [getattr(self.tokenizer.model, "unk_token", None), "[UNK]", "<unk>"]
        found = [self.tokenizer.token_to_id(name) for name in names if name]
        return next((one for one in found if one is not None), None)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the tokenizer, as plain data."""
        return {"max_length": self.max_length, "pad_id": self.pad_id, "padding": self.padding}

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the vocabulary and every setting."""
        parts = [self.tokenizer.to_str(), json.dumps(self.settings, sort_keys=True)]
        if self.glossary is not None:
            parts.append(self.glossary.fingerprint)
        return digest("text-1", *parts)

    def save(self, folder: str | Path) -> None:
        """Writes ``tokenizer.json``, ``text_preprocess.json`` and any glossary into ``folder``."""
        with replacing(Path(folder) / TOKENIZER_FILE) as temporary:
            self.tokenizer.save(str(temporary))
        if self.glossary is not None:
            self.glossary.save(folder)
        scripts = {} if self.scripts is None else {"scripts": self.scripts}
        write_json(Path(folder) / SETTINGS_FILE, {**self.settings, **scripts})

    @classmethod
    def load(cls, folder: str | Path) -> TextPreprocess:
        """The inverse of `save`. Raises ModelError when a file is missing or broken."""
        path = Path(folder) / SETTINGS_FILE
        if not path.is_file():
            raise ModelError(f"{path} is missing: the folder holds no text preprocessing")
        glossary = Glossary.load(folder) if (Path(folder) / GLOSSES_FILE).is_file() else None
        tokenizer = read_tokenizer(Path(folder) / TOKENIZER_FILE)
        try:
            settings = read_json(path)
            if not 0 < settings.get("max_length", 1) <= MOST_LENGTH:
                raise ValueError(f"max_length is {shown(settings['max_length'])}")
            scripts = _checked_scripts(settings.pop("scripts", None))
            loaded = cls(tokenizer, **settings, glossary=glossary)
            loaded.scripts = scripts
            return loaded
        except (DataError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{path} is damaged: {str(error)[:300]}") from error

    @classmethod
    def load_tokenizer(
        cls, folder: str | Path, *, max_length: int | None = None, padding: Padding = "longest"
    ) -> TextPreprocess:
        """From the folder of a published model (see `plait.modalities.text.tokenizer_files`).

        Args:
            folder: with ``tokenizer.json``, ``vocab.txt``, or ``vocab.json`` and ``merges.txt``.
            max_length: default: what the folder states, at most 512.
            padding: see the class.
        """
        tokenizer, pad_id, limit = read_tokenizer_folder(Path(folder))
        longest = min(limit or 512, 512) if max_length is None else max_length
        return cls(tokenizer, longest, pad_id, padding)


def _safe_cut(text: str, most: int) -> int:
    """Where a text can be cut after ``most`` characters: before a letter or a space of ASCII.

    Nothing that follows there combines with what is before.
    """
    if len(text) <= most:
        return len(text)
    found = _PLAIN.search(text, most)
    return len(text) if found is None else found.start()


def _types(part: Mapping[str, Any] | None) -> Iterator[str]:
    """The kinds of a normalizer or pre-tokenizer in a tokenizer's file, of all in a sequence."""
    if part is None:
        return
    inner = part.get("normalizers") or part.get("pretokenizers")
    if inner is not None:
        for one in inner:
            yield from _types(one)
        return
    kind, pattern = part["type"], part.get("pattern") or {}
    if len(pattern.get("String", "")) > 1 or not _LOCAL_PATTERN.fullmatch(
        pattern.get("Regex", r"\s+")
    ):
        kind += " at another pattern"
    if not part.get("split", True) or not part.get("use_regex", True):
        kind += " without a split"
    yield kind


def _checked_scripts(found: Any) -> dict[str, int] | None:
    """The scripts of a file. Raises ValueError for anything else."""
    if found is None:
        return None
    if not isinstance(found, dict) or not all(type(count) is int for count in found.values()):
        raise ValueError(f"scripts are {shown(found)}")
    return dict(found)


def _pad_id(tokenizer: Tokenizer) -> int:
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    for token in ("<pad>", "[PAD]", "<|pad|>"):
        found = tokenizer.token_to_id(token)
        if found is not None:
            return found
    return 0
