"""How much of a beam a telescope on the ground catches: diffraction, truncation, obscuration.

"A divergence of 10 urad" is four different beams, 3 to 5 dB apart. So no function here takes a divergence as
a number; it takes a beam, and a beam is made by a name that says the convention:

>>> telescope = Telescope(aperture_diameter_m=1.0)
>>> for beam in (GaussianBeam.of_full_angle_1e2(10.0), UniformDisc(full_angle_urad=10.0),
...              GaussianBeam.of_full_width_half_maximum(10.0)):
...     print(loss_db(collected_fraction(beam, telescope, 1200.0)).round(1))
18.6
21.6
23.2

All beams hit the telescope in their centre; :mod:`openqci.space.pointing` is about missing it. Left out:
aberrations of the transmitter, losses of the optics, the atmosphere.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import j0

from openqci.core.errors import OutsideModel
from openqci.space.ranges import Floats, check_range

DISTANCE_KM_MAX = 1e6
ANGLE_URAD_MIN, ANGLE_URAD_MAX = 1e-3, 1e5
"""Paraxial: up to a tenth of a radian."""

_HALF_MAXIMUM = math.sqrt(2 / math.log(2))
"""Radius at 1/e^2 over radius at one half of the axial intensity of a Gaussian beam."""


class Beam(Protocol):
    """The light far from the transmitter, as seen by a receiver on its axis."""

    def enclosed_fraction(self, radius_m: ArrayLike, distance_km: ArrayLike) -> Floats:
        """Return the fraction of the emitted power within a radius of the axis at a distance."""


@dataclass(frozen=True)
class Telescope:
    """A receiving telescope.

    Parameters
    ----------
    aperture_diameter_m : float
        Of the primary mirror, 1e-3 to 100.
    obscuration_ratio : float
        Diameter of the central obstruction over that of the aperture, 0 to 0.95.
    """

    aperture_diameter_m: float
    obscuration_ratio: float = 0.0

    def __post_init__(self) -> None:
        check_range("aperture_diameter_m", self.aperture_diameter_m, 1e-3, 100.0)
        check_range("obscuration_ratio", self.obscuration_ratio, 0.0, 0.95)

    @property
    def area_m2(self) -> float:
        """What light can enter."""
        return math.pi / 4 * self.aperture_diameter_m**2 * (1 - self.obscuration_ratio**2)


@dataclass(frozen=True, kw_only=True)
class GaussianBeam:
    """A Gaussian beam by its radius at the transmitter and its divergence, both at 1/e^2 of the intensity.

    By keyword only, so that the convention is on the page. Make one with :meth:`of_waist` or with one of the
    named conventions.

    Parameters
    ----------
    half_angle_1e2_urad : float
        Far from the transmitter, from the axis to 1/e^2 of the axial intensity.
    waist_m : float
        Radius at the transmitter; zero where only the divergence is known, which holds far away.
    """

    half_angle_1e2_urad: float
    waist_m: float = 0.0

    def __post_init__(self) -> None:
        check_range("half_angle_1e2_urad", self.half_angle_1e2_urad, ANGLE_URAD_MIN, ANGLE_URAD_MAX)
        check_range("waist_m", self.waist_m, 0.0, 100.0)

    @classmethod
    def of_waist(cls, waist_m: float, wavelength_nm: float) -> "GaussianBeam":
        """Return the diffraction-limited beam of a waist: half angle ``lambda / (pi w0)``."""
        check_range("waist_m", waist_m, 1e-5, 100.0)
        check_range("wavelength_nm", wavelength_nm, 200.0, 20_000.0)
        half_angle_urad = 1e6 * wavelength_nm * 1e-9 / (math.pi * waist_m)
        return cls(half_angle_1e2_urad=half_angle_urad, waist_m=waist_m)

    @classmethod
    def of_half_angle_1e2(cls, half_angle_urad: float) -> "GaussianBeam":
        """Return the beam whose half angle, axis to 1/e^2 of the intensity, is this."""
        return cls(half_angle_1e2_urad=half_angle_urad)

    @classmethod
    def of_full_angle_1e2(cls, full_angle_urad: float) -> "GaussianBeam":
        """Return the beam whose full angle between the points of 1/e^2 of the intensity is this."""
        check_range("full_angle_urad", full_angle_urad, 2 * ANGLE_URAD_MIN, 2 * ANGLE_URAD_MAX)
        return cls(half_angle_1e2_urad=full_angle_urad / 2)

    @classmethod
    def of_full_width_half_maximum(cls, full_width_urad: float) -> "GaussianBeam":
        """Return the beam whose full angle between the points of half the intensity is this."""
        check_range("full_width_urad", full_width_urad, 2 * ANGLE_URAD_MIN, 1.5 * ANGLE_URAD_MAX)
        return cls(half_angle_1e2_urad=full_width_urad / 2 * _HALF_MAXIMUM)

    @property
    def full_angle_1e2_urad(self) -> float:
        return 2 * self.half_angle_1e2_urad

    @property
    def full_width_half_maximum_urad(self) -> float:
        return 2 * self.half_angle_1e2_urad / _HALF_MAXIMUM

    def radius_m(self, distance_km: ArrayLike) -> Floats:
        """Return the radius at 1/e^2 of the intensity, ``w(d)``."""
        distance = check_range("distance_km", distance_km, 0.0, DISTANCE_KM_MAX)
        # urad times km is 1e-6 * 1e3 m.
        radius: Floats = np.hypot(self.waist_m, self.half_angle_1e2_urad * distance * 1e-3)
        return radius

    def enclosed_fraction(self, radius_m: ArrayLike, distance_km: ArrayLike) -> Floats:
        """Return ``1 - exp(-2 a^2 / w^2)``."""
        radius = check_range("radius_m", radius_m, 0.0, 1e6)
        width = check_range("beam_radius_m", self.radius_m(distance_km), 1e-9, 1e12)
        enclosed: Floats = -np.expm1(-2 * (radius / width) ** 2)
        return enclosed


@dataclass(frozen=True, kw_only=True)
class UniformDisc:
    """A beam of even intensity within a full angle, and none outside: how link budgets are often stated.

    No such beam exists; :meth:`gaussian_of_equal_axis` is the beam that a telescope on the axis cannot tell
    from it.
    """

    full_angle_urad: float

    def __post_init__(self) -> None:
        check_range("full_angle_urad", self.full_angle_urad, ANGLE_URAD_MIN, ANGLE_URAD_MAX)

    def enclosed_fraction(self, radius_m: ArrayLike, distance_km: ArrayLike) -> Floats:
        """Return the ratio of areas, at most one."""
        radius = check_range("radius_m", radius_m, 0.0, 1e6)
        distance = check_range("distance_km", distance_km, 1e-6, DISTANCE_KM_MAX)
        disc_m = self.full_angle_urad / 2 * distance * 1e-3
        return np.minimum((radius / disc_m) ** 2, 1.0)

    def gaussian_of_equal_axis(self) -> GaussianBeam:
        """Return the Gaussian beam of the same power with the same intensity on its axis, far away."""
        return GaussianBeam.of_half_angle_1e2(self.full_angle_urad / 2 * math.sqrt(2))


@dataclass(frozen=True)
class TruncatedBeam:
    """A Gaussian beam cut by the transmitter's aperture and its central obstruction, far away.

    The Fraunhofer integral over the aperture, by quadrature; fractions are of the power *before* the
    aperture, so truncation is in them.

    Parameters
    ----------
    waist_m : float
        Radius of the beam in the aperture, at 1/e^2 of the intensity.
    aperture_diameter_m : float
        Of the transmitter.
    wavelength_nm : float
    obscuration_ratio : float
        Linear, of the transmitter, 0 to 0.95.

    References
    ----------
    B. J. Klein, J. J. Degnan, "Optical antenna gain. 1: Transmitting antennas", Appl. Opt. 13, 2134 (1974);
    from memory, unverified against the paper, and derived here: the axial intensity is that of the
    untruncated beam times ``[exp(-(a g / w)^2) - exp(-(a / w)^2)]^2``, aperture radius a and obscuration g.
    """

    waist_m: float
    aperture_diameter_m: float
    wavelength_nm: float
    obscuration_ratio: float = 0.0

    def __post_init__(self) -> None:
        check_range("waist_m", self.waist_m, 1e-5, 100.0)
        check_range("aperture_diameter_m", self.aperture_diameter_m, 1e-4, 100.0)
        check_range("wavelength_nm", self.wavelength_nm, 200.0, 20_000.0)
        check_range("obscuration_ratio", self.obscuration_ratio, 0.0, 0.95)
        # A beam that hardly reaches the rim, or one flat to 1e-4: other types say that better.
        check_range("aperture_radius_over_waist", self.aperture_diameter_m / 2 / self.waist_m, 0.01, 10.0)

    @property
    def axial_gain_ratio(self) -> float:
        """Axial intensity over that of an evenly lit, clear aperture with the same emitted power.

        At most 0.81, at ``w0 = 0.89 a``.
        """
        alpha2 = (self.aperture_diameter_m / 2 / self.waist_m) ** 2
        step = math.exp(-alpha2 * self.obscuration_ratio**2) - math.exp(-alpha2)
        return 2 / alpha2 * step**2

    @property
    def emitted_fraction(self) -> float:
        """What passes the aperture."""
        alpha2 = (self.aperture_diameter_m / 2 / self.waist_m) ** 2
        return math.exp(-2 * alpha2 * self.obscuration_ratio**2) - math.exp(-2 * alpha2)

    def gaussian_of_equal_axis(self) -> GaussianBeam:
        """Return the Gaussian beam of the emitted power with the same intensity on its axis, far away.

        A telescope well inside the beam cannot tell it from that, and jitter hardly.
        """
        alpha2 = (self.aperture_diameter_m / 2 / self.waist_m) ** 2
        step = math.exp(-alpha2 * self.obscuration_ratio**2) - math.exp(-alpha2)
        untruncated_urad = 1e6 * self.wavelength_nm * 1e-9 / (math.pi * self.waist_m)
        return GaussianBeam.of_half_angle_1e2(untruncated_urad / step * math.sqrt(self.emitted_fraction))

    def enclosed_fraction(self, radius_m: ArrayLike, distance_km: ArrayLike) -> Floats:
        """Return the fraction of the power before the aperture that falls within a radius of the axis.

        Raises
        ------
        OutsideModel
            Nearer than ten times ``a^2 / lambda``, where the far field does not hold, or for a radius with
            more than some ten rings of the pattern.
        """
        radius = check_range("radius_m", radius_m, 0.0, 1e6)
        distance = check_range("distance_km", distance_km, self.far_field_km, DISTANCE_KM_MAX)
        aperture, wavelength = self.aperture_diameter_m / 2, self.wavelength_nm * 1e-9
        rim = 2 * math.pi / wavelength * aperture * radius / (distance * 1e3)
        if (rim > 30).any():
            raise OutsideModel("radius_m", float(np.max(radius)), "a radius well within ten rings")
        nodes, weights = np.polynomial.legendre.leggauss(48)
        within = (nodes + 1) / 2  # squared radius in the receiver over that of its rim
        intensity = self._relative_intensity(rim[..., None] * np.sqrt(within))
        axial = 2 * math.pi * (self.waist_m / (wavelength * distance * 1e3)) ** 2
        enclosed: Floats = axial * math.pi * radius**2 * (intensity * weights / 2).sum(axis=-1)
        return enclosed

    @property
    def far_field_km(self) -> float:
        """The nearest distance at which this holds."""
        return 10 * (self.aperture_diameter_m / 2) ** 2 / (self.wavelength_nm * 1e-9) * 1e-3

    def _relative_intensity(self, phase: Floats) -> Floats:
        """Return the intensity over the axial one of the whole Gaussian beam; phase is ``k a theta``."""
        alpha2 = (self.aperture_diameter_m / 2 / self.waist_m) ** 2
        hole = self.obscuration_ratio**2
        nodes, weights = np.polynomial.legendre.leggauss(48)
        area = hole + (1 - hole) * (nodes + 1) / 2  # squared radius in the aperture: smooth in this variable
        lit = np.exp(-alpha2 * area) * weights * (1 - hole) / 2 * alpha2
        amplitude: Floats = (j0(phase[..., None] * np.sqrt(area)) * lit).sum(axis=-1)
        return amplitude**2


def collected_fraction(beam: Beam, telescope: Telescope, distance_km: ArrayLike) -> Floats:
    """Return the fraction of the emitted photons that enter a telescope on the axis of the beam.

    Parameters
    ----------
    beam : GaussianBeam, UniformDisc or TruncatedBeam
        Never a bare angle.
    telescope : Telescope
    distance_km : array_like, shape S
        Slant range, 0 to 1e6.

    Returns
    -------
    ndarray, shape S
        Between 0 and 1. Optics, atmosphere, pointing and detector are not included.
    """
    radius = telescope.aperture_diameter_m / 2
    whole = beam.enclosed_fraction(radius, distance_km)
    if telescope.obscuration_ratio == 0:
        return whole
    return whole - beam.enclosed_fraction(radius * telescope.obscuration_ratio, distance_km)


def loss_db(transmittance: ArrayLike) -> Floats:
    """Return a transmittance as a loss in dB; positive for what is lost."""
    fraction = check_range("transmittance", transmittance, 1e-300, 1.0)
    loss: Floats = -10 * np.log10(fraction)
    return loss
