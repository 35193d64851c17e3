"""The Q-Former: who sees whom, its words, its weights."""

from __future__ import annotations

import math

import pytest
import torch
from tests.bridges.made import TOKEN_WIDTH, WIDTH, bridge, encoded, rows_of, weighed
from transformers import BertConfig, BertModel

from plait.bridges.qformer import QFormerBridge, joint_mask
from plait.bridges.qformer_heads import QFormerHeads
from plait.bridges.qformer_weights import load_bert, load_published
from plait.core.errors import ModelError

torch.set_num_threads(1)

IDS = torch.tensor([[2, 5, 7, 3], [2, 6, 3, 0], [2, 8, 9, 3]])
MASK = IDS != 0


def reading(seed: int = 0) -> QFormerBridge:
    built = bridge("qformer", seed, vocabulary=12, max_length=6)
    assert isinstance(built, QFormerBridge)
    return built


def pictures(seed: int = 1):  # type: ignore[no-untyped-def]
    return rows_of(encoded(seed), torch.tensor([0, 2, 3]))


def test_masks_by_hand() -> None:
    """Two queries, three words of which the last is padding."""
    mask = torch.tensor([[True, True, False]])
    match = [[1, 1, 1, 1, 0]] * 5
    write = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0]]
    assert joint_mask(mask, 2, causal=False).int().tolist() == [match]
    assert joint_mask(mask, 2, causal=True).int().tolist() == [write]


def test_writing_queries_are_those_that_never_saw_a_word() -> None:
    built, media = reading(), pictures()
    queries, words = built.read_and_look(media, IDS, MASK, causal=True)
    torch.testing.assert_close(queries, built.look(media), rtol=0, atol=1e-12)
    changed = IDS.clone()
    changed[:, 2] = 10
    _, later = built.read_and_look(media, changed, MASK, causal=True)
    torch.testing.assert_close(later[:, :2], words[:, :2], rtol=0, atol=1e-12)
    assert (later[:, 2] - words[:, 2]).abs().amax(dim=-1).min() > 1e-3
    _, elsewhere = built.read_and_look(pictures(2), IDS, MASK, causal=True)
    assert (elsewhere - words).abs().amax(dim=-1)[MASK].min() > 1e-6


def test_matching_lets_all_see_all() -> None:
    built, media = reading(), pictures()
    queries, words = built.read_and_look(media, IDS, MASK, causal=False)
    assert (queries - built.look(media)).abs().amax(dim=-1).min() > 1e-6
    changed = IDS.clone()
    changed[:, 2] = 10
    others, later = built.read_and_look(media, changed, MASK, causal=False)
    assert (others - queries).abs().amax(dim=-1).min() > 1e-6
    assert (later - words).abs().amax(dim=-1)[MASK].min() > 1e-6


