"""Published CLIP and SigLIP checkpoints, read into plait's configurations and names.

A folder in transformers' format (``config.json``, ``model.safetensors``, also in shards,
``preprocessor_config.json``, ``tokenizer.json``) or in open_clip's (``open_clip_config.json``,
``open_clip_model.safetensors`` or a state dict ``.pt`` or ``.bin``, ``tokenizer.json``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plait.core.errors import ModelError
from plait.core.files import check_weights, read_json
from plait.encoders.base.image_processor import read_processor
from plait.encoders.clip import keys as clip_keys
from plait.encoders.clip.siglip_tokenizer import with_siglip_normaliser
from plait.encoders.clip.text import TextConfig
from plait.encoders.clip.vision import VisionConfig
from plait.encoders.hf import weights as hf_weights
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.text.tokenize import TextPreprocess, read_tokenizer

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

ACTIVATIONS = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}


@dataclass(frozen=True)
class Architecture:
    """What a checkpoint's configuration says.

    Attributes:
        vision, text: the towers.
        dim: of the shared space.
        image_projection, text_projection: arguments of `build_projection` besides the widths.
        has_bias: whether there is a logit bias (SigLIP).
        max_scale: the clamp of the logit scale, or None.
    """

    vision: VisionConfig
    text: TextConfig
    dim: int
    image_projection: dict[str, Any]
    text_projection: dict[str, Any]
    has_bias: bool
    max_scale: float | None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in plait's terms; ``weights`` have the names of an `AlignmentModel`."""

    architecture: Architecture
    image_preprocess: ImagePreprocess
    text_preprocess: TextPreprocess
    weights: dict[str, Tensor]
    where: str


def _activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise ModelError(f"CLIP: activation {name!r} is not known (have: {', '.join(ACTIVATIONS)})")
    return ACTIVATIONS[name]


def transformers_architecture(config: Any) -> Architecture:
    """From a transformers CLIPConfig or SiglipConfig."""
    siglip = config.model_type == "siglip"
    v, t = config.vision_config, config.text_config
    size = v.image_size
    vision = VisionConfig(
        image_size=(size, size) if isinstance(size, int) else (int(size[0]), int(size[1])),
        patch=v.patch_size,
        width=v.hidden_size,
        layers=v.num_hidden_layers,
        heads=v.num_attention_heads,
        hidden=v.intermediate_size,
        act=_activation(v.hidden_act),
        eps=v.layer_norm_eps,
        clip_stem=not siglip,
        pool="attention" if siglip else "cls",
    )
    if siglip and not getattr(v, "vision_use_head", True):
        raise ModelError("SigLIP without its pooling head gives no image embedding")
    pool = "last" if siglip else ("highest" if t.eos_token_id == 2 else "eos")
    text = TextConfig(
        vocabulary=t.vocab_size,
        context=t.max_position_embeddings,
        width=t.hidden_size,
        layers=t.num_hidden_layers,
        heads=t.num_attention_heads,
        hidden=t.intermediate_size,
        act=_activation(t.hidden_act),
        eps=t.layer_norm_eps,
        causal=not siglip,
        pool=pool,
        eos_id=t.eos_token_id,
        pad_id=1 if t.pad_token_id is None else t.pad_token_id,
    )
    if siglip:
        dim = getattr(t, "projection_size", None) or t.hidden_size
        return Architecture(
            vision, text, dim, {"kind": "identity"}, {"kind": "linear", "bias": True}, True, None
        )
    plain = {"kind": "linear", "bias": False}
    return Architecture(vision, text, config.projection_dim, plain, plain, False, 100.0)


_UNSUPPORTED_VISION = (
    "timm_model_name",
    "attentional_pool",
    "ls_init_value",
    "no_ln_pre",
    "final_ln_after_pool",
    "block_type",
    "qk_norm",
    "scaled_cosine_attn",
    "scale_heads",
    "scale_attn_inner",
    "scale_attn",
    "scale_fc",
)
_UNSUPPORTED_TEXT = ("hf_model_name", "embed_cls", "no_causal_mask", *_UNSUPPORTED_VISION[2:])


