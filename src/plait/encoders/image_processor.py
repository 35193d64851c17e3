"""transformers' preprocessor_config.json to `ImagePreprocess`."""

from __future__ import annotations

from typing import Any

from plait.data.preprocess import ImagePreprocess
from plait.data.preprocess_sources import preprocess_from_transformers


def read_processor(config: dict[str, Any], model_config: Any = None) -> ImagePreprocess:
    """The preprocessing that a published image model expects.

    Without a file ({}): the model's own size, squashed, and ImageNet statistics.

    Raises:
        ModelError: a size that plait's preprocessing cannot express.
    """
    natural = int(getattr(model_config, "image_size", 224) or 224)
    return preprocess_from_transformers(config, image_size=natural)
