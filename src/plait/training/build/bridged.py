"""From a recipe to a language model that sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from plait.bridges.registry import build_bridge
from plait.core.batch import ModalityInput
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.text.tokenize import TextPreprocess
from plait.modalities.text.tokenizer_training import train_tokenizer
from plait.encoders.base.base import Encoder
from plait.language.base import LanguageModel
from plait.language.registry import build_language
from plait.models.bridged.model import BridgedModel
from plait.models.bridged.sequences import PLACEHOLDER
from plait.training.recipe import schema
from plait.training.recipe import model as schema_model
from plait.training.build.init_from import tokenizer_of
from plait.training.tasks.qformer_task import QFORMER, qformer_options


def build_bridged(recipe: schema.Recipe, encoder: Encoder, texts: Sequence[str]) -> BridgedModel:
    """The untrained model.

    Args:
        recipe: of kind ``bridge``.
        encoder: of pictures.
        texts: of the training split, for a tokenizer that is trained on them.

    Raises:
        ModelError: an unknown language model, bridge or option, or parts that don't fit.
    """
    model = recipe.model
    assert model.bridge is not None and model.language is not None
    language = _language(model.language, texts, model.init_from)
    bridge, tokens = model.bridge, tokens_of(encoder)
    pooled = bridge.reads == "pooled"
    built = build_bridge(
        bridge.kind,
        encoder.width if pooled else encoder.token_width,
        language.width,
        1 if pooled else tokens,
        **{
            **_of_first_stage(recipe, language),
            **model.sizes.get(bridge.kind, {}),
            **bridge.options,
        },
    )
    return BridgedModel(
        encoder,
        built,
        language,
        injection=bridge.injection,
        picture_tokens=tokens,
        reads=bridge.reads,
        every=bridge.every,
        heads=bridge.heads,
        head_width=bridge.head_width,
        only_latest=bridge.only_latest,
        tasks=_tasks(recipe),
    )


def _language(
    part: schema_model.Language, texts: Sequence[str], start: schema_model.InitFrom | None
) -> LanguageModel:
    preprocess = None
    if part.vocabulary is not None:
        tokenizer = (
            train_tokenizer(texts, kind=part.vocabulary.kind, vocabulary=part.vocabulary.size)
            if start is None
            else tokenizer_of(start.run, "language")
        )
        preprocess = TextPreprocess(tokenizer, int(part.options.get("context", 512)))
    return build_language(
        part.source, preprocess=preprocess, pretrained=part.pretrained, **part.options
    )


def _of_first_stage(recipe: schema.Recipe, language: LanguageModel) -> dict[str, int]:
    """Options of a Q-Former that some stage trains with texts."""
    if any(task.objective == QFORMER for stage in recipe.stages for task in stage.tasks):
        return qformer_options(language.vocabulary, language.context)
    return {}


def tokens_of(encoder: Encoder) -> int:
    """How many tokens an encoder gives for a picture, by showing it a grey one."""
    assert isinstance(encoder.preprocess, ImagePreprocess)
    size = encoder.preprocess.size
    height, width = (size, size) if isinstance(size, int) else size
    grey = torch.full((1, 3, height, width), 128, dtype=torch.uint8)
    with torch.no_grad():
        found: int = encoder(ModalityInput.of(pixels=grey)).tokens.shape[1]
    return found


def _tasks(recipe: schema.Recipe) -> dict[str, dict[str, str]]:
    """What evaluations ask: the last task that shows a picture, as ``answer`` or ``caption``."""
    found: dict[str, dict[str, str]] = {}
    for stage in recipe.stages:
        for task in stage.tasks:
            if task.objective == "write" and PLACEHOLDER in task.prompt:
                name = "answer" if task.target == "{answer}" else "caption"
                found[name] = {"prompt": task.prompt, "target": task.target}
    return found
