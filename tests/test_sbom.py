"""The bill of materials names what an installation brings, with versions, hashes and licences."""

import json
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_bill_of_materials_is_whole() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "sbom.py"], capture_output=True, text=True, check=True
    )
    bill = json.loads(done.stdout)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    named = {component["name"] for component in bill["components"]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    direct = {re.split(r"[\s;\[<>=!~]", need)[0].lower() for need in wanted}
    assert direct <= named, direct - named
    assert not {"pytest", "ruff", "schemathesis"} & named, "what is for development is not in it"
    references = {component["bom-ref"] for component in bill["components"]}
    for component in bill["components"]:
        assert component["version"] and component["licenses"][0]["license"]["name"]
    for entry in bill["dependencies"]:
        assert set(entry["dependsOn"]) <= references
    stated = [each for each in bill["components"] if "not stated" in each["licenses"][0]["license"]["name"]]
    installed_elsewhere = {
        "colorama",
        "tzdata",
        "uvloop",
        "async-timeout",
        "typing-extensions",
        "importlib-metadata",
    }
    assert {each["name"] for each in stated} <= installed_elsewhere
