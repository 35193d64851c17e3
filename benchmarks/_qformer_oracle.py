"""The Q-Former next to transformers' BLIP-2 for retrieval, with its weights read by plait's loader."""

from __future__ import annotations

import random
from typing import Any

import torch
from benchmarks._system_tools import gap, randomise
from torch import Tensor, nn
from transformers import Blip2Config, Blip2ForImageTextRetrieval

from plait.bridges.qformer import QFormerBridge, joint_mask
from plait.bridges.qformer_heads import QFormerHeads
from plait.bridges.qformer_weights import HEADS, load_heads, load_published, published_names
from plait.core.batch import Encoded
from plait.objectives.matching.qformer import query_similarity


def reference(draw: random.Random) -> Any:
    """A tiny BLIP-2 for retrieval, and the matrix to a language model that it lacks."""
    heads = draw.choice([1, 2, 3])
    width = heads * draw.choice([4, 6])
    vision = {"hidden_size": 6, "intermediate_size": 5, "num_hidden_layers": 1}
    config = Blip2Config(
        vision_config={**vision, "num_attention_heads": 2, "image_size": 8, "patch_size": 4},
        qformer_config={
            "vocab_size": 15,
            "hidden_size": width,
            "num_hidden_layers": draw.randint(1, 4),
            "num_attention_heads": heads,
            "intermediate_size": draw.randint(4, 12),
            "max_position_embeddings": 9,
            "cross_attention_frequency": draw.choice([1, 2, 3]),
            "encoder_hidden_size": 6,
            "use_qformer_text_input": True,
        },
        num_query_tokens=draw.randint(1, 4),
        image_text_hidden_size=draw.randint(2, 6),
    )
    model = Blip2ForImageTextRetrieval(config).double().eval()
    model.language_projection = nn.Linear(width, 7)
    return model


def twins(theirs: Any) -> tuple[QFormerBridge, QFormerHeads]:
    """Plait's Q-Former and heads with its weights."""
    config = theirs.config.qformer_config
    ours = QFormerBridge(
        6,
        7,
        queries=theirs.config.num_query_tokens,
        inner=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        hidden=config.intermediate_size,
        every=config.cross_attention_frequency,
        vocabulary=15,
        max_length=9,
    )
    heads = QFormerHeads(config.hidden_size, 15, width=theirs.config.image_text_hidden_size)
    weights = theirs.state_dict()
    assert load_published(ours.double().eval(), weights) == []
    written = {"log_temperature", "bias", "transform", "norm"}
    assert {name.split(".")[0] for name in load_heads(heads.double(), weights)} == written
    return ours, heads


def their_pass(theirs: Any, media: Tensor, seen: Tensor, ids: Tensor, mask: Any) -> Tensor:
    """Queries and words together, under a mask of words (B, L) or of pairs (B, 1, L, L).

    Pictures' padding is masked in the form that is passed on as it is: from (B, M) the reference
    makes a mask for queries and words, where the queries alone look at pictures, and fails.
    """
    queries = theirs.query_tokens.expand(len(media), -1, -1)
    embedded = theirs.embeddings(input_ids=ids, query_embeds=queries)
    out: Tensor = theirs.qformer(
        query_embeds=embedded,
        query_length=queries.shape[1],
        attention_mask=mask,
        encoder_hidden_states=media,
        encoder_attention_mask=seen[:, None, None],
    ).last_hidden_state
    return out


def qformer_case(seed: int) -> dict[str, float]:
    """All four ways of reading, the heads, and the gradients of their sum."""
    draw = random.Random(seed)
    theirs = reference(draw)
    randomise(theirs, seed)
    ours, heads = twins(theirs)
    rows, words, count = draw.randint(2, 4), draw.randint(2, 7), theirs.config.num_query_tokens
    lengths = torch.tensor([draw.randint(1, words) for _ in range(rows)])
    mask = torch.arange(words)[None] < lengths[:, None]
    ids = torch.randint(1, 15, (rows, words)).masked_fill(~mask, 0)
    media = torch.randn(rows, draw.randint(2, 6), 6).requires_grad_()
    twin = media.detach().clone().requires_grad_()
    seen = torch.rand(media.shape[:2]) < 0.6
    seen[:, 0] = True
    given = Encoded(media, seen, media.mean(dim=1))

    real = torch.cat([torch.ones(rows, count, dtype=torch.bool), mask], dim=1)
    alone = theirs.qformer(
        query_embeds=theirs.query_tokens.expand(rows, -1, -1),
        encoder_hidden_states=twin,
        encoder_attention_mask=seen[:, None, None],
    ).last_hidden_state
    read = theirs.qformer(
        query_embeds=theirs.embeddings(input_ids=ids),
        query_length=0,
        attention_mask=mask.long(),
    ).last_hidden_state
    causal = joint_mask(mask, count, causal=True)[:, None]
    pairs = {
        "bridge": (ours(given)[0], theirs.language_projection(alone)),
        "words alone": (ours.read(ids, mask), read.masked_fill(~mask[..., None], 0.0)),
    }
    for name, is_causal, how in (("match", False, real.long()), ("write", True, causal)):
        mine = torch.cat(ours.read_and_look(given, ids, mask, causal=is_causal), dim=1)
        other = their_pass(theirs, twin, seen, ids, how).masked_fill(~real[..., None], 0.0)
        pairs[name] = (mine, other)
    pairs |= logits(ours, heads, theirs, ids, mask)
    found = {name: gap(mine, other) for name, (mine, other) in pairs.items()}
    for side in (0, 1):
        torch.manual_seed(seed)
        sum((pair[side] * torch.randn_like(pair[side])).sum() for pair in pairs.values()).backward()
    assert media.grad is not None and twin.grad is not None
    found["gradients of tokens"] = gap(media.grad, twin.grad)
    found["gradients"] = gradients(ours, heads, theirs)
    return found


def logits(
    ours: QFormerBridge, heads: QFormerHeads, theirs: Any, ids: Tensor, mask: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Contrast and match of the whole reference, from pixels on."""
    pixels = torch.randn(len(ids), 3, 8, 8)
    tokens = theirs.vision_model(pixel_values=pixels)[0]
    given = Encoded(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), tokens.mean(dim=1))
    asked = {"pixel_values": pixels, "input_ids": ids, "attention_mask": mask.long()}
    contrast = theirs(**asked).logits_per_image
    match = theirs(**asked, use_image_text_matching_head=True).logits_per_image
    images = heads.image_embeddings(ours.look(given))
    texts = heads.text_embedding(ours.read(ids, mask))
    queries, _ = ours.read_and_look(given, ids, mask, causal=False)
    return {
        "contrast": (query_similarity(images, texts), contrast),
        "match logits": (heads.match_logits(queries).mean(dim=1), match),
    }


def gradients(ours: QFormerBridge, heads: QFormerHeads, theirs: Any) -> float:
    others = dict(theirs.named_parameters())
    worst = gap(ours.queries.grad, others["query_tokens"].grad[0])
    for module, names in ((ours, published_names(ours)), (heads, HEADS)):
        own = dict(module.named_parameters())
        for mine, other in names.items():
            one, two = own[mine].grad, others[other].grad
            assert one is not None and two is not None, mine
            worst = max(worst, gap(one, two))
    return worst
