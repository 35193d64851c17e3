"""A trained model from its folder, whoever wrote it."""

from __future__ import annotations

from pathlib import Path

from plait.models.store.kinds import Model
from plait.models.store.published import is_published, load_published
from plait.models.store.storage import load_model


def open_model(path: Path) -> Model:
    """The model of a run folder, or of a published CLIP or SigLIP checkpoint's folder.

    Raises:
        ModelError: the folder holds neither, or a weight is missing, left over or of another shape.
    """
    return load_published(path) if is_published(path) else load_model(path)
