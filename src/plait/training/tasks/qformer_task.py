"""BLIP-2's first stage by recipe: a Q-Former learns with texts what to take from a picture.

Three losses on one Q-Former, added up (Li et al. 2023, section 3.1): contrast (ITC), matching (ITM)
and writing (ITG); see `plait.objectives.matching.qformer`. The language model takes no part yet: of it the
tokenizer alone is used.

Shape legend: B rows, N words, Q queries, E features of embeddings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from plait.bridges.qformer import QFormerBridge
from plait.bridges.qformer_heads import QFormerHeads
from plait.core.batch import Batch, Encoded, ModalityInput
from plait.core.errors import ModelError
from plait.core.modality import IMAGE, TEXT
from plait.data.base.equal_texts import RightAnswers
from plait.models.base.encoding import encode
from plait.models.bridged.model import BridgedModel
from plait.models.bridged.sequences import Writer
from plait.objectives.matching.matching import hard_pairing
from plait.objectives.matching.qformer import (
    query_contrast_loss,
    query_match_loss,
    query_similarity,
    writing_loss,
)
from plait.training.batches.material import Material
from plait.training.batches.rows import Rows
from plait.training.batches.supply import Supply
from plait.training.loop.precision import autocast
from plait.training.loop.task import TaskLoss
from plait.training.tasks.wording import Wording

QFORMER = "qformer"
SHIFT = 1
"""Added to the tokenizer's ids: word 0 of a Q-Former is padding, whatever the tokenizer has there."""


def qformer_options(vocabulary: int, context: int | None) -> dict[str, int]:
    """Options of the bridge for the first stage.

    Args:
        vocabulary: of the language model, whose tokenizer the Q-Former shares.
        context: its longest text; None: any.
    """
    return {
        "vocabulary": vocabulary + SHIFT,
        "max_length": min(512, context or 512),
        "embeddings": 256,
    }


def parts_of_first_stage(model: BridgedModel) -> tuple[QFormerBridge, QFormerHeads]:
    """The bridge and its heads.

    Raises:
        ModelError: a bridge that does not read words.
    """
    bridge = model.bridge
    if not isinstance(bridge, QFormerBridge) or bridge.text_heads is None:
        raise ModelError(
            "the objective qformer needs a Q-Former that reads words: set model.bridge.kind to "
            "qformer"
        )
    return bridge, bridge.text_heads


class WordSource:
    """Targets of the task as a Q-Former reads them: start, words, end.

    Args:
        material: the split.
        wording: of the task; its target alone is read.
        writer: of the model.
        longest: positions of the Q-Former; longer texts are cut.
    """

    def __init__(self, material: Material, wording: Wording, writer: Writer, longest: int) -> None:
        self.material, self.wording, self.writer = material, wording, writer
        self.longest = longest
        # The contrast reads the first position, so that there must be a sign; any will do.
        self.start = writer.end if writer.start is None else writer.start

    def __call__(self, rows: Rows) -> ModalityInput:
        """``ids`` (B, N), 0 at padding, and their mask."""
        found = []
        for place, text in zip(rows.sample.tolist(), rows.text.tolist(), strict=True):
            sample = self.material.samples[place]
            _, target = self.wording.of(sample, self.material.texts[text])
            found.append([one + SHIFT for one in self.ids(target)])
        width = max(map(len, found), default=1)
        padded = torch.tensor([row + [0] * (width - len(row)) for row in found])
        return ModalityInput.of(mask=padded > 0, ids=padded)

    def ids(self, target: str) -> list[int]:
        """The tokenizer's ids of a text: start, words as far as there is room, end."""
        return [self.start, *self.writer.ids(target)][: self.longest - 1] + [self.writer.end]


