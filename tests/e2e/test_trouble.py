"""Full disks, closed pipes and Ctrl-C at any moment, through the installed command."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
from tests.e2e.test_resume import ENVIRONMENT, PLAIT, command

LEAST = "stages.0.epochs=2"


def ended(process: subprocess.Popen) -> tuple[int, list[str]]:
    """Exit code, and the lines on stderr, which are no traceback."""
    _, errors = process.communicate(timeout=300)
    if "Traceback" in errors:
        pytest.fail(errors)  # whole: an assertion's words are cut
    return process.returncode, errors.strip().splitlines()


def started(arguments: list[str], **more: object) -> subprocess.Popen:
    return subprocess.Popen(
        arguments,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **more,  # type: ignore[call-overload]
    )


def half_written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name != ".lock"]


def limit_of_files() -> None:
    """Files of at most 20 kB, smaller than a checkpoint, stand in for a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_full_disk_and_then_the_same_command(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    same = command(pairs, out, "--set", LEAST, "--resume", "auto")
    code, lines = ended(started(same, preexec_fn=limit_of_files))
    assert code == 1
    assert len(lines) == 1
    assert f"--out {out} --resume auto" in lines[0]
    assert half_written(tmp_path) == []
    assert ended(started(same)) == (0, [])
    assert (out / "model.safetensors").exists()


@pytest.mark.parametrize("words", [("recipes",), ("data", "list", "--json")])
def test_output_that_nobody_takes(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [PLAIT, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no space is left" in done.stderr


def hold_signals() -> None:
    """As where the command starts itself over: Python's own start is not what is tried here."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


@pytest.mark.parametrize("after", [0.0, 0.06, 0.3, 1.0])
def test_ctrl_c_early(pairs: Path, tmp_path: Path, after: float) -> None:
    long = command(pairs, tmp_path / "run", "--set", "stages.0.epochs=3000")
    process = started(long, preexec_fn=hold_signals)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    code, lines = ended(process)
    assert (code, len(lines)) == (130, 1), lines
    assert half_written(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopped_again_and_again_the_same_command_ends_alike(
    pairs: Path, tmp_path: Path, how: signal.Signals
) -> None:
    unbroken, out = tmp_path / "unbroken", tmp_path / "run"
    assert ended(started(command(pairs, unbroken)))[0] == 0
    same = command(pairs, out, "--resume", "auto")
    for tenths in range(1, 60, 2):
        process = started(same)
        time.sleep(tenths / 10)
        process.send_signal(how)
        code, lines = ended(process)
        assert half_written(out) == []
        if code == 0:
            break
        assert (code, len(lines)) == (130, 1), lines
    assert ended(started(same))[0] == 0
    assert (out / "model.safetensors").read_bytes() == (unbroken / "model.safetensors").read_bytes()


COMMANDS = {
    "index": ("index", "RUN", "DATA", "--out", "OUT/index"),
    "embed": ("embed", "RUN", "DATA", "--out", "OUT/all.npz"),
    "export": ("export", "RUN", "--out", "OUT/bundle"),
    "evaluate": ("evaluate", "RUN"),
    "audit": ("data", "audit", "DATA"),
    "convert": ("data", "convert", "DATA", "OUT/converted", "--to", "webdataset"),
    "compress": ("compress", "RUN", "--out", "OUT/small", "--int8", "onnx"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_any_command_stopped_or_without_space(
    run: Path, pairs: Path, tmp_path: Path, name: str
) -> None:
    """Nothing is left but what was there; without a limit the same command then goes through."""
    out = tmp_path / "out"
    words = {"RUN": str(run), "DATA": str(pairs)}
    arguments = [words.get(word, word.replace("OUT", str(out))) for word in COMMANDS[name]]
    environment = {**ENVIRONMENT, "PLAIT_CACHE": str(tmp_path / "cache")}

    def once(**more: object) -> subprocess.Popen:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return subprocess.Popen(
            [PLAIT, *arguments], env=environment, text=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, **more,  # type: ignore[call-overload]
        )  # fmt: skip

    for size in (0, 1000, 20_000):
        process = once(preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size,) * 2))
        code, lines = ended(process)
        assert code in (0, 1, 2), lines
        assert code == 0 or list(out.iterdir()) == [], lines
    for tenths in range(1, 80, 5):
        process = once()
        time.sleep(tenths / 10)
        process.send_signal(signal.SIGINT)
        code, lines = ended(process)
        if code == 0:
            break
        assert code == 130
        assert lines[-1].endswith("stopped")
        assert list(out.iterdir()) == []
    assert ended(once())[0] == 0
    assert list(out.iterdir()) or "--out" not in arguments
