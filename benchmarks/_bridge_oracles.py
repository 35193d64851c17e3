"""Bridges next to flamingo-pytorch and transformers, in float64.

Each case draws a configuration, weights, lengths and masks from a seed and gives the largest
difference by what was compared: outputs, and the gradients of a random sum of them for every
parameter and for what came in. Where a reference has no masks, each of its rows is computed alone
and unpadded.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import torch
from benchmarks._qformer_oracle import qformer_case
from benchmarks._system_tools import gap, in_float64, randomise
from torch import Tensor, nn

from plait.bridges.base import Bridge
from plait.bridges.gated import GatedCrossAttention, text_time
from plait.bridges.projections import MlpBridge, PixelShuffleBridge
from plait.bridges.resampler import ResamplerBridge
from plait.core.batch import Encoded

SEEDS = range(20)
IMAGE = 9


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def all_real(tokens: Tensor, mask: Tensor | None = None) -> Encoded:
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask
    return Encoded(tokens, mask, tokens.mean(dim=1))


def copy(ours: nn.Module, theirs: nn.Module, names: dict[str, str]) -> None:
    """Their weights into ours, by name: every one of ours."""
    weights = theirs.state_dict()
    own = ours.state_dict()
    assert own.keys() == names.keys(), own.keys() ^ names.keys()
    ours.load_state_dict(
        {mine: weights[other].view(own[mine].shape) for mine, other in names.items()}
    )


def gradients(ours: nn.Module, theirs: nn.Module, names: dict[str, str]) -> float:
    """The largest difference over every parameter of ours; nothing counts as 0."""
    others, worst = dict(theirs.named_parameters()), 0.0
    for name, mine in ours.named_parameters():
        other = others[names[name]]
        one, two = (torch.zeros_like(p) if p.grad is None else p.grad for p in (mine, other))
        worst = max(worst, gap(one, two.view(one.shape)))
    return worst


# --- flamingo-pytorch ---


def attention_names(ours: str, theirs: str) -> dict[str, str]:
    pairs = {"query": "to_q", "key_value": "to_kv", "out": "to_out"}
    return {f"{ours}{mine}.weight": f"{theirs}{other}.weight" for mine, other in pairs.items()}


def norm_names(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.{end}": f"{theirs}.{end}" for end in ("weight", "bias")}


def feed_forward_names(ours: str, theirs: str) -> dict[str, str]:
    matrices = {f"{ours}.{n}.weight": f"{theirs}.{n}.weight" for n in (1, 3)}
    return norm_names(f"{ours}.0", f"{theirs}.0") | matrices


def resampler_names(layers: int) -> dict[str, str]:
    found = {"latents": "latents", "times": "media_pos_emb"} | norm_names("norm", "norm")
    for number in range(layers):
        own, other = f"layers.{number}", f"layers.{number}"
        for part in ("norm_media", "norm_latents"):
            found |= norm_names(f"{own}.{part}", f"{other}.0.{part}")
        found |= attention_names(f"{own}.", f"{other}.0.")
        found |= feed_forward_names(f"{own}.feed_forward", f"{other}.1")
    return found


def resampler_case(seed: int) -> dict[str, float]:
    """Pictures of different lengths, and videos as one medium with their times added before."""
    from flamingo_pytorch import PerceiverResampler

    draw = random.Random(seed)
    width, layers, frames = draw.randint(3, 9), draw.randint(1, 3), draw.randint(1, 3)
    sizes = {"heads": draw.randint(1, 3), "dim_head": draw.randint(2, 5)}
    latents, factor, rows = draw.randint(1, 6), draw.randint(1, 4), draw.randint(2, 4)
    theirs = PerceiverResampler(
        dim=width, depth=layers, num_latents=latents, num_media_embeds=3, ff_mult=factor, **sizes
    ).double()
    randomise(theirs, seed)
    ours = ResamplerBridge(
        width,
        width,
        latents=latents,
        layers=layers,
        heads=sizes["heads"],
        head_width=sizes["dim_head"],
        hidden=width * factor,
        frames=3,
    ).double()
    names = resampler_names(layers)
    copy(ours, theirs, names)
    each = draw.randint(1, 6)
    mask = torch.rand(rows, frames * each) < 0.7
    mask[:, draw.randrange(frames * each)] = True
    tokens = noise(rows, frames * each, width).requires_grad_()
    twin = tokens.detach().clone().requires_grad_()
    mine, real = ours(all_real(tokens, mask), frames=frames)
    assert real.all()
    found = [_one_medium(theirs, twin[row], mask[row], frames) for row in range(rows)]
    other = torch.stack(found)
    weights = noise(*mine.shape)
    (mine * weights).sum().backward()
    (other * weights).sum().backward()
    assert tokens.grad is not None and twin.grad is not None
    return {
        "latents": gap(mine, other),
        "gradients": gradients(ours, theirs, names),
        "gradients of tokens": gap(tokens.grad, twin.grad),
    }


def _one_medium(theirs: Any, tokens: Tensor, mask: Tensor, frames: int) -> Tensor:
    """Their latents of one sample. It adds the first time to all: taken off before."""
    times = theirs.media_pos_emb[:frames, 0].repeat_interleave(len(tokens) // frames, dim=0)
    timed = tokens + times - theirs.media_pos_emb[0, 0]
    out: Tensor = theirs(timed[mask][None])[0, 0]
    return out


GATED_NAMES = {
    "gate": "attn_gate",
    "gate_feed_forward": "ff_gate",
    **norm_names("norm", "attn.norm"),
    **attention_names("", "attn."),
    **feed_forward_names("feed_forward", "ff"),
}


def gated_case(seed: int) -> dict[str, float]:
    """Several pictures of different lengths among words; the latest, or all before a word."""
    from flamingo_pytorch import GatedCrossAttentionBlock

    draw = random.Random(seed)
    width, only_latest, factor = draw.randint(3, 9), seed % 2 == 0, draw.randint(1, 4)
    sizes = {"heads": draw.randint(1, 3), "dim_head": draw.randint(2, 5)}
    theirs = GatedCrossAttentionBlock(
        dim=width, ff_mult=factor, only_attend_immediate_media=only_latest, **sizes
    ).double()
    randomise(theirs, seed)
    ours = GatedCrossAttention(
        width, width, heads=sizes["heads"], head_width=sizes["dim_head"], hidden=width * factor
    ).double()
    copy(ours, theirs, GATED_NAMES)
    rows, words, pictures, size = 3, draw.randint(2, 8), draw.randint(1, 4), draw.randint(1, 4)
    ids = torch.randint(7, 10, (rows, words))
    ids = ids.masked_fill((ids == IMAGE).cumsum(1) > pictures, 1)
    counts = [draw.randint(max(1, int((row == IMAGE).sum())), pictures) for row in ids]
    lengths = [draw.randint(1, size) for _ in range(rows)]
    mask = torch.zeros(rows, pictures, size, dtype=torch.bool)
    for row, (count, length) in enumerate(zip(counts, lengths, strict=True)):
        mask[row, :count, :length] = True
    x, media = (noise(*shape, width) for shape in ((rows, words), (rows, pictures, size)))
    inputs = [tensor.requires_grad_() for tensor in (x, media)]
    twins = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    time = text_time(ids, IMAGE)
    mine = ours(*inputs, mask, time, only_latest)
    alone = [
        theirs(
            twins[0][row : row + 1],
            twins[1][row : row + 1, : counts[row], : lengths[row]],
            media_locations=ids[row : row + 1] == IMAGE,
        )
        for row in range(rows)
    ]
    # with all pictures in sight it lets words before the first one see all of them
    fair = torch.ones_like(time, dtype=torch.bool) if only_latest else time > 0
    other = torch.cat(alone)
    weights = noise(*mine.shape) * fair[..., None]
    (mine * weights).sum().backward()
    (other * weights).sum().backward()
    found = {"words": gap(mine, other, fair) if fair.any() else 0.0}
    found["gradients"] = gradients(ours, theirs, GATED_NAMES)
    for name, one, two in zip(("words", "media"), inputs, twins, strict=True):
        assert one.grad is not None and two.grad is not None
        found[f"gradients of {name}"] = gap(one.grad, two.grad)
    return found


# --- transformers' projectors ---


def projector_case(
    ours: Bridge,
    theirs: nn.Module,
    names: dict[str, str],
    run: Callable[[Tensor], Tensor],
    tokens: int,
) -> dict[str, float]:
    """One of transformers' projectors; what it has no bias for is 0 in plait's."""
    ours.double()
    known = {name: mine for name, mine in names.items() if mine in theirs.state_dict()}
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.zero_() if name not in known else parameter.copy_(
                theirs.state_dict()[known[name]]
            )
    given = noise(3, tokens, ours.token_width).requires_grad_()
    twin = given.detach().clone().requires_grad_()
    mine, other = ours(all_real(given))[0], run(twin)
    weights = noise(*mine.shape)
    (mine * weights).sum().backward()
    (other * weights).sum().backward()
    assert given.grad is not None and twin.grad is not None
    others, worst = dict(theirs.named_parameters()), 0.0
    for name, parameter in ours.named_parameters():
        if name in known:
            one, two = parameter.grad, others[known[name]].grad
            assert one is not None and two is not None
            worst = max(worst, gap(one, two))
    return {
        "tokens": gap(mine, other),
        "gradients": worst,
        "gradients of tokens": gap(given.grad, twin.grad),
    }


TWO_LAYERS = {
    **norm_names("network.0", "linear_1"),
    **norm_names("network.2", "linear_2"),
    **norm_names("norm", "layer_norm"),
}


def llava_case(seed: int) -> dict[str, float]:
    from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

    draw = random.Random(seed)
    inside, width = draw.randint(2, 9), draw.randint(2, 9)
    config = SimpleNamespace(
        vision_feature_layer=-2,
        vision_config=SimpleNamespace(hidden_size=inside),
        text_config=SimpleNamespace(hidden_size=width),
        multimodal_projector_bias=draw.random() < 0.7,
        projector_hidden_act="gelu",
    )
    theirs = LlavaMultiModalProjector(config).double()
    randomise(theirs, seed)
    ours = MlpBridge(inside, width)
    return projector_case(ours, theirs, TWO_LAYERS, theirs, draw.randint(1, 9))


def connector_case(seed: int) -> dict[str, float]:
    """Idefics3's and SmolVLM's connector: blocks, then a matrix."""
    from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector
    from transformers.models.smolvlm.modeling_smolvlm import SmolVLMConnector

    draw = random.Random(seed)
    inside, width, factor = draw.randint(2, 5), draw.randint(2, 9), draw.randint(1, 3)
    config = SimpleNamespace(
        scale_factor=factor,
        vision_config=SimpleNamespace(hidden_size=inside),
        text_config=SimpleNamespace(hidden_size=width),
    )
    theirs = (Idefics3Connector if seed % 2 else SmolVLMConnector)(config).double()
    randomise(theirs, seed)
    ours = PixelShuffleBridge(inside, width, factor=factor, layers=1)
    names = {"network.0.weight": "modality_projection.proj.weight"}
    return projector_case(ours, theirs, names, theirs, (factor * draw.randint(1, 3)) ** 2)


def internvl_case(seed: int) -> dict[str, float]:
    """InternVL's blocks, then LayerNorm and an MLP."""
    from transformers.models.internvl.modeling_internvl import (
        InternVLModel,
        InternVLMultiModalProjector,
    )

    draw = random.Random(seed)
    inside, width, side = draw.randint(2, 5), draw.randint(2, 9), 2 * draw.randint(1, 3)
    config = SimpleNamespace(
        downsample_ratio=0.5,
        vision_config=SimpleNamespace(hidden_size=inside),
        text_config=SimpleNamespace(hidden_size=width),
        projector_hidden_act="gelu",
    )
    theirs = InternVLMultiModalProjector(config).double()
    randomise(theirs, seed)

    def run(tokens: Tensor) -> Tensor:
        grid = tokens.unflatten(1, (side, side))
        blocks = InternVLModel.pixel_shuffle(SimpleNamespace(), grid, 0.5)
        out: Tensor = theirs(blocks.flatten(1, 2))
        return out

    ours = PixelShuffleBridge(inside, width, norm=True)
    return projector_case(ours, theirs, TWO_LAYERS, run, side**2)


