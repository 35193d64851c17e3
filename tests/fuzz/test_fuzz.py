"""What is kept is taken well; the driver finds what is planted; the slow tests look for more."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL.PngImagePlugin import PngImageFile
from tests.fuzz import run, seeds
from tests.fuzz.child import Judge, State
from tests.fuzz.kinds import HERE, MIB, Target, kept
from tests.fuzz.seeds import with_png_checks, with_tar_checks
from tests.fuzz.targets import NAMES, target_named

_MINUTES = 10  # of the slow tests, for each target
_MOST_KEPT = 100_000  # bytes of corpus and findings together


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_is_taken_well(name: str, tmp_path: Path) -> None:
    """Seeds, corpus and past findings, in this process."""
    target = target_named(name)
    for data in target.seeds():
        with suppress(*target.allowed):
            target.run(data)  # what is imported late takes seconds, once
    judge = Judge(target, tmp_path, State(tmp_path / "state"))
    judge.base = 1 << 60  # memory is measured in a process of its own
    for data in [*target.seeds(), *kept("corpus", name), *kept("findings", name)]:
        judge.give(data)
    assert not judge.found, [path.read_text() for path in tmp_path.glob("*.txt")]


def test_kept_inputs_are_few_and_small() -> None:
    files = [*HERE.glob("corpus/*"), *HERE.glob("findings/*")]
    assert {path.stem for path in files} <= set(NAMES)
    assert sum(path.stat().st_size for path in files) < _MOST_KEPT


def test_seeds_are_well_formed() -> None:
    """A fuzzer that starts from refused inputs sees little of the code behind the refusals."""
    for name in NAMES:
        target = target_named(name)
        refused = 0
        for data in target.seeds():
            try:
                target.run(data)
            except target.allowed:
                refused += 1
        assert refused <= len(target.seeds()) // 3, name


def _planted(data: bytes) -> None:
    if data[:1] == b"c":
        raise ZeroDivisionError(data[:1])
    if data[:1] == b"u":
        raise KeyError("a sender's fault")
    if data[:1] == b"s":
        while True:  # until the time is above the limit
            if sum(range(10**6)) and time.process_time() > float(data[1:]):
                return


def _judge(folder: Path, memory: int = 1 << 40) -> Judge:
    target = Target("planted", _planted, list, (KeyError,), memory=memory)
    return Judge(target, folder, State(folder / "state"))


def test_a_crash_is_kept_and_a_refusal_is_none(tmp_path: Path) -> None:
    judge = _judge(tmp_path)
    for data in (b"fine", b"u", b"c and more", b"c", b"c again"):
        judge.give(data)
    (name,) = judge.found
    assert name.startswith("crash-")
    assert (tmp_path / name).read_bytes() == b"c"  # the shortest
    assert "ZeroDivisionError" in (tmp_path / f"{name}.txt").read_text()
    state = State(tmp_path / "state")
    assert (state.executions, state.held, state.begun) == (5, b"c again", 0.0)


def test_a_slow_input_is_kept(tmp_path: Path) -> None:
    judge = _judge(tmp_path)
    judge.give(b"s%f" % (time.process_time() + 2.1))
    assert list(judge.found) == ["slow-1"]
    assert State(tmp_path / "state").slowest > 2


def test_a_large_input_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = _judge(tmp_path, memory=MIB)
    judge.base -= 2 * MIB
    left: list[bool] = []
    monkeypatch.setattr(judge, "leave", lambda: left.append(True))
    judge.give(b"x")
    assert list(judge.found) == ["memory-1"]
    assert left == [True]


@pytest.mark.parametrize(
    ("code", "problem"),
    [("import os; os.abort()", "died"), ("import time; time.sleep(60)", "hang")],
)
def test_what_ends_or_blocks_the_process_is_told(
    code: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "BLOCKED", 0.5)
    started = subprocess.Popen

    def popen(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        give = (
            "import sys; from pathlib import Path; from tests.fuzz.child import State\n"
            f"State(Path({str(tmp_path / 'state')!r})).hold(b'guilty'); {code}"
        )
        return started([sys.executable, "-c", give], **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    child = run.Child("planted", tmp_path)
    assert child.wait(30) == problem
    assert child.state.held == b"guilty"


def test_repaired_files_have_right_checksums() -> None:
    whole = seeds.picture()
    damaged = bytearray(whole)
    damaged[24] = 16  # the depth of its header
    assert with_png_checks(whole) == whole
    with pytest.raises(SyntaxError, match="checksum"):
        _png(bytes(damaged))
    assert _png(with_png_checks(bytes(damaged))).size == (8, 8)
    shard = bytearray(seeds.tar())
    assert with_tar_checks(bytes(shard)) == bytes(shard)
    shard[0:1] = b"z"
    with tarfile.open(fileobj=io.BytesIO(with_tar_checks(bytes(shard)))) as file:
        assert file.getnames()[0] == "z/1.png"


def _png(data: bytes) -> PngImageFile:
    return PngImageFile(io.BytesIO(data))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this platform")
@pytest.mark.parametrize("name", NAMES)
def test_no_input_of_ten_minutes_is_taken_badly(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.run", "--minutes", str(_MINUTES)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path), name], cwd=HERE.parents[1], capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode()[-5000:] + done.stderr.decode()[-2000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["executions"] > 1000
    assert outcome["slowest_alone"] <= 2
    assert outcome["peak_mb"] <= outcome["limit_mb"]
