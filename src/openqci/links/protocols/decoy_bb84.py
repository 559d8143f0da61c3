"""Decoy-state BB84 on a link, with one decoy or two: its expected counts into a finite-key proof."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace as replaced

from openqci.core.detections import X_BASIS, Z_BASIS
from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.links.forecast import expected_counts
from openqci.links.optimise import KeyBlock, optimise_decoy
from openqci.links.profiles import DetectorFigures, Pulses
from openqci.links.protocols.case import Arrays, LinkCase, Setting, Yield
from openqci.links.protocols.search import highest
from openqci.proofs import proof
from openqci.proofs.bounds import binary_entropy
from openqci.quantum import DecoySource, FibreChannel, QuantumLink, Receiver, exchange, expected_statistics
from openqci.quantum.decoy_statistics import plant_of
from openqci.quantum.elements import transmittance
from openqci.quantum.encodings import ReceiverOptics, phase_optics, polarisation_optics, timebin_optics
from openqci.quantum.link import (
    ExpectedStatistics,
    basis_shares,
    detector_backgrounds,
    misalignment_errors,
)

BB84_ASYMPTOTIC = "bb84-asymptotic"

ENDLESS_SHARE = 1e-3
"""Of pulses and of bases that an endless block gives away to be estimated."""

SIGNAL_RANGE = (0.02, 2.0)

DARK_MAX = 0.1
"""Dark counts and background light of one gate, up to which the models hold."""

ENCODINGS = {
    "phase": phase_optics(basis_choice="active"),
    "time-bin": timebin_optics(basis_choice="active"),
    "polarisation": polarisation_optics(basis_choice="active"),
}
"""Generic optics, for a profile that is asked about another encoding than its own."""

DEFAULT_PULSES = {
    "bb84-decoy1": Pulses((0.35, 0.12), (0.35, 0.65), 0.8),
    "bb84-decoy2": Pulses((0.488, 0.202, 2e-4), (0.137, 0.57, 0.293), 0.74),
}
"""For hardware whose profile has settings for another protocol; best for blocks of 262,144 bits."""


@dataclass(frozen=True)
class DecoyBB84:
    """One member of the family; ``decoys`` is 1 or 2."""

    protocol_id: str
    decoys: int
    proof_ids: tuple[str, ...]
    short_names: Mapping[str, str]

    def rate(self, case: LinkCase, proof_id: str) -> Yield:
        """Return gain, QBER and key of one block under a finite-key or asymptotic proof."""
        link = self.quantum_link(case, self.pulses(case, proof_id))
        expected = expected_statistics(link)
        if proof_id == BB84_ASYMPTOTIC:
            return asymptotic_yield(case, link, expected)
        processing = case.profile.processing
        detections = block_detections(case, expected)
        duration_s = detections / expected.detection_rate_hz
        counts = expected_counts(link, expected, math.ceil(detections))
        sifted_bits = detections * float(expected.detection_fractions[Z_BASIS].sum())
        leak_bits = processing.error_correction_efficiency * sifted_bits * binary_entropy(expected.qber)
        chosen = proof(proof_id)
        kept = chosen.secret_length_bits(counts, leak_bits, processing.epsilon_sec, processing.epsilon_cor)
        return Yield(
            proof_id=proof_id,
            reference=chosen.reference,
            gain=float(expected.gains[0]),
            qber=expected.qber,
            sifted_rate_hz=expected.sifted_rate_hz,
            pulse_rate_hz=link.source.clock_rate_hz,
            secret_key_rate_per_pulse=kept.length_bits / (duration_s * link.source.clock_rate_hz),
            block_sifted_bits=sifted_bits,
            block_duration_s=duration_s,
            secret_length_bits=kept.length_bits,
            zero_because=kept.limited_by,
            observed=observed(expected, kept.phase_error),
            settings=settings(link),
        )

    def draw(self, case: LinkCase, detections: int, rng: np.random.Generator) -> Arrays:
        """Return both ends' records of ``detections`` clicks, in the numbering of ``core.detections``."""
        link = self.quantum_link(case, self.pulses(case, case.proof or self.proof_ids[0]))
        photons = exchange(link, detections, rng)
        return {
            "slot": photons.detections.slots,
            "alice_basis": photons.emissions.bases,
            "alice_bit": photons.emissions.bits,
            "alice_intensity": photons.emissions.intensities,
            "bob_basis": photons.detections.bases,
            "bob_bit": photons.detections.bits,
        }

    def pulses(self, case: LinkCase, proof_id: str) -> Pulses:
        """Return the settings of the source: optimised, the profile's own, or the default of the protocol."""
        shipped = case.profile.pulses
        if shipped is None or len(shipped.intensities) != self.decoys + 1:
            shipped = DEFAULT_PULSES[self.protocol_id]
        if not case.optimise:
            return shipped
        if proof_id != BB84_ASYMPTOTIC:
            return optimised_pulses(self.quantum_link(case, shipped), case, proof_id)

        def height(signal: float) -> float:
            link = self.quantum_link(case, endless_pulses(self.decoys, signal))
            return asymptotic_bits_per_pulse(case, link, expected_statistics(link))

        return endless_pulses(self.decoys, *highest(height, (SIGNAL_RANGE,)))

    def quantum_link(self, case: LinkCase, pulses: Pulses) -> QuantumLink:
        """Return source, channel and receiver of the case."""
        detector, optics = case.photon_receiver().detector, receiver_optics(case)
        basis = pulses.z_basis_probability
        return QuantumLink(
            DecoySource(case.profile.clock_rate_hz, pulses.intensities, pulses.probabilities, basis),
            FibreChannel(case.loss_db, case.background_photons_hz, case.drift_error()),
            Receiver(
                loss_db=optics.loss_db,
                detector_efficiency=detector.efficiency,
                dark_count_probability=detector.dark_count_probability,
                dead_time_s=detector.dead_time_s,
                afterpulse_probability=detector.afterpulse_probability,
                misalignment_error=optics.misalignment_error,
                z_basis_probability=basis,
                x_extra_loss_db=optics.x_extra_loss_db,
                x_misalignment_error=optics.x_misalignment_error,
                gate_width_s=min(detector.gate_width_s, 1 / case.profile.clock_rate_hz),
            ),
        )


