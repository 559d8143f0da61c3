"""The examples in the docstrings run."""

import doctest

import pytest

import openqci.network
from openqci.network import documents, expansion, validation


@pytest.mark.parametrize("module", [openqci.network, documents, expansion, validation])
def test_examples_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
