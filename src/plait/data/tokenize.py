"""From texts to token ids, around `tokenizers.Tokenizer`; nothing here needs torch.

Shape legend: B texts, N positions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from plait.core.errors import DataError, ModelError, shown
from plait.core.files import digest, read_json, replacing, write_json
from plait.core.shapes import Bool, Int64
from plait.data.glosses import GLOSSES_FILE, Glossary
from plait.data.tokenizer_files import read_tokenizer, read_tokenizer_folder

TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "text_preprocess.json"

MOST_LENGTH = 1_000_000  # tokens of a text that a model reads
Padding = Literal["longest", "full"]


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
        rows = [e.ids for e in self._truncating.encode_batch_fast(self._rewritten(texts))]
        longest = max((len(row) for row in rows), default=1)
        width = self.max_length if self.padding == "full" else max(1, longest)
        ids = np.full((len(rows), width), self.pad_id, np.int64)
        mask = np.zeros((len(rows), width), np.bool_)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : max(1, len(row))] = True
        return ids, mask

    def lengths(self, texts: Sequence[str]) -> Int64[np.ndarray, " B"]:
        """How many tokens each text has before truncation, special tokens included."""
        encodings = self.tokenizer.encode_batch_fast(self._rewritten(texts))
        return np.array([len(encoding.ids) for encoding in encodings], np.int64)

    def _rewritten(self, texts: Sequence[str]) -> list[str]:
        return list(texts if self.glossary is None else map(self.glossary, texts))

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
        write_json(Path(folder) / SETTINGS_FILE, self.settings)

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
            return cls(tokenizer, **settings, glossary=glossary)
        except (DataError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{path} is damaged: {str(error)[:300]}") from error

    @classmethod
    def load_tokenizer(
        cls, folder: str | Path, *, max_length: int | None = None, padding: Padding = "longest"
    ) -> TextPreprocess:
        """From the folder of a published model (see `plait.data.tokenizer_files`).

        Args:
            folder: with ``tokenizer.json``, ``vocab.txt``, or ``vocab.json`` and ``merges.txt``.
            max_length: default: what the folder states, at most 512.
            padding: see the class.
        """
        tokenizer, pad_id, limit = read_tokenizer_folder(Path(folder))
        longest = min(limit or 512, 512) if max_length is None else max_length
        return cls(tokenizer, longest, pad_id, padding)


def _pad_id(tokenizer: Tokenizer) -> int:
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    for token in ("<pad>", "[PAD]", "<|pad|>"):
        found = tokenizer.token_to_id(token)
        if found is not None:
            return found
    return 0
