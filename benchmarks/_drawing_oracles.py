"""Discrete VAE and drawing transformer next to OpenAI's `dall_e` and `dalle_pytorch`, in float64.

Each case draws a configuration, weights and inputs from a seed and gives the largest difference by
what was compared. `dalle_pytorch` imports much that isn't compared (downloads of checkpoints,
tokenizers): those modules are stood in for while it is imported.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from benchmarks._system_tools import gap, in_float64, randomise
from torch import Tensor, nn
from torch.nn import functional as F

from plait.models.drawing.dvae import DiscreteVAE
from plait.models.drawing.transformer import DrawingTransformer

SEEDS = {"openai": range(4), "strided": range(20), "dalle": range(20)}
"""OpenAI's nets come no smaller than 64 channels and are slow."""
_ABSENT = {
    "requests": {},
    "pkg_resources": {"get_distribution": None},
    "omegaconf": {"OmegaConf": None},
    "taming": {},
    "taming.models": {},
    "taming.models.vqgan": {"VQModel": object, "GumbelVQ": object},
}


def load(name: str) -> Any:
    """``dall_e`` or ``dalle_pytorch``, without what they are installed without."""
    if name in sys.modules:
        return sys.modules[name]
    stands = {}
    for absent, attributes in _ABSENT.items():
        stands[absent] = ModuleType(absent)
        vars(stands[absent]).update(attributes)
    before = set(sys.modules)
    with mock.patch.dict(sys.modules, stands):
        found = import_module(name)
        made = {key: sys.modules[key] for key in set(sys.modules) - before if key not in stands}
    sys.modules.update(made)
    return found


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """OpenAI's convolutions cast their input to float32; inside they keep its type."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return F.conv2d(x, self.w, self.b, padding=(self.kw - 1) // 2)

    load("dall_e")
    with mock.patch.object(import_module("dall_e.utils").Conv2d, "forward", forward):
        yield


def randomise_net(net: nn.Module, seed: int) -> None:
    """Every parameter random; what goes through keeps about its size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            inputs = parameter[0].numel() if parameter.ndim == 4 else 16
            parameter.copy_(noise * 1.5 * inputs**-0.5)


# --- OpenAI's discrete VAE ---


def openai_pair(width: int, blocks: int, init: int, codes: int = 512) -> tuple[Any, Any, Any]:
    """OpenAI's encoder and decoder, and plait's VAE with their weights."""
    dall_e = load("dall_e")
    encoder = dall_e.Encoder(n_hid=width, n_blk_per_group=blocks, vocab_size=codes)
    decoder = dall_e.Decoder(n_init=init, n_hid=width, n_blk_per_group=blocks, vocab_size=codes)
    ours = DiscreteVAE(16, codes, 3, width, blocks, init, net="paper", error="logit_laplace")
    return encoder, decoder, ours


def openai_names(net: Any) -> list[tuple[Any, str]]:
    """Its convolutions in the order of the computation, without the decoder's first."""
    return [
        (module, name)
        for name, module in net.blocks.named_modules()
        if type(module).__name__ == "Conv2d" and not (name == "input" and module.kw == 1)
    ]


def copy_openai(encoder: Any, decoder: Any, ours: DiscreteVAE) -> None:
    """Its weights into plait's. The decoder's first 1x1 convolution is the codebook, its bias added
    to every vector: relaxed choices add up to 1."""
    with torch.no_grad():
        for net, half in ((encoder, ours.encoder), (decoder, ours.decoder)):
            for mine, (theirs, _) in zip(own_convolutions(half), openai_names(net), strict=True):
                mine.weight.copy_(theirs.w)
                mine.bias.copy_(theirs.b)
        first = decoder.blocks.input
        ours.codebook.copy_(first.w[:, :, 0, 0].T + first.b)


def own_convolutions(half: nn.Module) -> list[nn.Conv2d]:
    """In the order of `openai_names`: the skip path of a block first."""
    return [module for module in half.modules() if isinstance(module, nn.Conv2d)]


