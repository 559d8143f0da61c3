"""The house around the code: what the documents say exists, and what the repository promises is kept."""

import argparse
import ast
import doctest
import importlib
import importlib.metadata
import importlib.resources
import os
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import openqci
from openqci.cli.main import COMMANDS, command_line
from openqci.cli.up.figures import hop_status, status_report
from openqci.delivery import etsi014, etsi014_model
from openqci.links import forecast
from openqci.network import load_scenario
from openqci.services.etsi014_app import BODY_BYTES_MAX
from openqci.services.kme import WAIT_S
from openqci.services.kme_server import KEEP_ALIVE_S
from openqci.twin.hops import HopBook
from tests.conformance.etsi014.make import RunningKmes
from tests.delivery.make import ALICE, BOB, LISBON, WARSAW

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "openqci").rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
DOCUMENTS = [*PAGES, ROOT / "Makefile", ROOT / "mkdocs.yml", *(ROOT / ".github").rglob("*.yml")]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FIXED_MESSAGES = (
    "SIZE_NOT_MULTIPLE_OF_8",
    "MANDATORY_NOT_SUPPORTED",
    "MANDATORY_NOT_MET",
    "OPTIONAL_NOT_HANDLED",
    "KEYS_NOT_FOUND",
)
EXCERPT = re.compile(r"# [a-z0-9_/]+\.py\n")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.M))


def shell_commands(page: Path) -> list[list[str]]:
    """Return the commands of a page's console blocks, in words."""
    blocks = [
        text.replace("\\\n", " ") for kind, text in FENCE.findall(page.read_text()) if kind == "console"
    ]
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [shlex.split(line.partition(" > ")[0], comments=True) for line in lines]


def all_shell_commands() -> list[tuple[str, list[str]]]:
    return [(name_of(page), words) for page in PAGES for words in shell_commands(page)]


