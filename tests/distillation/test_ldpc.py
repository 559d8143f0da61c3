"""LDPC codes: what the ladder promises of them, and what reconciliation by syndromes does with a key."""

import contextlib
import itertools
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import ConfigurationError, PeerMisbehaved
from openqci.distillation import AbortReason, DistillationAborted, KeyDistilled, converse
from openqci.distillation.messages import Answer, Question
from openqci.distillation.reconciliation import (
    RECONCILIATION_METHODS,
    reconciliation_for,
    reconciliation_method,
)
from openqci.distillation.reconciliation.cascade import Cascade
from openqci.distillation.reconciliation.ldpc import LDPC
from openqci.distillation.reconciliation.ldpc.frames import Frames
from openqci.distillation.reconciliation.ldpc.ladder import COLUMNS, LIFTS, RUNGS, SHIFT_MAX, Code, code
from openqci.distillation.reconciliation.ldpc.method import (
    PUBLIC_SEED_BYTES,
    ROUNDS_MAX,
    LDPCCorrector,
    LDPCReference,
    binary_entropy,
    planned_code,
)
from openqci.distillation.reconciliation.ldpc.wire import Asked, LDPCPlan, encoded_question
from tests.distillation.make import SETTINGS, distil, ends, records, same_key_or_none

ROOT = Path(__file__).parents[2]
EVERY_CODE = pytest.mark.parametrize("rows", RUNGS)


def table(of: Code) -> np.ndarray:
    """Return the shift of each row and column, -1 where there is no edge."""
    shifts = np.full((of.rows, COLUMNS), -1)
    for row in range(of.rows):
        edges = slice(of.starts[row], of.starts[row + 1])
        shifts[row, of.columns[edges]] = of.shifts[edges]
    return shifts


def rank(rows: np.ndarray) -> int:
    """Return the rank of a 0/1 matrix over GF(2)."""
    pivots: dict[int, int] = {}
    for packed in np.packbits(rows.astype(np.uint8), axis=1):
        row = int.from_bytes(packed.tobytes(), "big")
        while row and row.bit_length() in pivots:
            row ^= pivots[row.bit_length()]
        if row:
            pivots[row.bit_length()] = row
    return len(pivots)


def lifted(of: Code, lift: int) -> np.ndarray:
    """Return the parity-check matrix, shape (rows * lift, 256 * lift)."""
    matrix = np.zeros((of.rows * lift, COLUMNS * lift), np.uint8)
    checks = np.arange(lift)
    for row in range(of.rows):
        for edge in range(of.starts[row], of.starts[row + 1]):
            bits = of.columns[edge] * lift + (checks + of.shifts[edge]) % lift
            matrix[row * lift + checks, bits] = 1
    return matrix


@EVERY_CODE
def test_a_code_is_a_table_of_circulants(rows: int) -> None:
    of = code(rows)
    assert of.rows == rows and of.starts[0] == 0 and of.starts[-1] == of.columns.size == of.shifts.size
    assert of.columns.min() == 0 and of.columns.max() == COLUMNS - 1
    assert of.shifts.min() >= 0 and of.shifts.max() <= SHIFT_MAX
    for row in range(rows):
        columns = of.columns[of.starts[row] : of.starts[row + 1]]
        assert np.unique(columns).size == columns.size, "two edges between a row and a column"
    degrees = np.bincount(of.columns)
    assert degrees.min() == 2 and np.count_nonzero(degrees == 2) < rows
    fronts, backs = of.middles - of.starts[:-1], of.starts[1:] - of.middles
    assert set(fronts - backs) <= {0, 1}, "halves"


@EVERY_CODE
@pytest.mark.parametrize("lift", LIFTS)
def test_girth_is_at_least_six(rows: int, lift: int) -> None:
    """No cycle of length 4 at any lift."""
    shifts = table(code(rows))
    for one, other in itertools.combinations(range(rows), 2):
        shared = (shifts[one] >= 0) & (shifts[other] >= 0)
        turns = (shifts[one] - shifts[other])[shared] % lift
        assert np.unique(turns).size == turns.size, (one, other)


