"""The kinds of model that a run can hold."""

from __future__ import annotations

from plait.core.errors import ModelError
from plait.models.alignment import AlignmentModel
from plait.models.fusion_model import FusionModel

Model = AlignmentModel | FusionModel


def aligned(model: Model, duty: str) -> AlignmentModel:
    """The model, if it is one that embeds.

    Raises:
        ModelError: it is not; ``duty`` names what it was asked for.
    """
    if isinstance(model, AlignmentModel):
        return model
    raise ModelError(
        f"{duty} needs an alignment model, this run holds a fusion model: train one with "
        "`plait train align`, or ask this one with `plait ask`"
    )


def fused(model: Model, duty: str) -> FusionModel:
    """The model, if it is one that answers from several modalities together.

    Raises:
        ModelError: it is not; ``duty`` names what it was asked for.
    """
    if isinstance(model, FusionModel):
        return model
    raise ModelError(
        f"{duty} needs a fusion model, this run holds an alignment model: see `plait recipes`"
    )
