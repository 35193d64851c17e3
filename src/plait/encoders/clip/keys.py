"""Names of CLIP and SigLIP weights in transformers and open_clip, translated to plait's and back.

Every function takes a dictionary of tensors by name and gives one with plait's names; it only
renames, joins (queries, keys and values are one matrix here), splits and transposes. So the same
function carries gradients over, which is how parity is tested. Names it doesn't know it keeps,
so that filling a model names them as left over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

IMAGE_TOWER, TEXT_TOWER = "towers.image.encoder", "towers.text.encoder"
IMAGE_PROJECTION, TEXT_PROJECTION = "towers.image.projection", "towers.text.projection"

Weights = dict[str, Tensor]

_TRANSFORMERS = (
    (r"^vision_model\.embeddings\.class_embedding$", f"{IMAGE_TOWER}.class_token"),
    (r"^vision_model\.embeddings\.patch_embedding\.", f"{IMAGE_TOWER}.patch."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", f"{IMAGE_TOWER}.position"),
    (r"^vision_model\.pre_layrnorm\.", f"{IMAGE_TOWER}.pre_norm."),  # their spelling
    (r"^vision_model\.post_layernorm\.", f"{IMAGE_TOWER}.post_norm."),
    (r"^vision_model\.head\.layernorm\.", f"{IMAGE_TOWER}.head.norm."),
    (r"^vision_model\.head\.attention\.out_proj\.", f"{IMAGE_TOWER}.head.out."),
    (r"^vision_model\.head\.", f"{IMAGE_TOWER}.head."),
    (r"^text_model\.embeddings\.token_embedding\.", f"{TEXT_TOWER}.word."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", f"{TEXT_TOWER}.position"),
    (r"^text_model\.final_layer_norm\.", f"{TEXT_TOWER}.post_norm."),
    (r"^text_model\.head\.", f"{TEXT_PROJECTION}.linear."),
    (r"^visual_projection\.", f"{IMAGE_PROJECTION}.linear."),
    (r"^text_projection\.", f"{TEXT_PROJECTION}.linear."),
    (r"^vision_model\.encoder\.layers\.", f"{IMAGE_TOWER}.blocks."),
    (r"^text_model\.encoder\.layers\.", f"{TEXT_TOWER}.blocks."),
    (r"\.layer_norm1\.", ".norm1."),
    (r"\.layer_norm2\.", ".norm2."),
    (r"\.self_attn\.out_proj\.", ".attention.out."),
    (r"\.mlp\.fc1\.", ".mlp.up."),
    (r"\.mlp\.fc2\.", ".mlp.down."),
    (r"^logit_scale$", "log_scale"),
    (r"^logit_bias$", "bias"),
)

_OPEN_CLIP = (
    (r"^visual\.class_embedding$", f"{IMAGE_TOWER}.class_token"),
    (r"^visual\.conv1\.", f"{IMAGE_TOWER}.patch."),
    (r"^visual\.positional_embedding$", f"{IMAGE_TOWER}.position"),
    (r"^visual\.ln_pre\.", f"{IMAGE_TOWER}.pre_norm."),
    (r"^visual\.ln_post\.", f"{IMAGE_TOWER}.post_norm."),
    (r"^visual\.proj$", f"{IMAGE_PROJECTION}.linear.weight"),
    (r"^visual\.transformer\.resblocks\.", f"{IMAGE_TOWER}.blocks."),
    (r"^token_embedding\.", f"{TEXT_TOWER}.word."),
    (r"^positional_embedding$", f"{TEXT_TOWER}.position"),
    (r"^ln_final\.", f"{TEXT_TOWER}.post_norm."),
    (r"^text_projection$", f"{TEXT_PROJECTION}.linear.weight"),
    (r"^text_projection\.", f"{TEXT_PROJECTION}.linear."),
    (r"^transformer\.resblocks\.", f"{TEXT_TOWER}.blocks."),
    (r"\.ln_1\.", ".norm1."),
    (r"\.ln_2\.", ".norm2."),
    (r"\.attn\.in_proj_", ".attention.qkv."),
    (r"\.attn\.out_proj\.", ".attention.out."),
    (r"\.mlp\.c_fc\.", ".mlp.up."),
    (r"\.mlp\.c_proj\.", ".mlp.down."),
    (r"^logit_scale$", "log_scale"),
    (r"^logit_bias$", "bias"),
)


def _rename(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def from_transformers(weights: Mapping[str, Tensor]) -> Weights:
    """Transformers' CLIPModel or SiglipModel."""
    result: Weights = {}
    for name, value in weights.items():
        if name.endswith(".position_ids"):  # a buffer in files written by old versions
            continue
        match = re.fullmatch(r"(.*\.)self_attn\.(q|k|v)_proj\.(weight|bias)", name)
        if match:
            if match[2] == "q":
                parts = [f"{match[1]}self_attn.{part}_proj.{match[3]}" for part in "qkv"]
                if not all(part in weights for part in parts):
                    result[name] = value
                    continue
                joined = torch.cat([weights[part] for part in parts])
                result[f"{_rename(match[1], _TRANSFORMERS)}attention.qkv.{match[3]}"] = joined
            elif f"{match[1]}self_attn.q_proj.{match[3]}" not in weights:
                result[name] = value
            continue
        match = re.fullmatch(r"vision_model\.head\.attention\.in_proj_(weight|bias)", name)
        if match:
            width = len(value) // 3
            result[f"{IMAGE_TOWER}.head.query.{match[1]}"] = value[:width]
            result[f"{IMAGE_TOWER}.head.key_value.{match[1]}"] = value[width:]
            continue
        result[_rename(name, _TRANSFORMERS)] = value
    return _scalars(result)


