"""The kinds of model that a run can hold."""

from __future__ import annotations

from typing import TypeVar

from plait.core.errors import ModelError
from plait.models.alignment.alignment import AlignmentModel
from plait.models.bridged.model import BridgedModel
from plait.models.drawing.drawing import DrawingModel
from plait.models.fusion.model import FusionModel

Model = AlignmentModel | FusionModel | BridgedModel | DrawingModel
Kind = TypeVar("Kind", AlignmentModel, FusionModel, BridgedModel, DrawingModel)


def aligned(model: Model, duty: str) -> AlignmentModel:
    """The model, if it is one that embeds; see `_expected`."""
    mend = "train one with `plait train align`, or ask this one with `plait ask`"
    return _expected(model, AlignmentModel, duty, "an alignment model", mend)


def fused(model: Model, duty: str) -> FusionModel:
    """The model, if it is one that answers from several modalities together; see `_expected`."""
    return _expected(model, FusionModel, duty, "a fusion model", "see `plait recipes`")


def bridged(model: Model, duty: str) -> BridgedModel:
    """The model, if it is a language model that sees; see `_expected`."""
    needed = "a language model that sees"
    return _expected(model, BridgedModel, duty, needed, "see `plait recipes`")


def drawing(model: Model, duty: str) -> DrawingModel:
    """The model, if it is one that draws; see `_expected`."""
    mend = "train one with `plait train draw`"
    return _expected(model, DrawingModel, duty, "a model that draws", mend)


def _expected(model: Model, kind: type[Kind], duty: str, needed: str, mend: str) -> Kind:
    """The model, if it is of a kind.

    Raises:
        ModelError: it is not; ``duty`` names what it was asked for.
    """
    if isinstance(model, kind):
        return model
    raise ModelError(f"{duty} needs {needed}, this run holds {_kind(model)}: {mend}")


def _kind(model: Model) -> str:
    if isinstance(model, AlignmentModel):
        return "an alignment model"
    if isinstance(model, DrawingModel):
        return "a model that draws"
    return "a fusion model" if isinstance(model, FusionModel) else "a language model that sees"