def openai_case(seed: int) -> dict[str, float]:
    """Layers, whole halves, the map of pixels, and gradients."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    encoder, decoder, ours = openai_pair(64, draw.randint(1, 2), draw.choice([8, 24, 64]))
    for net in (encoder, decoder):
        net.double()
        randomise_net(net, seed)
    ours.double()
    copy_openai(encoder, decoder, ours)
    pixels = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    with exact_convolutions():
        mapped, single = ours.likelihood.prepare(pixels), pixels.float()
        their_single = load("dall_e").map_pixels(single)
        found = {"map_pixels": gap(ours.likelihood.prepare(single), their_single)}
        logits, theirs = ours.logits(pixels), encoder.blocks(mapped)
        found["code logits"] = gap(logits, theirs)
        soft = torch.randn_like(theirs).softmax(dim=1)
        output = ours.decoder(torch.einsum("bkhw,kv->bvhw", soft, ours.codebook))
        their_output = decoder.blocks(soft)
        found["decoder output"] = gap(output, their_output)
        hard = F.one_hot(theirs.argmax(1), 512).permute(0, 3, 1, 2).double()
        picture = torch.sigmoid(decoder.blocks(hard)[:, :3])
        unmapped = ((picture - 0.1) / 0.8).clamp(0, 1)
        found["picture of hard codes"] = gap(ours.render(ours.codes(pixels)), unmapped)
        (logits.sin().mean() + output.sin().mean()).backward()
        (theirs.sin().mean() + their_output.sin().mean()).backward()
    found["gradients"] = openai_gradients(encoder, decoder, ours)
    return found


def openai_gradients(encoder: Any, decoder: Any, ours: DiscreteVAE) -> float:
    worst = 0.0
    for net, half in ((encoder, ours.encoder), (decoder, ours.decoder)):
        for mine, (theirs, _) in zip(own_convolutions(half), openai_names(net), strict=True):
            worst = max(worst, gap(mine.weight.grad, theirs.w.grad))
            worst = max(worst, gap(mine.bias.grad, theirs.b.grad))
    first = decoder.blocks.input
    assert ours.codebook.grad is not None
    worst = max(worst, gap(ours.codebook.grad.T, first.w.grad[:, :, 0, 0]))
    return max(worst, gap(ours.codebook.grad.sum(0), first.b.grad))


# --- dalle_pytorch's discrete VAE ---


def strided_case(seed: int) -> dict[str, float]:
    """The whole VAE: codes, pictures, loss with its divergence, gradients."""
    draw = random.Random(seed)
    layers, blocks = draw.randint(1, 3), draw.randint(0, 2)
    codes, width, code_width = draw.randint(5, 30), draw.randint(3, 9), draw.randint(2, 9)
    size, weight, smooth = 2 ** (layers + 1), draw.random(), draw.random() < 0.5
    hard, temperature = draw.random() < 0.5, draw.uniform(0.2, 2.0)
    rows = draw.randint(1, 4)
    theirs = load("dalle_pytorch").DiscreteVAE(
        image_size=size,
        num_tokens=codes,
        codebook_dim=code_width,
        num_layers=layers,
        num_resnet_blocks=blocks,
        hidden_dim=width,
        smooth_l1_loss=smooth,
        straight_through=hard,
        kl_div_loss_weight=weight / rows,  # it sums over the batch: see the divergences
    )
    theirs = theirs.double()
    randomise_net(theirs, seed)
    ours = DiscreteVAE(
        size, codes, layers, width, blocks, code_width, error="smooth_l1" if smooth else "mse"
    ).double()
    pairs = list(zip(ours.encoder.parameters(), theirs.encoder.parameters(), strict=True))
    pairs += zip(ours.decoder.parameters(), theirs.decoder.parameters(), strict=True)
    pairs.append((ours.codebook, theirs.codebook.weight))
    with torch.no_grad():
        for mine, other in pairs:
            mine.copy_(other)
    pixels = torch.rand(rows, 3, size, size, dtype=torch.float64)
    found = {"codes": gap(ours.codes(pixels).flatten(1), theirs.get_codebook_indices(pixels))}
    code = torch.randint(codes, (rows, *ours.grid))
    raw = theirs.decode(code.flatten(1)) / 2 + 0.5
    found["pictures"] = gap(ours.render(code), raw.clamp(0, 1))
    torch.manual_seed(seed)
    mine_out = ours(pixels, temperature, weight, hard)
    torch.manual_seed(seed)
    loss, reconstructed = theirs(pixels, return_loss=True, return_recons=True, temp=temperature)
    found["reconstruction"] = gap(mine_out.output, reconstructed)
    found["loss"] = gap(mine_out.loss, loss)
    mine_out.loss.backward()
    loss.backward()
    found["gradients"] = max(gap(mine.grad, other.grad) for mine, other in pairs)
    return found


# --- dalle_pytorch's transformer ---

KINDS = {"full": "full", "row": "axial_row", "column": "axial_col", "corner": "conv_like"}


def dalle_pair(seed: int) -> tuple[Any, DrawingTransformer, dict[str, Any]]:
    """DALLE and plait's transformer with its weights."""
    draw = random.Random(seed)
    package = load("dalle_pytorch")
    # With one head its sparse attention changes a view in place, which autograd refuses.
    heads, head, side = draw.choice([2, 3, 4]), draw.choice([2, 4]), 2 ** draw.randint(1, 2)
    kinds = draw.sample(sorted(KINDS), draw.randint(1, 4))
    sizes = {
        "vocabulary": draw.randint(4, 12),
        "text_length": draw.randint(2, 6),
        "codes": draw.randint(5, 15),
        "side": side,
        "layers": draw.randint(1, 4),
    }
    vae = package.DiscreteVAE(
        image_size=side * 2, num_layers=1, num_tokens=sizes["codes"], codebook_dim=4, hidden_dim=4
    )
    theirs = package.DALLE(
        dim=heads * head,
        vae=vae,
        num_text_tokens=sizes["vocabulary"],
        text_seq_len=sizes["text_length"],
        depth=sizes["layers"],
        heads=heads,
        dim_head=head,
        attn_types=tuple(KINDS[kind] for kind in kinds),
        shift_tokens=False,
        rotary_emb=False,
    )
    theirs = theirs.double().eval()
    randomise(theirs, seed)
    ours = DrawingTransformer(
        sizes["vocabulary"],
        sizes["text_length"],
        sizes["codes"],
        (side, side),
        width=heads * head,
        layers=sizes["layers"],
        heads=heads,
        kinds=kinds,
    )
    ours = ours.double().eval()
    copy_dalle(theirs, ours)
    return theirs, ours, sizes


