"""Where each weight of a system comes from in published checkpoints.

A `Source` names the keys of one of plait's weights and how they become it; the same tables carry
gradients over in the parity tests, since every change is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plait.models.systems.base import System
from plait.models.systems.lxmert import Lxmert
from plait.models.systems.uniter import Uniter
from plait.models.systems.vilbert import Vilbert
from plait.models.systems.visual_bert import VisualBert


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _first_row(tensor: Tensor) -> Tensor:
    return tensor[0]


def _second_row(tensor: Tensor) -> Tensor:
    return tensor[1]


def _swapped(tensor: Tensor) -> Tensor:
    return tensor.flip(0)


@dataclass(frozen=True)
class Source:
    """The keys whose tensors, joined along the first axis and changed, are one weight."""

    keys: tuple[str, ...]
    change: Callable[[Tensor], Tensor] = _same

    def read(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The weight; all keys must be there."""
        parts = [weights[key] for key in self.keys]
        return self.change(parts[0] if len(parts) == 1 else torch.cat(parts))


Sources = dict[str, Source]
Names = Iterable[tuple[str, str]]


def pairs(names: Names, *, change: Callable[[Tensor], Tensor] = _same) -> Sources:
    """Sources of the weight and bias of linear layers and norms: (ours, theirs)."""
    return {
        f"{ours}.{end}": Source((f"{theirs}.{end}",), change)
        for ours, theirs in names
        for end in ("weight", "bias")
    }


def tables(names: Names) -> Sources:
    """Sources of embedding tables: (ours, theirs)."""
    return {f"{ours}.weight": Source((f"{theirs}.weight",)) for ours, theirs in names}


def attention(ours: str, projections: str, output: str, number: str = "") -> Sources:
    """Sources of an `Attention`: ``query1``, ``dense1``, ``LayerNorm1`` where ``number`` is 1."""
    joined = {
        f"{ours}.qkv.{end}": Source(
            tuple(f"{projections}.{part}{number}.{end}" for part in ("query", "key", "value"))
        )
        for end in ("weight", "bias")
    }
    ends = [
        (f"{ours}.out", f"{output}.dense{number}"),
        (f"{ours}.norm", f"{output}.LayerNorm{number}"),
    ]
    return joined | pairs(ends)


def feed_forward(ours: str, up: str, down: str) -> Sources:
    """Sources of a `FeedForward`."""
    names = [
        (f"{ours}.up", f"{up}.dense"),
        (f"{ours}.down", f"{down}.dense"),
        (f"{ours}.norm", f"{down}.LayerNorm"),
    ]
    return pairs(names)


def bert_layers(ours: str, theirs: str, count: int) -> Sources:
    """Sources of a list of `Layer`s in BERT's naming."""
    found: Sources = {}
    for number in range(count):
        own, other = f"{ours}.{number}", f"{theirs}.{number}"
        found |= attention(
            f"{own}.attention", f"{other}.attention.self", f"{other}.attention.output"
        )
        found |= feed_forward(f"{own}.feed_forward", f"{other}.intermediate", f"{other}.output")
    return found


def words(theirs: str) -> Sources:
    """Sources of `WordEmbeddings`."""
    names = [
        ("words.words", f"{theirs}.word_embeddings"),
        ("words.positions", f"{theirs}.position_embeddings"),
        ("words.types", f"{theirs}.token_type_embeddings"),
    ]
    return tables(names) | pairs([("words.norm", f"{theirs}.LayerNorm")])


def transform(ours: str, theirs: str) -> Sources:
    """Sources of a head's `Transform` in BERT's naming."""
    return pairs([(f"{ours}.linear", f"{theirs}.dense"), (f"{ours}.norm", f"{theirs}.LayerNorm")])


