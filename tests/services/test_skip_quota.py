"""SKIP obeys the quotas of ETSI GS QKD 014 (invariant I9): one account for both interfaces."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from openqci.core.errors import RequestRefused
from openqci.delivery.admission import Quota
from openqci.delivery.etsi014_model import KeyRequest
from openqci.services.kme import OwnQuotas
from tests.conformance.skip.make import ALICE, BOB, LISBON, PSKS, Providers
from tests.delivery.make import identity

BURST_KEYS = 3


@contextmanager
def providers(folder: Path) -> Iterator[Providers]:
    """Providers where Alice may have three keys of 256 bits at once, and next to none a second."""
    running = Providers(folder, quotas=OwnQuotas({ALICE: Quota(rate_bps=1e-3, burst_bits=BURST_KEYS * 256)}))
    try:
        yield running
    finally:
        running.close()


def status_of(running: Providers, **query: object) -> tuple[int, str]:
    answer = running.ask(ALICE, "/key", remoteSystemID=BOB, **query)
    return answer.status, answer.json.get("message", "")


def test_who_has_used_up_its_quota_gets_no_key_and_others_do(tmp_path: Path) -> None:
    with providers(tmp_path) as running:
        running.stock(keys=8)
        running.stock(keys=2, master=BOB, slave=ALICE)
        assert [status_of(running)[0] for _ in range(BURST_KEYS)] == [200] * BURST_KEYS
        answer = running.ask(ALICE, "/key", remoteSystemID=BOB)
        assert (answer.status, answer.json["message"]) == (503, "the quota of this SAE is used up")
        assert int(answer.headers["retry-after"]) > 60
        assert answer.json["details"] == [{"requested_bits": 256}, {"reason": "quota"}]
        said, _ = running.ask_by_psk("router-alice", PSKS["router-alice"][1], f"/key?remoteSystemID={BOB}")
        assert "the quota of this SAE is used up" in said
        assert running.ask(BOB, "/key", remoteSystemID=ALICE).status == 200


def test_one_quota_holds_over_both_interfaces(tmp_path: Path) -> None:
    with providers(tmp_path) as running:
        running.stock(keys=8)
        two = running.etsi014.get_key(LISBON, identity(ALICE), BOB, KeyRequest(BURST_KEYS - 1, 256))
        running.on_loop(two).wipe()
        assert status_of(running)[0] == 200
        assert status_of(running)[0] == 503
        one = running.etsi014.get_key(LISBON, identity(ALICE), BOB, KeyRequest(1, 256))
        with pytest.raises(RequestRefused, match="the quota of this SAE is used up"):
            running.on_loop(one)


def test_a_request_that_gets_no_key_gives_its_quota_back(tmp_path: Path) -> None:
    with providers(tmp_path) as running:
        for query, status in (({}, 503), ({"size": 7}, 400), ({"size": 1024}, 400)):
            for _ in range(BURST_KEYS + 1):
                assert status_of(running, **query)[0] == status
        assert status_of(running, size=1024)[1] == (
            "the request is larger than the quota of this SAE allows at once"
        )
        running.stock(keys=8)
        assert [status_of(running)[0] for _ in range(BURST_KEYS + 1)] == [200] * BURST_KEYS + [503]


def test_fetching_a_copy_takes_no_quota(tmp_path: Path) -> None:
    with providers(tmp_path) as running:
        running.stock(keys=8, master=BOB, slave=ALICE)
        for _ in range(BURST_KEYS + 2):
            key = running.ask(BOB, "/key", remoteSystemID=ALICE).json
            assert running.ask(ALICE, f"/key/{key['keyId']}", remoteSystemID=BOB).json == key
