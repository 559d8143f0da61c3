"""What a profile holds. Ranges are those of ``profiles.schema.json``, which every file is checked against."""

import math

import msgspec
import numpy as np

from openqci.core.errors import OutsideModel


class DetectorFigures(msgspec.Struct, frozen=True):
    """One single-photon detector; dark counts are per gate and detector, its efficiency is in no loss.

    ``jitter_fwhm_s`` widens the windows of a continuously pumped pair source; what it costs inside a gate is
    in ``efficiency``.
    """

    kind: str
    efficiency: float
    dark_count_probability: float
    gate_width_s: float
    dead_time_s: float
    afterpulse_probability: float
    jitter_fwhm_s: float = 0.0

    @property
    def dark_count_rate_hz(self) -> float:
        """Dark counts per second of open gate, of one detector."""
        return self.dark_count_probability / self.gate_width_s


class PhotonReceiver(msgspec.Struct, frozen=True):
    """A receiver that counts photons; ``optics_loss_db`` is its loss without the detectors."""

    optics_loss_db: float
    misalignment_error: float
    detector: DetectorFigures

    @property
    def transmittance(self) -> float:
        """Fraction of the photons at its input that are counted."""
        return self.detector.efficiency * float(10 ** (-self.optics_loss_db / 10))


class CoherentReceiver(msgspec.Struct, frozen=True):
    """A receiver that measures quadratures; noise in shot-noise units, excess noise at the channel input."""

    efficiency: float
    electronic_noise_snu: float
    excess_noise_source_snu: float
    excess_noise_receiver_snu: float
    reconciliation_efficiency: float
    frame_error_rate: float
    estimation_fraction: float
    modulation_variance_snu: float


class Pulses(msgspec.Struct, frozen=True):
    """Settings of a decoy-state source, signal first, and how often either end chooses the key basis."""

    intensities: tuple[float, ...]
    probabilities: tuple[float, ...]
    z_basis_probability: float


class Processing(msgspec.Struct, frozen=True):
    """The block to which the proof is applied once, the efficiency f of error correction, the epsilons.

    ``authentication_bits`` is the key that the messages of one block take, in both directions together; it
    comes out of the key that blocks give.
    """

    block_sifted_bits: int
    error_correction_efficiency: float
    epsilon_sec: float
    epsilon_cor: float
    authentication_bits: int


class Drift(msgspec.Struct, frozen=True):
    """A slow random angle of polarisation or phase that the module does not follow."""

    angle_rms_rad: float
    correlation_time_s: float

    @property
    def error(self) -> float:
        """Mean of sin^2 of a normal angle: what the drift adds to a perfect alignment."""
        return -math.expm1(-2 * self.angle_rms_rad**2) / 2


class Operation(msgspec.Struct, frozen=True):
    """How a deployed module differs from one that always runs at rest."""

    loss_db_max: float
    warm_up_s: float
    duty_cycle: float
    drift: Drift | None = None

    def delivered_bits(self, secret_key_rate_bps: float, duration_s: float) -> float:
        """Return the key of a module that was switched on ``duration_s`` ago and runs at this rate."""
        return secret_key_rate_bps * self.duty_cycle * max(0.0, duration_s - self.warm_up_s)


class MeasuredPoint(msgspec.Struct, frozen=True):
    """One deployed link: its loss, key delivered per second with all pauses, QBER of sifted bits."""

    loss_db: float
    secret_key_rate_bps: float
    qber: float
    secret_key_rate_sd_bps: float = 0.0


class MeasuredCurve(msgspec.Struct, frozen=True):
    """Rate and QBER over loss as measured, at rising loss.

    Between two points the rate is interpolated in its logarithm and the QBER linearly. Below the first loss
    the first point stands, as nothing better was shown; beyond the last there is no key.
    """

    source: str
    mark: str
    points: tuple[MeasuredPoint, ...]

    def secret_key_rate_bps(self, loss_db: float) -> float:
        """Return the delivered key rate at a loss of 0 dB or more."""
        lower, upper, weight = self._between(loss_db)
        if loss_db > self.points[-1].loss_db:
            return 0.0
        if not lower.secret_key_rate_bps > 0 or not upper.secret_key_rate_bps > 0:
            return (1 - weight) * lower.secret_key_rate_bps + weight * upper.secret_key_rate_bps
        ends = np.log([lower.secret_key_rate_bps, upper.secret_key_rate_bps])
        # At a measured point its own figure, not one that went through a logarithm.
        exact = {0.0: lower.secret_key_rate_bps, 1.0: upper.secret_key_rate_bps}
        return exact.get(weight, math.exp((1 - weight) * ends[0] + weight * ends[1]))

    def qber(self, loss_db: float) -> float:
        """Return the mean QBER; beyond the last loss that of the last point."""
        lower, upper, weight = self._between(loss_db)
        return (1 - weight) * lower.qber + weight * upper.qber

    def _between(self, loss_db: float) -> tuple[MeasuredPoint, MeasuredPoint, float]:
        if not 0 <= loss_db < math.inf:
            raise OutsideModel("loss_db", loss_db, "a finite number, zero or more")
        losses_db = [point.loss_db for point in self.points]
        after = int(np.searchsorted(losses_db, loss_db))
        if after == 0 or after == len(self.points):
            edge = self.points[min(after, len(self.points) - 1)]
            return edge, edge, 0.0
        lower, upper = self.points[after - 1], self.points[after]
        return lower, upper, (loss_db - lower.loss_db) / (upper.loss_db - lower.loss_db)


class Profile(msgspec.Struct, frozen=True):
    """A class of QKD modules, or one that was measured.

    Attributes
    ----------
    protocol, proof : str
        What it runs and under which proof its key is kept, unless one is named.
    photon_receiver, coherent_receiver : PhotonReceiver or CoherentReceiver or None
        At most one; a profile with neither is known by its measured curve alone.
    pulses : Pulses or None
        Settings for ``protocol`` where that is decoy-state BB84.
    mark : str
        How its figures are known: measured, published, specified, assumed.
    """

    profile_id: str = msgspec.field(name="id")
    title: str
    protocol: str
    proof: str
    clock_rate_hz: float
    encoding: str
    processing: Processing
    operation: Operation
    mark: str
    reference: str
    photon_receiver: PhotonReceiver | None = None
    coherent_receiver: CoherentReceiver | None = None
    pulses: Pulses | None = None
    measured: MeasuredCurve | None = None
