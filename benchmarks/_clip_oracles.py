"""Random CLIP and SigLIP models of transformers and open_clip next to plait's, in float64.

`compare` gives the largest difference of embeddings, logits, and of the gradients of every
parameter (carried over by the same key mapping that loads checkpoints) and of the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plait.core.batch import ModalityInput
from plait.encoders.clip import checkpoint as clip_checkpoint
from plait.encoders.clip import keys as clip_keys
from plait.encoders.scratch.byte_tokenizer import byte_preprocess
from plait.modalities.image.preprocess import ImagePreprocess
from plait.models.alignment.alignment import AlignmentModel
from plait.models.store.files import fill
from plait.models.store.published import alignment_of

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


@dataclass(frozen=True)
class Side:
    """What one implementation gives: embeddings, logits and, after backward, gradients."""

    image: Tensor
    text: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Case:
    """A reference, its inputs, and plait's model with the same weights."""

    reference: torch.nn.Module
    run: Callable[[Tensor, Tensor, Tensor], Side]
    keys: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    ours: AlignmentModel
    ids: Tensor
    mask: Tensor


def ours_from(
    architecture: clip_checkpoint.Architecture, weights: dict[str, Tensor]
) -> AlignmentModel:
    preprocess = ImagePreprocess(size=architecture.vision.image_size, mean=MEAN, std=STD)
    checkpoint = clip_checkpoint.Checkpoint(
        architecture, preprocess, byte_preprocess(architecture.text.context), {}, "reference"
    )
    model = alignment_of(checkpoint).double().eval()
    fill(model, weights, "reference")
    return model


