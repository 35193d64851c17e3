"""What is installed, and what may be in the repository: pyproject.toml, constraints.txt, tools/."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]


# `make test-newest` runs these tests too, and hands its settings on to every make below it.
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements(of: Iterable[str]) -> list[Requirement]:
    extras = project()["project"]["optional-dependencies"]
    return [Requirement(line) for extra in of for line in extras[extra]]


def installed() -> set[str]:
    """The extras that `make test` installs: `dev` and what it leads to."""
    found, left = set(), {"dev"}
    while left:
        found |= left
        within = [line for line in requirements(left) if line.name == "plait"]
        left = {extra for line in within for extra in line.extras} - found
    return found


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {name: version for name, version in pairs}


def test_every_dependency_has_a_lowest_and_a_next_major_version() -> None:
    always = [*project()["build-system"]["requires"], *project()["project"]["dependencies"]]
    tested = [*map(Requirement, always), *requirements(installed())]
    extras = project()["project"]["optional-dependencies"]
    for requirement in [*tested, *requirements(extras)]:
        if requirement.name != "plait":
            operators = sorted(limit.operator for limit in requirement.specifier)
            assert operators == ["<", ">="], requirement
    for requirement in tested:
        if requirement.name != "plait":
            version = Version(constraints()[requirement.name.lower().replace("_", "-")])
            assert requirement.specifier.contains(version), requirement
            # Not further than the next major version: what is beyond was never tried.
            (high,) = (limit for limit in requirement.specifier if limit.operator == "<")
            assert Version(high.version) == Version(str(version.major + 1)), requirement


@pytest.mark.parametrize("page", ["install.md", "install.zh-CN.md"])
def test_every_extra_is_described(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| (`[a-z]+`(?:[,、] ?`[a-z]+`)*) \|", text, re.MULTILINE)
    described = set(re.findall("[a-z]+", " ".join(first_cells)))
    assert described == set(project()["project"]["optional-dependencies"])


def test_constraints_are_names_and_versions_alone() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    named = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in named)
    assert named == sorted(named) and len(constraints()) == len(named)
    oracles = (ROOT / "requirements-oracles.txt").read_text(encoding="utf-8").splitlines()
    for line in oracles:
        if line and not line.startswith("#"):
            oracle = Requirement(line)
            version = constraints()[oracle.name.lower().replace("_", "-")]
            assert oracle.specifier.contains(version), line


def test_constraints_are_written_for_every_index() -> None:
    pairs = [
        ("torch", "2.14.1+cpu"),
        ("plait", "0.1.0"),
        ("Jinja2", "3.1.6"),
        ("typing_extensions", "4.16.0"),
        ("ruamel.yaml", "0.18"),
        ("torch-extras", "1.0"),
        ("torch", "2.6.0"),
    ]
    assert tool("constraints").lines(pairs) == [
        "jinja2==3.1.6",
        "ruamel-yaml==0.18",
        "torch-extras==1.0",
        "torch==2.14.1",
        "typing-extensions==4.16.0",
    ]


def test_make_installs_by_the_constraints_and_the_newest_without() -> None:
    def commands(*arguments: str) -> list[str]:
        done = subprocess.run(
            ["make", "-n", "VENV=never", *arguments],
            cwd=ROOT,
            env=CLEAN,
            capture_output=True,
            text=True,
            check=True,
        )
        return [line for line in done.stdout.splitlines() if "pip install" in line]

    for target in ("demo", "test", "check"):
        lines = commands(target)
        assert len(lines) >= 2
        assert all("-c constraints.txt" in line for line in lines), lines
    newest = commands("test", "CONSTRAINTS=")
    assert len(newest) == 3 and not any("constraint" in line for line in newest)


def test_new_constraints_install_again(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    for path in (venv / "bin" / "python", venv / ".demo", venv / ".dev"):
        path.touch()
    files = ("Makefile", "pyproject.toml", "constraints.txt", "requirements-oracles.txt")
    place = tmp_path / "checkout"
    place.mkdir()
    for name in files:
        (place / name).write_bytes((ROOT / name).read_bytes())

    def installs(target: str) -> int:
        done = subprocess.run(
            ["make", "-n", f"VENV={venv}", target],
            cwd=place,
            env=CLEAN,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.count("pip install")

    for number, name in enumerate(files):
        os.utime(place / name, (1000 + number, 1000 + number))
    assert (installs("demo"), installs("test")) == (0, 0)
    later = (venv / ".dev").stat().st_mtime + 100
    os.utime(place / "constraints.txt", (later, later))
    assert (installs("demo"), installs("test")) == (2, 3)


def repository(folder: Path, **files: bytes) -> Path:
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    subprocess.run(["git", "-C", str(folder), "add", "-A"], check=True)
    return folder


PICTURE = b"\x89PNG\r\n\x1a\n\x00\x00"


def test_binaries_and_large_files_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = tool("tracked")
    good = {
        "a.py": "é = 1\n".encode(),
        "tests/x.png": PICTURE,
        "docs/images/x.png": PICTURE,
        "limit.txt": b"a" * 1_000_000,
    }
    root = repository(tmp_path / "good", **good)
    (root / "untracked.whl").write_bytes(PICTURE)
    (root / "link").symlink_to("untracked.whl")
    subprocess.run(["git", "-C", str(root), "add", "link"], check=True)
    assert check.main(root) == 0
    bad = {
        "a wheel-1.whl": b"PK\x03\x04\x00",
        "docs/x.png": PICTURE,
        "latin.txt": "é".encode("latin-1"),
        "tests/large.csv": b"a" * 1_000_001,
        "über.txt": b"a\x00",
    }
    root = repository(tmp_path / "bad", **good, **bad)
    capsys.readouterr()
    assert check.main(root) == 1
    told = capsys.readouterr().err.splitlines()
    assert sorted(line.partition(":")[0] for line in told) == sorted(bad)
    assert "1,000,001 bytes" in next(line for line in told if line.startswith("tests/large.csv"))


def test_this_repository_holds_none() -> None:
    """As `make check` does it; a release without git's folder has nothing to tell."""
    if (ROOT / ".git").exists():
        check = tool("tracked")
        assert check.faults(ROOT, check.tracked(ROOT)) == []
