"""What turbulent air does to a beam from space: seeing, scintillation, coupling into one spatial mode.

Everything follows from the strength of turbulence against height, ``Cn2(z)``, and its moments. Each figure
weighs height in its own way, which is where it goes wrong in public code: seeing (r0) not at all,
scintillation (the Rytov variance) with ``z^(5/6)``, the isoplanatic angle with ``z^(5/3)``.

>>> profile = hufnagel_valley()
>>> fried_parameter_m(profile, [500.0, 1550.0], 90.0).round(3).tolist()
[0.05, 0.193]
>>> rytov_variance(profile, 1550.0, [90.0, 30.0]).round(3).tolist()
[0.063, 0.224]

The theory is one of weak fluctuations over a flat Earth: it is stated down to 30 deg elevation (60 deg from
the zenith) and refused below, unless the caller lowers ``elevation_min_deg`` knowingly. Left out: inner and
outer scale, beam wander (an uplink's affair), wind and so all rates of change, the servo and photon noise of
adaptive optics.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, kve

from openqci.core.errors import OutsideModel
from openqci.space.ranges import Floats, check_range

ELEVATION_DEG_MIN = 30.0
"""60 deg from the zenith, to which the weak theory is stated."""

RESIDUAL_VARIANCE_MAX = 2.0
"""rad^2; beyond, ``exp(-s^2)`` is not what is coupled any more (speckles couple too)."""

RYTOV_VARIANCE_MAX = 25.0

HEIGHT_MAX_M = 60_000.0
"""Where the integrals over height end; nothing of 1e-9 is above."""

LAYER_HEIGHTS_M = (100.0, 1500.0, 1000.0)
"""Scale heights of the three terms of the profile: ground, troposphere, tropopause."""


@dataclass(frozen=True)
class TurbulenceProfile:
    """Hufnagel-Valley form: ``Cn2(z) = G exp(-z/100) + M exp(-z/1500) + U z^10 exp(-z/1000)``, z in m.

    Parameters
    ----------
    ground, troposphere : float
        G and M, m^(-2/3).
    tropopause : float
        U, m^(-2/3) per m^10.
    """

    ground: float
    troposphere: float
    tropopause: float

    def __post_init__(self) -> None:
        check_range("ground", self.ground, 0.0, 1e-10)
        check_range("troposphere", self.troposphere, 0.0, 1e-12)
        check_range("tropopause", self.tropopause, 0.0, 1e-49)
        check_range("turbulence", self.moment(0.0), 1e-18, 1e-6)

    def __call__(self, height_m: ArrayLike) -> Floats:
        """Return Cn2 in m^(-2/3) at heights above the station."""
        z = check_range("height_m", height_m, 0.0, 1e6)
        ground, troposphere, tropopause = LAYER_HEIGHTS_M
        strength: Floats = (
            self.ground * np.exp(-z / ground)
            + self.troposphere * np.exp(-z / troposphere)
            + self.tropopause * z**10 * np.exp(-z / tropopause)
        )
        return strength

    def moment(self, power: float) -> float:
        """Return ``int Cn2(z) z^power dz`` from the ground to infinity, in closed form (gamma functions)."""
        layers = zip(
            (self.ground, self.troposphere, self.tropopause), (0, 0, 10), LAYER_HEIGHTS_M, strict=True
        )
        return sum(
            strength * math.exp(math.lgamma(own + power + 1) + (own + power + 1) * math.log(scale_m))
            for strength, own, scale_m in layers
        )


def hufnagel_valley(wind_m_s: float = 21.0, ground: float = 1.7e-14) -> TurbulenceProfile:
    """Return the Hufnagel-Valley profile; the default is HV5/7 (r0 of 5 cm and 7 urad at 500 nm).

    Parameters
    ----------
    wind_m_s : float
        Root mean square wind between 5 and 20 km, 0 to 100.
    ground : float
        Cn2 at the ground, m^(-2/3).
    """
    check_range("wind_m_s", wind_m_s, 0.0, 100.0)
    # 0.00594 (w/27)^2 (1e-5 z)^10 exp(-z/1000)
    return TurbulenceProfile(ground, 2.7e-16, 0.00594 * (wind_m_s / 27) ** 2 * 1e-50)


def hufnagel_valley_10_10() -> TurbulenceProfile:
    """Return the modified profile of a good site: r0 near 10 cm and 10 urad at 500 nm, as its name says."""
    return TurbulenceProfile(ground=4.5e-15, troposphere=9e-17, tropopause=2e-53)


def fried_parameter_m(
    profile: TurbulenceProfile,
    wavelength_nm: ArrayLike,
    elevation_deg: ArrayLike,
    *,
    elevation_min_deg: float = ELEVATION_DEG_MIN,
) -> Floats:
    """Return Fried's r0, the aperture over which a wave from space stays flat to one radian.

    Parameters
    ----------
    profile : TurbulenceProfile
    wavelength_nm, elevation_deg : array_like
        Broadcast together to the shape S.
    elevation_min_deg : float
        Below this the theory is refused; 30 by default, 5 at least.

    Returns
    -------
    ndarray, shape S
        ``[0.423 k^2 sec(zeta) int Cn2 dz]^(-3/5)`` in m, for a plane wave.
    """
    k, sec = wave_number(wavelength_nm), secant(elevation_deg, elevation_min_deg)
    radius: Floats = (0.423 * k**2 * sec * profile.moment(0.0)) ** -0.6
    return radius


def rytov_variance(
    profile: TurbulenceProfile,
    wavelength_nm: ArrayLike,
    elevation_deg: ArrayLike,
    *,
    elevation_min_deg: float = ELEVATION_DEG_MIN,
) -> Floats:
    """Return the Rytov variance of a downlink, ``2.25 k^(7/6) sec^(11/6) int Cn2 z^(5/6) dz``.

    A variance of log intensity, not its standard deviation; see :func:`fried_parameter_m` for parameters.
    """
    k, sec = wave_number(wavelength_nm), secant(elevation_deg, elevation_min_deg)
    variance: Floats = 2.25 * k ** (7 / 6) * sec ** (11 / 6) * profile.moment(5 / 6)
    return variance


def isoplanatic_angle_urad(
    profile: TurbulenceProfile,
    wavelength_nm: ArrayLike,
    elevation_deg: ArrayLike,
    *,
    elevation_min_deg: float = ELEVATION_DEG_MIN,
) -> Floats:
    """Return the angle within which one correction of the wavefront serves.

    ``[2.914 k^2 sec^(8/3) int Cn2 z^(5/3) dz]^(-3/5)``. The point-ahead angle of an uplink exceeds it.
    """
    k, sec = wave_number(wavelength_nm), secant(elevation_deg, elevation_min_deg)
    angle: Floats = 1e6 * (2.914 * k**2 * sec ** (8 / 3) * profile.moment(5 / 3)) ** -0.6
    return angle


def downlink_spread(
    profile: TurbulenceProfile,
    wavelength_nm: ArrayLike,
    elevation_deg: ArrayLike,
    transmitter_diameter_m: float,
    distance_km: ArrayLike,
    *,
    elevation_min_deg: float = ELEVATION_DEG_MIN,
) -> Floats:
    """Return by which factor turbulence widens the area of a beam on its way down: hardly any.

    The air is at the receiver's end, where it bends a beam that is metres wide already: the coherence that
    the transmitter sees is weighed with the share of the way that is left, ``(z/L)^(5/3)``.

    Returns
    -------
    ndarray
        ``1 + (D/r_t)^(5/3)``, above one by 1e-4 for 0.1 m at 500 km.
    """
    k, sec = wave_number(wavelength_nm), secant(elevation_deg, elevation_min_deg)
    distance = check_range("distance_km", distance_km, 1.0, 1e6) * 1e3
    aperture = check_range("transmitter_diameter_m", transmitter_diameter_m, 0.0, 100.0)
    # Height z over the station is z sec along the path.
    seen = profile.moment(5 / 3) * (sec / distance) ** (5 / 3)
    spread: Floats = 1 + aperture ** (5 / 3) * 0.423 * k**2 * sec * seen
    return spread


def uplink_spread(
    profile: TurbulenceProfile,
    wavelength_nm: ArrayLike,
    elevation_deg: ArrayLike,
    transmitter_diameter_m: float,
    *,
    elevation_min_deg: float = ELEVATION_DEG_MIN,
) -> Floats:
    """Return by which factor turbulence widens the area of a beam on its way up, ``1 + (D/r0)^(5/3)``.

    Long-term: beam wander is in it. Ten to twenty decibels, which no correction from the ground takes back,
    because the satellite has moved on by more than the isoplanatic angle when the light arrives.
    """
    seeing = fried_parameter_m(profile, wavelength_nm, elevation_deg, elevation_min_deg=elevation_min_deg)
    aperture = check_range("transmitter_diameter_m", transmitter_diameter_m, 0.0, 100.0)
    spread: Floats = 1 + (aperture / seeing) ** (5 / 3)
    return spread


def gamma_gamma_shapes(rytov_variance: ArrayLike) -> tuple[Floats, Floats]:
    """Return the shapes a (large eddies) and b (small eddies) of gamma-gamma fading of a plane wave.

    Parameters
    ----------
    rytov_variance : array_like, shape S
        s^2, above 0 and at most 25. (``s^(12/5)`` below is the standard deviation to 12/5.)

    Returns
    -------
    a, b : ndarray, shape S
        ``1/a = exp[0.49 s^2/(1 + 1.11 s^(12/5))^(7/6)] - 1``, and ``1/b = exp[0.51 s^2/(1 + 0.69
        s^(12/5))^(5/6)] - 1``.

    References
    ----------
    L. C. Andrews, R. L. Phillips, "Laser Beam Propagation through Random Media", 2nd ed. (2005), ch. 9;
    from memory, unverified against the book.
    """
    variance = check_range("rytov_variance", rytov_variance, 1e-9, RYTOV_VARIANCE_MAX)
    to_12_5 = variance ** (6 / 5)  # (s^2)^(6/5) is the standard deviation to 12/5
    a = 1 / np.expm1(0.49 * variance / (1 + 1.11 * to_12_5) ** (7 / 6))
    b = 1 / np.expm1(0.51 * variance / (1 + 0.69 * to_12_5) ** (5 / 6))
    return a, b


def scintillation_index(rytov_variance: ArrayLike) -> Floats:
    """Return the variance of the relative intensity at a point, ``1/a + 1/b + 1/(a b)``."""
    a, b = gamma_gamma_shapes(rytov_variance)
    index: Floats = 1 / a + 1 / b + 1 / (a * b)
    return index


def aperture_scintillation_index(
    profile: TurbulenceProfile,
    wavelength_nm: ArrayLike,
    elevation_deg: ArrayLike,
    aperture_diameter_m: ArrayLike,
    *,
    elevation_min_deg: float = ELEVATION_DEG_MIN,
) -> Floats:
    """Return the variance of the relative power that a whole aperture collects, for weak turbulence.

    Parameters
    ----------
    profile : TurbulenceProfile
    wavelength_nm, elevation_deg, aperture_diameter_m : array_like
        Broadcast together to the shape S; at aperture zero this is the Rytov variance.

    Returns
    -------
    ndarray, shape S

    References
    ----------
    L. C. Andrews, R. L. Phillips (2005), ch. 12: ``8.70 k^(7/6) sec^(11/6) Re int Cn2 [(q + i z)^(5/6) -
    q^(5/6)] dz`` with ``q = k D^2 cos(zeta) / 16``; from memory, unverified against the book. Its limit D = 0
    is the Rytov variance, since ``8.70 cos(75 deg) = 2.25``.
    """
    k, sec = wave_number(wavelength_nm), secant(elevation_deg, elevation_min_deg)
    aperture = check_range("aperture_diameter_m", aperture_diameter_m, 0.0, 100.0)
    q = np.asarray(k * aperture**2 / (16 * sec))[..., None]
    # z = s^3 takes the corner out of z^(5/6) at the ground, and puts the nodes where the air is.
    nodes, weights = np.polynomial.legendre.leggauss(160)
    s = (nodes + 1) / 2 * HEIGHT_MAX_M ** (1 / 3)
    z = s**3
    air = profile(z) * weights / 2 * HEIGHT_MAX_M ** (1 / 3) * 3 * s**2
    filtered = np.real(np.power(q + 1j * z, 5 / 6) - np.power(q, 5 / 6))
    factor = 2.25 / math.cos(math.radians(75))
    index: Floats = factor * k ** (7 / 6) * sec ** (11 / 6) * (filtered * air).sum(axis=-1)
    return index


def log_normal_density(transmittance: ArrayLike, scintillation_index: ArrayLike) -> Floats:
    """Return the density of a log-normal relative transmittance of mean one, variance the index.

    The variance of its logarithm is ``ln(1 + index)``. For weak turbulence after aperture averaging.
    """
    t = check_range("transmittance", transmittance, 1e-12, 1e6)
    spread = log_normal_variance(scintillation_index)
    density: Floats = np.exp(-((np.log(t) + spread / 2) ** 2) / (2 * spread)) / (
        t * np.sqrt(2 * math.pi * spread)
    )
    return density


def log_normal_variance(scintillation_index: ArrayLike) -> Floats:
    """Return ``ln(1 + index)``, the variance of the logarithm."""
    variance: Floats = np.log1p(check_range("scintillation_index", scintillation_index, 1e-12, 1.2))
    return variance


def gamma_gamma_density(transmittance: ArrayLike, a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the density of a relative transmittance of mean one that is a product of two gamma variates.

    ``2 (ab)^((a+b)/2) / (G(a) G(b)) t^((a+b)/2 - 1) K_(a-b)(2 sqrt(a b t))``, for strong turbulence at a
    point; shapes from :func:`gamma_gamma_shapes`, 0.1 to 1000.
    """
    t = check_range("transmittance", transmittance, 1e-12, 1e6)
    a, b = check_range("a", a, 0.1, 1000.0), check_range("b", b, 0.1, 1000.0)
    root = 2 * np.sqrt(a * b * t)
    # kve is K times exp(root): both tails stay finite until they are put together as logarithms.
    bessel = np.log(kve(np.abs(a - b), root)) - root
    half = (a + b) / 2
    logarithm = math.log(2) + half * np.log(a * b) - gammaln(a) - gammaln(b) + (half - 1) * np.log(t) + bessel
    density: Floats = np.exp(logarithm)
    return density


