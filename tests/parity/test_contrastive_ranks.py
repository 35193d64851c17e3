"""Two gloo processes that share a batch, against one process with all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from plait.objectives import (
    cached_step,
    gather,
    info_nce,
    info_nce_plain,
    sigmoid_loss,
    sigmoid_loss_plain,
)

# Rows of each rank; with ids they may differ, and one rank may lack a side altogether.
EVEN = ([4, 4], [4, 4])
UNEVEN = ([5, 3], [2, 7])
EMPTY = ([8, 0], [0, 6])


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left = nn.Linear(5, 3).double()
        self.right = nn.Linear(4, 3).double()
        self.scale = nn.Parameter(torch.tensor(7.0, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(-3.0, dtype=torch.float64))

    def forward(self, rows: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return {
            "left": normalize(self.left(rows[0]), dim=1),
            "right": normalize(self.right(rows[1]), dim=1),
            "scale": self.scale * 1,  # a parameter used outside of DDP's forward has no hook
            "bias": self.bias * 1,
        }


def batch(left: int, right: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    rows = [
        torch.randn(count, width, dtype=torch.float64, generator=generator)
        for count, width in ((left, 5), (right, 4))
    ]
    ids = [torch.randint(0, 4, (count,), generator=generator) for count in (left, right)]
    return rows[0], rows[1], ids[0], ids[1]


def loss_of(name: str, out: dict[str, Tensor], ids: tuple, group, plain: bool) -> Tensor:
    features = [out["left"], out["right"]]
    if plain and group is not None:  # the slow twin: every rank computes all of it
        features = [gather(side, group) for side in features]
        ids = tuple(gather(one, group) for one in ids)
    keywords = {} if plain else {"group": group, "tile": (2, 3)}
    if name == "sigmoid":
        function = sigmoid_loss_plain if plain else sigmoid_loss
        return function(*features, out["scale"], out["bias"], *ids, **keywords)
    function = info_nce_plain if plain else info_nce
    return function(*features, out["scale"], *ids, direction=name, **keywords)


def average_gradients(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad)
        parameter.grad /= distributed.get_world_size()


def results(model: nn.Module, value: Tensor) -> list[Tensor]:
    # where a parameter is not used (the bias, by InfoNCE), DDP leaves it without a gradient
    grads = (torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters())
    return [value.detach(), *grads]


def own_part(sizes: tuple, rank: int, ids: bool) -> tuple[tuple[Tensor, Tensor], tuple]:
    left, right, left_ids, right_ids = batch(sum(sizes[0]), sum(sizes[1]))
    part = [slice(sum(counts[:rank]), sum(counts[: rank + 1])) for counts in sizes]
    rows = (left[part[0]], right[part[1]])
    return rows, (left_ids[part[0]], right_ids[part[1]]) if ids else ()


def one_way(key: tuple, rank: int, group) -> list[Tensor]:
    """Value and averaged gradients of one case in one process of two."""
    name, sizes, ids, how = key
    rows, own_ids = own_part(sizes, rank, ids)
    model = Towers()
    if how == "cached":
        cut = [len(side) // 2 for side in rows]
        chunks = [(rows[0][: cut[0]], rows[1][: cut[1]]), (rows[0][cut[0] :], rows[1][cut[1] :])]

        def embed(chunk: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
            return {name: tensor for name, tensor in model(chunk).items() if tensor.ndim}

        def loss(embedded: dict[str, Tensor]) -> Tensor:
            learnt = {"scale": model.scale, "bias": model.bias}
            return loss_of(name, {**embedded, **learnt}, own_ids, group, plain=False)

        value = cached_step(embed, chunks, loss)
        average_gradients(model)
    elif how == "ddp":
        wrapped = DistributedDataParallel(model, find_unused_parameters=name != "sigmoid")
        value = loss_of(name, wrapped(rows), own_ids, group, plain=False)
        value.backward()
    else:
        value = loss_of(name, model(rows), own_ids, group, plain=how == "plain")
        value.backward()
        average_gradients(model)
    return results(model, value)


CASES = [
    *[(name, EVEN, ids, how)
      for name in ("both", "left", "sigmoid")
      for ids in (False, True)
      for how in ("tiled", "cached", "ddp")],
    *[(name, EVEN, True, "plain") for name in ("both", "sigmoid")],
    *[(name, sizes, True, "tiled")
      for name in ("both", "left", "sigmoid")
      for sizes in (UNEVEN, EMPTY)],
]  # fmt: skip


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    group = distributed.group.WORLD
    torch.save([one_way(case, rank, group) for case in CASES], f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory) -> list[list[list[Tensor]]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("number, case", list(enumerate(CASES)), ids=str)
def test_two_processes_give_the_loss_and_gradients_of_one(by_rank, number, case):
    name, sizes, ids, _ = case
    left, right, left_ids, right_ids = batch(sum(sizes[0]), sum(sizes[1]))
    model = Towers()
    own_ids = (left_ids, right_ids) if ids else ()
    value = loss_of(name, model((left, right)), own_ids, None, plain=True)
    value.backward()
    expected = results(model, value)
    assert expected[1].abs() > 0.01  # the scale learns
    for rank in (0, 1):
        for one, other in zip(by_rank[rank][number], expected, strict=True):
            assert (one - other).abs().max() < 1e-12
