"""Starting from the weights of another run, with a full account of what was taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from plait.core.errors import ModelError
from plait.core.files import read_json
from plait.data.tokenize import TextPreprocess
from plait.models.fusion_model import FusionModel
from plait.models.storage import CONFIG_FILE, WEIGHTS_FILE, read_weights


@dataclass(frozen=True)
class Account:
    """What became of a run's weights.

    Attributes:
        run: where they came from.
        loaded: names of tensors that the model took.
        new: names of tensors that the run has not; they keep their random values.
        left: names of the run's tensors that the model has no place for.
    """

    run: Path
    loaded: Sequence[str]
    new: Sequence[str]
    left: Sequence[str]

    def line(self) -> str:
        """One sentence for people."""
        return (
            f"Started from {self.run}: {len(self.loaded)} tensors loaded, "
            f"{_told(self.new)} new, {_told(self.left)} left over."
        )


def start_from(model: nn.Module, run: str | Path, leave: Sequence[str] = ()) -> Account:
    """Copies the weights of a run into a model, by name.

    Args:
        model: just built.
        run: a run folder.
        leave: beginnings of names that may be left over or have another shape, such as
            ``heads.mlm``; ``*`` for all.

    Raises:
        ModelError: no run, nothing that fits, or weights that are left over without leave; the first
            of each kind is named.
    """
    folder = Path(run)
    if not (folder / CONFIG_FILE).is_file():
        raise ModelError(f"init_from: {folder} is no finished run: it has no {CONFIG_FILE}")
    state = read_weights(folder / WEIGHTS_FILE)
    # Embeddings by the old weights: training makes its own (`plait.training.hubs`).
    state = {name: value for name, value in state.items() if not name.startswith("hubs.")}
    other = _foreign_heads(model, folder)
    refused = [name for name in other if not _allowed(f"heads.{name}", leave)]
    if refused:
        raise ModelError(
            f"init_from: the head {refused[0]!r} of {folder} stands for other labels than here, so "
            f"its weights mean nothing: leave it with model.init_from.leave=[heads.{refused[0]}]"
        )
    own = {
        name: value
        for name, value in model.state_dict().items()
        if not any(name.startswith(f"heads.{head}.") for head in other)
    }
    loaded = sorted(k for k in own if k in state and own[k].shape == state[k].shape)
    if not loaded:
        raise ModelError(f"init_from: nothing of {folder} fits this model (its parts differ)")
    left = sorted(set(state) - set(loaded))
    unwanted = [name for name in left if not _allowed(name, leave)]
    if unwanted:
        shaped = [name for name in unwanted if name in own]
        what = (
            f"{shaped[0]!r} has the shape {tuple(state[shaped[0]].shape)} there and "
            f"{tuple(own[shaped[0]].shape)} here"
            if shaped
            else f"the first is {unwanted[0]!r}"
        )
        beginning = ".".join(unwanted[0].split(".")[:2])
        raise ModelError(
            f"init_from: {len(unwanted)} tensors of {folder} would be left over ({what}): allow it "
            f"with model.init_from.leave=[{beginning}], or change the recipe"
        )
    with torch.no_grad():
        for name in loaded:
            own[name].copy_(state[name])
    return Account(folder, loaded, sorted(set(model.state_dict()) - set(loaded)), left)


def _foreign_heads(model: nn.Module, folder: Path) -> list[str]:
    """Heads of the model whose labels differ from those of the run's head of that name."""
    if not isinstance(model, FusionModel):
        return []
    saved = read_json(folder / CONFIG_FILE).get("heads", {})
    own = {name: model.head(name).spec() for name in model.heads}
    return [
        name
        for name, spec in own.items()
        if name in saved and spec.get("labels") != saved[name].get("labels")
    ]


def tokenizer_of(run: str | Path, modality: str = "text") -> Tokenizer:
    """The tokenizer of a run, which its word embeddings belong to.

    Raises:
        ModelError: the run has none.
    """
    folder = Path(run) / modality
    if not folder.is_dir():
        raise ModelError(f"init_from: {run} has no tokenizer in {folder.name}/")
    return TextPreprocess.load(folder).tokenizer


def _allowed(name: str, leave: Sequence[str]) -> bool:
    return any(one == "*" or name == one or name.startswith(f"{one}.") for one in leave)


def _told(names: Sequence[str]) -> str:
    """``12 (heads.answer, joint.norm)``: how many, and of which parts."""
    parts = list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
    shown = ", ".join(parts[:4]) + (", ..." if len(parts) > 4 else "")
    return f"{len(names)} ({shown})" if names else "0"
