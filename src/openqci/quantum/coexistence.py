"""Classical channels in the same fibre: how many of their photons reach the quantum receiver.

Raman scattering of every channel, four-wave mixing of pairs, and light that leaks through the filters
become photons per second inside the receiver's filter, at the receiver's input. From there on they are the
``background_photons_hz`` of a :class:`~openqci.quantum.elements.FibreChannel`.

>>> from openqci.quantum.fibre import FibreSpan, fibre_kind
>>> span = FibreSpan(fibre_kind("g652d-1550"), 50.0)
>>> data = ClassicalChannel.of_sensitivity(1548.0, "counter", sensitivity_dbm=-28.0, loss_db=span.loss_db)
>>> noise = coexistence_noise([data], span, QuantumFilter(1550.0, 0.2))
>>> data.launch_power_dbm, noise.total_hz > noise.raman_hz > 0
(-18.0, True)

Powers are the average in the fibre; amplifiers must be bypassed by the quantum channel and are not modelled.
Left out: depletion of the channels by stimulated scattering (small below 10 dBm in all), Brillouin
scattering (narrow and filtered), cross-phase modulation, polarisation of the pumps, patch cords.
Read next :mod:`openqci.quantum.link`.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from openqci.core.errors import OutsideModel
from openqci.quantum.elements import Floats, check_range
from openqci.quantum.fibre import FibreSpan

PLANCK_J_S = 6.62607015e-34
SPEED_OF_LIGHT_M_PER_S = 299_792_458.0
DB_PER_NEPER = 10 / math.log(10)

Direction = Literal["co", "counter"]


# --- powers and photons ---


def watts_of_dbm(power_dbm: ArrayLike) -> Floats:
    """Return a power in W; 0 dBm is one milliwatt. Ten dB are a factor of ten in power, not in amplitude."""
    watts: Floats = 1e-3 * np.power(10.0, np.asarray(power_dbm, float) / 10)
    return watts


def dbm_of_watts(power_w: ArrayLike) -> Floats:
    """Return a power in dBm; no power is minus infinity."""
    with np.errstate(divide="ignore"):
        dbm: Floats = 10 * np.log10(np.asarray(power_w, float) / 1e-3)
    return dbm


def photon_rate_hz(power_w: ArrayLike, wavelength_nm: ArrayLike) -> Floats:
    """Return the photons per second of a power, ``P lambda / (h c)``."""
    energy_j = PLANCK_J_S * SPEED_OF_LIGHT_M_PER_S / (np.asarray(wavelength_nm, float) * 1e-9)
    rate: Floats = np.asarray(power_w, float) / energy_j
    return rate


def frequency_thz(wavelength_nm: ArrayLike) -> Floats:
    """Return the optical frequency of a wavelength in vacuum."""
    thz: Floats = SPEED_OF_LIGHT_M_PER_S / np.asarray(wavelength_nm, float) / 1e3
    return thz


def bandwidth_nm(bandwidth_ghz: float, wavelength_nm: float) -> float:
    """Return the width in wavelength of a filter given in frequency."""
    check_range("bandwidth_ghz", bandwidth_ghz, 0.0, 1e5)
    return bandwidth_ghz * wavelength_nm**2 / SPEED_OF_LIGHT_M_PER_S


# --- Raman scattering ---

RAMAN_NEIGHBOUR_PER_KM_NM = 2.5e-9
"""rho of a neighbour in the C band (1 THz towards the red): as two public WDM codes have it."""

RAMAN_OFFSETS_THZ = (0.0, 1.0, 2.5, 5.0, 7.5, 10.0, 12.0, 13.2, 14.7, 16.0, 18.0, 20.0, 24.0, 30.0, 42.0)
RAMAN_STOKES_PER_KM_NM = tuple(
    ratio * RAMAN_NEIGHBOUR_PER_KM_NM
    for ratio in (0.85, 1.0, 1.28, 1.20, 1.30, 1.73, 2.13, 2.22, 2.05, 1.05, 0.43, 0.47, 0.15, 0.13, 0.0)
)
"""rho for light scattered to lower frequency, against the offset. The value at 2.5 THz (3.2e-9) is that of
the same codes; the rest follows the Raman gain of silica with the thermal occupation of its phonons at 300 K
and is unverified against a measured table."""

THERMAL_THZ = 6.2509
"""k T / h at 300 K."""

RAMAN_REFERENCE_NM = 1550.0


def raman_coefficient_per_km_nm(classical_nm: ArrayLike, quantum_nm: ArrayLike) -> Floats:
    """Return rho, the Raman light per km and nm of receiver bandwidth, in units of the classical power.

    Parameters
    ----------
    classical_nm, quantum_nm : array_like, shape S (broadcast)
        Wavelengths in vacuum.

    Returns
    -------
    ndarray, shape S
        Interpolated in the table against the frequency offset (zero beyond 42 THz). Towards higher
        frequency (anti-Stokes: the quantum channel at the shorter wavelength) it is lower by
        ``exp(-h df / k T)``. Scaled with ``(1550 nm / lambda_q)^4``: the tables were read around 1550 nm.

    References
    ----------
    P. Eraerds et al., New J. Phys. 12, 063027 (2010), the form (unverified against the paper).
    """
    offset_thz = frequency_thz(classical_nm) - frequency_thz(quantum_nm)  # positive: Stokes
    stokes = np.interp(np.abs(offset_thz), RAMAN_OFFSETS_THZ, RAMAN_STOKES_PER_KM_NM)
    thermal = np.exp(np.minimum(offset_thz, 0.0) / THERMAL_THZ)
    scaled: Floats = stokes * thermal * (RAMAN_REFERENCE_NM / np.asarray(quantum_nm, float)) ** 4
    return scaled


def raman_power_w(
    launch_power_w: ArrayLike,
    length_km: ArrayLike,
    coefficient_per_km_nm: ArrayLike,
    receiver_bandwidth_nm: ArrayLike,
    direction: Direction,
    classical_db_per_km: ArrayLike = 0.2,
    quantum_db_per_km: ArrayLike = 0.2,
) -> Floats:
    """Return the Raman light of one channel inside the receiver's filter, at the receiver's end of the fibre.

    Parameters
    ----------
    launch_power_w : array_like, shape S (all broadcast)
        As the channel enters the fibre, at its own end.
    length_km, coefficient_per_km_nm, receiver_bandwidth_nm : array_like
    direction : {"co", "counter"}
        Whether the channel travels with the quantum light or against it.
    classical_db_per_km, quantum_db_per_km : array_like
        Attenuation at either wavelength.

    Returns
    -------
    ndarray, shape S
        With equal attenuation a: ``P L exp(-a L) rho dl`` and ``P exp(-a L) sinh(a L) / a rho dl``. The
        first is largest at ``L = 1/a``, the second only grows.

    References
    ----------
    P. Eraerds et al., New J. Phys. 12, 063027 (2010), the form for equal attenuation (unverified against
    the paper); for unequal ones the same integral over the fibre.
    """
    check_direction(direction)
    length = not_negative("length_km", length_km)
    power = not_negative("launch_power_w", launch_power_w)
    rho = not_negative("coefficient_per_km_nm", coefficient_per_km_nm)
    width = not_negative("receiver_bandwidth_nm", receiver_bandwidth_nm)
    a = not_negative("classical_db_per_km", classical_db_per_km) / DB_PER_NEPER
    b = not_negative("quantum_db_per_km", quantum_db_per_km) / DB_PER_NEPER
    if direction == "co":
        effective_km = np.exp(-b * length) * mean_exponential((a - b) * length) * length
    else:
        effective_km = mean_exponential((a + b) * length) * length
    scattered: Floats = power * rho * width * effective_km
    return scattered


def mean_exponential(exponent: Floats) -> Floats:
    """Return ``(1 - exp(-x)) / x``, one at zero."""
    small = np.abs(exponent) < 1e-12
    mean: Floats = np.where(small, 1.0, -np.expm1(-exponent) / np.where(small, 1.0, exponent))
    return mean


# --- four-wave mixing ---


def four_wave_mixing_power_w(
    pump_powers_w: tuple[float, float, float],
    pumps_nm: tuple[float, float, float],
    span: FibreSpan,
    dispersion_slope_ps_per_nm2_km: float = 0.056,
) -> float:
    """Return the power that pumps i, j and k mix to the frequency ``f_i + f_j - f_k``, at the fibre's end.

    Parameters
    ----------
    pump_powers_w : tuple of float
        As launched, all with the quantum light. Pumps against it mix away from the receiver.
    pumps_nm : tuple of float
        Wavelengths i, j, k; i may equal j (degenerate), k differs from both.
    span : FibreSpan
        Attenuation, dispersion at its wavelength, and nonlinearity.
    dispersion_slope_ps_per_nm2_km : float
        Matters near zero dispersion only.

    Returns
    -------
    float
        ``eta (D gamma / 3)^2 P_i P_j P_k exp(-a L) L_eff^2`` with degeneracy D = 3 for i = j and else 6,
        and eta the efficiency of phase matching. All pumps in the same polarisation: an upper limit.

    References
    ----------
    K. O. Hill et al., J. Appl. Phys. 49, 5098 (1978); N. Shibata et al., IEEE J. Quantum Electron. 23,
    1205 (1987), the phase mismatch (both unverified against the papers).
    """
    for power_w in pump_powers_w:
        check_range("pump_powers_w", power_w, 0.0, 10.0)
    for pump_nm in pumps_nm:
        check_range("pumps_nm", pump_nm, 400.0, 2000.0)
    if pumps_nm[2] in pumps_nm[:2]:
        raise OutsideModel("pumps_nm", pumps_nm, "a third pump that differs from the first two")
    kind, length_km = span.kind, span.length_km
    f_i, f_j, f_k = (float(frequency_thz(pump_nm)) for pump_nm in pumps_nm)
    a = kind.attenuation_db_per_km / DB_PER_NEPER
    spread_thz = abs(f_i - f_k) + abs(f_j - f_k)
    # nm^2 THz^2 ps/(nm km) over a speed of light in nm THz is per km.
    light = SPEED_OF_LIGHT_M_PER_S * 1e-3
    slope_term = kind.wavelength_nm**2 / (2 * light) * spread_thz * dispersion_slope_ps_per_nm2_km
    mismatch_per_km = (
        2 * math.pi * kind.wavelength_nm**2 / light * abs(f_i - f_k) * abs(f_j - f_k)
        * (kind.dispersion_ps_per_nm_km + slope_term)
    )  # fmt: skip
    degeneracy = 3 if pumps_nm[0] == pumps_nm[1] else 6
    amplitude = kind.nonlinearity_per_w_km * degeneracy / 3
    return (
        amplitude**2
        * math.prod(pump_powers_w)
        * math.exp(-a * length_km)
        * mixing_length_km2(a, mismatch_per_km, length_km)
    )


def mixing_length_km2(attenuation_per_km: float, mismatch_per_km: float, length_km: float) -> float:
    """Return ``eta L_eff^2 = |(1 - exp(-(a + i db) L)) / (a + i db)|^2``, which also holds without loss."""
    rate = complex(attenuation_per_km, mismatch_per_km)
    if abs(rate) * length_km < 1e-9:
        return length_km**2
    return float(abs((1 - np.exp(-rate * length_km)) / rate) ** 2)


# --- channels, filter, and their sum ---


@dataclass(frozen=True)
class ClassicalChannel:
    """A channel of data, clock or service light in the fibre.

    Parameters
    ----------
    wavelength_nm : float
    direction : {"co", "counter"}
        With the quantum light or against it.
    launch_power_dbm : float
        As it enters the fibre at its own end, -100 to 30 dBm. Take :meth:`of_sensitivity` unless it was
        measured: a channel at 0 dBm over a short span is a thousand times brighter than it needs to be.
    """

    wavelength_nm: float
    direction: Direction
    launch_power_dbm: float

    def __post_init__(self) -> None:
        check_range("wavelength_nm", self.wavelength_nm, 400.0, 2000.0)
        check_direction(self.direction)
        check_range("launch_power_dbm", self.launch_power_dbm, -100.0, 30.0)

    @classmethod
    def of_sensitivity(
        cls,
        wavelength_nm: float,
        direction: Direction,
        *,
        sensitivity_dbm: float,
        loss_db: float,
        margin_db: float = 0.0,
    ) -> "ClassicalChannel":
        """Return the channel attenuated to what its own receiver needs: sensitivity, loss and margin."""
        check_range("sensitivity_dbm", sensitivity_dbm, -100.0, 30.0)
        check_range("loss_db", loss_db, 0.0, 200.0)
        check_range("margin_db", margin_db, 0.0, 50.0)
        return cls(wavelength_nm, direction, sensitivity_dbm + loss_db + margin_db)

    @property
    def launch_power_w(self) -> float:
        return float(watts_of_dbm(self.launch_power_dbm))


@dataclass(frozen=True)
class QuantumFilter:
    """What lies between the fibre and the quantum receiver.

    Parameters
    ----------
    wavelength_nm : float
        Of the quantum channel.
    bandwidth_nm : float
        Full width of the narrowest filter.
    isolation_db : float
        Suppression of light at the classical wavelengths, all filters together. Above 80 to 100 dB is
        needed (unverified).
    """

    wavelength_nm: float
    bandwidth_nm: float
    isolation_db: float = 100.0

    def __post_init__(self) -> None:
        check_range("wavelength_nm", self.wavelength_nm, 400.0, 2000.0)
        check_range("bandwidth_nm", self.bandwidth_nm, 0.0, 100.0)
        check_range("isolation_db", self.isolation_db, 0.0, 300.0)


@dataclass(frozen=True)
class CoexistenceNoise:
    """Photons per second inside the filter at the receiver's input, by origin."""

    raman_co_hz: float
    raman_counter_hz: float
    four_wave_mixing_hz: float
    crosstalk_hz: float

    @property
    def raman_hz(self) -> float:
        return self.raman_co_hz + self.raman_counter_hz

    @property
    def total_hz(self) -> float:
        """The ``background_photons_hz`` of a channel."""
        return self.raman_hz + self.four_wave_mixing_hz + self.crosstalk_hz


