"""The store of a small network, with its applications enrolled; a file may have one of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from openqci.core.identifiers import SiteId, kme_of_site
from openqci.delivery import SaeDirectory, SaeRecord
from openqci.services.sqlite_store import SqliteKeyStore
from tests.cli.test_relaying import FAR, MASTER, METRO, SLAVE


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteKeyStore]:
    opened = SqliteKeyStore.open(tmp_path / "store.sqlite", bytes(32))
    ends = next(iter(METRO.hops.values())).a, list(METRO.hops.values())[-1].b
    for sae, site in zip((MASTER, SLAVE, FAR), (*ends, SiteId("hu-gyor")), strict=True):
        record = SaeRecord(sae, site, kme_of_site(site), sae, "", 0.0)
        opened.submit(lambda tx, each=record: SaeDirectory(tx).enrol(each)).result()
    yield opened
    opened.close()
