"""Objectives of fusion models: each a function of model and batch; and the task that adds them up.

Shape legend: B rows, N words, M regions, A answers, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, distributed

from plait.core.batch import Batch, Encoded, ModalityInput
from plait.core.errors import RecipeError
from plait.core.modality import IMAGE, TEXT
from plait.modalities.text.tokenize import TextPreprocess
from plait.models.base.encoding import ROWS
from plait.models.fusion.model import FusionModel
from plait.objectives.base.ranks import Alone, Group, Ranks
from plait.objectives.masked.masked import mlm_loss, mrfr_loss
from plait.objectives.masked.masking import mask_regions, mask_tokens
from plait.objectives.matching.matching import Pairing, itm_loss, mined_pairing, random_pairing
from plait.objectives.matching.transport import word_region_alignment
from plait.objectives.vqa import vqa_bce, vqa_ce, vqa_kl
from plait.training.loop.task import TaskLoss
from plait.training.tasks.balance import Balance

SCORES, ANSWER, LABEL = "answer_scores", "answer", "label"
"""Targets of a batch: (B, A) score of each answer; (B,) the row of the usual answer, or -100; (B,)
the row of the class, or -100."""

AnswerLoss = Literal["ce", "bce", "kl"]
Negatives = Literal["random", "hard"]


@dataclass(frozen=True)
class Objective:
    """One objective of a fusion model.

    Attributes:
        name: see `OBJECTIVES`.
        weight: its share in the sum of losses, where weights are fixed.
        loss: of ``answer``, see `plait.training.recipe.stage.Task`.
        negatives: of ``match`` and ``wra``, see there.
    """

    name: str = "answer"
    weight: float = 1.0
    loss: AnswerLoss = "ce"
    negatives: Negatives = "random"

    def __call__(self, model: FusionModel, batch: Batch) -> Tensor:
        """Its loss, with its graph; chance comes from torch's global generator."""
        batch = batch.of(self.name)
        if self.name == "answer":
            return answer_loss(model.answer(batch), batch, self.loss)
        if self.negatives == "hard":
            return MATCHING[self.name](model, batch, self.negatives)
        return OBJECTIVES[self.name](model, batch)

    def share(self, batch: Batch, ranks: Ranks) -> Tensor | float:
        """What makes the mean over processes of this loss that of the whole batch.

        Where a loss is a mean over the rows with a label: this process's number of them over the
        mean number. Losses of hidden words and regions stay means over each process's own.
        """
        labels = {"answer": ANSWER, "classify": LABEL}.get(self.name)
        if ranks.size == 1 or labels is None or (self.name == "answer" and self.loss != "ce"):
            return 1.0
        own = (batch.targets[labels] >= 0).sum()
        return own * ranks.size / ranks.sum(own).clamp(min=1)


class FusionTask:
    """Several objectives on one batch, each with its own forward pass; pictures are encoded once.

    Args:
        model: what is trained.
        objectives: at least one.
        balance: how they are weighed against one another.
        group: the processes whose rows make up one batch; None for one process alone.
    """

    def __init__(
        self,
        model: FusionModel,
        objectives: Sequence[Objective],
        balance: Balance | None = None,
        group: distributed.ProcessGroup | None = None,
    ) -> None:
        assert objectives
        self.group = group
        self.model, self.objectives = model, tuple(objectives)
        self.balance = balance or Balance([one.name for one in objectives])

    def weighed(self, batch: Batch) -> float:
        """The sum of the losses by the recipe's weights, whatever the balance: to compare by."""
        return sum(one.weight * float(one(self.model, batch)) for one in self.objectives)

    def loss(self, batch: Batch) -> TaskLoss:
        """The loss of a batch, with its graph; only of the objectives that the batch is for.

        Its mean over processes is that of the whole batch (see `Objective.share`).
        """
        ranks = self._ranks(batch)
        chosen = [one for one in self.objectives if not batch.tasks or one.name in batch.tasks]
        if len(chosen) > 1 or any(one.negatives == "hard" for one in chosen):
            batch = self.model.encoded_once(batch, IMAGE)
        losses = {one.name: one.share(batch, ranks) * one(self.model, batch) for one in chosen}
        weights = {one.name: one.weight for one in chosen}
        total, notes = self.balance(
            losses, weights, self.model, lambda tensor: ranks.sum(tensor) / ranks.size
        )
        parts = {name: value.detach() for name, value in losses.items()}
        return TaskLoss(total, {**parts, **notes})

    def _ranks(self, batch: Batch) -> Ranks:
        if self.group is None:
            return Alone()
        return Group(self.group, len(batch), batch.groups.device)


def answer_loss(logits: Tensor, batch: Batch, kind: AnswerLoss) -> Tensor:
    """The loss of (B, A) logits of answers.

    Args:
        logits: of the model.
        batch: with the targets `SCORES` and `ANSWER`.
        kind: which of the losses of `plait.objectives.vqa`.
    """
    if kind == "ce":
        return vqa_ce(logits, batch.targets[ANSWER])
    scores = batch.targets[SCORES].to(torch.promote_types(logits.dtype, torch.float32))
    return vqa_bce(logits, scores) if kind == "bce" else vqa_kl(logits, scores, normalise=True)


def classification_loss(model: FusionModel, batch: Batch) -> Tensor:
    """Cross-entropy of the sample's class, read from all modalities together."""
    logits = model.head("classify")(model.vector(model.fuse(batch)))
    return vqa_ce(logits, batch.targets[LABEL])


