"""Objectives of fusion models: each a function of model and batch; and the task that adds them up.

Shape legend: B rows, N words, M regions, A answers, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from plait.core.batch import Batch, Encoded, ModalityInput
from plait.core.errors import RecipeError
from plait.core.modality import IMAGE, TEXT
from plait.data.tokenize import TextPreprocess
from plait.models.fusion_model import ROWS, FusionModel
from plait.objectives.masked import mlm_loss, mrfr_loss
from plait.objectives.masking import mask_regions, mask_tokens
from plait.objectives.matching import Pairing, itm_loss, random_pairing
from plait.objectives.transport import word_region_alignment
from plait.objectives.vqa import vqa_bce, vqa_ce, vqa_kl
from plait.training.balance import Balance
from plait.training.tasks import TaskLoss

SCORES, ANSWER, LABEL = "answer_scores", "answer", "label"
"""Targets of a batch: (B, A) score of each answer; (B,) the row of the usual answer, or -100; (B,)
the row of the class, or -100."""

AnswerLoss = Literal["ce", "bce", "kl"]


@dataclass(frozen=True)
class Objective:
    """One objective of a fusion model.

    Attributes:
        name: see `OBJECTIVES`.
        weight: its share in the sum of losses, where weights are fixed.
        loss: of ``answer``, see `plait.training.schema.Task`.
    """

    name: str = "answer"
    weight: float = 1.0
    loss: AnswerLoss = "ce"

    def __call__(self, model: FusionModel, batch: Batch) -> Tensor:
        """Its loss, with its graph; chance comes from torch's global generator."""
        if self.name == "answer":
            return answer_loss(model.answer(batch), batch, self.loss)
        return OBJECTIVES[self.name](model, batch)


class FusionTask:
    """Several objectives on one batch, each with its own forward pass.

    Args:
        model: what is trained.
        objectives: at least one.
        balance: how they are weighed against one another.
    """

    def __init__(
        self, model: FusionModel, objectives: Sequence[Objective], balance: Balance | None = None
    ) -> None:
        assert objectives
        self.model, self.objectives = model, tuple(objectives)
        self.balance = balance or Balance([one.name for one in objectives])

    def weighed(self, batch: Batch) -> float:
        """The sum of the losses by the recipe's weights, whatever the balance: to compare by."""
        return sum(one.weight * float(one(self.model, batch)) for one in self.objectives)

    def loss(self, batch: Batch) -> TaskLoss:
        """The loss of a batch, with its graph; only of the objectives that the batch is for."""
        chosen = [one for one in self.objectives if not batch.tasks or one.name in batch.tasks]
        losses = {one.name: one(self.model, batch) for one in chosen}
        weights = {one.name: one.weight for one in chosen}
        total, notes = self.balance(losses, weights, self.model)
        parts = {name: value.detach() for name, value in losses.items()}
        return TaskLoss(total, {**parts, **notes})


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


def matching_loss(model: FusionModel, batch: Batch) -> Tensor:
    """Do picture and text belong together? Half of the texts are shown with a wrong picture."""
    pairing = random_pairing(batch.groups, generator=torch.default_generator)
    fused = model.fuse(paired(batch, pairing))
    return itm_loss(model.head("match")(model.vector(fused)), pairing.matched)


def alignment_loss(model: FusionModel, batch: Batch) -> Tensor:
    """Matching, and 0.1 times the transport cost of matched minus unmatched pairs (UNITER's WRA)."""
    pairing = random_pairing(batch.groups, generator=torch.default_generator)
    fused = model.fuse(paired(batch, pairing))
    matching = itm_loss(model.head("match")(model.vector(fused)), pairing.matched)
    text, image = fused.parts[TEXT], fused.parts[IMAGE]
    cost = word_region_alignment(text.tokens, image.tokens, text.mask, image.mask, pairing.matched)
    return matching + 0.1 * cost


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
