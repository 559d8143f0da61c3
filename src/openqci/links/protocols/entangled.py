"""BBM92 on a link: an entangled source in the middle of the way, a receiver of the profile at each end."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from openqci.core.errors import OutsideModel
from openqci.links.protocols.case import ASYMPTOTIC, Arrays, LinkCase, Setting, Yield
from openqci.links.protocols.decoy_bb84 import detector_in_light, even_optics
from openqci.links.protocols.search import highest
from openqci.proofs.bounds import binary_entropy
from openqci.proofs.entanglement import Bbm92Asymptotic, Bbm92Finite, PairCounts, PairKey
from openqci.quantum.bbm92 import (
    PairLink,
    PairReceiver,
    PulsedPairSource,
    bbm92_statistics,
    pair_exchange,
)
from openqci.quantum.bbm92_cw import (
    TimedPairLink,
    TimedReceiver,
    TimedStatistics,
    best_brightness_and_window,
    cw_statistics,
    timed_exchange,
)

PROOFS = {each.proof_id: each for each in (Bbm92Finite(), Bbm92Asymptotic())}

Z_BASIS_PROBABILITY = 0.9
MEAN_PAIRS, MEAN_PAIRS_RANGE = 0.05, (1e-4, 2.0)
BRIGHTNESS_HZ = 1e7
WINDOW_OVER_JITTER = 1.5
JITTER_FWHM_S_MIN = 1e-12

CLICKS_MAX = 3e7
"""Time tags of one drawing; they take some 2 GB and half a minute."""

PULSED_DETECTORS = 2

PASSIVE_DETECTORS = 4
"""A receiver that chooses its basis by a splitter has four detectors open at a time."""


@dataclass(frozen=True)
class Coincidences:
    """What both kinds of source have in common: coincidences per second and their error rate."""

    rate_hz: float
    qber: float
    per_emission: float
    emission_rate_hz: float
    observed: dict[str, float]
    settings: dict[str, Setting]


def block_key(case: LinkCase, proof_id: str, seen: Coincidences) -> tuple[float, PairKey]:
    """Return the key-basis bits of one block of coincidences, and its key."""
    processing = case.profile.processing
    key_share, test_share = Z_BASIS_PROBABILITY**2, (1 - Z_BASIS_PROBABILITY) ** 2
    key_bits = case.block_bits if case.duration_s is None else case.duration_s * seen.rate_hz * key_share
    test_bits = key_bits * test_share / key_share
    counts = PairCounts(key_bits, key_bits * seen.qber, test_bits, test_bits * seen.qber)
    leak_bits = processing.error_correction_efficiency * key_bits * binary_entropy(seen.qber)
    found = PROOFS[proof_id].secret_length(counts, leak_bits, processing.epsilon_sec, processing.epsilon_cor)
    return key_bits, found


def pair_yield(case: LinkCase, proof_id: str, seen: Coincidences) -> Yield:
    """Return the key of one block of coincidences."""
    key_bits, found = block_key(case, proof_id, seen)
    sifted_rate_hz = seen.rate_hz * Z_BASIS_PROBABILITY**2
    endless = ASYMPTOTIC in proof_id
    share = max(0.0, float(found.unclipped_bits if endless else found.length_bits)) / max(key_bits, 1e-300)
    duration_s = key_bits / sifted_rate_hz if sifted_rate_hz > 0 else math.inf
    return Yield(
        proof_id=proof_id,
        reference=PROOFS[proof_id].reference,
        gain=seen.per_emission,
        qber=seen.qber,
        sifted_rate_hz=sifted_rate_hz,
        pulse_rate_hz=seen.emission_rate_hz,
        secret_key_rate_per_pulse=share * sifted_rate_hz / seen.emission_rate_hz,
        block_sifted_bits=None if endless else key_bits,
        block_duration_s=None if endless else duration_s,
        secret_length_bits=None if endless else int(found.length_bits),
        zero_because=str(found.limited_by),
        observed={"phase_error_bound": float(found.phase_error), **seen.observed},
        settings={"z_basis_probability": Z_BASIS_PROBABILITY, **seen.settings},
    )


@dataclass(frozen=True)
class PulsedPairs:
    """BBM92 with a pulsed pump at the clock rate of the profile."""

    proof_ids: tuple[str, ...]
    short_names: Mapping[str, str]
    protocol_id: str = "bbm92"

    def rate(self, case: LinkCase, proof_id: str) -> Yield:
        """Return the key of a block; a pulse counts as one emission."""
        return pair_yield(case, proof_id, self.coincidences(case, self.link(case, proof_id)))

    def coincidences(self, case: LinkCase, link: PairLink) -> Coincidences:
        """Return what is seen, with the dead time of both ends."""
        found = bbm92_statistics(link)
        dead_slots = case.photon_receiver().detector.dead_time_s * link.source.clock_rate_hz
        live = live_fraction(link.alice, link.source.mean_pairs, dead_slots)
        live *= live_fraction(link.bob, link.source.mean_pairs, dead_slots)
        return Coincidences(
            rate_hz=found.coincidence_rate_hz * live,
            qber=found.qber,
            per_emission=found.gain,
            emission_rate_hz=link.source.clock_rate_hz,
            observed={"coincidence_rate_hz": found.coincidence_rate_hz * live},
            settings={"mean_pairs": link.source.mean_pairs, "misalignment_error": link.misalignment_error},
        )

    def draw(self, case: LinkCase, detections: int, rng: np.random.Generator) -> Arrays:
        """Return both ends' record of coincidences; dead time is not drawn."""
        record = pair_exchange(self.link(case, case.proof or self.proof_ids[0]), detections, rng)
        return {
            "slot": record.slots,
            "alice_basis": record.alice_bases,
            "alice_bit": record.alice_bits,
            "bob_basis": record.bob_bases,
            "bob_bit": record.bob_bits,
        }

    def link(self, case: LinkCase, proof_id: str) -> PairLink:
        """Return source and ends; with the number of pairs that is best for a proof if that is asked for."""
        optics, detector = even_optics(case), detector_in_light(case, PULSED_DETECTORS)
        end = PairReceiver(
            case.loss_db / 2 + optics.loss_db, detector.efficiency, detector.dark_count_probability
        )
        source = PulsedPairSource(case.profile.clock_rate_hz, MEAN_PAIRS)
        link = PairLink(source, end, end, both_misaligned(case))
        if not case.optimise:
            return link

        def with_pairs(mean_pairs: float) -> PairLink:
            return replace(link, source=replace(source, mean_pairs=mean_pairs))

        def height(mean_pairs: float) -> float:
            return key_per_second(case, proof_id, self.coincidences(case, with_pairs(mean_pairs)))

        return with_pairs(*highest(height, (MEAN_PAIRS_RANGE,)))


