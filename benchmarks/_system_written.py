"""UNITER and ViLBERT next to references that are written out for the comparison."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import torch
from benchmarks._system_tools import (
    Inputs,
    Side,
    finish,
    gap,
    random_inputs,
    randomise,
    side_of,
    sizes_of,
)
from torch import Tensor

from plait.core.batch import Fused
from plait.objectives.masked.masked import mlm_loss, mrc_kl_loss, mrfr_loss
from plait.objectives.matching.matching import itm_loss
from plait.objectives.matching.transport import word_region_alignment


def _loss(out: Mapping[str, Tensor], inputs: Inputs, targets: Mapping[str, Tensor]) -> Tensor:
    """Plait's MLM + matching + region classes (KL), and for UNITER region features + alignment."""
    hidden, matched = inputs.hidden, targets["match"] == 1
    loss = mlm_loss(out["word logits"], targets["labels"]) + itm_loss(out["match logits"], matched)
    loss = loss + mrc_kl_loss(out["class logits"], targets["classes"], hidden)
    if "regressed features" in out:
        loss = loss + mrfr_loss(out["regressed features"], targets["features"], hidden)
        streams = out["words"], out["image"], inputs.text, inputs.seen
        loss = loss + word_region_alignment(*streams, matched)
    return loss


def _compared(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], inputs: Inputs
) -> dict[str, float]:
    masks = {
        "words": inputs.text, "word logits": inputs.text, "image": inputs.seen,
        "class logits": inputs.seen, "regressed features": inputs.seen,
    }  # fmt: skip
    assert ours.keys() == theirs.keys()
    return {name: gap(ours[name], theirs[name], masks.get(name)) for name in ours}


def _outputs(side: Side, fused: Fused) -> dict[str, Tensor]:
    words, image = fused.parts["text"].tokens, fused.parts["image"].tokens
    out = {
        "words": words,
        "image": image,
        "pooled": fused.pooled,
        "word logits": side.heads["words"](words, side.system.word_table),
        "match logits": side.heads["match"](fused.pooled),
        "class logits": side.heads["classes"](image),
    }
    if "features" in side.heads:
        matrix: Any = side.system.region_matrix  # type: ignore[union-attr]
        out["regressed features"] = side.heads["features"](image, matrix)
    return out


def _targets(inputs: Inputs, vocabulary: int, classes: int) -> dict[str, Tensor]:
    shape, generator = inputs.features.shape, inputs.generator
    draw = torch.randn(*shape[:2], classes, generator=generator, dtype=torch.float64)
    return {
        "labels": inputs.masked_labels(vocabulary),
        "match": inputs.choice(2, (shape[0],)),
        "classes": draw.softmax(-1),
        "features": torch.randn(shape, generator=generator, dtype=torch.float64),
    }


def uniter_case(seed: int) -> dict[str, float]:
    """BERT's layers of transformers fed with UNITER's embeddings, and UNITER's heads."""
    from benchmarks._system_references import ReferenceUniter, bert_config, reference_loss

    draw = random.Random(seed)
    sizes, layers, vocabulary, region_width = sizes_of(draw), draw.randint(1, 3), 23, 5
    config = bert_config(
        vocab_size=vocabulary, hidden_size=sizes["width"], num_attention_heads=sizes["heads"],
        intermediate_size=sizes["hidden"], num_hidden_layers=layers, max_position_embeddings=9,
    )  # fmt: skip
    reference = ReferenceUniter(config, region_width, 7).double().eval()
    randomise(reference, seed)
    options = {
        "vocabulary": vocabulary, "region_width": region_width, "layers": layers, "max_length": 9,
        **sizes,
    }  # fmt: skip
    heads = {"words": {}, "match": {}, "classes": {"classes": 6}, "features": {}}
    side = side_of("uniter", reference, "uniter.", heads, options)
    inputs = random_inputs(seed, vocabulary, region_width)
    targets = _targets(inputs, vocabulary, 7)
    theirs_features, our_features = (inputs.features.clone().requires_grad_() for _ in "ab")
    theirs = reference(
        inputs.ids, inputs.text, theirs_features, inputs.boxes, inputs.seen, inputs.hidden
    )
    fused = side.system(
        inputs.ids, inputs.text, inputs.regions(our_features), masked_regions=inputs.hidden
    )
    ours = _outputs(side, fused)
    found = _compared(ours, theirs, inputs)
    losses = _loss(ours, inputs, targets), reference_loss(theirs, inputs, targets)
    finish(found, side, *losses, our_features, theirs_features)
    return found


