"""One satellite pass as one block: transmittance against time, summed counts, one finite-key bound.

During a pass the loss changes by ten dB within minutes. What each moment yields is computed apart, the counts
are added, and the proof is applied **once** to the sum: a bound per second, or per tenth of a pass, gives
less key or none. The source has one setting throughout, because the satellite does not know the loss.

>>> from openqci.quantum import DecoySource, Receiver
>>> from openqci.space.diffraction import GaussianBeam, Telescope
>>> from openqci.space.geometry import circular_pass
>>> downlink = Downlink(GaussianBeam.of_full_angle_1e2(10.0), Telescope(1.0), 850.0, other_loss_db=6.0)
>>> way_down = downlink.channel(circular_pass(500.0, 20.0, step_s=10.0), background_photons_hz=500.0)
>>> source = DecoySource(1e8, (0.8, 0.1, 0.0), (0.5, 0.25, 0.25), z_basis_probability=0.5)
>>> receiver = Receiver(0.0, 0.5, 5e-7, misalignment_error=0.01)
>>> key = pass_key(pass_counts(source, receiver, way_down))
>>> key.proof_id, 400_000 < key.length_bits < 4_000_000
('lim-2014', True)

Left out: where the satellite is when, and the weather (a caller's arrays of sunlight and clouds, or the mask
``credited``); what is lost between acquisition and the first key; the key of authentication, which the caller
subtracts. Read next :mod:`openqci.space` for what is in a transmittance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.core.detections import X_BASIS, Z_BASIS
from openqci.core.errors import OutsideModel
from openqci.proofs import DecoyCounts, proof
from openqci.proofs.bounds import binary_entropy
from openqci.quantum import DecoySource, FibreChannel, QuantumLink, Receiver, expected_statistics
from openqci.quantum.elements import BACKGROUND_PHOTONS_HZ_MAX
from openqci.space.atmosphere import clear_sky_transmittance
from openqci.space.diffraction import Beam, Telescope, collected_fraction
from openqci.space.fading import STEADY, Fading
from openqci.space.geometry import StationPass
from openqci.space.ranges import Floats, check_range

KeyBases = Literal["z", "both"]

TRANSMITTANCE_MIN = 1e-18
"""180 dB; lower is not a channel, and zero is no loss in dB."""

STEPS_MAX = 100_000
"""Steps times nodes of the fading; each costs some 0.1 ms."""


@dataclass(frozen=True)
class PassChannel:
    """The way down against time, as the receiver's optics see it; every array has shape (T,).

    Parameters
    ----------
    times_s : ndarray
        Strictly rising, two or more.
    transmittances : ndarray
        Fraction of the photons that leave the source and arrive before the receiver's optics; **without** the
        receiver, its detectors, and without fading. 1e-18 to 1.
    background_photons_hz : ndarray
        Photons of the sky per second at the same place, inside the receiver's filter.
    credited : ndarray of bool, optional
        Where key may be counted (:class:`openqci.space.sky.CreditRule`); everywhere when not given.

    Raises
    ------
    OutsideModel
        Names the field, the first value outside, and the range.
    """

    times_s: Floats
    transmittances: Floats
    background_photons_hz: Floats
    credited: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        times = check_range("times_s", self.times_s, -1e9, 1e9)
        if times.ndim != 1 or len(times) < 2 or not (np.diff(times) > 0).all():
            raise OutsideModel("times_s", times.shape, "two or more strictly rising times in one dimension")
        check_range("transmittances", self.transmittances, TRANSMITTANCE_MIN, 1.0)
        check_range("background_photons_hz", self.background_photons_hz, 0.0, BACKGROUND_PHOTONS_HZ_MAX)
        for name in ("transmittances", "background_photons_hz", "credited"):
            values = getattr(self, name)
            if values is not None and np.shape(values) != times.shape:
                raise OutsideModel(name, np.shape(values), f"one value per time, shape {times.shape}")

    @classmethod
    def of_record(
        cls,
        times_s: ArrayLike,
        ranges_km: ArrayLike,
        loss_ranges_km: ArrayLike,
        losses_db: ArrayLike,
        *,
        step_s: float = 1.0,
        background_photons_hz: float = 0.0,
    ) -> "PassChannel":
        """Return the channel of a pass that was measured: range against time, and loss against range.

        Parameters
        ----------
        times_s, ranges_km : array_like, shape (N,)
            Times strictly rising.
        loss_ranges_km, losses_db : array_like, shape (M,)
            Ranges strictly rising; beyond their ends the loss stays what it is there.
        step_s : float
            Longest time between samples of the result; in between both records run straight.
        background_photons_hz : float
        """
        check_range("step_s", step_s, 1e-3, 3600.0)
        times, ranges = (
            check_range("times_s", times_s, -1e9, 1e9),
            check_range("ranges_km", ranges_km, 1.0, 1e6),
        )
        at = check_range("loss_ranges_km", loss_ranges_km, 1.0, 1e6)
        losses = check_range("losses_db", losses_db, 0.0, 180.0)
        for name, rising, of in (("times_s", times, ranges), ("loss_ranges_km", at, losses)):
            if (
                rising.ndim != 1
                or rising.shape != of.shape
                or len(rising) < 2
                or not (np.diff(rising) > 0).all()
            ):
                raise OutsideModel(name, rising.shape, f"two or more rising values, as many as {of.shape}")
        steps = check_range("steps", (times[-1] - times[0]) / step_s, 0.0, STEPS_MAX)
        sampled_s = np.linspace(times[0], times[-1], math.ceil(float(steps)) + 1)
        loss_db = np.interp(np.interp(sampled_s, times, ranges), at, losses)
        return cls(sampled_s, 10 ** (-loss_db / 10), np.full(len(sampled_s), background_photons_hz))

    @property
    def durations_s(self) -> Floats:
        """The time that each sample stands for (trapezoidal rule); zero where no key is credited."""
        gaps = np.diff(self.times_s)
        durations = np.zeros(len(self.times_s))
        durations[:-1] += gaps / 2
        durations[1:] += gaps / 2
        return durations if self.credited is None else durations * self.credited


@dataclass(frozen=True)
class Downlink:
    """A transmitter in orbit and a telescope on the ground, through the clear standard sky.

    Parameters
    ----------
    beam : GaussianBeam, UniformDisc or TruncatedBeam
    telescope : Telescope
    wavelength_nm : float
        One for which the clear sky is tabulated: 785, 810, 850, 1550.
    other_loss_db : float
        Optics of the transmitter and of the telescope up to where the background is counted, tracking
        beyond jitter, coupling; 0 to 60. The receiver's own optics and detectors are in its ``Receiver``.
    site_altitude_km : float
    low_elevation_loss_db : float
        What tracking, turbulence and optics lose besides at 20 deg; it grows in a straight line from zero at
        45 deg. About 3 dB for Micius in 2017, by a fit to its losses. 0 to 20.
    """

    beam: Beam
    telescope: Telescope
    wavelength_nm: float
    other_loss_db: float = 0.0
    site_altitude_km: float = 0.0
    low_elevation_loss_db: float = 0.0

    def __post_init__(self) -> None:
        check_range("other_loss_db", self.other_loss_db, 0.0, 60.0)
        check_range("low_elevation_loss_db", self.low_elevation_loss_db, 0.0, 20.0)
        clear_sky_transmittance(90.0, self.wavelength_nm, self.site_altitude_km)

    def transmittance(self, seen: StationPass) -> Floats:
        """Return diffraction, clear sky and other losses over a pass, shape (T,)."""
        geometric = collected_fraction(self.beam, self.telescope, seen.slant_ranges_km)
        sky = clear_sky_transmittance(seen.elevations_deg, self.wavelength_nm, self.site_altitude_km)
        low_db = self.low_elevation_loss_db * np.maximum(45.0 - seen.elevations_deg, 0.0) / (45.0 - 20.0)
        arriving: Floats = geometric * sky * 10 ** (-(self.other_loss_db + low_db) / 10)
        return arriving

    def channel(
        self,
        seen: StationPass,
        *,
        background_photons_hz: ArrayLike,
        coupling: ArrayLike = 1.0,
        credited: NDArray[np.bool_] | None = None,
    ) -> PassChannel:
        """Return the channel of a pass.

        Parameters
        ----------
        seen : StationPass
        background_photons_hz, coupling : array_like, broadcastable with (T,)
            Of the sky into the receiver; of the light into a fibre, where there is one.
        credited : ndarray of bool, shape (T,), optional
        """
        coupled = self.transmittance(seen) * check_range("coupling", coupling, 0.0, 1.0)
        background = np.broadcast_to(np.asarray(background_photons_hz, np.float64), seen.times_s.shape)
        return PassChannel(seen.times_s, coupled, background, credited)


@dataclass(frozen=True)
class PassCounts:
    """What a pass yields on average.

    Attributes
    ----------
    source : DecoySource
    counts, errors : ndarray, shape (2, K)
        Sifted bits and errors of the whole pass in basis b (0 = Z, 1 = X), sent at intensity k.
    sifted_rates_hz : ndarray, shape (T, 2, K)
        The same per second, at each time, fading averaged.
    duration_s : float
        Credited time.
    """

    source: DecoySource
    counts: Floats
    errors: Floats
    sifted_rates_hz: Floats = field(repr=False)
    duration_s: float

    @property
    def sifted_bits(self) -> float:
        """Bits of the key basis, all intensities together."""
        return float(self.counts[Z_BASIS].sum())

    @property
    def qber(self) -> float:
        """Error rate of these; zero where there are none."""
        return error_rate(self.counts[Z_BASIS], self.errors[Z_BASIS])

    def scaled(self, factor: float) -> "PassCounts":
        """Return the counts of so many equal passes taken as one block, or of a part of one."""
        check_range("factor", factor, 1e-9, 1e9)
        return replace(
            self,
            counts=self.counts * factor,
            errors=self.errors * factor,
            duration_s=self.duration_s * factor,
        )


class PassKey(msgspec.Struct, frozen=True):
    """The key of one pass.

    Attributes
    ----------
    length_bits : int
        Never negative.
    unclipped_bits : float
        The same bound before it is cut off at zero.
    sifted_bits, qber : float
        Of the bits that the key is made of.
    phase_error : float
        The bound; the worse of two when both bases give key.
    duration_s : float
        Credited time of the pass.
    epsilon_sec, epsilon_cor : float
        Of the whole key.
    proof_id, reference : str
    zero_because : str
        What took the key when there is none; empty otherwise.
    """

    length_bits: int
    unclipped_bits: float
    sifted_bits: float
    qber: float
    phase_error: float
    duration_s: float
    epsilon_sec: float
    epsilon_cor: float
    proof_id: str
    reference: str
    zero_because: str

    @property
    def secret_key_rate_bps(self) -> float:
        """Key over credited time: an average for comparison, not what any second of a pass yields."""
        return self.length_bits / self.duration_s if self.duration_s > 0 else 0.0


def pass_counts(
    source: DecoySource,
    receiver: Receiver,
    channel: PassChannel,
    fading: Fading | Sequence[Fading] = STEADY,
) -> PassCounts:
    """Return the expected sifted counts of a pass, summed over its time.

    Parameters
    ----------
    source : DecoySource
        One setting for the whole pass.
    receiver : Receiver
        Its losses and efficiency are not in the channel's transmittance.
    channel : PassChannel
    fading : Fading, or one for each of the T times
        Of the signal, relative to the channel's transmittance; the background does not fade. The mean of the
        gains is taken, not the gain of the mean.

    Returns
    -------
    PassCounts

    Raises
    ------
    OutsideModel
        If fading lifts a transmittance above one, there is not one fading per time, or all nodes of all
        times are more than 100 000.
    """
    durations = channel.durations_s
    fadings = [fading] * len(durations) if isinstance(fading, Fading) else fading
    if len(fadings) != len(durations):
        raise OutsideModel("fading", len(fadings), f"one, or {len(durations)}, one per time")
    check_range("steps", sum(len(each.weights) for each in fadings), 1, STEPS_MAX)
    shape = (len(durations), 2, len(source.intensities))
    rates, errors = np.zeros(shape), np.zeros(shape)
    for step in np.flatnonzero(durations).tolist():
        background = float(channel.background_photons_hz[step])
        for relative, weight in zip(fadings[step].transmittances, fadings[step].weights, strict=True):
            through = float(channel.transmittances[step] * relative)
            sifted, wrong = sifted_rates_hz(source, receiver, through, background)
            rates[step] += weight * sifted
            errors[step] += weight * wrong
    return PassCounts(
        source=source,
        counts=np.tensordot(durations, rates, axes=1),
        errors=np.tensordot(durations, errors, axes=1),
        sifted_rates_hz=rates,
        duration_s=float(durations.sum()),
    )


def sifted_rates_hz(
    source: DecoySource, receiver: Receiver, transmittance: float, background_photons_hz: float
) -> tuple[Floats, Floats]:
    """Return sifted bits and errors per second, each of shape (2, K), at one transmittance."""
    check_range("transmittance", transmittance, 0.0, 1.0)
    # A fade to nothing is no loss in dB; 180 dB are dark enough.
    loss_db = max(0.0, -10 * math.log10(max(transmittance, TRANSMITTANCE_MIN)))
    expected = expected_statistics(
        QuantumLink(source, FibreChannel(loss_db, background_photons_hz), receiver)
    )
    sifted = expected.detection_rate_hz * expected.detection_fractions
    return sifted, sifted * expected.error_rates


def pass_key(
    counts: PassCounts,
    *,
    proof_id: str = "lim-2014",
    epsilon_sec: float = 1e-9,
    epsilon_cor: float = 1e-15,
    error_correction_efficiency: float = 1.16,
    key_bases: KeyBases = "z",
) -> PassKey:
    """Return the key of a pass under a finite-key proof, applied once to all of its counts.

    Parameters
    ----------
    counts : PassCounts
    proof_id : str
        One for as many intensities as the source has.
    epsilon_sec, epsilon_cor : float
        Of the whole key.
    error_correction_efficiency : float
        f of the leak ``f n h(E)``, 1 to 5.
    key_bases : {"z", "both"}
        ``both``: unbiased BB84 in which each basis gives key and bounds the phase error of the other, no bit
        being shown (errors are known from error correction). Two keys, each with half of both epsilons; their
        lengths are added.

    Returns
    -------
    PassKey

    Raises
    ------
    ConfigurationError
        For an unknown proof.
    OutsideModel
        For a proof with another number of intensities, or a figure outside its range. Never for poor counts:
        then the length is zero and ``zero_because`` says why.
    """
    check_range("error_correction_efficiency", error_correction_efficiency, 1.0, 5.0)
    if key_bases not in get_args(KeyBases):
        raise OutsideModel("key_bases", key_bases, f"one of {', '.join(get_args(KeyBases))}")
    used = [Z_BASIS] if key_bases == "z" else [Z_BASIS, X_BASIS]
    chosen = proof(proof_id)
    kept = [
        chosen.secret_length_bits(
            block_of(counts, basis),
            leak_bits(counts, basis, error_correction_efficiency),
            epsilon_sec / len(used),
            epsilon_cor / len(used),
        )
        for basis in used
    ]
    length_bits = sum(each.length_bits for each in kept)
    why = kept[0].limited_by if counts.duration_s > 0 else "no moment of the pass may be credited"
    return PassKey(
        length_bits=length_bits,
        unclipped_bits=sum(each.unclipped_bits for each in kept),
        sifted_bits=float(counts.counts[used].sum()),
        qber=error_rate(counts.counts[used], counts.errors[used]),
        phase_error=max(each.phase_error for each in kept),
        duration_s=counts.duration_s,
        epsilon_sec=epsilon_sec,
        epsilon_cor=epsilon_cor,
        proof_id=chosen.proof_id,
        reference=chosen.reference,
        zero_because="" if length_bits else why,
    )


def block_of(counts: PassCounts, key_basis: int) -> DecoyCounts:
    """Return the counts as a proof takes them, the key basis named Z whichever it is."""
    test_basis = X_BASIS if key_basis == Z_BASIS else Z_BASIS
    return DecoyCounts(
        z_counts=counts.counts[key_basis].tolist(),
        z_errors=counts.errors[key_basis].tolist(),
        x_counts=counts.counts[test_basis].tolist(),
        x_errors=counts.errors[test_basis].tolist(),
        intensities=counts.source.intensities,
        probabilities=counts.source.probabilities,
    )


def leak_bits(counts: PassCounts, basis: int, error_correction_efficiency: float) -> float:
    """Return what error correction is expected to disclose, ``f n h(E)`` over all intensities together."""
    seen = counts.counts[basis]
    rate = error_rate(seen, counts.errors[basis])
    return error_correction_efficiency * float(seen.sum()) * binary_entropy(rate)


def error_rate(counts: Floats, errors: Floats) -> float:
    total = float(counts.sum())
    return float(errors.sum()) / total if total > 0 else 0.0