@dataclass(frozen=True)
class ContinuousPairs:
    """BBM92 with a continuous pump; an emitted pair counts as one emission."""

    proof_ids: tuple[str, ...]
    short_names: Mapping[str, str]
    protocol_id: str = "bbm92-cw"

    def rate(self, case: LinkCase, proof_id: str) -> Yield:
        """Return the key of a block."""
        return pair_yield(case, proof_id, self.coincidences(self.link(case, proof_id)))

    def coincidences(self, link: TimedPairLink) -> Coincidences:
        """Return what is seen, with the dead time of both ends."""
        found = cw_statistics(link)
        return Coincidences(
            rate_hz=found.coincidence_rate_hz,
            qber=found.qber,
            per_emission=found.coincidence_rate_hz / link.brightness_hz,
            emission_rate_hz=link.brightness_hz,
            observed={
                "coincidence_rate_hz": found.coincidence_rate_hz,
                "accidental_rate_hz": found.accidental_rate_hz,
                "singles_hz": found.singles_a_hz,
            },
            settings={
                "brightness_hz": link.brightness_hz,
                "window_s": link.window_s,
                "timing_fwhm_s": link.timing_fwhm_s,
                "polarisation_error": link.polarisation_error,
            },
        )

    def draw(self, case: LinkCase, detections: int, rng: np.random.Generator) -> Arrays:
        """Return both ends' time tags of coincidences, with basis and bit."""
        link = self.link(case, case.proof or self.proof_ids[0])
        refuse_too_many_clicks(cw_statistics(link), detections)
        record = timed_exchange(link, detections, rng)
        return {
            "alice_time_s": record.alice_times_s,
            "alice_basis": record.alice_bases,
            "alice_bit": record.alice_bits,
            "bob_time_s": record.bob_times_s,
            "bob_basis": record.bob_bases,
            "bob_bit": record.bob_bits,
        }

    def link(self, case: LinkCase, proof_id: str) -> TimedPairLink:
        """Return source and ends; with the brightness and window best for a proof if that is asked for."""
        optics, detector = even_optics(case), detector_in_light(case, PASSIVE_DETECTORS)
        jitter_s = max(detector.jitter_fwhm_s, JITTER_FWHM_S_MIN) * math.sqrt(2)
        end = TimedReceiver(
            case.loss_db / 2 + optics.loss_db,
            detector.efficiency,
            PASSIVE_DETECTORS * detector.dark_count_rate_hz,
            detector.dead_time_s,
        )
        link = TimedPairLink(
            BRIGHTNESS_HZ, end, end, WINDOW_OVER_JITTER * jitter_s, jitter_s, both_misaligned(case)
        )
        if not case.optimise:
            return link
        endless = best_brightness_and_window(link, case.profile.processing.error_correction_efficiency)
        if ASYMPTOTIC in proof_id:
            return endless

        def with_settings(brightness_hz: float, window_s: float) -> TimedPairLink:
            return replace(link, brightness_hz=brightness_hz, window_s=window_s)

        def height(tried: TimedPairLink) -> float:
            return key_per_second(case, proof_id, self.coincidences(tried))

        # A small block wants fewer errors than an endless one, so less light than gives the most there.
        dimmer = (endless.brightness_hz / 1e3, endless.brightness_hz), (jitter_s / 4, jitter_s * 4)
        found = highest(lambda *settings: height(with_settings(*settings)), dimmer)
        return max(link, endless, with_settings(*found), key=height)


