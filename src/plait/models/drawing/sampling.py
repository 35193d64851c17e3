"""Writing the codes of pictures, one cell after the other.

Every picture has random numbers of its own, one for each cell. So it is the same picture with a
cache and without, alone and in a batch.

Shape legend: B pictures, T text positions, N cells, P cells that are given, K codes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from plait.core.errors import ModelError
from plait.models.drawing.transformer import Cache, DrawingTransformer


def filtered(logits: Float[Tensor, "B K"], top_k: int | None) -> Float[Tensor, "B K"]:
    """Minus infinity for all but the ``top_k`` largest (more, where the last are equal)."""
    if top_k is None or top_k >= logits.shape[1]:
        return logits
    least = logits.topk(top_k, dim=1).values[:, -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def guided(
    wanted: Float[Tensor, "B K"], empty: Float[Tensor, "B K"], scale: float
) -> Float[Tensor, "B K"]:
    """Away from what is drawn without a text: ``empty + scale (wanted - empty)``.

    Source: Ho and Salimans 2022 (Classifier-Free Diffusion Guidance), for logits.
    """
    return empty + scale * (wanted - empty)


def chosen(
    logits: Float[Tensor, "B K"], uniform: Float[Tensor, " B"], temperature: float
) -> Int64[Tensor, " B"]:
    """A code for each row: where the cumulated probabilities pass ``uniform``, in 0..1.

    Temperature 0 takes the most probable code.
    """
    if temperature == 0:
        return logits.argmax(dim=1)
    p = (logits.double() / temperature).softmax(dim=1)
    below = p.cumsum(dim=1)
    index = torch.searchsorted(below, (uniform.double() * below[:, -1]).unsqueeze(1), right=True)
    # Rounding may pass the end, where codes have probability 0.
    last = p.shape[1] - 1 - (p > 0).flip(1).int().argmax(dim=1, keepdim=True)
    return torch.minimum(index, last).squeeze(1)


@torch.no_grad()
def sample_codes(
    model: DrawingTransformer,
    text: Int64[Tensor, "B T"],
    uniforms: Float[Tensor, "B N"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    guidance: float = 1.0,
    prime: Int64[Tensor, "B P"] | None = None,
    cache: bool = True,
) -> Int64[Tensor, "B N"]:
    """The codes of one picture for each text, in raster order.

    Args:
        model: in evaluation mode, unless dropout is wanted.
        text: from `DrawingTransformer.padded`.
        uniforms: random numbers in 0..1 of each picture.
        temperature: 0 for the most probable code, 1 for the model's own probabilities.
        top_k: only so many codes are eligible.
        guidance: 1 draws as trained and costs nothing; more follows the text more closely, and
            needs a model that was trained with some texts left out.
        prime: codes of the first cells, which are kept.
        cache: keep keys and values instead of computing them anew for each cell.

    Raises:
        ModelError: a setting out of range.
    """
    _check(temperature, top_k)
    given = text.new_empty(len(text), 0) if prime is None else prime
    if given.shape[1] > model.cells:
        raise ModelError(f"{given.shape[1]} cells are given of {model.cells}")
    codes = given
    twice = guidance != 1
    if twice:
        nothing = torch.zeros_like(text, dtype=torch.bool)
        text = torch.cat([text, model.padded(torch.zeros_like(text), nothing)])
    kept = model.new_cache() if cache else None
    for cell in range(given.shape[1], model.cells):
        logits = _next_logits(model, text, torch.cat([codes, codes]) if twice else codes, kept)
        if twice:
            wanted, empty = logits.chunk(2)
            logits = guided(wanted, empty, guidance)
        chosen_now = chosen(filtered(logits, top_k), uniforms[:, cell], temperature)
        codes = torch.cat([codes, chosen_now[:, None]], dim=1)
    return codes


def _next_logits(
    model: DrawingTransformer, text: Tensor, codes: Tensor, cache: Cache | None
) -> Tensor:
    """(B, K) of the cell behind ``codes``."""
    if cache is None or cache.length == 0:
        x = torch.cat([model.embed_text(text), model.embed_codes(codes)], dim=1)
    else:
        known = cache.length - model.text_length - 1
        x = model.embed_codes(codes[:, known:], known)
    logits: Tensor = model.to_codes(model.hidden(x, cache)[:, -1])
    return logits


def _check(temperature: float, top_k: int | None) -> None:
    if not temperature >= 0:
        raise ModelError(f"the temperature must be 0 or more, not {temperature}")
    if top_k is not None and top_k < 1:
        raise ModelError(f"top_k must be at least 1, not {top_k}")


def uniforms_for(
    pictures: int, cells: int, generator: torch.Generator | None
) -> Float[Tensor, "B N"]:
    """Random numbers by picture: the next picture's follow, whatever the number drawn at once."""
    return torch.rand(pictures, cells, generator=generator, dtype=torch.float64)
