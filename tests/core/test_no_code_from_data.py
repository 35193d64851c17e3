"""Nothing that plait loads may run code: no pickles, no eval, no YAML tags, no code of models."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
BARE = {"eval", "exec", "compile", "__import__"}


def offences(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, what) of everything that could run what a file says."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                (node.lineno, a.name) for a in node.names if a.name.split(".")[0] in MODULES
            )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield node.lineno, str(node.module)
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, what) for what in _call(node))


def _call(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    given = {word.arg: word.value for word in node.keywords}
    if isinstance(node.func, ast.Name) and name in BARE:
        yield name
    if name in ("torch.load", "torch.hub.load", "torch.jit.load"):
        only = given.get("weights_only")
        if not (name == "torch.load" and isinstance(only, ast.Constant) and only.value is True):
            yield f"{name} without weights_only=True"
    if name.rsplit(".", 1)[-1] in ("load", "load_all") and name.startswith("yaml."):
        loader = ast.unparse(given.get("Loader", node.args[1] if node.args[1:] else node))
        if not loader.endswith(("SafeLoader", "Loader")) or loader.startswith("yaml.Loader"):
            yield "yaml.load with a loader that makes objects"
    if name.rsplit(".", 1)[-1] in ("unsafe_load", "full_load"):
        yield name
    for word in ("trust_remote_code", "allow_pickle"):
        value = given.get(word)
        if value is not None and not (isinstance(value, ast.Constant) and value.value is False):
            yield f"{word}={ast.unparse(value)}"


def test_no_source_file_runs_what_data_says() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{line}: {what}"
        for path in SOURCE.rglob("*.py")
        for line, what in offences(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from marshal import loads",
        "eval('1')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
        "yaml.load(text, yaml.Loader)",
        "yaml.unsafe_load(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_search_finds(text: str) -> None:
    assert list(offences(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "model.eval()",
        "re.compile('a')",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "yaml.compose(text, Loader)",
    ],
)
def test_the_search_leaves(text: str) -> None:
    assert not list(offences(ast.parse(text)))
