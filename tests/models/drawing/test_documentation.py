"""The examples of the page run, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from plait.models.drawing.attention import KINDS

PAGES = Path(__file__).resolve().parents[3] / "docs" / "systems"


@pytest.mark.parametrize("page", ["dall-e.md", "dall-e.zh-CN.md"])
def test_examples_run(page: str) -> None:
    text = (PAGES / page).read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {}
    torch.manual_seed(0)
    exec(block, names)
    shapes = {"codes": (2, 8, 8), "rebuilt": (2, 3, 32, 32), "pictures": (2, 3, 3, 32, 32)}
    for name, shape in shapes.items():
        assert names[name].shape == shape, name  # type: ignore[attr-defined]
    for kind in KINDS:
        assert f"`{kind}`" in text
