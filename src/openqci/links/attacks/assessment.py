"""How an attack is assessed: what is seen, what the proof would give from it, what is truly secret.

An attack is a frozen dataclass with range-checked parameters. It has :meth:`Attack.transform` (closed form,
on :class:`~openqci.links.attacks.statistics.LinkStatistics`), :meth:`Attack.draw` (detections drawn under
it) and :meth:`Attack.outcome`. ``outcome(..., defended=False)`` takes away the one answer that the attack
names (its monitors, or its term in the proof), so that the two outcomes together show what the answer is
worth.

Expected counts stand for counts everywhere: an attack is "detected" when the mean passes the threshold, that
is, in at least about half of all blocks; a stronger one is seen in nearly all. Read next the families:
``interception``, ``photon_number``, ``source``, ``detectors``.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from openqci.core.detections import X_BASIS, Z_BASIS, Bits, DetectionRecord, EmissionRecord
from openqci.core.errors import OutsideModel
from openqci.links.attacks.model import BB84, AttackOutcome, Observable, check_link, verdict
from openqci.links.attacks.monitors import Instruments, Watch, readings_of_records, watched
from openqci.links.attacks.statistics import LinkStatistics, honest_statistics, readings, safe_key_per_pulse
from openqci.proofs import DecoyCounts, FiniteKeyProof, KeyLength, proof
from openqci.proofs.bounds import binary_entropy
from openqci.quantum import Exchange, QuantumLink
from openqci.quantum.elements import Floats, check_range
from openqci.quantum.exchange import detections_of, draw_kinds, draw_slots, emissions_of

PROOF_OF_INTENSITIES = {2: "rusca-2018", 3: "lim-2014"}


@dataclass(frozen=True)
class Block:
    """The block of which a key is made, and how it is watched.

    Parameters
    ----------
    pulses : float
        Pulses sent, 1 to 1e15; 1e11 are 100 s at 1 GHz.
    epsilon_sec, epsilon_cor : float
        Secrecy and correctness.
    reconciliation_efficiency : float
        f of the leak ``f n h(E)``, 1 to 3.
    watch : Watch
    """

    pulses: float = 1e11
    epsilon_sec: float = 1e-10
    epsilon_cor: float = 1e-15
    reconciliation_efficiency: float = 1.16
    watch: Watch = field(default_factory=Watch)

    def __post_init__(self) -> None:
        check_range("pulses", self.pulses, 1.0, 1e15)
        check_range("epsilon_sec", self.epsilon_sec, 1e-300, 0.5)
        check_range("epsilon_cor", self.epsilon_cor, 1e-300, 0.5)
        check_range("reconciliation_efficiency", self.reconciliation_efficiency, 1.0, 3.0)

    def duration_s(self, link: QuantumLink) -> float:
        return self.pulses / link.source.clock_rate_hz


STANDARD_BLOCK = Block()


@dataclass(frozen=True)
class Attack(ABC):
    """One attack: subclasses say how it transforms a link and what answers it.

    Class attributes
    ----------------
    attack_id, description, reference, countermeasure : str
    answered_by : tuple of str
        Names of the observables (by their beginning) that are its answer; without them it is undefended.
    """

    attack_id: ClassVar[str]
    description: ClassVar[str]
    reference: ClassVar[str]
    countermeasure: ClassVar[str]
    answered_by: ClassVar[tuple[str, ...]] = ()
    family: ClassVar[str] = BB84

    @abstractmethod
    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        """Return what is seen, and known to Eve, under the attack."""

    def draw(self, link: QuantumLink, detections: int, rng: np.random.Generator) -> Exchange:
        """Return detections under the attack; costs per detection.

        Here from the transformed table, as honest detections are drawn from the honest one; attacks with a
        mechanism of their own on single detections override it.
        """
        return exchange_of_table(self.transform(self.commissioned(link)).table, link, detections, rng)

    def believed_per_pulse(
        self, seen: LinkStatistics, honest: LinkStatistics, block: Block, defended: bool
    ) -> float:
        """Return the key per emitted pulse that the honest parties would make."""
        return finite_key(seen, block).length_bits / block.pulses

    def outcome(
        self, link: QuantumLink, block: Block = STANDARD_BLOCK, *, defended: bool = True
    ) -> AttackOutcome:
        """Return what the attack does to a link of two or three intensities.

        Parameters
        ----------
        link : QuantumLink
        block : Block
        defended : bool
            False takes the answer away that ``countermeasure`` names.

        Raises
        ------
        OutsideModel
            For a link with another number of intensities than a proof has.
        ConfigurationError
            For a link of quadratures.
        """
        check_link(self.attack_id, self.family, link, QuantumLink)
        calm = self.commissioned(link)
        honest = self.processed(calm, defended)
        seen = self.processed(self.transform(calm), defended)
        observables, false_alarms = observed(honest, seen, block)
        if not defended:
            observables = tuple(each for each in observables if not each.name.startswith(self.removed()))
        believed = self.believed_per_pulse(seen, honest, block, defended)
        safe = self.safe_per_pulse(seen, defended)
        return AttackOutcome(
            attack=self.attack_id,
            reference=self.reference,
            parameters=self.parameters() | {"defended": float(defended)},
            observables=observables,
            key_believed_per_pulse=believed,
            key_safe_per_pulse=safe,
            false_alarm_probability=false_alarms,
            verdict=verdict(believed, safe, observables),
            countermeasure=self.countermeasure,
        )

    def commissioned(self, link: QuantumLink) -> LinkStatistics:
        """Return the link before the attack."""
        return honest_statistics(link)

    def processed(self, seen: LinkStatistics, defended: bool) -> LinkStatistics:
        """Return what is left of the detections after those rules of processing that answer the attack."""
        return seen

    def safe_per_pulse(self, seen: LinkStatistics, defended: bool) -> float:
        """Return an upper bound on the key that is truly secret, per emitted pulse."""
        return safe_key_per_pulse(seen)

    def parameters(self) -> dict[str, float]:
        return {each.name: float(getattr(self, each.name)) for each in fields(self)}

    def removed(self) -> tuple[str, ...]:
        # An empty prefix would remove everything.
        return self.answered_by or ("(nothing)",)


def observed(
    honest: LinkStatistics, seen: LinkStatistics, block: Block
) -> tuple[tuple[Observable, ...], float]:
    """Return all observables of the block, and the false-alarm probability of all of them together."""
    link = honest.link
    return watched(
        readings(honest, block.pulses * honest.live_fraction),
        readings(seen, block.pulses * seen.live_fraction),
        np.array(link.source.probabilities),
        block.watch,
        block.duration_s(link),
    )


def observed_in_records(
    honest: LinkStatistics, drawn: Exchange, instruments: Instruments, block: Block
) -> tuple[tuple[Observable, ...], float]:
    """Return the same observables from the records of both ends, as drawn (or recorded).

    Parameters
    ----------
    honest : LinkStatistics
        Of the link as commissioned.
    drawn : Exchange
        At least one detection; its own duration says how rare an alarm has to be.
    instruments : Instruments
        What the devices said beside the clicks.
    block : Block
        For its watch alone.
    """
    log = readings_of_records(drawn, honest.link, instruments)
    probabilities = np.array(honest.link.source.probabilities)
    return watched(readings(honest, log.live_pulses), log, probabilities, block.watch, drawn.duration_s)


def finite_key(seen: LinkStatistics, block: Block, intensities: Floats | None = None) -> KeyLength:
    """Return the key of a block of expected counts under the proof for this number of intensities.

    Parameters
    ----------
    seen : LinkStatistics
    block : Block
    intensities : ndarray, shape (K,), optional
        What the proof is told, instead of the source's nominal values.
    """
    counts = expected_counts(seen, block, intensities)
    return proof_of(seen.link).secret_length_bits(
        counts, leak_bits(counts, block), block.epsilon_sec, block.epsilon_cor
    )


def proof_of(link: QuantumLink) -> FiniteKeyProof:
    """Return the proof for the number of intensities of a link."""
    number = len(link.source.intensities)
    if number not in PROOF_OF_INTENSITIES:
        raise OutsideModel(
            "intensities", link.source.intensities, "2 or 3 values, for which there is a proof"
        )
    return proof(PROOF_OF_INTENSITIES[number])


def expected_counts(seen: LinkStatistics, block: Block, intensities: Floats | None = None) -> DecoyCounts:
    """Return the expected sifted counts of a block, as a proof takes them."""
    log = readings(seen, block.pulses * seen.live_fraction)
    source = seen.link.source
    return DecoyCounts(
        z_counts=log.sifted[Z_BASIS].tolist(),
        z_errors=log.errors[Z_BASIS].tolist(),
        x_counts=log.sifted[X_BASIS].tolist(),
        x_errors=log.errors[X_BASIS].tolist(),
        intensities=source.intensities if intensities is None else intensities.tolist(),
        probabilities=source.probabilities,
    )


def leak_bits(counts: DecoyCounts, block: Block) -> float:
    """Return the leak of error correction, ``f n h(E)``."""
    bits, errors = math.fsum(counts.z_counts), math.fsum(counts.z_errors)
    if not bits > 0:
        return 0.0
    return block.reconciliation_efficiency * bits * binary_entropy(errors / bits)


def exchange_of_table(
    table: Floats, link: QuantumLink, detections: int, rng: np.random.Generator
) -> Exchange:
    """Return detections drawn from a table of class probabilities, shape (K, 2, 2, 2, 2, 2)."""
    check_range("detections", detections, 0, 1e12)
    slots = draw_slots(float(table.sum()), link.dead_slots, detections, rng)
    kinds = draw_kinds(np.maximum(table, 0.0).ravel(), detections, rng)
    pulses = int(slots[-1]) + 1 if detections else 0
    return Exchange(
        emissions_of(slots, kinds, pulses),
        detections_of(slots, kinds),
        duration_s=pulses / link.source.clock_rate_hz,
    )


def selected(exchange: Exchange, keep: NDArray[np.bool_]) -> Exchange:
    """Return the exchange with only some of its detections; the pulses sent stay the same.

    Double clicks are not marked in the record, so their number is scaled with what is kept.
    """
    alice, bob = exchange.emissions, exchange.detections
    kept = int(np.count_nonzero(keep))
    doubles = round(bob.double_clicks * kept / max(len(keep), 1))
    return replace(
        exchange,
        emissions=EmissionRecord(
            alice.slots[keep], alice.bases[keep], alice.bits[keep], alice.intensities[keep], alice.pulses
        ),
        detections=DetectionRecord(bob.slots[keep], bob.bases[keep], bob.bits[keep], doubles),
    )


def with_bits(exchange: Exchange, bits: Bits, double_clicks: int | None = None) -> Exchange:
    """Return the exchange with other bits at Bob's end."""
    bob = exchange.detections
    doubles = bob.double_clicks if double_clicks is None else double_clicks
    return replace(exchange, detections=replace(bob, bits=bits, double_clicks=doubles))
