"""Bob's detectors: blinded, unequal, glowing, dead at different times.

The proof takes for granted that a photon's bit does not decide whether it is seen, and that a detector tells
nobody what it saw. Left out: pulsed blinding, thermal blinding, detectors damaged by light. Read next
:mod:`openqci.links.attacks`, where all attacks are listed.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from openqci.core.detections import DetectionRecord, EmissionRecord
from openqci.links.attacks.assessment import Attack, Block, finite_key
from openqci.links.attacks.monitors import LAGS
from openqci.links.attacks.photon_number import sifted_rates
from openqci.links.attacks.statistics import (
    LinkStatistics,
    check_active,
    honest_statistics,
    known,
    matching,
    mixture,
    table_of_means,
    with_known_share,
)
from openqci.proofs.bounds import binary_entropy
from openqci.quantum import Exchange, FibreChannel, QuantumLink, Receiver, exchange
from openqci.quantum.clicks import clicks
from openqci.quantum.elements import Floats, check_range, transmittance
from openqci.quantum.exchange import bit_of, detections_of, draw_kinds, draw_slots, emissions_of
from openqci.quantum.link import choice_probabilities, detector_photons

RESPONSIVITY_A_PER_W = 0.9
"""Of an InGaAs diode that light keeps below breakdown; a textbook value, and monitors need its order only."""


@dataclass(frozen=True)
class DetectorBlinding(Attack):
    """Eve blinds the detectors with steady light and makes them click, or not, with bright pulses.

    She measures Alice's pulses with a receiver like Bob's and sends her result as a pulse of a power at which
    a blinded detector always clicks, while half of it (Bob in another basis) never makes one click: she then
    has every bit and no error is added. She takes more light than Bob would, so that gains stay, and adds
    triggers at random for the dark counts that are missing.

    Between the two powers the chance to click is taken to rise linearly. The default powers are those of a
    Clavis2 as measured; detectors 0 and 1 are blinded with 397 and 765 uW.

    Parameters
    ----------
    fraction : float
        Of the time, 0 to 1.
    trigger_power_w, blinding_power_w : float
        Peak power of a trigger pulse at one detector; steady power per detector, mean of both. Up to 1 W.
    never_0_w, always_0_w, never_1_w, always_1_w : float
        Largest power that never makes the blinded detector click, least that always does.
    """

    fraction: float = 1.0
    trigger_power_w: float = 9.5e-4
    blinding_power_w: float = 5.81e-4
    never_0_w: float = 6.47e-4
    always_0_w: float = 8.08e-4
    never_1_w: float = 6.97e-4
    always_1_w: float = 9.32e-4

    attack_id: ClassVar[str] = "detector-blinding"
    description: ClassVar[str] = "steady light blinds the detectors, bright pulses make them click at will"
    reference: ClassVar[str] = "L. Lydersen et al., Nature Photonics 4, 686 (2010)"
    countermeasure: ClassVar[str] = "detector current, random-efficiency test, double clicks on both sides"
    answered_by: ClassVar[tuple[str, ...]] = ("detector current", "efficiency scaling", "double clicks")

    def __post_init__(self) -> None:
        check_range("fraction", self.fraction, 0.0, 1.0)
        check_range("trigger_power_w", self.trigger_power_w, 0.0, 1.0)
        check_range("blinding_power_w", self.blinding_power_w, 0.0, 1.0)
        for index in (0, 1):
            never, always = (getattr(self, f"{name}_{index}_w") for name in ("never", "always"))
            check_range(f"never_{index}_w", never, 0.0, 1.0)
            check_range(f"always_{index}_w", always, math.nextafter(never, 2.0), 1.0)

    @property
    def click_chances(self) -> tuple[Floats, Floats]:
        """Chances of the two detectors to click at full and at half the trigger power, each shape (2,)."""
        full = [self.click_chance(index, self.trigger_power_w) for index in (0, 1)]
        half = [self.click_chance(index, self.trigger_power_w / 2) for index in (0, 1)]
        return np.array(full), np.array(half)

    @property
    def perfect(self) -> bool:
        """Whether triggers always click in Eve's basis and never in the other."""
        full, half = self.click_chances
        return bool((full == 1).all() and (half == 0).all())

    def click_chance(self, detector: int, power_w: float) -> float:
        """Return the chance of a blinded detector (0 or 1) to click at a power."""
        never = (self.never_0_w, self.never_1_w)[detector]
        always = (self.always_0_w, self.always_1_w)[detector]
        return min(1.0, max(0.0, (power_w - never) / (always - never)))

    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        if self.fraction == 0:
            return statistics
        link = statistics.link
        check_active(link)
        full, half = self.click_chances
        efficiency, dark = self.eavesdropper(link)
        resent = measured_bits(link, efficiency, dark)  # Eve's basis, her bit, intensity, Alice's, her bit
        choices = choice_probabilities(link)
        views = np.zeros((4, *statistics.views.shape[1:]))
        for eve in (0, 1):
            for bit in (0, 1):
                view = views[2 * eve + bit]
                sent = choices[..., None] * resent[eve, bit][:, None] / 4  # intensity, Bob, Alice, her bit
                view[:, 0, eve, :, bit, :] = sent[:, eve] * full[bit]
                other = sent[:, 1 - eve]
                view[:, 0, 1 - eve, :, 0, :] = other * half[0] * (1 - half[1])
                view[:, 0, 1 - eve, :, 1, :] = other * half[1] * (1 - half[0])
                view[:, 1, 1 - eve] = other[:, :, None, :] * half[0] * half[1] / 2
        current = RESPONSIVITY_A_PER_W * self.blinding_power_w
        instruments = replace(statistics.instruments, detector_current_a=current, efficiency_scaling=1.0)
        return mixture(statistics, LinkStatistics(link, views, instruments), self.fraction)

    def acceptance(self) -> float:
        """Return the mean chance that a trigger is seen by Bob, who shares Eve's basis half the time."""
        full, half = self.click_chances
        return float(full.mean() + 1 - (1 - half[0]) * (1 - half[1])) / 2

    def eavesdropper(self, link: QuantumLink) -> tuple[float, float]:
        """Return how much of Alice's light Eve detects, and her chance of a click without light.

        Such that the gain of the signal and of empty pulses stay, as far as Alice's light allows.
        """
        accepted = self.acceptance()
        if accepted <= 0:
            return 1e-6, 0.0
        mean = float(link.source.mean_photons()[0])
        dark = -math.expm1(0.5 * math.log1p(-min(0.2, (1 - (1 - link.background) ** 2) / accepted)))
        silent = (1 - dark) ** 2
        wanted = float(honest_statistics(link).gains[0]) / accepted
        return max(1e-6, matching(lambda x: 1 - silent * math.exp(-mean * x), wanted, 1.0)), dark

    def draw(self, link: QuantumLink, detections: int, rng: np.random.Generator) -> Exchange:
        """Return detections of a link that is blinded all the time: Eve's own records, seen by Bob or not.

        The mechanism: Eve's receiver is drawn as an honest one close to Alice; Bob chooses his basis anew,
        and each trigger meets his two detectors. Dead time of his receiver is left out; for other fractions
        detections are drawn from the table.
        """
        if self.fraction < 1 or self.acceptance() <= 0:
            return super().draw(link, detections, rng)
        efficiency, dark = self.eavesdropper(link)
        near = replace(
            link,
            channel=FibreChannel(0.0),
            receiver=Receiver(
                loss_db=0.0,
                detector_efficiency=efficiency,
                dark_count_probability=dark,
                misalignment_error=link.receiver.misalignment_error,
            ),
        )
        wanted = detections / self.acceptance()
        eve = exchange(near, math.ceil(wanted + 8 * math.sqrt(wanted) + 20), rng)
        return self.triggered(eve, link, detections, rng)

    def triggered(
        self, eve: Exchange, link: QuantumLink, detections: int, rng: np.random.Generator
    ) -> Exchange:
        """Return the first ``detections`` clicks that Eve's results make at Bob's blinded detectors."""
        count = len(eve.detections.slots)
        full, half = self.click_chances
        basis = (rng.random(count) >= link.receiver.z_basis_probability).astype(np.uint8)
        same = basis == eve.detections.bases
        chances = np.where(same[:, None], 0.0, half)
        rows = np.arange(count)
        chances[rows[same], eve.detections.bits[same]] = full[eve.detections.bits[same]]
        fires = rng.random((count, 2)) < chances
        both = fires[:, 0] & fires[:, 1]
        bits = np.where(both, rng.integers(0, 2, count), fires[:, 1]).astype(np.uint8)
        index = np.flatnonzero(fires[:, 0] | fires[:, 1])[:detections]
        pulses = int(eve.emissions.slots[index[-1]]) + 1 if len(index) else 0
        alice = eve.emissions
        return Exchange(
            EmissionRecord(
                alice.slots[index], alice.bases[index], alice.bits[index], alice.intensities[index], pulses
            ),
            DetectionRecord(
                alice.slots[index].copy(), basis[index], bits[index], int(np.count_nonzero(both[index]))
            ),
            duration_s=pulses / link.source.clock_rate_hz,
        )