_NOLL = (1.0299, 0.582, 0.134, 0.111, 0.0880, 0.0648, 0.0587, 0.0525, 0.0463, 0.0401, 0.0377)
"""Residual variance with the first 1 to 11 modes removed, in units of ``(D/r0)^(5/3)``."""


def zernike_residual_variance(aperture_over_fried: ArrayLike, modes: int) -> Floats:
    """Return the variance of the wavefront, rad^2, that is left when the first Zernike modes are corrected.

    Parameters
    ----------
    aperture_over_fried : array_like, shape S
        ``D / r0``, 0 to 1000.
    modes : int
        How many are corrected, 1 to 10 000; 1 is piston alone (nothing), 3 piston, tip and tilt.

    Returns
    -------
    ndarray, shape S
        Noll's coefficient times ``(D/r0)^(5/3)``; beyond eleven modes ``0.2944 modes^(-0.866)``.

    References
    ----------
    R. J. Noll, J. Opt. Soc. Am. 66, 207 (1976), table IV and eq. (4); from memory, unverified against the
    paper.
    """
    ratio = check_range("aperture_over_fried", aperture_over_fried, 0.0, 1000.0)
    if modes != int(check_range("modes", modes, 1, 10_000)):
        raise OutsideModel("modes", modes, "a whole number")
    # The published exponent is -sqrt(3)/2.
    coefficient = _NOLL[modes - 1] if modes <= len(_NOLL) else 0.2944 * modes ** (-math.sqrt(3) / 2)
    variance: Floats = coefficient * ratio ** (5 / 3)
    return variance


