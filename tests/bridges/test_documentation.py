"""The examples of the bridges' pages run, in both languages, and every option is listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from plait.bridges.registry import BRIDGES, bridge_options

PAGES = Path(__file__).resolve().parents[2] / "docs" / "systems"
LANGUAGES = ("", ".zh-CN")
SHAPES = {
    "flamingo": {"media": (2, 3, 8, 64), "clips": (2, 8, 64)},
    "blip-2": {"loss": (), "prefix": (4, 8, 96)},
    "llava": {"visual": (2, 16, 96), "fewer": (2, 4, 96)},
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("page", SHAPES)
def test_examples_run(page: str, language: str) -> None:
    text = (PAGES / f"{page}{language}.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {}
    torch.manual_seed(0)
    exec(block, names)
    for name, shape in SHAPES[page].items():
        assert names[name].shape == shape, name  # type: ignore[attr-defined]
    if page == "flamingo":
        assert torch.equal(names["out"], names["words"])  # type: ignore[arg-type]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_option_is_documented(language: str) -> None:
    text = (PAGES / f"llava{language}.md").read_text("utf-8")
    rows = {kind: re.search(rf"^\| `{kind}` \|.*$", text, re.MULTILINE) for kind in BRIDGES}
    for kind, row in rows.items():
        assert row is not None, kind
        for option in bridge_options(kind):
            assert f"`{option}`" in row.group(), (kind, option)
