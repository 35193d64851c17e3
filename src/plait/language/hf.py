"""Causal language models of transformers (GPT-2, Llama, Qwen and their like) from a hub or folder.

Shape legend: B sequences, N new positions, P positions in the cache, D features, V vocabulary.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from plait.core.errors import ModelError
from plait.core.files import read_json
from plait.encoders.hf import weights as hf_weights
from plait.language.base import Cache, LanguageModel
from plait.modalities.text.tokenize import TextPreprocess


class HfCache:
    """The cache of transformers."""

    def __init__(self) -> None:
        from transformers import DynamicCache

        self.inner = DynamicCache()

    def select(self, rows: Int64[Tensor, " R"]) -> None:
        """See `Cache`."""
        self.inner.batch_select_indices(rows)


class HfLanguageModel(LanguageModel):
    """A model around transformers' ``...ForCausalLM``.

    Args:
        model: it.
        preprocess: its tokenizer.
        start: id that begins a sequence; None: it has none.
        end: id that ends one.

    Raises:
        ModelError: a model whose layers or table cannot be found.
    """

    def __init__(
        self, model: Any, preprocess: TextPreprocess, *, start: int | None, end: int
    ) -> None:
        super().__init__()
        self.model, self.preprocess, self.start, self.end = model, preprocess, start, end
        config = model.config
        self.width = int(model.get_input_embeddings().weight.shape[1])
        limit = getattr(config, "max_position_embeddings", None)
        self.context = None if limit is None else int(limit)
        head = model.get_output_embeddings()
        if head is None or head.weight.shape[1] != config.hidden_size != self.width:
            raise ModelError(
                f"{config.model_type} has a table or a head of another width than its layers: "
                "plait reads those where all are equal"
            )
        self._find_blocks()
        self._cache_name = _cache_name(model.base_model)

    def _find_blocks(self) -> nn.ModuleList:
        count = self.model.config.num_hidden_layers
        for module in self.model.base_model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == count:
                return module
        raise ModelError(f"the {count} layers of {self.model.config.model_type} were not found")

    @property
    def vocabulary(self) -> int:
        """See `LanguageModel`."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def blocks(self) -> nn.ModuleList:
        """See `LanguageModel`."""
        return self._find_blocks()

    def embed(self, ids: Int64[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """See `LanguageModel`."""
        found: Tensor = self.model.get_input_embeddings()(ids)
        return found

    def forward(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B PN"], cache: Cache | None = None
    ) -> Float[Tensor, "B N D"]:
        """See `LanguageModel`."""
        assert cache is None or isinstance(cache, HfCache)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -x.shape[1] :]
        output = self.model.base_model(
            inputs_embeds=x,
            attention_mask=mask.long(),
            position_ids=positions,
            use_cache=cache is not None,
            **{self._cache_name: None if cache is None else cache.inner},
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def head(self) -> tuple[Tensor, Tensor | None]:
        """See `LanguageModel`."""
        head = self.model.get_output_embeddings()
        return head.weight, getattr(head, "bias", None)

    def new_cache(self) -> HfCache:
        """See `LanguageModel`."""
        return HfCache()

    def spec(self) -> dict[str, Any]:
        """See `LanguageModel`."""
        return {
            "family": "hf",
            "config": hf_weights.config_to_json(self.model.config),
            "start": self.start,
            "end": self.end,
        }


def build(name: str, *, pretrained: bool = True, max_length: int | None = None) -> HfLanguageModel:
    """A model from a folder, or from the hub.

    Args:
        name: a path, or ``OWNER/NAME``.
        pretrained: load its weights; False starts from random ones.
        max_length: the most tokens of a text; the model's own limit when None.

    Raises:
        ModelError: no such model, weights that are missing, or a tokenizer without an end.
    """
    folder = hf_weights.resolve(name)
    model = hf_weights.load_model(folder, f"hf/{name}", pretrained=pretrained, causal=True)
    config: Any = model.config
    limit = max_length or getattr(config, "max_position_embeddings", None) or 2048
    preprocess = TextPreprocess.load_tokenizer(folder, max_length=int(limit))
    start, end = (_special(folder, preprocess, config, kind) for kind in ("bos", "eos"))
    if end is None:
        raise ModelError(f"{folder}: neither config.json nor the tokenizer names an end of text")
    return HfLanguageModel(model, preprocess, start=start, end=end)


def rebuild(spec: dict[str, Any], folder: Path) -> HfLanguageModel:
    """The architecture of a spec, without weights; the tokenizer is in ``folder``."""
    model = hf_weights.model_from_config(spec["config"], causal=True)
    return HfLanguageModel(model, TextPreprocess.load(folder), start=spec["start"], end=spec["end"])


def _cache_name(model: Any) -> str:
    """What ``forward`` calls its cache: ``past_key_values`` in older releases of transformers.

    Raises:
        ModelError: neither name, so that the model keeps something else than keys and values.
    """
    taken = inspect.signature(model.forward).parameters
    for name in ("cache", "past_key_values"):
        if name in taken:
            return name
    raise ModelError(
        f"{model.config.model_type} keeps no keys and values between two steps: plait writes with "
        "models that do, as GPT-2, Llama and Qwen"
    )


def _special(folder: Path, preprocess: TextPreprocess, config: Any, kind: str) -> int | None:
    """The id of the start or the end of a text, by the tokenizer's word or the model's number."""
    path = folder / "tokenizer_config.json"
    named = read_json(path).get(f"{kind}_token") if path.is_file() else None
    word = named.get("content") if isinstance(named, dict) else named
    found = None if word is None else preprocess.tokenizer.token_to_id(word)
    if found is None:
        number = getattr(config, f"{kind}_token_id", None)
        found = number[0] if isinstance(number, list) else number
    return found if found is None or found < config.vocab_size else None
