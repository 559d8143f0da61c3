"""Cascade: it corrects, it is economical, it counts, and it ends whatever the other end says."""

import contextlib
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import PeerMisbehaved
from openqci.distillation.reconciliation.cascade import (
    PUBLIC_SEED_BYTES,
    Cascade,
    CascadeCorrector,
    CascadePlan,
    CascadeReference,
)
from openqci.distillation.reconciliation.frames import BLOCK_PASSES, Frames, Orders, batch_masks
from openqci.distillation.reconciliation.questions import Asked, encoded_question

ENGINES = (Cascade(compiled=True), Cascade(compiled=False))
BOTH = pytest.mark.parametrize("method", ENGINES, ids=["compiled", "portable"])


def pair(
    n: int, qber: float, seed: int = 1, estimate: float | None = None, method: Cascade = ENGINES[0]
) -> tuple[np.ndarray, np.ndarray, CascadeReference, CascadeCorrector]:
    rng = np.random.Generator(np.random.SFC64(seed))
    a = rng.integers(0, 2, n, dtype=np.uint8)
    b = a ^ (rng.random(n) < qber).astype(np.uint8)
    plan = method.plan(n, qber if estimate is None else estimate, 0.11, rng.bytes(PUBLIC_SEED_BYTES))
    return a, b, method.reference(a, plan), method.corrector(b, plan)


def reconcile(reference: CascadeReference, corrector: CascadeCorrector) -> int:
    rounds = 0
    while (question := corrector.question()) is not None:
        corrector.take(reference.answer(question))
        rounds += 1
    return rounds


def entropy(q: float) -> float:
    return -q * math.log2(q) - (1 - q) * math.log2(1 - q)


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(ENGINES),
    n=st.integers(300, 9000),
    qber=st.floats(0, 0.08),
    estimate=st.floats(0.005, 0.08),
    seed=st.integers(0, 2**32),
)
def test_corrects_any_size_with_any_estimate(
    method: Cascade, n: int, qber: float, estimate: float, seed: int
) -> None:
    a, _, reference, corrector = pair(n, qber, seed, max(estimate, qber / 2), method)
    try:
        reconcile(reference, corrector)
    except PeerMisbehaved as refusal:  # a small block may cost more than it is worth: then it is given up
        assert "disclose" in str(refusal)
        return
    assert np.array_equal(corrector.corrected_key(), a)
    assert reference.disclosed_bits == corrector.disclosed_bits


@BOTH
@pytest.mark.parametrize("n", [1, 2, 7, 63, 64, 65])
def test_tiny_blocks_are_corrected_or_given_up(n: int, method: Cascade) -> None:
    a, _, reference, corrector = pair(n, 0.0, method=method)
    try:
        reconcile(reference, corrector)
        assert np.array_equal(corrector.corrected_key(), a)
    except PeerMisbehaved as refusal:
        assert "disclose" in str(refusal)


@pytest.mark.parametrize("n", [10_000, 70_001, 131_072])
@pytest.mark.parametrize("alice", ENGINES, ids=["compiled", "portable"])
@pytest.mark.parametrize("bob", ENGINES, ids=["compiled", "portable"])
def test_the_two_engines_understand_each_other(alice: Cascade, bob: Cascade, n: int) -> None:
    """Any two work together, and with the same order of searches they cost the same to the bit."""
    rng = np.random.Generator(np.random.SFC64(n))
    a = rng.integers(0, 2, n, dtype=np.uint8)
    b = a ^ (rng.random(n) < 0.03).astype(np.uint8)
    plan = alice.plan(n, 0.03, 0.11, bytes(16))
    reference, corrector = alice.reference(a, plan), bob.corrector(b, plan)
    reconcile(reference, corrector)
    assert np.array_equal(corrector.corrected_key(), a)
    again = ENGINES[0].reference(a, plan), ENGINES[0].corrector(b, plan)
    reconcile(*again)
    assert reference.disclosed_bits == corrector.disclosed_bits == again[0].disclosed_bits


