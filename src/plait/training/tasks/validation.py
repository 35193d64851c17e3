"""Measuring a model on a split while it trains, from the same sources as training.

Frozen towers come from cached features, so an evaluation of projections takes milliseconds.

Legend: n samples, m texts, E features of the shared space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from plait.core.batch import Batch, ModalityInput
from plait.evaluation.metrics.retrieval import mean_recall, retrieval
from plait.models.alignment.alignment import AlignmentModel
from plait.training.batches.rows import Rows
from plait.training.batches.supply import Alike, Source
from plait.training.loop.precision import autocast
from plait.training.loop.task import EmbeddingTask

RANK_ROWS = 512  # enough to see a rank fall


class Validator:
    """Embeds a split and measures retrieval, loss and effective rank.

    Args:
        model: what to measure.
        task: for the loss.
        sources: the split's inputs by modality.
        text_counts: (n,) texts of each sample.
        alike: who is whose positive.
        metric: the watched value, see `plait.training.recipe.combinations.METRICS`.
        device, dtype: to compute on and in.
        chunk: rows encoded at a time.
    """

    def __init__(
        self,
        model: AlignmentModel,
        task: EmbeddingTask,
        sources: Mapping[str, Source],
        text_counts: Sequence[int] | Int[np.ndarray, " n"],
        alike: Alike,
        *,
        metric: str = "mean_recall",
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        chunk: int = 64,
    ) -> None:
        self.model, self.task, self.sources = model, task, dict(sources)
        self.counts = np.asarray(text_counts, dtype=np.int64)
        self.alike = alike
        self.owner = np.repeat(np.arange(len(self.counts)), self.counts)
        self.metric, self.dtype = metric, dtype
        self.device = device or torch.device("cpu")
        self.chunk = chunk

    def __call__(self) -> tuple[float, dict[str, Any]]:
        """(the watched value, higher is better; all metrics)."""
        image = self._embed("image", np.arange(len(self.counts)), np.zeros(len(self.counts), int))
        text = self._embed("text", self.owner, np.arange(len(self.owner)))
        figures = retrieval(
            image.numpy(),
            text.numpy(),
            self.owner,
            image_groups=self.alike.groups,
            text_words=self.alike.words,
            bootstrap=0,
        )
        metrics: dict[str, Any] = {
            "retrieval": figures,
            "mean_recall": mean_recall(figures),
            "loss": self._loss(image, text),
            "rank": {
                name: effective_rank(rows[:RANK_ROWS])
                for name, rows in (("image", image), ("text", text))
            },
        }
        return watched(metrics, self.metric), metrics

    @torch.no_grad()
    def _embed(self, modality: str, sample: np.ndarray, text: np.ndarray) -> torch.Tensor:
        found = []
        for start in range(0, len(sample), self.chunk):
            part = slice(start, start + self.chunk)
            slot = np.zeros(len(sample[part]), dtype=np.int64)
            inputs = self.sources[modality](Rows(sample[part], text[part], slot, 0))
            inputs = inputs.map(lambda tensor: tensor.to(self.device))
            with autocast(self.device, self.dtype):
                found.append(self.model.encode_one(modality, inputs).float().cpu())
        return torch.nn.functional.normalize(torch.cat(found), dim=-1)

    @torch.no_grad()
    def _loss(self, image: torch.Tensor, text: torch.Tensor) -> float:
        """The training loss over the whole split, each sample with its first text."""
        first = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        rows = {"image": image, "text": text[torch.from_numpy(first)]}
        rows = {name: value.to(self.device) for name, value in rows.items()}
        everyone = np.arange(len(self.counts))
        ids = self.alike(Rows(everyone, first, np.zeros_like(everyone), 0))
        groups = torch.from_numpy(ids).to(self.device)
        inputs = ModalityInput.of(groups=groups)  # the task reads groups and presence alone
        batch = Batch([""] * len(groups), groups, dict.fromkeys(rows, inputs))
        return float(self.task.loss_of_embeddings(rows, batch).total)


def effective_rank(rows: Float[torch.Tensor, "n E"]) -> float:
    """`plait.evaluation.metrics.geometry.rankme` by the eigenvalues of the smaller Gram matrix.

    That is many times faster than singular values, and good to some six digits.
    """
    values = rows.double()
    gram = values @ values.T if len(values) < values.shape[1] else values.T @ values
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = singular / singular.sum() + 1e-7
    return float(torch.exp(-(share * share.log()).sum()))


def watched(metrics: Mapping[str, Any], name: str) -> float:
    """One value by its name; higher is better (the loss is negated)."""
    if name == "loss":
        return -float(metrics["loss"])
    if name == "mean_recall":
        return float(metrics["mean_recall"])
    way, _, recall = name.partition(".")
    return float(metrics["retrieval"][way][recall])