def open_clip_architecture(config: dict[str, Any]) -> Architecture:
    """From open_clip's ``model_cfg``.

    Raises:
        ModelError: a variant that plait's towers don't cover, naming the setting.
    """
    v, t = config["vision_cfg"], config["text_cfg"]
    for part, settings, names in (
        ("vision_cfg", v, _UNSUPPORTED_VISION),
        ("text_cfg", t, _UNSUPPORTED_TEXT),
    ):
        for name in names:
            if settings.get(name):
                raise ModelError(
                    f"open_clip {part}: {name} = {settings[name]!r} is not supported;"
                    " plait reads open_clip's own ViT and text transformer"
                )
    if not isinstance(v.get("layers", 12), int):
        raise ModelError("open_clip vision_cfg: a ResNet tower is not supported")
    if v.get("pos_embed_type", "learnable") != "learnable":
        raise ModelError("open_clip vision_cfg: pos_embed_type must be 'learnable'")
    pools = {"tok": "cls", "avg": "mean"}
    if v.get("pool_type", "tok") not in pools:
        raise ModelError(f"open_clip vision_cfg: pool_type {v['pool_type']!r} is not supported")
    text_pools = {"argmax": "highest", "eos": "eos"}
    if t.get("pool_type", "argmax") not in text_pools:
        raise ModelError(f"open_clip text_cfg: pool_type {t['pool_type']!r} is not supported")
    act = "quick_gelu" if config.get("quick_gelu") else "gelu"
    size, width = v.get("image_size", 224), v.get("width", 768)
    vision = VisionConfig(
        image_size=(size, size) if isinstance(size, int) else (int(size[0]), int(size[1])),
        patch=v.get("patch_size", 16),
        width=width,
        layers=v.get("layers", 12),
        heads=width // v.get("head_width", 64),
        hidden=int(width * v.get("mlp_ratio", 4.0)),
        act=_with_tanh(act, v),
        eps=_eps(v),
        pool=pools[v.get("pool_type", "tok")],
    )
    text_width = t.get("width", 512)
    text = TextConfig(
        vocabulary=t.get("vocab_size", 49408),
        context=t.get("context_length", 77),
        width=text_width,
        layers=t.get("layers", 12),
        heads=t.get("heads", 8),
        hidden=int(text_width * t.get("mlp_ratio", 4.0)),
        act=_with_tanh(act, t),
        eps=_eps(t),
        pool=text_pools[t.get("pool_type", "argmax")],
        eos_id=t.get("eos_id", 2),
        pad_id=t.get("pad_id", 0),
    )
    plain = {"kind": "linear", "bias": False}
    return Architecture(
        vision,
        text,
        config["embed_dim"],
        plain,
        {"kind": "linear", "bias": bool(t.get("proj_bias", False))},
        config.get("init_logit_bias") is not None,
        100.0 if config.get("init_logit_bias") is None else None,
    )


def _with_tanh(act: str, settings: dict[str, Any]) -> str:
    options = settings.get("act_kwargs") or {}
    if not options:
        return act
    if act == "gelu" and options == {"approximate": "tanh"}:
        return "gelu_tanh"
    raise ModelError(f"open_clip: act_kwargs {options} are not supported")


def _eps(settings: dict[str, Any]) -> float:
    options = dict(settings.get("norm_kwargs") or {})
    eps = float(options.pop("eps", 1e-5))
    if options:
        raise ModelError(f"open_clip: norm_kwargs {options} are not supported")
    return eps


def open_clip_preprocess(config: dict[str, Any], size: tuple[int, int]) -> ImagePreprocess:
    """From open_clip's ``preprocess_cfg``."""
    modes: dict[str, Any] = {"shortest": "shortest", "squash": "squash", "longest": "pad"}
    mode = config.get("resize_mode", "shortest")
    if mode not in modes:
        raise ModelError(f"open_clip preprocess_cfg: resize_mode {mode!r} is not supported")
    return ImagePreprocess(
        size=size,
        resize=modes[mode],
        interpolation=config.get("interpolation", "bicubic"),
        mean=tuple(config.get("mean", OPENAI_MEAN)),
        std=tuple(config.get("std", OPENAI_STD)),
        fill=(int(config.get("fill_color", 0)),) * 3,
    )


