"""Starting from the weights of another run, with a full account of what was taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from plait.core.errors import ModelError
from plait.core.files import read_json
from plait.modalities.text.tokenize import TextPreprocess
from plait.models.store.files import CONFIG_FILE, WEIGHTS_FILE, read_weights
from plait.models.fusion.model import FusionModel
from plait.models.store.kinds import Model
from plait.models.store.published import is_published
from plait.models.store.shared_layers import other_names


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


def start_from(model: Model, run: str | Path, leave: Sequence[str] = ()) -> Account:
    """Copies the weights of a run into a model, by name.

    Layers that the run's towers share and the model's do not go into each of them. The other way
    round they must be equal, or be left.

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
        mend = ""
        if is_published(folder):
            mend = ", but a published checkpoint: name it as model.published (see finetune-clip)"
        raise ModelError(f"init_from: {folder} is no finished run: it has no {CONFIG_FILE}{mend}")
    state = read_weights(folder / WEIGHTS_FILE)
    # Embeddings by the old weights: training makes its own (`plait.training.run.hubs`).
    state = {name: value for name, value in state.items() if not name.startswith("hubs.")}
    again = other_names(model)
    state = _as_shared(_written_out(state, read_json(folder / CONFIG_FILE)), again)
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
        if name not in again and not any(name.startswith(f"heads.{head}.") for head in other)
    }
    loaded = sorted(k for k in own if k in state and own[k].shape == state[k].shape)
    if not loaded:
        raise ModelError(f"init_from: nothing of {folder} fits this model (its parts differ)")
    left = sorted(set(state) - set(loaded))
    unwanted = [name for name in left if not _allowed(name, leave)]
    if unwanted:
        shaped = [name for name in unwanted if name in own]
        apart = [name for name in unwanted if name in again]
        what = f"the first is {unwanted[0]!r}"
        if shaped:
            what = (
                f"{shaped[0]!r} has the shape {tuple(state[shaped[0]].shape)} there and "
                f"{tuple(own[shaped[0]].shape)} here"
            )
        elif apart:
            what = f"{apart[0]!r} is shared here, and differs from {again[apart[0]]!r} there"
        beginning = ".".join(unwanted[0].split(".")[:2])
        raise ModelError(
            f"init_from: {len(unwanted)} tensors of {folder} would be left over ({what}): allow it "
            f"with model.init_from.leave=[{beginning}], or change the recipe"
        )
    with torch.no_grad():
        for name in loaded:
            own[name].copy_(state[name])
    new = set(model.state_dict()) - set(loaded) - set(again)
    return Account(folder, loaded, sorted(new), left)


def _written_out(state: Mapping[str, Tensor], spec: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a saved model with those that its towers share under each tower's name."""
    found = dict(state)
    towers = [f"towers.{name}.encoder." for name in spec.get("towers", ())]
    for number in range(spec.get("shared_layers", 0)):
        block = f"{towers[0]}blocks.{number}."
        for name, value in state.items():
            if name.startswith(block):
                found |= {tower + name.removeprefix(towers[0]): value for tower in towers[1:]}
    return found


def _as_shared(state: Mapping[str, Tensor], again: Mapping[str, str]) -> dict[str, Tensor]:
    """The weights without those that are equal under another name, which the model shares."""

    def same(name: str) -> bool:
        first = state.get(again.get(name, ""))
        return first is not None and torch.equal(first, state[name])

    return {name: value for name, value in state.items() if not same(name)}


def _foreign_heads(model: Model, folder: Path) -> list[str]:
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
