"""Alice's transmitter: light sent into it, light made brighter, intensities that Eve can tell apart.

Honest parties take the intensities and the privacy of the modulators on trust; here that trust is broken and
the proof is told how far. Left out: phase correlations, seeding with pulses shorter than the tap resolves.
Read next ``detectors``.
"""

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

import numpy as np

from openqci.links.attacks.assessment import Attack, Block, finite_key
from openqci.links.attacks.statistics import (
    LinkStatistics,
    bounds_of,
    relit_table,
    safe_of_single_photons,
    with_known_share,
)
from openqci.proofs.bounds import binary_entropy
from openqci.quantum import QuantumLink
from openqci.quantum.elements import Floats, check_range

PHOTON_ENERGY_J = 1.2816e-19
"""h c / lambda at 1550 nm."""

INJECTED_PHOTONS_MAX_HZ = 1e20
"""Light that damages the transmitter's optics (12.8 W at 1550 nm): more cannot be sent in for long."""


@dataclass(frozen=True)
class TrojanHorse(Attack):
    """Eve sends light into Alice's modulators and reads their settings from the reflection.

    ``mu_out = (N_in / R) 10^(-I/10)`` photons per pulse come back; with photon counting she knows the setting
    with probability ``1 - exp(-mu_out)``. Nothing changes at Bob's end.

    The term in the proof is for the most light that the device survives (1e20 photons/s), whatever is sent.

    Parameters
    ----------
    injected_photons_hz : float
        Photons per second at Alice's output, 0 to 1e20.
    isolation_db : float
        Of the whole way in and out: isolators, filter, attenuator, reflection; 0 to 300.
    """

    injected_photons_hz: float = 1e20
    isolation_db: float = 170.0

    attack_id: ClassVar[str] = "trojan-horse"
    description: ClassVar[str] = "light sent into the transmitter reads its modulators"
    reference: ClassVar[str] = "M. Lucamarini et al., Phys. Rev. X 5, 031030 (2015), arXiv:1506.01989"
    countermeasure: ClassVar[str] = "isolation, a leakage term in the proof, a watchdog on light coming in"
    answered_by: ClassVar[tuple[str, ...]] = ("injected power",)

    def __post_init__(self) -> None:
        check_range("injected_photons_hz", self.injected_photons_hz, 0.0, INJECTED_PHOTONS_MAX_HZ)
        check_range("isolation_db", self.isolation_db, 0.0, 300.0)

    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        if self.injected_photons_hz == 0:
            return statistics
        clock_hz = statistics.link.source.clock_rate_hz
        out = reflected_photons(self.injected_photons_hz, clock_hz, self.isolation_db)
        power_w = self.injected_photons_hz * PHOTON_ENERGY_J
        instruments = replace(statistics.instruments, injected_power_w=power_w)
        return replace(with_known_share(statistics, -math.expm1(-out)), instruments=instruments)

    def believed_per_pulse(
        self, seen: LinkStatistics, honest: LinkStatistics, block: Block, defended: bool
    ) -> float:
        """Return the key; defended, with the phase error that the reflected light may hide."""
        kept = finite_key(seen, block)
        if not defended:
            return kept.length_bits / block.pulses
        clock_hz = seen.link.source.clock_rate_hz
        out = reflected_photons(INJECTED_PHOTONS_MAX_HZ, clock_hz, self.isolation_db)
        single_yield = kept.single_photon_bits / max(single_photon_pulses(seen.link) * block.pulses, 1e-300)
        phase = phase_error_with_leak(kept.phase_error, out, single_yield)
        more = kept.single_photon_bits * (binary_entropy_up(phase) - binary_entropy_up(kept.phase_error))
        return max(0.0, kept.unclipped_bits - more) / block.pulses


@dataclass(frozen=True)
class LaserSeeding(Attack):
    """Eve makes Alice's pulses brighter by a factor, and hides it behind loss of her own.

    All intensities are scaled alike. Hidden, every count stays exactly as it was (coherent light stays
    coherent under loss) and only the source tap knows; the proof, told the old intensities, takes two-photon
    pulses for single ones. The answer: a tap that alarms at its tolerance, and a proof that holds for all
    intensities within it.

    Parameters
    ----------
    factor : float
        1 (no attack) to 20.
    hidden : float
        Share of the surplus, in dB, that Eve takes away again on the line, 0 to 1.
    """

    factor: float = 1.5
    hidden: float = 1.0

    attack_id: ClassVar[str] = "laser-seeding"
    description: ClassVar[str] = "light or damage makes the source brighter than the proof believes"
    reference: ClassVar[str] = "A. Huang et al., Phys. Rev. Applied 12, 064043 (2019)"
    countermeasure: ClassVar[str] = "source tap; proof with the worst intensities within its tolerance"
    answered_by: ClassVar[tuple[str, ...]] = ("source tap", "gain", "double clicks")

    def __post_init__(self) -> None:
        check_range("factor", self.factor, 1.0, 20.0)
        check_range("hidden", self.hidden, 0.0, 1.0)

    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        if self.factor == 1:
            return statistics
        instruments = replace(statistics.instruments, source_power_ratio=self.factor)
        if self.hidden == 1:
            return replace(statistics, instruments=instruments)
        brighter = relit(statistics, self.factor ** (1 - self.hidden) * np.ones(len(statistics.gains)))
        return replace(brighter, instruments=instruments)

    def believed_per_pulse(
        self, seen: LinkStatistics, honest: LinkStatistics, block: Block, defended: bool
    ) -> float:
        """Return the key; defended, the least that intensities within the tap's tolerance give."""
        if not defended:
            return finite_key(seen, block).length_bits / block.pulses
        return least_key(seen, block, block.watch.tap_tolerance, together=True)

    def safe_per_pulse(self, seen: LinkStatistics, defended: bool) -> float:
        return safe_of_single_photons(seen, self.factor * seen.link.source.mean_photons())


