"""Hops that are crossed under ML-KEM instead of a pad: only where the order says so, and never unsaid."""

from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import KeyUnavailable, PeerMisbehaved
from openqci.core.keys import SecretBytes
from openqci.crypto.bridging import open_sealed, seal_for, sealed_bytes
from openqci.crypto.hybrid import KemAlgorithm, KemPrivateKey, KemPublicKey
from openqci.relay import (
    RelayArrival,
    RelayForm,
    RelayOrder,
    RelayRefused,
    begin,
    forward,
    hop_bytes,
    terminate,
)
from openqci.relay.messages import decode_frame
from tests.relay.make import KEY_BYTES, Net, chain, order, revealed

KEYS = {f"site{number}": KemPrivateKey.generate() for number in range(4)}


class Known:
    """Every node's encapsulation key, and one node's own decapsulation key."""

    def __init__(self, own: str = "", known: dict[str, KemPrivateKey] = KEYS) -> None:
        self.own, self.known = own, known

    def public_key(self, name: str) -> KemPublicKey | None:
        return self.known[name].public if name in self.known else None

    def private_key(self, key_id: bytes) -> KemPrivateKey | None:
        key = self.known.get(self.own)
        return key if key and key.public.key_id == key_id else None


def bridged(relay: RelayOrder, *hops: int) -> RelayOrder:
    return msgspec.structs.replace(relay, form=RelayForm.COMPUTATIONAL, bridged=hops)


def carry(net: Net, relay: RelayOrder, payload: SecretBytes | None = None) -> tuple[bytes, list[bytes], Any]:
    """Carry a relay to its end; return the payload as the origin has it, all frames, what became of it."""
    known = partial(begin, order=relay, payload=payload, cargo=b"cargo", bridges=Known())
    wire, kept = net.at(relay.route[0], known)
    wires = [wire]
    for site in relay.route[1:-1]:
        answer = net.at(site, partial(forward, data=wires[-1], bridges=Known(site)))
        if isinstance(answer, RelayRefused):
            return revealed(kept), wires, answer
        wires.append(answer)
    last = relay.route[-1]
    return revealed(kept), wires, net.at(last, partial(terminate, data=wires[-1], bridges=Known(last)))


@pytest.mark.parametrize("hops", [(1,), (2,), (1, 2)])
def test_a_payload_crosses_bridged_hops_and_spends_nothing_there(hops: tuple[int, ...]) -> None:
    net, sites, links = chain(3)
    payload, wires, arrival = carry(net, bridged(order(sites, links), *hops))
    assert isinstance(arrival, RelayArrival) and revealed(arrival.payload) == payload
    assert arrival.cargo == b"cargo"
    for at, (link, wire) in enumerate(zip(links, wires, strict=True)):
        spent = 2048 - net.stock(sites[at], link, sites[at])
        assert spent == (0 if at in hops else hop_bytes(KEY_BYTES))
        assert spent == 2048 - net.stock(sites[at + 1], link, sites[at])
        frame = decode_frame(wire)
        assert (frame.tag, frame.offset_bytes) == (b"", 0) if at in hops else len(frame.tag) == 16
        assert payload[:8] not in wire


def test_the_first_hop_is_bridged_for_a_carried_payload_only() -> None:
    net, sites, links = chain(2, stock_bytes=0)
    relay = bridged(order(sites, links, carried=True), 0, 1)
    given_payload = bytes(range(relay.payload_bytes))
    payload, _, arrival = carry(net, relay, SecretBytes(given_payload))
    assert revealed(arrival.payload) == payload == given_payload
    with pytest.raises(PeerMisbehaved, match="first hop"):
        carry(net, bridged(order(sites, links), 0))


def test_an_order_says_by_its_form_that_a_hop_is_bridged() -> None:
    net, sites, links = chain(2)
    for change in (
        {"bridged": (1,)},
        {"form": RelayForm.COMPUTATIONAL},
        {"form": RelayForm.COMPUTATIONAL, "bridged": (2,)},
        {"form": RelayForm.COMPUTATIONAL, "bridged": (1, 1)},
        {"form": RelayForm.COMPUTATIONAL, "bridged": (-1,)},
    ):
        with pytest.raises(PeerMisbehaved):
            carry(net, msgspec.structs.replace(order(sites, links), **change))


