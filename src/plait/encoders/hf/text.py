"""Texts through a transformers model: BERT-like encoders, sentence encoders, causal LMs.

Shape legend: B samples, N positions, D features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from plait.core.batch import Encoded, ModalityInput
from plait.core.errors import ModelError
from plait.core.files import read_json
from plait.core.modality import TEXT
from plait.encoders.base.base import Encoder, check_options, token_mask
from plait.encoders.hf import weights as hf_weights
from plait.modalities.text.glosses import open_glossary
from plait.modalities.text.tokenize import TextPreprocess, read_tokenizer
from plait.nn.pooling import Pool

OPTIONS = ("pool", "normalise", "max_length", "glosses")

SENTENCE_POOLS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}


class HfTextEncoder(Encoder):
    """A text encoder around a transformers model.

    Args:
        model: the transformers model, without a pooling layer where it has a choice.
        preprocess: its tokenizer.
        pool: see `Pool`; ``cls`` for BERT's [CLS], ``mean`` for most sentence encoders.
        normalise: bring the pooled vector to unit length (sentence encoders).
    """

    modality = TEXT

    def __init__(
        self,
        model: nn.Module,
        preprocess: TextPreprocess,
        *,
        pool: str = "mean",
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.preprocess = model, preprocess
        self.pool_kind, self.normalise = pool, normalise
        self.pool = Pool(pool)
        self.token_width = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.width = self.token_width * len(self.pool.kinds)

    def forward(self, inputs: ModalityInput) -> Encoded:
        """``ids`` (B, N) and a mask."""
        ids = inputs.tensors["ids"]
        mask = token_mask(ids, inputs.mask)
        output = self.model(input_ids=ids, attention_mask=mask.long())
        tokens = output.last_hidden_state
        pooled = self.pool(tokens, mask)
        if self.normalise:
            pooled = nn.functional.normalize(pooled, dim=-1)
        return Encoded(tokens, mask, pooled)

    def spec(self) -> dict[str, Any]:
        """See `Encoder.spec`."""
        return {
            "family": "hf",
            "kind": "text",
            "config": hf_weights.config_to_json(self.model.config),
            "pool": self.pool_kind,
            "normalise": self.normalise,
        }


def sentence_settings(folder: Path) -> dict[str, Any]:
    """Pooling, normalisation and length of a sentence-transformers folder; {} for a plain one.

    Raises:
        ModelError: a module or a pooling that plait doesn't have.
    """
    if not (folder / "modules.json").exists():
        return {}
    settings: dict[str, Any] = {"normalise": False}
    for module in read_json(folder / "modules.json"):
        kind = module["type"].rsplit(".", 1)[-1]
        if kind == "Pooling":
            settings["pool"] = _pooling(folder / module["path"] / "config.json")
        elif kind == "Normalize":
            settings["normalise"] = True
        elif kind != "Transformer":
            raise ModelError(
                f"{folder}: a sentence encoder with a {kind!r} module cannot be read;"
                " plait knows Transformer, Pooling and Normalize"
            )
    if (folder / "sentence_bert_config.json").exists():
        length = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
        if length:
            settings["max_length"] = int(length)
    return settings


def _pooling(path: Path) -> str:
    config = read_json(path)
    modern = config.get("pooling_mode")
    if isinstance(modern, str):
        return {"lasttoken": "last"}.get(modern, modern)
    chosen = [
        SENTENCE_POOLS.get(name, name)
        for name, value in config.items()
        if name.startswith("pooling_mode_") and value
    ]
    return "+".join(chosen) or "mean"


def build_from_folder(
    folder: Path, source: str, *, pretrained: bool, options: dict[str, Any]
) -> HfTextEncoder:
    """A text encoder from a folder with config.json, model.safetensors and tokenizer.json.

    Option ``glosses`` names a dictionary of `plait.modalities.text.glosses`, by which an encoder of English
    reads Chinese too; ``auto`` is the one that is installed, or none.
    """
    check_options(source, options, OPTIONS)
    defaults: dict[str, Any] = {"pool": "mean", "normalise": False}
    settings = defaults | sentence_settings(folder) | options
    model = hf_weights.load_model(folder, source, pretrained=pretrained)
    limit = int(getattr(model.config, "max_position_embeddings", 0) or 512)
    if "roberta" in str(getattr(model.config, "model_type", "")):
        limit -= int(getattr(model.config, "pad_token_id", 1) or 0) + 1  # its positions start there
    max_length = min(int(settings.pop("max_length", limit)), limit)
    glosses = settings.pop("glosses", None)
    preprocess = TextPreprocess(
        read_tokenizer(folder / "tokenizer.json"),
        max_length,
        glossary=None if glosses is None else open_glossary(glosses),
    )
    return HfTextEncoder(model, preprocess, **settings)


def rebuild(spec: dict[str, Any], folder: Path) -> HfTextEncoder:
    """The architecture of a spec, without weights; the tokenizer is in ``folder``."""
    model = hf_weights.model_from_config(spec["config"])
    return HfTextEncoder(
        model,
        TextPreprocess.load(folder),
        pool=spec["pool"],
        normalise=spec["normalise"],
    )