@EVERY_CODE
def test_codes_have_full_rank(rows: int) -> None:
    """The table without shifts decides it: circulants of size 2^k are a local ring, residue field GF(2)."""
    of = code(rows)
    assert rank(table(of) >= 0) == rows
    assert rank(lifted(of, 8)) == 8 * rows, "and so it is when lifted, here by 8"


def test_the_codes_are_what_the_tool_makes() -> None:
    """One of them here; ``--check`` without ``--only`` compares all."""
    tool = [sys.executable, str(ROOT / "tools" / "make_ldpc_codes.py"), "--check", "--only", "43"]
    directory = "src/openqci/distillation/reconciliation/ldpc/codes"
    done = subprocess.run([*tool, directory], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(int(path.stem) for path in (ROOT / directory).glob("*.txt")) == sorted(RUNGS)


# Frames


@pytest.mark.parametrize(
    ("key_bits", "lifts"),
    [
        (1, (128,)),
        (32_768, (128,)),
        (32_769, (256,)),
        (65_536, (256,)),
        (131_072 + 64, (512, 128)),
        (262_144, (1024,)),
        (262_143, (1024,)),
        (600_000, (1024, 1024, 256, 128)),
        (262_144 * 2 - 64, (1024, 512, 256, 256)),
    ],
)
def test_a_key_is_cut_into_frames_and_joined_again(key_bits: int, lifts: tuple[int, ...]) -> None:
    frames = Frames(key_bits, bytes(16))
    assert frames.lifts == lifts
    key = np.random.Generator(np.random.SFC64(key_bits)).integers(0, 2, key_bits, dtype=np.uint8)
    slots = frames.cut(key)
    assert np.array_equal(frames.joined(slots), key)
    known = frames.known()
    assert not (slots & known).any()
    assert int(np.bitwise_count(~known).sum()) == key_bits, "what is not known is the key"
    words = sum(frames.bits_of(number) for number in range(len(lifts))) // 64
    assert words == -(-key_bits // 64)


def test_a_burst_meets_every_frame() -> None:
    frames = Frames(4 * 262_144, bytes(range(16)))
    key = np.zeros(frames.key_bits, dtype=np.uint8)
    key[100_000:140_000] = 1
    slots = frames.cut(key)
    shares = [int(np.bitwise_count(frames.of(slots, number)).sum()) for number in range(4)]
    assert max(shares) < 1.3 * min(shares)


def test_the_order_follows_from_the_public_seed() -> None:
    key = np.random.Generator(np.random.SFC64(1)).integers(0, 2, 70_000, dtype=np.uint8)
    one, other = (Frames(key.size, bytes([number]) * 16).cut(key) for number in (1, 2))
    assert not np.array_equal(one, other)
    assert np.array_equal(one, Frames(key.size, bytes([1]) * 16).cut(key))


# Which code


@settings(deadline=None)
@given(
    bits=st.integers(16_000, 1 << 18),
    qber=st.floats(0.0, 0.3),
    lift=st.sampled_from(LIFTS),
)
def test_every_frame_is_given_a_code_that_there_is(bits: int, qber: float, lift: int) -> None:
    bits = min(bits, COLUMNS * lift)
    rows, split_words = planned_code(bits, lift, qber)
    assert rows in RUNGS and 0 <= split_words <= code(rows).check_words(lift)
    more = planned_code(bits, lift, min(0.3, 1.2 * qber))
    assert more[0] * lift + 64 * more[1] >= rows * lift + 64 * split_words, "more errors, more checks"


@pytest.mark.parametrize("qber", [0.02, 0.03, 0.04, 0.05])
def test_a_long_frame_discloses_little_over_shannon(qber: float) -> None:
    rows, split_words = planned_code(1 << 18, 1024, qber)
    assert (rows * 1024 + 64 * split_words) / (1 << 18) / binary_entropy(qber) < 1.16


# Both ends

ENGINES = (LDPC(compiled=True), LDPC(compiled=False))
BOTH = pytest.mark.parametrize("method", ENGINES, ids=["compiled", "portable"])


def pair(
    n: int, qber: float, seed: int = 1, estimate: float | None = None, method: LDPC = ENGINES[0]
) -> tuple[np.ndarray, np.ndarray, LDPCReference, LDPCCorrector]:
    rng = np.random.Generator(np.random.SFC64(seed))
    a = rng.integers(0, 2, n, dtype=np.uint8)
    b = a ^ (rng.random(n) < qber).astype(np.uint8)
    plan = method.plan(n, qber if estimate is None else estimate, 0.11, rng.bytes(PUBLIC_SEED_BYTES))
    return a, b, method.reference(a, plan), method.corrector(b, plan)


def reconcile(reference: LDPCReference, corrector: LDPCCorrector) -> int:
    rounds = 0
    while (question := corrector.question()) is not None:
        corrector.take(reference.answer(question))
        rounds += 1
    return rounds


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(8_000, 150_000),
    qber=st.floats(0, 0.08),
    estimate=st.floats(0.003, 0.08),
    seed=st.integers(0, 2**32),
)
def test_corrects_any_size(n: int, qber: float, estimate: float, seed: int) -> None:
    a, _, reference, corrector = pair(n, qber, seed, max(estimate, qber))
    assert reconcile(reference, corrector) <= ROUNDS_MAX
    assert np.array_equal(corrector.corrected_key(), a)
    assert reference.disclosed_bits == corrector.disclosed_bits


@pytest.mark.parametrize("qber", [0.02, 0.05])
def test_a_long_key_takes_one_round_and_discloses_little(qber: float) -> None:
    a, b, reference, corrector = pair(1 << 21, qber)
    assert reconcile(reference, corrector) == 1
    assert np.array_equal(corrector.corrected_key(), a)
    assert reference.disclosed_bits <= 1.17 * a.size * binary_entropy(float((a ^ b).mean()))


@pytest.mark.parametrize(("n", "qber"), [(20_000, 0.026), (40_001, 0.0235)])
def test_the_two_engines_say_the_same(n: int, qber: float) -> None:
    """Every question and every answer, to the bit; with an estimate so low that more is asked for."""
    rng = np.random.Generator(np.random.SFC64(n))
    a = rng.integers(0, 2, n, dtype=np.uint8)
    b = a ^ (rng.random(n) < qber).astype(np.uint8)
    plan = ENGINES[0].plan(n, 0.02, 0.11, bytes(16))
    references = [method.reference(a, plan) for method in ENGINES]
    correctors = [method.corrector(b, plan) for method in ENGINES]
    rounds = 0
    while (question := correctors[0].question()) is not None:
        assert correctors[1].question() == question
        answers = [reference.answer(question) for reference in references]
        assert answers[0] == answers[1]
        for corrector in correctors:
            corrector.take(answers[0])
        rounds += 1
    assert correctors[1].question() is None and rounds > 1
    assert all(np.array_equal(corrector.corrected_key(), a) for corrector in correctors)


def test_more_is_asked_for_only_where_it_is_needed_and_all_of_it_is_booked() -> None:
    """Every byte of every answer is eight disclosed bits, at both ends."""
    a, _, reference, corrector = pair(300_000, 0.0225, estimate=0.02)
    told_bits, rounds = 0, 0
    while (question := corrector.question()) is not None:
        answer = reference.answer(question)
        told_bits += 8 * len(answer)
        corrector.take(answer)
        rounds += 1
        assert reference.disclosed_bits == corrector.disclosed_bits == told_bits
    assert 1 < rounds <= ROUNDS_MAX
    assert np.array_equal(corrector.corrected_key(), a)


def test_too_many_errors_come_to_an_end() -> None:
    """Nine rounds at most, then the frame is left as it is, for verification to find."""
    a, b, reference, corrector = pair(40_000, 0.04, estimate=0.02)
    assert reconcile(reference, corrector) <= ROUNDS_MAX
    assert np.array_equal(corrector.corrected_key(), b) and not np.array_equal(a, b)
    assert reference.disclosed_bits == corrector.disclosed_bits


@pytest.mark.parametrize("flipped", [0, 700, -1])
def test_a_changed_syndrome_is_no_key(flipped: int) -> None:
    """Errors that explain it are far from the true ones or not found: never Alice's key by accident."""
    a, _, reference, corrector = pair(40_000, 0.02)
    changed = False
    while (question := corrector.question()) is not None:
        answer = bytearray(reference.answer(question))
        if not changed:
            answer[flipped] ^= 1
            changed = True
        corrector.take(bytes(answer))
    assert not np.array_equal(corrector.corrected_key(), a)


@BOTH
@pytest.mark.parametrize("n", [1, 64, 300, 1500])
def test_a_key_that_costs_more_than_it_has_is_given_up(n: int, method: LDPC) -> None:
    _, _, reference, corrector = pair(n, 0.02, method=method)
    with pytest.raises(PeerMisbehaved, match="disclose"):
        reference.answer(corrector.question() or b"")
    assert reference.disclosed_bits == 0


def question(frames: list[int], words: list[int]) -> bytes:
    return encoded_question(Asked(np.array(frames, np.uint16), np.array(words, np.uint16)))


def test_a_greedy_bob_gets_no_more_than_the_plan() -> None:
    _, _, reference, corrector = pair(70_000, 0.02)
    corrector.take(reference.answer(corrector.question() or b""))
    before = reference.disclosed_bits
    with pytest.raises(PeerMisbehaved, match="more halves"):
        reference.answer(question([0], [60_000]))
    with pytest.raises(PeerMisbehaved, match="a frame that there is not"):
        reference.answer(question([9], [1]))
    with pytest.raises(PeerMisbehaved, match="first ldpc question"):
        reference.answer(question([], []))
    assert reference.disclosed_bits == before
    with pytest.raises(PeerMisbehaved, match="rounds"):
        for _ in range(ROUNDS_MAX + 1):
            reference.answer(question([0], [1]))


def test_the_limit_of_the_plan_holds() -> None:
    a = np.zeros(70_000, np.uint8)
    plan = LDPCPlan(a.size, 0.02, ((43, 0), (43, 0)), bytes(16), 43 * (256 + 128) + 64)
    encoded = msgspec.msgpack.encode(plan)
    assert Frames(a.size, bytes(16)).lifts == (256, 128)
    reference = LDPC().reference(a, encoded)
    assert len(reference.answer(question([], []))) == 43 * 48
    reference.answer(question([1], [1]))
    with pytest.raises(PeerMisbehaved, match="disclose more"):
        reference.answer(question([1], [1]))


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        msgspec.msgpack.encode([b"ab", b""]),
        msgspec.msgpack.encode([b"a", b"b"]),
        msgspec.msgpack.encode([b"", b"", b""]),
        msgspec.msgpack.encode(["x", b""]),
        question([0, 0], [1, 1]),
        question([1, 0], [1, 1]),
        question([0], [0]),
    ],
)
def test_malformed_questions_are_refused(bad: bytes) -> None:
    _, _, reference, corrector = pair(70_000, 0.02)
    reference.answer(corrector.question() or b"")
    before = reference.disclosed_bits
    with pytest.raises(PeerMisbehaved):
        reference.answer(bad)
    assert reference.disclosed_bits == before


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_answered_or_refused(said: bytes) -> None:
    _, _, reference, corrector = pair(9000, 0.02)
    with contextlib.suppress(PeerMisbehaved):
        reference.answer(said)
    corrector.question()
    with pytest.raises(PeerMisbehaved):
        corrector.take(said + bytes(20_000))


