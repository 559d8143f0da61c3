"""Two nodes with agents for all tests of the folder."""

from collections.abc import Iterator

import pytest

from openqci.control.etsi015.model import TYPES
from tests.conformance.etsi015.make import Agents
from tests.kme.make import running


@pytest.fixture(scope="package")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    made = Agents(tmp_path_factory.mktemp("agents"))
    with running(*made.chain.modules, *made.chain.kmes):
        made.until(lambda: made.link()["qkdl_status"] == f"{TYPES}:ACTIVE")
        yield made
