"""The README's snippets run as they stand, on the photographs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def snippets(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def place(pairs: Path, tmp_path: Path) -> Path:
    shutil.copytree(pairs, tmp_path / "my_pairs")
    return tmp_path


def environment() -> dict[str, str]:
    folder = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_snippets_run(page: str, place: Path) -> None:
    shell = [code for code in snippets(page, "sh") if "my_pairs" in code]
    assert len(shell) == 1
    subprocess.run(shell[0], shell=True, check=True, cwd=place, env=environment(), timeout=240)
    assert (place / "found.png").exists()
    shutil.rmtree(place / "runs")
    (python,) = snippets(page, "python")
    subprocess.run([sys.executable, "-c", python], check=True, cwd=place, timeout=240)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_way_from_nothing_to_the_page(page: str, place: Path) -> None:
    """Typed line by line in a shell, installation apart: `make demo` is what it runs once installed."""
    lines = [line for code in snippets(page, "sh") for line in code.splitlines() if line.strip()]
    first = [
        line for line in lines if re.match(r"make|source|plait (train align|index|search)", line)
    ]
    (serve,) = (line for line in lines if line.startswith("plait serve"))
    assert lines[: len(first) + 1] == [*first, serve]
    (place / ".venv").symlink_to(sys.prefix)
    installed = 'make() { .venv/bin/plait "$@"; }'
    path = {**os.environ, "PATH": "/usr/bin:/bin"}  # where there is no `plait`
    typed = "\n".join(["set -e", installed, *first])
    subprocess.run(["bash", "-c", typed], check=True, cwd=place, env=path, timeout=900)
    assert (place / "found.png").exists()
    typed = f"source .venv/bin/activate\nexec {serve} --port 0"
    server = subprocess.Popen(
        ["bash", "-c", typed], cwd=place, env=path, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        told = iter(server.stderr.readline, "")
        address = next(line for line in told if line.startswith("the page: ")).split()[-1]
        for shown in (address, address.removesuffix("/page")):
            with urllib.request.urlopen(shown, timeout=30) as answer:
                assert "gradio" in answer.read().decode()
    finally:
        server.terminate()
        server.communicate(timeout=60)


@pytest.mark.slow
def test_questions_are_asked(place: Path) -> None:
    """The snippet on questions, with one epoch in place of eight."""
    (shell,) = (code for code in snippets("README.md", "sh") if "plait ask" in code)
    shutil.copy(next((place / "my_pairs").rglob("*.jpg")), place / "photo.png")
    short = re.sub(r"(plait (?:train|compare) .*)", r"\1 --set stages.0.epochs=1", shell)
    assert short.count("epochs=1") == 2
    subprocess.run(f"set -e\n{short}", shell=True, check=True, cwd=place, env=environment())
    assert (place / "runs" / "fusions" / "compare.png").exists()


def test_both_languages_have_the_same_commands() -> None:
    english, chinese = (snippets(page, "sh") for page in ("README.md", "README.zh-CN.md"))
    strip = [re.sub(r"\s*#.*", "", code) for code in english]
    assert strip == [re.sub(r"\s*#.*", "", code) for code in chinese]
    assert snippets("README.md", "python") == snippets("README.zh-CN.md", "python")


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "README.zh-CN.md", *(ROOT / "docs").rglob("*.md")]:
        text = re.sub(r"(`{3,}).*?\1", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} -> {target}"