def matching_loss(model: FusionModel, batch: Batch, negatives: Negatives = "random") -> Tensor:
    """Do picture and text belong together? Half of the pictures are shown with a wrong text."""
    pairing = pairing_of(model, batch, negatives)
    fused = model.fuse(paired(batch, pairing))
    return itm_loss(model.head("match")(model.vector(fused)), pairing.matched)


def alignment_loss(model: FusionModel, batch: Batch, negatives: Negatives = "random") -> Tensor:
    """Matching, and 0.1 times the transport cost of matched minus unmatched pairs (UNITER's WRA)."""
    pairing = pairing_of(model, batch, negatives)
    fused = model.fuse(paired(batch, pairing))
    matching = itm_loss(model.head("match")(model.vector(fused)), pairing.matched)
    text, image = fused.parts[TEXT], fused.parts[IMAGE]
    cost = word_region_alignment(text.tokens, image.tokens, text.mask, image.mask, pairing.matched)
    return matching + 0.1 * cost


def pairing_of(model: FusionModel, batch: Batch, negatives: Negatives) -> Pairing:
    """Half of the pictures beside a wrong text: any, or of four the one that seems to fit best."""
    chance = torch.default_generator
    if negatives == "random":
        return random_pairing(batch.groups, generator=chance)
    return mined_pairing(
        batch.groups,
        lambda pictures, texts: match_odds(model, batch, pictures, texts),
        generator=chance,
    )


@torch.no_grad()
def match_odds(model: FusionModel, batch: Batch, pictures: Tensor, texts: Tensor) -> Tensor:
    """(P,) log odds that pictures and texts of a batch belong together, as the model has it now.

    In evaluation mode and without gradients, so that nothing but the answer remains of it.

    Args:
        model: with a head ``match``.
        batch: B rows.
        pictures: (P,) rows.
        texts: (P,) rows.
    """
    shown = paired(batch, Pairing(pictures, texts, pictures == texts))
    training = model.training
    model.eval()
    try:
        logits = model.head("match")(model.vector(model.fuse(shown)))
    finally:
        model.train(training)
        # Weights that autocast has just cast without a graph are none to train through.
        torch.clear_autocast_cache()
    return logits[:, 1] - logits[:, 0]


def masked_text_loss(model: FusionModel, batch: Batch) -> Tensor:
    """Masked language modelling: hidden words, from the others and from the picture."""
    preprocess = model.tower(TEXT).encoder.preprocess
    text = batch.modalities[TEXT]
    assert text.mask is not None
    special, mask_id = special_ids(preprocess)
    hidden, labels = mask_tokens(
        text.tensors["ids"],
        text.mask,
        special=special,
        vocabulary=preprocess.vocabulary,  # type: ignore[union-attr]
        mask_id=mask_id,
        generator=torch.default_generator,
    )
    changed = replace(text, tensors={**text.tensors, "ids": hidden})
    fused = model.fuse(replace(batch, modalities={**batch.modalities, TEXT: changed}))
    chosen = labels >= 0
    return mlm_loss(model.head("mlm")(fused.parts[TEXT].tokens[chosen]), labels[chosen])


def masked_region_loss(model: FusionModel, batch: Batch) -> Tensor:
    """Masked region feature regression: the encoder's features of hidden regions."""
    seen: Encoded = model.encode(IMAGE, batch.modalities[IMAGE])
    masked = mask_regions(seen.mask, generator=torch.default_generator)
    fused = model.fuse(batch, masked_regions=masked)
    return mrfr_loss(model.head("mrfr")(fused.parts[IMAGE].tokens), seen.tokens.detach(), masked)


MATCHING: Mapping[str, Callable[[FusionModel, Batch, Negatives], Tensor]] = {
    "match": matching_loss,
    "wra": alignment_loss,
}
"""Objectives that show wrong pairs."""

OBJECTIVES: Mapping[str, Callable[[FusionModel, Batch], Tensor]] = {
    "classify": classification_loss,
    "match": matching_loss,
    "wra": alignment_loss,
    "mlm": masked_text_loss,
    "mrfr": masked_region_loss,
}
"""Objectives of fusion models beside ``answer``."""


def paired(batch: Batch, pairing: Pairing) -> Batch:
    """The pictures and texts of a batch in the pairs that were drawn; targets are left out."""
    image, text = batch.modalities[IMAGE], batch.modalities[TEXT]
    if ROWS in image.tensors:
        rows = image.tensors[ROWS][pairing.left]
        shown = ModalityInput(
            {**image.tensors, ROWS: rows}, image.present[pairing.left], image.mask
        )
    else:
        shown = image.map(lambda tensor: tensor[pairing.left])
    return Batch(
        [batch.ids[i] for i in pairing.right.tolist()],
        batch.groups[pairing.right],
        {IMAGE: shown, TEXT: text.map(lambda tensor: tensor[pairing.right])},
    )


def special_ids(preprocess: object) -> tuple[list[int], int]:
    """The ids of a tokenizer that are no words, and that of its mask.

    Raises:
        RecipeError: the tokenizer has no mask.
    """
    assert isinstance(preprocess, TextPreprocess)
    tokenizer = preprocess.tokenizer
    for name in ("[MASK]", "<mask>"):
        mask_id = tokenizer.token_to_id(name)
        if mask_id is not None:
            added = tokenizer.get_added_tokens_decoder()
            return sorted({*(i for i, one in added.items() if one.special), mask_id}), mask_id
    raise RecipeError(
        "masked words need a tokenizer with a [MASK] token: train one "
        "(towers.text.vocabulary), or take a BERT-like encoder"
    )
