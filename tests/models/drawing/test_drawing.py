"""Drawing: training, priming, guidance, what is refused, saving and loading."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import pytest
import torch
from tests.models.drawing.made import TEXTS, drawing, transformer

from plait.core.batch import Batch, ModalityInput
from plait.core.errors import ModelError
from plait.models.drawing import sampling
from plait.models.drawing.drawing import DrawingModel, disturbed, without_text
from plait.models.store.drawing import load_drawing, load_dvae, save_drawing, save_dvae


def batch_of(model: DrawingModel) -> Batch:
    ids, mask = map(torch.from_numpy, model.preprocess(TEXTS))
    pixels = torch.randint(256, (len(TEXTS), 3, 16, 16), dtype=torch.uint8)
    return Batch(
        TEXTS,
        torch.arange(len(TEXTS)),
        {"text": ModalityInput.of(mask=mask, ids=ids), "image": ModalityInput.of(pixels=pixels)},
    )


def drawn(model: DrawingModel, seed: int = 0, **options: object) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return model.draw(TEXTS, 2, generator=generator, **options)  # type: ignore[arg-type]


def test_training_moves_the_transformer_and_leaves_the_vae() -> None:
    model = drawing().train()
    model.training_loss(batch_of(model)).loss.backward()
    assert all(p.grad is None for p in model.dvae.parameters())
    assert all(p.grad is not None for p in model.transformer.parameters())


def test_known_codes_give_the_loss_of_the_pictures() -> None:
    model = drawing()
    batch = batch_of(model)
    text = batch.modalities["text"]
    assert text.mask is not None
    codes = model.dvae.codes(batch.modalities["image"].tensors["pixels"])
    again = model.loss(text.tensors["ids"], text.mask, codes)
    assert again.loss.equal(model.training_loss(batch).loss)


def test_dropped_texts_are_empty_texts() -> None:
    model = drawing()
    batch = batch_of(model)
    text = batch.modalities["text"]
    assert text.mask is not None
    empty = ModalityInput(text.tensors, text.present, torch.zeros_like(text.mask))
    nothing = Batch(batch.ids, batch.groups, {**batch.modalities, "text": empty})
    dropped = model.training_loss(batch, drop_text=1.0)
    assert dropped.loss.equal(model.training_loss(nothing).loss)
    mask = torch.ones(4000, 3, dtype=torch.bool)
    kept = without_text(mask, 0.3, torch.Generator().manual_seed(0))
    assert (kept.all(dim=1) | ~kept.any(dim=1)).all()
    assert float(kept[:, 0].double().mean()) == pytest.approx(0.7, abs=0.03)


def test_disturbed_codes_are_those_of_other_pictures_there() -> None:
    """What is learned stays right; nothing changes without, and all but fixed points with 1."""
    codes = torch.arange(400)[:, None] + 1000 * torch.arange(30)[None]
    read = disturbed(codes, 0.3, torch.Generator().manual_seed(0))
    assert (read // 1000 == codes // 1000).all()  # place by place
    assert float((read != codes).double().mean()) == pytest.approx(0.3, abs=0.02)
    model = drawing()
    batch = batch_of(model)
    text = batch.modalities["text"]
    assert text.mask is not None
    shape = model.dvae.codes(batch.modalities["image"].tensors["pixels"]).shape
    grid = torch.randint(model.dvae.code_count, shape, generator=torch.Generator().manual_seed(2))
    plain = model.loss(text.tensors["ids"], text.mask, grid)
    generator = torch.Generator().manual_seed(1)
    wrong = model.loss(text.tensors["ids"], text.mask, grid, generator=generator, disturb=0.99)
    assert wrong.text.equal(plain.text) and not wrong.image.equal(plain.image)
    generator.manual_seed(1)
    given = disturbed(grid.flatten(1), 0.99, generator)
    rows = model.transformer.padded(text.tensors["ids"], text.mask)
    _, logits = model.transformer(rows, given)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), grid.flatten())
    torch.testing.assert_close(wrong.image, expected)


def test_pictures_have_the_size_and_type_of_the_vae() -> None:
    model = drawing()
    model.train()
    pictures = drawn(model)
    assert pictures.shape == (4, 2, 3, 16, 16) and pictures.dtype == torch.uint8
    assert model.training and model.transformer.training
    assert not pictures[:, 0].equal(pictures[:, 1])


def test_temperature_zero_and_top_1_are_the_most_probable_codes() -> None:
    model = drawing()
    best = drawn(model, temperature=0.0)
    assert best[:, 0].equal(best[:, 1])
    assert drawn(model, seed=5, top_k=1).equal(best)


def test_first_rows_are_kept() -> None:
    model = drawing()
    prime = torch.randint(256, (3, 16, 16), dtype=torch.uint8)
    codes = model.dvae.codes(prime[None])
    with mock.patch.object(type(model.dvae), "decode", lambda self, codes: seen(codes)):
        found: list[torch.Tensor] = []

        def seen(codes: torch.Tensor) -> torch.Tensor:
            found.append(codes)
            return torch.zeros(len(codes), 3, 16, 16, dtype=torch.uint8)

        drawn(model, prime=prime)
        drawn(model, prime=prime, prime_rows=3)
        drawn(model, prime=prime, prime_rows=0)
        drawn(model)
    for rows, given in zip((2, 3), found, strict=False):
        assert given[:, :rows].equal(codes[:, :rows].expand(8, -1, -1))
    assert not found[0][:, 2:].equal(found[0][:1, 2:].expand(8, -1, -1))
    assert found[2].equal(found[3])


def test_guidance_one_costs_nothing_and_keeps_the_cache() -> None:
    model = drawing()
    rows: list[tuple[int, int]] = []
    hidden = type(model.transformer).hidden

    def counted(self, x, cache=None):  # type: ignore[no-untyped-def]
        rows.append((x.shape[0], x.shape[1]))
        return hidden(self, x, cache)

    with mock.patch.object(type(model.transformer), "hidden", counted):
        drawn(model)
        assert rows == [(8, 6)] + [(8, 1)] * 15
        rows.clear()
        drawn(model, guidance=2.0)
        assert rows == [(16, 6)] + [(16, 1)] * 15


def test_guidance_acts_on_every_cell() -> None:
    """Scale 0 draws as without a text, and a large one is no longer the plain picture."""
    model = drawing()
    nothing = model.transformer.padded(torch.zeros(1, 1).long(), torch.zeros(1, 1).bool())
    uniforms = sampling.uniforms_for(8, 16, torch.Generator().manual_seed(0))
    plain = sampling.sample_codes(model.transformer, nothing.expand(8, -1), uniforms)
    text = model.transformer.padded(*map(torch.from_numpy, model.preprocess(TEXTS)))
    text = text.repeat_interleave(2, dim=0)
    none = sampling.sample_codes(model.transformer, text, uniforms, guidance=0.0)
    assert none.equal(plain)
    assert not sampling.sample_codes(model.transformer, text, uniforms, guidance=3.0).equal(
        sampling.sample_codes(model.transformer, text, uniforms)
    )


def test_guided_logits_by_hand() -> None:
    wanted, empty = torch.tensor([[1.0, 4.0]]), torch.tensor([[2.0, 1.0]])
    assert sampling.guided(wanted, empty, 3.0).tolist() == [[-1.0, 10.0]]
    assert sampling.guided(wanted, empty, 1.0).equal(wanted)


def test_filtered_keeps_the_largest_and_their_equals() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0, 2.0]])
    inf = float("inf")
    assert sampling.filtered(logits, 1).tolist() == [[3.0, -inf, -inf, -inf]]
    assert sampling.filtered(logits, 2).tolist() == [[3.0, -inf, 2.0, 2.0]]
    assert sampling.filtered(logits, None) is sampling.filtered(logits, 9) is logits


def test_codes_are_chosen_with_their_probabilities() -> None:
    p = torch.tensor([0.5, 0.0, 0.3, 0.2, 0.0])
    edges = torch.tensor([0.0, 0.49, 0.51, 0.79, 0.81, 1.0 - 2**-53, 1.0]).double()
    rows = p.log().double().expand(7, -1)
    assert sampling.chosen(rows, edges, 1.0).tolist() == [0, 0, 2, 2, 3, 3, 3]
    squared = sampling.chosen(rows, torch.full((7,), 0.66).double(), 0.5)
    assert squared.tolist() == [2] * 7  # 0.25 : 0.09 : 0.04, so 0.658 of it is the first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "0 or more"),
        ({"top_k": 0}, "at least 1"),
        ({"prime_rows": 2}, "needs prime"),
        ({"prime": torch.zeros(3, 16, 16, dtype=torch.uint8), "prime_rows": 4}, r"0 \.\. 3"),
        ({"prime": torch.zeros(3, 8, 8, dtype=torch.uint8)}, r"not \(3, 8, 8\)"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        drawn(drawing(), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": (2, 2)}, "the grid of codes is"),
        ({"codes": 8}, "the number of codes is 16"),
        ({"vocabulary": 3}, "the tokenizer has"),
        ({"text_length": 4}, "max_length"),
    ],
)
def test_parts_must_fit(options: dict[str, object], message: str) -> None:
    whole = drawing()
    sizes = {"vocabulary": whole.preprocess.vocabulary, **options}
    with pytest.raises(ModelError, match=message):
        DrawingModel(whole.dvae, transformer(**sizes), whole.preprocess)


def test_saved_and_loaded_it_draws_the_same(tmp_path: Path) -> None:
    model = drawing().float()
    save_drawing(model, tmp_path / "model")
    again = load_drawing(tmp_path / "model")
    assert not again.training
    assert drawn(again).equal(drawn(model))
    save_dvae(model.dvae, tmp_path / "dvae")
    codes = torch.randint(16, (1, 4, 4))
    assert load_dvae(tmp_path / "dvae").decode(codes).equal(model.dvae.decode(codes))


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model\.json"):
        load_drawing(tmp_path)
    save_drawing(drawing(), tmp_path)
    with pytest.raises(ModelError, match="'drawing', not 'dvae'"):
        load_dvae(tmp_path)
    path = tmp_path / "model.json"
    spec = json.loads(path.read_text())
    path.write_text(json.dumps({**spec, "version": 9}))
    with pytest.raises(ModelError, match="version 9"):
        load_drawing(tmp_path)
    path.write_text(json.dumps({**spec, "dvae": {**spec["dvae"], "colour": 1}}))
    with pytest.raises(ModelError, match="colour"):
        load_drawing(tmp_path)
    del spec["transformer"]
    path.write_text(json.dumps(spec))
    with pytest.raises(ModelError, match="lacks 'transformer'"):
        load_drawing(tmp_path)
    path.write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        load_drawing(tmp_path)
