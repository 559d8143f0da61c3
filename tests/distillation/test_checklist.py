"""Twenty ways in which post-processing goes wrong, and the test that each is not ours.

The numbers are those of the house's checklist of correctness and security of QKD post-processing; many lines
have more tests beside (tampering, channel, Cascade, the ledger of authentication key).
"""

import base64
import inspect
import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import openqci.crypto.toeplitz as toeplitz
import openqci.crypto.universal_hash as universal_hash
import openqci.distillation
from openqci.core.detections import DetectionRecord
from openqci.core.errors import PeerMisbehaved
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
    KeyDistilled,
    converse,
)
from openqci.distillation.channel import AuthenticatedChannel
from openqci.distillation.leak import LeakLedger, LeakStage, error_pattern_bits
from openqci.distillation.messages import (
    Acceptance,
    Announcement,
    Answer,
    Question,
    ReconciliationPlan,
    Sifting,
    TestBits,
    Verification,
    announced,
    packed,
    unpacked,
)
from openqci.distillation.reconciliation.cascade import Cascade
from openqci.distillation.sifting import sift_at_alice
from openqci.proofs import DecoyCounts, proof, proof_ids
from tests.distillation.make import (
    BLOCK,
    SETTINGS,
    authentication_key,
    distil,
    ends,
    records,
    same_key_or_none,
)

PACKAGE = Path(openqci.distillation.__file__).parent
VECTORS = Path(__file__).parents[2] / "docs" / "reference" / "distillation-v1.json"


def test_checklist_01_the_ledger_is_what_left_the_node() -> None:
    """Count the bits of all answers again from the transcript: both ends booked them, and paid."""
    a, b, transcript = distil()
    answers = [message for _, message in transcript.said if isinstance(message, Answer)]
    questions = [message for _, message in transcript.said if isinstance(message, Question)]
    plan = next(message for _, message in transcript.said if isinstance(message, ReconciliationPlan))
    emissions, detections = records(40_000, 0.005)
    key = emissions.bits[(emissions.bases == 0) & (detections.bases == 0)]
    reference = Cascade().reference(key, plan.plan)
    assert [reference.answer(each.content) for each in questions] == [each.content for each in answers]
    assert (
        reference.disclosed_bits
        == a.report.leak_bits["alice_parities"]
        == b.report.leak_bits["alice_parities"]
    )
    assert a.report.disclosed_bits == sum(
        bits for stage, bits in a.report.leak_bits.items() if stage != "bob_questions"
    )


def test_checklist_02_two_way_accounting_is_a_named_rule() -> None:
    ledger = LeakLedger()
    ledger.book(LeakStage.ALICE_PARITIES, 1000)
    ledger.book(LeakStage.BOB_QUESTIONS, 700)
    assert (ledger.charged_bits("alice-parities-v1"), ledger.charged_bits("both-ends-v1")) == (1000, 1700)
    exact = math.log2(math.comb(4000, 80))
    assert exact <= error_pattern_bits(4000, 80) <= exact + 2
    strict, _, _ = distil(accounting="both-ends-v1")
    assert strict.report.accounting == "both-ends-v1"
    assert strict.report.disclosed_bits == sum(strict.report.leak_bits.values())


def test_checklist_03_the_verification_key_is_drawn_when_the_key_is_fixed() -> None:
    """Bob's hash key follows the last answer; Alice's tag is booked; a wrong key is discarded whole."""
    a, _, transcript = distil()
    names = transcript.names()
    assert names.index("Corrected") == max(i for i, name in enumerate(names) if name == "Answer") + 1
    tag = next(message for _, message in transcript.said if isinstance(message, Verification))
    assert a.report.leak_bits["verification"] == 8 * len(tag.verification_tag) == 128
    assert universal_hash.polynomial_hash_bound(a.report.sifted_bits // 8) < SETTINGS.epsilon_cor


def test_checklist_04_every_block_has_a_fresh_seed_after_acceptance() -> None:
    """The same photons twice: other seeds, other keys; and the seed is the last thing said before the key."""
    photons = records(40_000, 0.005)
    seeds, keys = set(), set()
    for number in range(4):
        said = []

        def line(direction: Direction, message: bytes, said: list[object] = said) -> tuple[bytes]:
            said.append(
                openqci.distillation.messages.decode_body(
                    openqci.distillation.messages.decode_envelope(message).body
                )
            )
            return (message,)

        a, b = converse(*ends(*photons, seed=f"run {number}"), line=line)
        assert same_key_or_none(a, b) and isinstance(a, KeyDistilled)
        acceptance = next(message for message in said if isinstance(message, Acceptance))
        order = [type(message).__name__ for message in said]
        assert order.index("Verified") < order.index("Acceptance") < order.index("Confirmation")
        assert 8 * len(acceptance.seed) >= a.report.sifted_bits - 1
        seeds.add(acceptance.seed)
        keys.add(bytes(a.key.key.reveal()))
    assert len(seeds) == len(keys) == 4


@given(st.integers(2, 300), st.data())
def test_checklist_05_the_hash_is_the_published_matrix(n: int, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, n))
    bits = st.integers(0, 1)
    key = np.array(data.draw(st.lists(bits, min_size=n, max_size=n)), np.uint8)
    seed = np.array(data.draw(st.lists(bits, min_size=n - 1, max_size=n - 1)), np.uint8)
    m = n - length
    expected = [
        (int(key[i]) + sum(int(seed[i - j + m - 1]) * int(key[length + j]) for j in range(m))) % 2
        for i in range(length)
    ]
    for route in (toeplitz.portable_hash, toeplitz.compiled_hash):
        found = route(np.packbits(key), key.size, np.packbits(seed), length)
        assert np.unpackbits(found, count=length).tolist() == expected


