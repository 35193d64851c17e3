"""Training language models that see: examples, loss, and what is watched.

Shape legend: B rows, N positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from plait.core.batch import Batch, ModalityInput
from plait.core.modality import IMAGE
from plait.data.base.sample import Sample
from plait.data.vqa.answers import stated_answers
from plait.evaluation.metrics.vqa import vqa_accuracy
from plait.models.bridged.generate import Writing, generate
from plait.models.bridged.model import LABELS, BridgedModel
from plait.models.bridged.sequences import Writer
from plait.training.batches.material import Material
from plait.training.batches.rows import Rows
from plait.training.batches.supply import Supply
from plait.training.loop.precision import autocast
from plait.training.loop.task import TaskLoss
from plait.training.tasks.wording import Wording

WRITE = "write"
ANSWERS_WATCHED = 512  # validation rows that are answered at each evaluation


class ExampleSource:
    """Prompts and what should follow them, tokenised as they are needed.

    Args:
        material: the split.
        wording: of the task.
        writer: of the model.
    """

    def __init__(self, material: Material, wording: Wording, writer: Writer) -> None:
        self.material, self.wording, self.writer = material, wording, writer

    def __call__(self, rows: Rows) -> ModalityInput:
        """``ids`` and ``labels`` (B, N), and their mask."""
        examples = []
        for place, text in zip(rows.sample.tolist(), rows.text.tolist(), strict=True):
            sample = self.material.samples[place]
            prompt, target = self.wording.of(sample, self.material.texts[text])
            examples.append(
                self.writer.example(
                    prompt, target, pictures=self.wording.pictures, where=sample.where
                )
            )
        found = self.writer.padded([ids for ids, _ in examples], [labels for _, labels in examples])
        return ModalityInput.of(mask=found.mask, ids=found.ids, **{LABELS: found.labels})


class WriteTask:
    """Mean cross-entropy of the tokens to be written."""

    def __init__(self, model: BridgedModel) -> None:
        self.model = model

    def loss(self, batch: Batch) -> TaskLoss:
        """The loss of a batch, with its graph."""
        total, count = self.model.loss(batch)
        mean = total / max(1, count)
        return TaskLoss(mean, {WRITE: mean.detach()})


class WritingValidator:
    """Loss a token of a split, and the accuracy of written answers where the target is an answer.

    Args:
        model: what to measure.
        supply: the split's rows in order.
        samples: of the split.
        wording: of the task.
        metric: the watched value: ``loss`` or ``vqa.accuracy``.
        longest: new tokens of an answer.
        device, dtype: to compute on and in.
    """

    def __init__(
        self,
        model: BridgedModel,
        supply: Supply,
        samples: Sequence[Sample],
        wording: Wording,
        *,
        metric: str,
        longest: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.model, self.supply, self.samples, self.wording = model, supply, samples, wording
        self.metric, self.longest, self.device, self.dtype = metric, longest, device, dtype

    def __call__(self) -> tuple[float, dict[str, Any]]:
        """(the watched value, higher is better; all metrics)."""
        total, count = 0.0, 0
        with torch.no_grad():
            for batch in self.supply.epoch(0):
                with autocast(self.device, self.dtype):
                    loss, tokens = self.model.loss(batch.to(self.device))
                total, count = total + float(loss), count + tokens
        metrics: dict[str, Any] = {"loss": total / max(1, count)}
        if self.wording.target == "{answer}":
            metrics["vqa"] = {"accuracy": self._answered()}
        if self.metric == "loss":
            return -metrics["loss"], metrics
        return metrics["vqa"]["accuracy"], metrics

    def _answered(self) -> float:
        """Accuracy of the first answers of the split, in percent."""
        writer, written, given = self.model.writer, list[str](), []
        with torch.no_grad():
            for batch in self.supply.epoch(0):
                if len(written) >= ANSWERS_WATCHED:
                    break
                moved = batch.to(self.device)
                image = moved.modalities.get(IMAGE)
                media = None if image is None else self.model.see(image)
                samples = self.samples[len(written) : len(written) + len(batch)]
                prompts = [self.wording.of(s, s.texts[0])[0] for s in samples]
                rows = [
                    writer.prompt(text, pictures=self.wording.pictures, where=s.where)
                    for text, s in zip(prompts, samples, strict=True)
                ]
                asked = writer.padded(rows, left=True)
                moved_asked = type(asked)(
                    *(getattr(asked, name).to(self.device) for name in ("ids", "mask", "labels"))
                )
                found = generate(self.model, moved_asked, media, Writing(longest=self.longest))
                written += [writer.text(row) for row in found]
                given += [stated_answers(sample) for sample in samples]
        judged = [number for number, answers in enumerate(given) if answers]
        if not judged:
            return float("nan")
        accuracy = vqa_accuracy([written[i] for i in judged], [given[i] for i in judged])
        return 100 * float(accuracy.mean())
