"""The question and the answer that all protocols share: a link to be judged, and what it yields."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.links.profiles import CoherentReceiver, PhotonReceiver, Profile
from openqci.proofs.asymptotic import plob_bound

LOSS_DB_MAX = 200.0

BACKGROUND_PHOTONS_HZ_MAX = 1e9
"""A photon in every gate of a module at 1 GHz: nothing can be told from that."""

DETECTOR_TRUST = ("trusted", "calibrated", "untrusted")

ASYMPTOTIC = "asymptotic"
"""Proofs with this word in their id hold for a block without end: they compare curves and give no key."""

MEASURED = "measured"
"""Stands in place of a proof's id where a rate was measured and not proven by us."""

Setting = float | str | tuple[float, ...]

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class LinkCase:
    """A link to be judged: modules of a profile at both ends of a path.

    Parameters
    ----------
    profile : Profile
    loss_db : float
        All loss between the two ends, 0 to 200 dB; for protocols with a station in the middle, of both arms.
    length_km : float or None
        For the record alone.
    protocol, proof : str
        Ids; empty for those of the profile (or the first that fits).
    block_sifted_bits : float or None
        Key-basis bits (CV: symbols) to which the proof is applied once; None for the profile's.
    duration_s : float or None
        Instead of a block size: everything that comes in this time is one block.
    optimise : bool
        Choose intensities, probabilities and basis bias for this very link.
    encoding : str
        ``phase``, ``time-bin`` or ``polarisation``; empty for the profile's.
    drift_angle_rms_rad : float or None
        Overrides the drift of the profile.
    background_photons_hz : float
        Light of other origin inside the filter, before the optics of each receiver (or of the station), as
        :func:`openqci.quantum.coexistence_noise` or a sky gives it. Where a model has dark counts alone, the
        counts of this light are added to these.
    detector_trust : str
        For CV: ``trusted``, ``calibrated`` or ``untrusted``.

    Raises
    ------
    OutsideModel
        Names the field and its range.
    ConfigurationError
        Two fields that contradict each other, or an unknown word.
    """

    profile: Profile
    loss_db: float
    length_km: float | None = None
    protocol: str = ""
    proof: str = ""
    block_sifted_bits: float | None = None
    duration_s: float | None = None
    optimise: bool = False
    encoding: str = ""
    drift_angle_rms_rad: float | None = None
    background_photons_hz: float = 0.0
    detector_trust: str = "trusted"

    def __post_init__(self) -> None:
        _check("loss_db", self.loss_db, 0.0, LOSS_DB_MAX)
        if self.length_km is not None:
            _check("length_km", self.length_km, 0.0, 50_000.0)
        if self.block_sifted_bits is not None:
            _check("block_sifted_bits", self.block_sifted_bits, 1.0, 1e18)
        if self.duration_s is not None:
            _check("duration_s", self.duration_s, 1e-6, 1e10)
        if self.drift_angle_rms_rad is not None:
            _check("drift_angle_rms_rad", self.drift_angle_rms_rad, 0.0, 1.0)
        _check("background_photons_hz", self.background_photons_hz, 0.0, BACKGROUND_PHOTONS_HZ_MAX)
        if self.block_sifted_bits is not None and self.duration_s is not None:
            raise ConfigurationError("give block_sifted_bits or duration_s, not both: each decides the block")
        if self.detector_trust not in DETECTOR_TRUST:
            raise ConfigurationError(
                f"detector_trust {self.detector_trust!r}; expected one of {', '.join(DETECTOR_TRUST)}"
            )

    @property
    def protocol_id(self) -> str:
        """The protocol asked for, or that of the profile."""
        return self.protocol or self.profile.protocol

    @property
    def block_bits(self) -> float:
        """Key-basis bits of a block, where no duration was given."""
        return self.block_sifted_bits or float(self.profile.processing.block_sifted_bits)

    @property
    def transmittance(self) -> float:
        """Fraction of the photons that pass the path."""
        return float(10 ** (-self.loss_db / 10))

    def photon_receiver(self) -> PhotonReceiver:
        """Return the receiver that counts photons; ConfigurationError if the profile has none."""
        found = self.profile.photon_receiver
        if found is None:
            raise ConfigurationError(
                f"protocol {self.protocol_id} counts photons and profile {self.profile.profile_id} does not; "
                "expected a profile with a photon_receiver, such as dv-metro"
            )
        return found

    def coherent_receiver(self) -> CoherentReceiver:
        """Return the receiver that measures quadratures; ConfigurationError if the profile has none."""
        found = self.profile.coherent_receiver
        if found is None:
            raise ConfigurationError(
                f"protocol {self.protocol_id} measures quadratures and profile {self.profile.profile_id} "
                "does not; expected a profile with a coherent_receiver, such as cv-metro"
            )
        return found

    @property
    def asked(self) -> dict[str, bool]:
        """Which of the fields that not every protocol and proof has a use for were set, by name."""
        return {
            "block_sifted_bits": self.block_sifted_bits is not None,
            "duration_s": self.duration_s is not None,
            "optimise": self.optimise,
            "encoding": bool(self.encoding),
            "drift_angle_rms_rad": self.drift_angle_rms_rad is not None,
            "background_photons_hz": self.background_photons_hz > 0,
            "detector_trust": self.detector_trust != "trusted",
        }

    def drift_error(self) -> float:
        """Return the mean error that drift adds: ``(1 - exp(-2 s^2))/2`` for an angle of rms ``s``."""
        if self.drift_angle_rms_rad is not None:
            return -math.expm1(-2 * self.drift_angle_rms_rad**2) / 2
        drift = self.profile.operation.drift
        return drift.error if drift else 0.0


