"""Plait's systems against independent implementations: values and gradients, in float64.

    python benchmarks/parity.py            # all rows
    python benchmarks/parity.py systems    # only some: clip, packaged, systems, drawing, bridges

Random weights, several configurations and seeds each; writes docs/parity.json, from which
`make docs` makes the table. The same comparisons run as tests, with 1e-9 as the limit. What plait only
wraps (an encoder of transformers or timm) has no row: it would be compared with itself.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

LIMIT = 1e-9
COMPARED = ["embeddings", "logits", "gradients of every parameter", "gradients of the pixels"]


def largest(build: Callable[..., Any], cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The largest difference over all cases and three seeds."""
    from benchmarks._clip_oracles import compare

    worst = 0.0
    for settings in cases.values():
        for seed in range(3):
            worst = max(worst, *compare(build(seed=seed, **settings), seed).values())
    return {"configurations": 3 * len(cases), "max_difference": worst}


def reference(name: str, package: str) -> str:
    """``CLIPModel of transformers 5.0``."""
    return f"{name} of {package} {importlib.metadata.version(package)}"


def clip_rows() -> Iterable[dict[str, Any]]:
    """CLIP and SigLIP."""
    from functools import partial

    from benchmarks._clip_oracles import (
        CLIP_CASES,
        OPEN_CLIP_CASES,
        SIGLIP_CASES,
        open_clip_case,
        transformers_case,
    )

    yield {
        "system": "CLIP",
        "reference": reference("CLIPModel", "transformers"),
        "compared": COMPARED,
        **largest(partial(transformers_case, "clip"), CLIP_CASES),
        "divergences": [
            "its eager attention takes the softmax in float32; compared with its fused form",
            "tokens of the image tower are those after the last norm, in transformers before it",
        ],
    }
    yield {
        "system": "SigLIP",
        "reference": reference("SiglipModel", "transformers"),
        "compared": COMPARED,
        **largest(partial(transformers_case, "siglip"), SIGLIP_CASES),
        "divergences": [
            "padding is always attended to, as in its training; transformers masks it when given"
            " a mask",
            "short inputs are padded to the context here; transformers pools their last token",
        ],
    }
    yield {
        "system": "CLIP",
        "reference": reference("CLIP and CustomTextCLIP", "open_clip_torch"),
        "compared": COMPARED,
        **largest(open_clip_case, OPEN_CLIP_CASES),
        "divergences": [
            "towers of timm, of Hugging Face and ResNets are refused with a message",
            "the initial scales of attention are open_clip's (transformers swaps qkv and out)",
        ],
    }


def lite_row() -> dict[str, Any]:
    """EfficientNet-Lite0 with its pretrained weights."""
    import contextlib
    import io

    import torch
    from efficientnet_lite_pytorch import EfficientNet

    from plait.core.batch import ModalityInput
    from plait.encoders.image.packaged import find_file
    from plait.encoders.registry import build_encoder

    ours = build_encoder("pkg/efficientnet-lite0", modality="image").double()
    theirs = EfficientNet.from_name("efficientnet-lite0").double().eval()
    theirs.load_state_dict(torch.load(find_file("efficientnet-lite0"), weights_only=True))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 3, 224, 224), generator=generator, dtype=torch.uint8)
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        features = theirs.extract_features((pixels.double() - 127) / 128)
        out = ours(ModalityInput.of(pixels=pixels))
    difference = max(
        float((out.tokens - features.flatten(2).transpose(1, 2)).abs().max()),
        float((out.pooled - features.mean(dim=(2, 3))).abs().max()),
    )
    return {
        "system": "EfficientNet-Lite0, packaged weights",
        "reference": reference("EfficientNet", "efficientnet-lite-pytorch"),
        "compared": ["grid of the last stage", "pooled features"],
        "checkpoint": "its ImageNet weights",
        "configurations": 1,
        "max_difference": difference,
        "divergences": [
            "pixels are normalised as (x - 127) / 128; timm's default is 127.5 / 127.5"
        ],
    }


def packaged_rows() -> Iterable[dict[str, Any]]:
    """Encoders whose weights come in packages."""
    yield lite_row()


def system_rows() -> Iterable[dict[str, Any]]:
    """VisualBERT, LXMERT, UNITER and ViLBERT."""
    from benchmarks._system_oracles import rows

    return rows(lambda name: reference(name, "transformers"))


def drawing_rows() -> Iterable[dict[str, Any]]:
    """DALL-E's discrete VAE and transformer."""
    from benchmarks._drawing_oracles import rows

    return rows(reference)


def bridge_rows() -> Iterable[dict[str, Any]]:
    """Flamingo's, BLIP-2's and LLaVA's ways from pictures into language models."""
    from benchmarks._bridge_oracles import rows

    return rows(reference)


GROUPS: dict[str, Callable[[], Iterable[dict[str, Any]]]] = {
    "clip": clip_rows,
    "packaged": packaged_rows,
    "systems": system_rows,
    "drawing": drawing_rows,
    "bridges": bridge_rows,
}


def main(wanted: list[str]) -> int:
    """Measures, writes docs/parity.json; 1 if a difference is above the limit."""
    from plait.core.files import read_json, write_json

    path = ROOT / "docs" / "parity.json"
    new = [row for name in wanted or GROUPS for row in GROUPS[name]()]
    fresh = {row["system"] for row in new}
    kept = [row for row in read_json(path) if row["system"] not in fresh] if wanted else []
    # No hub is reached here: what was read from a published checkpoint says so itself.
    write_json(path, [{"checkpoint": "never", **row} for row in [*kept, *new]])
    for row in new:
        print(f"{row['max_difference']:.1e}  {row['system']}  ({row['reference']})")
    return int(any(row["max_difference"] > LIMIT for row in new))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