@pytest.mark.parametrize("proof_id", proof_ids())
def test_checklist_06_the_length_falls_when_any_count_worsens(proof_id: str) -> None:
    """More test errors of the signal or of all light, fewer counts, more leak: less key.

    Errors of a decoy alone are no such count: the bounds subtract what the decoy shows of empty pulses, so
    that a decoy which errs more may leave the signal's single photons more.
    """
    number = proof(proof_id).intensities
    source = ((0.5, 0.15, 1e-3), (0.6, 0.3, 0.1)) if number == 3 else ((0.5, 0.15), (0.6, 0.4))
    gains = np.array(source[0]) * source[1]
    z, x = (np.round(scale * gains / gains.sum()) + 50 for scale in (4e6, 4e5))
    good = {
        "z_counts": z, "z_errors": np.round(0.01 * z), "x_counts": x, "x_errors": np.round(0.01 * x)
    }  # fmt: skip

    def length(leak: float = 4e5, **worse: np.ndarray) -> int:
        counts = DecoyCounts(**good | worse, intensities=source[0], probabilities=source[1])
        return proof(proof_id).secret_length_bits(counts, leak, 1e-9, 1e-15).length_bits

    best = length()
    assert best > 0
    assert length(leak=5e5) < best
    signal = np.arange(number) == 0
    assert length(x_errors=good["x_errors"] + 0.02 * x * signal) <= best
    assert length(x_errors=3 * good["x_errors"]) < best
    assert length(z_counts=np.round(0.9 * z), z_errors=np.round(0.009 * z)) < best
    assert length(x_counts=np.round(0.5 * x), x_errors=np.round(0.005 * x)) < best


