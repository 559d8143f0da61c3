"""GG02 on a link: excess noise over distance into a CV proof, and drawn quadratures."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.links.protocols.case import ASYMPTOTIC, Arrays, LinkCase, Yield
from openqci.proofs.gaussian import (
    Detection,
    GaussianBlock,
    GaussianChannel,
    gaussian_proof,
)
from openqci.quantum.elements import Floats
from openqci.quantum.gg02 import (
    CoherentDetector,
    GaussianLink,
    GaussianLoss,
    GaussianSource,
    excess_noise_snu,
    gg02_exchange,
)

VARIANCES_SNU = np.geomspace(0.1, 200.0, 240)
"""Where the best modulation is looked for; between the best two neighbours it is looked for again."""

NOISE_SNU_MAX = 1e6
"""Above this, some 90 dB, a drawn quadrature holds nothing of the signal."""


@dataclass(frozen=True)
class GaussianModulation:
    """GG02 with one way of detection."""

    protocol_id: str
    detection: Detection
    proof_ids: tuple[str, ...]
    short_names: Mapping[str, str]

    def rate(self, case: LinkCase, proof_id: str) -> Yield:
        """Return the key of a block of symbols; a part of it is disclosed to estimate the channel."""
        refuse_what_is_for_photons(case)
        receiver, processing = case.coherent_receiver(), case.profile.processing
        clock_rate_hz = case.profile.clock_rate_hz
        variance = self.modulation_variance_snu(case, proof_id)
        symbols = self.symbols(case)
        block = self.block(case, variance, symbols)
        chosen = gaussian_proof(proof_id)
        found = chosen.secret_length(block, processing.epsilon_sec, processing.epsilon_cor)
        endless = ASYMPTOTIC in proof_id
        return Yield(
            proof_id=proof_id,
            reference=chosen.reference,
            gain=1.0,
            qber=None,
            sifted_rate_hz=clock_rate_hz * (1.0 if endless else 1 - receiver.estimation_fraction),
            pulse_rate_hz=clock_rate_hz,
            secret_key_rate_per_pulse=float(
                found.bits_per_symbol if endless else found.length_bits / symbols
            ),
            block_sifted_bits=None if endless else symbols,
            block_duration_s=None if endless else symbols / clock_rate_hz,
            secret_length_bits=None if endless else int(found.length_bits),
            zero_because=str(found.limited_by),
            observed={
                "signal_to_noise": float(block.channel.signal_to_noise()),
                "mutual_information_bits": float(found.mutual_information_bits),
                "holevo_bits": float(found.holevo_bits),
                "excess_noise_snu": float(np.asarray(block.channel.excess_noise_snu)),
            },
            settings={
                "modulation_variance_snu": float(variance),
                "detector_trust": case.detector_trust,
                "detector_efficiency": receiver.efficiency,
                "electronic_noise_snu": receiver.electronic_noise_snu,
                "reconciliation_efficiency": receiver.reconciliation_efficiency,
                "frame_error_rate": receiver.frame_error_rate,
                "estimation_fraction": receiver.estimation_fraction,
            },
        )

    def draw(self, case: LinkCase, detections: int, rng: np.random.Generator) -> Arrays:
        """Return both ends' quadratures, in square roots of shot-noise units."""
        refuse_what_is_for_photons(case)
        receiver = case.coherent_receiver()
        variance, noise_snu = (
            self.modulation_variance_snu(case, case.proof or self.proof_ids[0]),
            self.excess_noise_snu(case),
        )
        if noise_snu > NOISE_SNU_MAX:
            raise OutsideModel(
                "loss_db", case.loss_db, f"so much that noise at the input stays below {NOISE_SNU_MAX:g} SNU"
            )
        link = GaussianLink(
            GaussianSource(case.profile.clock_rate_hz, float(variance)),
            GaussianLoss(case.loss_db, noise_snu),
            CoherentDetector(receiver.efficiency, receiver.electronic_noise_snu, self.detection),
        )
        record = gg02_exchange(link, detections, rng)
        return {
            "alice_quadratures": record.alice,
            "bob_measured": record.measured,
            "bob_quadratures": record.bob,
        }

    def excess_noise_snu(self, case: LinkCase) -> float:
        """Return xi at the channel input for the loss of the case."""
        receiver = case.coherent_receiver()
        return float(
            excess_noise_snu(
                receiver.excess_noise_source_snu,
                receiver.excess_noise_receiver_snu,
                receiver.efficiency * case.transmittance,
            )
        )

    def block(self, case: LinkCase, variance_snu: float | Floats, symbols: float) -> GaussianBlock:
        """Return the expected block for one modulation variance or for many."""
        receiver = case.coherent_receiver()
        channel = GaussianChannel(
            variance_snu,
            case.transmittance,
            self.excess_noise_snu(case),
            receiver.efficiency,
            receiver.electronic_noise_snu,
            self.detection,
            case.detector_trust,  # type: ignore[arg-type]  # LinkCase knows the three
        )
        return GaussianBlock(
            channel,
            symbols,
            receiver.estimation_fraction,
            receiver.reconciliation_efficiency,
            receiver.frame_error_rate,
        )

    def modulation_variance_snu(self, case: LinkCase, proof_id: str) -> float:
        """Return the profile's V_A, or the one that gives the longest unclipped key."""
        if not case.optimise:
            return case.coherent_receiver().modulation_variance_snu
        chosen, processing = gaussian_proof(proof_id), case.profile.processing
        tried, symbols = VARIANCES_SNU, self.symbols(case)
        for _ in range(3):
            block = self.block(case, tried, symbols)
            found = chosen.secret_length(block, processing.epsilon_sec, processing.epsilon_cor)
            best = int(np.argmax(found.unclipped_bits))
            around = tried[max(best - 1, 0)], tried[best], tried[min(best + 1, len(tried) - 1)]
            tried = np.geomspace(around[0], around[2], len(tried))
        return float(around[1])

    def symbols(self, case: LinkCase) -> float:
        """Return how many symbols a block has."""
        if case.duration_s is None:
            return max(2.0, case.block_bits)
        return max(2.0, case.duration_s * case.profile.clock_rate_hz)


def refuse_what_is_for_photons(case: LinkCase) -> None:
    """Refuse options that mean nothing here, instead of ignoring them."""
    if case.encoding not in ("", "quadratures"):
        raise ConfigurationError(f"encoding {case.encoding!r}; expected none, because GG02 uses quadratures")
    if case.background_photons_hz:
        raise OutsideModel(
            "background_photons_hz",
            case.background_photons_hz,
            "none for GG02, which sees the mode of its oscillator alone, as part of its excess noise",
        )
    if case.drift_angle_rms_rad:
        raise OutsideModel(
            "drift_angle_rms_rad",
            case.drift_angle_rms_rad,
            "none for GG02, whose phase noise is part of its excess noise",
        )
