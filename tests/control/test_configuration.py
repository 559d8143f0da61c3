"""The signed configuration of a domain: who may write it, what a node takes, what it never takes again."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from openqci.control.configuration import (
    Border,
    DomainConfiguration,
    Link,
    Node,
    Pair,
    Reach,
    SignedConfiguration,
    accept,
    current,
    sign,
    verify,
)
from openqci.core.errors import ConfigurationError, PeerMisbehaved
from openqci.core.identifiers import KmeId, SaeId
from openqci.crypto.signatures import SigningKey, VerifyingKey
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView

PRIVATE = ec.generate_private_key(ec.SECP256R1())
SIGNER, VERIFIER = SigningKey(PRIVATE), VerifyingKey(PRIVATE.public_key())
STRANGER = SigningKey(ec.generate_private_key(ec.SECP256R1()))


def configuration(version: int = 1, **changes: object) -> DomainConfiguration:
    whole = DomainConfiguration(
        "AT",
        version,
        1_000.0,
        nodes=(Node("kme-a", saes=("bank.a",)), Node("kme-b"), Node("kme-c", saes=("bank.c",))),
        links=(Link("a--b", "kme-a", "kme-b", 1e4), Link("b--c", "kme-b", "kme-c", 2e4)),
        pairs=(Pair("bank.a", "bank.c"),),
        borders=(Border("kme-c", "HU", "kme-x"),),
        reaches=(Reach("HU", ("kme-c",), ("bank.hu",)),),
    )
    return msgspec.structs.replace(whole, **changes)


def test_what_the_controller_signed_comes_back_whole() -> None:
    assert verify(sign(configuration(), SIGNER), VERIFIER) == configuration()
    assert configuration().kme_of(SaeId("bank.c")) == "kme-c"


def test_another_signature_is_refused() -> None:
    with pytest.raises(PeerMisbehaved, match="not signed by this domain's controller"):
        verify(sign(configuration(), STRANGER), VERIFIER)


@given(st.data())
def test_no_changed_byte_is_taken_for_the_controllers_word(data: st.DataObject) -> None:
    signed = msgspec.json.decode(sign(configuration(), SIGNER), type=SignedConfiguration)
    document = bytearray(signed.document)
    document[data.draw(st.integers(0, len(document) - 1))] ^= data.draw(st.integers(1, 255))
    changed = msgspec.json.encode(SignedConfiguration(bytes(document), signed.signature))
    with pytest.raises(PeerMisbehaved, match="not signed"):
        verify(changed, VERIFIER)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"document":"!","signature":""}', b"\xff"])
def test_what_is_no_configuration_is_refused(text: bytes) -> None:
    with pytest.raises(PeerMisbehaved, match="cannot be read"):
        verify(text, VERIFIER)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 0}, "version"),
        ({"links": (Link("a--z", "kme-a", "kme-z"),)}, "kme-z"),
        ({"links": (Link("a/b", "kme-a", "kme-b"),)}, "slash"),
        ({"links": (Link("a--a", "kme-a", "kme-a"),)}, "itself"),
        ({"nodes": (Node("kme-a"), Node("kme-a"))}, "more than once"),
        ({"borders": (Border("kme-z", "HU", "kme-x"),)}, "kme-z"),
        ({"reaches": (Reach("HU", ("kme-a",)),)}, "no border"),
        ({"pairs": (Pair("bank.a", "bank.c", hybrid="none"),)}, "hybrid"),
        ({"pairs": (Pair("bank.a", "bank.c", low_keys=9, high_keys=1),)}, "low_keys"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_not_signed(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        sign(configuration(**changes), SIGNER)


def in_store(kme: str, *documents: DomainConfiguration) -> DomainConfiguration | None:
    def work(transaction: object) -> DomainConfiguration | None:
        view = KmeView(transaction, KmeId(kme))  # type: ignore[arg-type]
        for each in documents:
            accept(view, each)
        return current(view)

    return MemoryKeyStore().submit(work).result()


def test_a_node_takes_later_versions_and_none_before() -> None:
    first, second = configuration(1), configuration(2, pairs=())
    assert in_store("kme-a", first, second) == second
    assert in_store("kme-a", second, second) == second
    with pytest.raises(PeerMisbehaved, match="takes only later ones"):
        in_store("kme-a", second, first)
    with pytest.raises(PeerMisbehaved, match="takes only later ones"):
        in_store("kme-a", second, configuration(2))


def test_a_node_takes_only_its_own_domains() -> None:
    with pytest.raises(PeerMisbehaved, match="no node of domain AT"):
        in_store("kme-z", configuration())
    with pytest.raises(PeerMisbehaved, match="of domain HU, not AT"):
        in_store("kme-a", configuration(), configuration(2, domain="HU"))