def coexistence_noise(
    channels: Sequence[ClassicalChannel],
    span: FibreSpan,
    quantum: QuantumFilter,
    classical_db_per_km: float | None = None,
) -> CoexistenceNoise:
    """Return the light of classical channels that reaches the quantum receiver.

    Parameters
    ----------
    channels : sequence of ClassicalChannel
        None at all is no noise.
    span : FibreSpan
        At the quantum wavelength. Noise is made in the fibre; splices, connectors and filters between
        fibre and receiver take from the quantum light and from the noise alike.
    quantum : QuantumFilter
    classical_db_per_km : float, optional
        Attenuation of the classical channels, as of the quantum light when not given (an O-band quantum
        channel beside C-band data needs it).

    Returns
    -------
    CoexistenceNoise
    """
    kind, length_km = span.kind, span.length_km
    data_db_per_km = kind.attenuation_db_per_km if classical_db_per_km is None else classical_db_per_km
    joints = 10 ** (-(span.loss_db - span.fibre_loss_db) / 10)
    raman_w = {"co": 0.0, "counter": 0.0}
    crosstalk_hz = 0.0
    for channel in channels:
        rho = raman_coefficient_per_km_nm(channel.wavelength_nm, quantum.wavelength_nm)
        raman_w[channel.direction] += float(
            raman_power_w(
                channel.launch_power_w,
                length_km,
                rho,
                quantum.bandwidth_nm,
                channel.direction,
                data_db_per_km,
                kind.attenuation_db_per_km,
            )
        )
        leaked_w = arriving_power_w(channel, span, data_db_per_km) * 10 ** (-quantum.isolation_db / 10)
        crosstalk_hz += float(photon_rate_hz(leaked_w, channel.wavelength_nm))
    mixed_w = mixing_in_filter_w([each for each in channels if each.direction == "co"], span, quantum)
    at_quantum = joints * float(photon_rate_hz(1.0, quantum.wavelength_nm))
    return CoexistenceNoise(
        raman_co_hz=raman_w["co"] * at_quantum,
        raman_counter_hz=raman_w["counter"] * at_quantum,
        four_wave_mixing_hz=mixed_w * at_quantum,
        crosstalk_hz=crosstalk_hz,
    )


