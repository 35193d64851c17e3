"""From pictures and prompts to texts, batch by batch, without gradients.

Shape legend: B sequences, M pictures of a sequence, U distinct pictures of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from plait.core.batch import Batch, ModalityInput
from plait.core.errors import DataError, ModelError
from plait.core.media import MediaRef
from plait.core.modality import IMAGE, TEXT
from plait.data.base.wording import filled
from plait.modalities.image.clips import frames_of
from plait.modalities.image.fast_decode import load_pixels
from plait.modalities.image.preprocess import ImagePreprocess
from plait.models.base.embedding import answering
from plait.models.base.encoding import ROWS
from plait.models.bridged.generate import Writing, generate
from plait.models.bridged.model import LABELS, BridgedModel

AT_ONCE = 128  # sequences


def write(
    model: BridgedModel,
    pictures: Sequence[Sequence[MediaRef]],
    prompts: Sequence[str],
    how: Writing | None = None,
    *,
    batch_size: int = AT_ONCE,
    on_error: Callable[[int, DataError], None] | None = None,
) -> Iterator[list[str]]:
    """What the model writes after each prompt, batch after batch.

    Args:
        model: it.
        pictures: of each prompt, in the order of its ``<image>``; one that several show is encoded
            once a batch.
        prompts: as many.
        how: greedy when None.
        batch_size: prompts at once.
        on_error: is told the prompt and the error of a picture that cannot be used; None raises.

    Raises:
        DataError: a picture that cannot be used, or another number of pictures than ``<image>``.
    """
    assert len(pictures) == len(prompts)
    writer = model.writer
    for start in range(0, len(prompts), batch_size):
        shown, asked = pictures[start : start + batch_size], prompts[start : start + batch_size]
        rows = [
            writer.prompt(text, pictures=len(refs), where=f"prompt {start + number + 1}")
            for number, (text, refs) in enumerate(zip(asked, shown, strict=True))
        ]
        sequences = writer.padded(rows, left=True)
        inputs = _inputs(model, shown, start, on_error)
        with answering(model) as device:
            moved = type(sequences)(
                *(getattr(sequences, name).to(device) for name in ("ids", "mask", "labels"))
            )
            media = None if inputs is None else model.see(inputs.map(lambda t: t.to(device)))
            found = generate(model, moved, media, how)
        yield [writer.text(row) for row in found]


def prompt_for(model: BridgedModel, task: str, labels: Mapping[str, object]) -> str:
    """The prompt that a model was trained with.

    Raises:
        ModelError: it was not trained for that task.
        DataError: the prompt needs more than ``labels`` tell.
    """
    if task not in model.tasks:
        known = " and ".join(model.tasks) or "nothing about pictures"
        raise ModelError(f"this model was trained to {known}, not to {task}: give a prompt")
    return filled(model.tasks[task]["prompt"], labels)


def written_answer(model: BridgedModel, picture: MediaRef, question: str) -> tuple[str, float]:
    """The answer that a model writes, and its probability.

    Raises:
        ModelError: it was not trained to answer.
        DataError: a picture that cannot be used.
    """
    prompt = prompt_for(model, "answer", {"question": question, "text": question})
    ((text,),) = write(model, [[picture]], [prompt])
    writer = model.writer
    ids, labels = writer.example(prompt, text, pictures=1)
    example = writer.padded([ids], [labels])
    inputs = _inputs(model, [[picture]], 0, None)
    assert inputs is not None
    said = ModalityInput.of(mask=example.mask, ids=example.ids, **{LABELS: example.labels})
    with answering(model) as device:
        batch = Batch([""], torch.zeros(1, dtype=torch.int64), {IMAGE: inputs, TEXT: said})
        total, _ = model.loss(batch.to(device))
    return text, math.exp(-float(total))


def _inputs(
    model: BridgedModel,
    pictures: Sequence[Sequence[MediaRef]],
    first: int,
    on_error: Callable[[int, DataError], None] | None,
) -> ModalityInput | None:
    """Distinct pixels and ``rows`` (B, M); None where no sequence shows a picture."""
    number: dict[MediaRef, int] = {}
    most = max(map(len, pictures), default=0)
    rows = np.full((len(pictures), most), -1, np.int64)
    for row, refs in enumerate(pictures):
        rows[row, : len(refs)] = [number.setdefault(ref, len(number)) for ref in refs]
    if not number:
        return None
    preprocess = model.tower(IMAGE).encoder.preprocess
    if not isinstance(preprocess, ImagePreprocess):
        raise ModelError("this model's encoder reads no pictures")

    def failed(place: int, error: DataError) -> None:
        if on_error is None:
            raise error
        shown = place // max(1, model.frames)
        for row in np.flatnonzero((rows == shown).any(axis=1)).tolist():
            on_error(first + row, error)

    shots = frames_of(list(number), model.frames)
    pixels = torch.as_tensor(load_pixels(shots, preprocess, on_error=failed))
    present = torch.ones(len(pictures), dtype=torch.bool)
    return ModalityInput({"pixels": pixels, ROWS: torch.from_numpy(rows)}, present)
