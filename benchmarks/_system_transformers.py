"""VisualBERT and LXMERT next to those of transformers."""

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
    in_float64,
    random_inputs,
    randomise,
    recorded,
    side_of,
    sizes_of,
)
from torch import Tensor

from plait.core.batch import Fused
from plait.objectives.masked.lxmert import region_feature_loss, region_label_loss
from plait.objectives.masked.masked import mlm_loss
from plait.objectives.matching.matching import itm_loss
from plait.objectives.vqa import vqa_ce, vqa_kl

WORDS, REGION_WIDTH, ANSWERS, OBJECTS, ATTRIBUTES = 23, 5, 6, 7, 4


def visual_bert_case(seed: int) -> dict[str, float]:
    """VisualBertForPreTraining and, with weights of its own, VisualBertForQuestionAnswering."""
    differences = {}
    for name, heads in (
        ("VisualBertForPreTraining", {"words": {}, "match": {}}),
        ("VisualBertForQuestionAnswering", {"answer": {"answers": ANSWERS}}),
    ):
        for compared, value in _visual_bert(name, heads, seed).items():
            differences[f"{name} {compared}"] = value
    return differences


def _visual_bert(name: str, heads: dict[str, dict[str, int]], seed: int) -> dict[str, float]:
    draw = random.Random(seed)
    sizes, layers = sizes_of(draw), draw.randint(1, 3)
    pad, kind, with_alignment = draw.choice([0, 1]), draw.choice([0, 1]), draw.random() < 0.5
    reference = _visual_bert_reference(name, sizes, layers, pad)
    randomise(reference, seed)
    options: dict[str, Any] = {
        "vocabulary": WORDS, "region_width": REGION_WIDTH, "layers": layers, "max_length": 9,
        "visual_type": kind, "pad_id": pad, **sizes,
    }  # fmt: skip
    side = side_of("visual_bert", reference, "visual_bert.", heads, options)
    states = recorded(side.system.layers)
    inputs = random_inputs(seed, WORDS, REGION_WIDTH)
    rows, regions = inputs.seen.shape
    alignment = inputs.choice(inputs.ids.shape[1] + 1, (rows, regions, 2)) - 1
    given = {"image_text_alignment": alignment} if with_alignment else {}
    labels, match = inputs.masked_labels(WORDS), inputs.choice(2, (rows,))
    answers = torch.rand(rows, ANSWERS, generator=inputs.generator, dtype=torch.float64).softmax(-1)
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
    found = _states("state", states, theirs.hidden_states[1:], keep)
    if "words" in heads:
        words = side.heads["words"](fused.parts["text"].tokens, side.system.word_table)
        matched = side.heads["match"](fused.pooled)
        other = theirs.prediction_logits[:, : inputs.ids.shape[1]]
        found["word logits"] = gap(words, other, inputs.text)
        found["match logits"] = gap(matched, theirs.seq_relationship_logits.flip(1))
        # The reference counts the other way round: 0 are pairs that belong together.
        loss = mlm_loss(words, labels) + itm_loss(matched, match == 0)
    else:
        logits = side.heads["answer"](side.system.answer_vector(fused))
        found["answer logits"] = gap(logits.log_softmax(-1), theirs.logits)
        loss = vqa_kl(logits, answers)
    finish(found, side, loss, theirs.loss, our_features, theirs_features)
    return found


def _visual_bert_reference(name: str, sizes: Mapping[str, int], layers: int, pad: int) -> Any:
    import transformers

    config = transformers.VisualBertConfig(
        vocab_size=WORDS, hidden_size=sizes["width"], num_attention_heads=sizes["heads"],
        intermediate_size=sizes["hidden"], num_hidden_layers=layers, max_position_embeddings=9,
        visual_embedding_dim=REGION_WIDTH, pad_token_id=pad, num_labels=ANSWERS,
    )  # fmt: skip
    return getattr(transformers, name)(config).double().eval()


def _states(name: str, ours: list[Tensor], theirs: Any, mask: Tensor) -> dict[str, float]:
    assert len(ours) == len(theirs) > 0
    pairs = enumerate(zip(ours, theirs))
    return {f"{name} {number}": gap(own, other, mask) for number, (own, other) in pairs}


