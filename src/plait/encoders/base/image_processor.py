"""Where an image encoder's preprocessing comes from: its source, and what the user changes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from plait.core.errors import ModelError
from plait.modalities.image.preprocess import ImagePreprocess, Resize
from plait.modalities.image.preprocess_sources import preprocess_from_transformers


def read_processor(config: dict[str, Any], model_config: Any = None) -> ImagePreprocess:
    """The preprocessing that a published image model expects.

    Without a file ({}): the model's own size, squashed, and ImageNet statistics.

    Raises:
        ModelError: a size that plait's preprocessing cannot express.
    """
    natural = int(getattr(model_config, "image_size", 224) or 224)
    return preprocess_from_transformers(config, image_size=natural)


def adjusted(
    preprocess: ImagePreprocess, size: int | None = None, resize: str | None = None
) -> ImagePreprocess:
    """The preprocessing of a source, as the user wants it.

    Args:
        preprocess: of the source.
        size: pixels of a side.
        resize: ``squash`` or ``pad`` show the encoder the whole picture, where the sources' own
            ``shortest`` cuts the margins off (see `ImagePreprocess`).

    Raises:
        ModelError: another word for ``resize``.
    """
    if size is not None:
        preprocess = replace(preprocess, size=(size, size))
    if resize is None:
        return preprocess
    if resize not in ("shortest", "squash", "pad"):
        raise ModelError(f"resize is 'shortest', 'squash' or 'pad', not {resize!r}")
    fraction = preprocess.crop_fraction if resize == "shortest" else 1.0
    return replace(preprocess, resize=cast(Resize, resize), crop_fraction=fraction)
