"""Synthetic records for the distillation tests: random slots and bits with a given error rate."""

import hashlib
import itertools
from collections.abc import Callable, Iterable

import msgspec
import numpy as np

from openqci.core.detections import DetectionRecord, EmissionRecord
from openqci.core.identifiers import LinkId
from openqci.core.keys import SecretBytes
from openqci.distillation import (
    AUTHENTICATION_KEY_BYTES,
    AliceDistillation,
    BlockName,
    BobDistillation,
    Direction,
    DistillationAborted,
    DistillationSettings,
    KeyDistilled,
    converse,
)
from openqci.distillation.messages import AnyMessage, decode_body, decode_envelope

SETTINGS = DistillationSettings(
    proof_id="rusca-2018",
    intensities=(0.4, 0.1),
    intensity_probabilities=(0.3, 0.7),
    epsilon_sec=1e-9,
    epsilon_cor=1e-15,
)
BLOCK = BlockName(LinkId("a--b"), 7)


def records(
    detections: int, qber: float, seed: int = 1, z_probability: float = 0.7, extra: float = 0.0
) -> tuple[EmissionRecord, DetectionRecord]:
    """Return what both ends recorded: gains as of the intensities, errors at rate ``qber``.

    ``extra`` is the share of pulses more in Alice's record that nobody detected.
    """
    rng = np.random.Generator(np.random.SFC64(seed))
    sent = int(detections * (1 + extra))
    slots = np.cumsum(rng.geometric(0.01, sent)).astype(np.int64)
    gains = np.array(SETTINGS.intensities) * SETTINGS.intensity_probabilities
    intensities = (rng.random(sent) > gains[0] / gains.sum()).astype(np.uint8)
    bases = (rng.random(sent) > z_probability).astype(np.uint8)
    bits = rng.integers(0, 2, sent, dtype=np.uint8)
    emissions = EmissionRecord(slots, bases, bits, intensities, int(slots[-1]) + 1 if sent else 0)
    seen = np.sort(rng.permutation(sent)[:detections])
    bob_bases = (rng.random(detections) > z_probability).astype(np.uint8)
    wrong = (rng.random(detections) < qber).astype(np.uint8)
    mismatch = bob_bases != bases[seen]
    bob_bits = np.where(mismatch, rng.integers(0, 2, detections, dtype=np.uint8), bits[seen] ^ wrong)
    return emissions, DetectionRecord(slots[seen], bob_bases, bob_bits.astype(np.uint8), 3)


def entropy(seed: str) -> Callable[[int], bytes]:
    """Return a repeatable source of bytes, for tests alone."""
    calls = itertools.count()
    return lambda length: hashlib.shake_128(f"{seed} {next(calls)}".encode()).digest(length)


def authentication_key(seed: str = "key") -> SecretBytes:
    return SecretBytes(entropy(seed)(AUTHENTICATION_KEY_BYTES))


def ends(
    emissions: EmissionRecord,
    detections: DetectionRecord,
    settings: DistillationSettings = SETTINGS,
    seed: str = "entropy",
    block: BlockName = BLOCK,
) -> tuple[AliceDistillation, BobDistillation]:
    """Return two ends of one block that share settings and authentication key."""
    return (
        AliceDistillation(emissions, settings, block, authentication_key(), entropy(f"{seed} alice")),
        BobDistillation(detections, settings, block, authentication_key(), entropy(f"{seed} bob")),
    )


class Transcript:
    """A line that delivers everything and keeps it."""

    def __init__(self) -> None:
        self.said: list[tuple[Direction, AnyMessage]] = []

    def __call__(self, direction: Direction, message: bytes) -> Iterable[bytes]:
        self.said.append((direction, decode_body(decode_envelope(message).body)))
        return (message,)

    def names(self) -> list[str]:
        return [type(message).__name__ for _, message in self.said]


def distil(
    detections: int = 40_000, qber: float = 0.005, seed: int = 1, extra: float = 0.0, **changes: object
) -> tuple[KeyDistilled | DistillationAborted, KeyDistilled | DistillationAborted, Transcript]:
    transcript = Transcript()
    agreed = msgspec.structs.replace(SETTINGS, **changes)
    alice, bob = ends(*records(detections, qber, seed, extra=extra), agreed)
    return *converse(alice, bob, line=transcript), transcript


def same_key_or_none(a: KeyDistilled | DistillationAborted, b: KeyDistilled | DistillationAborted) -> bool:
    """Return whether there is a key; fail unless both ends agree on that and on its bytes."""
    assert type(a) is type(b)
    assert a.report.balances() and b.report.balances()
    if isinstance(a, KeyDistilled) and isinstance(b, KeyDistilled):
        assert a.key.key.reveal() == b.key.key.reveal()
        assert 8 * len(a.key.key) == a.report.secret_bits == b.report.secret_bits > 0
        return True
    assert a.report.secret_bits == b.report.secret_bits == 0
    return False
