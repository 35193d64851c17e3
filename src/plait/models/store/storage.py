"""Saving a model as one folder of safetensors and JSON, and loading it offline, anywhere.

``model.json`` holds the architecture, ``model.safetensors`` the weights, and one folder a tower
what its preprocessing needs (tokenizers). No path in them leads out of the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from plait.bridges.registry import bridge_from_spec
from plait.core.errors import ModelError, shown
from plait.core.files import BadJson, read_json, regular, replacing, write_json
from plait.core.modality import IMAGE
from plait.encoders.base.base import Encoder
from plait.encoders.compose.sharing import share_blocks
from plait.encoders.registry import encoder_from_spec
from plait.language.registry import language_from_spec
from plait.models.alignment.alignment import AlignmentModel, Tower
from plait.models.base.heads import head_from_spec
from plait.models.base.hubs import HubCorrection
from plait.models.base.memory import check_sizes, described
from plait.models.base.projection import build_projection
from plait.models.bridged.model import BridgedModel
from plait.models.drawing.drawing import DrawingModel
from plait.models.fusion.joints import joint_from_spec
from plait.models.fusion.model import FusionModel
from plait.models.store.files import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    load_weights,
)
from plait.models.store.kinds import Model
from plait.models.store.shared_layers import other_names, shared_layers
from plait.nn.adapt import merged_state_dict
from plait.runtime.manifest import MANIFEST

# 2 has a correction for hubs, 3 towers that share layers; a model is written as the least it needs.
VERSION = 4
LANGUAGE_FOLDER = "language"


def model_spec(model: Model) -> dict[str, Any]:
    """The architecture as JSON; that of a drawing model is `save_drawing`'s."""
    assert not isinstance(model, DrawingModel)
    if isinstance(model, FusionModel):
        return {**_head(model, 1), **_fusion_spec(model)}
    if isinstance(model, BridgedModel):
        encoder = model.tower(IMAGE).encoder.spec()
        head = {**_head(model, 4), "kind": "bridge"}
        return {**head, "towers": {IMAGE: {"encoder": encoder}}, "bridged": model.spec()}
    towers = {}
    for name in model.modalities:
        tower = model.tower(name)
        towers[name] = {"encoder": tower.encoder.spec(), "projection": tower.projection.spec()}
    return {
        **_head(model, 1 if model.hubs is None else 2),
        "kind": "alignment",
        "towers": towers,
        "max_scale": model.max_scale,
        "bias": model.bias is not None,
        **({} if model.hubs is None else {"hubs": model.hubs.spec()}),
    }


def _head(model: Model, version: int) -> dict[str, Any]:
    head = {"format": "plait-model", "version": version}
    count = shared_layers(model)
    return {**head, "version": 3, "shared_layers": count} if count else head


def _fusion_spec(model: FusionModel) -> dict[str, Any]:
    return {
        "kind": "fusion",
        "towers": {
            name: {"encoder": model.tower(name).encoder.spec()} for name in model.modalities
        },
        "joint": model.joint.spec(),
        "heads": {name: model.head(name).spec() for name in model.heads},
        "without": list(model.without),
    }


def save_model(model: Model, folder: str | Path) -> None:
    """Writes the model into ``folder``; LoRA adapters are merged into the weights they adapt.

    Weights that towers share are written once, under their first name.
    """
    from safetensors.torch import save_file

    if isinstance(model, DrawingModel):
        from plait.models.store.drawing import save_drawing  # it reads and fills as this module

        save_drawing(model, folder)
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in model.modalities:
        model.tower(name).encoder.save_files(folder / name)
    if isinstance(model, BridgedModel):
        model.language.save_files(folder / LANGUAGE_FOLDER)
    again = other_names(model)
    state = {name: t for name, t in merged_state_dict(model).items() if name not in again}
    with replacing(folder / WEIGHTS_FILE) as temporary:
        save_file(_separate(state), temporary)
    write_json(folder / CONFIG_FILE, model_spec(model))


