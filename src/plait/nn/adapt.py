"""What of an encoder trains: nothing, low-rank adapters, or everything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from plait.core.errors import ModelError

Mode = Literal["frozen", "lora", "last", "full"]
MODES = get_args(Mode)

ADAPTER = "default"


def set_trainable(
    module: nn.Module,
    mode: Mode,
    *,
    rank: int = 8,
    alpha: int = 16,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
    blocks: int = 2,
) -> None:
    """Freezes a module, gives it LoRA adapters, or lets its last blocks or all of it train.

    Adapters that are there stay there: with ``lora`` they go on training, with ``full`` they train
    along with the weights below them, with ``frozen`` they rest.

    Args:
        module: an encoder (or a projection, for ``frozen`` and ``full``).
        mode: ``frozen``, ``lora`` (Hu et al. 2021: W + alpha/rank B A, B starts at zero), ``last``
            (the last blocks and what follows them) or ``full``.
        rank: of the adapters.
        alpha: their scale is alpha / rank.
        dropout: before the adapters.
        targets: names or last parts of names of the layers that get adapters; None finds them
            with `lora_targets`.
        blocks: of ``last``: how many train.

    Raises:
        ModelError: an unknown mode, no layer that can be adapted, or fewer blocks than shall train.
    """
    if mode not in MODES:
        raise ModelError(f"a part can be {', '.join(MODES[:-1])} or {MODES[-1]}, not {mode!r}")
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(mode == "full")
    if mode == "lora":
        if not has_lora(module):
            _inject(module, rank, alpha, dropout, targets)
        for name, parameter in module.named_parameters():
            if ".lora_" in f".{name}":
                parameter.requires_grad_(True)
    elif mode == "last":
        for parameter in _last_parameters(module, blocks):
            parameter.requires_grad_(parameter.is_floating_point())
    module.train(module.training)  # frozen parts go to evaluation mode, see Encoder.train


def block_names(module: nn.Module) -> list[str]:
    """Names of the repeated blocks of an encoder, in the order of the data; [] without any.

    They are the entries of the outermost lists whose entries are of one class and made of layers
    themselves: the layers of a transformer, the residual blocks of a convolutional network.
    """
    found: list[str] = []
    for name, part in module.named_modules():
        inside = any(name.startswith(f"{block}.") for block in found)
        if isinstance(part, _LISTS) and not inside and _alike(list(part.children())):
            found += [f"{name}.{number}" if name else number for number, _ in part.named_children()]
    return found


_LISTS = (nn.ModuleList, nn.Sequential)


def _alike(entries: Sequence[nn.Module]) -> bool:
    """Whether the entries of a list are blocks of one class, no lists and no single layers."""
    made = all(any(True for _ in entry.children()) for entry in entries)
    return made and len({type(one) for one in entries}) == 1 and not isinstance(entries[0], _LISTS)


def _last_parameters(module: nn.Module, blocks: int) -> list[nn.Parameter]:
    """The parameters of the last blocks, and those that were added to the module after them.

    Raises:
        ModelError: it has fewer blocks.
    """
    names = block_names(module)
    if len(names) < blocks:
        raise ModelError(
            f"{type(module).__name__} has {len(names)} repeated blocks, and the last {blocks} shall "
            "train: name fewer (blocks), or train it with lora or in full"
        )
    parameters = list(module.named_parameters())
    first = next(
        n for n, (name, _) in enumerate(parameters) if name.startswith(f"{names[-blocks]}.")
    )
    return [parameter for _, parameter in parameters[first:]]


def has_lora(module: nn.Module) -> bool:
    """Whether any layer carries an adapter."""
    return any(hasattr(part, "lora_A") for part in module.modules())


def lora_targets(module: nn.Module) -> list[str]:
    """Names of the layers that get adapters when the user names none.

    In a transformer the linear layers of its repeated blocks (attention and MLP); in a
    convolutional network the ungrouped convolutions of its repeated stages.
    """
    linear, convolution = [], []
    for name, part in module.named_modules():
        if not re.search(r"\.\d+\.", name):
            continue  # stems and heads are not repeated
        if isinstance(part, nn.Linear) or _is_transposed(part):
            linear.append(name)
        elif isinstance(part, nn.Conv2d) and part.groups == 1:
            convolution.append(name)
    return linear or convolution


def _is_transposed(part: nn.Module) -> bool:
    """Whether it is GPT-2's linear layer, whose weight is (in, out). By name: transformers is slow."""
    return type(part).__name__ == "Conv1D"


def _inject(
    module: nn.Module, rank: int, alpha: int, dropout: float, targets: Sequence[str] | None
) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    chosen = list(targets) if targets else lora_targets(module)
    names = [name for name, _ in module.named_modules()]
    for target in chosen:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise ModelError(f"LoRA: no layer is called {target!r} in this encoder")
    if not chosen:
        raise ModelError(
            f"LoRA: {type(module).__name__} has no linear or convolution layers to adapt;"
            " train it in full"
        )
    layers = dict(module.named_modules())
    found = [p for n, p in layers.items() if any(n == t or n.endswith(f".{t}") for t in chosen)]
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=chosen,
        bias="none",
        fan_in_fan_out=any(_is_transposed(part) for part in found),
    )
    inject_adapter_in_model(config, module, adapter_name=ADAPTER)


def merged_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """The state dict with every adapter merged into its weight, under the original names.

    The module itself stays as it is.
    """
    state = dict(module.state_dict())
    for name, part in module.named_modules():
        if not hasattr(part, "lora_A") or not hasattr(part, "base_layer"):
            continue
        prefix = f"{name}." if name else ""
        delta = part.get_delta_weight(ADAPTER)
        for key in [key for key in state if key.startswith(prefix)]:
            value = state.pop(key)
            rest = key.removeprefix(prefix)
            if rest == "base_layer.weight":
                state[f"{prefix}weight"] = value + delta.to(value.dtype)
            elif rest.startswith("base_layer."):
                state[prefix + rest.removeprefix("base_layer.")] = value
    return state


def merge_lora(module: nn.Module) -> None:
    """Merges every adapter into its weight and takes the adapters out, in place."""
    for name, part in list(module.named_modules()):
        if not hasattr(part, "lora_A") or not hasattr(part, "base_layer"):
            continue
        base = part.get_base_layer()
        delta = part.get_delta_weight(ADAPTER)
        base.weight.data += delta.to(base.weight.dtype)
        parent = module.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], base)
