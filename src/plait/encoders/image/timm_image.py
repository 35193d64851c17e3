"""Images through any model of timm: tokens are its grid cells or patches.

Shape legend: B samples, N positions, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plait.core.batch import Encoded, ModalityInput
from plait.core.errors import ModelError, did_you_mean
from plait.core.modality import IMAGE
from plait.encoders.base.base import (
    Encoder,
    Example,
    Family,
    PixelNorm,
    check_modality,
    check_options,
)
from plait.encoders.base.image_processor import adjusted
from plait.encoders.base.regions import boxes_for, find_grid, patch_of, sides
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.image.preprocess_sources import preprocess_from_timm
from plait.nn.pooling import Pool

OPTIONS = ("pool", "layers", "level_norm", "size", "resize")


class TimmEncoder(Encoder):
    """An image encoder around a timm model without its classifier.

    Args:
        model: the timm model, created with ``num_classes=0``.
        name: its timm name.
        preprocess: how pictures become pixels, mean and std included.
        pool: ``native`` is the model's own pooling and head norm; otherwise see `Pool`.
        layers: indices of intermediate stages or blocks whose pooled outputs (mean unless
            ``pool`` says otherwise) are put before the final one.
        level_norm: bring each level to unit length before concatenating.
    """

    modality = IMAGE
    preprocess: ImagePreprocess

    def __init__(
        self,
        model: nn.Module,
        name: str,
        preprocess: ImagePreprocess,
        *,
        pool: str = "native",
        layers: Sequence[int] = (),
        level_norm: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.name, self.preprocess = model, name, preprocess
        self.pool_kind, self.layers, self.level_norm = pool, list(layers), level_norm
        self.normalise = PixelNorm(preprocess.mean, preprocess.std)
        self.prefix = int(getattr(model, "num_prefix_tokens", 0) or 0)
        self.pool = None if pool == "native" else Pool(pool, skip=self.prefix)
        self.level_pool = Pool("mean" if pool in ("native", "cls") else pool)
        model.eval()
        tokens, pooled, _ = self._encode(torch.zeros(1, 3, *preprocess.size_2d))
        drop_unused(model, tokens.sum() + pooled.sum())
        self.token_width, self.width = tokens.shape[-1], pooled.shape[-1]

    def forward(self, inputs: ModalityInput) -> Encoded:
        """``pixels`` (B, 3, H, W), uint8, or float 0 to 1."""
        tokens, pooled, grid = self._encode(self.normalise(inputs.tensors["pixels"]))
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        boxes = None if grid is None else boxes_for(tokens, *grid)
        return Encoded(tokens, mask, pooled, boxes)

    def _encode(self, pixels: Tensor) -> tuple[Tensor, Tensor, tuple[int, int] | None]:
        """(tokens, pooled, rows and columns of the tokens' grid where it is clear)."""
        if self.layers:
            final, levels = self.model.forward_intermediates(  # type: ignore[operator]
                pixels, indices=self.layers
            )
        else:
            final, levels = self.model.forward_features(pixels), []  # type: ignore[operator]
        tokens, grid = self._as_tokens(final, pixels)
        if self.pool is None:
            pooled = self.model.forward_head(final, pre_logits=True)  # type: ignore[operator]
        else:
            pooled = self.pool(tokens, _all_real(tokens))
        if not levels:
            return tokens, pooled, grid
        parts = []
        for level in levels:
            cells = level.flatten(2).transpose(1, 2)  # intermediates are always (B, C, H, W)
            parts.append(self.level_pool(cells, _all_real(cells)))
        parts.append(pooled)
        if self.level_norm:
            parts = [nn.functional.normalize(part, dim=-1) for part in parts]
        return tokens, torch.cat(parts, dim=-1), grid

    def _as_tokens(self, features: Tensor, pixels: Tensor) -> tuple[Tensor, tuple[int, int] | None]:
        if features.ndim == 3:
            stem = getattr(self.model, "patch_embed", None)
            patch = patch_of(getattr(stem, "patch_size", None))
            count = int(features.shape[1]) - self.prefix
            return features, find_grid(count, sides(pixels.shape[-2:]), patch)
        if features.ndim != 4:
            raise ModelError(f"timm/{self.name} gives features of shape {tuple(features.shape)}")
        if getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            return features.flatten(1, 2), sides(features.shape[1:3])
        return features.flatten(2).transpose(1, 2), sides(features.shape[2:])

    def spec(self) -> dict[str, Any]:
        """See `Encoder.spec`."""
        return {
            "family": "timm",
            "name": self.name,
            "preprocess": self.preprocess.to_json(),
            "pool": self.pool_kind,
            "layers": self.layers,
            "level_norm": self.level_norm,
        }


def _all_real(tokens: Tensor) -> Tensor:
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)