def read_weights(folder: Path, names: tuple[str, ...]) -> tuple[dict[str, Tensor], Path]:
    """The first of these files that exists; shards are joined, pickles opened weights-only.

    Raises:
        ModelError: none exists, or one is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        raise ModelError(f"{folder} holds none of the weight files {', '.join(names)}")
    try:
        if path.suffix == ".json":
            shards = sorted(set(read_json(path)["weight_map"].values()))
            weights: dict[str, Tensor] = {}
            for shard in shards:
                if Path(shard).name != shard or not (folder / shard).exists():
                    raise ModelError(f"{path} names {shard!r}, which is not in the folder")
                check_weights(folder / shard)
                weights |= load_file(folder / shard)
        elif path.suffix == ".safetensors":
            check_weights(path)
            weights = load_file(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
            weights = _state_dict(stored, path)
    except (SafetensorError, RuntimeError, EOFError, KeyError) as problem:
        raise ModelError(f"{path} is damaged or no state dict: {problem}") from problem
    except Exception as problem:
        if type(problem).__name__ != "UnpicklingError":
            raise
        raise ModelError(
            f"{path} holds more than tensors; plait doesn't unpickle code: convert it to"
            " safetensors where you trust it"
        ) from problem
    return weights, path


def _state_dict(stored: Any, path: Path) -> dict[str, Tensor]:
    """What a torch file holds, or its entry ``state_dict``."""
    found = stored.get("state_dict", stored) if isinstance(stored, dict) else stored
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no state dict but a {type(found).__name__}")
    strange = next((key for key, value in found.items() if not isinstance(value, Tensor)), None)
    if strange is not None:
        raise ModelError(f"{path} holds no state dict: {strange!r} is no tensor")
    return dict(found)


def read_checkpoint(folder: Path) -> Checkpoint:
    """A published checkpoint; weights in float32.

    Raises:
        ModelError: no such folder or format, or a part that is missing or unsupported.
    """
    if (folder / "open_clip_config.json").exists():
        return _read_open_clip(folder)
    config = hf_weights.read_config(folder)
    if config.model_type not in ("clip", "siglip"):
        raise ModelError(
            f"{folder} holds a model of type {config.model_type!r}; CLIP and SigLIP are readable"
        )
    architecture = transformers_architecture(config)
    weights, path = read_weights(folder, ("model.safetensors", "model.safetensors.index.json"))
    processor = folder / "preprocessor_config.json"
    if not processor.exists():
        raise ModelError(f"{processor} is missing: it says how pictures are resized and normalised")
    tokenizer = read_tokenizer(folder / "tokenizer.json")
    siglip = config.model_type == "siglip"
    if siglip:
        tokenizer = with_siglip_normaliser(tokenizer, folder)
    return Checkpoint(
        architecture,
        read_processor(read_json(processor), config.vision_config),
        TextPreprocess(
            tokenizer,
            architecture.text.context,
            pad_id=architecture.text.pad_id if siglip else None,
            padding="full" if siglip else "longest",
        ),
        _float(clip_keys.from_transformers(weights)),
        str(path),
    )


def _read_open_clip(folder: Path) -> Checkpoint:
    config = read_json(folder / "open_clip_config.json")
    architecture = open_clip_architecture(config["model_cfg"])
    weights, path = read_weights(
        folder,
        (
            "open_clip_model.safetensors",
            "open_clip_pytorch_model.bin",
            "open_clip_pytorch_model.pt",
            "model.safetensors",
        ),
    )
    tokenizer = read_tokenizer(folder / "tokenizer.json")
    return Checkpoint(
        architecture,
        open_clip_preprocess(config.get("preprocess_cfg", {}), architecture.vision.image_size),
        TextPreprocess(tokenizer, architecture.text.context, pad_id=architecture.text.pad_id),
        _float(clip_keys.from_open_clip(weights)),
        str(path),
    )


def _float(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() for name, value in weights.items()}
