from __future__ import annotations

import pytest
import torch
from torch import nn

from plait.core.batch import Batch, ModalityInput
from plait.objectives import info_nce_plain, sigmoid_loss_plain
from plait.training.loop.task import EmbeddingTask, Task
from plait.training.loop.update import Updater
from plait.training.tasks.tasks import Aligner, Contrast, ContrastiveTask


class Linear(nn.Module):
    """Two linear towers with dropout in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.towers = nn.ModuleDict({name: nn.Linear(5, 4) for name in ("image", "text")})
        self.heads = 1
        self.log_scale = nn.Parameter(torch.tensor(2.0))
        self.bias = nn.Parameter(torch.tensor(-3.0))
        self.dropout = nn.Dropout(0.2)
        self.double()

    @property
    def scale(self) -> torch.Tensor:
        return self.log_scale.exp()

    def encode(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {
            name: nn.functional.normalize(
                self.towers[name](self.dropout(part.tensors["features"])), dim=-1
            )
            for name, part in batch.modalities.items()
        }


def make(rows: int = 10, absent: tuple[int, ...] = ()) -> tuple[Linear, Batch]:
    torch.manual_seed(0)
    model = Linear().eval()
    text = torch.ones(rows, dtype=torch.bool)
    text[list(absent)] = False
    modalities = {
        "image": ModalityInput.of(features=torch.randn(rows, 5, dtype=torch.float64)),
        "text": ModalityInput({"features": torch.randn(rows, 5, dtype=torch.float64)}, text),
    }
    groups = torch.arange(rows) // 2
    return model, Batch([str(i) for i in range(rows)], groups, modalities)


def test_they_are_what_the_loop_asks_for() -> None:
    task = ContrastiveTask(make()[0])
    assert isinstance(task, Task)
    assert isinstance(task, EmbeddingTask)
    assert isinstance(make()[0], Aligner)


def test_objectives_add_up_by_weight_with_groups_as_positives() -> None:
    model, batch = make()
    contrasts = [
        Contrast("info_nce", direction="left", weight=2.0),
        Contrast("sigmoid", left="text", right="image", weight=0.5),
    ]
    found = ContrastiveTask(model, contrasts).loss(batch)
    rows, ids = model.encode(batch), batch.groups
    first = info_nce_plain(rows["image"], rows["text"], model.scale, ids, ids, direction="left")
    second = sigmoid_loss_plain(rows["text"], rows["image"], model.scale, model.bias, ids, ids)
    torch.testing.assert_close(found.total, 2 * first + 0.5 * second, rtol=1e-9, atol=1e-9)
    assert set(found.parts) == {"info_nce image-text", "sigmoid text-image"}
    assert not any(part.requires_grad for part in found.parts.values())


def test_rows_without_a_text_are_only_negatives() -> None:
    model, batch = make(absent=(1, 4))
    found = ContrastiveTask(model).loss(batch)
    rows = model.encode(batch)
    kept = batch.modalities["text"].present
    expected = info_nce_plain(
        rows["image"], rows["text"][kept], model.scale, batch.groups, batch.groups[kept]
    )
    torch.testing.assert_close(found.total, expected, rtol=1e-9, atol=1e-9)


def test_half_precision_embeddings_are_compared_in_float32() -> None:
    model, batch = make()
    encode = model.encode
    model.encode = lambda batch: {k: v.bfloat16() for k, v in encode(batch).items()}  # type: ignore[method-assign]
    assert ContrastiveTask(model).embed(batch)["image"].dtype == torch.float32


@pytest.mark.parametrize("chunk", [1, 3, 10, 64])
def test_chunks_give_the_gradients_of_the_whole_batch(chunk: int) -> None:
    """With dropout: the second pass draws what the first drew; here chunks draw in order of rows."""
    from accelerate import Accelerator

    def gradients(chunk: int | None) -> dict[str, torch.Tensor]:
        model, batch = make(rows=10, absent=(3,))
        updater = Updater(
            model,
            ContrastiveTask(model),
            torch.optim.SGD(model.parameters(), 0.1),
            Accelerator(cpu=True),
            chunk=chunk,
        )
        updater.backward(batch)
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    whole, parts = gradients(None), gradients(chunk)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-9, atol=1e-9)


def test_heads_are_models_of_their_own() -> None:
    """The loss of two heads in one projection is the mean of the losses of two models."""
    from plait.objectives import info_nce_plain

    model, batch = make()
    model.heads = 2
    torch.manual_seed(1)
    heads = [
        {
            name: nn.functional.normalize(torch.randn(10, 3).double(), dim=1)
            for name in ("image", "text")
        }
        for _ in range(2)
    ]
    joined = {
        name: torch.cat([head[name] for head in heads], dim=1) / 2**0.5
        for name in ("image", "text")
    }
    found = ContrastiveTask(model).loss_of_embeddings(joined, batch).total
    expected = [
        info_nce_plain(head["image"], head["text"], model.scale, batch.groups, batch.groups)
        for head in heads
    ]
    torch.testing.assert_close(found, sum(expected) / 2)
