"""From files and strings to embeddings, batch by batch, without gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from plait.core.batch import ModalityInput
from plait.core.errors import ModelError
from plait.core.modality import IMAGE, TEXT
from plait.modalities.image.fast_decode import decode_fast, preprocess_fast
from plait.modalities.image.preprocess import ImagePreprocess
from plait.modalities.text.tokenize import TextPreprocess
from plait.models.base.dispatch import device_of
from plait.runtime.pictures import to_array

if TYPE_CHECKING:
    from plait.models.alignment.alignment import AlignmentModel


@contextmanager
def answering(model: torch.nn.Module) -> Iterator[torch.device]:
    """Evaluation mode without gradients; yields the model's device, restores the mode."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield device_of(model)
    finally:
        model.train(training)


def image_input(pictures: Sequence[Any], preprocess: ImagePreprocess, start: int) -> ModalityInput:
    """A batch of pictures for an image encoder, by the path that training takes."""
    arrays = (
        to_array(item, start + i, decode_fast, preprocess.levels) for i, item in enumerate(pictures)
    )
    pixels = [preprocess_fast(array, preprocess) for array in arrays]
    return ModalityInput.of(pixels=torch.from_numpy(np.stack(pixels)))


def text_input(texts: Sequence[str], preprocess: TextPreprocess) -> ModalityInput:
    """A batch of texts for a text encoder."""
    ids, mask = preprocess(texts)
    return ModalityInput.of(mask=torch.from_numpy(mask), ids=torch.from_numpy(ids))


def embed_images(model: AlignmentModel, images: Sequence[Any], batch_size: int) -> np.ndarray:
    """(n, E) float32 unit rows."""
    preprocess = model.tower(IMAGE).encoder.preprocess
    if not isinstance(preprocess, ImagePreprocess):
        raise ModelError("the image tower has no image preprocessing")
    rows = [np.zeros((0, model.dim), np.float32)]
    with answering(model):
        device = device_of(model.tower(IMAGE))
        for start in range(0, len(images), batch_size):
            part = image_input(images[start : start + batch_size], preprocess, start)
            part = part.map(lambda tensor: tensor.to(device))
            rows.append(model.encode_one(IMAGE, part).float().cpu().numpy())
    return np.concatenate(rows)


def embed_texts(model: AlignmentModel, texts: Sequence[str], batch_size: int) -> np.ndarray:
    """(n, E) float32 unit rows; texts of like length share a batch."""
    preprocess = model.tower(TEXT).encoder.preprocess
    if not isinstance(preprocess, TextPreprocess):
        raise ModelError("the text tower has no text preprocessing")
    rows = np.zeros((len(texts), model.dim), np.float32)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    with answering(model):
        device = device_of(model.tower(TEXT))
        for start in range(0, len(texts), batch_size):
            chosen = order[start : start + batch_size]
            part = text_input([texts[i] for i in chosen], preprocess)
            part = part.map(lambda tensor: tensor.to(device))
            rows[chosen] = model.encode_one(TEXT, part).float().cpu().numpy()
    return rows


def embed_labels(
    model: AlignmentModel, labels: Sequence[str], templates: Sequence[str]
) -> np.ndarray:
    """(labels, E): for each label the renormalised mean of its prompts' embeddings.

    Raises:
        ModelError: no label, no template, or a template without ``{}``.
    """
    if not labels or not templates:
        raise ModelError("classification needs at least one label and one template")
    for template in templates:
        if "{}" not in template:
            raise ModelError(f"template {template!r} has no {{}} for the label")
    prompts = [template.replace("{}", label) for label in labels for template in templates]
    rows = embed_texts(model, prompts, batch_size=64)
    means = rows.reshape(len(labels), len(templates), -1).mean(axis=1)
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), dtype=np.float32)
