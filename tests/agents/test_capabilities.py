"""Which tools a model gets: only what it was trained to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from tests.models.bridged.test_writing import seeing
from tests.retrieval.conftest import make_model

from plait import api
from plait.agents.capabilities import CAPABILITIES
from plait.agents.pictures import Doorkeeper
from plait.agents.schemas import AskOut, CaptionOut
from plait.agents.served import BadArguments, served_tool


def able(model: object) -> set[str]:
    return {one.name for one in CAPABILITIES if one.can(model)}


def test_a_language_model_does_what_it_was_trained_to(tmp_path: Path) -> None:
    model = seeing("scratch", "prefix").float()
    assert able(model) == set()
    model.tasks = {"caption": {"prompt": "<image> the shape", "target": "{text}"}}
    assert able(model) == {"caption"}
    model.tasks["answer"] = {"prompt": "<image> {question}", "target": "{answer}"}
    assert able(model) == {"caption", "ask"}

    for name, shade in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (16, 16), shade).save(tmp_path / name)
    tools = {one.name: served_tool(one, {"one": model}) for one in CAPABILITIES if one.can(model)}
    keeper = Doorkeeper.of([tmp_path])
    described = tools["caption"].call({"images": ["b.png", "a.png"]}, keeper).result
    assert isinstance(described, CaptionOut)
    alone = [api.caption(model, [tmp_path / name])[0]["caption"] for name in ("b.png", "a.png")]
    assert described.captions == alone
    question = "what color is the shape ?"
    answered = tools["ask"].call({"image": "a.png", "question": question}, keeper).result
    assert isinstance(answered, AskOut)
    assert answered.answer == api.ask(model, tmp_path / "a.png", question)["answer"]


def test_a_model_that_aligns() -> None:
    model = make_model()
    assert able(model) == {"classify", "similarity"}
    assert able(object()) == set()
    (classify,) = (one for one in CAPABILITIES if one.name == "classify")
    tool = served_tool(classify, {"mine": model, "yours": model})
    assert tool.arguments.model_json_schema()["properties"]["run"]["enum"] == ["mine", "yours"]
    given = {"images": ["a.png"], "labels": ["a", "b"], "run": "theirs"}
    with pytest.raises(BadArguments, match="run: Input should be 'mine' or 'yours'"):
        tool.call(given, Doorkeeper.of([Path()]))
