"""The drawing transformer: padding, causality, which head learns from what, the loss by hand."""

from __future__ import annotations

import math

import pytest
import torch
from tests.models.drawing.made import transformer

from plait.core.errors import ModelError
from plait.models.drawing.transformer import DrawingTransformer


def test_each_position_is_padded_with_its_own_token() -> None:
    model = transformer()
    ids = torch.tensor([[7, 3, 9], [4, 9, 9]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    assert model.padded(ids, mask).tolist() == [[7, 3, 9, 23, 24], [4, 21, 22, 23, 24]]


def test_id_zero_is_a_word_and_padding_may_hold_anything() -> None:
    model = transformer()
    mask = torch.tensor([[1, 1, 0]]).bool()
    first = model.padded(torch.tensor([[0, 3, 0]]), mask)
    assert first.tolist() == [[0, 3, 22, 23, 24]]
    assert model.padded(torch.tensor([[0, 3, -100]]), mask).equal(first)


def test_wider_padding_is_the_same_text_and_longer_text_is_refused() -> None:
    model = transformer()
    ids, mask = torch.tensor([[1, 2, 3]]), torch.ones(1, 3).bool()
    wide = torch.nn.functional.pad(ids, (0, 5)), torch.nn.functional.pad(mask, (0, 5), value=False)
    assert model.padded(*wide).equal(model.padded(ids, mask))
    with pytest.raises(ModelError, match="more than 5 tokens"):
        model.padded(torch.ones(1, 6).long(), torch.ones(1, 6).bool())
    with pytest.raises(ModelError, match=r"0 \.\. 19"):
        model.padded(torch.tensor([[20]]), torch.ones(1, 1).bool())


def test_a_token_depends_on_what_is_before_it_alone() -> None:
    model = transformer(kinds=("full", "row", "column"))
    text, codes = torch.randint(25, (2, 5)), torch.randint(16, (2, 16))
    words, cells = model(text, codes)
    changed = text.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 25
    assert model(changed, codes)[0][:, :4].sub(words[:, :4]).abs().max() < 1e-12
    assert model(changed, codes)[0][:, 4].sub(words[:, 4]).abs().max() > 1e-6
    assert model(changed, codes)[1].sub(cells).abs().amax(dim=(0, 2)).min() > 1e-6
    later = codes.clone()
    later[:, 6] = (later[:, 6] + 1) % 16
    assert model(text, later)[1][:, :7].sub(cells[:, :7]).abs().max() < 1e-12
    assert model(text, later)[1][:, 7].sub(cells[:, 7]).abs().max() > 1e-6


def test_loss_by_hand() -> None:
    """With heads of zero all tokens are equally likely: ln 25 for words, ln 16 for codes."""
    model = transformer()
    for head in (model.to_text, model.to_codes):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    text, codes = torch.randint(25, (2, 5)), torch.randint(16, (2, 16))
    model.requires_grad_(False)
    loss = model.loss(text, codes)
    assert float(loss.text) == pytest.approx(math.log(25))
    assert float(loss.image) == pytest.approx(math.log(16))
    assert float(loss.loss) == pytest.approx((math.log(25) + 7 * math.log(16)) / 8)
    assert float(model.loss(text, codes, weight=0.0).loss) == pytest.approx(math.log(25))


def test_loss_token_by_token() -> None:
    """Probabilities of the two heads, gathered one by one."""
    model = transformer()
    text, codes = torch.randint(25, (3, 5)), torch.randint(16, (3, 16))
    words, cells = (logits.softmax(-1) for logits in model(text, codes))
    image = -sum(cells[b, n, codes[b, n]].log() for b in range(3) for n in range(16)) / 48
    word = -sum(words[b, t, text[b, t]].log() for b in range(3) for t in range(5)) / 15
    loss = model.loss(text, codes)
    torch.testing.assert_close(loss.image, image)
    torch.testing.assert_close(loss.text, word)


def test_all_weights_learn_but_those_of_words_that_do_not_occur() -> None:
    model = transformer()
    model.loss(torch.randint(25, (64, 5)), torch.randint(16, (64, 16))).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_it_learns_which_picture_belongs_to_a_text() -> None:
    torch.manual_seed(0)
    model = DrawingTransformer(4, 2, 6, (3, 3), 32, 2, 2, ("row", "column"))
    text = torch.tensor([[0, 1], [2, 3]])
    codes = torch.randint(6, (2, 9))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model.loss(text, codes)
        optimiser.zero_grad()
        loss.loss.backward()
        optimiser.step()
    assert float(loss.image.detach()) < 0.05
    swapped = model.loss(text.flip(0), codes)
    assert float(swapped.image.detach()) > 1.0


def test_dropout_acts_in_training_alone() -> None:
    model = transformer(dropout=0.5)
    text, codes = torch.randint(25, (1, 5)), torch.randint(16, (1, 16))
    assert model(text, codes)[1].equal(model(text, codes)[1])
    model.train()
    assert not model(text, codes)[1].equal(model(text, codes)[1])


def test_spec_rebuilds_it() -> None:
    model = transformer()
    again = DrawingTransformer(**model.spec()).double()
    again.load_state_dict(model.state_dict())
    text, codes = torch.randint(25, (1, 5)), torch.randint(16, (1, 16))
    assert again(text, codes)[1].equal(model(text, codes)[1])