@dataclass(frozen=True)
class DecoyDistinguishability(Attack):
    """Signal and decoy differ in time or spectrum: Eve can treat them differently.

    With probability ``distance`` she knows the intensity, so yields of equal photon numbers may differ by as
    much. She lets every gain be as it was (no observable) and blocks the single photons of signals. The key
    is gone when the distance comes near the yield of the decoy, ``nu eta``. The answer is a linear program
    with that slack.

    Parameters
    ----------
    distance : float
        Total variation distance between two intensities at the same photon number, 0 to 1.
    """

    distance: float = 1e-3

    attack_id: ClassVar[str] = "decoy-distinguishability"
    description: ClassVar[str] = "intensities differ in time or spectrum, yields can be chosen for each"
    reference: ClassVar[str] = "A. Huang et al., Phys. Rev. A 98, 012330 (2018); unverified against the paper"
    countermeasure: ClassVar[str] = (
        "one laser, external modulation; slack |Y_n^mu - Y_n^nu| <= D in the proof"
    )

    def __post_init__(self) -> None:
        check_range("distance", self.distance, 0.0, 1.0)

    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        return statistics

    def believed_per_pulse(
        self, seen: LinkStatistics, honest: LinkStatistics, block: Block, defended: bool
    ) -> float:
        """Return the key; defended, less what the slack takes from the rate without statistics."""
        kept = finite_key(seen, block)
        if not defended or self.distance == 0:
            return kept.length_bits / block.pulses
        lost = single_photon_rate(seen, 0.0) - single_photon_rate(seen, self.distance)
        return max(0.0, kept.unclipped_bits / block.pulses - lost)

    def safe_per_pulse(self, seen: LinkStatistics, defended: bool) -> float:
        return safe_of_single_photons(seen, seen.link.source.mean_photons(), self.distance)


@dataclass(frozen=True)
class IntensityFluctuation(Attack):
    """Intensities are not what the proof is told, and depend on the pulse before.

    The worst case within the deviation is emitted: signals weaker and decoys brighter, so that single photons
    seem to pass better than they do. The correlation of neighbouring pulses is what the tap sees of it.

    Parameters
    ----------
    relative_deviation : float
        Largest relative error of each intensity, 0 to 0.2.
    correlation : float
        Of neighbouring pulses' energies, -1 to 1.
    """

    relative_deviation: float = 0.03
    correlation: float = 0.0

    attack_id: ClassVar[str] = "intensity-fluctuation"
    description: ClassVar[str] = "intensities deviate, and depend on the pulse before"
    reference: ClassVar[str] = "K. Yoshino et al., npj Quantum Inf. 4, 8 (2018); unverified against the paper"
    countermeasure: ClassVar[str] = "worst-case intensities in the proof; autocorrelation of the source tap"
    answered_by: ClassVar[tuple[str, ...]] = ("source", "yield")

    def __post_init__(self) -> None:
        check_range("relative_deviation", self.relative_deviation, 0.0, 0.2)
        check_range("correlation", self.correlation, -1.0, 1.0)

    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        instruments = replace(statistics.instruments, source_autocorrelation=self.correlation)
        if self.relative_deviation == 0:
            return replace(statistics, instruments=instruments)
        return replace(relit(statistics, self.scales(statistics)), instruments=instruments)

    def scales(self, statistics: LinkStatistics) -> Floats:
        """Return the emitted intensities over the nominal ones: signal low, all decoys high."""
        scales = np.full(len(statistics.gains), 1 + self.relative_deviation)
        scales[0] = 1 - self.relative_deviation
        return scales

    def believed_per_pulse(
        self, seen: LinkStatistics, honest: LinkStatistics, block: Block, defended: bool
    ) -> float:
        """Return the key; defended, the least of all corners of the range of intensities."""
        if not defended:
            return finite_key(seen, block).length_bits / block.pulses
        return least_key(seen, block, self.relative_deviation, together=False)

    def safe_per_pulse(self, seen: LinkStatistics, defended: bool) -> float:
        return safe_of_single_photons(seen, self.scales(seen) * seen.link.source.mean_photons())


