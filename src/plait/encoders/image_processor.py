"""transformers' preprocessor_config.json to `ImagePreprocess`."""

from __future__ import annotations

from typing import Any

from plait.core.errors import ModelError
from plait.data.preprocess import IMAGENET_MEAN, IMAGENET_STD, ImagePreprocess

PILLOW_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def read_processor(config: dict[str, Any], model_config: Any = None) -> ImagePreprocess:
    """The preprocessing that a published image model expects.

    ``size`` may be {"shortest_edge": n} (then a centre crop of ``crop_size`` follows) or
    {"height": h, "width": w} (squashed). Without a file: the model's own size, ImageNet statistics.

    Raises:
        ModelError: a size that plait's preprocessing cannot express.
    """
    natural = int(getattr(model_config, "image_size", 224) or 224)
    size = config.get("size", natural)
    if isinstance(size, int):
        size = (
            {"shortest_edge": size}
            if config.get("do_center_crop")
            else {"height": size, "width": size}
        )
    crop = config.get("crop_size") if config.get("do_center_crop", "crop_size" in config) else None
    if isinstance(crop, dict):
        crop = (int(crop["height"]), int(crop["width"]))
    elif crop is not None:
        crop = (int(crop), int(crop))
    statistics: dict[str, Any] = {
        "crop_rounding": "down",
        "mean": tuple(config.get("image_mean", IMAGENET_MEAN)),
        "std": tuple(config.get("image_std", IMAGENET_STD)),
        "interpolation": PILLOW_FILTERS.get(int(config.get("resample", 3)), "bicubic"),
    }
    if "shortest_edge" in size:
        edge = int(size["shortest_edge"])
        target = crop or (edge, edge)
        # crop_pct (ConvNeXt, LeViT) says how far beyond the crop the short side is resized
        fraction = float(config.get("crop_pct") or min(target) / edge)
        return ImagePreprocess(
            size=_compact(target), resize="shortest", crop_fraction=fraction, **statistics
        )
    if "height" in size and "width" in size:
        full = (int(size["height"]), int(size["width"]))
        fraction = 1.0 if crop is None else crop[0] / full[0]
        return ImagePreprocess(
            size=_compact(crop or full), resize="squash", crop_fraction=fraction, **statistics
        )
    raise ModelError(f"preprocessor_config.json: size {size!r} is not supported")


def _compact(size: tuple[int, int]) -> int | tuple[int, int]:
    return size[0] if size[0] == size[1] else size
