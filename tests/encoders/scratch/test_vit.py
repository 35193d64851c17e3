"""The vision transformer of plait's blocks, against the same mathematics written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from plait.core.batch import ModalityInput
from plait.core.errors import DataError, ModelError
from plait.encoders.registry import build_encoder
from plait.encoders.scratch.vit import VitEncoder

SIZES = {"image_size": 12, "patch_size": 4, "width": 6, "layers": 2, "heads": 2}


def encoder(**changes: int) -> VitEncoder:
    torch.manual_seed(0)
    built = build_encoder("scratch/vit", modality="image", **{**SIZES, **changes}).double()
    assert isinstance(built, VitEncoder)
    with torch.no_grad():
        for parameter in built.parameters():  # biases start at zero, which would hide mistakes
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def written_out(w: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """Tokens, by sums over named indices: no module and no attention kernel."""
    x = (pixels.double() / 255 - 0.5) / 0.5
    cells = x.reshape(len(x), 3, 3, 4, 3, 4)  # sample, channel, row, pixel, column, pixel
    x = torch.einsum("bcripj,dcij->brpd", cells, w["patch.weight"])
    x = (x + w["patch.bias"]).reshape(len(pixels), 9, 6) + w["position"]
    for k in range(2):
        b = {n.removeprefix(f"blocks.{k}."): v for n, v in w.items() if f"blocks.{k}." in n}
        y = norm(x, b["norm1.weight"], b["norm1.bias"])
        y = y @ b["attention.qkv.weight"].T + b["attention.qkv.bias"]
        q, key, v = (part.reshape(-1, 9, 2, 3) for part in y.split(6, dim=-1))
        weights = (torch.einsum("bnhd,bmhd->bhnm", q, key) / 3**0.5).softmax(-1)
        mixed = torch.einsum("bhnm,bmhd->bnhd", weights, v).reshape(-1, 9, 6)
        x = x + mixed @ b["attention.out.weight"].T + b["attention.out.bias"]
        y = norm(x, b["norm2.weight"], b["norm2.bias"])
        y = y @ b["mlp.up.weight"].T + b["mlp.up.bias"]
        y = y * 0.5 * (1 + torch.erf(y / 2**0.5))
        x = x + y @ b["mlp.down.weight"].T + b["mlp.down.bias"]
    return norm(x, w["norm.weight"], w["norm.bias"])


def test_tokens_and_their_mean_are_those_of_the_formulae() -> None:
    model = encoder()
    pixels = torch.randint(0, 256, (2, 3, 12, 12), dtype=torch.uint8)
    with torch.no_grad():
        out = model(ModalityInput.of(pixels=pixels))
        wanted = written_out(dict(model.named_parameters()), pixels)
    torch.testing.assert_close(out.tokens, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(out.pooled, wanted.mean(dim=1), rtol=0, atol=1e-12)


def test_a_token_lies_where_its_patch_is() -> None:
    """Changing the pixels of one box changes the patch embedding of that token alone."""
    model = encoder(layers=0)
    pixels = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    before = model(ModalityInput.of(pixels=pixels))
    x1, y1, x2, y2 = (round(float(side) * 12) for side in before.boxes[0, 5])
    pixels[:, :, y1:y2, x1:x2] = 255
    after = model(ModalityInput.of(pixels=pixels))
    changed = (before.tokens != after.tokens).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == [5]


def test_sizes_that_do_not_fit_are_told() -> None:
    with pytest.raises(ModelError, match="12 x 12 pixels cannot be cut into patches of 5 x 5"):
        encoder(patch_size=5)
    with pytest.raises(ModelError, match="width 6 is not a multiple of 4 heads"):
        encoder(heads=4)
    with pytest.raises(DataError, match="takes 12 x 12 pixels, not 12 x 16"):
        encoder()(ModalityInput.of(pixels=torch.zeros(1, 3, 12, 16, dtype=torch.uint8)))
