"""The way back from `clip_checkpoint`: plait's towers as configurations of transformers and open_clip.

Each function gives reasons where a model has something that the other library's has no place for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from plait.encoders.clip.checkpoint import ACTIVATIONS
from plait.encoders.clip.text import ClipText, TextConfig
from plait.encoders.clip.vision import ClipVision, VisionConfig
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.image.preprocess_sources import PILLOW_FILTERS
from plait.modalities.text.tokenize import TextPreprocess

_THEIRS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
assert {ACTIVATIONS[theirs] for theirs in _THEIRS.values()} == set(_THEIRS)
CLIP_START = 49406
"""Of the tokenizer that open_clip has in itself."""
LEGACY_EOS = 2
"""The eos id by which transformers' CLIP pools at the highest id of a text instead."""


@dataclass(frozen=True)
class Pair:
    """Both towers of the CLIP family with what lies between them.

    Attributes:
        vision, text: the towers.
        dim: of the shared space.
        image_projection, text_projection: ``kind`` and ``bias`` of each.
        biased: whether the model has a logit bias.
    """

    vision: ClipVision
    text: ClipText
    dim: int
    image_projection: tuple[str, bool]
    text_projection: tuple[str, bool]
    biased: bool

    @property
    def image_preprocess(self) -> ImagePreprocess:
        """Of the image tower."""
        return self.vision.preprocess

    @property
    def text_preprocess(self) -> TextPreprocess:
        """Of the text tower."""
        preprocess = self.text.preprocess
        assert isinstance(preprocess, TextPreprocess)
        return preprocess


def _told(*checks: tuple[bool, str]) -> list[str]:
    """The reasons whose check fails."""
    return [reason for fits, reason in checks if not fits]


def not_clip(pair: Pair) -> list[str]:
    """Why transformers' CLIPModel cannot hold a model; [] when it can."""
    v, t, plain = pair.vision.config, pair.text.config, ("linear", False)
    eos = t.pool == "highest" or (t.pool == "eos" and t.eos_id != LEGACY_EOS)
    return _told(
        (v.clip_stem and v.pool == "cls", f"its image tower pools by {v.pool!r}"),
        (t.causal and eos, f"its text tower pools by {t.pool!r}"),
        (pair.image_projection == plain, "its image projection is not a plain matrix"),
        (pair.text_projection == plain, "its text projection is not a plain matrix"),
        (not pair.biased, "it has a logit bias"),
        *_transformers_in_general(pair),
    )


def not_siglip(pair: Pair) -> list[str]:
    """Why transformers' SiglipModel cannot hold a model; [] when it can."""
    v, t = pair.vision.config, pair.text.config
    return _told(
        (not v.clip_stem and v.pool == "attention", f"its image tower pools by {v.pool!r}"),
        (not t.causal and t.pool == "last", f"its text tower pools by {t.pool!r}"),
        (pair.image_projection[0] == "identity", "it has an image projection"),
        (pair.text_projection == ("linear", True), "its text projection has no bias"),
        (pair.biased, "it has no logit bias"),
        *_transformers_in_general(pair),
    )


def _transformers_in_general(pair: Pair) -> list[tuple[bool, str]]:
    height, width = pair.vision.config.image_size
    return [
        (height == width, f"its pictures are not square ({height} x {width})"),
        (pair.image_preprocess.resize != "pad", "its pictures are padded to a square"),
        (pair.image_preprocess.levels is None, "its pictures are stretched by data.levels"),
    ]


def not_open_clip(pair: Pair) -> list[str]:
    """Why open_clip's CLIP cannot hold a model; [] when it can."""
    v, t, image = pair.vision.config, pair.text.config, pair.image_preprocess
    return _told(
        (v.clip_stem and v.pool in ("cls", "mean"), f"its image tower pools by {v.pool!r}"),
        (t.causal and t.pool in ("highest", "eos"), f"its text tower pools by {t.pool!r}"),
        (v.width % v.heads == 0, "its heads are of different widths"),
        (pair.image_projection == ("linear", False), "its image projection is not a plain matrix"),
        (pair.text_projection[0] == "linear", "its text projection is not one matrix"),
        ((v.act == "quick_gelu") == (t.act == "quick_gelu"), "its towers' activations differ"),
        (image.crop_fraction == 1, "its pictures are resized to more than the crop"),
        (image.interpolation in ("bicubic", "bilinear"), f"it resizes by {image.interpolation!r}"),
    )