def parsers(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> dict[str, argparse.ArgumentParser]:
    """Return the commands below a parser that do something, by their words."""
    branches = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not branches:
        return {" ".join(words): parser}
    return {
        name: leaf
        for word, child in branches[0].choices.items()
        for name, leaf in parsers(child, (*words, word)).items()
    }


def all_parsers() -> dict[str, argparse.ArgumentParser]:
    found: dict[str, argparse.ArgumentParser] = {}
    for command in COMMANDS:
        everything = parsers(command_line([command]), ())
        found |= {name: leaf for name, leaf in everything.items() if name.split()[0] == command}
    return found


def heading_anchors(page: Path) -> set[str]:
    prose = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", prose, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


# Commands


def test_every_make_command_of_the_documents_is_a_target() -> None:
    named = {word for page in PAGES for word in re.findall(r"`make ([a-z-]+)`", page.read_text())}
    named |= {words[1] for _, words in all_shell_commands() if words[0] == "make" and len(words) > 1}
    assert {"up", "test", "setup"} <= named
    assert named <= make_targets()


def test_the_public_targets_are_there_and_none_is_taken_for_a_file() -> None:
    public = {"setup", "up", "test", "lint", "check", "bench", "docs", "clean"}
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony is not None and public <= make_targets() and public <= set(phony[1].split())


def test_make_up_runs_europe() -> None:
    # These tests may run under make themselves, whose own flags and level must not reach this call.
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    command = ["make", "-n", "--no-print-directory", "up", "ARGS=--speed 2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=outside)
    assert done.stdout.splitlines()[-1] == ".venv/bin/openqci up --scenario eu27 --speed 2"


def test_continuous_integration_runs_what_the_readme_says() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o100
    assert "set -euo pipefail" in script.read_text()
    assert script.read_text().splitlines()[-1] == "exec make test"


@pytest.mark.parametrize(
    ("page", "words"), [(page, words) for page, words in all_shell_commands() if words[0] == "openqci"]
)
def test_every_openqci_command_of_the_documents_is_understood(page: str, words: list[str]) -> None:
    if words[1:] in (["--version"], ["--help"]):
        return
    parsed = command_line(words[1:]).parse_args(words[1:])
    assert callable(parsed.run), page


def test_every_command_explains_itself() -> None:
    done = subprocess.run([sys.executable, "-m", "openqci", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)
    for command, parser in all_parsers().items():
        usage, _, options = parser.format_help().partition("options:")
        assert usage.startswith(f"usage: openqci {command} ")
        for action in parser._actions:
            assert action.help, f"openqci {command} {action.dest}"
            assert not action.option_strings or action.option_strings[0] in options


def test_the_reference_names_every_command_with_every_option() -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text()
    sections = dict(re.findall(r"^## openqci ([\w -]+)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    assert list(sections) and set(sections) == set(all_parsers())
    for command, parser in all_parsers().items():
        real = {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}
        told = set(re.findall(r"^\| `(--[\w-]+)", sections[command], re.M))
        assert told == real, f"openqci {command}"


def test_the_reference_names_every_field_of_the_status_document() -> None:
    network = load_scenario("metro")
    forecasts = {link: forecast(network.devices[hop.device], hop) for link, hop in network.hops.items()}
    book = HopBook(network, forecasts, {}, {})
    hops = [hop_status(line, book.state(link), 0.0) for link, line in book.lines.items()]
    report = status_report(network, hops, {}, running=True, ready=True, time_s=0.0)
    told = set(CODE.findall((ROOT / "docs" / "reference" / "status-json.md").read_text()))
    assert set(report) <= told
    assert set(report["hops"][0]) <= told
    assert set(report["domains"][0]) <= told


def test_the_etsi_014_profile_tells_the_limits_and_messages_of_the_code() -> None:
    page = (ROOT / "docs" / "reference" / "etsi-014.md").read_text()
    limits = (
        f"| {etsi014_model.KEY_SIZE_BITS} | {etsi014_model.KEY_SIZE_BITS_MIN} to "
        f"{etsi014_model.KEY_SIZE_BITS_MAX}, a multiple of 8 |",
        f"| 1 to {etsi014_model.KEYS_PER_REQUEST_MAX} |",
        f"| `max_key_count` | {etsi014.STORED_KEY_COUNT_MAX:,}:",
        f"waits up to {WAIT_S:.0f} s",
        f"longer than {BODY_BYTES_MAX} bytes",
        f"open for {KEEP_ALIVE_S} s",
        etsi014_model.PROVENANCE_EXTENSION,
    )
    messages = {value for name, value in vars(etsi014_model).items() if name in FIXED_MESSAGES}
    assert len(messages) == len(FIXED_MESSAGES)
    assert [told for told in (*limits, *messages) if told not in page] == []


# Documents


def test_every_page_of_the_site_is_in_its_navigation() -> None:
    configuration = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        children = entry if isinstance(entry, list) else list(entry.values())  # type: ignore[attr-defined]
        return [page for child in children for page in pages(child)]

    there = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    listed = pages(configuration["nav"])
    assert len(listed) == len(set(listed))
    assert set(listed) == there


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists() and goal.is_relative_to(ROOT), f"{name_of(page)} links to {target}"
        if name_of(page).startswith("docs/"):
            assert goal.is_relative_to(ROOT / "docs"), f"{name_of(page)} leaves the site for {target}"
        assert not anchor or anchor in heading_anchors(goal), f"{name_of(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_name_in_code_type_exists(page: Path) -> None:
    """Dotted names are imported, paths are looked up: a renamed function breaks the page that tells of it."""
    for code in CODE.findall(FENCE.sub("", page.read_text())):
        if re.fullmatch(r"openqci(\.\w+)+", code) and not code.endswith(".json"):
            assert exists(code), f"{name_of(page)} names {code}"
        elif re.fullmatch(r"(tests|src|docs|benchmarks|tools)/[\w./-]+(::\w+)?", code):
            path, _, test = code.partition("::")
            assert (ROOT / path).exists(), f"{name_of(page)} names {code}"
            assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{name_of(page)} names {code}"
        elif re.fullmatch(r"[a-z]+/\w+\.py", code):
            assert (ROOT / "src" / "openqci" / code).exists(), f"{name_of(page)} names {code}"


def exists(dotted: str) -> bool:
    parts = dotted.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for name in parts[split:]:
            found = getattr(found, name, None)
        return found is not None
    return False


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_documents_hold_no_path_of_a_machine_and_no_promise(document: Path) -> None:
    text = document.read_text()
    assert not re.search(r"(?<![\w.:/])/(home|root|Users|work|tmp)/", text)
    assert not re.search(r"\b(TODO|FIXME|TBD|XXX|lorem ipsum|coming soon)\b", text, re.I)
    assert "\t" not in text or document.name == "Makefile"


def test_the_sizes_of_the_shipped_scenarios_are_those_that_the_readme_tells() -> None:
    europe = load_scenario("eu27")
    text = (ROOT / "README.md").read_text()
    assert f"{len(europe.sites):,} nodes, {len(europe.hops):,} QKD hops" in text
    assert len(europe.domains) == 27 and len(load_scenario("metro").sites) == 13


def test_python_examples_of_the_documents_compile() -> None:
    blocks = [text for page in PAGES for kind, text in FENCE.findall(page.read_text()) if kind == "python"]
    assert blocks
    for block in blocks:
        if not EXCERPT.match(block):
            compile(block, "documentation", "exec")


def test_excerpts_in_the_documents_stand_so_in_the_source() -> None:
    blocks = [text for page in PAGES for kind, text in FENCE.findall(page.read_text()) if kind == "python"]
    excerpts = [block for block in blocks if EXCERPT.match(block)]
    assert len(excerpts) >= 5
    for block in excerpts:
        first, *lines = [line.strip() for line in block.splitlines()]
        source = [line.strip() for line in (ROOT / "src" / "openqci" / first[2:]).read_text().splitlines()]
        for run in "\n".join(lines).split("\n...\n"):
            assert f"\n{run}\n" in "\n".join(source), f"{first[2:]} has no longer: {run}"


def test_the_python_clients_of_the_how_to_get_the_same_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "howto" / "connect-a-client.md").read_text()
    examples = [text for kind, text in FENCE.findall(page) if kind == "python"]
    assert len(examples) == 2
    kmes = RunningKmes(tmp_path)
    monkeypatch.chdir(tmp_path / "saes")
    told = {"bank.paris": ALICE, "vault.brussels": BOB}
    told |= {"PARIS": str(kmes.ports[LISBON]), "BRUSSELS": str(kmes.ports[WARSAW])}
    try:
        for example in examples:
            kmes.stock(5)
            for word, here in told.items():
                example = example.replace(word, here)
            (tmp_path / "example.py").write_text(example)
            runpy.run_path(str(tmp_path / "example.py"))
    finally:
        kmes.close()


def test_the_scenario_of_the_how_to_is_good(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "howto" / "own-scenario.md").read_text()
    for name, content in re.findall(r"`(\w+\.yaml)`:\n\n```yaml\n(.*?)^```", text, re.M | re.S):
        (tmp_path / name).write_text(content)
    network = load_scenario(str(tmp_path))
    assert len(network.hops) == 2 and "north--south.tn1" in network.sites


# Code


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_every_module_says_what_it_is(source: Path) -> None:
    docstring = ast.get_docstring(ast.parse(source.read_text()))
    assert docstring and docstring.splitlines()[0].rstrip().endswith((".", ":", "?"))


def test_every_example_in_the_source_runs() -> None:
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(openqci.__path__, "openqci.")
        if not found.name.endswith("__main__")
    ]
    results = {module.__name__: doctest.testmod(module) for module in modules}
    assert [name for name, result in results.items() if result.failed] == []
    assert sum(result.attempted for result in results.values()) >= 20


def test_the_import_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-logo"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_every_benchmark_is_explained() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    for script in (ROOT / "benchmarks").glob("[!_]*.py"):
        assert f"`{script.name}`" in text


# Release


def test_the_package_carries_its_data() -> None:
    package = importlib.resources.files("openqci")
    for name in (
        "network/schemas/scenario.schema.json",
        "network/scenarios/eu27/scenario.yaml",
        "network/scenarios/metro/sites.yaml",
        "network/catalogue/sites.yaml",
        "network/catalogue/links.yaml",
        "network/catalogue/devices.yaml",
        "network/catalogue/sources.yaml",
        "network/catalogue/optical_climate.yaml",
        "network/catalogue/cloud_seasons.yaml",
        "network/catalogue/overseas.yaml",
        "links/missions/eagle-1.yaml",
        "links/missions/mission.schema.json",
        "planning/payload_model.yaml",
        "planning/recorded-pass.schema.json",
        "planning/recorded-pass-example.json",
        "network/catalogue/ATTRIBUTION.md",
        "dashboard/static/index.html",
        "dashboard/static/vendor/VENDOR.json",
        "dashboard/static/vendor/licences/d3-geo.txt",
    ):
        assert package.joinpath(name).read_bytes(), name


def test_the_package_carries_its_licence() -> None:
    distribution = importlib.metadata.distribution("openqci")
    assert distribution.metadata["License-Expression"] == "Apache-2.0"
    licences = [file for file in distribution.files or [] if file.name == "LICENSE"]
    assert licences and licences[0].locate().read_text() == (ROOT / "LICENSE").read_text()
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert "END OF TERMS AND CONDITIONS" in (ROOT / "LICENSE").read_text()


def test_version_and_changelog_agree() -> None:
    assert importlib.metadata.version("openqci") == openqci.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert openqci.__version__ in changelog
    releases = re.split(r"^## ", changelog, flags=re.M)[1:]
    assert releases and all("### Results that change" in release for release in releases)


def test_every_vendored_file_and_data_source_is_in_the_notice() -> None:
    notice = (ROOT / "NOTICE").read_text()
    for name in ("GeoNames", "TopoHub", "SNDlib", "d3-geo", "topojson-client", "world-atlas", "Inter"):
        assert name in notice


def test_every_line_of_the_checklist_of_distillation_has_its_test() -> None:
    """Twenty lines, twenty tests by number, somewhere under tests/distillation."""
    text = "".join(path.read_text() for path in (ROOT / "tests" / "distillation").rglob("test_*.py"))
    found = {int(number) for number in re.findall(r"def test_checklist_(\d\d)_", text)}
    assert found == set(range(1, 21))


def test_every_modelling_trap_has_its_test() -> None:
    """What simulators do wrong, twenty-two ways, and the tests by number that catch each."""
    text = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert {int(number) for number in re.findall(r"def test_trap_(\d\d)_", text)} == set(range(1, 23))
