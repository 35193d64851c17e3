"""Weights of published Q-Formers, and of BERT, in plait's.

The tables of names also carry gradients over in the parity tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from plait.bridges.qformer import QFormerBridge
from plait.bridges.qformer_heads import QFormerHeads
from plait.core.errors import ModelError

Names = dict[str, str]

HEADS: Names = {
    f"{ours}.{end}": f"{theirs}.{end}"
    for ours, theirs in (
        ("image", "vision_projection"),
        ("text", "text_projection"),
        ("match", "itm_head"),
    )
    for end in ("weight", "bias")
}
"""Heads of the first stage in transformers' ``Blip2ForImageTextRetrieval``: ours to theirs."""


def published_names(bridge: QFormerBridge) -> Names:
    """Ours to theirs: the names of transformers' BLIP-2 models, but for ``queries``.

    Theirs are (1, Q, D), which `load_published` takes care of.
    """
    found = _ends([("norm", "qformer.layernorm"), ("project", "language_projection")])
    if bridge.vocabulary:
        found["words.weight"] = "embeddings.word_embeddings.weight"
        found["positions.weight"] = "embeddings.position_embeddings.weight"
    for number, layer in enumerate(bridge.layers):
        own, other = f"layers.{number}", f"qformer.encoder.layer.{number}"
        found |= _attention(f"{own}.attention", f"{other}.attention", "attention")
        if layer.cross is not None:
            found |= _attention(f"{own}.cross", f"{other}.crossattention", "attention")
        found |= _feed_forward(f"{own}.query_feed_forward", other, "_query")
        if layer.text_feed_forward is not None:
            found |= _feed_forward(f"{own}.text_feed_forward", other, "")
    return found


def load_published(bridge: QFormerBridge, weights: Mapping[str, Tensor]) -> list[str]:
    """Fills a Q-Former from the state dict of one of transformers' BLIP-2 models.

    Args:
        bridge: of the sizes of the weights.
        weights: all of a model's or those of the Q-Former; what is not its own is passed over.

    Returns:
        Names of what the weights lack: the projection to the language model, which those of
        the first stage do not have.

    Raises:
        ModelError: anything else is lacking, or is of another shape.
    """
    found = {
        ours: weights[theirs]
        for ours, theirs in published_names(bridge).items()
        if theirs in weights
    }
    if "query_tokens" in weights:
        found["queries"] = weights["query_tokens"][0]
    lacking = _fill(bridge, found)
    others = [name for name in lacking if not name.startswith("project.")]
    if others:
        raise ModelError(
            f"these weights are of no Q-Former of {len(bridge.layers)} layers"
            f"{' that reads words' if bridge.vocabulary else ''}: {len(others)} are lacking, such as"
            f" {others[0]!r} (theirs: {published_names(bridge).get(others[0], 'query_tokens')!r})"
        )
    return lacking


def load_heads(heads: QFormerHeads, weights: Mapping[str, Tensor]) -> list[str]:
    """Fills embeddings and match from ``Blip2ForImageTextRetrieval``; gives names of what it lacks.

    Raises:
        ModelError: a head of another shape.
    """
    return _fill(heads, {o: weights[t] for o, t in HEADS.items() if t in weights})


def load_bert(bridge: QFormerBridge, weights: Mapping[str, Tensor], prefix: str = "") -> list[str]:
    """Starts a Q-Former from BERT, as BLIP-2 did: the queries' feed-forward is the words' too.

    Args:
        bridge: of BERT's width, layers and, where it reads words, vocabulary.
        weights: the state dict of transformers' ``BertModel``.
        prefix: of its names, such as ``bert.``. Types of tokens are left out.

    Returns:
        Names of what BERT does not have: queries, cross-attention and the projection.

    Raises:
        ModelError: a weight of another shape, or none of BERT's layers.
    """
    names = _ends([("norm", f"{prefix}embeddings.LayerNorm")])
    if bridge.vocabulary:
        names["words.weight"] = f"{prefix}embeddings.word_embeddings.weight"
        names["positions.weight"] = f"{prefix}embeddings.position_embeddings.weight"
    for number in range(len(bridge.layers)):
        own, other = f"layers.{number}", f"{prefix}encoder.layer.{number}"
        names |= _attention(f"{own}.attention", f"{other}.attention", "self")
        names |= _feed_forward(f"{own}.query_feed_forward", other, "")
        if bridge.vocabulary:
            names |= _feed_forward(f"{own}.text_feed_forward", other, "")
    absent = [theirs for theirs in names.values() if theirs not in weights]
    if absent:
        raise ModelError(
            f"these weights are of no BERT of {len(bridge.layers)} layers: {absent[0]!r} is"
            " lacking; if its names begin with something, say so with prefix"
        )
    return _fill(bridge, {ours: weights[theirs] for ours, theirs in names.items()})


def _fill(module: nn.Module, found: Mapping[str, Tensor]) -> list[str]:
    own = module.state_dict()
    for name, tensor in found.items():
        if tensor.shape != own[name].shape:
            raise ModelError(
                f"Q-Former: {name} is {tuple(own[name].shape)} here and {tuple(tensor.shape)} in"
                " the weights: build it with the sizes of the weights"
            )
    module.load_state_dict(found, strict=False)
    return [name for name in own if name not in found]


def _ends(names: Iterable[tuple[str, str]]) -> Names:
    return {
        f"{ours}.{end}": f"{theirs}.{end}" for ours, theirs in names for end in ("weight", "bias")
    }


def _attention(ours: str, theirs: str, projections: str) -> Names:
    names = [(f"{ours}.{p}", f"{theirs}.{projections}.{p}") for p in ("query", "key", "value")]
    names += [
        (f"{ours}.out", f"{theirs}.output.dense"),
        (f"{ours}.norm", f"{theirs}.output.LayerNorm"),
    ]
    return _ends(names)


def _feed_forward(ours: str, layer: str, kind: str) -> Names:
    names = [
        (f"{ours}.up", f"{layer}.intermediate{kind}.dense"),
        (f"{ours}.down", f"{layer}.output{kind}.dense"),
        (f"{ours}.norm", f"{layer}.output{kind}.LayerNorm"),
    ]
    return _ends(names)