def layers_of(theirs: Any) -> list[tuple[Any, ...]]:
    """By layer: both scales with their norms, the attention, the feed-forward net."""
    found = []
    for attention, feed in theirs.transformer.layers.layers:
        found.append((attention, attention.fn.fn.fn, feed, feed.fn.fn.net))
    return found


def copy_dalle(theirs: Any, ours: DrawingTransformer) -> None:
    """Its weights into plait's; the scale of a layer goes into its last matrix."""
    words = ours.vocabulary + ours.text_length
    head = theirs.to_logits[1]
    with torch.no_grad():
        ours.start.copy_(theirs.text_emb.weight[0])
        ours.text_embedding.weight.copy_(theirs.text_emb.weight)
        ours.code_embedding.weight.copy_(theirs.image_emb.weight)
        ours.text_position.copy_(theirs.text_pos_emb.weight)
        ours.row_position.copy_(theirs.image_pos_emb.weights[0][0, :, 0])
        ours.column_position.copy_(theirs.image_pos_emb.weights[1][0, 0])
        ours.norm.load_state_dict(theirs.to_logits[0].state_dict())
        ours.to_text.weight.copy_(head.weight[:words])
        ours.to_text.bias.copy_(head.bias[:words])
        ours.to_codes.weight.copy_(head.weight[words:])
        ours.to_codes.bias.copy_(head.bias[words:])
        for block, (a, attention, f, net) in zip(ours.blocks, layers_of(theirs), strict=True):
            assert isinstance(block, nn.Module)
            block.norm1.load_state_dict(a.fn.norm.state_dict())
            block.norm2.load_state_dict(f.fn.norm.state_dict())
            block.attention.qkv.weight.copy_(attention.to_qkv.weight)
            block.mlp.up.load_state_dict(net[0].state_dict())
            for mine, other, scale in (
                (block.attention.out, attention.to_out[0], a.scale[0, 0]),
                (block.mlp.down, net[3], f.scale[0, 0]),
            ):
                mine.weight.copy_(other.weight * scale[:, None])
                mine.bias.copy_(other.bias * scale)


