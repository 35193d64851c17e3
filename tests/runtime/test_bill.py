"""The bill of materials of a bundle says what is in it and what it needs."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.metadata import version
from pathlib import Path

from tests.serving.made import write_bundle

from plait import __version__
from plait.runtime.bill import BILL, needed_packages
from plait.runtime.manifest import MANIFEST, read_manifest, write_manifest
from plait.runtime.requirements import write_requirements


def bill_of(folder: Path) -> dict[str, object]:
    write_requirements(folder, ["onnxruntime"])
    write_manifest(folder, read_manifest(folder))
    value: dict[str, object] = json.loads((folder / BILL).read_text(encoding="utf-8"))
    return value


def test_files_and_packages(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "tiny")
    bill = bill_of(folder)
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    components = bill["components"]
    files = {one["name"]: one for one in components if one["type"] == "file"}
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(files) == there - {MANIFEST, BILL}
    for name, one in files.items():
        expected = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert one["hashes"] == [{"alg": "SHA-256", "content": expected}]
    libraries = {one["name"]: one for one in components if one["type"] == "library"}
    assert libraries["plait"]["version"] == __version__
    for name in ("numpy", "pillow", "tokenizers", "onnxruntime", "huggingface-hub"):
        assert libraries[name]["version"] == version(name)
        assert libraries[name]["purl"] == f"pkg:pypi/{name}@{version(name)}"
    assert not {"torch", "transformers", "openvino"} & set(libraries)
    references = [one["bom-ref"] for one in components]
    assert len(set(references)) == len(references)
    assert bill["dependencies"] == [{"ref": "bundle", "dependsOn": references}]


def test_the_manifest_seals_the_bill_and_the_same_bundle_has_the_same_one(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "tiny")
    first = bill_of(folder)
    sealed = read_manifest(folder).files[BILL]
    assert sealed == hashlib.sha256((folder / BILL).read_bytes()).hexdigest()
    assert bill_of(folder) == first
    (folder / "README.md").write_text("more", encoding="utf-8")
    assert bill_of(folder)["serialNumber"] != first["serialNumber"]


def test_what_is_not_installed(tmp_path: Path) -> None:
    found = needed_packages(["surely-not-installed>=1  # x", "NumPy>=1", ""])
    assert found["surely-not-installed"] is None
    assert found["numpy"] == version("numpy")