def _separate(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU; safetensors stores no shared memory."""
    seen: set[int] = set()
    result = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.data_ptr())
        result[name] = tensor
    return result


def load_model(folder: str | Path) -> Model:
    """A model that `save_model` wrote, in evaluation mode, on the CPU.

    Raises:
        ModelError: no such folder, a broken or newer file, or weights that don't fit.
    """
    folder = Path(folder)
    spec = _read_spec(folder)
    if spec["kind"] == "drawing":
        from plait.models.store.drawing import load_drawing

        return load_drawing(folder)
    weights = regular(folder / WEIGHTS_FILE, None) if (folder / WEIGHTS_FILE).exists() else None
    with described(folder / CONFIG_FILE, weights):
        encoders = {
            name: encoder_from_spec(part["encoder"], folder / _part(name))
            for name, part in spec["towers"].items()
        }
        share_blocks(encoders, spec.get("shared_layers", 0))
        model = _built(spec, encoders, folder)
    load_weights(model, folder / WEIGHTS_FILE, again=other_names(model))
    return model.eval()


def _part(name: str) -> str:
    """A modality as the name of its folder. Raises ModelError where it leads elsewhere."""
    if not name.isidentifier():
        raise ModelError(f"{shown(name)} is no modality")
    return name


def _built(spec: dict[str, Any], encoders: dict[str, Encoder], folder: Path) -> Model:
    if spec["kind"] == "fusion":
        return _fusion(spec, encoders)
    return (
        _bridged(spec, encoders, folder) if spec["kind"] == "bridge" else _alignment(spec, encoders)
    )


def _bridged(spec: dict[str, Any], encoders: dict[str, Encoder], folder: Path) -> Model:
    arguments = dict(spec["bridged"])
    bridge = bridge_from_spec(arguments.pop("bridge"))
    language = language_from_spec(arguments.pop("language"), folder / LANGUAGE_FOLDER)
    return BridgedModel(encoders[IMAGE], bridge, language, **arguments)


def _alignment(spec: dict[str, Any], encoders: dict[str, Encoder]) -> Model:
    towers = {
        name: Tower(encoders[name], build_projection(**part["projection"]))
        for name, part in spec["towers"].items()
    }
    return AlignmentModel(
        towers,
        scale_init=1.0,
        max_scale=spec["max_scale"],
        bias_init=0.0 if spec["bias"] else None,
        hubs=HubCorrection.from_spec(spec["hubs"]) if "hubs" in spec else None,
    )


def _fusion(spec: dict[str, Any], encoders: dict[str, Encoder]) -> Model:
    heads = {name: head_from_spec(arguments) for name, arguments in spec["heads"].items()}
    return FusionModel(
        encoders, joint_from_spec(spec["joint"]), heads, without=spec.get("without", ())
    )


def _read_spec(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.exists():
        if (folder / MANIFEST).is_file():
            raise ModelError(
                f"{folder} is a bundle, for `plait serve`, `plait bench` and plait.runtime: give the "
                "run that it was exported from"
            )
        raise ModelError(f"{folder} is no plait model: it has no {CONFIG_FILE}")
    try:
        spec: dict[str, Any] = read_json(path)
    except BadJson as bad:
        raise ModelError(f"{path} is damaged: it {bad.problem}") from bad
    if not isinstance(spec, dict) or spec.get("format") != "plait-model":
        raise ModelError(f"{path} doesn't describe a plait model")
    if not (isinstance(spec.get("version", 0), int) and isinstance(spec.get("kind", ""), str)):
        raise ModelError(f"{path} is damaged: its version is a number and its kind a word")
    check_sizes(spec, str(path))
    keys = {
        "fusion": ("towers", "joint", "heads"),
        "bridge": ("towers", "bridged"),
        "drawing": ("dvae", "transformer"),
    }.get(spec.get("kind", ""), ("towers", "max_scale", "bias"))
    lacking = [key for key in ("version", "kind", *keys) if key not in spec]
    if lacking:
        raise ModelError(f"{path} lacks {lacking[0]!r}")
    if spec["version"] > VERSION:
        raise ModelError(
            f"{path} has version {spec['version']}, this plait reads up to {VERSION}: update plait"
        )
    if spec["kind"] not in ("alignment", "fusion", "bridge", "drawing"):
        raise ModelError(f"{path} holds a model of an unknown kind, {spec['kind']!r}")
    return spec