def receiver_optics(case: LinkCase) -> ReceiverOptics:
    """Return the optics of the profile, or generic ones of the encoding that was asked for."""
    if case.encoding in ("", case.profile.encoding):
        own = case.photon_receiver()
        return ReceiverOptics(own.optics_loss_db, own.misalignment_error)
    if case.encoding not in ENCODINGS:
        raise ConfigurationError(f"encoding {case.encoding!r}; expected one of {', '.join(ENCODINGS)}")
    return ENCODINGS[case.encoding]


def even_optics(case: LinkCase) -> ReceiverOptics:
    """Return the optics for a model that knows one path for both bases: the worse of the two."""
    own = receiver_optics(case)
    in_x = own.misalignment_error if own.x_misalignment_error is None else own.x_misalignment_error
    return ReceiverOptics(own.loss_db + own.x_extra_loss_db, max(own.misalignment_error, in_x))


def detector_in_light(case: LinkCase, detectors: int) -> DetectorFigures:
    """Return the detector with the background light of the case, shared by so many, among its dark counts."""
    detector = case.photon_receiver().detector
    passed = transmittance(even_optics(case).loss_db) * detector.efficiency
    counts = case.background_photons_hz * detector.gate_width_s * passed / detectors
    dark = -math.expm1(math.log1p(-detector.dark_count_probability) - counts)
    if dark > DARK_MAX:
        raise OutsideModel(
            "background_photons_hz",
            case.background_photons_hz,
            f"so little that a gate counts it with a probability below {DARK_MAX:g}",
        )
    return replaced(detector, dark_count_probability=dark) if counts else detector


def optimised_pulses(link: QuantumLink, case: LinkCase, proof_id: str) -> Pulses:
    """Return the settings of the source that give a block of this link the most key."""
    processing, pulses = case.profile.processing, None
    if case.duration_s is not None:
        pulses = max(1.0, case.duration_s * case.profile.clock_rate_hz)
    block = KeyBlock(
        pulses,
        None if pulses else case.block_bits,
        processing.error_correction_efficiency,
        processing.epsilon_sec,
        processing.epsilon_cor,
    )
    best = optimise_decoy(plant_of(link), block, proof_id)
    return Pulses(
        tuple(best.intensities[0].tolist()),
        tuple(best.probabilities[0].tolist()),
        float(best.z_basis_probability[0]),
    )


def endless_pulses(decoys: int, signal: float) -> Pulses:
    """Return settings for an endless block, of which hardly anything is spent on decoys and test bits."""
    fainter = (signal / 4, signal / 1000)[:decoys]
    rest = (ENDLESS_SHARE / decoys,) * decoys
    return Pulses((signal, *fainter), (1 - ENDLESS_SHARE, *rest), 1 - ENDLESS_SHARE)


