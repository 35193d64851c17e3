"""Fuzzing: gives mutated inputs to what takes bytes of strangers, and tells what went wrong.

    python -m tests.fuzz.run --minutes 10 decoders readers   # `make fuzz` runs every target
    python -m tests.fuzz.run --replay                        # what is kept, without atheris

An input fails that makes another exception than those for senders, takes more than 2 s of the
processor, is not done after 20 s, takes more memory than its target may, or ends the process. Each
failure is tried again alone, without instrumentation; what stands is in --out, to be put into
findings/TARGET.txt (`--keep`) once it is mended. Exit code 1 when there is any.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.fuzz.child import State
from tests.fuzz.kinds import BLOCKED, HERE, MIB, SECONDS, kept, written
from tests.fuzz.targets import NAMES

_ROOT = HERE.parents[1]
_START = 300.0  # seconds until a child gives its first input, on a busy machine
_TICK = 0.2


@dataclass
class Outcome:
    """What a run over a target found.

    Attributes:
        seconds: of fuzzing by the clock.
        executions: inputs given.
        crashes, hangs, memory: confirmed failures.
        unconfirmed: what did not fail again alone.
        slowest_seconds: of the processor, while instrumented and beside other work.
        slowest_alone: of the same input alone.
        peak_mb: that one process added beyond its start, its corpus included.
        limit_mb: what it may.
    """

    target: str
    seconds: float = 0.0
    executions: int = 0
    crashes: int = 0
    hangs: int = 0
    memory: int = 0
    unconfirmed: int = 0
    slowest_seconds: float = 0.0
    slowest_alone: float = 0.0
    slowest_bytes: int = 0
    peak_mb: float = 0.0
    limit_mb: float = 0.0
    corpus: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether anything is to be mended."""
        return bool(self.failures)


class Child:
    """One process of `tests.fuzz.child` and what it shows."""

    def __init__(self, target: str, folder: Path, *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        (folder / "state").unlink(missing_ok=True)
        self.seconds = 0.0  # since its first input
        self.state = State(folder / "state")
        self._log = (folder / "log").open("wb")
        command = [sys.executable, "-P", "-m", "tests.fuzz.child", target, str(folder), *arguments]
        self.process = subprocess.Popen(
            command,
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=_environment(),
        )

    def wait(self, seconds: float) -> str | None:
        """Until it ends; ``hang`` or ``died`` when the input in hand is to blame, else None."""
        end = time.monotonic() + seconds + _START
        problem, began = None, 0.0
        while self.process.poll() is None:
            time.sleep(_TICK)
            self.state.read()
            begun, now = self.state.begun, time.monotonic()
            began = began or (now if self.state.executions or begun else 0.0)
            self.seconds = now - began if began else 0.0
            if (begun and now - begun > BLOCKED) or now > end:
                problem = "hang" if begun else "stuck"
                self.process.kill()
                break
        code = self.process.wait()
        self._log.close()
        self.state.read()
        if problem is None and code != 0:
            problem = "died" if self.state.begun else "broken"
        if problem in ("stuck", "broken"):
            told = (self.folder / "log").read_text(errors="replace")[-2000:]
            raise SystemExit(f"the process of the fuzzer ended with {code}:\n{told}")
        return problem


def _environment() -> dict[str, str]:
    import os

    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS"), "1")
    path = f"{_ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, **threads, "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}


