"""Any bytes at a node's door: refused as no frame, or as a frame that finds no key; never another error."""

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openqci.core.errors import KeyUnavailable, PeerMisbehaved
from openqci.relay import RelayArrival, RelayFrame, RelayRefused, hop_bytes, next_site
from openqci.relay.messages import decode_frame
from tests.relay.make import KEY_BYTES, Origin, chain, order

SITES, LINKS = chain(2, stock_bytes=1)[1:]
GENUINE = msgspec.msgpack.encode(
    RelayFrame(order(SITES, LINKS), 1, 0, bytes(order(SITES, LINKS).payload_bytes), bytes(16))
)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=12)
    | st.binary(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
places = st.sampled_from(
    [
        *[(name,) for name in RelayFrame.__struct_fields__],
        *[("order", name) for name in type(order(SITES, LINKS)).__struct_fields__],
    ]
)


@given(st.binary(max_size=2000))
@example(b"")
@example(b"\x80")
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\x85\xa5order\xc0")
def test_bytes_that_are_no_frame(wire: bytes) -> None:
    with pytest.raises(PeerMisbehaved):
        decode_frame(wire)
    with pytest.raises(PeerMisbehaved):
        next_site(wire)


@given(values)
def test_well_formed_messages_that_are_no_frame(value: Any) -> None:
    with pytest.raises(PeerMisbehaved):
        decode_frame(msgspec.msgpack.encode(value))


@given(place=places, value=values)
def test_a_frame_with_any_other_value_in_one_place(place: tuple[str, ...], value: Any) -> None:
    """Either no frame, or one whose encoding is its own: what the MAC covers is what travelled."""
    frame = msgspec.msgpack.decode(GENUINE)
    inside = frame
    for name in place[:-1]:
        inside = inside[name]
    inside[place[-1]] = value
    wire = msgspec.msgpack.encode(frame)
    try:
        read = decode_frame(wire)
    except PeerMisbehaved:
        return
    assert msgspec.msgpack.encode(read) == wire


@given(start=st.integers(0, len(GENUINE)), length=st.integers(0, 60), insert=st.binary(max_size=60))
def test_a_frame_with_a_part_cut_out_and_bytes_put_in_finds_no_key(
    start: int, length: int, insert: bytes
) -> None:
    wire = GENUINE[:start] + insert + GENUINE[start + length :]
    net, sites, _ = chain(2, stock_bytes=hop_bytes(KEY_BYTES))
    for site in sites:
        for step in (net.forward, net.terminate):
            try:
                answer = step(site, wire)
            except (PeerMisbehaved, KeyUnavailable):
                continue
            assert isinstance(answer, RelayRefused) and answer.forged


def named(wire: bytes) -> tuple[object, ...]:
    """Return the range that a frame names at its receiver."""
    frame = decode_frame(wire)
    return (*frame.order.hop(frame.hop_index), frame.offset_bytes, frame.order.key_bytes)


@given(hop=st.integers(0, 3), place=st.integers(0), flip=st.integers(1, 255))
def test_tampering_destroys_the_range_at_the_receiver_for_good_or_touches_nothing(
    hop: int, place: int, flip: int
) -> None:
    """A refusal commits: the genuine frame comes too late then. Else the genuine frame still goes through."""
    net, sites, links = chain(4, stock_bytes=hop_bytes(KEY_BYTES))
    wire = net.begin(Origin(order(sites, links)))
    for site in sites[1 : hop + 1]:
        answer = net.forward(site, wire)
        assert isinstance(answer, bytes)
        wire = answer
    changed = bytearray(wire)
    changed[place % len(wire)] ^= flip
    receiver = sites[hop + 1]
    step = net.terminate if hop == 3 else net.forward
    try:
        refusal: Any = step(receiver, bytes(changed))
    except (PeerMisbehaved, KeyUnavailable) as error:
        if isinstance(error, KeyUnavailable):
            assert named(bytes(changed)) != named(wire), "a range that is there is taken and so destroyed"
        assert net.stock(receiver, links[hop], sites[hop]) == hop_bytes(KEY_BYTES)
        assert isinstance(step(receiver, wire), bytes | RelayArrival)
        return
    assert isinstance(refusal, RelayRefused) and refusal.forged
    assert net.stock(receiver, links[hop], sites[hop]) == 0
    with pytest.raises(KeyUnavailable):
        step(receiver, wire)