def test_an_answer_of_noise_ends_in_time() -> None:
    """A lying Alice costs Bob a bounded number of rounds."""
    _, _, reference, corrector = pair(9000, 0.02)
    rng = np.random.Generator(np.random.SFC64(4))
    rounds = 0
    while (asked := corrector.question()) is not None:
        corrector.take(rng.bytes(len(reference.answer(asked))))
        rounds += 1
    assert rounds <= ROUNDS_MAX


@pytest.mark.parametrize(
    "plan",
    [
        [70_001, 0.02, [[43, 0], [43, 0]], bytes(16), 30_000],
        [70_000, 0.0, [[43, 0], [43, 0]], bytes(16), 30_000],
        [70_000, float("nan"), [[43, 0], [43, 0]], bytes(16), 30_000],
        [70_000, 0.02, [[43, 0]], bytes(16), 30_000],
        [70_000, 0.02, [[44, 0], [43, 0]], bytes(16), 30_000],
        [70_000, 0.02, [[43, -1], [43, 0]], bytes(16), 30_000],
        [70_000, 0.02, [[43, 0], [43, 87]], bytes(16), 30_000],
        [70_000, 0.02, [[43, 0], [43, 0]], bytes(15), 30_000],
        [70_000, 0.02, [[43, 0], [43, 0]], bytes(16), 70_001],
        [70_000, 0.02, [[43, 0], [43, 0]], bytes(16), 0],
        ["70000"],
    ],
)
def test_bad_plans_are_refused(plan: list) -> None:
    with pytest.raises(PeerMisbehaved):
        LDPC().corrector(np.zeros(70_000, np.uint8), msgspec.msgpack.encode(plan))


