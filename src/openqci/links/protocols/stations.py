"""MDI and twin field on a link: detectors of the profile at a station half way, sources at both ends."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from openqci.links.protocols.case import Arrays, LinkCase, Yield
from openqci.links.protocols.decoy_bb84 import detector_in_light, even_optics
from openqci.links.protocols.search import highest
from openqci.proofs import mdi, twin_field
from openqci.quantum.elements import transmittance
from openqci.quantum.mdi import BellStation, MdiArm, MdiLink, mdi_exchange, mdi_statistics
from openqci.quantum.twin_field import (
    PhaseStation,
    TwinArm,
    TwinFieldLink,
    twin_field_exchange,
    twin_field_statistics,
)

INTENSITY, INTENSITY_RANGE = 0.4, (0.02, 1.5)
SENDING_PROBABILITY, SENDING_RANGE = 0.05, (0.003, 0.4)
X_INTENSITY = 0.02
Z_WINDOW_PROBABILITY = 0.9

PHASE_SD_RAD = 0.2
"""What phase tracking leaves between two corrections: an assumption."""

BELL_DETECTORS, PHASE_DETECTORS = 4, 2
"""Of the station, which share the background light."""

NO_KEY = "error correction takes more than single photons give"


@dataclass(frozen=True)
class BellResults:
    """MDI: both ends send weak pulses, the station announces Bell results."""

    proof_ids: tuple[str, ...]
    short_names: Mapping[str, str]
    protocol_id: str = "mdi"

    def rate(self, case: LinkCase, proof_id: str) -> Yield:
        """Return the asymptotic rate per pair of pulses in the key basis."""
        link = self.link(case)
        found = mdi_statistics(link)
        bits = self.bits_per_pulse(case, link)
        live = self.live_fraction(case, link)
        return Yield(
            proof_id=proof_id,
            reference=mdi.REFERENCE,
            gain=found.z_gain,
            qber=found.z_qber,
            sifted_rate_hz=link.clock_rate_hz * found.z_gain * live,
            pulse_rate_hz=link.clock_rate_hz,
            secret_key_rate_per_pulse=max(0.0, bits * live),
            zero_because="" if bits > 0 else NO_KEY,
            observed={
                "x_qber": found.x_qber,
                "single_photon_yield": found.single_yield,
                "single_photon_x_error": found.single_x_error,
            },
            settings={"intensity": link.alice.intensity},
        )

    def draw(self, case: LinkCase, detections: int, rng: np.random.Generator) -> Arrays:
        """Return announced Bell results in equal bases, with what both ends had sent."""
        record = mdi_exchange(self.link(case), detections, rng)
        return {
            "slot": record.slots,
            "basis": record.bases,
            "alice_bit": record.alice_bits,
            "bob_bit": record.bob_bits,
            "bell_result": record.results,
        }

    def link(self, case: LinkCase) -> MdiLink:
        """Return the ends and the station; with the best intensity if that is asked for."""
        optics, detector = even_optics(case), detector_in_light(case, BELL_DETECTORS)
        drift, wrong = case.drift_error(), optics.misalignment_error
        station = BellStation(
            detector.efficiency * transmittance(optics.loss_db),
            detector.dark_count_probability,
            wrong + drift - 2 * wrong * drift,
        )

        def with_intensity(intensity: float) -> MdiLink:
            arm = MdiArm(intensity, case.loss_db / 2)
            return MdiLink(arm, arm, station, case.profile.clock_rate_hz)

        if not case.optimise:
            return with_intensity(INTENSITY)

        def height(intensity: float) -> float:
            tried = with_intensity(intensity)
            return while_live(self.bits_per_pulse(case, tried), self.live_fraction(case, tried))

        return with_intensity(*highest(height, (INTENSITY_RANGE,)))

    def bits_per_pulse(self, case: LinkCase, link: MdiLink) -> float:
        a, b = link.alice.intensity, link.bob.intensity
        found = mdi_statistics(link)
        return mdi.mdi_bits_per_pulse(
            a * b * math.exp(-a - b) * found.single_yield,
            found.single_x_error,
            found.z_gain,
            found.z_qber,
            case.profile.processing.error_correction_efficiency,
        )

    def live_fraction(self, case: LinkCase, link: MdiLink) -> float:
        """Return how often the station is live, its four detectors sharing their dead time."""
        silent = (1 - link.station.dark_count_probability) ** 4 * math.exp(-sum(link.counted_photons))
        dead_slots = case.photon_receiver().detector.dead_time_s * link.clock_rate_hz
        return 1 / (1 + (1 - silent) * dead_slots)


@dataclass(frozen=True)
class TwinField:
    """Twin field, sending or not sending: single photons interfere at the station."""

    proof_ids: tuple[str, ...]
    short_names: Mapping[str, str]
    protocol_id: str = "sns-tf"

    def rate(self, case: LinkCase, proof_id: str) -> Yield:
        """Return the asymptotic rate per window of any kind."""
        link = self.link(case)
        found = twin_field_statistics(link)
        bits = self.bits_per_window(case, link)
        live = self.live_fraction(case, link)
        return Yield(
            proof_id=proof_id,
            reference=twin_field.REFERENCE,
            gain=found.z_gain,
            qber=found.z_qber,
            sifted_rate_hz=link.clock_rate_hz * Z_WINDOW_PROBABILITY * found.z_gain * live,
            pulse_rate_hz=link.clock_rate_hz,
            secret_key_rate_per_pulse=max(0.0, Z_WINDOW_PROBABILITY * bits * live),
            zero_because="" if bits > 0 else NO_KEY,
            observed={
                "x_qber": found.x_qber,
                "single_photon_yield": found.single_yield,
                "single_photon_phase_error": found.single_phase_error,
            },
            settings={
                "sending_probability": link.sending_probability,
                "intensity": link.intensity,
                "x_intensity": link.x_intensity,
                "z_window_probability": link.z_window_probability,
                "phase_sd_rad": link.station.phase_sd_rad,
            },
        )

    def draw(self, case: LinkCase, detections: int, rng: np.random.Generator) -> Arrays:
        """Return windows with one click, with what both ends had sent."""
        record = twin_field_exchange(self.link(case), detections, rng)
        return {
            "slot": record.slots,
            "window": record.windows,
            "alice_bit": record.alice_bits,
            "bob_bit": record.bob_bits,
            "detector": record.detectors,
        }

    def link(self, case: LinkCase) -> TwinFieldLink:
        """Return the arms and the station; with the best settings if these are asked for."""
        optics, detector = even_optics(case), detector_in_light(case, PHASE_DETECTORS)
        drift = case.drift_angle_rms_rad
        if drift is None:
            drift = case.profile.operation.drift.angle_rms_rad if case.profile.operation.drift else 0.0
        station = PhaseStation(
            detector.efficiency * transmittance(optics.loss_db),
            detector.dark_count_probability,
            visibility=1 - 2 * optics.misalignment_error,
            phase_sd_rad=math.hypot(PHASE_SD_RAD, drift),
        )
        arm = TwinArm(case.loss_db / 2)
        link = TwinFieldLink(
            arm,
            arm,
            station,
            case.profile.clock_rate_hz,
            SENDING_PROBABILITY,
            INTENSITY,
            X_INTENSITY,
            Z_WINDOW_PROBABILITY,
        )
        if not case.optimise:
            return link

        def with_settings(sending_probability: float, intensity: float) -> TwinFieldLink:
            return replace(link, sending_probability=sending_probability, intensity=intensity)

        def height(sending_probability: float, intensity: float) -> float:
            tried = with_settings(sending_probability, intensity)
            return while_live(self.bits_per_window(case, tried), self.live_fraction(case, tried))

        return with_settings(*highest(height, (SENDING_RANGE, INTENSITY_RANGE)))

    def bits_per_window(self, case: LinkCase, link: TwinFieldLink) -> float:
        sends, intensity = link.sending_probability, link.intensity
        found = twin_field_statistics(link)
        return twin_field.sns_bits_per_window(
            2 * sends * (1 - sends) * intensity * math.exp(-intensity) * found.single_yield,
            found.single_phase_error,
            found.z_gain,
            found.z_qber,
            case.profile.processing.error_correction_efficiency,
        )

    def live_fraction(self, case: LinkCase, link: TwinFieldLink) -> float:
        """Return how often the station is live; clicks of both kinds of window count."""
        found = twin_field_statistics(link)
        clicks = Z_WINDOW_PROBABILITY * found.z_gain + (1 - Z_WINDOW_PROBABILITY) * found.x_gain
        dead_slots = case.photon_receiver().detector.dead_time_s * link.clock_rate_hz
        return 1 / (1 + clicks * dead_slots)


def while_live(bits: float, live_fraction: float) -> float:
    """Return what an optimiser climbs; dead time must not make less of a rate below zero."""
    return bits * live_fraction if bits > 0 else bits
