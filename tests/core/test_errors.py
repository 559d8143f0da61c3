"""Errors name who must act and say what a person needs; an invariant holds under ``python -O`` too."""

import contextlib
import subprocess
import sys

import pytest

from openqci.core import errors
from openqci.core.errors import (
    ConfigurationError,
    Fault,
    IntegrityError,
    KeyUnavailable,
    OpenQCIError,
    OutsideModel,
    PeerMisbehaved,
    RequestRefused,
    invariant,
)


def test_every_error_is_an_openqci_error() -> None:
    raised = [value for value in vars(errors).values() if isinstance(value, type)]
    assert all(issubclass(kind, OpenQCIError) for kind in raised if issubclass(kind, Exception))


def test_a_configuration_error_lists_every_fault() -> None:
    error = ConfigurationError(
        Fault("links.yaml", "links[3].fibre_km", "expected above 0, found -1"),
        Fault("openqci.json", "", "is damaged"),
        "site 'xx' is not in this network",
    )
    assert len(error.faults) == 3
    assert str(error).splitlines() == [
        "links.yaml: links[3].fibre_km: expected above 0, found -1",
        "openqci.json: is damaged",
        "site 'xx' is not in this network",
    ]


def test_a_refusal_carries_the_standards_code_and_can_pass_through_context_managers() -> None:
    @contextlib.contextmanager
    def passing():
        yield

    with pytest.raises(RequestRefused) as caught, passing():
        raise RequestRefused(503, "insufficient key material", ({"available_bits": 0},), {"Retry-After": "1"})
    assert str(caught.value) == "503 insufficient key material"
    assert caught.value.details == ({"available_bits": 0},)
    assert RequestRefused(400, "x") != RequestRefused(400, "x"), "an error is itself, not its text"


def test_a_shortage_says_how_much_there_is() -> None:
    error = KeyUnavailable("hop a--b is empty", wanted_bytes=112, available_bytes=7)
    assert (error.wanted_bytes, error.available_bytes) == (112, 7)
    assert str(error) == "hop a--b is empty: wanted 112 bytes, available 7"


def test_outside_the_model_names_parameter_value_and_range() -> None:
    error = OutsideModel("loss_db", -1.0, "0 to 200")
    assert error.parameter == "loss_db"
    assert str(error) == "loss_db = -1.0 is outside the model; expected 0 to 200"


def test_errors_of_peers_and_of_integrity_are_told_apart() -> None:
    assert not issubclass(PeerMisbehaved, IntegrityError)
    assert not issubclass(IntegrityError, PeerMisbehaved)


def test_an_invariant_that_holds_says_nothing() -> None:
    invariant(True, "one is one")


def test_a_broken_invariant_stops_even_where_asserts_are_stripped() -> None:
    broken = "from openqci.core.errors import invariant; assert False; invariant(1 == 2, 'one is two')"
    done = subprocess.run([sys.executable, "-O", "-c", broken], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("IntegrityError: invariant broken: one is two")