def block_detections(case: LinkCase, expected: ExpectedStatistics) -> float:
    """Return the mean number of detections of one block: of so many bits, or of so much time."""
    if case.duration_s is not None:
        return case.duration_s * expected.detection_rate_hz
    return case.block_bits / float(expected.detection_fractions[Z_BASIS].sum())


def asymptotic_yield(case: LinkCase, link: QuantumLink, expected: ExpectedStatistics) -> Yield:
    """Return the rate of an endless block in which single photons are known exactly.

    The limit of the finite-key lengths with the same settings: ``p_Z^2 [s_0 + s_1 (1 - h(e_1)) - f Q h(E)]``
    over all intensities, after dead time.
    """
    bits = asymptotic_bits_per_pulse(case, link, expected)
    return Yield(
        proof_id=BB84_ASYMPTOTIC,
        reference="D. Gottesman et al., QIC 4, 325 (2004); H.-K. Lo et al., PRL 94, 230504 (2005)",
        gain=float(expected.gains[0]),
        qber=expected.qber,
        sifted_rate_hz=expected.sifted_rate_hz,
        pulse_rate_hz=link.source.clock_rate_hz,
        secret_key_rate_per_pulse=max(0.0, bits),
        zero_because="" if bits > 0 else "error correction takes more than single photons give",
        observed=observed(expected, single_photon_yield(link)[1]),
        settings=settings(link),
    )


def asymptotic_bits_per_pulse(case: LinkCase, link: QuantumLink, expected: ExpectedStatistics) -> float:
    """Return the rate per pulse of an endless block, not cut off at zero."""
    intensities, probabilities = np.array(link.source.intensities), np.array(link.source.probabilities)
    vacuum, (single, single_error) = vacuum_yield(link), single_photon_yield(link)
    weights = probabilities * np.exp(-intensities)
    both_z = link.source.z_basis_probability * link.receiver.z_basis_probability
    gain = expected.click_probability * float(expected.detection_fractions[Z_BASIS].sum()) / both_z
    kept = (
        float(weights.sum()) * vacuum
        + float(weights @ intensities) * single * (1 - binary_entropy(single_error))
        - case.profile.processing.error_correction_efficiency * gain * binary_entropy(expected.qber)
    )
    live = expected.detection_rate_hz / (expected.click_probability * link.source.clock_rate_hz)
    return both_z * (kept * live if kept > 0 else kept)


def vacuum_yield(link: QuantumLink) -> float:
    """Return Y0, the chance that an empty pulse is seen."""
    return link.background * (2 - link.background)  # not 1 - (1 - p)^2, which is 0 for p below 1e-16


def single_photon_yield(link: QuantumLink) -> tuple[float, float]:
    """Return Y1 and e1: the chance that one photon is seen in the key basis, its error in the test basis.

    The test basis stands for the phase of the key basis: its optics and the drift of the channel count, and
    double clicks have a random bit.
    """
    arrives = float(link.detectable_photons[0] / link.source.intensities[0])
    seen = vacuum_yield(link) * (1 - arrives) + arrives
    in_x = arrives * float(basis_shares(link.receiver)[X_BASIS])
    background = float(detector_backgrounds(link, link.relative_efficiency)[X_BASIS].mean())
    wrong = misalignment_errors(link)[X_BASIS]
    seen_in_x = background * (2 - background) * (1 - in_x) + in_x
    errors = (
        in_x * (1 - wrong) * background / 2
        + in_x * wrong * (1 - background / 2)
        + (1 - in_x) * (background - background**2 / 2)
    )
    return seen, errors / seen_in_x if seen_in_x > 0 else 0.5


def observed(expected: ExpectedStatistics, phase_error: float) -> dict[str, float]:
    return {
        "detection_rate_hz": expected.detection_rate_hz,
        "double_click_fraction": expected.double_click_fraction,
        "phase_error_bound": phase_error,
    }


def settings(link: QuantumLink) -> dict[str, Setting]:
    return {
        "intensities": link.source.intensities,
        "probabilities": link.source.probabilities,
        "z_basis_probability": link.source.z_basis_probability,
        "misalignment_error": link.receiver.misalignment_error,
        "detector_efficiency": link.receiver.detector_efficiency,
        "receiver_loss_db": link.receiver.loss_db,
    }