def visual_bert(system: VisualBert, prefix: str) -> Sources:
    """Transformers' VisualBertModel."""
    embeddings = f"{prefix}embeddings"
    return (
        words(embeddings)
        | pairs([("region_projection", f"{embeddings}.visual_projection")])
        | tables([("visual_types", f"{embeddings}.visual_token_type_embeddings")])
        | {
            "visual_position": Source(
                (f"{embeddings}.visual_position_embeddings.weight",), _first_row
            )
        }
        | bert_layers("layers", f"{prefix}encoder.layer", len(system.layers))
        | pairs([("pooler.linear", f"{prefix}pooler.dense")])
    )


def uniter(system: Uniter, prefix: str) -> Sources:
    """The state dict of the original UNITER."""
    images = f"{prefix}img_embeddings"
    names = [
        ("regions.projection", f"{images}.img_linear"),
        ("regions.projection_norm", f"{images}.img_layer_norm"),
        ("regions.box", f"{images}.pos_linear"),
        ("regions.box_norm", f"{images}.pos_layer_norm"),
        ("regions.norm", f"{images}.LayerNorm"),
        ("pooler.linear", f"{prefix}pooler.dense"),
    ]
    return (
        words(f"{prefix}embeddings")
        | pairs(names)
        | {"regions.mask": Source((f"{images}.mask_embedding.weight",), _second_row)}
        | bert_layers("layers", f"{prefix}encoder.layer", len(system.layers))
    )


def vilbert(system: Vilbert, prefix: str) -> Sources:
    """The state dict of the original ViLBERT: 1 is the picture, 2 the text."""
    images, encoder = f"{prefix}v_embeddings", f"{prefix}encoder"
    names = [
        ("region_projection", f"{images}.image_embeddings"),
        ("box", f"{images}.image_location_embeddings"),
        ("region_norm", f"{images}.LayerNorm"),
        ("text_pooler.linear", f"{prefix}t_pooler.dense"),
        ("image_pooler.linear", f"{prefix}v_pooler.dense"),
    ]
    found = words(f"{prefix}embeddings") | pairs(names)
    found |= bert_layers("text_layers", f"{encoder}.layer", len(system.text_layers))
    found |= bert_layers("image_layers", f"{encoder}.v_layer", len(system.image_layers))
    for number in range(len(system.connections)):
        own, other = f"connections.{number}", f"{encoder}.c_layer.{number}"
        for stream, short, digit in (("image", "v", "1"), ("text", "t", "2")):
            found |= attention(
                f"{own}.{stream}", f"{other}.biattention", f"{other}.biOutput", digit
            )
            found |= feed_forward(
                f"{own}.{stream}_feed_forward",
                f"{other}.{short}_intermediate",
                f"{other}.{short}_output",
            )
    return found


def lxmert(system: Lxmert, prefix: str) -> Sources:
    """Transformers' LxmertModel, whose names are the original's."""
    encoder = f"{prefix}encoder"
    names = [
        ("regions.projection", f"{encoder}.visn_fc.visn_fc"),
        ("regions.projection_norm", f"{encoder}.visn_fc.visn_layer_norm"),
        ("regions.box", f"{encoder}.visn_fc.box_fc"),
        ("regions.box_norm", f"{encoder}.visn_fc.box_layer_norm"),
        ("pooler.linear", f"{prefix}pooler.dense"),
    ]
    found = words(f"{prefix}embeddings") | pairs(names)
    found |= bert_layers("text_layers", f"{encoder}.layer", len(system.text_layers))
    found |= bert_layers("image_layers", f"{encoder}.r_layers", len(system.image_layers))
    for number in range(len(system.cross_layers)):
        own, other = f"cross_layers.{number}", f"{encoder}.x_layers.{number}"
        cross = f"{other}.visual_attention"
        found |= attention(f"{own}.cross", f"{cross}.att", f"{cross}.output")
        for stream, short in (("text", "lang"), ("image", "visn")):
            self_attention = f"{other}.{short}_self_att"
            found |= attention(
                f"{own}.{stream}", f"{self_attention}.self", f"{self_attention}.output"
            )
            found |= feed_forward(
                f"{own}.{stream}_feed_forward", f"{other}.{short}_inter", f"{other}.{short}_output"
            )
    return found


