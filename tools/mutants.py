"""Mutation testing: one small change at a time, and the tests that run the changed line.

    make mutants                      # ten minutes; the same command goes on where it stopped
    make mutants MINUTES=15 SAMPLE=500
    python tools/mutants.py --planted benchmarks/results/planted_faults.json

What is changed, `AREAS`: what decides figures and choices. cosmic-ray's operators make the changes, in
a copy of the repository; a map by coverage tells which tests run which line. Libraries are imported
once, and each mutant is tried in a fork. A survivor is tried again when its tests have changed.
The sample is by a hash of each place, so that a larger one holds the smaller one.
"""

from __future__ import annotations

import argparse
import ast
import gc
import hashlib
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DRAWN = "evaluation/report/{plots,compare_chart,html}.py"  # looks, not figures
AREAS = {
    "objectives": ["objectives/**/*.py"],
    "evaluation": ["evaluation/**/*.py"],
    "compression": ["compression/*.py"],
    "splits": [
        "data/base/splits.py",
        "data/base/dataset.py",
        "data/base/equal_texts.py",
        "data/sets/openmoji.py",
    ],
    "training": [
        "training/loop/average.py",
        "training/run/checkpoint.py",
        "training/loop/loop.py",
        "training/batches/rows.py",
        "training/run/run_folder.py",
        "training/run/saving.py",
        "training/run/stage_data.py",
        "training/batches/supply.py",
        "training/tasks/validation.py",
    ],
}
TESTS = {
    "objectives": ["objectives", "parity/test_contrastive*.py", "property"],
    "evaluation": [
        "evaluation",
        "parity/test_captions.py",
        "property",
        "training/tasks/test_validation.py",
    ],
    "compression": ["compression"],
    "splits": [
        "data/base",
        "data/sets/test_openmoji.py",
        "data/sets/test_sets.py",
        "data/open/test_open.py",
    ],
    "training": ["training", "engines/test_features.py", "e2e/test_resume.py"],
}
"""Where the tests of an area are; with several areas, those of each are asked about all."""
APART = {"objectives": ["parity/test_contrastive_ranks.py"]}
"""Tests whose work is done by processes that the map can't look into: asked last, about the area."""
TRIVIAL = re.compile(r"NoOp|Invert|Operator_(?!Bit)\w+_([LR]Shift|Bit\w+)$")
"""Operators that any test kills, because numbers with a fraction know no bits."""
LIBRARIES = [
    "torch", "torchvision", "timm", "transformers", "accelerate", "peft", "numpy", "scipy.stats",
    "sklearn.metrics", "PIL.Image", "matplotlib.pyplot", "pyarrow.parquet", "datasets", "pydantic",
    "typer", "rich", "yaml", "hypothesis", "torchmetrics", "schemathesis.pytest.plugin",
    "anyio.pytest_plugin", "xdist.plugin",
]  # fmt: skip
PARTS = [
    "core",
    "data",
    "runtime",
    "encoders",
    "models",
    "fusion",
    "language",
    "bridges",
    "training",
]
"""Packages of plait whose modules are imported once too, where they need none that is changed."""
TESTED_SECONDS = 20.0  # of tests of one mutant, the fastest first
OWN_SECONDS = 20.0  # of the processor that importing and a mutation's slowness may cost beyond


@dataclass(frozen=True)
class Mutant:
    """One change: an operator's ``occurrence`` in a module, at a place ``line``, ``column``."""

    area: str
    module: str
    operator: str
    occurrence: int
    line: int
    column: int
    key: str


# What to change ------------------------------------------------------------------------------


def modules() -> dict[str, str]:
    """The modules that are changed, and the area of each."""
    home, found = ROOT / "src/plait", {}
    for area, patterns in AREAS.items():
        for path in sorted(path for pattern in patterns for path in home.glob(pattern)):
            if path.name not in {"__init__.py", *drawn()}:
                found[str(path.relative_to(ROOT))] = area
    return found


def drawn() -> list[str]:
    """Names of the files that only draw."""
    return [f"{name}.py" for name in DRAWN[DRAWN.index("{") + 1 : DRAWN.index("}")].split(",")]