def from_open_clip(weights: Mapping[str, Tensor]) -> Weights:
    """open_clip's CLIP, or CustomTextCLIP (its text tower below ``text.``)."""
    result: Weights = {}
    for name, value in weights.items():
        name = name.removeprefix("module.").removeprefix("text.")
        if name in ("attn_mask", "input_resolution", "context_length", "vocab_size"):
            continue  # buffers and constants in files of the original CLIP
        new = _rename(name, _OPEN_CLIP)
        if name in ("visual.proj", "text_projection"):
            value = value.T  # they multiply from the other side
        result[new] = value
    return _scalars(result)


def _scalars(weights: Weights) -> Weights:
    for name in ("log_scale", "bias"):
        if name in weights:
            weights[name] = weights[name].reshape(())
    return weights


def _inverted(table: tuple[tuple[str, str], ...], without: str) -> tuple[tuple[str, str], ...]:
    """The table the other way round, but for the one entry whose pattern starts with ``without``."""
    found = []
    for pattern, replacement in table:
        if not pattern.startswith(without):
            start, end = "^" * pattern.startswith("^"), "$" * pattern.endswith("$")
            theirs = pattern.strip("^$").replace("\\", "")
            found.append((f"{start}{re.escape(replacement)}{end}", theirs))
    return tuple(found)


def to_transformers(weights: Mapping[str, Tensor], *, siglip: bool) -> Weights:
    """The inverse of `from_transformers`: for a SiglipModel, or for a CLIPModel."""
    without = r"^text_projection\." if siglip else r"^text_model\.head\."
    table = _inverted(_TRANSFORMERS, without)
    result: Weights = {}
    for name, value in weights.items():
        match = re.fullmatch(r"(.*\.)attention\.qkv\.(weight|bias)", name)
        if match:
            before = _rename(match[1], table)
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                result[f"{before}self_attn.{part}_proj.{match[2]}"] = rows
            continue
        match = re.fullmatch(rf"{re.escape(IMAGE_TOWER)}\.head\.(query|key_value)\.(.*)", name)
        if match:
            parts = [
                weights[f"{IMAGE_TOWER}.head.{one}.{match[2]}"] for one in ("query", "key_value")
            ]
            result[f"vision_model.head.attention.in_proj_{match[2]}"] = torch.cat(parts)
            continue
        result[_rename(name, table)] = value.reshape(1) if siglip and value.ndim == 0 else value
    return result


def to_open_clip(weights: Mapping[str, Tensor]) -> Weights:
    """The inverse of `from_open_clip`, for open_clip's CLIP."""
    biased = f"{TEXT_PROJECTION}.linear.bias" in weights
    table = _inverted(_OPEN_CLIP, r"^text_projection$" if biased else r"^text_projection\.")
    result: Weights = {}
    for name, value in weights.items():
        new = _rename(name, table)
        result[new] = value.T if new in ("visual.proj", "text_projection") else value
    return result
