"""Writes the software bill of materials of a release: CycloneDX 1.5, from the lock file.

    python tools/sbom.py > openqci.cdx.json

Every package that an installation with all extras brings, with its exact version, the SHA-256 of its source
and its licence as its own metadata states it. Packages for development are not in it.
"""

import json
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROJECT = "openqci"


def bill_of_materials(lock: dict[str, Any]) -> dict[str, Any]:
    """Return the document for a lock file of uv."""
    packages = {package["name"]: package for package in lock["package"]}
    own = packages[PROJECT]
    names = sorted(closure(packages) - {PROJECT})
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", **component(own)}},
        "components": [{"type": "library", **component(packages[name])} for name in names],
        "dependencies": [
            {
                "ref": reference(packages[name]),
                "dependsOn": sorted(reference(packages[each]) for each in needed_by(packages[name])),
            }
            for name in [PROJECT, *names]
        ],
    }


def closure(packages: dict[str, Any]) -> set[str]:
    """Return the names of the project and of all that it needs, with all extras."""
    found: set[str] = set()
    waiting = [PROJECT]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += needed_by(packages[name])
    return found


def needed_by(package: dict[str, Any]) -> set[str]:
    """Return what a package needs; of the project itself the extras, too."""
    groups = [package.get("dependencies", [])]
    if package["name"] == PROJECT:
        groups += package.get("optional-dependencies", {}).values()
    return {each["name"] for group in groups for each in group}


def reference(package: dict[str, Any]) -> str:
    return f"pkg:pypi/{package['name']}@{package['version']}"


def component(package: dict[str, Any]) -> dict[str, Any]:
    """Return a package as CycloneDX describes it."""
    found: dict[str, Any] = {
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
        "licenses": [{"license": {"name": licence(package["name"])}}],
    }
    if "sdist" in package:
        found["hashes"] = [{"alg": "SHA-256", "content": package["sdist"]["hash"].removeprefix("sha256:")}]
    return found


def licence(name: str) -> str:
    """Return the licence that an installed package states: its expression, its classifiers, or its text."""
    try:
        said = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "not stated: not installed here"
    if said.get("License-Expression"):
        return str(said["License-Expression"])
    classifiers = [each for each in said.get_all("Classifier") or [] if each.startswith("License ::")]
    if classifiers:
        return " AND ".join(each.rpartition(":: ")[2] for each in classifiers)
    return (said.get("License") or "not stated").splitlines()[0][:80]


def main() -> int:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    json.dump(bill_of_materials(lock), sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
