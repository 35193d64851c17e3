from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from plait.core.batch import Batch, ModalityInput
from plait.core.errors import DataError
from plait.data.base.equal_texts import joined
from plait.training.batches.features import feature_change, mixed, noisy
from plait.training.batches.rows import RowPlan, Rows
from plait.training.batches.supply import Alike, FeatureSource, PixelSource, Supply
from plait.training.recipe.stage import Features


def make(rank: int = 0, world: int = 1, **options: Any) -> Supply:
    """Features tell their sample, slot and text."""
    counts = [1, 2, 3, 1, 2, 1, 1, 3]
    pictures = np.array([[[10 * n + s] for s in range(2)] for n in range(8)], np.float32)
    texts = np.arange(14, dtype=np.float32)[:, None]
    plan = RowPlan(counts, texts="one", batch_size=4, seed=0, slots=2, world=world)
    sources = {"image": FeatureSource(pictures, "sample"), "text": FeatureSource(texts, "text")}
    ids = [f"s{n}" for n in range(8)]
    return Supply(plan, sources, Alike(np.arange(8) // 2), ids, rank=rank, world=world, **options)


def features(batch: Batch, name: str) -> list[float]:
    return batch.modalities[name].tensors["features"][:, 0].tolist()


def test_rows_carry_their_own_pictures_texts_and_groups() -> None:
    owner = np.repeat(np.arange(8), [1, 2, 3, 1, 2, 1, 1, 3])
    for batch in make().epoch(3):
        samples = [int(name[1:]) for name in batch.ids]
        assert [int(value) // 10 for value in features(batch, "image")] == samples
        assert {int(value) % 10 for value in features(batch, "image")} <= {0, 1}
        assert [owner[int(value)] for value in features(batch, "text")] == samples
        assert batch.groups.tolist() == [sample // 2 for sample in samples]


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_epoch_can_be_entered_anywhere(ahead: int) -> None:
    supply = make()
    supply.ahead = ahead
    whole = [batch.ids for batch in supply.epoch(1)]
    assert [batch.ids for batch in supply.epoch(1, start=1)] == whole[1:]
    assert list(supply.epoch(1, start=2)) == []


def test_processes_share_a_batch() -> None:
    whole = [list(batch.ids) for batch in make().epoch(0)]
    parts = [[list(batch.ids) for batch in make(rank, 2).epoch(0)] for rank in range(2)]
    assert [a + b for a, b in zip(*parts)] == whole


def test_errors_come_out_in_their_place_and_threads_end() -> None:
    def load(positions: Sequence[int]) -> np.ndarray:
        if 5 in positions:
            raise DataError("broken", path="5.jpg")
        return np.zeros((len(positions), 3, 2, 2), np.uint8)

    supply = make()
    supply.sources["image"] = PixelSource(load)
    supply.ahead = 2
    plan = [supply.plan.batch(0, k).sample.tolist() for k in range(2)]
    good = next(k for k in range(2) if 5 not in plan[k])
    batches = supply.epoch(0, start=0)
    if good == 0:
        assert next(batches).ids == [f"s{n}" for n in plan[0]]
    with pytest.raises(DataError, match=r"5\.jpg: broken"):
        list(batches)
    abandoned = make()
    abandoned.ahead = 1
    running = abandoned.epoch(0)
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name == "plait-batches"]


def test_augmentation_knows_sample_and_epoch() -> None:
    told: list[tuple[list[int], int]] = []

    def augment(pixels: torch.Tensor, positions: Sequence[int], epoch: int) -> torch.Tensor:
        told.append((list(positions), epoch))
        return pixels + 1

    source = PixelSource(lambda positions: np.zeros((len(positions), 3, 2, 2), np.uint8), augment)
    rows = Rows(np.array([4, 2]), np.array([0, 0]), np.array([0, 0]), 7)
    assert source(rows).tensors["pixels"].unique().tolist() == [1]
    assert told == [([4, 2], 7)]


def batch_of(image: torch.Tensor, text: torch.Tensor) -> Batch:
    parts = {"image": ModalityInput.of(features=image), "text": ModalityInput.of(features=text)}
    return Batch([""] * len(image), torch.arange(len(image)), parts)


def test_noise_has_the_size_that_is_asked_for() -> None:
    rows = torch.randn(400, 50) * torch.logspace(-2, 2, 400)[:, None]
    changed = noisy(batch_of(rows, rows), 0.3, torch.Generator().manual_seed(0))
    added = changed.modalities["image"].tensors["features"] - rows
    relative = added.square().mean(1).sqrt() / rows.square().mean(1).sqrt()
    assert relative.mean().item() == pytest.approx(0.3, rel=0.02)
    assert relative.std().item() < 0.06


def test_mixing_is_the_same_in_both_modalities_and_keeps_rows_nearest_to_themselves() -> None:
    rows = torch.eye(32)
    changed = mixed(batch_of(rows, rows), 0.4, torch.Generator().manual_seed(0))
    image = changed.modalities["image"].tensors["features"]
    assert torch.equal(image, changed.modalities["text"].tensors["features"])
    torch.testing.assert_close(image.sum(1), torch.ones(32))
    assert image.argmax(1).tolist() == list(range(32))
    assert (image.diagonal() < 0.99).sum() > 5


def test_changes_depend_on_their_place_alone() -> None:
    settings = Features(noise=0.5, mixup=0.2)
    batch = batch_of(torch.randn(6, 4), torch.randn(6, 4))

    def found(*place: int, rank: int = 0, stage: int = 0) -> torch.Tensor:
        change = feature_change(settings, 0, stage, rank)
        assert change is not None
        return change(batch, *place).modalities["image"].tensors["features"]

    assert torch.equal(found(1, 2), found(1, 2))
    for other in (found(1, 3), found(2, 2), found(1, 2, rank=1), found(1, 2, stage=1)):
        assert not torch.equal(found(1, 2), other)
    assert feature_change(Features(), 0, 0, 0) is None


def test_equal_texts_join_rows_of_all_processes() -> None:
    """By the text that each row shows, whatever the process; a task's own text has ids of its own."""
    owner = np.repeat(np.arange(8), [1, 2, 3, 1, 2, 1, 1, 3])
    words, own = np.arange(14) % 5, np.arange(8) % 3
    alike = Alike(np.arange(8) // 2, words, {"match": own})
    supplies = [make(rank, 2) for rank in range(2)]
    for supply in supplies:
        supply.alike, supply.texts = alike, {"match": supply.sources["image"]}
    for epoch in range(3):
        parts = [supply.batch(epoch, 0) for supply in supplies]
        shown = [int(value) for part in parts for value in features(part, "text")]
        ids = torch.cat([part.groups for part in parts])
        matching = torch.cat([part.of("match").groups for part in parts])
        assert ids.tolist() == joined(alike.groups[owner[shown]], words[shown]).tolist()
        expected = joined(alike.groups[owner[shown]], own[owner[shown]])
        assert matching.tolist() == expected.tolist()
        assert parts[0].groups.tolist() == ids[:2].tolist()


def test_texts_that_no_group_shares_cost_nothing() -> None:
    counts = np.array([2, 1, 1])
    assert Alike.of(np.array([0, 1, 1]), counts, np.array([0, 1, 2, 2])).words is None
    assert Alike.of(np.array([0, 1, 2]), counts, np.array([0, 1, 2, 2])).words is not None
