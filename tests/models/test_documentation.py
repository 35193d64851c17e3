"""The examples of the documentation run, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("encoders.md", "encoders.zh-CN.md", "systems/clip.md", "systems/clip.zh-CN.md")


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    exec("\n".join(blocks), names)
    if "rows" in names:
        assert names["rows"].shape == (2, 256)  # type: ignore[attr-defined]


def test_every_source_family_is_documented() -> None:
    from plait.encoders.image.packaged import PACKAGES
    from plait.encoders.registry import FAMILIES
    from plait.encoders.scratch.scratch import KINDS

    for page in PAGES[:2]:
        text = (DOCS / page).read_text("utf-8")
        for prefix in FAMILIES:
            assert f"`{prefix}/" in text, prefix
        for name in (*KINDS, *PACKAGES):
            assert name.removeprefix("efficientnet") in text, name
