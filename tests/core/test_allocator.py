"""The process is started over exactly once, and only where that helps."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from plait.core import allocator

on_glibc = pytest.mark.skipif(not allocator.is_glibc(), reason="settings of the GNU C library")

# Loads the file by itself: what a program sees that imports nothing else of plait.
PROGRAM = """
import importlib.util, json, os, sys
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("allocator", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["allocator"] = module
spec.loader.exec_module(module)
if len(sys.argv) > 3:
    sys.modules["torch"] = None
print(f"start {os.getpid()}", file=sys.stderr)
module.ensure_tuned()
print(json.dumps({
    "pid": os.getpid(),
    "argv": sys.argv[1:],
    "environ": {k: os.environ.get(k) for k in [*module.SETTINGS, module.GUARD]},
    "loaded": sorted((set(sys.modules) - before) & {"torch", "numpy", "openvino"}),
}))
"""


def run(*arguments: str, **environ: str) -> tuple[dict, list[str]]:
    ours = {*allocator.SETTINGS, allocator.GUARD, allocator.OFF_SWITCH, "GLIBC_TUNABLES"}
    clean = {k: v for k, v in os.environ.items() if k not in ours}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, allocator.__file__, *arguments],
        env={**clean, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout), done.stderr.splitlines()


@on_glibc
def test_starts_over_once_with_the_same_arguments() -> None:
    result, starts = run("a b")
    assert result["environ"] == {**allocator.SETTINGS, allocator.GUARD: "1"}
    assert result["argv"] == [allocator.__file__, "a b"]
    assert len(starts) == 2 and len(set(starts)) == 1  # twice, and the same process
    assert result["loaded"] == []


@on_glibc
def test_keeps_what_the_user_set() -> None:
    result, starts = run(MALLOC_TOP_PAD_="4096", GLIBC_TUNABLES="glibc.malloc.trim_threshold=77")
    assert result["environ"]["MALLOC_TOP_PAD_"] == "4096"
    assert result["environ"]["MALLOC_TRIM_THRESHOLD_"] is None
    assert result["environ"]["THP_MEM_ALLOC_ENABLE"] == "1"
    assert len(starts) == 2


@on_glibc
@pytest.mark.parametrize(
    "environ", [{"PLAIT_TUNE": "0"}, {"PLAIT_TUNED": "1"}, dict(allocator.SETTINGS)]
)
def test_leaves_the_process_alone(environ: dict[str, str]) -> None:
    result, starts = run(**environ)
    assert len(starts) == 1
    assert {k: v for k, v in result["environ"].items() if v is not None} == {
        k: v for k, v in environ.items() if k != "PLAIT_TUNE"
    }


def test_leaves_a_process_that_has_torch_alone() -> None:
    _, starts = run("x", "torch")
    assert len(starts) == 1


def test_does_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("started over"))
    for name in (allocator.GUARD, allocator.OFF_SWITCH):
        monkeypatch.delenv(name, raising=False)
    allocator.ensure_tuned()
    assert allocator.describe() == allocator.AllocatorReport(False, {}, {}, None, "")


@on_glibc
def test_goes_on_when_it_cannot_start_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise OSError("no such file")

    for name in (allocator.GUARD, allocator.OFF_SWITCH, *allocator.SETTINGS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(os, "execve", fails)
    allocator.ensure_tuned()
    assert "memory settings not applied (no such file)" in capsys.readouterr().err


@on_glibc
def test_describe_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*allocator.SETTINGS, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    report = allocator.describe()
    assert report.active == {"MALLOC_TOP_PAD_": "1"}
    assert set(report.missing) == set(allocator.SETTINGS) - {"MALLOC_TOP_PAD_"}
    assert "THP_MEM_ALLOC_ENABLE=1" in report.advice
    for name, value in allocator.SETTINGS.items():
        monkeypatch.setenv(name, value)
    assert allocator.describe().advice == ""


def test_processes_that_serve_give_memory_back_unless_the_user_chose() -> None:
    tuned = {"HOME": "/h", allocator.GUARD: "1", **allocator.SETTINGS}
    assert allocator.without_tuning(tuned) == {"HOME": "/h", allocator.GUARD: "1"}
    assert allocator.for_serving(tuned)["MALLOC_TRIM_THRESHOLD_"] == str(64 << 20)
    chosen = {**tuned, "MALLOC_TRIM_THRESHOLD_": "7"}
    assert allocator.for_serving(chosen)["MALLOC_TRIM_THRESHOLD_"] == "7"
    untouched = {"HOME": "/h", **allocator.SETTINGS}  # without the mark all of it is the user's
    assert allocator.for_serving(untouched) == untouched


@on_glibc
def test_freed_memory_in_pieces_goes_back() -> None:
    code = """
import os, psutil
from plait.core.allocator import give_back
held = [bytes([n % 251]) * 50_000 for n in range(4000)]
del held[::2]
assert not give_back(1 << 30)
before = psutil.Process().memory_info().rss
assert give_back(50 << 20)
print(before - psutil.Process().memory_info().rss)
"""
    environ = allocator.without_tuning({**os.environ, allocator.GUARD: "1"})
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environ, check=True
    )
    assert int(done.stdout) > 40e6  # of the 100 MB