def dalle_gradients(theirs: Any, ours: DrawingTransformer) -> float:
    """Largest difference; a layer's scale and last matrix by the chain rule from plait's matrix."""
    words, head = ours.vocabulary + ours.text_length, theirs.to_logits[1]
    rows, columns = theirs.image_pos_emb.weights
    text = theirs.text_emb.weight.grad
    pairs = [
        (ours.start.grad, text[0]),
        (ours.text_embedding.weight.grad[1:], text[1:]),
        (ours.code_embedding.weight.grad, theirs.image_emb.weight.grad),
        (ours.text_position.grad, theirs.text_pos_emb.weight.grad),
        (ours.row_position.grad, rows.grad[0, :, 0]),
        (ours.column_position.grad, columns.grad[0, 0]),
        (ours.norm.weight.grad, theirs.to_logits[0].weight.grad),
        (ours.norm.bias.grad, theirs.to_logits[0].bias.grad),
        (ours.to_text.weight.grad, head.weight.grad[:words]),
        (ours.to_codes.weight.grad, head.weight.grad[words:]),
        (ours.to_text.bias.grad, head.bias.grad[:words]),
        (ours.to_codes.bias.grad, head.bias.grad[words:]),
    ]
    for block, (a, attention, f, net) in zip(ours.blocks, layers_of(theirs), strict=True):
        pairs += [
            (block.norm1.weight.grad, a.fn.norm.weight.grad),
            (block.norm1.bias.grad, a.fn.norm.bias.grad),
            (block.norm2.weight.grad, f.fn.norm.weight.grad),
            (block.norm2.bias.grad, f.fn.norm.bias.grad),
            (block.attention.qkv.weight.grad, attention.to_qkv.weight.grad),
            (block.mlp.up.weight.grad, net[0].weight.grad),
            (block.mlp.up.bias.grad, net[0].bias.grad),
        ]
        for mine, other, scale in (
            (block.attention.out, attention.to_out[0], a.scale),
            (block.mlp.down, net[3], f.scale),
        ):
            factor = scale.detach()[0, 0]
            by_scale = (mine.weight.grad * other.weight).sum(1) + mine.bias.grad * other.bias
            pairs += [
                (mine.weight.grad * factor[:, None], other.weight.grad),
                (mine.bias.grad * factor, other.bias.grad),
                (by_scale, scale.grad[0, 0]),
            ]
    return max(gap(mine, other) for mine, other in pairs)


def dalle_inputs(sizes: dict[str, Any], seed: int) -> tuple[Tensor, Tensor]:
    """Ids with 0 for padding, in rows of all lengths, and codes."""
    generator = torch.Generator().manual_seed(seed)
    rows, length = 3, sizes["text_length"]
    ids = torch.randint(1, sizes["vocabulary"], (rows, length), generator=generator)
    lengths = torch.randint(0, length + 1, (rows,), generator=generator)
    ids = ids.masked_fill(torch.arange(length)[None] >= lengths[:, None], 0)
    return ids, torch.randint(sizes["codes"], (rows, sizes["side"] ** 2), generator=generator)