def _seeded(case: Callable[[int], dict[str, float]]) -> Callable[[int], dict[str, float]]:
    def run(seed: int) -> dict[str, float]:
        torch.manual_seed(seed)
        with in_float64():
            return case(seed)

    return run


CASES: dict[str, Callable[[int], dict[str, float]]] = {
    "resampler": _seeded(resampler_case),
    "gated": _seeded(gated_case),
    "qformer": _seeded(qformer_case),
    "llava": _seeded(llava_case),
    "connector": _seeded(connector_case),
    "internvl": _seeded(internvl_case),
}


def rows(version: Callable[[str, str], str]) -> Iterable[dict[str, Any]]:
    """Rows of the parity table; ``version`` gives ``X of PACKAGE 1.0`` for both names."""

    def row(
        system: str, reference: str, case: str, compared: list[str], *divergences: str
    ) -> dict[str, Any]:
        return {
            "system": system,
            "reference": reference,
            "compared": [*compared, "gradients of every parameter", "gradients of the tokens"],
            "configurations": len(SEEDS),
            "max_difference": max(max(CASES[case](seed).values()) for seed in SEEDS),
            "divergences": list(divergences),
        }

    yield row(
        "Flamingo: perceiver resampler",
        version("PerceiverResampler", "flamingo-pytorch"),
        "resampler",
        ["latents of pictures and videos, padded here and alone there"],
        "it resamples each frame by itself and has no masks; here the frames of a video share their"
        " latents, as in the paper",
    )
    yield row(
        "Flamingo: gated cross-attention",
        version("GatedCrossAttentionBlock", "flamingo-pytorch"),
        "gated",
        ["words, with the latest picture or all before in sight"],
        "with all pictures in sight it lets words before the first one see those after them; here"
        " they see none",
    )
    yield row(
        "BLIP-2: Q-Former",
        version("Blip2QFormerModel and Blip2ForImageTextRetrieval", "transformers"),
        "qformer",
        [
            "queries alone, words alone, matching, writing (with its mask handed in)",
            "contrast and match logits",
        ],
        "outputs at padding are zero",
        "transformers has no head for writing and no losses: those are tested by hand",
    )
    yield row(
        "LLaVA: projector",
        version("LlavaMultiModalProjector", "transformers"),
        "llava",
        ["tokens"],
    )
    yield row(
        "SmolVLM and Idefics3: pixel shuffle",
        version("SmolVLMConnector and Idefics3Connector", "transformers"),
        "connector",
        ["tokens"],
        "its matrix has no bias; here it has one, which is 0 at the comparison",
        "it takes only square grids; here boxes may tell of others",
    )
    yield row(
        "InternVL: pixel shuffle",
        version("InternVLModel.pixel_shuffle and InternVLMultiModalProjector", "transformers"),
        "internvl",
        ["tokens"],
    )