def fuzz(target: str, minutes: float, out: Path, *, quiet: bool = False) -> Outcome:
    """Mutated inputs for so many minutes; failures lie in ``out`` afterwards."""
    outcome, shown = Outcome(target), 0.0
    work = Path(tempfile.mkdtemp(prefix=f"plait-fuzz-{target}-"))
    corpus = work / "corpus"
    corpus.mkdir()
    for number, data in enumerate(_inputs(target)):
        (corpus / f"kept-{number:04}").write_bytes(data)
    suspects: dict[str, Path] = {}
    try:
        while (left := minutes * 60 - outcome.seconds) > 1:
            child = Child(target, work, "--seconds", str(left))
            problem = child.wait(left)
            state = child.state
            outcome.seconds = round(outcome.seconds + child.seconds, 1)
            outcome.executions += state.executions
            outcome.peak_mb = max(outcome.peak_mb, round(state.peak / MIB, 1))
            outcome.limit_mb = state.most / MIB
            if state.slowest > outcome.slowest_seconds:
                outcome.slowest_seconds = round(state.slowest, 3)
                _copy(work / "slowest", work / "slowest-of-all")
            if problem is not None:
                (work / f"{problem}-{len(suspects)}").write_bytes(state.held)
            suspects |= {path.name: path for path in _faults(work)}
            if not quiet and time.monotonic() - shown > 10:
                shown = time.monotonic()
                print(f"{target}: {outcome.executions:,} inputs", file=sys.stderr)
            if len(suspects) > 200:
                break
        outcome.corpus = sum(1 for _ in corpus.iterdir())
        _confirm(outcome, suspects, work, out)
        if (work / "slowest-of-all").exists():
            outcome.slowest_bytes = (work / "slowest-of-all").stat().st_size
            outcome.slowest_alone = round(_alone(target, work / "slowest-of-all", work).slowest, 3)
        shutil.copytree(corpus, out / target / "corpus", dirs_exist_ok=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return outcome


def _inputs(target: str) -> list[bytes]:
    return [*kept("corpus", target), *kept("findings", target)]


def _faults(folder: Path) -> list[Path]:
    """The inputs that a `Judge` or this module kept there."""
    kinds = ("crash", "slow", "memory", "hang", "died")
    return sorted(
        path for kind in kinds for path in folder.glob(f"{kind}-*") if path.suffix != ".txt"
    )


def _copy(source: Path, destination: Path) -> None:
    if source.exists():
        shutil.copyfile(source, destination)


@dataclass
class Alone:
    """What an input does in a process of its own."""

    problem: str | None
    told: str
    slowest: float
    peak: int


def _alone(target: str, path: Path, work: Path) -> Alone:
    folder = work / "alone"
    shutil.rmtree(folder, ignore_errors=True)
    child = Child(target, folder, str(path))
    problem, told = child.wait(BLOCKED), ""
    for found in _faults(folder):
        problem = found.name.partition("-")[0]
        told = (folder / f"{found.name}.txt").read_text(errors="replace")
    if problem in ("died", "hang"):
        told = (folder / "log").read_text(errors="replace")
    return Alone(problem, told, child.state.slowest, child.state.peak)


def _confirm(outcome: Outcome, suspects: dict[str, Path], work: Path, out: Path) -> None:
    place = out / outcome.target
    place.mkdir(parents=True, exist_ok=True)
    for name, path in sorted(suspects.items()):
        alone = _alone(outcome.target, path, work)
        if alone.problem is None:
            outcome.unconfirmed += 1
            _copy(path, place / f"unconfirmed-{name}")
            continue
        _copy(path, place / name)
        kind = {"crash": "crashes", "died": "crashes", "memory": "memory"}.get(
            alone.problem, "hangs"
        )
        setattr(outcome, kind, getattr(outcome, kind) + 1)
        last = (alone.told.strip().splitlines() or [""])[-1]
        outcome.failures.append(
            {"input": str(place / name), "kind": alone.problem, "told": last[:300]}
        )
        (place / f"{name}.txt").write_text(alone.told, errors="replace")


def replay(target: str, files: Sequence[Path] = ()) -> Outcome:
    """Every seed, and what is kept of a target, or these files; in one process within its limits."""
    outcome = Outcome(target)
    with tempfile.TemporaryDirectory(prefix="plait-fuzz-") as name:
        work = Path(name)
        paths = [path.resolve() for path in files]
        for number, data in enumerate(() if files else _inputs(target)):
            paths.append(work / f"input-{number:04}")
            paths[-1].write_bytes(data)
        if not paths:
            return outcome
        began = time.monotonic()
        child = Child(target, work / "run", *map(str, paths))
        problem = child.wait(len(paths) * SECONDS + BLOCKED)
        outcome.seconds = round(time.monotonic() - began, 1)
        outcome.executions = child.state.executions
        outcome.slowest_seconds = outcome.slowest_alone = round(child.state.slowest, 3)
        outcome.peak_mb = round(child.state.peak / MIB, 1)
        outcome.limit_mb = child.state.most / MIB
        if problem is not None:
            outcome.failures.append({"kind": problem, "told": written(child.state.held)[:300]})
        for path in _faults(work / "run"):
            kind, told = path.name.partition("-")[0], path.with_name(f"{path.name}.txt").read_text()
            held = written(path.read_bytes())
            outcome.failures.append({"kind": kind, "told": told[-3000:], "input": held})
    return outcome


def keep(target: str, file: Path, remark: str) -> None:
    """Adds an input to findings, which every run and the tests give again."""
    path = HERE / "findings" / f"{target}.txt"
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="ascii") as sink:
        sink.write(f"{written(file.read_bytes())}  # {remark}\n")


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="failures, corpora")
    parser.add_argument("--json", type=Path, help="write the outcomes here too, with a .md beside")
    parser.add_argument("--replay", action="store_true", help="only what is kept")
    parser.add_argument("--file", type=Path, action="append", default=[], help="only these inputs")
    parser.add_argument("--keep", metavar="REMARK", help="add the --file inputs to the findings")
    asked = parser.parse_args()
    unknown = set(asked.targets) - set(NAMES)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))} (there are {', '.join(NAMES)})")
    outcomes = []
    for target in asked.targets or NAMES:
        if asked.keep:
            for file in asked.file:
                keep(target, file, asked.keep)
        if asked.replay or asked.file:
            outcomes.append(replay(target, asked.file))
        else:
            outcomes.append(fuzz(target, asked.minutes, asked.out))
        print(json.dumps(asdict(outcomes[-1]), ensure_ascii=False), flush=True)
    if asked.json:
        write_results(asked.json, outcomes)
    return int(any(outcome.failed for outcome in outcomes))


def write_results(path: Path, outcomes: Sequence[Outcome]) -> None:
    """JSON, and a table as Markdown beside it."""
    value = {"python": platform.python_version(), "targets": [asdict(one) for one in outcomes]}
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [
        "# Fuzzing",
        "",
        "`python -m tests.fuzz.run --minutes M`: mutated inputs by coverage (atheris). Slowest: "
        "seconds of the processor, alone. Peak: what one process added, with the fuzzer's corpus.",
        "",
        "| target | minutes | inputs | crashes | hangs | memory | slowest, s | peak, MB (limit) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.target} | {one.seconds / 60:.1f} | {one.executions:,} | {one.crashes} | "
        f"{one.hangs} | {one.memory} | {one.slowest_alone:.2f} | "
        f"{one.peak_mb:.0f} ({one.limit_mb:.0f}) |"
        for one in outcomes
    ]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