SINGLE_MODE_COUPLING_MAX = 0.81
"""Of a flat wave over a clear round aperture into the Gaussian mode of a fibre."""


def single_mode_coupling(aperture_over_fried: ArrayLike, modes: int) -> Floats:
    """Return the mean coupling into a single-mode fibre behind adaptive optics.

    Parameters
    ----------
    aperture_over_fried : array_like, shape S
    modes : int
        Corrected Zernike modes, perfectly and at once; 3 is tip and tilt.

    Returns
    -------
    ndarray, shape S
        ``0.81 exp(-s^2)``, a clear aperture assumed.

    Raises
    ------
    OutsideModel
        Where the residual variance s^2 exceeds 2 rad^2: there the formula promises far too little and means
        nothing. More modes, a smaller telescope, or :func:`uncorrected_coupling`.
    """
    variance = zernike_residual_variance(aperture_over_fried, modes)
    check_range("residual_variance", variance, 0.0, RESIDUAL_VARIANCE_MAX)
    coupling: Floats = SINGLE_MODE_COUPLING_MAX * np.exp(-variance)
    return coupling


def uncorrected_coupling(aperture_over_fried: ArrayLike) -> Floats:
    """Return the order of magnitude of the coupling without any correction, ``1 / (1 + (D/r0)^2)``.

    A rule of thumb, unverified against a paper: one mode out of those that the aperture sees. Not to be
    multiplied by the mode match 0.81, which means nothing to a speckle.
    """
    ratio = check_range("aperture_over_fried", aperture_over_fried, 0.0, 1000.0)
    coupling: Floats = 1 / (1 + ratio**2)
    return coupling


