"""What is particular to each system, against values worked out by hand or by transformers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.models.systems.cases import close, inputs, small

from plait.core.errors import ModelError
from plait.models.systems.base import box_features
from plait.models.systems.bert import attend
from plait.models.systems.heads import PUBLISHED, published_head
from plait.models.systems.registry import SYSTEMS, build_system
from plait.models.systems.uniter import Uniter
from plait.models.systems.vilbert import Vilbert
from plait.models.systems.visual_bert import VisualBert


def test_box_features_by_hand() -> None:
    box = torch.tensor([[[0.1, 0.2, 0.5, 1.0]]], dtype=torch.float64)
    seven = torch.tensor([[[0.1, 0.2, 0.5, 1.0, 0.4, 0.8, 0.32]]], dtype=torch.float64)
    close(box_features(box, 4), box)
    close(box_features(box, 5), seven[..., [0, 1, 2, 3, 6]])
    close(box_features(box, 7), seven)


def test_attention_without_any_key_is_zero_and_has_no_nan_gradient() -> None:
    x = torch.randn(2, 3, 4, requires_grad=True)
    keep = torch.tensor([[True, False, True], [False, False, False]])
    out = attend(x, x, x, keep, heads=2)
    out.sum().backward()
    assert out[1].eq(0).all() and out[0].ne(0).any()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad[1].eq(0).all()


def published(kind: str) -> int:
    """Number of weights at the published sizes, nothing allocated."""
    with torch.device("meta"):
        system = SYSTEMS[kind]()
    return sum(p.numel() for p in system.parameters())


def test_default_sizes_are_the_published_ones() -> None:
    from transformers import (
        BertConfig,
        BertModel,
        LxmertConfig,
        LxmertModel,
        VisualBertConfig,
        VisualBertModel,
    )

    with torch.device("meta"):
        visual_bert = VisualBertModel(VisualBertConfig(visual_embedding_dim=2048))
        lxmert = LxmertModel(LxmertConfig())
        bert = BertModel(BertConfig(vocab_size=28996))
    count = {name: sum(p.numel() for p in model.parameters()) for name, model in
             (("visual_bert", visual_bert), ("lxmert", lxmert), ("bert", bert))}  # fmt: skip
    # 511 rows of the table of visual positions are never used
    assert published("visual_bert") == count["visual_bert"] - 511 * 768
    assert published("lxmert") == count["lxmert"]
    # projection, box, three norms and the vector of hidden regions
    images = 2048 * 768 + 768 + 7 * 768 + 768 + 3 * 2 * 768 + 2048
    assert published("uniter") == count["bert"] + images


def test_vilbert_meets_where_published() -> None:
    with torch.device("meta"):
        system = Vilbert()
    assert system.text_at == (6, 7, 8, 9, 10, 11) and system.image_at == (0, 1, 2, 3, 4, 5)
    assert (system.text_width, system.image_width, system.width) == (768, 1024, 1024)
    assert system.connections[0].image.qkv.weight.shape == (3 * 1024, 1024)
    assert system.connections[0].text.qkv.weight.shape == (3 * 1024, 768)


def test_visual_bert_starts_its_visual_tables_as_copies() -> None:
    system = build_system("visual_bert", vocabulary=9, region_width=4, width=8, heads=2, layers=1)
    assert isinstance(system, VisualBert)
    assert torch.equal(system.visual_types.weight, system.words.types.weight)
    assert torch.equal(system.visual_position, system.words.positions.weight[0])


def test_visual_bert_answers_at_the_last_word_before_sep() -> None:
    system = small("visual_bert")
    ids, text, regions = inputs()
    fused = system(ids, text, regions)
    vector = system.answer_vector(fused)
    for row, length in enumerate(text.sum(dim=1).tolist()):
        assert torch.equal(vector[row], fused.parts["text"].tokens[row, length - 2])


def test_alignment_adds_the_mean_of_the_words_positions() -> None:
    """The projection is made to give that mean for one feature: adding it there is the same."""
    system = small("visual_bert")
    assert isinstance(system, VisualBert)
    ids, text, regions = inputs()
    alignment = torch.full((3, 4, 3), -1)
    alignment[0, 0, :2] = torch.tensor([1, 3])
    places = system.words.positions.weight
    with torch.no_grad():
        system.region_projection.weight[:, 0] = (places[1] + places[3]) / 2
    aligned = system(ids, text, regions, image_text_alignment=alignment).pooled
    tokens = regions.tokens.clone()
    tokens[0, 0, 0] += 1
    close(aligned, system(ids, text, replace(regions, tokens=tokens)).pooled)
    plain = system(ids, text, regions).pooled
    assert (aligned - plain)[0].abs().max() > 1e-6
    close(aligned[1:], plain[1:])


def test_uniter_puts_a_learned_vector_where_a_region_is_hidden() -> None:
    system = small("uniter")
    assert isinstance(system, Uniter)
    ids, text, regions = inputs()
    hidden = torch.zeros_like(regions.mask)
    hidden[0, 0] = True
    tokens = regions.tokens.clone()
    tokens[0, 0] = system.regions.mask.detach()
    masked = system(ids, text, regions, masked_regions=hidden)
    close(masked.pooled, system(ids, text, replace(regions, tokens=tokens)).pooled)


def test_vilbert_sees_the_whole_picture_as_the_mean_of_shown_regions() -> None:
    """With the mean given as region 0, a model that makes none gives the same."""
    system = small("vilbert")
    twin = small("vilbert", global_region=False)
    twin.load_state_dict(system.state_dict())
    ids, text, regions = inputs()
    assert regions.boxes is not None
    hidden = torch.zeros_like(regions.mask)
    hidden[0, 0] = regions.mask[0, 1:].any()
    tokens, boxes = torch.zeros(3, 5, 5, dtype=torch.float64), torch.zeros(3, 5, 4).double()
    mask = torch.cat([regions.mask.any(dim=1, keepdim=True), regions.mask], dim=1)
    for row in range(3):
        shown = [m for m in range(4) if regions.mask[row, m] and not hidden[row, m]]
        if shown:
            tokens[row, 0] = sum(regions.tokens[row, m] for m in shown) / len(shown)
    boxes[:, 0] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    tokens[:, 1:] = regions.tokens * (~hidden)[..., None]
    boxes[:, 1:] = regions.boxes
    given = replace(regions, tokens=tokens, boxes=boxes, mask=mask)
    fused, other = system(ids, text, regions, masked_regions=hidden), twin(ids, text, given)
    close(fused.pooled, other.pooled)
    close(fused.parts["image"].tokens, other.parts["image"].tokens[:, 1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "product"}, "'mul' or 'sum', not 'product'"),
        ({"text_at": [2, 1], "image_at": [0, 1]}, "text_at must be rising numbers from 0 to 2"),
        ({"text_at": [1], "image_at": [2]}, "image_at must be rising numbers from 0 to 1"),
        ({"text_at": [1], "image_at": [0, 1]}, "text_at names 1 layers and image_at 2"),
        ({"image": {"wide": 3}}, "image of ViLBERT has no 'wide'"),
    ],
)
def test_vilbert_refuses_what_does_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        small("vilbert", **options)


def test_visual_bert_has_two_types() -> None:
    with pytest.raises(ModelError, match="visual_type must be 0 or 1, not 2"):
        small("visual_bert", visual_type=2)


@pytest.mark.parametrize("kind", SYSTEMS)
def test_published_heads_fit_their_system(kind: str) -> None:
    system = small(kind)
    fused = system(*inputs())
    words, image = fused.parts["text"].tokens, fused.parts["image"].tokens
    sizes = {
        "words": (3, 6, 23), "match": (3, 2), "features": (3, 4, 5), "classes": (3, 4, 8),
        "answer": (3, 6),
    }  # fmt: skip
    for name in PUBLISHED[kind]:
        head = published_head(name, system, classes=7, attributes=2, answers=6).double()
        if name == "words":
            out = head(words, system.word_table)
        elif name == "features":
            out = head(image, system.region_matrix)  # type: ignore[union-attr]
        elif name == "objects":
            objects, attributes, features = head(image)
            assert objects.shape == (3, 4, 7) and attributes.shape == (3, 4, 2)
            assert features.shape == (3, 4, 5)
            continue
        elif name == "classes":
            out = head(image)
        else:
            out = head(system.answer_vector(fused) if name == "answer" else fused.pooled)
        assert out.shape == sizes[name]


def test_a_head_that_a_system_never_had_is_refused() -> None:
    with pytest.raises(ModelError, match="visual_bert has no head 'features'"):
        published_head("features", small("visual_bert"))
