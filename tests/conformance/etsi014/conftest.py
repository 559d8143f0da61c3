"""One pair of KMEs for all conformance tests of a module."""

from collections.abc import Iterator

import pytest

from tests.conformance.etsi014.make import RunningKmes


@pytest.fixture(scope="module")
def kmes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKmes]:
    running = RunningKmes(tmp_path_factory.mktemp("kmes"))
    yield running
    running.close()
