"""Sifting: both routes keep the same, in order, and refuse the same announcements."""

import dataclasses

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.detections import DetectionRecord, EmissionRecord
from openqci.core.errors import PeerMisbehaved
from openqci.distillation.messages import Announcement, Sifting, announced, packed
from openqci.distillation.sifting import SiftedBits, sift_at_alice, sift_at_bob
from tests.distillation.make import records

ROUTES = pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "portable"])


def announcement(detections: DetectionRecord) -> Announcement:
    return announced(detections.slots, detections.bases, detections.double_clicks)


def same(one: SiftedBits, other: SiftedBits) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for field in dataclasses.fields(one)
    )


@settings(max_examples=60)
@given(
    detections=st.integers(0, 400),
    extra=st.sampled_from([0.0, 0.3, 20.0]),
    z_probability=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_both_routes_keep_the_same_at_both_ends(
    detections: int, extra: float, z_probability: float, seed: int
) -> None:
    sent, seen = records(detections, 0.05, seed, z_probability, extra)
    at_alice = [sift_at_alice(sent, announcement(seen), compiled=compiled) for compiled in (True, False)]
    assert at_alice[0][0] == at_alice[1][0] and same(at_alice[0][1], at_alice[1][1])
    at_bob = [sift_at_bob(seen, at_alice[0][0], 2, compiled=compiled) for compiled in (True, False)]
    assert same(*at_bob)


@ROUTES
def test_what_is_kept_is_what_one_would_keep_by_hand(compiled: bool) -> None:
    sent = EmissionRecord(
        slots=np.array([3, 5, 9, 12, 40], np.int64),
        bases=np.array([0, 1, 0, 0, 1], np.uint8),
        bits=np.array([1, 1, 0, 1, 0], np.uint8),
        intensities=np.array([0, 1, 1, 0, 0], np.uint8),
        pulses=50,
    )
    seen = DetectionRecord(
        slots=np.array([3, 9, 12, 40], np.int64),
        bases=np.array([0, 1, 0, 1], np.uint8),
        bits=np.array([1, 0, 0, 1], np.uint8),
        double_clicks=0,
    )
    answer, kept = sift_at_alice(sent, announcement(seen), compiled=compiled)
    assert answer == Sifting(packed(np.array([1, 0, 1, 1])), 3, (packed(np.zeros(3, np.uint8)),) * 2)
    assert (kept.z_bits.tolist(), kept.x_bits.tolist()) == ([1, 1], [0])
    assert (kept.z_counts, kept.x_counts) == ((2, 0, 0, 0), (1, 0, 0, 0))
    his = sift_at_bob(seen, answer, 2, compiled=compiled)
    assert (his.z_bits.tolist(), his.x_bits.tolist()) == ([1, 0], [1])


@ROUTES
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"first_slot": 1}, "nothing was sent"),
        ({"first_slot": -1}, "out of range"),
        ({"first_slot": (1 << 62) - 1}, "out of range|nothing was sent"),
        ({"deltas": bytes(99)}, "do not rise"),
        ({"deltas": bytes(98)}, "do not match"),
        ({"delta_width_bytes": 3}, "do not match"),
        ({"detections": 99}, "do not match|cannot hold"),
        ({"bases": bytes(12)}, "cannot hold"),
        ({"bases": bytes(12) + b"\x0f"}, "not zero"),
    ],
)
def test_an_announcement_that_does_not_fit_is_refused(change: dict, words: str, compiled: bool) -> None:
    slots = np.arange(2, 102, dtype=np.int64)
    bits = np.zeros(100, np.uint8)
    sent = EmissionRecord(slots, bits, bits, bits, 102)
    good = announced(slots, bits, 0)
    with pytest.raises(PeerMisbehaved, match=words):
        sift_at_alice(sent, msgspec.structs.replace(good, **change), compiled=compiled)


@ROUTES
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Sifting(b"\xff\x80", 9, (b"\x00\x00", b"\x00\x00")), "cannot hold"),
        (Sifting(b"\xff", 7, (b"\x00", b"\x00")), "keep mask"),
        (Sifting(b"\xff", 9, (b"\x00\x00", b"\x00\x00")), "keep mask"),
        (Sifting(b"\xf0", 4, (b"\x00", b"\x80")), "beyond the 2"),
        (Sifting(b"\xf0", 4, (b"\x00", b"")), "cannot hold"),
        (Sifting(b"\xf0", -4, (b"", b"")), "cannot hold|keep mask"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(answer: Sifting, words: str, compiled: bool) -> None:
    bits = np.zeros(8, np.uint8)
    seen = DetectionRecord(np.arange(8, dtype=np.int64), bits, bits, 0)
    with pytest.raises(PeerMisbehaved, match=words):
        sift_at_bob(seen, answer, 2, compiled=compiled)


@ROUTES
def test_a_wiped_sift_holds_no_bit(compiled: bool) -> None:
    sent, seen = records(500, 0.05)
    answer, kept = sift_at_alice(sent, announcement(seen), compiled=compiled)
    for each in (kept, sift_at_bob(seen, answer, 2, compiled=compiled)):
        rooms = [bits if bits.base is None else bits.base for bits in (each.z_bits, each.x_bits)]
        each.wipe()
        assert not any(room.any() for room in rooms)