def dalle_case(seed: int) -> dict[str, float]:
    """Each layer's attention, logits of text and picture, loss, gradients."""
    theirs, ours, sizes = dalle_pair(seed)
    ids, codes = dalle_inputs(sizes, seed)
    text = ours.padded(ids, ids != 0)
    found = {}
    x = torch.randn(2, sizes["text_length"] + sizes["side"] ** 2, ours.start.shape[0]).double()
    for i, (block, (a, attention, _, _)) in enumerate(
        zip(ours.blocks, layers_of(theirs), strict=True)
    ):
        assert isinstance(block, nn.Module)
        whole = attention(x) * a.scale
        found[f"{block.attention.kind} attention, layer {i}"] = gap(block.attention(x), whole)
    logits = theirs(ids.clone(), codes)
    split, words = sizes["text_length"], ours.vocabulary + ours.text_length
    text_logits, code_logits = ours(text, codes)
    found["text logits"] = gap(text_logits, logits[:, :split, :words])
    found["code logits"] = gap(code_logits, logits[:, split:, words:])
    loss = theirs(ids.clone(), codes, return_loss=True)
    mine = ours.loss(text, codes).loss
    found["loss"] = gap(mine, loss)
    loss.backward()
    mine.backward()
    found["gradients"] = dalle_gradients(theirs, ours)
    return found


def _float64(case: Callable[[int], dict[str, float]]) -> Callable[[int], dict[str, float]]:
    def run(seed: int) -> dict[str, float]:
        with in_float64():
            return case(seed)

    return run


CASES: dict[str, Callable[[int], dict[str, float]]] = {
    "openai": openai_case,  # its attrs take float32 weights: made there, then cast
    "strided": _float64(strided_case),
    "dalle": _float64(dalle_case),
}


def rows(version: Callable[[str, str], str]) -> Iterable[dict[str, Any]]:
    """Rows of the parity table; ``version`` gives ``X of PACKAGE 1.0`` for both names."""

    def row(
        system: str, reference: str, case: str, compared: list[str], *divergences: str
    ) -> dict[str, Any]:
        return {
            "system": system,
            "reference": reference,
            "compared": [*compared, "gradients of every parameter"],
            "configurations": len(SEEDS[case]),
            "max_difference": max(max(CASES[case](seed).values()) for seed in SEEDS[case]),
            "divergences": list(divergences),
        }

    yield row(
        "DALL-E: discrete VAE, the paper's net",
        version("Encoder and Decoder", "DALL-E"),
        "openai",
        ["map of pixels", "logits of the codes", "decoder output", "pictures of hard codes"],
        "its convolutions cast to float32; the cast is lifted for the comparison",
        "the bias of its first decoder layer is part of the codebook's vectors",
        "it publishes no loss: the logit-Laplace error is tested by its integral and by hand",
    )
    yield row(
        "DALL-E: discrete VAE, strided net",
        version("DiscreteVAE", "dalle-pytorch"),
        "strided",
        ["codes", "pictures", "relaxed reconstruction", "loss"],
        "its divergence (kl_div, batchmean, a prior of one row) sums over the batch; here it is the"
        " mean over pictures",
    )
    yield row(
        "DALL-E: transformer",
        version("DALLE", "dalle-pytorch"),
        "dalle",
        ["every attention layer", "logits of text and codes", "loss"],
        "the scale it has on each layer is part of the layer's last matrix",
        "two heads instead of one masked head",
        "id 0 is a word here; there it marks padding and the start",
        "its guidance acts on the first code alone: its empty text overwrites the caller's, and its"
        " cache gives both passes the same keys",
        "its guidance of 1 drops the cache",
        "with one head its sparse attention can't be trained under current PyTorch",
        "token shift, rotary positions and reversible layers are not offered",
    )
