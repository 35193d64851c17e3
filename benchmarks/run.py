"""Runs every benchmark, one after the other: ``make bench``, or ``run.py NAME...`` for some.

Each script writes benchmarks/results/NAME.json and NAME.md with its figures and its command.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = sorted(
    p.stem for p in HERE.glob("*.py") if p.stem != "run" and not p.stem.startswith("_")
)


def main() -> int:
    names = sys.argv[1:] or SCRIPTS
    unknown = sorted(set(names) - set(SCRIPTS))
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(SCRIPTS)}")
        return 2
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        start = time.perf_counter()
        code = subprocess.call([sys.executable, str(HERE / f"{name}.py")])
        print(f"== {name}: exit {code} after {time.perf_counter() - start:.0f} s", flush=True)
        if code:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
