"""The preprocessing that published models were trained with, read from how they state it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from plait.core.errors import ModelError
from plait.modalities.image.preprocess import IMAGENET_MEAN, IMAGENET_STD, ImagePreprocess

# Numbers of Pillow's filters, as preprocessor_config.json writes them.
PILLOW_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
_CONVNEXT_SQUASHES_FROM = 384


def preprocess_from_timm(config: Mapping[str, Any]) -> ImagePreprocess:
    """From what `timm.data.resolve_model_data_config` gives."""
    _, height, width = config["input_size"]
    mean = tuple(float(value) for value in config["mean"])
    mode = config.get("crop_mode") or "center"
    return ImagePreprocess(
        size=(height, width),
        resize={"squash": "squash", "border": "pad"}.get(mode, "shortest"),  # type: ignore[arg-type]
        crop_fraction=float(config.get("crop_pct") or 0.875),
        interpolation="bilinear"
        if config["interpolation"] == "random"
        else config["interpolation"],
        mean=mean,
        std=tuple(float(value) for value in config["std"]),
        fill=tuple(round(255 * value) for value in mean) if mode == "border" else (255, 255, 255),
    )


def preprocess_from_torchvision(transform: Any) -> ImagePreprocess:
    """From ``weights.transforms()`` of an image classifier."""
    (crop,), (resize,) = transform.crop_size, transform.resize_size
    return ImagePreprocess(
        size=(crop, crop),
        crop_fraction=crop / resize,
        interpolation=transform.interpolation.value,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
    )


def preprocess_from_transformers(
    config: Mapping[str, Any], *, image_size: int = 224
) -> ImagePreprocess:
    """From a ``preprocessor_config.json``.

    Args:
        config: its content; {} when there is no such file.
        image_size: the model's own size, for a file that states none.

    Raises:
        ModelError: a size that gives pictures of differing shapes, or none that can be read.
    """
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    mean, std = _statistics(config)
    base = ImagePreprocess(
        interpolation=PILLOW_FILTERS[int(config.get("resample", 3))],  # type: ignore[arg-type]
        mean=mean,
        std=std,
        crop_rounding="down",
    )
    size = config.get("size", image_size)
    crop = _pair(config["crop_size"]) if _crops(config) else None
    if isinstance(size, Mapping) and "shortest_edge" in size:
        return _shortest(base, kind, int(size["shortest_edge"]), crop, config)
    if isinstance(size, int) and (crop is not None or kind.startswith("ConvNext")):
        return _shortest(base, kind, size, crop, config)  # the form of older files
    full = _pair(size)
    if crop is None:
        return replace(base, size=full, resize="squash")
    if crop[0] * full[1] != crop[1] * full[0] or crop[0] > full[0]:
        raise ModelError(
            f"preprocessor_config.json resizes to {full} and crops {crop}, which differ in shape; "
            "that is not supported"
        )
    return replace(base, size=crop, resize="squash", crop_fraction=crop[0] / full[0])


def _shortest(
    base: ImagePreprocess,
    kind: str,
    edge: int,
    crop: tuple[int, int] | None,
    config: Mapping[str, Any],
) -> ImagePreprocess:
    # ConvNeXt's processor crops by itself, by a share, and only small inputs.
    if kind.startswith("ConvNext") or (not kind and crop is None and config.get("crop_pct")):
        if edge >= _CONVNEXT_SQUASHES_FROM:
            return replace(base, size=(edge, edge), resize="squash")
        share = float(config.get("crop_pct") or 224 / 256)
        return replace(base, size=(edge, edge), crop_fraction=share)
    if kind.startswith("Levit"):
        edge = int(256 / 224 * edge)
    elif config.get("crop_pct"):  # PoolFormer
        edge = int(edge / float(config["crop_pct"]))
    if crop is None:
        raise ModelError(
            "preprocessor_config.json resizes the shortest edge and crops nothing, so that "
            "pictures would differ in shape; give the encoder a size"
        )
    if crop[0] != crop[1] or crop[0] > edge:
        raise ModelError(
            f"preprocessor_config.json resizes the shortest edge to {edge} and crops {crop}; "
            "only square crops that fit are supported"
        )
    return replace(base, size=crop, crop_fraction=crop[0] / edge)


def _crops(config: Mapping[str, Any]) -> bool:
    return bool(config.get("crop_size")) and config.get("do_center_crop", True) is not False


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping) and {"height", "width"} <= set(size):
        return int(size["height"]), int(size["width"])
    if isinstance(size, Mapping) and "shortest_edge" in size:
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    raise ModelError(f"preprocessor_config.json states the size {size!r}, which is not supported")


def _statistics(config: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std for values in 0..1, with an unusual rescaling folded in.

    (x r - m) / s = (x / 255 - m / 255r) / (s / 255r) for the rescale factor r.
    """
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.get("do_normalize", True):
        mean = tuple(config.get("image_mean") or IMAGENET_MEAN)
        std = tuple(config.get("image_std") or IMAGENET_STD)
    rescale = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    factor = 255 * float(rescale)
    if abs(factor - 1) < 1e-9:
        return mean, std
    return tuple(value / factor for value in mean), tuple(value / factor for value in std)
