from __future__ import annotations

import pytest
import torch
from torch import nn

from plait.training.loop.optimise import (
    build_optimiser,
    optimiser_tensors,
    parameter_groups,
    part_of,
    rate_factor,
    restore_optimiser,
    undecayed,
)
from plait.training.recipe.stage import Optimiser, Schedule, Stage


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        tower = nn.ModuleDict(
            {
                "encoder": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
                "projection": nn.Linear(4, 2),
            }
        )
        self.towers = nn.ModuleDict({"image": tower})
        self.log_scale = nn.Parameter(torch.tensor(1.0))


def test_parts() -> None:
    assert part_of("towers.image.encoder.0.weight") == "image.encoder"
    assert part_of("towers.text.projection.linear.bias") == "text.projection"
    assert part_of("log_scale") == "temperature"


def test_what_never_decays() -> None:
    assert undecayed(Model()) == {
        "towers.image.encoder.0.bias",
        "towers.image.encoder.1.weight",
        "towers.image.encoder.1.bias",
        "towers.image.projection.bias",
        "log_scale",
    }


def test_groups_by_part_and_decay() -> None:
    stage = Stage.model_validate(
        {
            "epochs": 1,
            "train": {"image.encoder": {"mode": "full", "lr": 1e-5, "weight_decay": 0.5}},
            "optimiser": {"lr": 1e-3, "weight_decay": 0.1},
        }
    )
    groups = parameter_groups(Model(), stage)
    found = {(g["part"], g["weight_decay"]): (g["lr"], len(g["names"])) for g in groups}  # type: ignore[arg-type]
    assert found == {
        ("image.encoder", 0.5): (1e-5, 1),
        ("image.encoder", 0.0): (1e-5, 3),
        ("image.projection", 0.1): (1e-3, 1),
        ("image.projection", 0.0): (1e-3, 1),
        ("temperature", 0.0): (1e-3, 1),
    }


def test_cosine_with_warm_up() -> None:
    schedule = Schedule(kind="cosine", warmup=0.2, floor=0.1)
    rates = [rate_factor(step, 11, schedule) for step in range(11)]  # 0.2 of 11 is 2 steps
    assert rates[:2] == [0.5, 1.0]
    assert rates[2] == 1.0
    assert rates[6] == pytest.approx(0.1 + 0.9 * 0.5)  # half way between steps 2 and 10
    assert rates[10] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("kind", "middle", "last"), [("linear", 0.5, 0.0), ("constant", 1, 1), ("cosine", 0.5, 0.0)]
)
def test_shapes_of_the_schedule(kind: str, middle: float, last: float) -> None:
    schedule = Schedule.model_validate({"kind": kind, "warmup": 0.0})
    assert rate_factor(5, 11, schedule) == pytest.approx(middle)
    assert rate_factor(10, 11, schedule) == pytest.approx(last)


def test_warm_up_in_steps_and_a_single_step() -> None:
    assert [rate_factor(k, 10, Schedule(warmup=4.0)) for k in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert rate_factor(0, 1, Schedule(warmup=0.0)) == 1.0


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_restored_optimiser_goes_on_to_the_bit(channels_last: bool) -> None:
    """Also where weights lie channels last in memory, as the fused kernels read it."""

    def steps(model: nn.Module, optimiser: torch.optim.Optimizer, numbers: range) -> None:
        for number in numbers:
            torch.manual_seed(number)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape).to(parameter).contiguous()
            optimiser.step()

    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(3, 2))
        if channels_last:
            model[0].to(memory_format=torch.channels_last)
        groups = [
            {"params": list(model.parameters()), "names": [n for n, _ in model.named_parameters()]}
        ]
        return model, build_optimiser(groups, Optimiser(weight_decay=0.1))

    whole, optimiser = fresh()
    steps(whole, optimiser, range(4))
    first, optimiser = fresh()
    steps(first, optimiser, range(2))
    saved = {
        name: value.contiguous().clone() for name, value in optimiser_tensors(optimiser).items()
    }
    second, optimiser = fresh()
    second.load_state_dict(first.state_dict())
    restore_optimiser(optimiser, saved)
    steps(second, optimiser, range(2, 4))
    for left, right in zip(whole.parameters(), second.parameters()):
        assert torch.equal(left, right)