@BOTH
def test_wipe_leaves_no_key(method: LDPC) -> None:
    _, _, reference, corrector = pair(40_000, 0.02, method=method)
    corrector.take(reference.answer(corrector.question() or b""))
    kept = [reference._slots, corrector._slots, *(part for parts in corrector._differing for part in parts)]
    assert all(array.any() for array in kept)
    reference.wipe()
    corrector.wipe()
    assert not any(array.any() for array in kept)


# In a distillation


def test_a_block_is_distilled_in_one_round() -> None:
    alice, bob, transcript = distil(60_000, 0.01, reconciliation="ldpc-1", qber_expected=0.011)
    assert same_key_or_none(alice, bob)
    assert isinstance(alice, KeyDistilled) and alice.report.rounds == 1
    answers = [message for _, message in transcript.said if isinstance(message, Answer)]
    assert len(answers) == sum(isinstance(message, Question) for _, message in transcript.said) == 1
    assert alice.report.leak_bits["alice_parities"] == 8 * len(answers[0].content)
    assert alice.report.leak_bits == bob.report.leak_bits


def test_a_frame_that_cannot_be_decoded_costs_the_block() -> None:
    alice, bob, _ = distil(60_000, 0.03, reconciliation="ldpc-1", qber_expected=0.005)
    assert not same_key_or_none(alice, bob)
    assert isinstance(bob, DistillationAborted) and bob.reason is AbortReason.VERIFICATION_FAILED
    assert bob.report.leak_bits["alice_parities"] == alice.report.leak_bits["alice_parities"] > 0


