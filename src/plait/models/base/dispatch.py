"""Models larger than one device: towers on several, or weights that wait on disk (accelerate).

Every tower is whole on one device, as residual sums need. What is offloaded to the processor's memory or to disk comes to
its device layer by layer, when it is needed: slower, and no larger than the largest layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from plait.core.errors import UserError

Place = int | str
Module = TypeVar("Module", bound=nn.Module)


def dispatched(
    model: Module,
    device_map: str | Mapping[str, Place] = "auto",
    *,
    max_memory: Mapping[Place, int | str] | None = None,
    offload: str | Path | None = None,
) -> Module:
    """Spreads a model over devices; returns it.

    Args:
        model: in evaluation mode, on the processor.
        device_map: ``auto`` fills the GPUs, then memory, then ``offload``; or by name of a
            submodule (``towers.image``) a device: a GPU's number, ``cpu`` or ``disk``.
        max_memory: by device, at most so much (``{0: "6GiB", "cpu": "2GiB"}``); what there is
            by default.
        offload: a folder for weights that fit nowhere else.

    Raises:
        UserError: weights need a folder and none is named, or a map leaves parts out.
    """
    from accelerate import cpu_offload, disk_offload

    places = _places(model, device_map, max_memory)
    if "disk" in places.values() and offload is None:
        raise UserError(
            "the model does not fit into memory: name a folder for the rest (offload=FOLDER), or "
            "allow more (max_memory)"
        )
    # What is offloaded is computed on the first GPU of the map, else on the processor.
    main: Place = next((place for place in places.values() if place not in ("cpu", "disk")), "cpu")
    parts = _parts(model)
    for name, place in places.items():
        if place == "disk":
            assert offload is not None
            disk_offload(parts[name], Path(offload) / name, main, offload_buffers=True)
        elif place == "cpu" and main != "cpu":
            cpu_offload(parts[name], main, offload_buffers=True)
        else:
            parts[name].to(place)
    for _, parameter in model.named_parameters(recurse=False):  # the temperature
        parameter.data = parameter.data.to(main)
    return model


def _parts(model: nn.Module) -> dict[str, nn.Module]:
    """What has a place of its own: towers, heads, what joins them; by name."""
    found: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        inner = dict(child.named_children()) if isinstance(child, nn.ModuleDict) else {}
        found |= {f"{name}.{key}": part for key, part in inner.items()} or {name: child}
    return {name: part for name, part in found.items() if next(part.parameters(), None) is not None}


def _places(
    model: nn.Module,
    device_map: str | Mapping[str, Place],
    max_memory: Mapping[Place, int | str] | None,
) -> dict[str, Place]:
    """The device of each part."""
    from accelerate import infer_auto_device_map

    if not isinstance(device_map, str):
        given = dict(device_map)
    elif device_map == "auto":
        memory = None if max_memory is None else dict(max_memory)
        whole = sorted({type(part).__name__ for part in _parts(model).values()})
        given = infer_auto_device_map(model, max_memory=memory, no_split_module_classes=whole)
    else:
        raise UserError(f"device_map is {device_map!r}; it is 'auto' or names submodules")
    found: dict[str, Place] = {}
    for name in _parts(model):
        keys = [key for key in given if not key or name == key or name.startswith(f"{key}.")]
        if not keys:
            raise UserError(
                f"device_map says nothing of {name!r}; the parts of this model are "
                f"{', '.join(_parts(model))}"
            )
        found[name] = given[max(keys, key=len)]
    return found


def device_of(module: nn.Module) -> torch.device:
    """Where a module's inputs belong: its weights may lie elsewhere until they are used."""
    for part in module.modules():
        hook = getattr(part, "_hf_hook", None)
        device = getattr(hook, "execution_device", None)
        if device is not None:
            return torch.device(device)
    return next(module.parameters()).device
