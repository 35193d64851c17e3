"""Configurations and weights of transformers models: safetensors only, no remote code."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from plait.core.errors import ModelError
from plait.core.files import read_json
from plait.core.telemetry import switch_off

WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*/config.json"]
"""What is fetched from a hub: no pickles, no code."""


def resolve(name: str) -> Path:
    """A local folder, or a repository of the model hub brought here.

    Args:
        name: a path, or ``OWNER/NAME``.

    Raises:
        ModelError: no such folder, and the hub can't be reached or has no such model.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"no folder {name!r}; give a folder, or OWNER/NAME on the model hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=WANTED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as problem:
        raise ModelError(
            f"model {name!r} is neither a local folder nor can it be fetched from its hub;"
            " check the name and the connection, or fetch it elsewhere and give the folder's path"
        ) from problem


def read_config(folder: Path) -> Any:
    """The transformers configuration in ``folder``.

    Raises:
        ModelError: no config.json, or a kind of model that transformers doesn't ship.
    """
    path = folder / "config.json"
    if not path.exists():
        raise ModelError(f"{folder} holds no config.json, so it is no transformers model")
    try:
        return config_from_json(read_json(path))
    except ValueError as problem:
        raise ModelError(f"{path}: {problem}") from problem


def config_from_json(value: dict[str, Any]) -> Any:
    """A configuration object; models that need code of their own are refused."""
    switch_off()
    from transformers import AutoConfig

    settings = {key: item for key, item in value.items() if key != "auto_map"}
    kind = settings.pop("model_type", None)
    if kind is None:
        raise ModelError("the model's config.json has no 'model_type'")
    try:
        return AutoConfig.for_model(kind, **settings)
    except ValueError as problem:
        raise ModelError(
            f"transformers ships no model of type {kind!r}, and plait never runs code that comes"
            " with weights"
        ) from problem


def config_to_json(config: Any) -> dict[str, Any]:
    """The JSON of a configuration, without machine paths."""
    value = dict(config.to_dict())
    value.pop("_name_or_path", None)
    return value


def _class_of(config: Any, causal: bool) -> Any:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

    try:
        return (MODEL_FOR_CAUSAL_LM_MAPPING if causal else MODEL_MAPPING)[type(config)]
    except KeyError as problem:
        what = "causal language" if causal else "plain"
        raise ModelError(
            f"transformers has no {what} model of type {config.model_type!r}"
        ) from problem


def _arguments(config: Any, causal: bool) -> dict[str, Any]:
    # An unused pooler would be a weight without gradient.
    parameters = inspect.signature(_class_of(config, causal).__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in parameters else {}


def model_from_config(value: dict[str, Any], *, causal: bool = False) -> nn.Module:
    """The architecture with random weights, in float32 and evaluation mode.

    Args:
        value: the configuration.
        causal: the causal language model of this configuration, with its head.
    """
    config = config_from_json(value)
    model: nn.Module = _class_of(config, causal)(config, **_arguments(config, causal))
    return _without_loss(model.float().eval())


@contextmanager
def _quiet() -> Iterator[None]:
    """No list of unused heads and no second progress bar; missing weights are checked by us."""
    from transformers.utils import logging as reports

    level, bars = reports.get_verbosity(), reports.is_progress_bar_enabled()
    reports.set_verbosity_error()
    reports.disable_progress_bar()
    try:
        yield
    finally:
        reports.set_verbosity(level)
        if bars:
            reports.enable_progress_bar()


def load_model(
    folder: Path, source: str, *, pretrained: bool = True, causal: bool = False
) -> nn.Module:
    """The model in ``folder``, in float32 and evaluation mode; ``causal`` as above.

    Raises:
        ModelError: no safetensors, or weights that don't fill the architecture.
    """
    config = read_config(folder)
    if not pretrained:
        return model_from_config(config_to_json(config), causal=causal)
    if not list(folder.glob("*.safetensors")):
        raise ModelError(
            f"{source}: {folder} holds no .safetensors file; plait doesn't unpickle weights,"
            " so convert them first"
        )
    with _quiet():
        model, report = _class_of(config, causal).from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            dtype="float32",
            **_arguments(config, causal),
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{source}: {len(missing)} weights are missing in {folder}, first {missing[0]!r}"
        )
    loaded: nn.Module = model
    return _without_loss(loaded.eval())


def _without_loss(model: nn.Module) -> nn.Module:
    # Tracing reads every attribute. transformers warns when its loss is read of a model that has no
    # head, and so names none; this names the one that it falls back on, and nothing here computes.
    if getattr(model, "loss_type", "") is None:
        model.loss_type = "ForCausalLM"  # type: ignore[assignment]
    return model
