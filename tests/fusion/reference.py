"""Each idea written a second time: one sample at a time, in NumPy, without masks or batches.

Padding is cut off and absent modalities are left out before anything is computed. Weights come from
the state dict of the fusion under test, whose names are read here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from plait.core.batch import Encoded
from plait.fusion.base import Fusion

Array = np.ndarray
erf = np.vectorize(math.erf)


class Weights:
    """A state dict with a prefix; calls are linear layers, norms and their like."""

    def __init__(self, state: Mapping[str, Array], prefix: str = "") -> None:
        self.state, self.prefix = state, prefix

    def __getitem__(self, name: str) -> Array:
        return self.state[self.prefix + name]

    def at(self, name: str) -> Weights:
        return Weights(self.state, f"{self.prefix}{name}.")

    def linear(self, x: Array) -> Array:
        out = np.einsum("...i,oi->...o", x, self["weight"])
        return out + self["bias"] if self.prefix + "bias" in self.state else out

    def norm(self, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self["weight"] + self["bias"]


def weights_of(fusion: Fusion) -> Weights:
    return Weights({name: value.detach().numpy() for name, value in fusion.state_dict().items()})


def gelu(x: Array) -> Array:
    return x * (1 + erf(x / math.sqrt(2))) / 2


def softmax(x: Array) -> Array:
    raised = np.exp(x - x.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def sequential(w: Weights, x: Array, first: int = 0) -> Array:
    """Linear, GELU, linear, as numbered in a torch Sequential."""
    return w.at(str(first + 2)).linear(gelu(w.at(str(first)).linear(x)))


def mlp(w: Weights, x: Array) -> Array:
    return w.at("down").linear(gelu(w.at("up").linear(x)))


def attend(q: Array, k: Array, v: Array, heads: int) -> Array:
    """(n, D), (m, D), (m, D) to (n, D): a sum over positions for every head."""
    q, k, v = (part.reshape(len(part), heads, -1) for part in (q, k, v))
    scores = np.einsum("nhd,mhd->hnm", q, k) / math.sqrt(q.shape[-1])
    return np.einsum("hnm,mhd->nhd", softmax(scores), v).reshape(len(q), -1)


def block(w: Weights, x: Array, heads: int) -> Array:
    """Pre-norm self-attention and MLP."""
    attention = w.at("attention")
    q, k, v = np.split(attention.at("qkv").linear(w.at("norm1").norm(x)), 3, axis=-1)
    x = x + attention.at("out").linear(attend(q, k, v, heads))
    return x + mlp(w.at("mlp"), w.at("norm2").norm(x))


def cross(w: Weights, x: Array, context: Array, heads: int) -> Array:
    """What ``x`` finds in ``context``; both normalised already."""
    k, v = np.split(w.at("key_value").linear(context), 2, axis=-1)
    return w.at("out").linear(attend(w.at("query").linear(x), k, v, heads))


def pooled_of(
    fusion: Fusion, made: Mapping[str, Encoded], present: Mapping[str, Tensor], row: int
) -> dict[str, Array]:
    """Normalised pooled vectors of the modalities that the row has."""
    norms = weights_of(fusion).at("inputs.norms")
    return {
        name: norms.at(name).norm(made[name].pooled[row].numpy())
        for name in fusion.modalities
        if present[name][row]
    }


def tokens_of(
    fusion: Fusion, made: Mapping[str, Encoded], present: Mapping[str, Tensor], row: int
) -> dict[str, Array]:
    """Projected tokens, type and place included, of the modalities that the row has."""
    w = weights_of(fusion).at("inputs")
    known = [name for name in fusion.modalities if f"inputs.linears.{name}.weight" in w.state]
    found = {}
    for number, name in enumerate(known):
        if not present[name][row]:
            continue
        part = made[name]
        kept = part.mask[row].numpy()
        x = w.at(f"norms.{name}").norm(part.tokens[row].numpy()[kept])
        x = w.at(f"linears.{name}").linear(x) + w["types"][number]
        if name == "image":
            boxes = np.tile([0.0, 0, 1, 1], (len(x), 1))
            if part.boxes is not None:
                boxes = part.boxes[row].numpy()[kept]
            x = x + np.einsum("ni,oi->no", boxes, w["places.image.weight"])
        found[name] = x
    return found
