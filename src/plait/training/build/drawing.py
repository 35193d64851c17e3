"""From a recipe to a model that draws."""

from __future__ import annotations

from collections.abc import Sequence

from plait.modalities.text.tokenize import TextPreprocess
from plait.modalities.text.tokenizer_training import train_tokenizer
from plait.models.drawing.drawing import DrawingModel
from plait.models.drawing.dvae import DiscreteVAE
from plait.models.drawing.transformer import DrawingTransformer
from plait.training.recipe import schema
from plait.training.build.init_from import tokenizer_of


def build_drawing(recipe: schema.Recipe, texts: Sequence[str]) -> DrawingModel:
    """The untrained model.

    Args:
        recipe: of kind ``drawing``.
        texts: of the training split, for the tokenizer.

    Raises:
        ModelError: sizes that don't fit each other.
    """
    model = recipe.model
    assert model.drawing is not None
    options = model.drawing.dvae.model_dump()
    dvae = DiscreteVAE(error=options.pop("likelihood"), **options)
    words = model.drawing.vocabulary
    tokenizer = (
        train_tokenizer(texts, kind=words.kind, vocabulary=words.size)
        if model.init_from is None
        else tokenizer_of(model.init_from.run)
    )
    sizes = model.drawing.transformer.model_dump()
    preprocess = TextPreprocess(tokenizer, sizes["text_length"])
    transformer = DrawingTransformer(
        vocabulary=preprocess.vocabulary, codes=dvae.code_count, grid=dvae.grid, **sizes
    )
    return DrawingModel(dvae, transformer, preprocess)
