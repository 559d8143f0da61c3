"""Both ends together: equal keys or none, every bit in the account, the order of what is said."""

from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import openqci.distillation
from openqci.core.detections import DetectionRecord, EmissionRecord
from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import LinkId
from openqci.core.keys import SecretBytes
from openqci.distillation import (
    AUTHENTICATION_KEY_BYTES,
    AbortReason,
    AliceDistillation,
    BlockName,
    BobDistillation,
    Direction,
    DistillationAborted,
    DistillationSettings,
    KeyDistilled,
    converse,
)
from openqci.distillation.messages import (
    Answer,
    Question,
    ReconciliationPlan,
)
from openqci.distillation.reconciliation.frames import BLOCK_PASSES
from openqci.proofs import DecoyCounts, proof
from tests.distillation.make import (
    BLOCK,
    SETTINGS,
    authentication_key,
    distil,
    ends,
    entropy,
    records,
    same_key_or_none,
)


def test_both_ends_hold_the_same_key() -> None:
    a, b, _ = distil()
    assert same_key_or_none(a, b)
    assert isinstance(a, KeyDistilled) and isinstance(b, KeyDistilled)
    assert a.key.proof_id == "rusca-2018"
    assert a.key.epsilon == b.key.epsilon == pytest.approx(1e-9 + 1e-15, rel=1e-9)
    assert a.report.authentication_bytes_used == b.report.authentication_bytes_used == 256
    assert a.report.authentication_bytes_used <= AUTHENTICATION_KEY_BYTES


@settings(max_examples=25, deadline=None)
@given(
    detections=st.integers(0, 40_000),
    qber=st.sampled_from([0.0, 0.001, 0.01, 0.03, 0.08, 0.5]),
    seed=st.integers(0, 2**32),
)
def test_equal_keys_or_none(detections: int, qber: float, seed: int) -> None:
    same_key_or_none(*distil(detections, qber, seed)[:2])


def test_the_reports_of_both_ends_agree() -> None:
    a, b, _ = distil()
    of_one_end = {"end", "messages_sent", "bytes_sent", "messages_received", "bytes_received"}
    for name in set(a.report.__struct_fields__) - of_one_end:
        assert getattr(a.report, name) == getattr(b.report, name), name
    assert a.report.bytes_sent == b.report.bytes_received
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(a.report), type=type(a.report)) == a.report


def test_the_key_is_what_the_proof_allows_for_the_true_counts() -> None:
    """Count again from both records, apply the proof to the leak booked, and compare."""
    emissions, detections = records(40_000, 0.005)
    a, _ = converse(*ends(emissions, detections))
    report, same = a.report, emissions.bases == detections.bases
    wrong = emissions.bits != detections.bits
    counted = {
        f"{basis}_{what}": tuple(
            int(np.count_nonzero(same & (emissions.bases == number) & (emissions.intensities == k) & mask))
            for k in (0, 1)
        )
        for number, basis in enumerate("zx")
        for what, mask in (("counts", np.ones_like(wrong)), ("errors", wrong))
    }
    assert all(getattr(report, name) == value for name, value in counted.items())
    counts = DecoyCounts(
        **counted, intensities=SETTINGS.intensities, probabilities=SETTINGS.intensity_probabilities
    )
    leak = report.leak_bits["alice_parities"] + report.leak_bits["error_counts"] + 128 - 50
    length = proof("rusca-2018").secret_length_bits(counts, leak, 1e-9, 1e-15).length_bits
    assert report.secret_bits == length // 8 * 8


