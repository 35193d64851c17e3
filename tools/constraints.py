"""Writes every version that this environment holds, as `constraints.txt` lists them.

    make constraints  # from the newest releases that the ranges of pyproject.toml allow

A line is ``name==version`` and nothing else, so that the file works with every index: no hosts, no
paths, no local labels (``2.14.1+cpu`` and ``2.14.1`` are one release, built for other processors).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import Distribution, distributions

HEAD = """\
# Every version of the whole tree that was tested together: `make demo` and `make test` install these.
# Made by `make constraints`; `make test-newest` tells when it is time for that.
"""


def lines(installed: Iterable[tuple[str, str]], *, own: str = "plait") -> list[str]:
    """``name==version`` of each but our own package, sorted as lines are.

    Args:
        installed: names and versions; a name twice is one package found on two paths, and the
            first is what Python imports.
        own: the package that is left out.
    """
    versions: dict[str, str] = {}
    for name, version in installed:
        versions.setdefault(name.lower().replace("_", "-").replace(".", "-"), version)
    versions.pop(own, None)
    return sorted(f"{name}=={version.partition('+')[0]}" for name, version in versions.items())


def main() -> None:
    """Prints the file."""
    found: Iterable[Distribution] = distributions()
    pairs = [(item.metadata["Name"], item.version) for item in found]
    print(HEAD + "\n".join(lines(pairs)))


if __name__ == "__main__":
    main()
