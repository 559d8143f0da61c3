"""Runs the conformance tests and prints every statement with its result: ``make conformance``.

A statement's result is that of the tests that bear its number. One without a test counts as failed. Exit code
1 if any statement is not met.
"""

import argparse
import json
import re
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PREFIX = {"014": "etsi014", "004": "etsi004", "020": "etsi020", "015": "etsi015", "skip": "skip"}


def statements() -> dict[str, dict[str, str]]:
    """Return the statements of each interface: number and text."""
    return dict(tomllib.loads((HERE / "statements.toml").read_text()))


def numbers_of(test: str) -> list[tuple[str, str]]:
    """Return the statements that a test's name bears.

    >>> numbers_of("test_014_10_11_status_has_every_member[x]")
    [('etsi014', '10'), ('etsi014', '11')]
    """
    found = re.match(r"test_(014|004|020|015|skip)((?:_\d\d)+)_", test)
    return [(PREFIX[found[1]], number) for number in found[2].strip("_").split("_")] if found else []


class Results:
    """Collects the outcomes of a run by statement."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, str], list[bool]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.failed or report.skipped:
            for statement in numbers_of(report.nodeid.rpartition("::")[2]):
                self.outcomes[statement].append(report.passed)


def main() -> int:
    parser = argparse.ArgumentParser(description="conformance, statement by statement")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("interfaces", nargs="*", default=list(statements()), help="which (default all)")
    args = parser.parse_args()
    results = Results()
    folders = [str(HERE / name) for name in args.interfaces]
    pytest.main(["-q", "-p", "no:cacheprovider", "--no-header", "--tb=short", *folders], plugins=[results])
    rows = [
        {
            "interface": name,
            "statement": f"{name[-3:] if name != 'skip' else 'SKIP'}-{number}",
            "text": text,
            "tests": len(results.outcomes[name, number]),
            "result": "met" if all(outcome := results.outcomes[name, number]) and outcome else "NOT MET",
        }
        for name in args.interfaces
        for number, text in statements()[name].items()
        if number != "title"
    ]
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            print(f"{row['statement']:8} {row['result']:8} {row['tests']:3} tests  {row['text']}")
    return int(any(row["result"] != "met" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