@dataclass(frozen=True)
class TimeShift(Attack):
    """Eve shifts pulses to where one detector is more efficient than the other.

    She chooses early or late for each pulse; early, detector 1 has ``ratio`` times the efficiency of
    detector 0, late the other way round. Given her choice a bit is no longer even: ``h(1/(1+r))`` bits of
    secret are left of each. With equally many early and late pulses the bits together are even again, and
    only arrival times show her. She makes up for lost light by a better line.

    Parameters
    ----------
    ratio : float
        r = smaller over larger efficiency, 0 to 1 (no mismatch).
    fraction : float
        Of the time, 0 to 1.
    early_share : float
        Share of early pulses, 0 to 1.
    shift_sigma : float
        Late less early arrival, in standard deviations of the arrival time, 0 to 100.
    """

    ratio: float = 0.5
    fraction: float = 1.0
    early_share: float = 0.5
    shift_sigma: float = 1.0

    attack_id: ClassVar[str] = "time-shift"
    description: ClassVar[str] = "arrival times are shifted to where detector efficiencies differ"
    reference: ClassVar[str] = "B. Qi et al., QIC 7, 73 (2007); Y. Zhao et al., PRA 78, 042333 (2008)"
    countermeasure: ClassVar[str] = "h(1/(1+r)) in the proof; arrival times per bit, bit bias; four-state Bob"
    answered_by: ClassVar[tuple[str, ...]] = ("arrival shift", "bit bias", "gain", "double clicks")

    def __post_init__(self) -> None:
        check_range("ratio", self.ratio, 0.0, 1.0)
        check_range("fraction", self.fraction, 0.0, 1.0)
        check_range("early_share", self.early_share, 0.0, 1.0)
        check_range("shift_sigma", self.shift_sigma, 0.0, 100.0)

    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        if self.ratio == 1 and self.shift_sigma == 0:
            return statistics
        link = statistics.link
        base = detector_photons(link, link.relative_efficiency)
        scales = np.array([[1.0, self.ratio], [self.ratio, 1.0]])[:, None, None, None, None]
        share = np.array([self.early_share, 1 - self.early_share])[:, None, None, None, None, None, None]

        def views(brightness: float) -> Floats:
            shifted: Floats = table_of_means(base * scales * brightness, link) * share
            return shifted

        wanted, signal = float(statistics.gains[0]), link.source.probabilities[0]
        brightness = matching(
            lambda x: float(views(x)[:, 0].sum()) / signal, wanted, 1 / transmittance(link.channel.loss_db)
        )
        instruments = replace(statistics.instruments, arrival_shift=self.arrival_shift())
        attacked = LinkStatistics(link, views(brightness), instruments)
        return mixture(statistics, attacked, self.fraction)

    def arrival_shift(self) -> float:
        """Return the mean arrival of ones less that of zeros, in standard deviations."""
        early, late = self.early_share, 1 - self.early_share
        ones, zeros = late + early * self.ratio, early + late * self.ratio
        if ones <= 0 or zeros <= 0:
            return 0.0
        return self.shift_sigma * (late / ones - late * self.ratio / zeros)

    def believed_per_pulse(
        self, seen: LinkStatistics, honest: LinkStatistics, block: Block, defended: bool
    ) -> float:
        """Return the key; defended, less what the mismatch can tell of each sifted bit."""
        return key_under_mismatch(seen, block, self.ratio if defended else 1.0)


