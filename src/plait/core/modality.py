"""Names of modalities. Recipes, tables, batches and reports all use these words."""

from __future__ import annotations

from typing import Final

IMAGE: Final = "image"
TEXT: Final = "text"
AUDIO: Final = "audio"
VIDEO: Final = "video"
SENSOR: Final = "sensor"

MODALITIES: Final = (IMAGE, TEXT, AUDIO, VIDEO, SENSOR)