def test_both_ends_must_have_agreed_on_the_method() -> None:
    agreed = msgspec.structs.replace(SETTINGS, reconciliation="ldpc-1")
    alice, _ = ends(*records(40_000, 0.005), agreed)
    _, bob = ends(*records(40_000, 0.005))
    first, second = converse(alice, bob)
    assert isinstance(first, DistillationAborted) and isinstance(second, DistillationAborted)
    assert second.reason is AbortReason.PEER_MISBEHAVED


def test_methods_go_by_their_names() -> None:
    assert [reconciliation_method(name).name for name in RECONCILIATION_METHODS] == ["cascade-2", "ldpc-1"]
    assert isinstance(reconciliation_method("cascade-2"), Cascade)
    assert SETTINGS.reconciliation == "cascade-2"
    with pytest.raises(ConfigurationError, match=r"reconciliation: expected one of cascade-2, ldpc-1"):
        msgspec.structs.replace(SETTINGS, reconciliation="ldpc-9")


@pytest.mark.parametrize(
    ("round_trip_s", "qber", "expected"),
    [
        (0.0, 0.02, "cascade-2"),
        (0.001, 0.02, "cascade-2"),
        (0.010, 0.02, "cascade-2"),
        (0.011, 0.02, "ldpc-1"),
        (0.011, 0.05, "cascade-2"),
        (0.050, 0.08, "cascade-2"),
        (0.051, 0.08, "ldpc-1"),
        (0.5, 0.02, "ldpc-1"),
    ],
)
def test_the_method_follows_latency_and_error_rate(round_trip_s: float, qber: float, expected: str) -> None:
    assert reconciliation_for(round_trip_s, qber) == expected
