"""Keys between applications whose KMEs are no neighbours: real nodes and modules, relays between."""

import signal
import time
from collections.abc import Iterator

import pytest

from tests.kme.chain import Chain
from tests.kme.make import keys_in_time, running, sae

FIRST_BLOCKS_S = 240.0
"""Modules compile and distil their first blocks before there is link key."""


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """Four nodes in a ring: app-0 and app-2 are two hops apart, by two ways."""
    made = Chain(tmp_path_factory.mktemp("ring"), 4, more=((0, 3),))
    made.sign(2, low_keys=64, high_keys=256, hybrid="quantum")
    with running(*made.modules, *made.kmes):
        yield made


def exchanged(ring: Chain, number: int = 3, timeout_s: float = 60.0) -> dict[str, object]:
    """Fetch keys at both ends, compare them, return what the KME says of their making."""
    with sae(ring.folder, ring.credentials(0), ring.sae_port(0)) as master:
        try:
            keys_in_time(master, "app-2", number, timeout_s)
        except ConnectionError:
            # A handshake that a reload of the rules met: an application calls again.
            keys_in_time(master, "app-2", number, timeout_s)
        answer = master.enc_keys("app-2", number, provenance=True)
    assert answer.status == 200, answer.message
    with sae(ring.folder, ring.credentials(2), ring.sae_port(2)) as slave:
        theirs = slave.dec_keys("app-0", answer.key_ids)
        assert theirs.keys == answer.keys and len(set(theirs.keys)) == number
        assert slave.dec_keys("app-0", answer.key_ids).status == 400
    return answer.provenance[0]


def reload(ring: Chain) -> None:
    for kme in ring.kmes:
        assert kme.process is not None
        kme.process.send_signal(signal.SIGHUP)


def test_a_key_reaches_an_application_two_hops_away(ring: Chain) -> None:
    made = exchanged(ring, timeout_s=FIRST_BLOCKS_S)
    assert made["route"] in (["kme-0", "kme-1", "kme-2"], ["kme-0", "kme-3", "kme-2"])
    assert made["form"] == "hop-by-hop one-time pad" and made["simulated"] and made["hops"] == 2


def test_shares_over_two_ways_and_ml_kem_beside_them(ring: Chain) -> None:
    ring.learn_kem_keys()
    ring.sign(3, low_keys=64, high_keys=256, hybrid="both", paths=2)
    reload(ring)
    deadline_s = time.monotonic() + 60.0
    while (made := exchanged(ring)).get("hybrid") != ["ML-KEM-768"]:
        assert time.monotonic() < deadline_s, made  # older keys go first
        exchanged(ring, 64)
    assert sorted(path["route"][1] for path in made["paths"]) == ["kme-1", "kme-3"]
    assert made["threshold"] == 2


def test_keys_flow_again_by_the_other_way_when_a_node_dies(ring: Chain) -> None:
    ring.sign(4, low_keys=64, high_keys=256, hybrid="quantum")
    reload(ring)
    ring.kmes[1].kill()
    try:
        deadline_s = time.monotonic() + 60.0
        while exchanged(ring, 64)["route"] != ["kme-0", "kme-3", "kme-2"]:
            assert time.monotonic() < deadline_s
    finally:
        ring.kmes[1].start()
    assert ring.status(0)["relays"]["ready"] > 0
