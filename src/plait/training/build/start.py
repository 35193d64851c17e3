"""The published model that fine-tuning starts from."""

from __future__ import annotations

from plait.core.errors import ModelError, RecipeError
from plait.core.modality import IMAGE, TEXT
from plait.encoders.hf import weights as hf_weights
from plait.models.alignment.alignment import AlignmentModel
from plait.models.store.kinds import aligned
from plait.models.store.loading import open_model
from plait.training.recipe.schema import Recipe
from plait.training.recipe.model import PUBLISHED


def require_start(recipe: Recipe) -> None:
    """Sees that a recipe which trains a published model on names one.

    Raises:
        RecipeError: it names none.
    """
    encoders = [tower.encoder for tower in recipe.model.towers.values()]
    if PUBLISHED in encoders and recipe.model.published is None:
        raise RecipeError(
            f"the recipe {recipe.name!r} names no model to start from: give --model OWNER/NAME or "
            "--model FOLDER"
        )


def start_of(recipe: Recipe) -> AlignmentModel:
    """The published model, every weight as it is, in evaluation mode on the CPU.

    Raises:
        RecipeError: the recipe names none.
        ModelError: no CLIP, SigLIP or alignment run there, or one without both towers.
    """
    require_start(recipe)
    assert recipe.model.published is not None
    folder = hf_weights.resolve(recipe.model.published)
    model = aligned(open_model(folder), "fine-tuning")
    if set(model.modalities) != {IMAGE, TEXT}:
        told = " and ".join(model.modalities)
        raise ModelError(f"{folder} embeds {told}; fine-tuning is of pictures and texts")
    model.hubs = None  # by the old weights; training makes its own
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return model
