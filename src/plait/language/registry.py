"""Causal language models by source string, and back from a saved spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plait.core.errors import ModelError, did_you_mean
from plait.language import hf
from plait.language.base import LanguageModel
from plait.language.decoder import Decoder
from plait.modalities.text.tokenize import TextPreprocess

SOURCES = ("scratch/decoder", "hf/OWNER/NAME", "hf/FOLDER")


def build_language(
    source: str,
    *,
    preprocess: TextPreprocess | None = None,
    pretrained: bool = True,
    **options: Any,
) -> LanguageModel:
    """A language model, in evaluation mode.

    Args:
        source: ``scratch/decoder``, or ``hf/`` and a repository or folder of transformers.
        preprocess: the tokenizer of ``scratch/decoder``, trained on the user's texts.
        pretrained: load weights.
        options: of `Decoder`, or ``max_length`` of transformers' models.

    Raises:
        ModelError: an unknown source or option, or weights that are missing.
    """
    family, _, name = source.partition("/")
    try:
        if source == "scratch/decoder":
            if preprocess is None:
                raise ModelError("scratch/decoder needs a tokenizer: set model.language.vocabulary")
            return Decoder(preprocess, **options).eval()
        if family == "hf" and name:
            return hf.build(name, pretrained=pretrained, **options).eval()
    except TypeError as problem:
        raise ModelError(f"language model {source!r}: {problem}") from problem
    hint = did_you_mean(source, SOURCES)
    raise ModelError(f"no language model {source!r}{hint} (have: {', '.join(SOURCES)})")


def language_from_spec(spec: dict[str, Any], folder: Path) -> LanguageModel:
    """The architecture of a saved spec, with random weights, offline.

    Raises:
        ModelError: a spec that this version cannot read.
    """
    arguments = dict(spec)
    family = arguments.pop("family", None)
    if family == "scratch":
        return Decoder(TextPreprocess.load(folder), **arguments).eval()
    if family == "hf":
        return hf.rebuild(spec, folder).eval()
    raise ModelError(f"saved language model of an unknown family, {family!r}")
