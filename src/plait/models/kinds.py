"""The kinds of model that a run can hold."""

from __future__ import annotations

from plait.core.errors import ModelError
from plait.models.alignment import AlignmentModel
from plait.models.bridged.model import BridgedModel
from plait.models.drawing.drawing import DrawingModel
from plait.models.fusion_model import FusionModel

Model = AlignmentModel | FusionModel | BridgedModel | DrawingModel


def aligned(model: Model, duty: str) -> AlignmentModel:
    """The model, if it is one that embeds.

    Raises:
        ModelError: it is not; ``duty`` names what it was asked for.
    """
    if isinstance(model, AlignmentModel):
        return model
    raise ModelError(
        f"{duty} needs an alignment model, this run holds {_kind(model)}: train one with "
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
        f"{duty} needs a fusion model, this run holds {_kind(model)}: see `plait recipes`"
    )


def bridged(model: Model, duty: str) -> BridgedModel:
    """The model, if it is a language model that sees.

    Raises:
        ModelError: it is not; ``duty`` names what it was asked for.
    """
    if isinstance(model, BridgedModel):
        return model
    raise ModelError(
        f"{duty} needs a language model that sees, this run holds {_kind(model)}: "
        "see `plait recipes`"
    )


def drawing(model: Model, duty: str) -> DrawingModel:
    """The model, if it is one that draws.

    Raises:
        ModelError: it is not; ``duty`` names what it was asked for.
    """
    if isinstance(model, DrawingModel):
        return model
    raise ModelError(
        f"{duty} needs a model that draws, this run holds {_kind(model)}: train one with "
        "`plait train draw`"
    )


def _kind(model: Model) -> str:
    if isinstance(model, AlignmentModel):
        return "an alignment model"
    if isinstance(model, DrawingModel):
        return "a model that draws"
    return "a fusion model" if isinstance(model, FusionModel) else "a language model that sees"
