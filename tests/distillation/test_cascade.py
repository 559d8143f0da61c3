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
    CascadeReference,
)

METHOD = Cascade()


def pair(
    n: int, qber: float, seed: int = 1, estimate: float | None = None
) -> tuple[np.ndarray, np.ndarray, CascadeReference, CascadeCorrector]:
    rng = np.random.Generator(np.random.SFC64(seed))
    a = rng.integers(0, 2, n, dtype=np.uint8)
    b = a ^ (rng.random(n) < qber).astype(np.uint8)
    plan = METHOD.plan(n, qber if estimate is None else estimate, 0.11, rng.bytes(PUBLIC_SEED_BYTES))
    return a, b, METHOD.reference(a, plan), METHOD.corrector(b, plan)


def reconcile(reference: CascadeReference, corrector: CascadeCorrector) -> int:
    rounds = 0
    while (question := corrector.question()) is not None:
        corrector.take(reference.answer(question))
        rounds += 1
    return rounds


def entropy(q: float) -> float:
    return -q * math.log2(q) - (1 - q) * math.log2(1 - q)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(300, 5000),
    qber=st.floats(0, 0.08),
    estimate=st.floats(0.005, 0.08),
    seed=st.integers(0, 2**32),
)
def test_corrects_any_size_with_any_estimate(n: int, qber: float, estimate: float, seed: int) -> None:
    a, _, reference, corrector = pair(n, qber, seed, max(estimate, qber / 2))
    try:
        reconcile(reference, corrector)
    except PeerMisbehaved as refusal:  # a small block may cost more than it is worth: then it is given up
        assert "disclose" in str(refusal)
        return
    assert np.array_equal(corrector.corrected_key(), a)
    assert reference.disclosed_bits == corrector.disclosed_bits


@pytest.mark.parametrize("n", [1, 2, 7, 63, 64, 65])
def test_tiny_blocks_are_corrected_or_given_up(n: int) -> None:
    a, _, reference, corrector = pair(n, 0.0)
    try:
        reconcile(reference, corrector)
        assert np.array_equal(corrector.corrected_key(), a)
    except PeerMisbehaved as refusal:
        assert "disclose" in str(refusal)


@pytest.mark.parametrize(("qber", "f_max"), [(0.01, 1.10), (0.02, 1.10), (0.03, 1.10), (0.05, 1.10)])
def test_discloses_little_more_than_shannon_asks(qber: float, f_max: float) -> None:
    """Against n * h(QBER of this very block); published: 1.038 (arXiv:2101.12565)."""
    a, b, reference, corrector = pair(1 << 18, qber)
    rounds = reconcile(reference, corrector)
    assert np.array_equal(corrector.corrected_key(), a)
    assert reference.disclosed_bits <= f_max * a.size * entropy(float((a ^ b).mean()))
    assert rounds < 500


def test_no_residual_errors_in_many_blocks() -> None:
    for seed in range(60):
        a, _, reference, corrector = pair(8192, 0.01 + 0.0005 * seed, seed)
        reconcile(reference, corrector)
        assert np.array_equal(corrector.corrected_key(), a), seed


def test_bursts_are_corrected() -> None:
    a, b, _, _ = pair(1 << 14, 0.0)
    b[3000:3100] ^= 1
    plan = METHOD.plan(a.size, 0.02, 0.11, bytes(16))
    reference, corrector = METHOD.reference(a, plan), METHOD.corrector(b, plan)
    reconcile(reference, corrector)
    assert np.array_equal(corrector.corrected_key(), a)


@pytest.mark.parametrize("seed", range(5))
def test_a_lying_alice_cannot_hold_bob(seed: int) -> None:
    """Random parities contradict each other for ever; the limits end it (checklist 15)."""
    rng = np.random.Generator(np.random.SFC64(seed))
    _, _, reference, corrector = pair(4096, 0.02)
    with pytest.raises(PeerMisbehaved):
        while (question := corrector.question()) is not None:
            corrector.take(rng.bytes(len(reference.answer(question))))


def test_a_flipped_parity_ends() -> None:
    a, _, reference, corrector = pair(4096, 0.03)
    rounds = 0
    try:
        while (question := corrector.question()) is not None:
            answer = bytearray(reference.answer(question))
            answer[0] ^= rounds == 3
            corrector.take(bytes(answer))
            rounds += 1
    except PeerMisbehaved:
        return
    assert corrector.corrected_key().size == a.size


def test_a_greedy_bob_gets_no_more_than_the_plan() -> None:
    _, _, reference, _ = pair(1 << 16, 0.02)
    positions = np.arange(1, 60_001, dtype="<u4").tobytes()
    with pytest.raises(PeerMisbehaved, match="disclose"):
        reference.answer(msgspec.msgpack.encode([[], [0], [positions]]))
    assert reference.disclosed_bits == 0


@pytest.mark.parametrize(
    "question",
    [
        [[], [], []],
        [[], [0], []],
        [[999_999], [], []],
        [[-1], [], []],
        [[], [0], [b"abc"]],
        [[], [0], [(5000).to_bytes(4, "little")]],
        ["x"],
        [[0], [], [], []],
    ],
)
def test_malformed_questions_are_refused(question: list) -> None:
    _, _, reference, _ = pair(4096, 0.02)
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
        ["512"],
    ],
)
def test_bad_plans_are_refused(plan: list) -> None:
    with pytest.raises(PeerMisbehaved):
        METHOD.corrector(np.zeros(512, np.uint8), msgspec.msgpack.encode(plan))


def test_wipe_leaves_no_key() -> None:
    _, _, reference, corrector = pair(4096, 0.02)
    corrector.take(reference.answer(corrector.question() or b""))
    kept = [reference._key, corrector._key]
    reference.wipe()
    corrector.wipe()
    assert not any(array.any() for array in kept)