@BOTH
def test_answers_are_the_parities_that_the_definition_names(method: Cascade) -> None:
    """Any prefix of any frame in any pass, by summing bits one by one; and both kinds of opening."""
    rng = np.random.Generator(np.random.SFC64(9))
    key = rng.integers(0, 2, 70_000, dtype=np.uint8)
    plan = CascadePlan(key.size, (40, 200, 5000), bytes(range(16)), 60_000)
    frames, orders = Frames(key.size), Orders.drawn(Frames(key.size).words, plan.public_seed)
    rows = np.zeros((frames.count, frames.bits), np.uint8)
    rows.reshape(-1)[: key.size] = key
    reference = method.reference(key, msgspec.msgpack.encode(plan))
    for number in (0, 1, 2, 3, 18, 19):
        if number < BLOCK_PASSES:
            ordered = rows[:, orders.positions(number)]
        else:
            masks = batch_masks(frames.words, plan.public_seed, (number - 3) // 16)
            ordered = rows & np.unpackbits(masks[(number - 3) % 16].view(np.uint8), bitorder="little")
        positions = [rng.integers(0, frames.bits, 50) for _ in range(frames.count)]
        asked = Asked(
            np.arange(frames.count, dtype="<u2"),
            np.full(frames.count, number, "<u2"),
            np.full(frames.count, 50, "<u2"),
            np.concatenate(positions).astype("<u2"),
        )
        expected = [
            row[: m + 1].sum() % 2 for row, each in zip(ordered, positions, strict=True) for m in each
        ]
        answer = np.frombuffer(reference.answer(encoded_question(asked)), np.uint8)
        assert np.unpackbits(answer, count=len(expected), bitorder="little").tolist() == expected


@pytest.mark.parametrize(("qber", "f_max"), [(0.01, 1.06), (0.02, 1.05), (0.03, 1.06), (0.05, 1.06)])
def test_discloses_little_more_than_shannon_asks(qber: float, f_max: float) -> None:
    """Against n * h(QBER of this very key); published: 1.038 (arXiv:2101.12565)."""
    a, b, reference, corrector = pair(1 << 21, qber)
    rounds = reconcile(reference, corrector)
    assert np.array_equal(corrector.corrected_key(), a)
    assert reference.disclosed_bits <= f_max * a.size * entropy(float((a ^ b).mean()))
    assert rounds < 1000


@BOTH
def test_no_residual_errors_in_many_keys(method: Cascade) -> None:
    for seed in range(60):
        a, _, reference, corrector = pair(8192, 0.01 + 0.0005 * seed, seed, method=method)
        reconcile(reference, corrector)
        assert np.array_equal(corrector.corrected_key(), a), seed


@BOTH
def test_bursts_are_corrected(method: Cascade) -> None:
    a, b, _, _ = pair(1 << 14, 0.0)
    b[3000:3100] ^= 1
    plan = method.plan(a.size, 0.02, 0.11, bytes(16))
    reference, corrector = method.reference(a, plan), method.corrector(b, plan)
    reconcile(reference, corrector)
    assert np.array_equal(corrector.corrected_key(), a)


@BOTH
@pytest.mark.parametrize("seed", range(5))
def test_a_lying_alice_cannot_hold_bob(seed: int, method: Cascade) -> None:
    """Random parities contradict each other for ever; the limits end it."""
    rng = np.random.Generator(np.random.SFC64(seed))
    _, _, reference, corrector = pair(4096, 0.02, method=method)
    with pytest.raises(PeerMisbehaved):
        while (question := corrector.question()) is not None:
            corrector.take(rng.bytes(len(reference.answer(question))))


@BOTH
@pytest.mark.parametrize("number", [0, 1, 3, 9, 15, 22, 30])
def test_a_flipped_parity_ends(number: int, method: Cascade) -> None:
    a, _, reference, corrector = pair(4096, 0.03, method=method)
    rounds = 0
    try:
        while (question := corrector.question()) is not None:
            answer = bytearray(reference.answer(question))
            answer[0] ^= rounds == number
            corrector.take(bytes(answer))
            rounds += 1
    except PeerMisbehaved:
        return
    assert corrector.corrected_key().size == a.size


@BOTH
def test_a_greedy_bob_gets_no_more_than_the_plan(method: Cascade) -> None:
    _, _, reference, _ = pair(1 << 16, 0.02, method=method)
    positions = np.arange(60_000, dtype="<u2").tobytes()
    number = [(value).to_bytes(2, "little") for value in (0, 1, 60_000)]
    with pytest.raises(PeerMisbehaved, match="disclose"):
        reference.answer(msgspec.msgpack.encode([*number, positions]))
    assert reference.disclosed_bits == 0


ZERO, ONE, THREE, FOUR = (value.to_bytes(2, "little") for value in (0, 1, 3, 4))


@BOTH
@pytest.mark.parametrize(
    "question",
    [
        [b"", b"", b"", b""],
        [ONE, ZERO, ZERO, b""],
        [ZERO, (643).to_bytes(2, "little"), ZERO, b""],
        [ZERO, FOUR, ZERO, b""],
        [ZERO, ZERO, ONE, b""],
        [ZERO, ZERO, ZERO, ONE],
        [ZERO, ZERO, ONE, b"abc"],
        [ZERO, ZERO, ONE, (4096).to_bytes(2, "little")],
        [ZERO, ZERO + ZERO, ZERO, b""],
        ["x"],
        [ZERO, ZERO, ZERO, b"", b""],
    ],
)
def test_malformed_questions_are_refused(question: list, method: Cascade) -> None:
    _, _, reference, _ = pair(4096, 0.02, method=method)
    with pytest.raises(PeerMisbehaved):
        reference.answer(msgspec.msgpack.encode(question))
    assert reference.disclosed_bits == 0


@given(st.binary(max_size=40))
def test_any_bytes_are_answered_or_refused(question: bytes) -> None:
    _, _, reference, corrector = pair(512, 0.02)
    with contextlib.suppress(PeerMisbehaved):
        reference.answer(question)
    corrector.question()
    with pytest.raises(PeerMisbehaved):
        corrector.take(question + bytes(600))


@pytest.mark.parametrize(
    "plan",
    [
        [4096, [32, 128, 1024], bytes(16), 3000],
        [512, [0, 128, 1024], bytes(16), 300],
        [512, [32, 128, 512], bytes(15), 300],
        [512, [32, 128, 512], bytes(16), 600],
        [512, [32, 128, 512], bytes(16), 0],
        [512, [32, 128, 1 << 20], bytes(16), 300],
        ["512"],
    ],
)
def test_bad_plans_are_refused(plan: list) -> None:
    with pytest.raises(PeerMisbehaved):
        ENGINES[0].corrector(np.zeros(512, np.uint8), msgspec.msgpack.encode(plan))


def test_wipe_leaves_no_key() -> None:
    _, _, reference, corrector = pair(4096, 0.02)
    corrector.take(reference.answer(corrector.question() or b""))
    mine, his = reference._engine, corrector._engine
    kept = [mine._keys, mine._prefixes, his._orders, his._alice]
    assert all(array.any() for array in kept[:3])
    reference.wipe()
    corrector.wipe()
    assert not any(array.any() for array in kept)


def test_wipe_leaves_no_key_without_kernels() -> None:
    _, _, reference, corrector = pair(4096, 0.02, method=ENGINES[1])
    corrector.take(reference.answer(corrector.question() or b""))
    mine, his = reference._engine, corrector._engine
    kept = [mine._keys, his._key, *(order._prefix._words for order in mine._orders)]
    assert all(array.any() for array in kept)
    reference.wipe()
    corrector.wipe()
    assert not any(array.any() for array in kept)
