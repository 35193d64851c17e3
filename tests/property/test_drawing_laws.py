"""Laws of drawing: caches, batches and padding never change a picture, token for token."""

from __future__ import annotations

from functools import cache

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.drawing.made import TEXTS, drawing, transformer

from plait.models.drawing.attention import KINDS
from plait.models.drawing.drawing import DrawingModel
from plait.models.drawing.sampling import sample_codes, uniforms_for
from plait.models.drawing.transformer import DrawingTransformer

FEW = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**20)
settings_of_sampling = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.5, 1.0, 2.0]),
        "top_k": st.sampled_from([None, 1, 3, 16]),
        "guidance": st.sampled_from([0.0, 1.0, 2.5]),
    }
)


@cache
def _transformer(kinds: tuple[str, ...]) -> DrawingTransformer:
    return transformer(kinds=kinds)


@cache
def _drawing() -> DrawingModel:
    return drawing()


@FEW
@given(
    seed=seeds,
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
    given_cells=st.integers(0, 15),
    options=settings_of_sampling,
)
def test_with_a_cache_as_without_and_alone_as_in_a_batch(
    seed: int, kinds: list[str], given_cells: int, options: dict[str, float]
) -> None:
    model = _transformer(tuple(kinds))
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(20, (3, 5), generator=generator)
    uniforms = uniforms_for(3, model.cells, generator)
    prime = torch.randint(16, (3, given_cells), generator=generator)

    def sampled(rows: slice, cache: bool) -> torch.Tensor:
        return sample_codes(
            model, text[rows], uniforms[rows], prime=prime[rows], cache=cache, **options
        )  # type: ignore[arg-type]

    whole = sampled(slice(0, 3), True)
    assert whole.equal(sampled(slice(0, 3), False))
    assert whole.equal(torch.cat([sampled(slice(i, i + 1), True) for i in range(3)]))
    assert whole[:, :given_cells].equal(prime)


@FEW
@given(seed=seeds, kind=st.sampled_from(KINDS))
def test_a_drawn_code_is_what_the_whole_sequence_would_choose(seed: int, kind: str) -> None:
    """Teacher forcing: the most probable code of every cell of a greedy picture is that cell's."""
    model = _transformer((kind,))
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(20, (2, 5), generator=generator)
    codes = sample_codes(model, text, uniforms_for(2, model.cells, generator), temperature=0.0)
    with torch.no_grad():
        assert model(text, codes)[1].argmax(-1).equal(codes)


@FEW
@given(
    seed=seeds,
    texts=st.lists(st.sampled_from([*TEXTS, ""]), min_size=1, max_size=4),
    n=st.integers(1, 3),
    batch_size=st.integers(1, 7),
    options=settings_of_sampling,
)
def test_texts_one_after_the_other_as_together(
    seed: int, texts: list[str], n: int, batch_size: int, options: dict[str, float]
) -> None:
    model = _drawing()
    together = model.draw(
        texts, n, generator=torch.Generator().manual_seed(seed), batch_size=batch_size, **options
    )  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    single = [model.draw([text], n, generator=generator, **options) for text in texts]  # type: ignore[arg-type]
    assert together.equal(torch.cat(single))


@FEW
@given(seed=seeds, extra=st.integers(0, 3))
def test_padding_never_changes_the_loss(seed: int, extra: int) -> None:
    model = _drawing()
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(model.transformer.vocabulary, (2, 3), generator=generator)
    mask = torch.rand(2, 3, generator=generator) < 0.6
    codes = torch.randint(16, (2, 4, 4), generator=generator)
    wide = torch.nn.functional.pad(ids, (0, extra), value=3)
    wide_mask = torch.nn.functional.pad(mask, (0, extra), value=False)
    assert model.loss(ids, mask, codes).loss.equal(model.loss(wide, wide_mask, codes).loss)
