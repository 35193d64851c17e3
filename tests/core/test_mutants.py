"""What `make mutants` changes, which tests it takes for it, and what it writes."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = """\
from __future__ import annotations
if TYPE_CHECKING:
    x = 1
LIMIT = 7
def f(a: int | None, *, b: int = 3) -> int | None:
    total = (
        a * b
    )
    return total + LIMIT
def never() -> None:
    return 4
def loop() -> None:
    for _ in range(
        5
    ):
        pass
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    module = importlib.import_module("mutants")
    (tmp_path / "m.py").write_text(SOURCE)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "modules", lambda: {"m.py": "area"})
    return module


def test_one_change_a_place_and_none_where_nothing_runs(tool: ModuleType) -> None:
    found = tool.mutants(0)
    places = [(one.line, one.column) for one in found]
    assert sorted(places) == [(4, 8), (5, 33), (7, 10), (9, 17), (11, 11), (13, 13), (14, 8)]
    for one in found:
        before, after = tool.change(one)
        begins = 13 if one.line == 14 else one.line  # that operator takes the break before it too
        assert before != after and before == SOURCE.splitlines()[begins - 1].strip()
    assert [one.key for one in tool.mutants(1)] != [one.key for one in found]


def test_a_place_gets_the_tests_that_run_it(tool: ModuleType) -> None:
    lines = {"4": [], "5": [], "6": ["t.py::slow", "t.py::fast"], "9": ["t.py::slow"], "10": []}
    other = {
        "file": "u.py",
        "lines": {"m.py": {"7": ["u.py"], "13": ["u.py"]}},
        "seconds": {"u.py::one": 2.0},
    }
    seconds = {"t.py::slow": 15.0, "t.py::fast": 1.0}
    selection = tool.Selection(
        [{"file": "t.py", "lines": {"m.py": lines}, "seconds": seconds}, other]
    )
    tests = {one.line: selection.of(one) for one in tool.mutants(0)}
    every = ["t.py::fast", "u.py::one", "t.py::slow"]
    # A constant of the module, a default, a line of a statement with a fixture of a file, a line;
    # and what a loop goes over.
    one = ["u.py::one"]
    assert tests == {4: every, 5: every, 7: one, 9: ["t.py::slow"], 11: [], 13: one, 14: one}
    assert selection.chosen(every) == ["t.py::fast", "t.py::slow", "u.py::one"]  # file by file
    selection.seconds["u.py::one"] = 10.0
    assert selection.chosen(every) == every[:2]


def test_results_keep_the_reasons_of_survivors(tool: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "mutants.json"
    common = {"area": "objectives", "module": "m.py", "operator": "o", "run": 1, "of": 2}
    results = [
        {**common, "line": 4, "before": "a | b", "after": "a", "outcome": "survived"},
        {**common, "line": 7, "before": "c", "after": "d", "outcome": "killed"},
    ]
    tool.write(results, target, 2, 0, ["objectives"])
    found = json.loads(target.read_text())
    assert found["areas"]["objectives"] == {"n": 2, "killed": 1, "percent": 50.0}
    found["survivors"][0]["reason"] = "the same"
    target.write_text(json.dumps(found))
    results[0]["line"] = 5  # it moved
    tool.write(results, target, 2, 0, ["objectives"])
    assert json.loads(target.read_text())["survivors"][0]["reason"] == "the same"
    assert (
        r"| m.py:5 | `a \| b` | `a` | 1 of 2 | the same |" in target.with_suffix(".md").read_text()
    )
