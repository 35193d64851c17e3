"""Encoders whose inner layers are narrower than their architecture says, and those of a run.

Structured pruning (`plait.compression.prune`) takes channels, hidden units and attention heads out
of an encoder. What is left has the same modules with other widths, which `Narrowed` writes down,
so that the encoder can be built again without the code that pruned it.

``run/FOLDER`` names the encoder of a finished run, weights included; so a recipe can go on with a
pruned one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plait.core.batch import Encoded, ModalityInput
from plait.core.errors import ModelError
from plait.core.files import check_weights, read_json
from plait.core.modality import IMAGE
from plait.encoders.base.base import Encoder, Example, Family, check_modality, check_options

Widths = Mapping[str, Mapping[str, int]]
"""By module name the attributes of its size: ``{"blocks.0.conv_pw": {"in_channels": 16, ...}}``."""

SIZES: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features"),
    nn.Conv2d: ("in_channels", "out_channels", "groups"),
    nn.BatchNorm2d: ("num_features",),
    nn.GroupNorm: ("num_channels",),
}
"""The attributes that a pruned module of each kind differs by."""
HEADS = ("heads", "num_heads", "num_attention_heads")
"""What modules of attention call the number of their heads."""
INNER = ("attn_dim", "all_head_size")
"""What they call all heads' features together, where they keep it."""


def sizes_of(module: nn.Module) -> dict[str, int]:
    """The sizes of a layer, or the heads of a module of attention; empty for others."""
    for kind, names in SIZES.items():
        if isinstance(module, kind):
            return {name: int(getattr(module, name)) for name in names}
    own = vars(module)
    if not any(isinstance(own.get(name), int) for name in HEADS):
        return {}
    return {name: own[name] for name in (*HEADS, *INNER) if isinstance(own.get(name), int)}


def narrow(module: nn.Module, sizes: Mapping[str, int]) -> None:
    """Gives a layer other sizes, and weights of the shape that follows; their values mean nothing.

    Raises:
        ModelError: a size that the layer has not.
    """
    known = sizes_of(module)
    foreign = [name for name in sizes if name not in known]
    if foreign:
        raise ModelError(f"a {type(module).__name__} has no {foreign[0]} to be narrowed")
    for name, value in sizes.items():
        setattr(module, name, int(value))
    shapes: dict[str, tuple[int, ...]] = {}
    if isinstance(module, nn.Linear):
        shapes["weight"] = (module.out_features, module.in_features)
        shapes["bias"] = (module.out_features,)
    elif isinstance(module, nn.Conv2d):
        inputs = module.in_channels // module.groups
        shapes["weight"] = (module.out_channels, inputs, *module.kernel_size)
        shapes["bias"] = (module.out_channels,)
    elif isinstance(module, nn.BatchNorm2d):
        names = ("weight", "bias", "running_mean", "running_var")
        shapes = dict.fromkeys(names, (module.num_features,))
    elif isinstance(module, nn.GroupNorm):
        shapes = dict.fromkeys(("weight", "bias"), (module.num_channels,))
    for name, shape in shapes.items():
        old = getattr(module, name, None)
        if isinstance(old, nn.Parameter):
            made = torch.zeros(shape, dtype=old.dtype, device=old.device)
            setattr(module, name, nn.Parameter(made, requires_grad=old.requires_grad))
        elif isinstance(old, torch.Tensor):
            setattr(module, name, torch.zeros(shape, dtype=old.dtype, device=old.device))


class Narrowed(Encoder):
    """An encoder some of whose modules have other widths than its own spec says.

    Args:
        inner: the encoder, with its modules as they are now.
        widths: of the modules that differ.
    """

    def __init__(self, inner: Encoder, widths: Widths) -> None:
        super().__init__()
        self.inner, self.widths = inner, {name: dict(sizes) for name, sizes in widths.items()}
        self.modality, self.preprocess = inner.modality, inner.preprocess
        self.width, self.token_width = inner.width, inner.token_width

    def forward(self, inputs: ModalityInput) -> Encoded:
        """As the inner encoder's."""
        found: Encoded = self.inner(inputs)
        return found

    def spec(self) -> dict[str, Any]:
        """See `Encoder.spec`."""
        return {"family": "narrowed", "inner": self.inner.spec(), "widths": self.widths}


def narrowed(encoder: Encoder, widths: Widths) -> Narrowed:
    """The encoder with the given widths; one that is narrowed already gets those in addition.

    Raises:
        ModelError: it has no such module.
    """
    inner, before = encoder, dict[str, Mapping[str, int]]()
    if isinstance(encoder, Narrowed):
        inner, before = encoder.inner, dict(encoder.widths)
    modules = dict(inner.named_modules())
    for name, sizes in widths.items():
        if name not in modules:
            raise ModelError(f"the encoder has no module {name!r} to be narrowed")
        if sizes_of(modules[name]) != dict(sizes):
            narrow(modules[name], sizes)
    return Narrowed(inner, {**before, **widths})


def rebuild(spec: dict[str, Any], folder: Path) -> Encoder:
    """The architecture of a spec, without weights."""
    from plait.encoders.registry import encoder_from_spec  # it lists this family

    return narrowed(encoder_from_spec(spec["inner"], folder), spec["widths"])


def build(name: str, modality: str, pretrained: bool, options: dict[str, Any]) -> Encoder:
    """``run/FOLDER``: the encoder of a run, with its weights unless ``pretrained`` is false."""
    from safetensors.torch import load_file

    from plait.encoders.registry import encoder_from_spec

    source, folder = f"run/{name}", Path(name).expanduser()
    check_options(source, options, ())
    if not (folder / "model.json").is_file():
        raise ModelError(f"encoder source {source!r}: {folder} is no run folder (no model.json)")
    saved = read_json(folder / "model.json")
    towers = saved.get("towers", {})
    if saved.get("shared_layers"):
        raise ModelError(f"encoder source {source!r}: towers that share layers cannot be parted")
    check_modality(source, modality, tuple(towers))
    encoder = encoder_from_spec(towers[modality]["encoder"], folder / modality)
    if pretrained:
        beginning = f"towers.{modality}.encoder."
        check_weights(folder / "model.safetensors")
        state = load_file(folder / "model.safetensors")
        own = {k.removeprefix(beginning): v for k, v in state.items() if k.startswith(beginning)}
        encoder.load_state_dict(own)
    return encoder


RUN = Family(
    prefix="run",
    build=build,
    rebuild=rebuild,  # never asked for: what is built saves the spec of its own family
    help="the encoder of a finished run: run/FOLDER",
)


def _build_narrowed(name: str, modality: str, pretrained: bool, options: dict[str, Any]) -> Encoder:
    """``narrowed/SOURCE`` with the option ``narrow``; weights of narrowed modules are zero."""
    from plait.encoders.registry import build_encoder

    widths = options.pop("narrow", {})
    inner = build_encoder(name, modality=modality, pretrained=pretrained, **options)
    return narrowed(inner, widths)


FAMILY = Family(
    prefix="narrowed",
    build=_build_narrowed,
    rebuild=rebuild,
    help="an encoder with some inner layers narrower: narrowed/SOURCE with the option narrow",
    examples=(
        Example(
            "narrowed/scratch/cnn",
            IMAGE,
            {
                "size": 32,
                "widths": [8, 16],
                "narrow": {
                    "stages.1.up": {"in_channels": 16, "out_channels": 20, "groups": 1},
                    "stages.1.project": {"in_channels": 20, "out_channels": 16, "groups": 1},
                },
            },
        ),
    ),
)