def test_a_frame_for_a_padded_hop_cannot_be_made_a_bridged_one() -> None:
    """What is bridged stands in the order, and the order is under the MAC of the hop before."""
    net, sites, links = chain(2)
    wire, _ = net.at(sites[0], partial(begin, order=order(sites, links)))
    frame = decode_frame(wire)
    forged = msgspec.structs.replace(frame, order=bridged(frame.order, 1))
    answer = net.at(sites[1], partial(forward, data=msgspec.msgpack.encode(forged), bridges=Known(sites[1])))
    assert isinstance(answer, RelayRefused) and answer.forged


@pytest.mark.parametrize("place", [0, 40, 1200, -1])
def test_a_sealed_payload_that_was_changed_is_refused(place: int) -> None:
    net, sites, links = chain(2)
    _, wires, _ = carry(net, bridged(order(sites, links), 1))
    frame = decode_frame(wires[1])
    changed = bytearray(frame.ciphertext)
    changed[place] ^= 1
    for forged in (
        msgspec.structs.replace(frame, ciphertext=bytes(changed)),
        msgspec.structs.replace(frame, cargo=b"other"),
        msgspec.structs.replace(frame, order=msgspec.structs.replace(frame.order, purpose=b"other")),
        msgspec.structs.replace(frame, ciphertext=b""),
    ):
        wire = msgspec.msgpack.encode(forged)
        answer = net.at(sites[2], partial(terminate, data=wire, bridges=Known(sites[2])))
        assert isinstance(answer, RelayRefused) and answer.destroyed.length_bytes == 0


def test_a_node_without_keys_bridges_nothing() -> None:
    net, sites, links = chain(2)
    relay = bridged(order(sites, links), 1)
    wire, _ = net.at(sites[0], partial(begin, order=relay))
    answer = net.forward(sites[1], wire)
    assert isinstance(answer, RelayRefused) and not answer.forged and "ML-KEM" in answer.reason
    _, wires, _ = carry(net, relay)
    answer = net.at(sites[2], partial(terminate, data=wires[1]))
    assert isinstance(answer, RelayRefused) and not answer.forged
    carried = bridged(order(sites, links, carried=True), 0)
    with pytest.raises(KeyUnavailable, match="ML-KEM"):
        payload = SecretBytes(bytes(carried.payload_bytes))
        net.at(sites[0], partial(begin, order=carried, payload=payload))


def test_a_bridged_frame_names_no_range() -> None:
    net, sites, links = chain(2)
    _, wires, _ = carry(net, bridged(order(sites, links), 1))
    frame = decode_frame(wires[1])
    for change in ({"offset_bytes": 5}, {"tag": bytes(16)}):
        with pytest.raises(PeerMisbehaved):
            net.terminate(sites[2], msgspec.msgpack.encode(msgspec.structs.replace(frame, **change)))


@settings(max_examples=25)
@given(st.sampled_from(list(KemAlgorithm)), st.binary(max_size=300), st.binary(max_size=300))
def test_what_is_sealed_opens_with_its_key_and_context_alone(
    algorithm: KemAlgorithm, context: bytes, payload: bytes
) -> None:
    key = KemPrivateKey.generate(algorithm)
    sealed = seal_for(key.public, context, SecretBytes(payload))
    assert len(sealed) == sealed_bytes(key.public, len(payload))
    assert revealed(open_sealed(key, context, sealed)) == payload
    for other, said, message in (
        (KemPrivateKey.generate(algorithm), context, sealed),
        (key, context + b".", sealed),
        (key, context, sealed[:-1]),
        (key, context, sealed[:40]),
    ):
        with pytest.raises(PeerMisbehaved):
            open_sealed(other, said, message)
