"""The published OpenAPI description is true: schemathesis asks the running server and checks every answer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from openqci.delivery.etsi014_model import Profile
from openqci.services.openapi import openapi
from tests.conformance.etsi014.make import ALICE, BOB, HOMES, RunningKmes

PUBLISHED = Path(__file__).parents[3] / "docs" / "reference" / "etsi-014.openapi.json"
PROFILE = Profile(additional_slaves_max=2, leases_per_sae_max=64)

load_all_checks()
schema = schemathesis.openapi.from_dict(openapi(PROFILE))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKmes]:
    kmes = RunningKmes(tmp_path_factory.mktemp("openapi"), profile=PROFILE, wait_s=0.0)
    kmes.stock(4_000)
    kmes.stock(4_000, BOB, ALICE)
    yield kmes
    kmes.close()


def test_the_published_description_is_the_one_in_force() -> None:
    assert json.loads(PUBLISHED.read_text()) == openapi(), (
        "write it anew: python -m tests.conformance.etsi014.test_openapi"
    )


@schema.parametrize()
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_finds_a_fault(case: Any, running: RunningKmes) -> None:
    """No 5xx but a 503 for want of key; every answer is one that the description allows."""
    if len(str(case.path_parameters)) % 2:
        # Half of the requests name an application that there is, so that they come as far as the keys.
        case.path_parameters = dict.fromkeys(case.path_parameters, BOB)
    folder = running.credentials(ALICE)
    response = case.call(
        base_url=running.url(HOMES[ALICE]),
        cert=(str(folder / "cert.pem"), str(folder / "key.pem")),
        verify=str(running.authority.certificate_file),
        timeout=10,
    )
    assert response.status_code < 500 or response.status_code == 503, response.content
    case.validate_response(
        response, checks=[status_code_conformance, content_type_conformance, response_schema_conformance]
    )


if __name__ == "__main__":
    PUBLISHED.write_text(json.dumps(openapi(), indent=2) + "\n")