def fibre_coupling(aperture_over_fried: ArrayLike, modes: int) -> Floats:
    """Return the mean coupling into a single-mode fibre at any seeing, for budgets over whole passes.

    That of corrected light, or that of speckles where the correction leaves hardly any: the larger of
    :func:`single_mode_coupling` and ``1 / (1/0.81 + (D/r0)^2)``, which is :func:`uncorrected_coupling` in bad
    seeing and a flat wave in the best. Rough where the two cross, at a coupling of some 5 to 10 %.
    """
    variance = zernike_residual_variance(aperture_over_fried, modes)
    corrected = SINGLE_MODE_COUPLING_MAX * np.exp(-variance)
    ratio = check_range("aperture_over_fried", aperture_over_fried, 0.0, 1000.0)
    speckles = 1 / (1 / SINGLE_MODE_COUPLING_MAX + ratio**2)
    return np.maximum(corrected, speckles)


def wave_number(wavelength_nm: ArrayLike) -> Floats:
    """Return ``2 pi / lambda`` in 1/m."""
    number: Floats = 2e9 * math.pi / check_range("wavelength_nm", wavelength_nm, 200.0, 20_000.0)
    return number


def secant(elevation_deg: ArrayLike, elevation_min_deg: float) -> Floats:
    """Return the secant of the zenith angle, within the validity of the flat theory."""
    if not 5.0 <= elevation_min_deg <= 90.0:
        raise OutsideModel("elevation_min_deg", elevation_min_deg, "from 5 to 90")
    elevation = check_range("elevation_deg", elevation_deg, elevation_min_deg, 90.0)
    path: Floats = 1 / np.sin(np.radians(elevation))
    return path
