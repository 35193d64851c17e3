"""Parameter groups, optimisers, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from plait.training.recipe.stage import Optimiser, Schedule, Stage


def part_of(name: str) -> str:
    """The part that a parameter belongs to: ``towers.image.encoder.conv.weight`` to ``image.encoder``.

    A fusion model's further parts are ``fusion``, ``heads`` and ``balance``, those of a language model
    that sees ``bridge``, ``gates`` and ``language``, of a drawing model ``dvae`` and ``transformer``.
    Whatever is in none of them (logit scale, bias) is part of ``temperature``.
    """
    steps = name.split(".")
    if steps[0] == "towers" and len(steps) > 3:
        return f"{steps[1]}.{steps[2]}"
    own = ("heads", "balance", "bridge", "gates", "language", "dvae", "transformer")
    return "fusion" if steps[0] == "joint" else steps[0] if steps[0] in own else "temperature"


def undecayed(model: nn.Module) -> set[str]:
    """Names of parameters that weight decay would harm: norms, biases, single vectors, scalars."""
    norms = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase, nn.RMSNorm)
    found = {name for name, value in model.named_parameters() if value.ndim < 2}
    for prefix, module in model.named_modules():
        if isinstance(module, norms):
            found |= {f"{prefix}.{name}" for name, _ in module.named_parameters(recurse=False)}
    return found


def parameter_groups(model: nn.Module, stage: Stage) -> list[dict[str, object]]:
    """Groups for a torch optimiser: by part and by whether weights decay.

    Each holds ``params``, ``names``, ``part``, ``lr``, ``base_lr`` and ``weight_decay``.
    """
    spared = undecayed(model)
    groups: dict[tuple[str, bool], dict[str, object]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        key = (part_of(name), name in spared)
        part = stage.part(key[0])
        decay = stage.optimiser.weight_decay if part.weight_decay is None else part.weight_decay
        rate = stage.optimiser.lr if part.lr is None else part.lr
        group = groups.setdefault(
            key,
            {
                "params": [],
                "names": [],
                "part": key[0],
                "lr": rate,
                "base_lr": rate,
                "weight_decay": 0.0 if key[1] else decay,
            },
        )
        group["params"].append(parameter)  # type: ignore[attr-defined]
        group["names"].append(name)  # type: ignore[attr-defined]
    return list(groups.values())


def build_optimiser(
    groups: Iterable[Mapping[str, object]], settings: Optimiser
) -> torch.optim.Optimizer:
    """AdamW or Adam over the groups. Adam's own weight decay is the L2 kind."""
    kind = torch.optim.AdamW if settings.kind == "adamw" else torch.optim.Adam
    beta1, beta2 = settings.betas
    # One kernel over all parameters: on small models the Python loop would take longer than it.
    return kind(
        [dict(group) for group in groups], betas=(beta1, beta2), eps=settings.eps, fused=True
    )


def rate_factor(step: int, steps: int, schedule: Schedule) -> float:
    """The learning rate of update ``step`` (from 0) of ``steps``, as a share of the full one.

    Warm-up rises linearly and reaches 1 at its last step; the rest falls to ``floor`` at the last
    step of the stage.
    """
    warmup = schedule.warmup
    warm = round(warmup * steps) if warmup < 1 else round(warmup)
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, steps - 1 - warm)
    done = min(1.0, done)
    if schedule.kind == "constant":
        return 1.0
    left = 0.5 * (1 + math.cos(math.pi * done)) if schedule.kind == "cosine" else 1 - done
    return schedule.floor + (1 - schedule.floor) * left


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's learning rate to ``factor`` of its own full one."""
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * factor


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state, flat: ``parameter name/key`` to tensor."""
    found: dict[str, Tensor] = {}
    for group in optimiser.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimiser.state.get(parameter, {}).items():
                found[f"{name}/{key}"] = value
    return found


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `optimiser_tensors` gave."""
    for group in optimiser.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            prefix = f"{name}/"
            state = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            if state:
                optimiser.state[parameter] = {
                    key: _laid_out_like(value, parameter) for key, value in state.items()
                }


def _laid_out_like(value: Tensor, parameter: Tensor) -> Tensor:
    """With the parameter's strides: the fused kernels walk both in the order of memory."""
    if value.shape != parameter.shape:  # the count of steps
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
