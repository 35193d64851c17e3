"""An agent with real tools and a scripted language model behind a real HTTP endpoint."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.agents.conftest import Tiny
from tests.agents.scripted import Script, calls, scripted, words

from plait.agents.agent import Limits
from plait.agents.endpoint import Endpoint, EndpointError
from plait.agents.record import Record
from plait.agents.served import serve
from plait.agents.server import build_server, serve_http
from plait.agents.toolbox import ServerError
from plait.agents.work import work
from plait.core.errors import DataError, UserError


@pytest.fixture(scope="module")
def tools(tiny: Tiny) -> Iterator[Any]:
    yield build_server(serve([tiny.finder, tiny.teller], [tiny.index], roots=[tiny.pictures]))


def solve(
    script: Script, tools: Any, tiny: Tiny, limits: Limits | None = None, **more: Any
) -> Record:
    endpoint = Endpoint(script.url, "parrot", retries=0)
    images = [tiny.pictures / "blue_01.png"]
    return work(
        "What is it?", images, tools, endpoint, limits=limits or Limits(seconds=240.0), **more
    )


ASK = {"image": "image:1", "question": "what colour is it?"}
LABELS = ["a red picture", "a blue picture"]


def test_three_tools_in_parallel(tools: Any, tiny: Tiny, tmp_path: Path) -> None:
    with scripted(
        calls(
            ("ask", ASK),
            ("classify", {"images": ["image:1"], "labels": LABELS}),
            text="I ask and classify, then search.",
        ),
        calls(("search", {"image": "image:1", "k": 2, "thumbnails": 1})),
        calls(("ask", {"image": "image:2", "question": "is it red?"})),  # what search returned
        words("It is blue."),
    ) as script:
        transcript = tmp_path / "out.md"
        record = solve(script, tools, tiny, transcript=transcript)
    assert (record.status, record.answer, record.reason) == ("answered", "It is blue.", "")
    assert [[call.tool for call in step.calls] for step in record.steps] == [
        ["ask", "classify"],
        ["search"],
        ["ask"],
        [],
    ]
    assert all(call.executed and not call.failed for step in record.steps for call in step.calls)

    opening = script.requests[0]
    assert opening["model"] == "parrot"
    assert {tool["function"]["name"] for tool in opening["tools"]} == set(record.tools)
    assert "image:1: blue_01.png, 20 x 16" in opening["messages"][1]["content"]
    answers = script.told(1)
    assert json.loads(answers[0])["answer"] == "blue"
    assert {one["label"] for one in json.loads(answers[1])["pictures"][0]["labels"]} == set(LABELS)
    assert "[image:2:" in script.told(2)[2]
    assert json.loads(script.told(3)[3])["answer"] == "no"
    ids = [m["tool_call_id"] for m in script.requests[1]["messages"] if m["role"] == "tool"]
    assert ids == ["call-0", "call-1"]

    text = transcript.read_text(encoding="utf-8")
    for part in ("> What is it?", "I ask and classify", "### `search`: done", "It is blue."):
        assert part in text
    links = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert len(links) == 2 and all((tmp_path / link).is_file() for link in links)
    assert (tmp_path / links[0]).read_bytes() == (tiny.pictures / "blue_01.png").read_bytes()


def test_mends_what_was_wrong(tools: Any, tiny: Tiny) -> None:
    """Each fault is named so exactly that the next turn can do better."""
    with scripted(
        calls(
            ("ask", '{"image": "image:1", '),
            ("aks", ASK),
            ("ask", {"image": "image:1", "query": "what?"}),
            ("ask", ["image:1"]),
            ("ask", {"image": "image:9", "question": "what?"}),
            ("ask", {"image": "/etc/hostname", "question": "what?"}),
            ("search", {"query": "red", "image": "image:1"}),
            ("search", {"query": "red", "k": 99}),
        ),
        calls(("ask", ASK)),
        words("blue"),
    ) as script:
        record = solve(script, tools, tiny)
    assert record.answer == "blue"
    broken, unknown, unfit, listed, nameless, outside, both, many = script.told(1)
    assert "no JSON" in broken and "Write one JSON object" in broken
    assert "there is no tool 'aks'; did you mean 'ask'" in unknown and "similarity" in unknown
    assert "'query' was unexpected" in unfit and "'question' is a required" in unfit
    assert "it takes: image, question, answers" in unfit
    assert "must be one JSON object" in listed
    assert "no picture 'image:9' (there are: image:1)" in nameless
    assert "under the allowed folders" in outside
    assert "one of the two" in both
    assert "k: 99 is greater than the maximum of 50" in many
    assert all(answer.startswith("ERROR: ") for answer in script.told(1))
    made = [call.executed for call in record.steps[0].calls]
    assert made == [False, False, False, False, False, True, True, False]
    history = script.requests[1]["messages"][2]["tool_calls"]
    assert all(json.loads(call["function"]["arguments"]) is not None for call in history)


def test_endless_loop(tools: Any, tiny: Tiny) -> None:
    with scripted(calls(("ask", ASK))) as script:
        record = solve(script, tools, tiny, Limits(steps=20, seconds=240.0))
    assert record.status == "stopped" and record.reason == "nothing but repeated calls"
    assert len(record.steps) == 4  # made, refused, refused, and the last turn
    assert [step.calls[0].executed for step in record.steps[:3]] == [True, False, False]
    assert "this very call was made in step 1" in script.told(2)[1]
    assert script.requests[-1]["tool_choice"] == "none"
    assert "Answer the task now" in script.requests[-1]["messages"][-1]["content"]


def test_a_loop_can_end_in_an_answer(tools: Any, tiny: Tiny) -> None:
    same = calls(("ask", ASK))
    with scripted(same, same, same, words("blue, I think")) as script:
        record = solve(script, tools, tiny)
    assert (record.status, record.answer) == ("answered", "blue, I think")
    assert record.reason == "nothing but repeated calls"


def test_step_limit(tools: Any, tiny: Tiny) -> None:
    turns = [calls(("ask", {**ASK, "answers": number})) for number in range(1, 9)]
    with scripted(*turns) as script:
        record = solve(script, tools, tiny, Limits(steps=3, seconds=240.0))
    assert len(script.requests) == 3 and record.status == "stopped"
    assert record.reason == "the limit of 3 steps"
    assert script.requests[-1]["tool_choice"] == "none"
    with scripted(*turns[:2], words("done")) as script:
        assert solve(script, tools, tiny, Limits(steps=3, seconds=240.0)).answer == "done"


def test_time_limit(tools: Any, tiny: Tiny, tmp_path: Path) -> None:
    with scripted(words("too late"), delay=20) as script:
        transcript = tmp_path / "out.md"
        record = solve(script, tools, tiny, Limits(seconds=1.5), transcript=transcript)
    assert record.status == "stopped" and record.reason == "the time limit of 1.5 s"
    assert record.seconds < 15
    assert "None: the time limit of 1.5 s." in transcript.read_text(encoding="utf-8")


def test_calls_and_results_are_limited(tools: Any, tiny: Tiny) -> None:
    wanted = [("ask", {**ASK, "answers": number}) for number in (1, 2, 3)]
    with scripted(calls(*wanted), words("done")) as script:
        solve(script, tools, tiny, Limits(calls=2, characters=30, seconds=240.0))
    first, second, third = script.told(1)
    assert first.startswith('{"answer":"blue"') and "cut off" in first and len(first) < 90
    assert "at most 2 calls in one turn" in third and "cut off" in second


def test_pictures_for_a_model_that_takes_them(tools: Any, tiny: Tiny) -> None:
    with scripted(calls(("search", {"query": "blue", "k": 1})), words("done")) as script:
        solve(script, tools, tiny, show_pictures=True)
    first = [part for part in script.requests[0]["messages"][1]["content"] if "image_url" in part]
    data = base64.b64decode(first[0]["image_url"]["url"].split(",")[1])
    assert data == (tiny.pictures / "blue_01.png").read_bytes()
    last = script.requests[1]["messages"][-1]
    assert last["role"] == "user" and any(part["type"] == "image_url" for part in last["content"])


def test_a_choice_among_runs(tiny: Tiny) -> None:
    """Two runs that do the same are told apart by an argument."""
    twice = serve([tiny.finder, tiny.teller], [tiny.index, tiny.index], roots=[tiny.pictures])
    schema = twice.tools["search"].arguments.model_json_schema()
    assert schema["properties"]["index"]["enum"] == ["colours", "colours-2"]
    with scripted(
        calls(("search", {"query": "red", "k": 1})),
        calls(("search", {"query": "red", "k": 1, "index": "colours-2"})),
        words("done"),
    ) as script:
        record = solve(script, build_server(twice), tiny)
    assert "'index' is a required property" in script.told(1)[0]
    assert not record.steps[1].calls[0].failed


def test_what_cannot_be_served(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to serve"):
        serve([])
    with pytest.raises(UserError):
        serve([tmp_path])
    with pytest.raises(UserError):
        serve([tiny.finder], [tmp_path])


def test_where_a_server_cannot_be(tools: Any) -> None:
    with pytest.raises(UserError, match="stands for every address"):
        serve_http(tools, "0.0.0.0", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot serve at 127.0.0.1, port {port}: "):
            serve_http(tools, "127.0.0.1", port)


def test_the_endpoint_refuses(tools: Any, tiny: Tiny, tmp_path: Path) -> None:
    with scripted(calls(("ask", ASK)), 404) as script:
        transcript = tmp_path / "out.md"
        with pytest.raises(EndpointError, match=r"refused \(HTTP 404\).*no such model: parrot"):
            solve(script, tools, tiny, transcript=transcript)
    text = transcript.read_text(encoding="utf-8")
    assert "### `ask`: done" in text and "no such model: parrot" in text
    with scripted(words("x")) as script, pytest.raises(UserError, match="exists: name another"):
        solve(script, tools, tiny, transcript=transcript)
    assert transcript.read_text(encoding="utf-8") == text and not script.requests


def test_the_key_comes_from_the_environment(
    tools: Any, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PARROT_KEY", raising=False)
    with pytest.raises(EndpointError, match="PARROT_KEY is not set"):
        Endpoint("http://127.0.0.1:9/v1", "parrot", api_key_env="PARROT_KEY")
    monkeypatch.setenv("PARROT_KEY", "polly-wants")
    transcript = tmp_path / "out.md"
    with scripted(words("hello")) as script:
        endpoint = Endpoint(script.url, "parrot", api_key_env="PARROT_KEY")
        work("Hi", [], tools, endpoint, limits=Limits(seconds=240.0), transcript=transcript)
    sent = {name.lower(): value for name, value in script.headers[0].items()}
    assert sent["authorization"] == "Bearer polly-wants"
    assert "polly" not in transcript.read_text(encoding="utf-8")


def test_no_server_no_picture_no_task(tools: Any, tiny: Tiny, tmp_path: Path) -> None:
    endpoint = Endpoint("http://127.0.0.1:9/v1", "parrot", retries=0)
    limits = Limits(seconds=240.0)
    with pytest.raises(
        ServerError, match=r"cannot reach the MCP server 'http://127\.0\.0\.1:9/mcp'"
    ):
        work("x", [], "http://127.0.0.1:9/mcp", endpoint, limits=limits)
    with pytest.raises(ServerError, match="cannot reach the MCP server 'plait-no-such-command'"):
        work("x", [], "plait-no-such-command", endpoint, limits=limits)
    with pytest.raises(DataError, match=r"gone\.png"):
        work("x", [tmp_path / "gone.png"], tools, endpoint, limits=limits)
    with pytest.raises(UserError, match="the task is empty"):
        work(" ", [], tools, endpoint, limits=limits)
    with pytest.raises(UserError, match="above 0"):
        Limits(steps=0)
