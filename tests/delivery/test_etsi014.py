"""The three methods as functions: rules that need no network to be seen."""

import pytest

from openqci.core.errors import ConfigurationError, RequestRefused
from openqci.core.identifiers import KeyId, SaeId
from openqci.delivery import PeerIdentity, SaeDirectory, SaeRecord, etsi014
from openqci.delivery.directory import parse_sae_id
from openqci.delivery.etsi014 import Delivery
from openqci.delivery.etsi014_model import KeyContainer, KeyIdsRequest, KeyRequest, Status
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView
from tests.delivery.make import (
    ALICE,
    BOB,
    EVE,
    LISBON,
    WARSAW,
    enrol,
    identity,
    key_bytes,
    network,
    provenance,
    stock_pair,
)


def enc_keys(store: MemoryKeyStore, request: KeyRequest, peer: PeerIdentity | None = None) -> Delivery:
    caller = peer or identity(ALICE)
    return store.submit(
        lambda tx: etsi014.get_key(KmeView(tx, LISBON), SaeDirectory(tx), caller, BOB, request)
    ).result()


def dec_keys(store: MemoryKeyStore, key_ids: tuple[KeyId, ...], caller: SaeId = BOB) -> Delivery:
    request = KeyIdsRequest(key_ids, with_provenance=True)
    return store.submit(
        lambda tx: etsi014.get_key_with_key_ids(
            KmeView(tx, WARSAW), SaeDirectory(tx), identity(caller), ALICE, request
        )
    ).result()


def status(store: MemoryKeyStore) -> Status:
    return store.submit(
        lambda tx: etsi014.status(KmeView(tx, LISBON), SaeDirectory(tx), identity(ALICE), BOB)
    ).result()


def shown(container: KeyContainer) -> list[tuple[KeyId, bytes]]:
    return [(key.key_ID, bytes(key.key)) for key in container.keys]


def test_keys_of_one_relay_share_one_provenance() -> None:
    store = network()
    store.submit(lambda tx: stock_pair(tx, key_bytes(96))).result()
    asked = enc_keys(store, KeyRequest(number=2, with_provenance=True)).container()
    assert asked.key_container_extension == {"openqci_provenance": provenance()}
    assert all(key.key_extension is None for key in asked.keys)
    silent = enc_keys(store, KeyRequest()).container()
    assert silent.key_container_extension is None and silent.keys[0].key_extension is None


def test_keys_of_several_relays_carry_their_own() -> None:
    store = network()
    made = [provenance(("lisbon", "warsaw"), 1e-10), provenance(("lisbon", "paris", "warsaw"), 3e-10)]
    for one in made:
        store.submit(lambda tx, p=one: stock_pair(tx, key_bytes(32), made=p)).result()
    at_master = enc_keys(store, KeyRequest(number=2, with_provenance=True)).container()
    assert [key.key_extension for key in at_master.keys] == [{"openqci_provenance": one} for one in made]
    assert at_master.key_container_extension is None
    at_slave = dec_keys(store, tuple(key.key_ID for key in reversed(at_master.keys))).container()
    assert [key.key_extension for key in at_slave.keys] == [
        {"openqci_provenance": one} for one in reversed(made)
    ]
    assert shown(at_slave) == shown(at_master)[::-1]


def test_a_wiped_delivery_holds_nothing() -> None:
    store = network()
    store.submit(lambda tx: stock_pair(tx, key_bytes(64))).result()
    delivery = enc_keys(store, KeyRequest(number=2))
    assert "bytes)" in repr(delivery.container().keys) and str(delivery.container().keys[0].key) not in repr(
        delivery.container()
    )
    delivery.wipe()
    assert [len(one.key) for one in delivery.keys] == [0, 0]


def test_a_refused_request_gives_everything_back() -> None:
    store = network()
    store.submit(lambda tx: stock_pair(tx, key_bytes(32 * 4))).result()
    key_ids = tuple(one.key_id for one in enc_keys(store, KeyRequest(number=4)).keys)
    dec_keys(store, key_ids[3:])
    for mixed in ((key_ids[0], key_ids[3]), (*key_ids[:2], KeyId("11111111-2222-4333-8444-555555555555"))):
        with pytest.raises(RequestRefused):
            dec_keys(store, mixed)
    assert len(dec_keys(store, key_ids[:3]).keys) == 3


def test_status_counts_keys_and_not_bytes() -> None:
    store = network()
    for length_bytes in (40, 40):
        store.submit(lambda tx, n=length_bytes: stock_pair(tx, key_bytes(n))).result()
    assert status(store).stored_key_count == 2


def test_the_largest_request_is_met() -> None:
    store = network()
    store.submit(lambda tx: stock_pair(tx, key_bytes(128 * 512))).result()
    made = enc_keys(store, KeyRequest(number=128, size_bits=4096))
    fetched = dec_keys(store, tuple(one.key_id for one in made.keys))
    assert shown(fetched.container()) == shown(made.container())


@pytest.mark.parametrize(
    "peer", [None, PeerIdentity(ALICE, "another certificate"), identity(BOB), identity(SaeId("nobody"))]
)
def test_who_is_not_enrolled_here_is_refused_alike(peer: PeerIdentity | None) -> None:
    store = network()
    with pytest.raises(RequestRefused) as refused:
        store.submit(
            lambda tx: etsi014.get_key(KmeView(tx, LISBON), SaeDirectory(tx), peer, BOB, KeyRequest())
        ).result()
    with pytest.raises(RequestRefused) as third:
        store.submit(lambda tx: stock_pair(tx, key_bytes(32))).result()
        dec_keys(store, tuple(one.key_id for one in enc_keys(store, KeyRequest()).keys), EVE)
    assert refused.value.status == third.value.status == 401
    assert (refused.value.message, refused.value.details) == (third.value.message, third.value.details)


def test_the_directory_keeps_an_id_at_one_site() -> None:
    store = network()
    known = store.submit(lambda tx: [record.sae_id for record in SaeDirectory(tx).saes()]).result()
    assert known == [ALICE, BOB, EVE]
    store.submit(lambda tx: enrol(tx, ALICE, LISBON, "a new certificate")).result()
    with pytest.raises(ConfigurationError, match="already enrolled at lisbon"):
        store.submit(lambda tx: enrol(tx, ALICE, WARSAW, "x")).result()
    record = store.submit(lambda tx: SaeDirectory(tx).sae(ALICE)).result()
    assert isinstance(record, SaeRecord) and record.certificate_sha256 == "a new certificate"


def test_sae_ids_are_those_of_a_uri() -> None:
    for good in ("a", "x" * 64, "urn:x/y?z#[@]!$&'()*+,;=", "%2F-._~"):
        assert parse_sae_id(good) == good
    for wrong in ("", "x" * 65, "a b", "é", "a%2", "%", "a\n", '"', "a\\b", "<a>"):
        with pytest.raises(ConfigurationError):
            parse_sae_id(wrong)