def _randomise(model: torch.nn.Module, seed: int) -> None:
    """Every parameter random, so that biases and norms are tested too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if name == "logit_scale":
                parameter.copy_(1.0 + 0.1 * noise)
            elif parameter.ndim <= 1:
                parameter.add_(0.2 * noise)
            else:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)


def normalised(pixels: Tensor) -> Tensor:
    mean = torch.tensor(MEAN, dtype=torch.float64).view(-1, 1, 1)
    std = torch.tensor(STD, dtype=torch.float64).view(-1, 1, 1)
    return (pixels - mean) / std


def token_ids(
    lengths: list[int], width: int, vocabulary: int, eos: int, pad: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Rows of random words, then ``eos``, then padding to ``width``."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), width), pad)
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(3, vocabulary - 1, (length,), generator=generator)
        ids[row, length - 1] = eos
        mask[row, :length] = True
    return ids, mask


def compare(case: Case, seed: int = 0) -> dict[str, float]:
    """Largest absolute differences by what was compared."""
    height, width = case.ours.tower("image").encoder.config.image_size  # type: ignore[union-attr]
    generator = torch.Generator().manual_seed(seed)
    shape = (len(case.ids), 3, height, width)
    pixels = torch.rand(shape, generator=generator, dtype=torch.float64)
    theirs_pixels, ours_pixels = (pixels.clone().requires_grad_() for _ in range(2))
    theirs = case.run(normalised(theirs_pixels), case.ids, case.mask)
    image = case.ours.encode_one("image", ModalityInput.of(pixels=ours_pixels))
    text = case.ours.encode_one("text", ModalityInput.of(mask=case.mask, ids=case.ids))
    logits = case.ours.scale * image @ text.T
    if case.ours.bias is not None:
        logits = logits + case.ours.bias
    ours = Side(image, text, logits)
    weights = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in vars_of(ours)]
    for side in (theirs, ours):
        sum((w * x).sum() for w, x in zip(weights, vars_of(side))).backward()  # type: ignore[union-attr]
    differences = {
        name: _gap(a, b)
        for name, a, b in zip(("image", "text", "logits"), vars_of(theirs), vars_of(ours))
    }
    differences["pixel gradient"] = _gap(theirs_pixels.grad, ours_pixels.grad)
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in case.reference.named_parameters()
    }
    mapped = case.keys(gradients)
    own = dict(case.ours.named_parameters())
    assert mapped.keys() == own.keys()
    differences["parameter gradients"] = max(_gap(mapped[k], own[k].grad) for k in own)
    return differences


def vars_of(side: Side) -> list[Tensor]:
    return [side.image, side.text, side.logits]


def _gap(a: Any, b: Any) -> float:
    assert a.shape == b.shape
    return float((a - b).detach().abs().max())


def transformers_case(
    kind: str,
    *,
    seed: int,
    width: int = 24,
    heads: int = 3,
    layers: int = 2,
    hidden: int = 40,
    patch: int = 4,
    image_size: int = 12,
    act: str = "quick_gelu",
    dim: int = 10,
    eos: int = 37,
    length: int = 9,
    context: int = 9,
    lengths: tuple[int, ...] = (9, 3, 6),
) -> Case:
    """A random ``clip`` or ``siglip`` of transformers."""
    from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

    shared = {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "intermediate_size": hidden,
        "hidden_act": act,
    }
    vision = shared | {"patch_size": patch, "image_size": image_size}
    text = shared | {
        "vocab_size": 40,
        "max_position_embeddings": context,
        "eos_token_id": eos,
        "bos_token_id": 0,
        "pad_token_id": 1,
    }
    # The eager form takes its softmax in float32 whatever the weights are.
    if kind == "clip":
        config = CLIPConfig(
            vision_config=vision, text_config=text, projection_dim=dim, attn_implementation="sdpa"
        )
        model: Any = CLIPModel(config)
    else:
        text["projection_size"] = width
        config = SiglipConfig(vision_config=vision, text_config=text, attn_implementation="sdpa")
        model = SiglipModel(config)
    model = model.double().eval()
    _randomise(model, seed)

    def run(pixels: Tensor, ids: Tensor, mask: Tensor) -> Side:
        # SigLIP was trained, and is run by its processor, without a mask.
        extra = {"attention_mask": mask.long()} if kind == "clip" else {}
        out = model(input_ids=ids, pixel_values=pixels, **extra)
        return Side(out.image_embeds, out.text_embeds, out.logits_per_image)

    marker = 39 if eos == 2 else eos  # legacy configurations: the highest id ends the text
    ids, mask = token_ids(list(lengths), length, 39, marker, 1, seed)
    architecture = clip_checkpoint.transformers_architecture(config)
    ours = ours_from(architecture, clip_keys.from_transformers(dict(model.state_dict())))
    return Case(model, run, clip_keys.from_transformers, ours, ids, mask)


def open_clip_case(
    *,
    seed: int,
    quick_gelu: bool = False,
    pool: str = "tok",
    text_pool: str = "argmax",
    image_size: Any = 12,
    patch: int = 4,
    width: int = 24,
    head_width: int = 8,
    text_heads: int = 2,
    bias: float | None = None,
    act_kwargs: dict[str, Any] | None = None,
    proj_bias: bool = False,
    custom: bool = False,
) -> Case:
    """A random CLIP of open_clip."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

    vision = {
        "layers": 2, "width": width, "head_width": head_width, "mlp_ratio": 1.5,
        "patch_size": patch, "image_size": image_size, "pool_type": pool,
        "act_kwargs": act_kwargs,
    }  # fmt: skip
    text = {
        "context_length": 9, "vocab_size": 40, "width": 20, "heads": text_heads, "layers": 2,
        "mlp_ratio": 2.0, "pool_type": text_pool, "eos_id": 39, "act_kwargs": act_kwargs,
        "proj_bias": proj_bias,
    }  # fmt: skip
    settings: dict[str, Any] = {"embed_dim": 10, "quick_gelu": quick_gelu, "init_logit_bias": bias}
    cls = CustomTextCLIP if custom else CLIP
    model: Any = cls(
        vision_cfg=CLIPVisionCfg(**vision),
        text_cfg=CLIPTextCfg(**text),
        output_dict=True,
        **settings,
    )
    model = model.double().eval()
    _randomise(model, seed)

    def run(pixels: Tensor, ids: Tensor, mask: Tensor) -> Side:
        out = model(image=pixels, text=ids)
        image, words = out["image_features"], out["text_features"]
        logits = out["logit_scale"] * image @ words.T
        if bias is not None:
            logits = logits + out["logit_bias"]
        return Side(image, words, logits)

    ids, mask = token_ids([9, 4, 6], 9, 39, 39, 0, seed)
    architecture = clip_checkpoint.open_clip_architecture(
        settings | {"vision_cfg": vision, "text_cfg": text}
    )
    ours = ours_from(architecture, clip_keys.from_open_clip(dict(model.state_dict())))
    return Case(model, run, clip_keys.from_open_clip, ours, ids, mask)


CLIP_CASES: dict[str, dict[str, Any]] = {
    "quick_gelu": {},
    "gelu, uneven heads": {"act": "gelu", "width": 20, "heads": 5, "dim": 7},
    "large patch, deep": {"patch": 6, "layers": 4, "hidden": 17},
    "short inputs": {"length": 5, "lengths": (5, 2, 4)},
    "legacy eos id 2": {"eos": 2},
    "one head": {"heads": 1, "image_size": 8},
}
SIGLIP_CASES: dict[str, dict[str, Any]] = {
    "tanh gelu": {"act": "gelu_pytorch_tanh"},
    "uneven heads": {"act": "gelu_pytorch_tanh", "width": 20, "heads": 5, "layers": 3},
    "large patch": {"act": "gelu", "patch": 6, "hidden": 17},
    "cropped border": {"act": "gelu_pytorch_tanh", "patch": 5},
}
OPEN_CLIP_CASES: dict[str, dict[str, Any]] = {
    "gelu": {},
    "quick_gelu": {"quick_gelu": True},
    "oblong image": {"image_size": (8, 16)},
    "average pool": {"pool": "avg"},
    "eos pool": {"text_pool": "eos", "text_heads": 4},
    "logit bias, tanh gelu": {"bias": -10.0, "act_kwargs": {"approximate": "tanh"}},
    "custom text tower": {"custom": True, "proj_bias": True, "head_width": 6},
}
