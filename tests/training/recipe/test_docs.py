"""The pages on recipes name every key there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from plait.training.loop import health
from plait.training.recipe import base as schema_base
from plait.training.recipe import model as schema_model
from plait.training.recipe import schema
from plait.training.recipe import stage as schema_stage
from plait.training.recipe.recipe import list_recipes

DOCS = Path(__file__).parents[3] / "docs"
SECTIONS = [
    s
    for module in (schema, schema_model, schema_stage)
    for s in vars(module).values()
    if isinstance(s, type) and issubclass(s, schema_base.Section)
]


@pytest.mark.parametrize("page", ["recipes.md", "recipes.zh-CN.md"])
def test_every_key_and_recipe_is_on_the_page(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    told = " ".join(re.findall(r"`[^`]+`", text))
    words = {*re.findall(r"\w+", told), *re.findall(r"[\w-]+", told)}
    keys = {key for section in SECTIONS for key in section.model_fields}
    assert keys <= words, keys - words
    assert {entry["name"] for entry in list_recipes()} <= words


@pytest.mark.parametrize("page", ["training.md", "training.zh-CN.md"])
def test_every_alarm_is_on_the_page(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    source = Path(health.__file__).read_text(encoding="utf-8")
    alarms = set(re.findall(r'yield \(\n\s+"([a-z-]+)",', source))
    assert len(alarms) >= 7
    assert all(f"`{alarm}`" in text for alarm in alarms)
