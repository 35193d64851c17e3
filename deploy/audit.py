"""Known weaknesses of the packages that plait is tested with: `make audit`.

Asks pip-audit where it is installed and reaches a database, and writes what it found, with the
date, to docs/audit.md. Otherwise shows that list and its date. Exit code 1: a weakness is known.
"""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
VERSIONS, LIST = ROOT / "constraints.txt", ROOT / "docs" / "audit.md"
HEAD = "# Known weaknesses of dependencies\n\nWritten by `make audit`; versions of `constraints.txt`.\n"


def asked() -> list[dict[str, Any]] | None:
    """What pip-audit says of each package, or None without it or its database."""
    program = shutil.which("pip-audit", path=Path(sys.executable).parent) or shutil.which(
        "pip-audit"
    )
    if program is None:
        return None
    command = [program, "--format", "json", "--no-deps", "--disable-pip", "-r", str(VERSIONS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(done.stderr.strip()[-500:], file=sys.stderr)
        return None
    known = [one for one in found if "skip_reason" not in one]
    return found if known else None


def page(found: list[dict[str, Any]], today: datetime.date) -> str:
    """The list as Markdown."""
    bad = [(one, weakness) for one in found for weakness in one.get("vulns", ())]
    skipped = [one["name"] for one in found if "skip_reason" in one]
    lines = [
        HEAD,
        f"{today}: {len(found) - len(skipped)} packages asked about, {len(bad)} weaknesses.",
    ]
    if skipped:
        lines.append(f"Not in the database: {', '.join(skipped)}.")
    if bad:
        lines += ["", "| package | version | weakness | mended in |", "|---|---|---|---|"]
    for one, weakness in bad:
        mended = ", ".join(weakness.get("fix_versions") or ["-"])
        lines.append(f"| {one['name']} | {one['version']} | {weakness['id']} | {mended} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Exit code."""
    found = asked()
    if found is None:
        print("no database could be asked (pip-audit, and a network, are needed); the last list:\n")
        print(LIST.read_text(encoding="utf-8"))
        return 0
    text = page(found, datetime.date.today())
    LIST.write_text(text, encoding="utf-8")
    print(text)
    return int(any(one.get("vulns") for one in found))


if __name__ == "__main__":
    sys.exit(main())
