"""The examples in the documentation of the package run as they stand."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "space",
        "space.atmosphere",
        "space.diffraction",
        "space.elements",
        "space.fading",
        "space.frames",
        "space.geometry",
        "space.orbits",
        "space.pass_finding",
        "space.pass_samples",
        "space.pointing",
        "space.sky",
        "space.sun_moon",
        "space.time_scales",
        "space.tracks",
        "space.turbulence",
    ],
)
def test_examples_run(module):
    result = doctest.testmod(importlib.import_module(f"openqci.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
