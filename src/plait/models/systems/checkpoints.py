"""Published checkpoints of VisualBERT, UNITER, ViLBERT and LXMERT.

Read from a local folder (``config.json`` and weights, as transformers saves VisualBERT and LXMERT)
or from one file of weights (the originals' state dicts of UNITER, ViLBERT and LXMERT). Which system
it is and its sizes are seen from the weights; what they don't show (heads of attention, where
ViLBERT's streams meet) comes from ``config.json``, from the options, or is as published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plait.core.errors import ModelError
from plait.core.files import read_json
from plait.encoders.clip.checkpoint import read_weights
from plait.models.systems.base import System
from plait.models.systems.heads import published_head
from plait.models.systems.keys import HEADS, TIED, Sources, read_into, system_sources
from plait.models.systems.registry import build_system

FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
WORDS = "embeddings.word_embeddings.weight"
SIGNS = {
    "visual_bert": "embeddings.visual_projection.weight",
    "uniter": "img_embeddings.img_linear.weight",
    "vilbert": "v_embeddings.image_embeddings.weight",
    "lxmert": "encoder.visn_fc.visn_fc.weight",
}
"""The weight, without its prefix, by which a system is known."""

LEFT_OVER: dict[str, tuple[str, ...]] = {
    "visual_bert": ("*position_ids",),
    "uniter": ("*position_ids",),
    "vilbert": (
        "*position_ids",
        "*.biOutput.q_dense[12].*",  # never used by the original either
        "vil_prediction_gqa.*",  # heads of other tasks of the multi-task model
        "vil_binary_prediction.*",
        "vil_tri_prediction.*",
        "vil_logit.*",
        "vision_logit.*",
        "linguisic_logit.*",
    ),
    "lxmert": ("*position_ids",),
}
"""Keys that may be left over, by system, as shell patterns."""

VISUAL_BERT_CLASSES = (
    "VisualBertModel",
    "VisualBertForPreTraining",
    "VisualBertForQuestionAnswering",
)


@dataclass(frozen=True)
class Published:
    """What a checkpoint held.

    Attributes:
        system: with its weights, in evaluation mode.
        heads: by name (see `plait.models.systems.heads.PUBLISHED`), those that it held.
        left_over: allowed keys of which nothing was made.
    """

    system: System
    heads: dict[str, nn.Module]
    left_over: tuple[str, ...]


def load_checkpoint(
    path: str | Path, *, allow_left_over: Sequence[str] = (), **options: Any
) -> Published:
    """A published checkpoint, in float32.

    Args:
        path: a folder with ``config.json`` and safetensors or torch weights, or a file of weights;
            torch files are opened weights-only.
        allow_left_over: shell patterns of keys that may be left over, beyond `LEFT_OVER`.
        options: of the system, over what the checkpoint says, such as ``heads=12``,
            ``visual_type=0`` or ``global_region=False``.

    Raises:
        ModelError: no such file or system, or weights that are missing, misshapen or left over.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ModelError(f"no file or folder {str(path)!r}")
    folder, names = (path, FILES) if path.is_dir() else (path.parent, (path.name,))
    weights, where = read_weights(folder, names)
    weights = _modern(weights)
    kind, prefix = _kind(weights, where)
    config = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    _check_config(kind, config, folder)
    sizes = _configured(kind, config, _Shapes(weights, prefix, where).sizes(kind))
    system = build_system(kind, **(sizes | options))
    used = _fill(system, system_sources(system, prefix), weights, str(where))
    heads = {}
    for name, sources in HEADS[kind].items():
        keys = {key for source in sources.values() for key in source.keys}
        if keys & weights.keys():
            heads[name] = _head(name, system, sources, weights)
            used |= _fill(heads[name], sources, weights, str(where))
    left = _check_left_over(kind, prefix, weights, used, allow_left_over, str(where))
    return Published(system.eval(), {name: head.eval() for name, head in heads.items()}, left)