def never_run(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Spans of annotations and of what is for type checkers alone: (line, column) from and to."""
    spans: list[ast.AST] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns:
            spans.append(node.returns)
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            spans.append(node.annotation)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            spans.append(node)
    return [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in spans]  # type: ignore[attr-defined]


def mutants(seed: int) -> list[Mutant]:
    """One for each place that some operator can change, in the order of a hash."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    found = []
    operators = {name: get_operator(name) for name in operator_names()}
    plain = {n: o() for n, o in operators.items() if not o.arguments() and not TRIVIAL.search(n)}
    for module, area in modules().items():
        source = (ROOT / module).read_text(encoding="utf-8")
        digest, skipped = _hash(source), never_run(source)
        places: dict[tuple[int, int], list[Mutant]] = defaultdict(list)
        nodes = list(ast_nodes(get_ast(source)))
        for name, operator in plain.items():
            spots = ((n, start) for n in nodes for start, _ in operator.mutation_positions(n))
            for occurrence, (node, place) in enumerate(spots):
                if not _star(node) and not any(start <= place < end for start, end in skipped):
                    key = _hash(f"{digest}:{name}:{occurrence}")
                    places[place].append(Mutant(area, module, name, occurrence, *place, key))
        found += [min(one, key=lambda m: _hash(f"{seed}:{m.key}")) for one in places.values()]
    return sorted(found, key=lambda mutant: _hash(f"{seed} {mutant.key}"))


def _star(node: Any) -> bool:
    """Whether it is the star of a parameter list, which multiplies nothing."""
    return node.type == "operator" and node.parent.type in {"parameters", "param", "lambdef"}


def mutated(mutant: Mutant) -> str:
    """The module with the change."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    source = (ROOT / mutant.module).read_text(encoding="utf-8")
    result = mutate_code(source, get_operator(mutant.operator)(), mutant.occurrence)
    assert result is not None, mutant
    return str(result)


def change(mutant: Mutant) -> tuple[str, str]:
    """The line before and after; a change over several lines begins there."""
    before = (ROOT / mutant.module).read_text(encoding="utf-8").splitlines()
    after = mutated(mutant).splitlines()
    first = next(n for n, pair in enumerate(zip(before, after)) if pair[0] != pair[1])
    return before[first].strip(), after[first].strip()


def _source(module: str) -> str:
    path = ROOT / module
    return _hash(path.read_text(encoding="utf-8")) if path.is_file() else ""


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# What every trial needs ----------------------------------------------------------------------


def unchanged() -> list[str]:
    """Modules of plait that import none of those that are changed, not even through others."""
    home = ROOT / "src"
    paths = {
        ".".join(p.relative_to(home).with_suffix("").parts).removesuffix(".__init__"): p
        for p in sorted((home / "plait").rglob("*.py"))
    }
    needed = {name: _needed(name, path, set(paths)) for name, path in paths.items()}
    reached = {name for name, path in paths.items() if str(path.relative_to(ROOT)) in modules()}
    while more := {name for name in needed if name not in reached and needed[name] & reached}:
        reached |= more
    return [name for name in paths if name not in reached]


def _needed(name: str, path: Path, known: set[str]) -> set[str]:
    """The modules among ``known`` that importing a module imports, their packages included."""

    def statements(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            types_alone = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            if not types_alone and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield child
                yield from statements(child)

    found = {name.rpartition(".")[0]}
    for one in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(one, ast.Import):
            found |= {alias.name for alias in one.names}
        elif isinstance(one, ast.ImportFrom) and one.module:
            found |= {one.module, *(f"{one.module}.{alias.name}" for alias in one.names)}
    packages = {part.rsplit(".", n)[0] for part in found for n in range(part.count(".") + 1)}
    return packages & known


def preload() -> None:
    """Imports what all trials share; by every fork anew it would take most of the time."""
    from jaxtyping import install_import_hook

    sys.path[:0] = [str(ROOT), str(ROOT / "src")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in LIBRARIES:
            importlib.import_module(name)
        with install_import_hook("plait", "beartype.beartype"):  # as tests/conftest.py has it
            for name in unchanged():
                if name.split(".")[1:2] in [[part] for part in PARTS]:
                    importlib.import_module(name)
    gc.collect()
    gc.freeze()  # no fork walks through what it did not make


# Which tests run what ------------------------------------------------------------------------


class _Recorder:
    """A pytest plugin: coverage by test, and the seconds of each."""

    def __init__(self, coverage: Any = None) -> None:
        self.coverage, self.seconds, self.failed = coverage, dict[str, float](), ""

    def pytest_configure(self, config: Any) -> None:
        # Tests that are drawn at random draw the same each time, however slow the machine.
        from hypothesis import settings

        settings.register_profile("mutants", deadline=None, derandomize=True, database=None)
        settings.load_profile("mutants")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: Any) -> None:
        self._switch(item.nodeid.partition("::")[0])  # a fixture may serve the whole file

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: Any) -> None:
        self._switch(item.nodeid)

    def _switch(self, context: str) -> None:
        if self.coverage is not None:
            self.coverage.switch_context(context)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Any:
        before = sum(os.times()[:4])  # of the processor, children included: machines may be busy
        result = yield
        self.seconds[item.nodeid] = sum(os.times()[:4]) - before
        return result

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


@dataclass(frozen=True)
class Work:
    """A folder with the copy, the map and the results; ``end`` by the monotonic clock."""

    folder: Path
    end: float
    areas: list[str]

    @property
    def tree(self) -> Path:
        """The copy."""
        return self.folder / "tree"

    def copy(self) -> None:
        """What git knows or would add, into the copy; untouched files keep their times."""
        names = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-zco", "--exclude-standard"],
            check=True,
            capture_output=True,
        ).stdout.decode()
        for name in filter(None, names.split("\0")):
            source, target = ROOT / name, self.tree / name
            if source.is_file() and not (
                target.is_file() and target.read_bytes() == source.read_bytes()
            ):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def map(self) -> list[dict[str, Any]]:
        """By test file: ``lines`` (module -> line -> tests) and ``seconds`` of each test."""
        folder, found = self.folder / "map", []
        folder.mkdir(exist_ok=True)
        for path in test_files(self.areas):
            name = str(path.relative_to(ROOT))
            target = folder / f"{_hash(name + path.read_text(encoding='utf-8'))}.json"
            known = json.loads(target.read_text()) if target.exists() else {"sources": {name: ""}}
            if any(_source(module) != digest for module, digest in known["sources"].items()):
                if time.monotonic() > self.end:
                    raise SystemExit(f"{name} is not mapped yet: go on with the same command")
                print(f"mapping {name}", flush=True)
                code, told = self.fork(lambda name=name, target=target: _mapped(name, target))
                if code:
                    raise SystemExit(f"{name} fails as it is:\n{told}")
            found.append(json.loads(target.read_text()))
        return found

    def known(self) -> dict[str, dict[str, Any]]:
        """The newest result under each ``key``."""
        store = self.folder / "results.jsonl"
        lines = store.read_text().splitlines() if store.exists() else []
        return {one["key"]: one for one in map(json.loads, lines)}

    def remember(self, result: dict[str, Any]) -> None:
        """Keeps a result."""
        with (self.folder / "results.jsonl").open("a") as file:
            file.write(json.dumps(result) + "\n")

    def fork(self, function: Any, *, cpu: float = 900, wall: float = 1800) -> tuple[int, str]:
        """The exit code of a function in a process of its own, and what it printed.

        A negative code is a signal's: of the limits in seconds, or of a crash.
        """
        log, temporary = self.folder / "log", self.folder / "tmp"
        process = os.fork()
        if process == 0:
            try:
                os.setsid()
                with log.open("wb") as file:
                    os.dup2(file.fileno(), 1)
                    os.dup2(file.fileno(), 2)
                resource.setrlimit(resource.RLIMIT_CPU, (int(cpu), int(cpu) + 5))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                os.chdir(self.tree)
                os.environ["PYTHONPATH"] = str(self.tree / "src")
                code = function()
            except BaseException:
                import traceback

                traceback.print_exc()
                code = 70
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        end, status = time.monotonic() + wall, 0
        while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > end:
                break
            time.sleep(0.02)
        for left in (process, -process):  # and whatever the tests have started
            with_children = os.killpg if left < 0 else os.kill
            try:
                if left < 0 or time.monotonic() > end:
                    with_children(abs(left), signal.SIGKILL)
            except ProcessLookupError:
                pass
        _, status = os.waitpid(process, 0)
        shutil.rmtree(temporary, ignore_errors=True)
        return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")[-4000:]


def test_files(areas: list[str]) -> list[Path]:
    """The files with the tests of some areas."""
    home = ROOT / "tests"
    paths = (path for area in areas for pattern in TESTS[area] for path in home.glob(pattern))
    return sorted({f for p in paths for f in (p.rglob("test_*.py") if p.is_dir() else [p])})


def _pytest(names: Iterable[str], recorder: _Recorder) -> int:
    temporary = Path.cwd().parent / "tmp"
    options = ["-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider"]
    # Libraries that wait imported are warned of; and the processor's time is what is limited.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    options += ["--timeout=0", "-o", "faulthandler_timeout=0"]
    return int(pytest.main([*options, f"--basetemp={temporary}", *names], plugins=[recorder]))


def _mapped(name: str, target: Path) -> int:
    from coverage import Coverage

    data = target.with_suffix(".coverage")
    data.unlink(missing_ok=True)
    measured = Coverage(data_file=str(data), source=["plait"], config_file=False)
    recorder = _Recorder(measured)
    measured.start()
    code = _pytest([name], recorder)
    measured.stop()
    lines: dict[str, dict[int, list[str]]] = {}
    for file in measured.get_data().measured_files():
        module = str(Path(file).relative_to(Path.cwd()))
        if module in modules():
            by_line = measured.get_data().contexts_by_lineno(file)
            lines[module] = {n: [c for c in found if c] for n, found in by_line.items()}
    if code in (0, 5):  # 5: all of its tests are slow ones
        sources = {module: _source(module) for module in lines}
        found = {"file": name, "lines": lines, "seconds": recorder.seconds, "sources": sources}
        target.write_text(json.dumps(found))
    return 0 if code == 5 else code


class Selection:
    """The tests that run a line, by the map."""

    def __init__(self, mapped: list[dict[str, Any]]) -> None:
        self.seconds = {test: s for one in mapped for test, s in one["seconds"].items()}
        self._lines: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        of_file = {one["file"]: set(one["seconds"]) for one in mapped}
        for one in mapped:
            for module, lines in one["lines"].items():
                for line, contexts in lines.items():
                    for context in contexts:
                        tests = of_file.get(context, {context})
                        self._lines[module][int(line)] |= tests

    def of(self, mutant: Mutant) -> list[str]:
        """All tests that run the place, the fastest first.

        A line that no test runs by itself (a default, a constant, a decorator) belongs to its
        function, else to its module.
        """
        lines = self._lines[mutant.module]
        for first, last in _around(mutant.module, mutant.line):
            tests = {t for line, ts in lines.items() if first <= line <= last for t in ts}
            if tests:
                return sorted(tests, key=lambda test: (self.seconds[test], test))
        return []

    def spent(self, tests: list[str]) -> float:
        """Seconds that tests take."""
        return sum(self.seconds[test] for test in tests)

    def apart(self, area: str) -> list[str]:
        """The tests of `APART`, the fastest first."""
        files = {f"tests/{name}" for name in APART.get(area, ())}
        tests = (test for test in self.seconds if test.partition("::")[0] in files)
        return sorted(tests, key=lambda test: (self.seconds[test], test))

    def chosen(self, tests: list[str]) -> list[str]:
        """The fastest, as many as `TESTED_SECONDS` allow, those of a file side by side."""
        left, files = TESTED_SECONDS, defaultdict(list)
        for test in tests:
            left -= self.seconds[test]
            if left < 0 and files:
                break
            files[test.partition("::")[0]].append(test)
        return [test for part in files.values() for test in part]


@cache
def _around(module: str, line: int) -> list[tuple[int, int]]:
    """Lines whose tests to take, in this order: the statement's, then what is around it.

    Inside a function whose other lines are run, a line that no test runs has no tests.
    """
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    inside = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    inside.sort(key=lambda node: (node.end_lineno or 0) - node.lineno)
    found = [(line, line)]
    functions = [n for n in inside if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    if inside:  # of a loop or a condition the lines before what is inside
        body = getattr(inside[0], "body", None)
        found.append(
            (inside[0].lineno, body[0].lineno - 1 if body else inside[0].end_lineno or line)
        )
    if functions and line >= functions[0].body[0].lineno:
        return found
    found += [(node.lineno, node.end_lineno or line) for node in inside if hasattr(node, "body")]
    return [*found, (1, sys.maxsize)]


# Trying --------------------------------------------------------------------------------------


def attempt(
    work: Work, module: str, source: str, tests: list[str], tested: float = TESTED_SECONDS
) -> dict[str, Any]:
    """``outcome`` killed or survived, and by which test, with another source of a module.

    Tests that take ``tested`` seconds as it is may take four times as many, then they hang.
    """
    path = work.tree / module
    kept, times = path.read_bytes(), path.stat()
    path.write_text(source, encoding="utf-8")
    # Compiled files are told apart by size and whole seconds: no two mutants may share them.
    moment = random.SystemRandom().randrange(10**9)
    os.utime(path, (moment, moment))
    note = work.folder / "failed"
    note.unlink(missing_ok=True)

    def run() -> int:
        recorder = _Recorder()
        code = _pytest(tests, recorder)
        note.write_text(recorder.failed)
        return code

    seconds = OWN_SECONDS + 4 * tested
    try:
        code, told = work.fork(run, cpu=seconds, wall=10 * seconds)
    finally:
        path.write_bytes(kept)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    if "not found:" in told or code == 5:
        raise SystemExit(f"the map names tests that are not there:\n{told}")
    by = note.read_text() if note.exists() else ""
    if code < 0:
        by = f"{signal.Signals(-code).name} in {by or 'a test'}"
    return {"outcome": "killed" if code else "survived", "by": by or (told if code else "")}


def session(work: Work, sample: int, seed: int) -> Iterator[dict[str, Any]]:
    """Results of the sample, known ones first; ends when the time does."""
    selection = Selection(work.map())
    known = work.known()
    for mutant in mutants(seed)[:sample]:
        one = known.get(mutant.key)
        if mutant.area not in work.areas:
            if one is not None:
                yield one
            continue
        tests = selection.of(mutant)
        tests += [one for one in selection.apart(mutant.area) if one not in tests]
        chosen = selection.chosen(tests)
        digest = _hash("".join(chosen) + "".join(_texts(chosen)))
        if one is None or (one["outcome"] == "survived" and one["tests"] != digest):
            if time.monotonic() > work.end:
                continue
            found = {"outcome": "survived", "by": ""}
            if chosen:
                found = attempt(
                    work, mutant.module, mutated(mutant), chosen, selection.spent(chosen)
                )
            before, after = change(mutant)
            one = {
                "key": mutant.key, "area": mutant.area, "module": mutant.module,
                "line": mutant.line, "operator": mutant.operator.partition("/")[2],
                "before": before, "after": after, **found,
                "run": len(chosen), "of": len(tests), "tests": digest,
            }  # fmt: skip
            work.remember(one)
            if one["outcome"] == "survived":
                print(f"{mutant.module}:{mutant.line}: {before}  ->  {after}", flush=True)
        yield one


def planted(work: Work, target: Path) -> int:
    """Tries the faults that ``target`` lists, writes there what caught each; how many none did."""
    found = json.loads(target.read_text(encoding="utf-8"))
    known = work.known()
    for fault in found["faults"]:
        source = (ROOT / fault["module"]).read_text(encoding="utf-8")
        if source.count(fault["before"]) != 1:
            raise SystemExit(f"{fault['name']}: not once in {fault['module']}: {fault['before']!r}")
        changed = source.replace(fault["before"], fault["after"])
        for text in (source, changed):  # tests that fail as they are catch nothing
            key = _hash("".join([text, *fault["tests"], *_texts(fault["tests"])]))
            if key not in known:
                if time.monotonic() > work.end:
                    raise SystemExit(
                        f"{fault['name']} is not tried yet: go on with the same command"
                    )
                known[key] = {"key": key, **attempt(work, fault["module"], text, fault["tests"])}
                work.remember(known[key])
            fault["caught_by"] = known[key]["by"]
            if text is source and fault["caught_by"]:
                raise SystemExit(f"{fault['name']}: {fault['caught_by']} fails without it")
        print(f"{fault['name']}: {fault['caught_by'] or 'SURVIVED'}", flush=True)
    target.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    rows = [
        [
            fault["kind"],
            fault["module"].removeprefix("src/plait/"),
            fault["told"],
            fault["caught_by"],
        ]
        for fault in found["faults"]
    ]
    lines = [
        "# Planted faults", "", found["about"], "",
        "| kind | file | fault | caught by |", "|---|---|---|---|",
        *(f"| {kind} | {file} | {told} | {by or 'nothing'} |" for kind, file, told, by in rows),
    ]  # fmt: skip
    target.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return sum(not fault["caught_by"] for fault in found["faults"])


def _texts(tests: Iterable[str]) -> list[str]:
    return [(ROOT / name).read_text() for name in sorted({t.partition("::")[0] for t in tests})]


# Telling -------------------------------------------------------------------------------------


def write(
    results: list[dict[str, Any]], target: Path, sample: int, seed: int, areas: list[str]
) -> None:
    """``target`` and a page of the same name; reasons that stand there already are kept."""
    old = json.loads(target.read_text()) if target.exists() else {"survivors": []}
    reasons = {(s["module"], s["before"], s["after"]): s["reason"] for s in old["survivors"]}
    survivors = [one for one in results if one["outcome"] == "survived"]
    listed = [
        {
            **{name: one[name] for name in ("module", "line", "operator", "before", "after")},
            "tests": f"{one['run']} of {one['of']}",
            "reason": reasons.get((one["module"], one["before"], one["after"]), ""),
        }
        for one in sorted(survivors, key=lambda one: (one["module"], one["line"]))
    ]
    scores = {area: _score(one for one in results if one["area"] == area) for area in AREAS}
    scores["all"] = _score(results)
    per_module = {
        module: _score(one for one in results if one["module"] == module)
        for module in sorted({one["module"] for one in results})
    }
    found = {
        "command": "python tools/mutants.py", "tests_of": areas, "sample": sample, "seed": seed, "tried": len(results),
        "tested_seconds": TESTED_SECONDS, "areas": scores, "modules": per_module, "survivors": listed,
    }  # fmt: skip
    target.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    target.with_suffix(".md").write_text(page(found), encoding="utf-8")


def _score(results: Iterable[dict[str, Any]]) -> dict[str, float]:
    killed = [one["outcome"] == "killed" for one in results]
    share = round(100 * sum(killed) / len(killed), 1) if killed else 0.0
    return {"n": len(killed), "killed": sum(killed), "percent": share}


def page(found: dict[str, Any]) -> str:
    """The results in Markdown."""

    def cell(text: Any) -> str:
        return str(text).replace("|", "\\|")

    def table(head: str, scores: dict[str, dict[str, float]]) -> list[str]:
        rows = [f"| {k} | {s['n']} | {s['killed']} | {s['percent']} |" for k, s in scores.items()]
        return [f"| {head} | n | killed | % |", "|---|---|---|---|", *rows, ""]

    lines = [
        "# Mutation testing",
        "",
        f"`make mutants`: {found['tried']} of a sample of {found['sample']} places, seed {found['seed']}, "
        f"one change of cosmic-ray's operators each; a survivor passed its tests up to "
        f"{found['tested_seconds']:g} s of them, asked of the tests of {', '.join(found['tests_of'])}. "
        f"What only draws ({DRAWN}) is left out.",
        "",
        *table("area", found["areas"]),
        "## Survivors",
        "",
        "| place | before | after | tests run | why |",
        "|---|---|---|---|---|",
        *(
            f"| {s['module'].removeprefix('src/plait/')}:{s['line']} | `{cell(s['before'])}` "
            f"| `{cell(s['after'])}` | {s['tests']} | {cell(s['reason'])} |"
            for s in found["survivors"]
        ),
        "",
        "## Modules",
        "",
        *table("module", {k.removeprefix("src/plait/"): s for k, s in found["modules"].items()}),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """As the head of this file says."""
    global ROOT
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30, help="of this call")
    parser.add_argument("--sample", type=int, default=300, help="how many places")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".mutants", help="what is kept between calls"
    )
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/mutants.json")
    parser.add_argument(
        "--areas", nargs="+", choices=AREAS, default=list(AREAS), help="which to try"
    )
    parser.add_argument("--planted", type=Path, help="try the faults of this file instead")
    options = parser.parse_args()
    work = Work(options.work.resolve(), time.monotonic() + 60 * options.minutes, options.areas)
    work.tree.mkdir(parents=True, exist_ok=True)
    work.copy()
    ROOT = work.tree  # what is edited while this runs waits for the next call
    preload()
    if options.planted:
        return int(planted(work, options.planted) > 0)
    results = list(session(work, options.sample, options.seed))
    write(results, options.json, options.sample, options.seed, options.areas)
    total = _score(results)
    print(f"{total['killed']} of {total['n']} killed: {total['percent']}%")
    if len(results) < options.sample:
        print(f"{options.sample - len(results)} are left: go on with the same command")
    return 0


if __name__ == "__main__":
    sys.exit(main())