class LinkRate(msgspec.Struct, frozen=True):
    """What a link yields, under which profile and proof.

    Attributes
    ----------
    gain : float or None
        Probability that an emitted pulse (pair, pair of pulses) of the signal gives a detection; None where
        a curve was measured.
    qber : float or None
        Error rate of key-basis bits; None where quadratures are measured.
    sifted_rate_hz : float or None
        Key-basis bits (CV: symbols kept) per second; None where a curve was measured.
    block_sifted_bits, block_duration_s : float or None
        The block that the proof is applied to; None for an asymptotic rate.
    secret_length_bits : int or None
        Key of one block, zero or more; None for an asymptotic or a measured rate.
    authentication_bits : int
        Of the key of one block, what authenticates its messages; the rates are net of it.
    secret_key_rate_per_pulse, secret_key_rate_bps : float
        While the module runs.
    delivered_rate_bps : float
        With the profile's duty cycle, long after the warm-up.
    repeaterless_bound_per_pulse : float
        PLOB: no protocol without a station in the middle gets above.
    epsilon_sec, epsilon_cor : float or None
    zero_because : str
        When there is no key: which term took it. Empty otherwise.
    observed : dict
        Further statistics, by name with unit.
    settings : dict
        Intensities, probabilities and whatever else was chosen.
    """

    protocol: str
    profile: str
    proof: str
    reference: str
    loss_db: float
    length_km: float | None
    gain: float | None
    qber: float | None
    sifted_rate_hz: float | None
    block_sifted_bits: float | None
    block_duration_s: float | None
    secret_length_bits: int | None
    authentication_bits: int
    secret_key_rate_per_pulse: float
    secret_key_rate_bps: float
    delivered_rate_bps: float
    repeaterless_bound_per_pulse: float
    epsilon_sec: float | None
    epsilon_cor: float | None
    zero_because: str
    observed: dict[str, float]
    settings: dict[str, Setting]


class Yield(msgspec.Struct, frozen=True):
    """What a protocol has to say of a case; :func:`link_rate_of` adds what is common to all."""

    proof_id: str
    reference: str
    gain: float | None
    qber: float | None
    sifted_rate_hz: float | None
    pulse_rate_hz: float
    secret_key_rate_per_pulse: float
    block_sifted_bits: float | None = None
    block_duration_s: float | None = None
    secret_length_bits: int | None = None
    zero_because: str = ""
    observed: dict[str, float] = {}
    settings: dict[str, Setting] = {}


class LinkProtocol(Protocol):
    """One protocol on a link: which proofs there are for it, its rate, and its detections."""

    @property
    def protocol_id(self) -> str: ...

    @property
    def proof_ids(self) -> tuple[str, ...]:
        """The default first."""

    @property
    def short_names(self) -> Mapping[str, str]:
        """What people call a proof, to its id: ``chernoff``, ``lim2014``."""

    def rate(self, case: LinkCase, proof_id: str) -> Yield:
        """Return what the link yields under one of ``proof_ids``."""

    def draw(self, case: LinkCase, detections: int, rng: np.random.Generator) -> Arrays:
        """Return drawn detections as arrays by name, each with its first axis of length ``detections``."""


def link_rate_of(case: LinkCase, found: Yield) -> LinkRate:
    """Return the whole answer: cut-off and duty cycle of the profile, the bound, the identities."""
    operation = case.profile.operation
    per_pulse, length_bits, reason = (
        found.secret_key_rate_per_pulse,
        found.secret_length_bits,
        found.zero_because,
    )
    if found.block_duration_s is not None:
        authentication_bits = case.profile.processing.authentication_bits
        net = per_pulse - authentication_bits / (found.block_duration_s * found.pulse_rate_hz)
        if net <= 0 < per_pulse:
            reason = f"the {authentication_bits} bits that authenticate a block are more than it gives"
        per_pulse = max(0.0, net)
    if case.loss_db > operation.loss_db_max:
        per_pulse, length_bits = 0.0, None if length_bits is None else 0
        reason = f"modules of {case.profile.profile_id} do not start above {operation.loss_db_max:g} dB"
    proven = found.proof_id != MEASURED and ASYMPTOTIC not in found.proof_id
    rate_bps = per_pulse * found.pulse_rate_hz
    # What was measured has its pauses in it already.
    duty_cycle = 1.0 if found.proof_id == MEASURED else operation.duty_cycle
    return LinkRate(
        protocol=case.protocol_id,
        profile=case.profile.profile_id,
        proof=found.proof_id,
        reference=found.reference,
        loss_db=case.loss_db,
        length_km=case.length_km,
        gain=found.gain,
        qber=found.qber,
        sifted_rate_hz=found.sifted_rate_hz,
        block_sifted_bits=found.block_sifted_bits,
        block_duration_s=found.block_duration_s,
        secret_length_bits=length_bits,
        authentication_bits=case.profile.processing.authentication_bits if found.block_duration_s else 0,
        secret_key_rate_per_pulse=per_pulse,
        secret_key_rate_bps=rate_bps,
        delivered_rate_bps=rate_bps * duty_cycle,
        repeaterless_bound_per_pulse=plob_bound(case.loss_db) if case.loss_db > 0 else math.inf,
        epsilon_sec=case.profile.processing.epsilon_sec if proven else None,
        epsilon_cor=case.profile.processing.epsilon_cor if proven else None,
        zero_because=reason if not per_pulse > 0 else "",
        observed=found.observed,
        settings=found.settings,
    )


def _check(parameter: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise OutsideModel(parameter, value, f"a finite number from {low:g} to {high:g}")