def test_the_ledger_equals_a_recount_of_the_transcript() -> None:
    a, _, transcript = distil()
    plan = next(m for _, m in transcript.said if isinstance(m, ReconciliationPlan))
    n, sizes, *_ = msgspec.msgpack.decode(plan.plan)
    frame_bits = -(-n // 4096) * 4096
    opening = [-(-n // sizes[0])] + [-(-frame_bits // size) - 1 for size in sizes[1:]]
    asked, answered_bytes = 0, 0

    def numbers(packed: bytes) -> list[int]:
        return np.frombuffer(packed, "<u2").tolist()

    for _, message in transcript.said:
        if isinstance(message, Question):
            _, passes, counts, positions = msgspec.msgpack.decode(message.content)
            opened = [p for p, count in zip(numbers(passes), numbers(counts), strict=True) if count == 0]
            asked += sum(opening[p] if p < BLOCK_PASSES else 16 for p in opened) + len(positions) // 2
        elif isinstance(message, Answer):
            answered_bytes += len(message.content)
    assert n == a.report.sifted_bits <= 65_536
    assert asked <= 8 * answered_bytes
    assert a.report.leak_bits["alice_parities"] == asked
    assert a.report.leak_bits["verification"] == 128
    assert a.report.leak_bits["error_counts"] == 2 * n.bit_length()


def test_what_is_said_in_which_order() -> None:
    """Intensities after the detections are fixed, the hash key after correction, the seed last (2, 4, 9)."""
    _, _, transcript = distil()
    names = [name for name in transcript.names() if name not in ("Question", "Answer")]
    assert names == [
        "Announcement",
        "Sifting",
        "TestBits",
        "ReconciliationPlan",
        "Corrected",
        "Verification",
        "Verified",
        "Acceptance",
        "Confirmation",
        "Confirmation",
    ]


def test_deterministic_under_given_entropy_and_fresh_otherwise() -> None:
    photons = records(40_000, 0.005)
    keys = []
    for seed in ("one", "one", "two"):
        a, b = converse(*ends(*photons, seed=seed))
        assert same_key_or_none(a, b) and isinstance(a, KeyDistilled)
        keys.append(bytes(a.key.key.reveal()))
    assert keys[0] == keys[1] != keys[2]


def test_alice_may_have_recorded_every_pulse() -> None:
    a, b, _ = distil(extra=3.0)
    assert same_key_or_none(a, b)


def test_three_intensities() -> None:
    emissions, detections = records(200_000, 0.002)
    rng = np.random.Generator(np.random.SFC64(9))
    weights = np.array([0.5 * 0.5, 0.15 * 0.3, 0.01 * 0.2])
    intensities = rng.choice(3, emissions.slots.size, p=weights / weights.sum()).astype(np.uint8)
    emissions = EmissionRecord(
        emissions.slots, emissions.bases, emissions.bits, intensities, emissions.pulses
    )
    agreed = DistillationSettings(
        proof_id="lim-2014",
        intensities=(0.5, 0.15, 0.01),
        intensity_probabilities=(0.5, 0.3, 0.2),
        epsilon_sec=1e-9,
        epsilon_cor=1e-15,
    )
    a, b = converse(*ends(emissions, detections, agreed))
    same_key_or_none(a, b)
    assert len(a.report.z_counts) == 3 and sum(a.report.z_counts) == a.report.sifted_bits


def test_counting_both_ends_costs_key() -> None:
    careless, _, _ = distil()
    strict, other, _ = distil(accounting="both-ends-v1")
    assert same_key_or_none(strict, other)
    lost = careless.report.secret_bits - strict.report.secret_bits
    assert abs(lost - strict.report.leak_bits["bob_questions"]) <= 8


def test_error_rate_too_high_in_either_basis() -> None:
    a, b, transcript = distil(qber=0.12)
    assert isinstance(a, DistillationAborted) and a.reason is AbortReason.QBER_TOO_HIGH
    assert isinstance(b, DistillationAborted) and b.reason is AbortReason.PEER_ABORTED
    assert "Question" not in transcript.names()
    emissions, detections = records(40_000, 0.0)
    wrong = (np.random.Generator(np.random.SFC64(2)).random(40_000) < 0.06) & (detections.bases == 0)
    noisy = DetectionRecord(detections.slots, detections.bases, detections.bits ^ wrong, 0)
    a, b = converse(*ends(emissions, noisy, msgspec.structs.replace(SETTINGS, qber_max=0.05)))
    assert isinstance(b, DistillationAborted) and b.reason is AbortReason.QBER_TOO_HIGH
    assert not same_key_or_none(a, b)


def test_a_slot_slip_aborts_and_is_not_corrected() -> None:
    """Bob's clock is one pulse late: half of the bits are wrong (checklist 18)."""
    emissions, detections = records(40_000, 0.0)
    late = DetectionRecord(emissions.slots[1:], detections.bases[:-1], detections.bits[:-1], 0)
    a, b = converse(*ends(emissions, late))
    assert isinstance(a, DistillationAborted) and a.reason is AbortReason.QBER_TOO_HIGH
    assert not same_key_or_none(a, b)


def test_detections_where_nothing_was_sent() -> None:
    emissions, detections = records(4_000, 0.0)
    for shift in (1, 10**9):
        moved = DetectionRecord(detections.slots + shift, detections.bases, detections.bits, 0)
        a, b = converse(*ends(emissions, moved))
        assert isinstance(a, DistillationAborted) and a.reason is AbortReason.PEER_MISBEHAVED
        assert "nothing was sent" in a.detail
        assert not same_key_or_none(a, b)


@pytest.mark.parametrize("detections", [0, 1, 2, 50, 300])
def test_tiny_blocks_leave_no_key(detections: int) -> None:
    a, b, _ = distil(detections, 0.0)
    assert not same_key_or_none(a, b)
    assert isinstance(a, DistillationAborted) and a.reason is AbortReason.TOO_FEW_BITS


def test_no_secret_bits() -> None:
    a, b, _ = distil(6_000, 0.02)
    assert isinstance(b, DistillationAborted) and b.reason is AbortReason.NO_KEY_LEFT
    assert not same_key_or_none(a, b)


def test_wrong_authentication_key() -> None:
    emissions, detections = records(4_000, 0.0)
    alice = AliceDistillation(emissions, SETTINGS, BLOCK, authentication_key("a"), entropy("a"))
    bob = BobDistillation(detections, SETTINGS, BLOCK, authentication_key("b"), entropy("b"))
    a, b = converse(alice, bob)
    assert isinstance(a, DistillationAborted) and "authentication failed" in a.detail
    assert not same_key_or_none(a, b)


def test_another_block_number() -> None:
    emissions, detections = records(4_000, 0.0)
    alice, _ = ends(emissions, detections)
    _, bob = ends(emissions, detections, block=BlockName(LinkId("a--b"), 8))
    assert not same_key_or_none(*converse(alice, bob))


def test_ends_with_different_settings_leave_no_key() -> None:
    emissions, detections = records(40_000, 0.005)
    alice, _ = ends(emissions, detections)
    for changes in ({"accounting": "both-ends-v1"}, {"epsilon_sec": 1e-6}, {"proof_id": "wiesemann-2024"}):
        alice, _ = ends(emissions, detections)
        _, bob = ends(emissions, detections, msgspec.structs.replace(SETTINGS, **changes))
        assert not same_key_or_none(*converse(alice, bob))


def test_verification_catches_a_false_corrector() -> None:
    """An error corrector that leaves one bit wrong: the tags differ, the block is gone, the cost paid."""

    class Careless:
        def __init__(self, inner: object) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

        def corrected_key(self) -> np.ndarray:
            key = self.inner.corrected_key()  # type: ignore[attr-defined]
            key[5] ^= 1
            return key

    alice, bob = ends(*records(40_000, 0.005))
    original = bob._method.corrector
    bob._method = type(
        "Method", (), {"name": "cascade-2", "corrector": lambda _, k, p: Careless(original(k, p))}
    )()
    a, b = converse(alice, bob)
    assert isinstance(b, DistillationAborted) and b.reason is AbortReason.VERIFICATION_FAILED
    assert b.report.authentication_bytes_used >= 5 * 32
    assert not same_key_or_none(a, b)


def test_abort_from_either_end_at_any_point_wipes() -> None:
    photons = records(40_000, 0.005)
    _, _, transcript = distil()
    total = len(transcript.said)
    for who in (0, 1):
        for at in [*range(8), total // 2, *range(total - 7, total)]:
            alice, bob = ends(*photons)
            count = 0

            def line(direction: Direction, message: bytes) -> Iterable[bytes]:
                nonlocal count
                count += 1
                if count == at + 1:  # noqa: B023
                    (alice, bob)[who].abort("operator")  # noqa: B023
                return (message,)

            a, b = converse(alice, bob, line=line)
            if isinstance(b, DistillationAborted) and b.peer_may_have_key:
                assert who == 1 and at >= total - 2, "only a confirmation that has left cannot be taken back"
            elif at < total - 1:  # the last message finds Alice done
                assert not same_key_or_none(a, b), (who, at)
            for end in (alice, bob):
                assert end._sifted is None and end._pending is None


def test_finished_ends_hold_nothing() -> None:
    alice, bob = ends(*records(40_000, 0.005))
    same_key_or_none(*converse(alice, bob))
    for end in (alice, bob):
        assert end._sifted is None and end._pending is None and end.deadline_s() is None
        assert len(end._channel._sent._key) == len(end._channel._received._key) == 0
    assert alice._reference is None and bob._corrector is None


def test_nothing_shows_key_material() -> None:
    a, _, _ = distil()
    assert isinstance(a, KeyDistilled)
    assert bytes(a.key.key.reveal()[:8]).hex() not in repr(a) and "SecretBytes(" in repr(a)


def test_silence_ends_a_block() -> None:
    alice, _ = ends(*records(4_000, 0.0))
    alice.start(10.0)
    assert alice.deadline_s() == 40.0
    alice.advance(39.0)
    assert alice.next_event() is None
    alice.advance(40.0)
    event = alice.next_event()
    assert isinstance(event, DistillationAborted) and event.reason is AbortReason.PEER_WENT_SILENT
    assert alice.next_event() is None


@pytest.mark.parametrize(
    "changes",
    [
        {"intensities": (0.5,)},
        {"intensity_probabilities": (1.0,)},
        {"qber_max": 0.6},
        {"qber_expected": 0.0},
        {"epsilon_sec": 0.0},
        {"epsilon_cor": 1e-40},
        {"reply_timeout_s": 0.0},
        {"proof_id": "no-such-proof"},
    ],
)
def test_bad_settings_are_refused(changes: dict) -> None:
    with pytest.raises(ConfigurationError):
        DistillationSettings(**{**msgspec.structs.asdict(SETTINGS), **changes})


def test_no_seeded_generator_in_the_package() -> None:
    """What the protocol draws comes through ``entropy``: no module can even make a generator (14)."""
    sources = sorted(Path(openqci.distillation.__file__).parent.rglob("*.py"))
    assert len(sources) > 15
    for source in sources:
        text = source.read_text()
        assert "np.random" not in text and "import random" not in text and "default_rng" not in text, source


def test_the_caller_keeps_its_authentication_key() -> None:
    key = authentication_key()
    emissions, _ = records(100, 0.0)
    AliceDistillation(emissions, SETTINGS, BLOCK, key, entropy("a"))
    assert isinstance(key, SecretBytes) and len(key) == AUTHENTICATION_KEY_BYTES
