"""Random small vision-language systems next to independent implementations, in float64.

Each case draws a configuration, weights, inputs and masks from a seed, and gives the largest
difference by what was compared: hidden states and logits at real positions, losses, and the
gradients of the loss for every parameter (carried over by the tables that read checkpoints) and for
the regions' features. The losses are written out here, from the logits.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import torch
from benchmarks._system_tools import (
    Inputs,
    Side,
    gap,
    in_float64,
    random_inputs,
    randomise,
    recorded,
    side_of,
    sizes_of,
)
from torch import Tensor
from torch.nn import functional as F

from plait.core.batch import Fused

SEEDS = range(20)


def words_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def visual_bert_case(seed: int) -> dict[str, float]:
    """VisualBertForPreTraining and, with weights of its own, VisualBertForQuestionAnswering."""
    from transformers import VisualBertConfig, VisualBertForPreTraining
    from transformers import VisualBertForQuestionAnswering as ForAnswers

    draw = random.Random(seed)
    sizes, layers, vocabulary, region_width = sizes_of(draw), draw.randint(1, 3), 23, 5
    pad = draw.choice([0, 1])
    config = VisualBertConfig(
        vocab_size=vocabulary, hidden_size=sizes["width"], num_attention_heads=sizes["heads"],
        intermediate_size=sizes["hidden"], num_hidden_layers=layers, max_position_embeddings=9,
        visual_embedding_dim=region_width, pad_token_id=pad, num_labels=6,
    )  # fmt: skip
    kind = draw.choice([0, 1])
    options: dict[str, Any] = {
        "vocabulary": vocabulary, "region_width": region_width, "layers": layers, "max_length": 9,
        "visual_type": kind, "pad_id": pad, **sizes,
    }  # fmt: skip
    inputs = random_inputs(seed, vocabulary, region_width)
    rows, regions = inputs.seen.shape
    alignment = inputs.choice(inputs.ids.shape[1] + 1, (rows, regions, 2)) - 1
    given = {"image_text_alignment": alignment} if draw.random() < 0.5 else {}
    labels = inputs.masked_labels(vocabulary)
    match = inputs.choice(2, (rows,))
    answers = torch.rand(rows, 6, generator=inputs.generator, dtype=torch.float64).softmax(-1)
    differences: dict[str, float] = {}

    def run(cls: Any, heads: dict[str, dict[str, int]]) -> None:
        reference = cls(config).double().eval()
        randomise(reference, seed)
        side = side_of("visual_bert", reference, "visual_bert.", heads, options)
        states = recorded(side.system.layers)
        theirs_features, our_features = (inputs.features.clone().requires_grad_() for _ in "ab")
        extra: dict[str, Any] = {"labels": answers}
        if "words" in heads:
            nothing = torch.full((rows, regions), -100)
            extra = {"labels": torch.cat([labels, nothing], 1), "sentence_image_labels": match}
        theirs = reference(
            input_ids=inputs.ids, attention_mask=inputs.text.long(), visual_embeds=theirs_features,
            visual_attention_mask=inputs.seen.long(), output_hidden_states=True,
            visual_token_type_ids=torch.full((rows, regions), kind), **given, **extra,
        )  # fmt: skip
        fused = side.system(inputs.ids, inputs.text, inputs.regions(our_features), **given)
        keep = torch.cat([inputs.text, inputs.seen], dim=1)
        found = {
            f"state {number}": gap(own, other, keep)
            for number, (own, other) in enumerate(zip(states, theirs.hidden_states[1:]))
        }
        assert len(found) == layers
        if "words" in heads:
            words = side.heads["words"](fused.parts["text"].tokens, side.system.word_table)
            matched = side.heads["match"](fused.pooled)
            other = theirs.prediction_logits[:, : inputs.ids.shape[1]]
            found["word logits"] = gap(words, other, inputs.text)
            found["match logits"] = gap(matched, theirs.seq_relationship_logits.flip(1))
            loss = words_loss(words, labels) + F.cross_entropy(matched, 1 - match)
        else:
            logits = side.heads["answer"](side.system.answer_vector(fused)).log_softmax(-1)
            found["answer logits"] = gap(logits, theirs.logits)
            loss = F.kl_div(logits, answers, reduction="batchmean")
        _finish(found, side, loss, theirs.loss, our_features, theirs_features)
        for name, value in found.items():
            differences[f"{cls.__name__} {name}"] = value

    run(VisualBertForPreTraining, {"words": {}, "match": {}})
    run(ForAnswers, {"answer": {"answers": 6}})
    return differences


def _finish(
    found: dict[str, float],
    side: Side,
    loss: Tensor,
    their_loss: Tensor,
    features: Tensor,
    their_features: Tensor,
) -> None:
    loss.backward()
    their_loss.backward()
    found["loss"] = gap(loss, their_loss)
    found["gradients"] = side.gradients()
    assert features.grad is not None and their_features.grad is not None
    found["gradients of regions"] = gap(features.grad, their_features.grad)


def lxmert_case(seed: int) -> dict[str, float]:
    """LxmertForPreTraining: all its heads and losses."""
    from transformers import LxmertConfig, LxmertForPreTraining

    draw = random.Random(seed)
    sizes, vocabulary, region_width = sizes_of(draw), 23, 5
    text, image, cross = draw.randint(1, 3), draw.randint(1, 2), draw.randint(1, 2)
    config = LxmertConfig(
        vocab_size=vocabulary, hidden_size=sizes["width"], num_attention_heads=sizes["heads"],
        intermediate_size=sizes["hidden"], max_position_embeddings=9, visual_feat_dim=region_width,
        l_layers=text, r_layers=image, x_layers=cross, num_qa_labels=6, num_object_labels=7,
        num_attr_labels=4,
    )  # fmt: skip
    reference = LxmertForPreTraining(config).double().eval()
    randomise(reference, seed)
    heads = {
        "words": {},
        "match": {},
        "objects": {"classes": 7, "attributes": 4},
        "answer": {"answers": 6},
    }
    options = {
        "vocabulary": vocabulary, "region_width": region_width, "max_length": 9,
        "text_layers": text, "image_layers": image, "cross_layers": cross, **sizes,
    }  # fmt: skip
    side = side_of("lxmert", reference, "lxmert.", heads, options)
    inputs = random_inputs(seed, vocabulary, region_width)
    rows, regions = inputs.seen.shape
    labels, match = inputs.masked_labels(vocabulary), inputs.choice(2, (rows,))
    answer = inputs.choice(6, (rows,))
    objects, attributes = inputs.choice(7, (rows, regions)), inputs.choice(4, (rows, regions))
    target = torch.randn(
        rows, regions, region_width, generator=inputs.generator, dtype=torch.float64
    )
    sure = torch.rand(rows, regions, generator=inputs.generator, dtype=torch.float64) * inputs.seen
    theirs_features, our_features = (inputs.features.clone().requires_grad_() for _ in "ab")
    with in_float64():
        theirs = reference(
            input_ids=inputs.ids, attention_mask=inputs.text.long(), visual_feats=theirs_features,
            visual_pos=inputs.boxes, visual_attention_mask=inputs.seen.long(), labels=labels,
            matched_label=match, ans=answer, output_hidden_states=True,
            obj_labels={"obj": (objects, sure), "attr": (attributes, sure), "feat": (target, sure)},
        )  # fmt: skip
    alone, seen, both = (
        recorded(layers)
        for layers in (
            side.system.text_layers, side.system.image_layers, side.system.cross_layers
        )
    )  # fmt: skip
    fused = side.system(inputs.ids, inputs.text, inputs.regions(our_features))
    words, found_images = [*alone, *(out[0] for out in both)], [*seen, *(out[1] for out in both)]
    assert len(words) == len(theirs.language_hidden_states)
    assert len(found_images) == len(theirs.vision_hidden_states)
    found = {}
    for number, (own, other) in enumerate(zip(words, theirs.language_hidden_states)):
        found[f"text state {number}"] = gap(own, other, inputs.text)
    for number, (own, other) in enumerate(zip(found_images, theirs.vision_hidden_states)):
        found[f"image state {number}"] = gap(own, other, inputs.seen)
    tokens = fused.parts["text"].tokens
    word_logits = side.heads["words"](tokens, side.system.word_table)
    matched, answered = side.heads["match"](fused.pooled), side.heads["answer"](fused.pooled)
    found["word logits"] = gap(word_logits, theirs.prediction_logits, inputs.text)
    found["match logits"] = gap(matched, theirs.cross_relationship_score)
    found["answer logits"] = gap(answered, theirs.question_answering_score)
    image = fused.parts["image"].tokens
    their_heads = reference.obj_predict_head(theirs.vision_hidden_states[-1])
    our_heads = side.heads["objects"](image)
    for own, (name, other) in zip(our_heads, their_heads.items()):
        found[f"{name} logits"] = gap(own, other, inputs.seen)
    object_loss = F.cross_entropy(our_heads[0].flatten(0, 1), objects.flatten(), reduction="none")
    attribute_loss = F.cross_entropy(
        our_heads[1].flatten(0, 1), attributes.flatten(), reduction="none"
    )
    feature_loss = F.smooth_l1_loss(our_heads[2], target, reduction="none").mean(-1).flatten()
    regions_loss = ((object_loss + attribute_loss + feature_loss) * sure.flatten()).mean()
    loss = words_loss(word_logits, labels) + F.cross_entropy(matched, match)
    loss = loss + F.cross_entropy(answered, answer) + 6.67 * regions_loss
    _finish(found, side, loss, theirs.loss, our_features, theirs_features)
    return found


def _losses(out: Mapping[str, Tensor], inputs: Inputs, targets: Mapping[str, Tensor]) -> Tensor:
    """MLM + matching + region classes (KL) + region features (squared error), at hidden regions."""
    loss = words_loss(out["word logits"], targets["labels"])
    loss = loss + F.cross_entropy(out["match logits"], targets["match"])
    logits = out["class logits"][inputs.hidden].log_softmax(-1)
    loss = loss + F.kl_div(logits, targets["classes"][inputs.hidden], reduction="sum")
    if "regressed features" in out:
        error = out["regressed features"] - targets["features"]
        loss = loss + error[inputs.hidden].square().sum()
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
    from benchmarks._system_references import ReferenceUniter, bert_config

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
    losses = [_losses(out, inputs, targets) for out in (ours, theirs)]
    _finish(found, side, *losses, our_features, theirs_features)
    return found


def _vilbert(seed: int, meetings: list[tuple[int, int]] | None) -> dict[str, float]:
    from benchmarks._system_references import ReferenceVilbert, bert_config

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
    losses = [_losses(out, inputs, targets) for out in (ours, theirs)]
    _finish(found, side, *losses, our_features, theirs_features)
    return found


def vilbert_case(seed: int) -> dict[str, float]:
    """ViLBERT with co-attention written in einsums, at random layers."""
    return _vilbert(seed, None)


def two_berts_case(seed: int) -> dict[str, float]:
    """ViLBERT without co-attention against two stacks of BERT's layers of transformers."""
    return _vilbert(seed, [])


CASES: dict[str, Callable[[int], dict[str, float]]] = {
    "visual_bert": visual_bert_case,
    "lxmert": lxmert_case,
    "uniter": uniter_case,
    "vilbert": vilbert_case,
    "two_berts": two_berts_case,
}
