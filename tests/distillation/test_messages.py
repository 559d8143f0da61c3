"""Wire format v1: what is accepted encodes again to the same bytes, everything else is refused."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import PeerMisbehaved
from openqci.distillation.messages import (
    Announcement,
    announced,
    announced_slots,
    decode_body,
    decode_envelope,
    encode,
    packed,
    packed_intensities,
    unpacked,
    unpacked_intensities,
)


@given(st.lists(st.integers(1, 2**40), min_size=0, max_size=50), st.integers(0, 2**50))
def test_slots_survive_the_wire(gaps: list[int], first: int) -> None:
    slots = (np.cumsum([0, *gaps]) + first).astype(np.int64)
    message = decode_body(encode(announced(slots, np.zeros(slots.size, np.uint8), 0)))
    assert isinstance(message, Announcement)
    assert np.array_equal(announced_slots(message), slots)


def test_no_detections_survive_the_wire() -> None:
    message = announced(np.empty(0, np.int64), np.empty(0, np.uint8), 0)
    assert announced_slots(message).size == 0


@pytest.mark.parametrize(
    "change",
    [
        {"deltas": b"\x01\x00"},
        {"deltas": b"\x01"},
        {"delta_width_bytes": 3},
        {"first_slot": -1},
        {"first_slot": 2**62},
        {"delta_width_bytes": 8, "deltas": b"\xff" * 16},
    ],
)
def test_bad_slots_are_refused(change: dict) -> None:
    good = announced(np.array([5, 6, 9]), np.zeros(3, np.uint8), 0)
    with pytest.raises(PeerMisbehaved):
        announced_slots(msgspec.structs.replace(good, **change))


@given(st.lists(st.integers(0, 3), max_size=70))
def test_bits_and_intensities_survive(values: list[int]) -> None:
    array = np.array(values, np.uint8)
    assert np.array_equal(unpacked_intensities(packed_intensities(array), array.size), array)
    assert np.array_equal(unpacked(packed(array & 1), array.size), array & 1)


@pytest.mark.parametrize(
    ("data", "count"), [(b"\x80", 9), (b"", 1), (b"\x01", 7), (b"\x00\x00", 8), (b"", -1)]
)
def test_bits_have_one_encoding(data: bytes, count: int) -> None:
    with pytest.raises(PeerMisbehaved):
        unpacked(data, count)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for decode in (decode_envelope, decode_body):
        try:
            accepted = decode(data)
        except PeerMisbehaved:
            continue
        assert decode(encode(accepted)) == accepted


def test_another_version_is_refused() -> None:
    with pytest.raises(PeerMisbehaved, match="version 1 expected, 2 came"):
        decode_envelope(msgspec.msgpack.encode([2, 0, b"", b""]))
