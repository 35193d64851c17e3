"""The examples of the systems' pages run, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).resolve().parents[3] / "docs" / "systems"
PAGES = [
    f"{name}{language}.md"
    for name in ("visual-bert", "uniter", "vilbert", "lxmert")
    for language in ("", ".zh-CN")
]


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 1
    names: dict[str, object] = {}
    torch.manual_seed(0)
    exec(blocks[0], names)
    shapes = {
        "logits": (2, 10), "guess": (2, 64), "what": (2, 9, 20), "how": (2, 9, 8),
        "back": (2, 9, 64),
    }  # fmt: skip
    for name in shapes.keys() & names.keys():
        assert names[name].shape == shapes[name]  # type: ignore[attr-defined]
    if page.startswith("vilbert"):
        system = names["system"]
        assert (system.text_at, system.image_at) == ((2, 3), (0, 1))  # type: ignore[attr-defined]


def test_what_may_be_left_over_is_documented() -> None:
    from plait.models.systems.checkpoints import LEFT_OVER

    for kind, patterns in LEFT_OVER.items():
        for language in ("", ".zh-CN"):
            text = (DOCS / f"{kind.replace('_', '-')}{language}.md").read_text("utf-8")
            for pattern in patterns:
                assert pattern.removesuffix(".*").split("[")[0] in text, (kind, pattern)
