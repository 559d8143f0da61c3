"""The examples in the documentation of the package run as they stand."""

import doctest

import openqci.quantum


def test_examples_run():
    result = doctest.testmod(openqci.quantum)
    assert result.attempted > 0
    assert result.failed == 0
