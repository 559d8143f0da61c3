"""ETSI GS QKD 014 V1.1.1: what a KME may choose: multicast, extensions, revocation, switches."""

import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from openqci.core.identifiers import KmeId, SaeId
from openqci.core.keys import SecretBytes
from openqci.delivery.etsi014_model import (
    KEYS_NOT_FOUND,
    MANDATORY_NOT_MET,
    MANDATORY_NOT_SUPPORTED,
    OPTIONAL_NOT_HANDLED,
    Profile,
)
from openqci.delivery.pair_stock import KeyBatch, batches_in_stock, destroy_batch, store_batch
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.services.pki import CertificateAuthority, IssuedCertificate, peer_identity
from tests.conformance.etsi014.make import ALICE, BOB, CAROL, EVE, LISBON, RunningKmes
from tests.conformance.etsi014.test_delivery import assert_error
from tests.delivery.make import WARSAW, batch, key_bytes, provenance, stock_pair

ENC = f"/api/v1/keys/{BOB}/enc_keys"
DEC = f"/api/v1/keys/{ALICE}/dec_keys"


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKmes]:
    running = RunningKmes(tmp_path_factory.mktemp("several"), profile=Profile(additional_slaves_max=2))
    yield running
    running.close()


@pytest.fixture(scope="module")
def other_habits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKmes]:
    """A KME with every switch set the other way."""
    profile = Profile(
        key_size_bits=128,
        key_size_bits_max=512,
        keys_per_request_max=4,
        unknown_key_status=404,
        insufficient_status=400,
        optional_unhandled="refuse",
        strict=True,
    )
    running = RunningKmes(tmp_path_factory.mktemp("other"), profile=profile)
    yield running
    running.close()


def post(kmes: RunningKmes, sae: SaeId, path: str, document: object) -> Any:
    return kmes.raw(sae, "POST", path, json.dumps(document))


def ask_for(key_ids: list[str]) -> dict[str, Any]:
    return {"key_IDs": [{"key_ID": key_id} for key_id in key_ids]}


def group_keys(kmes: RunningKmes, number: int = 1) -> list[dict[str, str]]:
    kmes.stock_group(number, ALICE, (BOB, EVE))
    answer = post(kmes, ALICE, ENC, {"number": number, "additional_slave_SAE_IDs": [EVE]})
    assert answer.status == 200, answer.body
    return list(answer.json["keys"])


def test_014_25_each_named_slave_gets_the_same_key_once(several: RunningKmes) -> None:
    keys = group_keys(several, 2)
    wanted = ask_for([key["key_ID"] for key in keys])
    for slave in (BOB, EVE):
        assert post(several, slave, DEC, wanted).json["keys"] == keys
        # 014-34 for a slave of several: the other's copy gives it no second right.
        assert_error(post(several, slave, DEC, wanted), 400, KEYS_NOT_FOUND)


def test_014_25_a_slave_that_was_not_named_gets_401(several: RunningKmes) -> None:
    several.stock(1)
    single = post(several, ALICE, ENC, {}).json["keys"]
    assert_error(post(several, EVE, DEC, ask_for([single[0]["key_ID"]])), 401)
    keys = group_keys(several)
    assert_error(post(several, CAROL, DEC, ask_for([keys[0]["key_ID"]])), 400)  # at Lisbon no copy is known
    assert post(several, BOB, DEC, ask_for([keys[0]["key_ID"]])).status == 200


def test_014_25_stock_of_a_pair_is_no_stock_of_a_group(several: RunningKmes) -> None:
    several.stock(5)
    answer = post(several, ALICE, ENC, {"additional_slave_SAE_IDs": [EVE]})
    assert_error(answer, 503, "insufficient key material")


@pytest.mark.parametrize(
    "additional",
    [[EVE, EVE], [BOB], [ALICE], [""], [CAROL], ["nobody"], [EVE, "x", "y"], "eve", [1]],
    ids=str,
)
def test_014_24_additional_slaves_that_make_no_sense(several: RunningKmes, additional: object) -> None:
    assert_error(post(several, ALICE, ENC, {"additional_slave_SAE_IDs": additional}), 400)


def test_014_24_the_status_tells_how_many(several: RunningKmes) -> None:
    assert several.raw(ALICE, "GET", f"/api/v1/keys/{BOB}/status").json["max_SAE_ID_count"] == 2