def transformers_config(pair: Pair, siglip: bool) -> dict[str, Any]:
    """``config.json`` of a CLIPModel or SiglipModel."""
    v, t = pair.vision.config, pair.text.config
    kind = "siglip" if siglip else "clip"
    text = _tower(t) | {
        "model_type": f"{kind}_text_model",
        "vocab_size": t.vocabulary,
        "max_position_embeddings": t.context,
        "pad_token_id": t.pad_id if siglip else pair.text_preprocess.pad_id,
        "bos_token_id": _first_id(pair.text_preprocess),
        "eos_token_id": t.eos_id if t.pool == "eos" or siglip else LEGACY_EOS,
        ("projection_size" if siglip else "projection_dim"): pair.dim,
    }
    vision = _tower(v) | {
        "model_type": f"{kind}_vision_model",
        "image_size": v.image_size[0],
        "patch_size": v.patch,
        "num_channels": 3,
        **({} if siglip else {"projection_dim": pair.dim}),
    }
    return {
        "model_type": kind,
        "architectures": ["SiglipModel" if siglip else "CLIPModel"],
        "dtype": "float32",
        **({} if siglip else {"projection_dim": pair.dim}),
        "text_config": text,
        "vision_config": vision,
    }


def _tower(config: VisionConfig | TextConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.width,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "hidden_act": _THEIRS[config.act],
        "layer_norm_eps": config.eps,
        "attention_dropout": 0.0,
    }


def _first_id(preprocess: TextPreprocess) -> int:
    """What a text begins with: the id of its start where the tokenizer adds one."""
    ids: np.ndarray = preprocess([""])[0]
    return int(ids[0, 0])


def processor_config(pair: Pair, siglip: bool) -> dict[str, Any]:
    """``preprocessor_config.json``."""
    image = pair.image_preprocess
    (height, width), (scaled_height, scaled_width) = image.size_2d, image.scaled_size
    crops = image.resize == "shortest" or (scaled_height, scaled_width) != (height, width)
    size: dict[str, int] = {"height": scaled_height, "width": scaled_width}
    if image.resize == "shortest":
        size = {"shortest_edge": min(scaled_height, scaled_width)}
    plain = siglip and not crops
    return {
        "image_processor_type": "SiglipImageProcessor" if plain else "CLIPImageProcessor",
        "processor_class": "SiglipProcessor" if siglip else "CLIPProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": size,
        "resample": PILLOW_FILTERS.index(image.interpolation),
        **({} if plain else {"do_center_crop": crops}),
        **({"crop_size": {"height": height, "width": width}} if crops else {}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(image.mean),
        "image_std": list(image.std),
    }


def tokenizer_config(pair: Pair) -> dict[str, Any]:
    """``tokenizer_config.json``: the tokenizer as its file says, with nothing added in Python."""
    preprocess, config = pair.text_preprocess, pair.text.config
    token = preprocess.tokenizer.id_to_token
    named = {"pad_token": token(preprocess.pad_id), "eos_token": token(config.eos_id)}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.context,
        "padding_side": "right",
        **{name: value for name, value in named.items() if value is not None},
    }


def open_clip_config(pair: Pair, name: str) -> dict[str, Any]:
    """``open_clip_config.json``; ``name`` on the model hub, where its tokenizer is looked up."""
    v, t, image = pair.vision.config, pair.text.config, pair.image_preprocess
    height, width = v.image_size
    own_words = pair.text_preprocess.tokenizer.token_to_id("<|startoftext|>") == CLIP_START
    return {
        "model_cfg": {
            "embed_dim": pair.dim,
            "quick_gelu": v.act == "quick_gelu",
            **({"init_logit_bias": 0.0} if pair.biased else {}),
            "vision_cfg": {
                "image_size": height if height == width else [height, width],
                "layers": v.layers,
                "width": v.width,
                "head_width": v.width // v.heads,
                "patch_size": v.patch,
                "mlp_ratio": v.hidden / v.width,
                "pool_type": "tok" if v.pool == "cls" else "avg",
                **_open_clip_layers(v),
            },
            "text_cfg": {
                "context_length": t.context,
                "vocab_size": t.vocabulary,
                "width": t.width,
                "heads": t.heads,
                "layers": t.layers,
                "mlp_ratio": t.hidden / t.width,
                "pool_type": "argmax" if t.pool == "highest" else "eos",
                "proj_bias": pair.text_projection[1],
                "pad_id": pair.text_preprocess.pad_id,
                "eos_id": t.eos_id,
                **({} if own_words else {"hf_tokenizer_name": name}),
                **_open_clip_layers(t),
            },
        },
        "preprocess_cfg": {
            "size": list(image.size_2d),
            "mode": "RGB",
            "mean": list(image.mean),
            "std": list(image.std),
            "interpolation": image.interpolation,
            "resize_mode": "longest" if image.resize == "pad" else image.resize,
            "fill_color": image.fill[0],
        },
    }


def _open_clip_layers(config: VisionConfig | TextConfig) -> dict[str, Any]:
    tanh = {"act_kwargs": {"approximate": "tanh"}} if config.act == "gelu_tanh" else {}
    return {**tanh, "norm_kwargs": {"eps": config.eps}}