def test_words_alone_see_no_picture_and_padding_changes_nothing() -> None:
    built, media = reading(), pictures()
    words = built.read(IDS, MASK)
    assert not words[~MASK].any()
    longer = torch.nn.functional.pad(IDS, (0, 2), value=4)
    mask = torch.nn.functional.pad(MASK, (0, 2))
    torch.testing.assert_close(built.read(longer, mask)[:, :4], words, rtol=0, atol=1e-12)
    for causal in (True, False):
        plain = built.read_and_look(media, IDS, MASK, causal=causal)
        padded = built.read_and_look(media, longer, mask, causal=causal)
        torch.testing.assert_close(padded[0], plain[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(padded[1][:, :4], plain[1], rtol=0, atol=1e-12)
    assert torch.isfinite(built.read(IDS, torch.zeros_like(MASK))).all()


def test_every_parameter_gets_a_gradient_from_the_three_passes() -> None:
    built, media = reading(), pictures()
    total = weighed(built(media)[0]) + weighed(built.read(IDS, MASK))
    for causal in (True, False):
        for part in built.read_and_look(media, IDS, MASK, causal=causal):
            total = total + weighed(part)
    total.backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert built.words is not None and built.words.weight.grad is not None
    assert not built.words.weight.grad[0].any()


def test_without_text_it_is_the_same_bridge() -> None:
    built = reading()
    plain = built.without_text()
    assert plain.spec()["vocabulary"] == 0 and not plain.training
    assert torch.equal(plain(pictures())[0], built(pictures())[0])
    with pytest.raises(ModelError, match="has no words: build it with the vocabulary"):
        plain.read(IDS, MASK)


def test_its_start() -> None:
    torch.manual_seed(0)
    built = QFormerBridge(64, 64, inner=64, heads=4, layers=3, vocabulary=500)
    assert [layer.cross is not None for layer in built.layers] == [True, False, True]
    assert built.queries.shape == (32, 64) and built.queries.std().item() == pytest.approx(
        0.02, rel=0.1
    )
    for layer in built.layers:
        both = zip(layer.query_feed_forward.parameters(), layer.text_feed_forward.parameters())
        assert all(torch.equal(one, two) for one, two in both)
    assert not built.words.weight[0].any()
    deeper = QFormerBridge(8, 8, inner=8, heads=2, layers=5, every=3)
    assert [layer.cross is not None for layer in deeper.layers] == [1, 0, 0, 1, 0]


def test_starting_from_bert() -> None:
    """Without cross-attention and with types of zero, words alone go through BERT itself."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=12,
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=6,
    )
    bert = BertModel(config, add_pooling_layer=False).double().eval()
    with torch.no_grad():
        bert.embeddings.token_type_embeddings.weight.zero_()
    built = reading()
    weights = {f"bert.{name}": tensor for name, tensor in bert.state_dict().items()}
    left = load_bert(built, weights, prefix="bert.")
    assert {name.split(".")[0] for name in left} == {"queries", "layers", "project"}
    assert all("cross" in name for name in left if name.startswith("layers"))
    theirs = bert(input_ids=IDS, attention_mask=MASK.long()).last_hidden_state
    torch.testing.assert_close(built.read(IDS, MASK)[MASK], theirs[MASK], rtol=0, atol=1e-10)
    up = built.layers[1].query_feed_forward.up.weight
    assert torch.equal(up, weights["bert.encoder.layer.1.intermediate.dense.weight"])


def test_messages() -> None:
    built = reading()
    with pytest.raises(ModelError, match="positions for 6 words and got 7"):
        built.read(torch.ones(1, 7).long(), torch.ones(1, 7) > 0)
    with pytest.raises(ModelError, match=r"no BERT of 3 layers: 'embeddings.LayerNorm.weight' is"):
        load_bert(built, {})
    with pytest.raises(ModelError, match="no Q-Former of 3 layers that reads words"):
        load_published(built, {})
    with pytest.raises(ModelError, match=r"queries is \(3, 8\) here and \(4, 8\) in"):
        load_published(built, {"query_tokens": torch.zeros(1, 4, 8)})
    with pytest.raises(ModelError, match="width 8 is not a multiple of 3 heads"):
        QFormerBridge(TOKEN_WIDTH, WIDTH, inner=8, heads=3)
    with pytest.raises(ModelError, match="queries, layers, heads, every and max_length must"):
        QFormerBridge(TOKEN_WIDTH, WIDTH, queries=0)
    with pytest.raises(ModelError, match="temperature must be above 0"):
        QFormerHeads(8, 12, temperature=0.0)


def test_heads() -> None:
    torch.manual_seed(0)
    heads = QFormerHeads(8, 12, width=5).double()
    assert heads.temperature.item() == pytest.approx(0.07, abs=1e-8)
    queries, words = torch.randn(2, 3, 8).double(), torch.randn(2, 4, 8).double()
    images, text = heads.image_embeddings(queries), heads.text_embedding(words)
    assert images.shape == (2, 3, 5) and text.shape == (2, 5)
    torch.testing.assert_close(images.norm(dim=-1), torch.ones(2, 3).double())
    other = words.clone()
    other[:, 1:] = 0
    assert torch.equal(heads.text_embedding(other), text)
    assert heads.match_logits(queries).shape == (2, 3, 2)
    table = torch.randn(12, 8).double()
    state = words[0, 0] @ heads.transform.weight.T + heads.transform.bias
    state = torch.tensor([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in state.tolist()])
    state = (state - state.mean()) / (state.var(unbiased=False) + 1e-12).sqrt()
    logits = heads.word_logits(words, table)
    torch.testing.assert_close(logits[0, 0], table @ state.double(), rtol=0, atol=1e-5)
    assert QFormerHeads(**heads.spec()).spec() == heads.spec()
