"""Every statement has a test that bears its number, and every such test a statement."""

import re
from pathlib import Path

import pytest

from tests.conformance.report import numbers_of, statements

HERE = Path(__file__).parent


@pytest.mark.parametrize("interface", sorted(statements()))
def test_every_statement_has_its_test(interface: str) -> None:
    text = "".join(file.read_text() for file in (HERE / interface).glob("test_*.py"))
    tested = {number for name in re.findall(r"def (test_\w+)", text) for _, number in numbers_of(name)}
    assert tested == set(statements()[interface]) - {"title"}
