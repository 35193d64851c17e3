"""SigLIP's clean-up of texts before its tokenizer."""

from __future__ import annotations

import string
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers

from plait.core.files import read_json


def with_siglip_normaliser(tokenizer: Tokenizer, folder: Path) -> Tokenizer:
    """The tokenizer with SigLIP's own clean-up in front, where a checkpoint was trained with it.

    SigLIP (not SigLIP 2, whose tokenizer is Gemma's) lower-cases, deletes ASCII punctuation, and
    joins white space (big_vision's ``canonicalize_text``). transformers does so in Python code of
    its SiglipTokenizer, so ``tokenizer.json`` knows nothing of it.
    """
    path = folder / "tokenizer_config.json"
    name = read_json(path).get("tokenizer_class", "") if path.exists() else ""
    if not name.startswith("Siglip") or "2" in name:
        return tokenizer
    steps = [
        normalizers.Lowercase(),
        normalizers.Replace(Regex("[" + _escaped(string.punctuation) + "]"), ""),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ]
    changed = Tokenizer.from_str(tokenizer.to_str())
    if changed.normalizer is not None:
        steps.append(changed.normalizer)
    changed.normalizer = normalizers.Sequence(steps)
    return changed


def _escaped(letters: str) -> str:
    return "".join(f"\\{letter}" for letter in letters)
