"""A relay that carries its caller's payload, and what travels with a payload."""

from functools import partial

import msgspec
import pytest

from openqci.core.errors import IntegrityError, PeerMisbehaved
from openqci.core.identifiers import LinkId, SiteId, link_stream
from openqci.core.keys import SecretBytes
from openqci.relay import CONTROL_BYTES, RelayArrival, RelayRefused, begin, hop_bytes
from openqci.relay.messages import CARGO_BYTES_MAX, decode_frame
from tests.relay.make import KEY_BYTES, Net, chain, order, revealed

PAYLOAD = bytes(range(KEY_BYTES + CONTROL_BYTES))
CARGO = b"an end-to-end order"


def carry(net: Net, sites: list[str], links: list[str]) -> tuple[list[bytes], RelayArrival]:
    relay = order(sites, links, purpose=b"share 2", carried=True)
    wire, kept = net.at(sites[0], partial(begin, order=relay, payload=SecretBytes(PAYLOAD), cargo=CARGO))
    assert revealed(kept) == PAYLOAD
    wires = [wire]
    for site in sites[1:-1]:
        answer = net.forward(site, wires[-1])
        assert isinstance(answer, bytes)
        wires.append(answer)
    arrival = net.terminate(sites[-1], wires[-1])
    assert isinstance(arrival, RelayArrival)
    return wires, arrival


@pytest.mark.parametrize("hops", [1, 2, 5])
def test_the_caller_s_payload_arrives_padded_on_every_hop_with_its_cargo(hops: int) -> None:
    net, sites, links = chain(hops)
    wires, arrival = carry(net, sites, links)
    assert revealed(arrival.payload) == PAYLOAD and arrival.cargo == CARGO
    for i, wire in enumerate(wires):
        frame = decode_frame(wire)
        stream = link_stream(LinkId(links[i]), SiteId(sites[i]))
        pad = net.truth[stream][frame.offset_bytes : frame.offset_bytes + len(PAYLOAD)]
        assert frame.ciphertext == bytes(a ^ b for a, b in zip(PAYLOAD, pad, strict=True))
        assert frame.cargo == CARGO and frame.order.purpose == b"share 2"
        for end in sites[i : i + 2]:
            assert net.stock(end, links[i], sites[i]) == 2048 - hop_bytes(KEY_BYTES)


@pytest.mark.parametrize("changed", [b"", CARGO[:-1], CARGO + b"s", CARGO.upper()])
@pytest.mark.parametrize("hop", [0, 1])
def test_another_cargo_is_a_forgery(hop: int, changed: bytes) -> None:
    net, sites, links = chain(2)
    relay = order(sites, links, carried=True)
    wire, _ = net.at(sites[0], partial(begin, order=relay, payload=SecretBytes(PAYLOAD), cargo=CARGO))
    step = net.forward
    if hop:
        answer = net.forward(sites[1], wire)
        assert isinstance(answer, bytes)
        wire, step = answer, net.terminate
    forged = msgspec.msgpack.encode(msgspec.structs.replace(decode_frame(wire), cargo=changed))
    refusal = step(sites[hop + 1], forged)
    assert isinstance(refusal, RelayRefused) and refusal.forged


@pytest.mark.parametrize("change", [{"purpose": b"share 1"}, {"carried": False}, {"form": "xor"}])
def test_another_purpose_form_or_kind_is_a_forgery_or_no_frame(change: dict[str, object]) -> None:
    net, sites, links = chain(2)
    relay = order(sites, links, purpose=b"share 2", carried=True)
    wire, _ = net.at(sites[0], partial(begin, order=relay, payload=SecretBytes(PAYLOAD)))
    frame = decode_frame(wire)
    forged = msgspec.structs.replace(frame, order=msgspec.structs.replace(frame.order, **change))
    try:
        refusal = net.forward(sites[1], msgspec.msgpack.encode(forged))
    except PeerMisbehaved:
        return
    assert isinstance(refusal, RelayRefused) and refusal.forged


def test_a_payload_comes_from_the_caller_or_from_the_hop_as_the_order_says() -> None:
    net, sites, links = chain(2)
    before = net.stocks()
    for carried, payload in ((True, None), (False, SecretBytes(PAYLOAD)), (True, SecretBytes(b"short"))):
        relay = order(sites, links, carried=carried)
        with pytest.raises(IntegrityError):
            net.at(sites[0], partial(begin, order=relay, payload=payload))
    assert net.stocks() == before


def test_cargo_has_a_limit() -> None:
    net, sites, links = chain(1)
    whole = bytes(CARGO_BYTES_MAX)
    wire, _ = net.at(sites[0], partial(begin, order=order(sites, links), cargo=whole))
    assert isinstance(net.terminate(sites[1], wire), RelayArrival)
    with pytest.raises(IntegrityError):
        net.at(sites[0], partial(begin, order=order(sites, links, number=2), cargo=whole + b"."))
    longer = msgspec.structs.replace(decode_frame(wire), cargo=whole + b".")
    with pytest.raises(PeerMisbehaved, match="cargo"):
        net.terminate(sites[1], msgspec.msgpack.encode(longer))