def refuse_too_many_clicks(found: TimedStatistics, detections: int) -> None:
    """Refuse a drawing that memory cannot hold: time tags cost per click, and far away few are coincidences.

    At 60 dB with the detectors of ``dv-metro`` a coincidence takes half a million clicks.
    """
    clicks = (found.singles_a_hz + found.singles_b_hz) / max(found.coincidence_rate_hz, 1e-300)
    if not detections * clicks <= CLICKS_MAX:
        raise OutsideModel(
            "detections",
            detections,
            f"at most {math.floor(CLICKS_MAX / clicks)} on this link, where a coincidence takes "
            f"{clicks:.3g} clicks of both ends, and a drawing {CLICKS_MAX:g} at most",
        )


def both_misaligned(case: LinkCase) -> float:
    """Return how often two misaligned receivers and a drifting fibre give unequal bits of a perfect pair."""
    one, drift = even_optics(case).misalignment_error, case.drift_error()
    both = 2 * one * (1 - one)
    return both + drift - 2 * both * drift


def live_fraction(end: PairReceiver, mean_pairs: float, dead_slots: float) -> float:
    """Return how often an end is live: ``1/(1 + p d)`` with p its clicks per pulse, d the gates lost."""
    per_mode = mean_pairs / 2
    clicks = 1 - (1 - end.background) / (1 + end.efficiency * per_mode) ** 2
    return 1 / (1 + clicks * dead_slots)


def key_per_second(case: LinkCase, proof_id: str, seen: Coincidences) -> float:
    """Return what an optimiser climbs: key per second, and where there is none the lack of it per bit."""
    key_bits, found = block_key(case, proof_id, seen)
    tags = 0 if ASYMPTOTIC in proof_id else case.profile.processing.authentication_bits
    share = (float(found.unclipped_bits) - tags) / max(key_bits, 1e-300)
    return share * seen.rate_hz if share > 0 else share