@dataclass(frozen=True)
class FakedStates(Attack):
    """Eve resends the opposite bit in the opposite basis, when the detector for it is nearly blind.

    She measures in a random basis; her pulse reaches Bob when the detector of her own bit has ``1/ratio``
    times the efficiency of the other, so that he sees either her bit or, mostly, nothing. The error rate is
    ``2r/(1+3r)``: 0 at r = 0, 11 % at 0.066, 25 % at 0.2. She knows all bits.

    Parameters
    ----------
    ratio : float
        r = smaller over larger efficiency, 0 to 1.
    fraction : float
        Of the time, 0 to 1.
    resent_photons : float
        Mean photons of her pulses at Bob's door, 0.01 to 100.
    """

    ratio: float = 0.002
    fraction: float = 1.0
    resent_photons: float = 1.0

    attack_id: ClassVar[str] = "faked-states"
    description: ClassVar[str] = "opposite bit in the opposite basis, when its detector is nearly blind"
    reference: ClassVar[str] = "V. Makarov, A. Anisimov, J. Skaar, Phys. Rev. A 74, 022313 (2006)"
    countermeasure: ClassVar[str] = "h(1/(1+r)) in the proof for the largest mismatch; four-state Bob"
    answered_by: ClassVar[tuple[str, ...]] = ("gain", "yield", "double clicks", "bit bias")

    def __post_init__(self) -> None:
        check_range("ratio", self.ratio, 0.0, 1.0)
        check_range("fraction", self.fraction, 0.0, 1.0)
        check_range("resent_photons", self.resent_photons, 0.01, 100.0)

    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        if self.fraction == 0:
            return statistics
        link = statistics.link
        check_active(link)
        efficiency = transmittance(link.receiver.loss_db) * link.receiver.detector_efficiency
        faked = self.faked_tables(link, self.resent_photons * efficiency)
        quiet = table_of_means(np.zeros((1, 2, 2, 2, 2)), link)
        mean = link.source.mean_photons()

        def views(tap: float) -> Floats:
            sent = -np.expm1(-tap * mean)[:, None, None, None, None, None]
            return np.concatenate([faked * sent, (quiet * (1 - sent))[None]])

        wanted, signal = float(statistics.gains[0]), link.source.probabilities[0]
        tap = matching(lambda x: float(views(x)[:, 0].sum()) / signal, wanted, 1.0)
        return mixture(statistics, replace(statistics, views=views(tap)), self.fraction)

    def faked_tables(self, link: QuantumLink, light: float) -> Floats:
        """Return class probabilities when each pulse is faked, per Eve's basis and bit, shape (4, K, ...)."""
        error = link.receiver.misalignment_error
        views = []
        for eve in (0, 1):
            for bit in (0, 1):
                efficiencies = np.where(np.arange(2) == bit, 1.0, self.ratio)
                means = np.empty((2, 2))  # Bob's basis, detector
                means[eve] = light / 2 * efficiencies
                means[1 - eve] = 0.0
                means[1 - eve, 1 - bit] = light * self.ratio
                table = table_of_means(np.broadcast_to(means[:, None, None, :], (1, 2, 2, 2, 2)), link)
                chance = np.full((2, 2), 0.5)  # P(Eve's bit | Alice's basis, Alice's bit)
                chance[eve] = np.where(np.arange(2) == bit, 1 - error, error)
                views.append(table * chance[:, None, :] / 2)
        return np.stack(views)

    def believed_per_pulse(
        self, seen: LinkStatistics, honest: LinkStatistics, block: Block, defended: bool
    ) -> float:
        """Return the key; defended, less what the mismatch can tell of each sifted bit."""
        return key_under_mismatch(seen, block, self.ratio if defended else 1.0)


