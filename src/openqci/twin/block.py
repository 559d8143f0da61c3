"""One block of one hop: photons, detections, distillation at both ends.

This is the only place where both ends of a link meet in one function, which a simulation may do and a
product may not: Alice's and Bob's sessions each get their own record and exchange bytes. What comes back
are two keys, made apart, and the account of every bit.
"""

import secrets

import msgspec
import numpy as np

from openqci.core.identifiers import LinkId
from openqci.core.keys import SecretBytes, wiped
from openqci.distillation import (
    AliceDistillation,
    BlockName,
    BlockReport,
    BobDistillation,
    DistillationAborted,
    DistillationSettings,
    KeyDistilled,
    converse,
)
from openqci.distillation.conversation import Ending
from openqci.distillation.reconciliation import reconciliation_for
from openqci.links import quantum_link
from openqci.network import Device, Hop
from openqci.quantum import Exchange, exchange
from openqci.quantum.interception import intercepted

PROOF_ID = "rusca-2018"
QBER_MAX = 0.09
QBER_USUAL = 0.02

FIBRE_DELAY_S_PER_KM = 4.9e-6
"""Group index 1.468 of G.652 fibre at 1550 nm."""


class BlockOrder(msgspec.Struct, frozen=True):
    """What a worker needs to make block ``number`` of a hop.

    ``photon_seed`` seeds the photons alone; permutations, hash keys and seeds of the protocol come from the
    operating system. The two authentication keys are equal and were spent in the stores of both ends
    before this order was written. An eavesdropper measures the fraction ``intercepted`` of all pulses.
    """

    hop: Hop
    device: Device
    number: int
    detections: int
    photon_seed: int
    authentication_key_a: bytes
    authentication_key_b: bytes
    intercepted: float = 0.0

    def __repr__(self) -> str:
        return f"BlockOrder({self.hop.link_id}, {self.number}, {self.detections} detections)"


class BlockOutcome(msgspec.Struct, frozen=True):
    """What a block gave: the key at either end (empty when it aborted), and what it took."""

    link_id: LinkId
    number: int
    key_a: bytes
    key_b: bytes
    duration_s: float
    detections: int
    proof_id: str
    epsilon: float
    report: BlockReport | None
    aborted: str

    def __repr__(self) -> str:
        result = self.aborted or f"{8 * len(self.key_a)} bits"
        return f"BlockOutcome({self.link_id}, {self.number}, {result})"


def distil_block(order: BlockOrder) -> BlockOutcome:
    """Simulate the exchange of one block and let both ends distil it."""
    photons = photons_of(order)
    settings = distillation_settings(order.device, order.hop.length_km)
    name = BlockName(order.hop.link_id, order.number)
    ends = distil_exchange(photons, settings, name, order.authentication_key_a, order.authentication_key_b)
    return outcome(order, photons.duration_s, *ends)


def distil_exchange(
    photons: Exchange,
    settings: DistillationSettings,
    name: BlockName,
    authentication_key_a: bytes,
    authentication_key_b: bytes,
) -> tuple[Ending, Ending]:
    """Let both ends distil what they have recorded; the raw bits of both are wiped."""
    key_a, key_b = SecretBytes(authentication_key_a), SecretBytes(authentication_key_b)
    try:
        with wiped(key_a, key_b):
            alice = AliceDistillation(photons.emissions, settings, name, key_a, secrets.token_bytes)
            bob = BobDistillation(photons.detections, settings, name, key_b, secrets.token_bytes)
            return converse(alice, bob, now_s=0.0)
    finally:
        # The ends wipe what they take of the raw bits; the records themselves are the caller's.
        photons.emissions.bits[:] = 0
        photons.detections.bits[:] = 0


def photons_of(order: BlockOrder) -> Exchange:
    """Simulate the photons of a block, with an eavesdropper among them if there is one."""
    link = quantum_link(order.device, order.hop)
    rng = photon_generator(order.photon_seed)
    honest = exchange(link, order.detections, rng)
    return intercepted(honest, order.intercepted, rng) if order.intercepted else honest


def photon_generator(seed: int) -> np.random.Generator:
    """Return the generator of a block's photons; all 256 bits of the seed count (NumPy's default is 128)."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, pool_size=8)))


def distillation_settings(device: Device, length_km: float = 0.0) -> DistillationSettings:
    """Return what both ends of a link with this device have agreed on, for a fibre of this length."""
    round_trip_s = 2 * length_km * FIBRE_DELAY_S_PER_KM
    return DistillationSettings(
        proof_id=PROOF_ID,
        intensities=(device.signal_intensity, device.decoy_intensity),
        intensity_probabilities=(device.signal_probability, 1 - device.signal_probability),
        epsilon_sec=device.epsilon_sec,
        epsilon_cor=device.epsilon_cor,
        qber_max=QBER_MAX,
        reconciliation=reconciliation_for(round_trip_s, QBER_USUAL),
    )


def outcome(order: BlockOrder, duration_s: float, at_a: Ending, at_b: Ending) -> BlockOutcome:
    """Gather what the two ends of a block say."""
    name = BlockName(order.hop.link_id, order.number)
    return outcome_of_ends(name, order.detections, duration_s, PROOF_ID, at_a, at_b)


def outcome_of_ends(
    name: BlockName, detections: int, duration_s: float, proof_id: str, at_a: Ending, at_b: Ending
) -> BlockOutcome:
    """Gather what two ends say; a key is kept only if both kept one."""
    if isinstance(at_a, KeyDistilled) and isinstance(at_b, KeyDistilled):
        keys, aborted = (at_a.key, at_b.key), ""
        epsilon = at_a.key.epsilon
        revealed = [bytes(kept.key.reveal()) for kept in keys]
        for kept in keys:
            kept.key.wipe()
    else:
        reasons = [
            f"{end.reason} {end.detail}" for end in (at_a, at_b) if isinstance(end, DistillationAborted)
        ]
        aborted, revealed, epsilon = "; ".join(reasons), [b"", b""], 0.0
        for end in (at_a, at_b):
            if isinstance(end, KeyDistilled):
                end.key.key.wipe()
    return BlockOutcome(
        link_id=name.link_id,
        number=name.number,
        key_a=revealed[0],
        key_b=revealed[1],
        duration_s=duration_s,
        detections=detections,
        proof_id=proof_id,
        epsilon=epsilon,
        report=at_a.report,
        aborted=aborted,
    )