def test_checklist_07_fixed_length_and_observed_length_are_two_settings() -> None:
    free, _, _ = distil()
    allowed = free.report.secret_bits
    assert free.report.length_rule == "observed"
    fixed, other, _ = distil(secret_bits_fixed=allowed - 800)
    assert same_key_or_none(fixed, other)
    assert (fixed.report.length_rule, fixed.report.secret_bits) == ("fixed", allowed - 800)
    for wanted in (allowed + 8, 10 * allowed):
        a, b, _ = distil(secret_bits_fixed=wanted // 8 * 8)
        assert not same_key_or_none(a, b)
        assert isinstance(b, DistillationAborted) and b.reason is AbortReason.NO_KEY_LEFT


def test_checklist_08_every_stage_declares_its_epsilon_and_the_key_carries_the_sum() -> None:
    a, b, _ = distil()
    stages = a.report.epsilon_by_stage
    assert set(stages) == {"estimation", "amplification", "verification", "authentication"}
    assert stages["estimation"] + stages["amplification"] == pytest.approx(SETTINGS.epsilon_sec, rel=1e-12)
    assert stages["amplification"] == SETTINGS.epsilon_sec / proof(SETTINGS.proof_id).failure_terms
    assert stages["verification"] == SETTINGS.epsilon_cor
    assert 0 < stages["authentication"] < 1e-25
    assert isinstance(a, KeyDistilled) and isinstance(b, KeyDistilled)
    assert a.key.epsilon == b.key.epsilon == a.report.epsilon == sum(stages.values())


def test_checklist_09_intensities_follow_the_authenticated_detections() -> None:
    """Alice says nothing before Bob's tag is checked, and what she keeps does not depend on a bit."""
    photons = records(4_000, 0.01)
    alice, bob = ends(*photons)
    alice.start(0.0)
    bob.start(0.0)
    assert alice.messages_to_send() == []
    announcement = bob.messages_to_send()[0]
    forged = announcement[:-1] + bytes([announcement[-1] ^ 1])
    alice.receive(forged, 0.0)
    said = alice.messages_to_send()
    assert len(said) == 1 and b"abort" in said[0]
    emissions, detections = photons
    flipped = DetectionRecord(detections.slots, detections.bases, 1 - detections.bits, 0)
    told = announced(detections.slots, detections.bases, 0)
    assert told == announced(flipped.slots, flipped.bases, 0)
    other = type(emissions)(
        emissions.slots, emissions.bases, 1 - emissions.bits, emissions.intensities, emissions.pulses
    )
    assert sift_at_alice(emissions, told)[0] == sift_at_alice(other, told)[0]


def test_checklist_10_disclosed_test_bits_never_become_key() -> None:
    a, _, transcript = distil()
    test = next(message for _, message in transcript.said if isinstance(message, TestBits))
    emissions, detections = records(40_000, 0.005)
    in_x = (emissions.bases == 1) & (detections.bases == 1)
    assert unpacked(test.bits, test.count).tolist() == detections.bits[in_x].tolist()
    assert test.count == a.report.test_bits
    assert a.report.sifted_bits == int(np.count_nonzero((emissions.bases == 0) & (detections.bases == 0)))


def test_checklist_11_one_key_for_one_tag_bound_to_its_place() -> None:
    """Direction, link, block, phase and sequence are in the text; no key byte serves two tags."""
    first = AuthenticatedChannel(BLOCK, Direction.ALICE_TO_BOB, authentication_key())
    sealed = first.seal(b"text", tagged=True)
    for block, says in (
        (BLOCK, Direction.ALICE_TO_BOB),
        (BlockName(BLOCK.link_id, 8), Direction.BOB_TO_ALICE),
        (BlockName(LinkId("a--c"), 7), Direction.BOB_TO_ALICE),
    ):
        with pytest.raises(PeerMisbehaved):
            AuthenticatedChannel(block, says, authentication_key()).open(sealed)
    peer = AuthenticatedChannel(BLOCK, Direction.BOB_TO_ALICE, authentication_key())
    assert peer.open(sealed) == (b"text", True)
    with pytest.raises(PeerMisbehaved):
        peer.open(sealed)
    a, _, _ = distil()
    assert a.report.authentication_bytes_used == 8 * 32 <= AUTHENTICATION_KEY_BYTES


@pytest.mark.parametrize("at", range(0, 60, 3))
def test_checklist_12_no_key_before_the_last_tag(at: int) -> None:
    """Flip one byte of message ``at``: its phase's tag fails, and nothing was released before."""
    count = 0

    def line(direction: Direction, message: bytes) -> tuple[bytes]:
        nonlocal count
        count += 1
        if count - 1 == at:
            middle = len(message) // 2
            message = message[:middle] + bytes([message[middle] ^ 4]) + message[middle + 1 :]
        return (message,)

    a, b = converse(*ends(*records(20_000, 0.0005, seed=2)), line=line)
    assert same_key_or_none(a, b) == (count <= at)


def test_checklist_13_loss_at_any_place_leaves_both_or_neither_or_one_named_doubt() -> None:
    """The line is cut for good at each message in turn; only behind Bob's confirmation there is a doubt."""
    photons = records(20_000, 0.0005, seed=2)
    whole = []
    converse(*ends(*photons), line=lambda direction, message: (whole.append(message), (message,))[1])
    for cut in range(len(whole)):
        count = 0

        def line(direction: Direction, message: bytes, cut: int = cut) -> tuple[bytes, ...]:
            nonlocal count
            count += 1
            return (message,) if count <= cut else ()

        a, b = converse(*ends(*photons), line=line)
        if isinstance(a, KeyDistilled):
            assert cut == len(whole) - 1
            assert isinstance(b, DistillationAborted) and b.peer_may_have_key
        else:
            assert isinstance(b, DistillationAborted)


def test_checklist_14_no_production_code_takes_a_seed() -> None:
    """No generator with a seed anywhere below distillation and crypto; randomness is a callable of bytes."""
    for folder in (PACKAGE, Path(universal_hash.__file__).parent, PACKAGE.parent / "kernels"):
        for source in folder.rglob("*.py"):
            text = source.read_text()
            for forbidden in ("np.random", "numpy.random", "import random", "default_rng", "PRNG", "xoshiro"):
                assert forbidden not in text, f"{source.name}: {forbidden}"
    for end in (AliceDistillation, BobDistillation):
        names = set(inspect.signature(end.__init__).parameters)
        assert "entropy" in names and not {"seed", "rng", "random_state"} & names


def test_checklist_15_corrupted_parities_end_in_a_bounded_abort() -> None:
    """Every answer is random: Bob stops, within the plan's rounds and bits, and no key is left."""
    rng = np.random.Generator(np.random.SFC64(3))
    plan = Cascade().plan(20_000, 0.02, 0.08, bytes(16))
    key = rng.integers(0, 2, 20_000, dtype=np.uint8)
    reference, corrector = Cascade().reference(key, plan), Cascade().corrector(key, plan)
    rounds = 0
    with pytest.raises(PeerMisbehaved):
        while (question := corrector.question()) is not None:
            corrector.take(rng.bytes(len(reference.answer(question))))
            rounds += 1
    limit = msgspec.msgpack.decode(plan)[3]
    assert rounds < 2_000 and reference.disclosed_bits <= limit


def test_checklist_16_a_block_is_kept_whole_or_not_at_all() -> None:
    """No frame is ever dropped: the sifted bits are all Z bits, and one bad frame costs the block."""
    photons = records(120_000, 0.005)
    a, _ = converse(*ends(*photons))
    emissions, detections = photons
    assert a.report.sifted_bits == int(np.count_nonzero((emissions.bases == 0) & (detections.bases == 0)))
    alice, bob = ends(*photons)
    corrector = bob._method.corrector

    class OneBitWrong(Cascade):
        def corrector(self, key: np.ndarray, plan: bytes) -> object:
            inner = corrector(key, plan)
            right = inner.corrected_key
            inner.corrected_key = lambda: right() ^ (np.arange(key.size) == 5).astype(np.uint8)
            return inner

    bob._method = OneBitWrong()
    _, b = converse(alice, bob)
    assert isinstance(b, DistillationAborted) and b.reason is AbortReason.VERIFICATION_FAILED
    assert b.report.secret_bits == 0 and b.report.leak_bits["alice_parities"] > 0


def test_checklist_17_orders_are_drawn_after_the_photons() -> None:
    """The plan with its public seed follows the announcement, and two blocks never share one."""
    seeds = set()
    for number in range(3):
        _, _, transcript = distil(seed=number)
        names = transcript.names()
        assert names.index("Announcement") < names.index("Sifting") < names.index("ReconciliationPlan")
    photons = records(20_000, 0.0005)
    for number in range(3):
        plans = []

        def line(direction: Direction, message: bytes, plans: list[bytes] = plans) -> tuple[bytes]:
            body = openqci.distillation.messages.decode_body(
                openqci.distillation.messages.decode_envelope(message).body
            )
            if isinstance(body, ReconciliationPlan):
                plans.append(msgspec.msgpack.decode(body.plan)[2])
            return (message,)

        converse(*ends(*photons, seed=f"plan {number}"), line=line)
        seeds.update(plans)
    assert len(seeds) == 3


@pytest.mark.parametrize("slip", [1, -1, 7])
def test_checklist_18_a_slot_slip_aborts(slip: int) -> None:
    """A clock that is off by a slot gives half wrong bits: that is an abort, and no parity is disclosed."""
    emissions, detections = records(40_000, 0.0)
    bits = np.roll(detections.bits, slip)
    a, b = converse(*ends(emissions, DetectionRecord(detections.slots, detections.bases, bits, 0)))
    assert not same_key_or_none(a, b)
    assert isinstance(a, DistillationAborted) and a.reason is AbortReason.QBER_TOO_HIGH
    assert a.report.leak_bits["alice_parities"] == 0


def test_checklist_19_nothing_is_left_and_nothing_is_shown() -> None:
    a, b, _ = distil()
    assert isinstance(a, KeyDistilled)
    secret = bytes(a.key.key.reveal())
    for shown in (repr(a), str(b), repr(a.report), repr(SecretBytes(secret))):
        assert secret.hex() not in shown and base64.b64encode(secret).decode()[:16] not in shown
    alice, bob = ends(*records(40_000, 0.005))
    converse(alice, bob)
    for end in (alice, bob):
        assert end._sifted is None and end._pending is None and len(end._channel._sent._key) == 0


def test_checklist_20_bit_order_is_pinned() -> None:
    """First bit, highest place: part of the wire format and of the key that is delivered."""
    assert packed(np.array([1, 0, 0, 0, 0, 0, 0, 0, 1], np.uint8)) == b"\x80\x80"
    given_key = base64.b64decode(json.loads(VECTORS.read_text())["key"])
    assert toeplitz.toeplitz_hash(b"\xa0", 3, b"\x80", 1).tolist() == [(1 ^ 1) << 7]
    bits = np.unpackbits(np.frombuffer(given_key, np.uint8))
    assert np.packbits(bits).tobytes() == given_key and len(given_key) == 49
    announcement = announced(np.array([258, 259], np.int64), np.array([0, 1], np.uint8), 0)
    assert isinstance(announcement, Announcement)
    assert (announcement.first_slot, announcement.deltas, announcement.bases) == (258, b"\x01", b"\x40")
    assert msgspec.msgpack.encode(Sifting(b"\x80", 1, (b"\x00", b"\x80"))) == (
        b"\x94\xa7sifting\xc4\x01\x80\x01\x92\xc4\x01\x00\xc4\x01\x80"
    )