@dataclass(frozen=True)
class Backflash(Attack):
    """A detector that clicks emits light, which goes back to Eve and tells which detector it was.

    Parameters
    ----------
    emission_probability : float
        Photons out of Bob's door per click, at most one told bit each, 0 to 1.
    isolation_db : float
        Of an isolator at Bob's door, 0 to 200.
    """

    emission_probability: float = 0.05
    isolation_db: float = 0.0

    attack_id: ClassVar[str] = "backflash"
    description: ClassVar[str] = "light that clicking detectors emit tells which one clicked"
    reference: ClassVar[str] = "C. Kurtsiefer et al., J. Mod. Opt. 48, 2039 (2001); arXiv:2006.04107"
    countermeasure: ClassVar[str] = "leak of p_b per bit subtracted; isolator or filter at Bob's door"

    def __post_init__(self) -> None:
        check_range("emission_probability", self.emission_probability, 0.0, 1.0)
        check_range("isolation_db", self.isolation_db, 0.0, 200.0)

    @property
    def leak(self) -> float:
        """Share of the bits that Eve learns, at most."""
        return self.emission_probability * transmittance(self.isolation_db)

    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        return with_known_share(statistics, self.leak)

    def believed_per_pulse(
        self, seen: LinkStatistics, honest: LinkStatistics, block: Block, defended: bool
    ) -> float:
        """Return the key; defended, less the leak."""
        kept = finite_key(seen, block)
        if not defended:
            return kept.length_bits / block.pulses
        return max(0.0, kept.unclipped_bits / block.pulses - self.leak * sifted_rates(seen)[0])