@pytest.mark.parametrize(
    ("extension", "met"),
    [
        ({"openqci_max_hops": 2}, True),
        ({"openqci_max_hops": 1}, False),
        ({"openqci_max_epsilon": 1e-9}, True),
        ({"openqci_max_epsilon": 1e-12}, False),
        ({"openqci_avoid": ["paris"]}, True),
        ({"openqci_avoid": ["madrid"]}, False),
        ({"openqci_avoid": ["lisbon--madrid"]}, False),
        ({"openqci_require": ["not_simulated"]}, False),
        ({"openqci_require": []}, True),
        ({"openqci_max_age_s": 1.0}, False),
        ({"openqci_max_age_s": 1e11}, True),
    ],
    ids=str,
)
def test_014_26_demanded_properties_are_met_or_refused(
    several: RunningKmes, extension: dict[str, Any], met: bool
) -> None:
    several.stock(2)
    answer = post(several, ALICE, ENC, {"extension_mandatory": [extension]})
    if met:
        assert answer.status == 200
    else:
        assert_error(answer, 400, MANDATORY_NOT_MET)
        assert {"requested_bits": 256} in answer.json["details"]
    # As a wish the same never stands in the way.
    assert post(several, ALICE, ENC, {"extension_optional": [extension]}).status == 200


@pytest.mark.parametrize(
    "extension",
    [
        {"openqci_max_hops": 0},
        {"openqci_max_hops": 1.5},
        {"openqci_max_hops": True},
        {"openqci_max_age_s": "1"},
        {"openqci_max_epsilon": -1},
        {"openqci_avoid": "madrid"},
        {"openqci_avoid": [1]},
        {"openqci_require": ["magic"]},
        {"openqci_require": {}},
    ],
    ids=str,
)
def test_014_26_a_demand_that_cannot_be_understood_cannot_be_met(
    several: RunningKmes, extension: dict[str, Any]
) -> None:
    assert_error(post(several, ALICE, ENC, {"extension_mandatory": [extension]}), 400, MANDATORY_NOT_MET)


def test_014_26_demands_choose_among_batches(several: RunningKmes) -> None:
    """Key of two routes in one stock: the demand takes what it wants, the rest stays for others."""
    other = provenance(("lisbon", "paris", "warsaw"))
    several.store.submit(
        lambda tx: stock_pair(tx, key_bytes(32), made=other, master=ALICE, slave=EVE)
    ).result()
    path = f"/api/v1/keys/{EVE}/enc_keys"
    several.stock(1, ALICE, EVE)
    wanted = {"extension_mandatory": [{"openqci_avoid": ["paris"]}, {"openqci_provenance": True}]}
    answer = post(several, ALICE, path, wanted)
    assert answer.json["key_container_extension"]["openqci_provenance"]["route"] == [
        "lisbon",
        "madrid",
        "warsaw",
    ]
    assert_error(post(several, ALICE, path, wanted), 400, MANDATORY_NOT_MET)
    rest = post(several, ALICE, path, {"extension_optional": wanted["extension_mandatory"]})
    assert rest.json["key_container_extension"]["openqci_provenance"]["route"][1] == "paris"


def test_014_26_an_unknown_demand_is_not_supported(several: RunningKmes) -> None:
    answer = post(several, ALICE, ENC, {"extension_mandatory": [{"other_thing": 1}]})
    assert_error(answer, 400, MANDATORY_NOT_SUPPORTED)


def test_compatibility_sizes_and_counts(other_habits: RunningKmes) -> None:
    other_habits.stock(10)
    status = other_habits.raw(ALICE, "GET", f"/api/v1/keys/{BOB}/status").json
    assert (status["key_size"], status["max_key_size"], status["max_key_per_request"]) == (128, 512, 4)
    assert len(post(other_habits, ALICE, ENC, {}).json["keys"][0]["key"]) == 24
    assert_error(post(other_habits, ALICE, ENC, {"number": 5}), 400)
    assert_error(post(other_habits, ALICE, ENC, {"size": 1024}), 400)


def test_compatibility_statuses(other_habits: RunningKmes) -> None:
    unknown = ask_for(["00000000-0000-4000-8000-000000000000"])
    assert_error(post(other_habits, BOB, DEC, unknown), 404, KEYS_NOT_FOUND)
    other = f"/api/v1/keys/{EVE}/enc_keys"
    assert_error(post(other_habits, ALICE, other, {}), 400, "insufficient key material")


def test_014_27_a_kme_may_refuse_optional_extensions(other_habits: RunningKmes) -> None:
    for extension in ({"vendor_thing": 1}, {"openqci_max_hops": "x"}, {"openqci_max_hops": 1}):
        other_habits.stock(1)
        answer = post(other_habits, ALICE, ENC, {"extension_optional": [extension]})
        assert_error(answer, 400, OPTIONAL_NOT_HANDLED)


