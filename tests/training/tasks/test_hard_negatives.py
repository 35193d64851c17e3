"""Wrong texts that the match head takes for the likeliest, and what looking for them leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from plait.core.batch import Batch, Fused, ModalityInput
from plait.core.errors import RecipeError
from plait.models.fusion.model import FusionModel
from plait.training.recipe.recipe import check
from plait.training.tasks.fusion_tasks import Objective, match_odds, matching_loss, pairing_of


class Odd(nn.Module):
    """Log odds by the text alone: text 5 fits everything best, then 4, 3, ...; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[list[int]] = []

    def forward(self, vector: Tensor) -> Tensor:
        self.shown.append(vector[:, 1].int().tolist())
        return torch.stack([torch.zeros(len(vector)), vector[:, 1]], dim=1)


class Pairs(FusionModel):
    """Pictures and texts are numbers; a norm and dropout stand before the head."""

    def __init__(self, head: nn.Module, joint: nn.Module | None = None) -> None:
        nn.Module.__init__(self)
        self.heads = nn.ModuleDict({"match": head})
        self.joint = joint or nn.Identity()

    def fuse(self, batch: Batch, *, masked_regions: Tensor | None = None) -> Fused:
        parts = [batch.modalities[name].tensors["features"] for name in ("image", "text")]
        return Fused(self.joint(torch.cat(parts, dim=1)))

    def vector(self, fused: Fused) -> Tensor:
        return fused.pooled

    def head(self, name: str) -> Any:
        return self.heads[name]


def numbers(rows: int = 6, groups: int = 6) -> Batch:
    values = torch.arange(float(rows))[:, None]
    parts: Mapping[str, ModalityInput] = {
        name: ModalityInput.of(features=values) for name in ("image", "text")
    }
    return Batch([""] * rows, torch.arange(rows) % groups, parts)


def test_the_candidate_is_kept_that_the_head_likes_best() -> None:
    """Of the four texts that were shown with each picture the largest number."""
    torch.manual_seed(1)
    head = Odd()
    pairing = pairing_of(Pairs(head), numbers(), "hard")
    (shown,) = head.shown
    wrong = (~pairing.matched).nonzero()[:, 0].tolist()
    assert wrong and len(shown) == 4 * len(wrong)
    for place, row in enumerate(wrong):
        candidates = shown[place :: len(wrong)]
        assert row not in candidates
        assert pairing.right[row].item() == max(candidates)
    assert pairing.right[pairing.matched].tolist() == pairing.matched.nonzero()[:, 0].tolist()
    # Random ones are not asked for, and have the same rows wrong.
    torch.manual_seed(1)
    plain = pairing_of(Pairs(head), numbers(), "random")
    assert len(head.shown) == 1
    assert torch.equal(plain.matched, pairing.matched)


def test_the_loss_is_that_of_the_hard_pairs() -> None:
    """Two rows: the wrong text of a picture can only be the other one."""
    torch.manual_seed(0)
    batch = numbers(2)
    for _ in range(8):
        state = torch.random.get_rng_state()
        matched = pairing_of(Pairs(Odd()), batch, "hard").matched.tolist()
        torch.random.set_rng_state(state)
        loss = matching_loss(Pairs(Odd()), batch, "hard")
        texts = [row if right else 1 - row for row, right in enumerate(matched)]
        odds = torch.tensor([text if right else -text for text, right in zip(texts, matched)])
        assert loss.item() == pytest.approx(-odds.float().sigmoid().log().mean().item(), rel=1e-6)


def test_looking_leaves_nothing_behind() -> None:
    """No statistics of norms, no random numbers of dropout, no gradient, no mode."""
    norm, dropout = nn.BatchNorm1d(2), nn.Dropout(0.5)
    model = Pairs(nn.Linear(2, 2), nn.Sequential(norm, dropout)).train()
    before = torch.random.get_rng_state()
    odds = match_odds(model, numbers(), torch.arange(6), torch.arange(6))
    assert torch.equal(before, torch.random.get_rng_state())
    assert not odds.requires_grad
    assert norm.num_batches_tracked is not None and norm.num_batches_tracked.item() == 0
    assert model.training and norm.training and dropout.training
    twice = match_odds(model, numbers(), torch.arange(6), torch.arange(6))
    assert torch.equal(odds, twice)


def test_weights_learn_under_autocast() -> None:
    """Autocast keeps the weights it has cast; those cast while looking have no graph."""
    torch.manual_seed(0)
    model = Pairs(nn.Linear(2, 2))
    with torch.autocast("cpu", torch.bfloat16):
        loss = Objective("match", negatives="hard")(model, numbers())
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def recipe_with(task: dict[str, Any]) -> Any:
    towers = {name: {"encoder": "pkg/x", "pretrained": True} for name in ("image", "text")}
    return check(
        {
            "name": "x",
            "model": {"kind": "fusion", "fusion": "concat", "towers": towers},
            "stages": [{"tasks": [task], "steps": 1}],
        }
    )


def test_keys_of_other_tasks_are_refused() -> None:
    assert recipe_with({"objective": "match", "negatives": "hard"})
    assert recipe_with({"objective": "wra", "negatives": "hard"})
    with pytest.raises(RecipeError, match="negatives: belongs to match and wra, not answer"):
        recipe_with({"objective": "answer", "negatives": "hard"})
    with pytest.raises(RecipeError, match="unknown_answers: belongs to answer, not match"):
        recipe_with({"objective": "match", "unknown_answers": "fail"})
    with pytest.raises(RecipeError, match=r"did you mean 'hard'"):
        recipe_with({"objective": "match", "negatives": "hrad"})