@dataclass(frozen=True)
class IndividualDeadTime(Attack):
    """Each detector is dead after its own click only: a click soon after another must be the other bit.

    Eve sees from the announced times which clicks these are; once she knows one bit of a run she knows all.
    Each detector is live with probability ``a = 1/(1 + q d)`` (q clicks per live gate, d dead gates), so a
    share ``1 - a`` of clicks comes while the other one is dead. The answer: such clicks are discarded, that
    is, the dead time is common. The link's own (common) dead time is replaced.

    Parameters
    ----------
    dead_time_s : float
        Of one detector after its own click, 0 to 1.
    """

    dead_time_s: float = 1e-6

    attack_id: ClassVar[str] = "individual-dead-time"
    description: ClassVar[str] = "clicks soon after another must come from the other detector"
    reference: ClassVar[str] = "H. Weier et al., New J. Phys. 13, 073024 (2011)"
    countermeasure: ClassVar[str] = "clicks while any detector is dead are discarded; bit autocorrelation"
    answered_by: ClassVar[tuple[str, ...]] = ("clicks while dead", "bit autocorrelation")

    def __post_init__(self) -> None:
        check_range("dead_time_s", self.dead_time_s, 0.0, 1.0)

    def dead_gates(self, link: QuantumLink) -> int:
        return math.ceil(self.dead_time_s * link.source.clock_rate_hz - 1e-6)

    def commissioned(self, link: QuantumLink) -> LinkStatistics:
        """Return the link with the same dead time, common to both detectors."""
        return honest_statistics(replace(link, receiver=replace(link.receiver, dead_time_s=self.dead_time_s)))

    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        link = statistics.link
        gates = self.dead_gates(link)
        if gates == 0:
            return statistics
        clicks_per_gate = float(statistics.views.sum()) / 2
        expected_dead = clicks_per_gate * gates
        live = 1 / (1 + expected_dead)
        views = [live * statistics.views, known((1 - live) * statistics.views)]
        same = (
            live * math.exp(-expected_dead)
            + (1 - live) * -math.expm1(-expected_dead) / max(expected_dead, 1e-300)
        ) / 2
        instruments = replace(
            statistics.instruments, dead_clicks=1 - live, autocorrelation_power=(2 * same - 1) ** 2
        )
        return LinkStatistics(link, np.concatenate(views), instruments, live=live)

    def processed(self, seen: LinkStatistics, defended: bool) -> LinkStatistics:
        """Return what Bob keeps; defended, no click that came while a detector was dead."""
        if not defended or seen.instruments.dead_clicks == 0:
            return seen
        instruments = replace(seen.instruments, dead_clicks=0.0, autocorrelation_power=0.0)
        live = seen.live_fraction
        clean = seen.views[: len(seen.views) // 3] / live
        return replace(seen, views=clean, instruments=instruments, live=live**2)

    def draw(self, link: QuantumLink, detections: int, rng: np.random.Generator) -> Exchange:
        """Return clicks of two detectors that run, and die, each by itself.

        The mechanism: two independent streams of clicks are drawn and merged; a gate in which both click
        counts once, with a random bit.
        """
        table = self.commissioned(link).table
        gates = self.dead_gates(link)
        per_bit = [table[..., bit, :] for bit in (0, 1)]
        number = detections // 2 + math.ceil(4 * math.sqrt(detections)) + 20
        slots = [draw_slots(float(part.sum()), gates, number, rng) for part in per_bit]
        last = min(int(each[-1]) for each in slots)
        kinds = [draw_kinds(np.where(bit_mask(bit), table, 0.0).ravel(), number, rng) for bit in (0, 1)]
        keep = [each <= last for each in slots]
        merged = np.concatenate([slots[bit][keep[bit]] for bit in (0, 1)])
        classes = np.concatenate([kinds[bit][keep[bit]] for bit in (0, 1)])
        order = rng.permutation(len(merged))
        merged, first = np.unique(merged[order], return_index=True)
        merged, classes = merged[:detections], classes[order][first][:detections]
        pulses = int(merged[-1]) + 1 if len(merged) else 0
        alice = emissions_of(merged, classes, pulses)
        bob = detections_of(merged, classes)
        return Exchange(alice, bob, duration_s=pulses / link.source.clock_rate_hz)


@dataclass(frozen=True)
class Afterpulsing(Attack):
    """Clicks are followed by spurious ones of the same detector.

    A spurious click repeats Bob's last bit and knows nothing of Alice's: it costs errors, which the proof
    sees, and makes neighbouring bits alike, ``rho_l = p^l``. On top of what the link has already.

    Parameters
    ----------
    probability : float
        That a click (spurious ones too) is followed by a spurious one, 0 to 0.5.
    """

    probability: float = 0.02

    attack_id: ClassVar[str] = "afterpulsing"
    description: ClassVar[str] = "spurious clicks repeat the last bit"
    reference: ClassVar[str] = "M. Lucamarini et al., Opt. Express 21, 24550 (2013), arXiv:1310.0240"
    countermeasure: ClassVar[str] = "the error rate in the proof; bit autocorrelation at lags 1 to 50"
    answered_by: ClassVar[tuple[str, ...]] = ("bit autocorrelation", "error rate", "yield", "gain")

    def __post_init__(self) -> None:
        check_range("probability", self.probability, 0.0, 0.5)

    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        p = self.probability
        if p == 0:
            return statistics
        spurious = float(statistics.views.sum()) * p / (1 - p)
        view = np.zeros(statistics.views.shape[1:])
        view[:, 0] = choice_probabilities(statistics.link)[..., None, None] * spurious / 4
        powers = sum(p ** (2 * lag) for lag in range(1, LAGS + 1))
        instruments = replace(statistics.instruments, autocorrelation_power=powers)
        return LinkStatistics(statistics.link, np.concatenate([statistics.views, view[None]]), instruments)

    def draw(self, link: QuantumLink, detections: int, rng: np.random.Generator) -> Exchange:
        """Return honest detections with spurious ones at the first live gate after their parents."""
        if detections == 0:
            return exchange(link, 0, rng)
        honest = exchange(link, detections, rng)
        alice, bob = honest.emissions, honest.detections
        spurious = rng.random(detections) < self.probability
        spurious[0] = False
        count = int(np.count_nonzero(spurious))
        gaps = np.diff(alice.slots, prepend=-1)
        gaps[spurious] = link.dead_slots + 1
        slots = np.cumsum(gaps) - 1
        parent = np.maximum.accumulate(np.where(spurious, 0, np.arange(detections)))
        choices = choice_probabilities(link)
        drawn = draw_kinds(np.repeat(choices.ravel() / 2, 2), count, rng)
        bases, bits, intensities = alice.bases.copy(), alice.bits.copy(), alice.intensities.copy()
        bob_bases = bob.bases.copy()
        bits[spurious], bases[spurious] = drawn & 1, bit_of(drawn, 1)
        bob_bases[spurious], intensities[spurious] = bit_of(drawn, 2), drawn >> np.uint8(3)
        pulses = int(slots[-1]) + 1
        doubles = round(bob.double_clicks * (1 - count / detections))
        return Exchange(
            EmissionRecord(slots, bases, bits, intensities, pulses),
            DetectionRecord(slots.copy(), bob_bases, bob.bits[parent], doubles),
            duration_s=pulses / link.source.clock_rate_hz,
        )


def mismatch_ceiling(ratio: float) -> float:
    """Return ``h(1/(1+r))``: secret bits that are left of a bit when Eve knows which detector was better.

    >>> round(mismatch_ceiling(0.5), 3)
    0.918
    """
    check_range("ratio", ratio, 0.0, 1.0)
    return binary_entropy(1 / (1 + ratio))


def faked_state_error(ratio: float) -> float:
    """Return ``2r/(1+3r)``, the error rate of faked states between detectors of efficiency ratio r.

    >>> [faked_state_error(r) for r in (0.0, 0.2, 1.0)]
    [0.0, 0.25, 0.5]
    """
    check_range("ratio", ratio, 0.0, 1.0)
    return 2 * ratio / (1 + 3 * ratio)


def key_under_mismatch(seen: LinkStatistics, block: Block, ratio: float) -> float:
    """Return the key less ``1 - h(1/(1+r))`` per sifted bit, for the largest mismatch of the device.

    What time shift takes at most; not a proof against every attack on a mismatch (C.-H. F. Fung et al., QIC
    9, 131 (2009), has one).
    """
    kept = finite_key(seen, block)
    lost = (1 - mismatch_ceiling(ratio)) * sifted_rates(seen)[0]
    if lost == 0:
        return kept.length_bits / block.pulses
    return max(0.0, kept.unclipped_bits / block.pulses - lost)


def measured_bits(link: QuantumLink, efficiency: float, dark: float) -> Floats:
    """Return P(Eve clicks and finds a bit | her basis, intensity, Alice's basis and bit).

    Shape (2, 2, K, 2, 2): her basis, her bit, intensity, Alice's basis, Alice's bit.
    """
    light = link.source.mean_photons() * efficiency
    found = np.empty((2, 2, len(light), 2, 2))
    for eve in (0, 1):
        for alice in (0, 1):
            seen = clicks(light, dark, link.receiver.misalignment_error if alice == eve else 0.5)
            for bit in (0, 1):
                found[eve, bit, :, alice, bit] = seen.right + seen.double / 2
                found[eve, bit, :, alice, 1 - bit] = seen.wrong + seen.double / 2
    return found


def bit_mask(bit: int) -> NDArray[np.bool_]:
    """Return which entries of the table have this bit at Bob's end; broadcasts with the table."""
    mask: NDArray[np.bool_] = (np.arange(2) == bit)[:, None]
    return mask