class QFormerTask:
    """The sum of contrast, matching and writing.

    Of several processes each contrasts and matches its own rows.

    Args:
        model: with a Q-Former that reads words.

    Raises:
        ModelError: it has none.
    """

    def __init__(self, model: BridgedModel) -> None:
        self.model = model
        self.bridge, self.heads = parts_of_first_stage(model)

    def loss(self, batch: Batch) -> TaskLoss:
        """The loss of a batch, with its graph; hard pairs are drawn by torch's own generator."""
        shown = self.shown(batch)
        ids, mask = self.words(batch)
        similarity = query_similarity(*self.embeddings(shown, ids, mask))
        contrast = query_contrast_loss(similarity, self.heads.temperature, batch.groups)
        pairs = hard_pairing(
            similarity / self.heads.temperature, batch.groups, generator=torch.default_generator
        )
        queries, _ = self.bridge.read_and_look(
            Encoded(shown.tokens[pairs.left], shown.mask[pairs.left], shown.pooled[pairs.left]),
            ids[pairs.right],
            mask[pairs.right],
            causal=False,
        )
        match = query_match_loss(self.heads.match_logits(queries), pairs.matched)
        _, words = self.bridge.read_and_look(shown, ids, mask, causal=True)
        assert self.bridge.words is not None
        written = writing_loss(self.heads.word_logits(words, self.bridge.words.weight), ids, mask)
        parts = {"itc": contrast, "itm": match, "itg": written}
        return TaskLoss(
            contrast + match + written, {name: one.detach() for name, one in parts.items()}
        )

    def shown(self, batch: Batch) -> Encoded:
        """What the encoder sees of each row's picture."""
        encoder = self.model.tower(IMAGE).encoder
        return self.model.read(encode(encoder, batch.modalities[IMAGE]))

    def words(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(ids (B, N), mask (B, N)) of a batch."""
        text = batch.modalities[TEXT]
        assert text.mask is not None
        return text.tensors["ids"], text.mask

    def embeddings(
        self, shown: Encoded, ids: Tensor, mask: Tensor
    ) -> tuple[Float[Tensor, "B Q E"], Float[Tensor, "B E"]]:
        """Unit vectors of pictures and of texts, each seen without the other."""
        return (
            self.heads.image_embeddings(self.bridge.look(shown)),
            self.heads.text_embedding(self.bridge.read(ids, mask)),
        )


class QFormerValidator:
    """The losses on a split, and how often contrast finds the right text and picture of all.

    Random numbers are the same in every evaluation, and training's own are left as they were.

    Args:
        model: what to measure.
        supply: the split's rows in order.
        device, dtype: to compute on and in.
    """

    def __init__(
        self, model: BridgedModel, supply: Supply, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.task, self.supply, self.device, self.dtype = QFormerTask(model), supply, device, dtype

    def __call__(self) -> tuple[float, dict[str, Any]]:
        """(the negated loss; all metrics)."""
        totals: dict[str, float] = {}
        rows = 0
        images, texts = [], []
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for batch in self.supply.epoch(0):
                moved = batch.to(self.device)
                with autocast(self.device, self.dtype):
                    found = self.task.loss(moved)
                    image, text = self.task.embeddings(
                        self.task.shown(moved), *self.task.words(moved)
                    )
                for name, value in {"loss": found.total, **found.parts}.items():
                    totals[name] = totals.get(name, 0.0) + float(value) * len(batch)
                rows += len(batch)
                images.append(image.float())
                texts.append(text.float())
            metrics: dict[str, Any] = {name: total / rows for name, total in totals.items()}
            similarity = query_similarity(torch.cat(images), torch.cat(texts))
        metrics["recall@1"] = recall_at_1(similarity, self._right().to(similarity.device))
        return -metrics["loss"], metrics

    def _right(self) -> Bool[Tensor, "n n"]:
        """Which pictures and first texts of the split belong together."""
        plan, alike = self.supply.plan, self.supply.alike
        batches = [plan.batch(0, number) for number in range(plan.steps)]
        sample = np.concatenate([rows.sample for rows in batches])
        text = np.concatenate([rows.text for rows in batches])
        words = None if alike.words is None else alike.words[text]
        answers = RightAnswers.of(alike.groups[sample], np.arange(len(sample)), words)
        return torch.from_numpy(~answers.wrong(slice(None), slice(None)))


def recall_at_1(similarity: Float[Tensor, "n n"], right: Bool[Tensor, "n n"]) -> float:
    """In percent: pictures whose nearest text, and texts whose nearest picture, is a right one."""
    rows = torch.arange(len(similarity), device=similarity.device)
    both = [
        which[rows, one.argmax(dim=1)]
        for one, which in ((similarity, right), (similarity.T, right.T))
    ]
    return 100 * float(torch.cat(both).float().mean())


def rest_text_branch(model: BridgedModel) -> None:
    """Freezes what no later stage reads: the words and heads of the first."""
    if isinstance(model.bridge, QFormerBridge) and model.bridge.vocabulary:
        for parameter in model.bridge.text_parameters():
            parameter.requires_grad_(False)