def system_sources(system: System, prefix: str) -> Sources:
    """Sources of every weight of a system that has published checkpoints."""
    if isinstance(system, VisualBert):
        return visual_bert(system, prefix)
    if isinstance(system, Uniter):
        return uniter(system, prefix)
    if isinstance(system, Vilbert):
        return vilbert(system, prefix)
    assert isinstance(system, Lxmert)
    return lxmert(system, prefix)


def mlp(ours: Iterable[str], theirs: str, numbers: Iterable[int]) -> Sources:
    """Sources of layers that were numbered in an ``nn.Sequential``."""
    return pairs([(name, f"{theirs}.{number}") for name, number in zip(ours, numbers)])


def _words_head() -> Sources:
    return transform("transform", "cls.predictions.transform") | {
        "bias": Source(("cls.predictions.bias",))
    }


_ANSWER = ("up", "norm", "out")
_REGION = ("transform.linear", "transform.norm")

HEADS: dict[str, dict[str, Sources]] = {
    "visual_bert": {
        "words": _words_head(),
        "match": pairs([("linear", "cls.seq_relationship")], change=_swapped),
        "answer": pairs([("out", "cls")]),
    },
    "uniter": {
        "words": _words_head(),
        "match": pairs([("linear", "itm_output")]),
        "features": mlp(_REGION, "feat_regress.net", (0, 2))
        | {"bias": Source(("feat_regress.bias",))},
        "classes": mlp((*_REGION, "out"), "region_classifier.net", (0, 2, 3)),
        "answer": mlp(_ANSWER, "vqa_output", (0, 2, 3)),
    },
    "vilbert": {
        "words": _words_head(),
        "match": pairs([("linear", "cls.bi_seq_relationship")], change=_swapped),
        "classes": transform("transform", "cls.imagePredictions.transform")
        | pairs([("out", "cls.imagePredictions.decoder")]),
        "answer": mlp(_ANSWER, "vil_prediction.logit_fc", (0, 2, 3)),
    },
    "lxmert": {
        "words": _words_head(),
        "match": pairs([("linear", "cls.seq_relationship")]),
        "objects": transform("transform", "obj_predict_head.transform")
        | pairs(
            [
                ("objects", "obj_predict_head.decoder_dict.obj"),
                ("attributes", "obj_predict_head.decoder_dict.attr"),
                ("features", "obj_predict_head.decoder_dict.feat"),
            ]
        ),
        "answer": mlp(_ANSWER, "answer_head.logit_fc", (0, 2, 3)),
    },
}
"""Sources of every published head, by system and name."""

TIED: dict[str, tuple[tuple[str, str], ...]] = {
    "visual_bert": (
        ("cls.predictions.decoder.weight", "embeddings.word_embeddings.weight"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ),
    "uniter": (
        ("cls.predictions.decoder.weight", "embeddings.word_embeddings.weight"),
        ("feat_regress.weight", "img_embeddings.img_linear.weight"),
    ),
    "vilbert": (("cls.predictions.decoder.weight", "embeddings.word_embeddings.weight"),),
    "lxmert": (("cls.predictions.decoder.weight", "embeddings.word_embeddings.weight"),),
}
"""Copies that checkpoints may hold of a weight: (copy, original; those of the system come with its prefix)."""


def read_into(module: nn.Module, sources: Sources, weights: Mapping[str, Tensor]) -> list[str]:
    """Fills a module from a checkpoint that holds every key; gives what has another shape."""
    own = module.state_dict()
    assert own.keys() == sources.keys(), own.keys() ^ sources.keys()
    found = {name: source.read(weights) for name, source in sources.items()}
    misshapen = [
        f"{sources[name].keys[0]}: {tuple(found[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if found[name].shape != own[name].shape
    ]
    if not misshapen:
        module.load_state_dict(found)
    return misshapen
