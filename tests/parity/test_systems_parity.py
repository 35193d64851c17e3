"""VisualBERT, LXMERT, UNITER and ViLBERT against independent implementations, in float64.

Four of the twenty random configurations each; `python benchmarks/parity.py` runs all.
"""

from __future__ import annotations

import pytest
import torch
from benchmarks._system_oracles import CASES, uniter_case
from benchmarks._system_references import crossed

from plait.models.systems import bert, streams
from plait.models.systems.bert import attend

LIMIT = 1e-9


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", CASES)
def test_values_losses_and_gradients(name: str, seed: int) -> None:
    found = CASES[name](seed)
    assert max(found.values()) <= LIMIT, found


def test_visual_bert_and_lxmert_compare_every_state_head_and_loss() -> None:
    """Nothing of what is promised is left out of the comparison."""
    visual_bert = {name.split(" ", 1)[1] for name in CASES["visual_bert"](0)}
    wanted = {"word logits", "match logits", "answer logits", "loss", "gradients"}
    assert wanted | {"gradients of regions", "state 0"} <= visual_bert
    lxmert = CASES["lxmert"](0)
    wanted = (wanted - {"word logits"}) | {
        "words logits",
        "obj logits",
        "attr logits",
        "feat logits",
    }
    wanted |= {"text state 0", "image state 0"}
    assert wanted <= set(lxmert)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_against_einsums(heads: int) -> None:
    generator = torch.Generator().manual_seed(heads)
    query, key, value = (
        torch.randn(3, n, 8, generator=generator, dtype=torch.float64) for n in (5, 4, 4)
    )
    keep = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1], [0, 1, 0, 0]]).bool()
    ours, theirs = attend(query, key, value, keep, heads), crossed(query, key, value, keep, heads)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_the_comparison_sees_a_wrong_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_relu(self, x):  # type: ignore[no-untyped-def]
        return self.norm(self.down(self.up(x).relu()) + x)

    monkeypatch.setattr(bert.FeedForward, "forward", with_relu)
    assert CASES["visual_bert"](0)["VisualBertForPreTraining state 0"] > 1e-4


def test_the_comparison_sees_streams_that_are_updated_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cross-attention on one stream after the other was updated, instead of on both inputs."""

    def in_turn(self, words, text_keep, found, image_keep):  # type: ignore[no-untyped-def]
        query, _, _ = self.cross.project(words)
        _, key, value = self.cross.project(found)
        words = self.cross.close(self.cross.mix(query, key, value, image_keep), words)
        query, _, _ = self.cross.project(found)
        _, key, value = self.cross.project(words)
        found = self.cross.close(self.cross.mix(query, key, value, text_keep), found)
        words, found = self.text(words, text_keep), self.image(found, image_keep)
        return self.text_feed_forward(words), self.image_feed_forward(found)

    monkeypatch.setattr(streams.SharedCrossLayer, "forward", in_turn)
    found = CASES["lxmert"](1)
    assert max(value for name, value in found.items() if name.startswith("image state")) > 1e-4


def test_the_comparison_sees_a_hidden_region_without_its_vector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from plait.models.systems.uniter import RegionEmbeddings

    plain = RegionEmbeddings.forward
    monkeypatch.setattr(
        RegionEmbeddings,
        "forward",
        lambda self, inputs, kind, hidden: plain(self, inputs, kind, None),
    )
    assert uniter_case(0)["image"] > 1e-4