def lxmert_case(seed: int) -> dict[str, float]:
    """LxmertForPreTraining: all its heads and losses."""
    side = _lxmert(seed)
    inputs = random_inputs(seed, WORDS, REGION_WIDTH)
    targets = _lxmert_targets(inputs)
    theirs_features, our_features = (inputs.features.clone().requires_grad_() for _ in "ab")
    objects = {key: (targets[key], targets["sure"]) for key in ("obj", "attr", "feat")}
    with in_float64():
        theirs = side.reference(
            input_ids=inputs.ids, attention_mask=inputs.text.long(), visual_feats=theirs_features,
            visual_pos=inputs.boxes, visual_attention_mask=inputs.seen.long(),
            labels=targets["labels"], matched_label=targets["match"], ans=targets["answer"],
            obj_labels=objects, output_hidden_states=True,
        )  # fmt: skip
    system: Any = side.system
    text, image, both = (
        recorded(layers)
        for layers in (system.text_layers, system.image_layers, system.cross_layers)
    )
    fused = system(inputs.ids, inputs.text, inputs.regions(our_features))
    text, image = text + [out[0] for out in both], image + [out[1] for out in both]
    found = _states("text state", text, theirs.language_hidden_states, inputs.text)
    found |= _states("image state", image, theirs.vision_hidden_states, inputs.seen)
    ours = _lxmert_heads(side, fused)
    reference: Any = side.reference
    others = reference.obj_predict_head(theirs.vision_hidden_states[-1]) | {
        "words": theirs.prediction_logits,
        "match": theirs.cross_relationship_score,
        "answer": theirs.question_answering_score,
    }
    masks = {"words": inputs.text} | dict.fromkeys(("obj", "attr", "feat"), inputs.seen)
    assert ours.keys() == others.keys()
    found |= {f"{name} logits": gap(ours[name], others[name], masks.get(name)) for name in ours}
    loss = _lxmert_loss(ours, targets)
    finish(found, side, loss, theirs.loss, our_features, theirs_features)
    return found


def _lxmert(seed: int) -> Side:
    from transformers import LxmertConfig, LxmertForPreTraining

    draw = random.Random(seed)
    sizes = sizes_of(draw)
    text, image, cross = draw.randint(1, 3), draw.randint(1, 2), draw.randint(1, 2)
    config = LxmertConfig(
        vocab_size=WORDS, hidden_size=sizes["width"], num_attention_heads=sizes["heads"],
        intermediate_size=sizes["hidden"], max_position_embeddings=9, visual_feat_dim=REGION_WIDTH,
        l_layers=text, r_layers=image, x_layers=cross, num_qa_labels=ANSWERS,
        num_object_labels=OBJECTS, num_attr_labels=ATTRIBUTES,
    )  # fmt: skip
    reference = LxmertForPreTraining(config).double().eval()
    randomise(reference, seed)
    heads = {
        "words": {},
        "match": {},
        "objects": {"classes": OBJECTS, "attributes": ATTRIBUTES},
        "answer": {"answers": ANSWERS},
    }
    options = {
        "vocabulary": WORDS, "region_width": REGION_WIDTH, "max_length": 9,
        "text_layers": text, "image_layers": image, "cross_layers": cross, **sizes,
    }  # fmt: skip
    return side_of("lxmert", reference, "lxmert.", heads, options)


def _lxmert_targets(inputs: Inputs) -> dict[str, Tensor]:
    """Labels, and for each region how sure the detector was (never of padding)."""
    shape = tuple(inputs.seen.shape)
    sure = torch.rand(shape, generator=inputs.generator, dtype=torch.float64)
    features = torch.randn(inputs.features.shape, generator=inputs.generator, dtype=torch.float64)
    return {
        "labels": inputs.masked_labels(WORDS),
        "match": inputs.choice(2, shape[:1]),
        "answer": inputs.choice(ANSWERS, shape[:1]),
        "obj": inputs.choice(OBJECTS, shape),
        "attr": inputs.choice(ATTRIBUTES, shape),
        "feat": features,
        "sure": sure * inputs.seen,
    }


def _lxmert_heads(side: Side, fused: Fused) -> dict[str, Tensor]:
    objects, attributes, features = side.heads["objects"](fused.parts["image"].tokens)
    return {
        "obj": objects,
        "attr": attributes,
        "feat": features,
        "words": side.heads["words"](fused.parts["text"].tokens, side.system.word_table),
        "match": side.heads["match"](fused.pooled),
        "answer": side.heads["answer"](fused.pooled),
    }


def _lxmert_loss(out: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """MLM + match + answer + 6.67 (objects + attributes + features), as LXMERT weights them."""
    sure = targets["sure"]
    regions = region_feature_loss(out["feat"], targets["feat"], sure)
    for name in ("obj", "attr"):
        regions = regions + region_label_loss(out[name], targets[name], sure)
    words, matched = mlm_loss(out["words"], targets["labels"]), targets["match"] == 1
    others = itm_loss(out["match"], matched) + vqa_ce(out["answer"], targets["answer"])
    return words + others + 6.67 * regions
