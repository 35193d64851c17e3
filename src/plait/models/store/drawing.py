"""Saving a drawing model, or a discrete VAE alone, as a folder of safetensors and JSON.

``model.json`` holds the kind and the architecture, ``model.safetensors`` the weights, ``text`` the
tokenizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from plait.core.errors import ModelError
from plait.core.files import BadJson, read_json, regular, replacing, write_json
from plait.modalities.text.tokenize import TextPreprocess
from plait.models.base.memory import check_sizes, described
from plait.models.drawing.drawing import DrawingModel
from plait.models.drawing.dvae import DiscreteVAE
from plait.models.drawing.transformer import DrawingTransformer
from plait.models.store.files import CONFIG_FILE, WEIGHTS_FILE, load_weights

KIND, DVAE_KIND = "drawing", "dvae"
VERSION = 1
TEXT_FOLDER = "text"


def save_drawing(model: DrawingModel, folder: str | Path) -> None:
    """Writes the model into ``folder``."""
    parts = {"dvae": model.dvae.spec(), "transformer": model.transformer.spec()}
    model.preprocess.save(Path(folder) / TEXT_FOLDER)
    _save(model, KIND, parts, Path(folder))


def load_drawing(folder: str | Path) -> DrawingModel:
    """A model that `save_drawing` wrote, in evaluation mode, on the CPU.

    Raises:
        ModelError: no such folder, a broken or newer file, or weights that don't fit.
    """
    folder = Path(folder)
    spec = _read(folder, KIND, ("dvae", "transformer"))
    transformer = _built(DrawingTransformer, spec["transformer"], folder)
    model = DrawingModel(
        _built(DiscreteVAE, spec["dvae"], folder),
        transformer,
        TextPreprocess.load(folder / TEXT_FOLDER),
    )
    load_weights(model, folder / WEIGHTS_FILE)
    return model.eval()


def save_dvae(model: DiscreteVAE, folder: str | Path) -> None:
    """Writes a discrete VAE into ``folder``: the first stage of a drawing model."""
    _save(model, DVAE_KIND, {"dvae": model.spec()}, Path(folder))


def load_dvae(folder: str | Path) -> DiscreteVAE:
    """A model that `save_dvae` wrote, in evaluation mode, on the CPU.

    Raises:
        ModelError: as `load_drawing`.
    """
    folder = Path(folder)
    model: DiscreteVAE = _built(DiscreteVAE, _read(folder, DVAE_KIND, ("dvae",))["dvae"], folder)
    load_weights(model, folder / WEIGHTS_FILE)
    return model.eval()


def _save(model: nn.Module, kind: str, parts: dict[str, Any], folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    with replacing(folder / WEIGHTS_FILE) as temporary:
        save_file(state, temporary)
    head = {"format": "plait-model", "version": VERSION, "kind": kind}
    write_json(folder / CONFIG_FILE, {**head, **parts})


def _read(folder: Path, kind: str, parts: tuple[str, ...]) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.exists():
        raise ModelError(f"{folder} is no plait model: it has no {CONFIG_FILE}")
    try:
        spec = read_json(path)
    except BadJson as bad:
        raise ModelError(f"{path} is damaged: it {bad.problem}") from bad
    if not isinstance(spec, dict) or spec.get("format") != "plait-model":
        raise ModelError(f"{path} doesn't describe a plait model")
    check_sizes(spec, str(path))
    if spec.get("kind") != kind:
        raise ModelError(f"{path} holds a model of the kind {spec.get('kind')!r}, not {kind!r}")
    lacking = [key for key in ("version", *parts) if key not in spec]
    if lacking:
        raise ModelError(f"{path} lacks {lacking[0]!r}")
    if not isinstance(spec["version"], int) or spec["version"] > VERSION:
        raise ModelError(
            f"{path} has version {spec['version']}, this plait reads up to {VERSION}: update plait"
        )
    return spec


def _built(build: Any, arguments: dict[str, Any], folder: Path) -> Any:
    weights = regular(folder / WEIGHTS_FILE, None) if (folder / WEIGHTS_FILE).exists() else None
    with described(folder / CONFIG_FILE, weights):
        return build(**arguments)