def arriving_power_w(channel: ClassicalChannel, span: FibreSpan, classical_db_per_km: float) -> float:
    """Return the power at the classical wavelength at the quantum receiver's end.

    Light with the quantum channel arrives attenuated; light against it starts there, and what comes back
    is its Rayleigh scattering.
    """
    fibre_db = classical_db_per_km * span.length_km
    joints_db = span.loss_db - span.fibre_loss_db
    if channel.direction == "co":
        return channel.launch_power_w * float(10 ** (-(fibre_db + joints_db) / 10))
    scattered = rayleigh_backscatter_fraction(span, classical_db_per_km)
    return channel.launch_power_w * scattered * float(10 ** (-joints_db / 10))


def rayleigh_backscatter_fraction(span: FibreSpan, attenuation_db_per_km: float | None = None) -> float:
    """Return the fraction of launched light that Rayleigh scattering brings back, ``S a_R (1-exp(-2aL))/2a``.

    Examples
    --------
    >>> from openqci.quantum.fibre import FibreSpan, fibre_kind
    >>> round(10 * math.log10(rayleigh_backscatter_fraction(FibreSpan(fibre_kind("g652d-1550"), 100.0))), 1)
    -32.8
    """
    kind = span.kind
    db_per_km = kind.attenuation_db_per_km if attenuation_db_per_km is None else attenuation_db_per_km
    both_ways = np.asarray(2 * db_per_km / DB_PER_NEPER * span.length_km)
    scattered_km = float(mean_exponential(both_ways)) * span.length_km
    return kind.rayleigh_capture * kind.rayleigh_loss_per_km * scattered_km


