"""The process that gives inputs to one target, within limits of memory, and keeps what goes wrong.

    python -m tests.fuzz.child TARGET FOLDER [--seconds 60] [FILE ...]

With files it gives only these; else atheris makes inputs. What a parent must know although the
process may die at any moment lies in FOLDER/state, which both map: see `State`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import mmap
import os
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from types import TracebackType

from tests.fuzz.kinds import SECONDS, Target
from tests.fuzz.targets import BEFORE, target_named

_HEAD = struct.Struct("<QdddQQQ")  # as in `State.write`
_ROOM = 1 << 20
_SLACK = 2  # the system's limit is so many times the target's: it is a wall, not the measure
_SEED = 1


class State:
    """Counts, the input in hand, shared with the parent.

    Attributes:
        executions: so far.
        begun: when the input in hand was given (time.monotonic); 0 between two.
        slowest: seconds of the processor.
        waited: of the slowest by the clock.
        peak: bytes that the inputs have added to the process.
        most: bytes that they may add.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_HEAD.size + _ROOM))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.read()

    def read(self) -> None:
        """Takes what the other process wrote."""
        self.executions, self.begun, self.slowest, self.waited, *rest = _HEAD.unpack_from(self._map)
        self.peak, self.most, self._length = rest

    def write(self) -> None:
        """Shows what is known to the other process."""
        _HEAD.pack_into(
            self._map,
            0,
            *(self.executions, self.begun, self.slowest, self.waited),
            *(self.peak, self.most, self._length),
        )

    def hold(self, data: bytes) -> None:
        """Before an input is given."""
        self._length = min(len(data), _ROOM)
        self._map[_HEAD.size : _HEAD.size + self._length] = data[: self._length]
        self.begun = time.monotonic()
        self.write()

    @property
    def held(self) -> bytes:
        """The input in hand."""
        return self._map[_HEAD.size : _HEAD.size + self._length]


class Judge:
    """Gives inputs to a target and keeps those that it takes badly in a folder.

    A file is named after the fault: ``crash-``, ``slow-`` or ``memory-`` and a digest of where it
    came from; of several inputs with one fault the shortest stays. ``NAME.txt`` says what happened.
    """

    def __init__(self, target: Target, folder: Path, state: State) -> None:
        self.target, self.folder, self.state = target, folder, state
        self.found: dict[str, int] = {}
        self.base = _peak_bytes()
        state.most = target.memory

    def give(self, data: bytes) -> None:
        """One input."""
        state = self.state
        state.hold(data)
        used = time.process_time()
        try:
            self.target.run(data)
        except self.target.allowed:
            pass
        except Exception as error:
            self._keep(f"crash-{_place(error)}", data, traceback.format_exc())
        used = time.process_time() - used
        waited = time.monotonic() - state.begun
        state.executions += 1
        state.begun, state.waited = 0.0, max(waited, state.waited)
        grown = _peak_bytes() - self.base
        if used > state.slowest:
            state.slowest = used
            if used > 0.05:
                (self.folder / "slowest").write_bytes(data)
        if used > SECONDS:
            self._keep("slow-1", data, f"{used:.1f} s of the processor")
        if grown > state.peak:
            state.peak = grown
            (self.folder / "largest").write_bytes(data)
        state.write()
        if grown > self.target.memory:
            self._keep("memory-1", data, f"{grown / 1e6:.0f} MB")
            self.leave()  # the peak of a process never falls

    def leave(self) -> None:
        """Ends the process; the parent starts another."""
        os._exit(0)

    def _keep(self, name: str, data: bytes, told: str) -> None:
        if self.found.get(name, 1 << 30) <= len(data):
            return
        self.found[name] = len(data)
        (self.folder / name).write_bytes(data)
        (self.folder / f"{name}.txt").write_text(told, encoding="utf-8", errors="replace")


def _place(error: BaseException) -> str:
    """Tells faults apart: the kind of the error, and the innermost two places in plait."""
    frames = [
        (Path(frame.filename).name, frame.name, frame.lineno)
        for frame in traceback.extract_tb(_traceback(error))
        if "plait" in frame.filename or "fuzz" in frame.filename
    ]
    told = f"{type(error).__name__} {frames[-2:]}"
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def _traceback(error: BaseException) -> TracebackType | None:
    return error.__traceback__


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _data_bytes() -> int:
    """Private memory of this process, as RLIMIT_DATA counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmData in /proc/self/status")


def limit_memory(target: Target) -> None:
    """Sets a wall above what the process has now."""
    most = _data_bytes() + _SLACK * target.memory
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def fuzz(target: Target, judge: Judge, seconds: float) -> None:
    """Lets atheris make inputs. Does not return."""
    import atheris

    corpus, words = judge.folder / "corpus", judge.folder / "words"
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number:04}").write_bytes(seed)
    words.write_text(
        "".join('"' + "".join(f"\\x{c:02x}" for c in word) + '"\n' for word in target.words)
    )
    arguments = [
        *("fuzz", str(corpus), f"-max_total_time={max(1, int(seconds))}"),
        *(f"-max_len={target.longest}", f"-dict={words}", "-timeout=3600", "-rss_limit_mb=0"),
        *("-malloc_limit_mb=0", "-len_control=20", "-detect_leaks=0", "-verbosity=0"),
        *(f"-artifact_prefix={judge.folder}/native-",),
    ]
    options = {}
    if target.repair is not None:
        repair = target.repair

        def mutated(data: bytes, most: int, seed: int) -> bytes:
            made = atheris.Mutate(data, most)
            return repair(made)[:most] if random.Random(seed).random() < 0.7 else made

        options["custom_mutator"] = mutated
    atheris.Setup(arguments, judge.give, **options)
    atheris.Fuzz()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("files", nargs="*", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    tempfile.tempdir = str(asked.folder)  # the parent removes it, however this process ends
    traced: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if not asked.files:
        import atheris

        for name in BEFORE.get(asked.target, ()):
            importlib.import_module(name)
        traced = atheris.instrument_imports(
            include=["plait", "PIL", "starlette", "python_multipart"]
        )
    with traced:
        target = target_named(asked.target)
        for data in target.seeds():  # what is imported late belongs to the base
            with contextlib.suppress(Exception):
                target.run(data)
    judge = Judge(target, asked.folder, State(asked.folder / "state"))
    limit_memory(target)
    for path in asked.files:
        judge.give(path.read_bytes())
    if not asked.files:
        fuzz(target, judge, asked.seconds)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