def _modern(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without ``module.`` of DataParallel, and with LayerNorm's weight and bias."""
    found = {}
    for key, value in weights.items():
        key = key.removeprefix("module.")
        for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
            key = key.removesuffix(old) + new if key.endswith(old) else key
        found[key] = value
    return found


def _kind(weights: Mapping[str, Tensor], where: Path) -> tuple[str, str]:
    """Which system it is, and what its keys begin with."""
    for kind, sign in SIGNS.items():
        for key in weights:
            prefix = key.removesuffix(sign)
            if key.endswith(sign) and (prefix == "" or prefix.endswith(".")):
                return kind, prefix
    raise ModelError(
        f"{where} holds none of {', '.join(SIGNS)}: each has a weight whose name ends in one of"
        f" {', '.join(SIGNS.values())}"
    )


def _check_config(kind: str, config: Mapping[str, Any], folder: Path) -> None:
    act = config.get("hidden_act", "gelu")
    if act != "gelu":
        raise ModelError(f"{folder}: activation {act!r}; the published systems use 'gelu'")
    if config.get("bypass_transformer"):
        raise ModelError(
            f"{folder}: bypass_transformer is on; plait has VisualBERT without it, as published"
        )
    if kind != "visual_bert":
        return
    for name in config.get("architectures") or ():
        if name not in VISUAL_BERT_CLASSES:
            raise ModelError(
                f"{folder} holds a {name}; of VisualBERT plait reads"
                f" {', '.join(VISUAL_BERT_CLASSES)}"
            )


@dataclass(frozen=True)
class _Shapes:
    """Sizes as the weights show them."""

    weights: Mapping[str, Tensor]
    prefix: str
    where: Path

    def _shape(self, key: str) -> tuple[int, ...]:
        full = self.prefix + key
        if full not in self.weights:
            raise ModelError(f"{self.where} doesn't fit the model: {full!r} is missing")
        return tuple(self.weights[full].shape)

    def _count(self, key: str) -> int:
        start = f"{self.prefix}encoder.{key}."
        numbers = {k[len(start) :].split(".")[0] for k in self.weights if k.startswith(start)}
        return len(numbers)

    def sizes(self, kind: str) -> dict[str, Any]:
        """Arguments of the system's constructor; heads have 64 features, as published."""
        vocabulary, width = self._shape(WORDS)
        sizes: dict[str, Any] = {
            "vocabulary": vocabulary,
            "region_width": self._shape(SIGNS[kind])[1],
            "width": width,
            "heads": max(width // 64, 1),
            "hidden": self._shape("encoder.layer.0.intermediate.dense.weight")[0],
            "max_length": self._shape("embeddings.position_embeddings.weight")[0],
        }
        if kind == "lxmert":
            sizes["text_layers"] = self._count("layer")
            sizes["image_layers"] = self._count("r_layers")
            sizes["cross_layers"] = self._count("x_layers")
            return sizes
        sizes["layers"] = self._count("layer")
        if kind == "vilbert":
            sizes |= self._vilbert(sizes["layers"])
        return sizes

    def _vilbert(self, layers: int) -> dict[str, Any]:
        """The rest of ViLBERT; heads over regions have 128 features."""
        width = self._shape(SIGNS["vilbert"])[0]
        inner = self._shape("encoder.c_layer.0.biattention.query1.weight")[0]
        meetings = self._count("c_layer")
        return {
            "image": {
                "width": width,
                "layers": self._count("v_layer"),
                "hidden": self._shape("encoder.v_layer.0.intermediate.dense.weight")[0],
                "heads": max(width // 128, 1),
            },
            "joint": {"width": inner, "heads": max(inner // 128, 1)},
            "text_at": list(range(layers - meetings, layers)),
            "image_at": list(range(meetings)),
        }


def _configured(kind: str, config: Mapping[str, Any], sizes: dict[str, Any]) -> dict[str, Any]:
    """The sizes, with what only a configuration knows."""
    known = {"num_attention_heads": "heads", "hidden_dropout_prob": "dropout"}
    if kind == "visual_bert":
        known |= {"layer_norm_eps": "eps", "pad_token_id": "pad_id"}
    if kind == "vilbert":
        known |= {
            "t_biattention_id": "text_at",
            "v_biattention_id": "image_at",
            "fusion_method": "fusion",
        }
        for part, key in (("image", "v_num_attention_heads"), ("joint", "bi_num_attention_heads")):
            sizes[part] = sizes[part] | ({"heads": config[key]} if key in config else {})
    return sizes | {ours: config[key] for key, ours in known.items() if config.get(key) is not None}


def _head(name: str, system: System, sources: Sources, weights: Mapping[str, Tensor]) -> nn.Module:
    """A head of the size that the checkpoint shows; keys that lack are reported later."""

    def rows(ours: str, otherwise: int) -> int:
        source = sources.get(f"{ours}.bias")
        found = None if source is None else weights.get(source.keys[0])
        return otherwise if found is None else len(found)

    return published_head(
        name,
        system,
        classes=rows("objects", 1) if name == "objects" else rows("out", 2) - 1,
        attributes=rows("attributes", 1),
        answers=rows("out", 2),
    )


def _fill(
    module: nn.Module, sources: Sources, weights: Mapping[str, Tensor], where: str
) -> set[str]:
    """Fills a module; gives the keys that were read."""
    keys = {key for source in sources.values() for key in source.keys}
    missing = sorted(keys - weights.keys())
    if missing:
        raise ModelError(
            f"{where} doesn't fit the model: {len(missing)} weights are missing"
            f" (first {missing[0]!r})"
        )
    misshapen = read_into(module, sources, weights)
    if misshapen:
        raise ModelError(
            f"{where} doesn't fit the model: {len(misshapen)} weights have another shape"
            f" (first {misshapen[0]})"
        )
    return keys


def _check_left_over(
    kind: str,
    prefix: str,
    weights: Mapping[str, Tensor],
    used: set[str],
    allowed: Sequence[str],
    where: str,
) -> tuple[str, ...]:
    """Keys that nothing was made of, all of them allowed."""
    copies = set()
    for copy, original in TIED[kind]:
        key = original if original in weights else prefix + original
        if copy in weights and key in weights:
            if not torch.equal(weights[copy], weights[key]):
                raise ModelError(f"{where}: {copy!r} should equal {key!r}, to which it is tied")
            copies.add(copy)
    patterns = (*LEFT_OVER[kind], *allowed)
    left = sorted(weights.keys() - used - copies)
    refused = [key for key in left if not any(fnmatchcase(key, p) for p in patterns)]
    if refused:
        raise ModelError(
            f"{where} doesn't fit the model: {len(refused)} weights are left over"
            f" (first {refused[0]!r}); allow_left_over takes patterns of keys to pass over"
        )
    return tuple(left)
