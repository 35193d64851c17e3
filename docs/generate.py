"""Writes the pages that are made from the code, or checks that they are up to date.

    python docs/generate.py          # write
    python docs/generate.py --check  # fail if a page is stale

Pages: cli.md (help texts of every command), parity.md (from parity.json), openapi.json (of
`plait serve`), and the folder tree in architecture.md, which is only checked: its sentences are
written by people.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def cli_page() -> str:
    """Every command's help, as Markdown."""
    import typer
    from typer.main import get_command

    from plait.cli.commands import app

    lines = ["# Command line", "", "Made by `make docs` from the help texts.", ""]

    def describe(command: object, path: str) -> None:
        lines.extend([f"## `{path}`", "", (command.help or "").strip(), ""])  # type: ignore[attr-defined]
        children = getattr(command, "commands", None)
        if children:
            for name, child in children.items():
                describe(child, f"{path} {name}")
            return
        rows = [parameter_row(parameter) for parameter in command.params]  # type: ignore[attr-defined]
        rows = [row for row in rows if row]
        if rows:
            lines.extend(["| argument or option | meaning | default |", "|---|---|---|", *rows, ""])

    def parameter_row(parameter: object) -> str:
        if parameter.name == "help":  # type: ignore[attr-defined]
            return ""
        names = ", ".join([*parameter.opts, *parameter.secondary_opts])  # type: ignore[attr-defined]
        if parameter.param_type_name == "argument":  # type: ignore[attr-defined]
            names = parameter.name.upper()  # type: ignore[attr-defined]
        meaning = (getattr(parameter, "help", "") or "").replace("|", "\\|")
        default = parameter.default  # type: ignore[attr-defined]
        plain = default if isinstance(default, str | int | float | Path) else None
        shown = "" if plain is None or plain is False else f"`{plain}`"
        return f"| `{names}` | {meaning} | {shown} |"

    assert typer
    describe(get_command(app), "plait")
    return "\n".join(lines).rstrip() + "\n"


def parity_page() -> str | None:
    """The parity table, from the measurements in parity.json."""
    source = DOCS / "parity.json"
    if not source.exists():
        return None
    rows = json.loads(source.read_text(encoding="utf-8"))
    lines = [
        "# Parity",
        "",
        "Each system against another implementation, in float64, random weights. Made by `make docs` from",
        "parity.json, which `python benchmarks/parity.py` measures.",
        "",
        "A reference is other people's code, or it is **written here**, by plait's authors, where no package",
        "has the system: a mistake in reading the paper can then be on both sides. A loss is",
        "`plait.objectives` on one side, and the reference's own or one that is written out on the other.",
        "The last column but one tells which *published* weights were read and compared; *never*: the format",
        "alone was tried, with random weights. What plait only wraps has no row.",
        "",
        "| system | reference | compared | largest difference | published checkpoint | known divergences |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        divergences = row["divergences"]
        shown = "; ".join(divergences) if isinstance(divergences, list) else divergences
        compared = row["compared"]
        compared = ", ".join(compared) if isinstance(compared, list) else compared
        lines.append(
            f"| {row['system']} | {row['reference']} | {compared} "
            f"| {row['max_difference']:.1e} | {row['checkpoint']} | {shown or 'none'} |"
        )
    return "\n".join(lines) + "\n"


def openapi_page() -> str:
    """The description of the server's endpoints, for makers of clients."""
    from plait.serving.base.settings import Settings
    from plait.serving.http.app import create_app
    from plait.serving.service.service import Service

    document = create_app(Service(Settings(models={}), {})).openapi()
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def tree_problems() -> list[str]:
    """Folders of the package that architecture.md does not name, and the reverse."""
    problems = []
    real = {p.name for p in (ROOT / "src/plait").iterdir() if (p / "__init__.py").exists()}
    for page in ("architecture.md", "architecture.zh-CN.md"):
        text = (DOCS / page).read_text(encoding="utf-8")
        block = re.search(r"src/plait/\n(.*?)```", text, re.DOTALL)
        named = set(re.findall(r"^  (\w+)/", block.group(1), re.MULTILINE)) if block else set()
        problems += [f"{page} does not name src/plait/{name}" for name in sorted(real - named)]
        problems += [f"{page} names src/plait/{name}: no such folder" for name in named - real]
    return problems


def main() -> int:
    """Writes or checks all pages; 1 when one is stale."""
    check = "--check" in sys.argv[1:]
    problems = tree_problems()
    pages = {"cli.md": cli_page(), "parity.md": parity_page(), "openapi.json": openapi_page()}
    for name, text in pages.items():
        if text is None:
            continue
        path = DOCS / name
        if check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                problems.append(f"docs/{name} is stale: run `make docs`")
        else:
            path.write_text(text, encoding="utf-8")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