def _vilbert(seed: int, meetings: list[tuple[int, int]] | None) -> dict[str, float]:
    from benchmarks._system_references import ReferenceVilbert, bert_config, reference_loss

    draw = random.Random(seed)
    sizes, vocabulary, region_width = sizes_of(draw), 23, 5
    image = {"layers": draw.randint(1, 3), **sizes_of(draw)}
    layers, product = draw.randint(image["layers"], 4), draw.random() < 0.5
    joint = {"heads": draw.choice([1, 2]), "width": draw.choice([4, 8])}
    if meetings is None:
        count = draw.randint(1, image["layers"])
        meetings = list(
            zip(
                sorted(draw.sample(range(layers), count)),
                sorted(draw.sample(range(image["layers"]), count)),
            )
        )

    def config(size: Mapping[str, int], count: int) -> Any:
        return bert_config(
            vocab_size=vocabulary, hidden_size=size["width"], num_attention_heads=size["heads"],
            intermediate_size=size["hidden"], num_hidden_layers=count, max_position_embeddings=9,
        )  # fmt: skip

    reference = ReferenceVilbert(
        config(sizes, layers), config(image, image["layers"]), region_width=region_width, classes=7,
        inner=joint["width"], heads=joint["heads"], meetings=meetings, product=product,
    )  # fmt: skip
    reference = reference.double().eval()
    randomise(reference, seed)
    options = {
        "vocabulary": vocabulary, "region_width": region_width, "layers": layers, "max_length": 9,
        "image": image, "joint": joint, "text_at": [t for t, _ in meetings],
        "image_at": [v for _, v in meetings], "fusion": "mul" if product else "sum", **sizes,
    }  # fmt: skip
    heads = {"words": {}, "match": {}, "classes": {"classes": 6}}
    side = side_of("vilbert", reference, "bert.", heads, options)
    inputs = random_inputs(seed, vocabulary, region_width)
    targets = _targets(inputs, vocabulary, 7)
    theirs_features, our_features = (inputs.features.clone().requires_grad_() for _ in "ab")
    shown = theirs_features * (~inputs.hidden & inputs.seen)[..., None]
    count = (~inputs.hidden & inputs.seen).sum(1).clamp(min=1)[:, None, None]
    whole = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]], dtype=torch.float64).repeat(len(shown), 1, 1)
    theirs = reference(
        inputs.ids,
        inputs.text,
        torch.cat([shown.sum(1, keepdim=True) / count, shown], dim=1),
        torch.cat([whole, inputs.boxes], dim=1),
        torch.cat([torch.ones(len(shown), 1, dtype=torch.bool), inputs.seen], dim=1),
    )
    theirs = theirs | {
        "image": theirs["image"][:, 1:],
        "class logits": theirs["class logits"][:, 1:],
        "match logits": theirs["match logits"].flip(1),
    }
    fused = side.system(
        inputs.ids, inputs.text, inputs.regions(our_features), masked_regions=inputs.hidden
    )
    ours = _outputs(side, fused)
    found = _compared(ours, theirs, inputs)
    losses = _loss(ours, inputs, targets), reference_loss(theirs, inputs, targets)
    finish(found, side, *losses, our_features, theirs_features)
    return found


def vilbert_case(seed: int) -> dict[str, float]:
    """ViLBERT with co-attention written in einsums, at random layers."""
    return _vilbert(seed, None)


def two_berts_case(seed: int) -> dict[str, float]:
    """ViLBERT without co-attention against two stacks of BERT's layers of transformers."""
    return _vilbert(seed, [])
