"""The bill of materials of a bundle: its files with their hashes, and the packages it runs with.

CycloneDX 1.6 as JSON, which scanners of known weaknesses read. It holds no time and no place, so
that the same bundle has the same bill.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

from plait.core.files import digest, write_json
from plait.core.version import __version__

BILL: Final = "sbom.cdx.json"
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


def write_bill(folder: Path, name: str, files: Mapping[str, str]) -> None:
    """Writes the bill into a bundle.

    Args:
        folder: of the bundle, with its ``requirements.txt`` where it has one.
        name: of the model.
        files: SHA-256 by path within the folder.
    """
    listed = folder / "requirements.txt"
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    packages = needed_packages([line for line in lines if not line.lstrip().startswith("#")])
    components: list[dict[str, Any]] = [
        {
            "type": "file",
            "bom-ref": f"file:{path}",
            "name": path,
            "hashes": [{"alg": "SHA-256", "content": content}],
        }
        for path, content in files.items()
    ]
    components += [_library(package, version) for package, version in packages.items()]
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest(repr(components)))}",
        "version": 1,
        "metadata": {
            "tools": {
                "components": [{"type": "application", "name": "plait", "version": __version__}]
            },
            "component": {"type": "machine-learning-model", "bom-ref": "bundle", "name": name},
        },
        "components": components,
        "dependencies": [
            {"ref": "bundle", "dependsOn": [component["bom-ref"] for component in components]}
        ],
    }
    write_json(folder / BILL, bill)


def needed_packages(requirements: list[str]) -> dict[str, str | None]:
    """Versions by name of what the requirements name and all that these need, and plait itself.

    A version is that of this installation, with which the bundle was compared; None where a named
    package is not installed here.
    """
    found: dict[str, str | None] = {"plait": __version__}
    waiting = [(line, True) for line in requirements]
    while waiting:
        line, is_named = waiting.pop()
        match = _REQUIREMENT.match(line)
        if match is None or "extra ==" in line.replace("  ", " "):
            continue
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        if name in found:
            continue
        try:
            installed = distribution(name)
        except PackageNotFoundError:  # of another platform or Python, unless it was named
            if is_named:
                found[name] = None
            continue
        found[name] = installed.version
        waiting += [(inner, False) for inner in installed.requires or ()]
    return dict(sorted(found.items()))


def _library(name: str, version: str | None) -> dict[str, Any]:
    reference = f"pkg:pypi/{name}" + (f"@{version}" if version else "")
    known = {"version": version} if version else {}
    return {"type": "library", "bom-ref": reference, "name": name, **known, "purl": reference}