def drop_unused(model: nn.Module, output: Tensor) -> None:
    """Takes layers out of ``model`` whose weights ``output`` doesn't depend on.

    A head norm that another pooling leaves out would be saved, counted and never trained, and
    would stop distributed training, which waits for every gradient.
    """
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(output, list(named.values()), allow_unused=True)
    unused = {name for name, gradient in zip(named, gradients) if gradient is None}
    for name, module in list(model.named_modules()):
        own = {f"{name}.{key}" for key, _ in module.named_parameters(recurse=False)}
        if name and own and own <= unused:
            model.set_submodule(name, nn.Identity())


def create(name: str, *, pretrained: bool, size: tuple[int, int] | None = None) -> nn.Module:
    """A timm model without classifier.

    Raises:
        ModelError: an unknown name, or weights that cannot be fetched.
    """
    import timm

    known = timm.list_models(include_tags=False)
    base = name.split(".")[0]
    if base not in known:
        raise ModelError(f"timm has no model {base!r}{did_you_mean(base, known)}")
    extra: dict[str, Any] = {}
    default = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if size is not None and default is not None and default.fixed_input_size:
        extra["img_size"] = size  # position tables are made for one size
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **extra)
    except (OSError, RuntimeError) as problem:
        if not pretrained:
            raise
        raise ModelError(
            f"the weights of timm/{name} cannot be fetched from their hub ({_first_line(problem)});"
            " check the connection, or use a packaged encoder such as pkg/efficientnet-lite0"
        ) from problem


def _first_line(problem: Exception) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]


def preprocess_of(model: nn.Module) -> ImagePreprocess:
    """Timm's evaluation transform as `ImagePreprocess`."""
    from timm.data import resolve_model_data_config

    return preprocess_from_timm(resolve_model_data_config(model))


def build(name: str, modality: str, pretrained: bool, options: dict[str, Any]) -> TimmEncoder:
    """``timm/NAME``; options ``pool``, ``layers``, ``level_norm``, ``size`` (pixels), ``resize``."""
    check_modality(f"timm/{name}", modality, (IMAGE,))
    check_options(f"timm/{name}", options, OPTIONS)
    options = dict(options)
    size, resize = options.pop("size", None), options.pop("resize", None)
    model = create(name, pretrained=pretrained, size=None if size is None else (size, size))
    preprocess = adjusted(preprocess_of(model), size, resize)
    return TimmEncoder(model, name, preprocess, **options)


def rebuild(spec: dict[str, Any], folder: Path) -> TimmEncoder:
    """The architecture of a spec, without weights."""
    preprocess = ImagePreprocess.from_json(spec["preprocess"])
    model = create(spec["name"], pretrained=False, size=preprocess.size_2d)
    return TimmEncoder(
        model,
        spec["name"],
        preprocess,
        pool=spec["pool"],
        layers=spec["layers"],
        level_norm=spec["level_norm"],
    )


FAMILY = Family(
    prefix="timm",
    build=build,
    rebuild=rebuild,
    help="any image model of timm; tokens are grid cells or patches",
    examples=(
        Example("timm/test_resnet", IMAGE, {"size": 64}),
        Example("timm/test_vit", IMAGE, {"size": 64}),
        Example("timm/test_convnext", IMAGE, {"pool": "mean+max", "size": 64}),
        Example("timm/test_efficientnet", IMAGE, {"size": 64, "layers": [2, 3]}),
    ),
)