def reflected_photons(injected_photons_hz: float, clock_rate_hz: float, isolation_db: float) -> float:
    """Return the mean photons per pulse that come back out, ``(N_in / R) 10^(-I/10)``.

    >>> round(reflected_photons(1e20, 1e9, 170.0), 12)
    1e-06
    """
    check_range("injected_photons_hz", injected_photons_hz, 0.0, 1e30)
    check_range("clock_rate_hz", clock_rate_hz, 1.0, 1e12)
    return float(injected_photons_hz / clock_rate_hz * 10 ** (-isolation_db / 10))


def needed_isolation_db(injected_photons_hz: float, clock_rate_hz: float, reflected: float) -> float:
    """Return the isolation at which only ``reflected`` photons per pulse come back.

    >>> round(needed_isolation_db(1e20, 1e9, 1e-6), 6)
    170.0
    """
    check_range("reflected", reflected, 1e-30, 1e10)
    check_range("injected_photons_hz", injected_photons_hz, 1e-30, 1e30)
    check_range("clock_rate_hz", clock_rate_hz, 1.0, 1e12)
    return 10 * math.log10(injected_photons_hz / clock_rate_hz / reflected)


def phase_error_with_leak(phase_error: float, reflected: float, single_photon_yield: float) -> float:
    """Return the phase error rate when a coherent state of ``reflected`` photons leaks each setting.

    The quantum-coin argument: the imbalance ``D = [1 - exp(-m) cos m] / 2`` of the coin, over the yield of
    single photons (loss helps Eve to choose), moves the error rate on the circle,
    ``e' = e + 4 D (1 - D)(1 - 2 e) + 4 (1 - 2 D) sqrt(D (1 - D) e (1 - e))``; one half when D is larger.

    References
    ----------
    H.-K. Lo, J. Preskill, QIC 7, 431 (2007); M. Lucamarini et al., PRX 5, 031030 (2015). The form is from
    memory, unverified against the papers.
    """
    check_range("reflected", reflected, 0.0, 1e30)
    check_range("phase_error", phase_error, 0.0, 0.5)
    if reflected == 0:
        return phase_error
    if not single_photon_yield > 0 or reflected > 1:
        return 0.5
    # 1 - exp(-m) cos m, without loss of digits for weak light.
    coin = (-math.expm1(-reflected) + math.exp(-reflected) * 2 * math.sin(reflected / 2) ** 2) / 2
    coin /= min(1.0, single_photon_yield)
    if coin >= 0.5:
        return 0.5
    spread = math.sqrt(coin * (1 - coin) * phase_error * (1 - phase_error))
    moved = phase_error + 4 * coin * (1 - coin) * (1 - 2 * phase_error) + 4 * (1 - 2 * coin) * spread
    # Beyond the top of the circle the formula falls again; the error may be anything up to one half there.
    top = math.asin(math.sqrt(phase_error)) + 2 * math.asin(math.sqrt(coin)) >= math.pi / 4
    return 0.5 if top else min(0.5, moved)


def least_key(seen: LinkStatistics, block: Block, tolerance: float, *, together: bool) -> float:
    """Return the least key per emitted pulse over the corners of a range of intensities.

    ``together`` scales all by one factor (also tried unscaled); otherwise each goes up or down by itself.
    That the least is at a corner is checked by a test on a grid, not proven.
    """
    nominal = seen.link.source.mean_photons()
    if together:
        scales = [(scale,) * len(nominal) for scale in (1 - tolerance, 1.0, 1 + tolerance)]
    else:
        scales = list(product((1 - tolerance, 1 + tolerance), repeat=len(nominal)))
    lengths = []
    for scale in scales:
        told = nominal * np.array(scale)
        if (np.diff(told) >= 0).any():
            return 0.0
        lengths.append(finite_key(seen, block, told).length_bits)
    return min(lengths) / block.pulses


def relit(statistics: LinkStatistics, scales: Floats) -> LinkStatistics:
    """Return the link with intensities scaled, shape (K,), and nothing else changed."""
    link = statistics.link
    return replace(statistics, views=relit_table(link, scales)[None])


def single_photon_pulses(link: QuantumLink) -> float:
    """Return the share of pulses with one photon for which both ends choose the key basis."""
    mean = link.source.mean_photons()
    sent = float(np.dot(link.source.probabilities, mean * np.exp(-mean)))
    return sent * link.source.z_basis_probability * link.receiver.z_basis_probability


def single_photon_rate(seen: LinkStatistics, distance: float) -> float:
    """Return ``p_Z^2 sum_k p_k P(1|k) Y_1^k [1 - h(e_1)]`` at the linear program's bounds."""
    bounds = bounds_of(seen, seen.link.source.mean_photons(), distance)
    mean = seen.link.source.mean_photons()
    weight = np.array(seen.link.source.probabilities) * mean * np.exp(-mean)
    single, wrong = float(weight @ bounds.single), float(weight @ bounds.wrong)
    if not single > 0:
        return 0.0
    both_z = seen.link.source.z_basis_probability * seen.link.receiver.z_basis_probability
    return both_z * single * (1 - binary_entropy_up(min(0.5, wrong / single))) * seen.live_fraction


def binary_entropy_up(error: float) -> float:
    """Return h(e), and 1 from one half on."""
    return 1.0 if error >= 0.5 else binary_entropy(error)