def test_014_43_a_strict_kme_refuses_unknown_members(other_habits: RunningKmes) -> None:
    assert_error(post(other_habits, ALICE, ENC, {"colour": "red"}), 400)
    assert_error(post(other_habits, BOB, DEC, {**ask_for(["x"]), "colour": 1}), 400)
    assert_error(other_habits.raw(ALICE, "GET", f"{ENC}?colour=red"), 400)
    assert_error(other_habits.raw(BOB, "GET", f"{DEC}?colour=red&key_ID=x"), 400)


def test_014_03_a_revoked_certificate_is_refused_without_a_restart(tmp_path: Path) -> None:
    running = RunningKmes(tmp_path)
    try:
        path = f"/api/v1/keys/{BOB}/status"
        with closing(
            HTTPSConnection("127.0.0.1", running.ports[LISBON], context=running.tls(ALICE))
        ) as open_now:
            open_now.request("GET", path)
            assert open_now.getresponse().read()
            alice = x509.load_pem_x509_certificate((running.credentials(ALICE) / "cert.pem").read_bytes())
            running.authority.revoke(alice)
            running.revocation_lists = (running.authority.revocation_file,)
            running.reload()
            # Neither the connection that was open nor a new one is served; others are.
            with pytest.raises((OSError, HTTPException)):
                open_now.request("GET", path)
                open_now.getresponse()
        with pytest.raises((OSError, HTTPException)):
            running.raw(ALICE, "GET", path)
        assert running.raw(CAROL, "GET", path).status == 200
    finally:
        running.close()


def test_identity_by_dns_name_or_common_name(tmp_path: Path) -> None:
    """Certificates of an authority that knows no URIs of ours: by the rule of the deployment."""
    authority = CertificateAuthority.open_or_create(tmp_path)
    ours = der(authority.issue_sae(SaeId("app")))
    assert peer_identity(ours, "uri") == peer_identity(ours, "cn") is not None
    assert peer_identity(ours, "dns") is None, "it names no DNS name"
    foreign = named(authority, "app", "app")
    assert None not in [peer_identity(foreign, rule) for rule in ("uri", "dns", "cn")]
    assert peer_identity(named(authority, "app", "other"), "dns") is None
    assert peer_identity(named(authority, "app", "app", "other"), "dns") is None


def der(issued: IssuedCertificate) -> bytes:
    return x509.load_pem_x509_certificate(issued.certificate_pem).public_bytes(Encoding.DER)


def named(authority: CertificateAuthority, common_name: str, *dns_names: str) -> bytes:
    """Return the DER of a certificate as other authorities write it."""
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns_names]
    return der(authority._issue(common_name, names, ExtendedKeyUsageOID.CLIENT_AUTH))


def test_014_36_no_key_leaves_before_it_lies_at_both_ends(several: RunningKmes) -> None:
    """What a slave's KME has confirmed and the master's has not taken into stock cannot be asked for."""
    key, path = key_bytes(32), f"/api/v1/keys/{EVE}/enc_keys"
    several.store.submit(lambda tx: empty_pair(tx, CAROL, EVE)).result()
    slave = batch("slave", tag=77, length_bytes=32, master=CAROL, slave=EVE)
    several.store.submit(lambda tx: store_one(tx, WARSAW, slave, key)).result()
    assert_error(several.raw(CAROL, "GET", path), 503, "insufficient key material")
    master = batch("master", tag=77, length_bytes=32, master=CAROL, slave=EVE)
    several.store.submit(lambda tx: store_one(tx, LISBON, master, key)).result()
    (given,) = several.raw(CAROL, "GET", path).json["keys"]
    fetched = post(several, EVE, f"/api/v1/keys/{CAROL}/dec_keys", ask_for([given["key_ID"]]))
    assert fetched.json["keys"] == [given] and b64decode(given["key"]) == key


def store_one(transaction: StoreTransaction, kme: KmeId, one: KeyBatch, key: bytes) -> None:
    with SecretBytes(key) as secret:
        store_batch(KmeView(transaction, kme), one, secret)


def empty_pair(transaction: StoreTransaction, master: SaeId, slave: SaeId) -> None:
    for each in list(batches_in_stock(KmeView(transaction, LISBON), master, slave)):
        destroy_batch(KmeView(transaction, LISBON), each)