def mixing_in_filter_w(
    channels: Sequence[ClassicalChannel], span: FibreSpan, quantum: QuantumFilter
) -> float:
    """Return the four-wave mixing of all pumps whose product falls into the filter."""
    target_thz = float(frequency_thz(quantum.wavelength_nm))
    width_thz = quantum.bandwidth_nm * SPEED_OF_LIGHT_M_PER_S / quantum.wavelength_nm**2 / 1e3
    total_w = 0.0
    for i, j in itertools.combinations_with_replacement(range(len(channels)), 2):
        for k in range(len(channels)):
            pumps = (channels[i], channels[j], channels[k])
            nm = (pumps[0].wavelength_nm, pumps[1].wavelength_nm, pumps[2].wavelength_nm)
            if nm[2] in nm[:2]:
                continue
            f_i, f_j, f_k = (float(frequency_thz(each)) for each in nm)
            if abs(f_i + f_j - f_k - target_thz) <= width_thz / 2:
                powers = (pumps[0].launch_power_w, pumps[1].launch_power_w, pumps[2].launch_power_w)
                total_w += four_wave_mixing_power_w(powers, nm, span)
    return total_w


def check_direction(direction: str) -> None:
    if direction not in get_args(Direction):
        raise OutsideModel("direction", direction, f"one of {', '.join(get_args(Direction))}")


def not_negative(parameter: str, values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not (np.all(array >= 0) and np.all(np.isfinite(array))):
        raise OutsideModel(parameter, values, "finite numbers, zero or more")
    return array
