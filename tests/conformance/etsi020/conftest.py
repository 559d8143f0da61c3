"""One node with its partners for all tests of a module."""

from collections.abc import Iterator

import pytest

from tests.conformance.etsi020.make import Border


@pytest.fixture(scope="module")
def border(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Border]:
    running = Border(tmp_path_factory.mktemp("border"))
    try:
        running.process.start()
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Border]:
    """A node with the synchronous mode, with little patience, and with a partner that runs a draft."""
    settings = (
        "synchronous = true\ntransfer_s_max = 6.0\nack_s_max = 2.0\nack_wait_s = 0.5\nretry_s_max = 0.3\n"
    )
    running = Border(tmp_path_factory.mktemp("other"), settings=settings, draft=True)
    try:
        running.process.start()
        yield running
    finally:
        running.close()
