"""A satellite's way around the Earth as a curve that is cheap to ask anywhere: nodes and cubics.

SGP4 costs a microsecond per moment, and a year of a hundred satellites in steps of 10 s is three hundred
million of them. But an orbit is smooth. A :class:`Track` holds positions and velocities, fixed to the Earth,
at nodes some two minutes apart, and answers in between with the cubic that has both at either end (Hermite).
The step is chosen from the orbit so that the cubic is wrong by less than :data:`ERROR_KM`.

>>> from openqci.space.orbits import sun_synchronous
>>> orbit = sun_synchronous("model", altitude_km=500.0, local_time_h=22.5, epoch_utc_s=1_774_008_000.0)
>>> track = track_of(orbit, 1_774_008_000.0, 1_774_008_000.0 + 86_400.0)
>>> round(track.step_s), len(track.positions_km)
(129, 671)

Read :mod:`openqci.space.pass_finding` next.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from openqci.core.errors import OutsideModel
from openqci.space.frames import ROTATION_RAD_S, earth_fixed
from openqci.space.geometry import EARTH_GRAVITY_KM3_S2
from openqci.space.orbits import Orbit
from openqci.space.ranges import Floats, check_range
from openqci.space.time_scales import check_utc

ERROR_KM = 0.01
"""By how far the curve may be off the orbit: ten metres, a hundredth of what good elements are wrong by."""

OSCULATING = 1.01
"""By how much a true orbit may exceed its mean elements; some ten kilometres in a low orbit."""

STEP_S_MAX = 1800.0
NODES_MAX = 20_000_000
"""Of one track, 1 GB; two thousand years of a low orbit."""


@dataclass(frozen=True)
class Track:
    """Nodes of one satellite, fixed to the Earth.

    Attributes
    ----------
    name : str
    start_utc_s, step_s : float
        Node n is at ``start_utc_s + n step_s``.
    positions_km, velocities_km_s : ndarray, shape (N, 3)
    apogee_radius_km : float
        No farther from the centre does it go.
    turn_rad_s : float
        No faster does it move over the ground, as seen from the centre.
    """

    name: str
    start_utc_s: float
    step_s: float
    positions_km: Floats
    velocities_km_s: Floats
    apogee_radius_km: float
    turn_rad_s: float

    @property
    def stop_utc_s(self) -> float:
        return self.start_utc_s + (len(self.positions_km) - 1) * self.step_s

    def at(self, utc_s: ArrayLike) -> tuple[Floats, Floats]:
        """Return positions and velocities, shape S + (3,), at moments of shape S within the track.

        Raises
        ------
        OutsideModel
            For a moment before the first node or after the last.
        """
        moments = check_range("utc_s", utc_s, self.start_utc_s - 1e-3, self.stop_utc_s + 1e-3)
        first, along = self.places(moments)
        return self.between(first, along)

    def places(self, utc_s: Floats) -> tuple[np.ndarray, Floats]:
        """Return the node before each moment, and how far it is to the next, 0 to 1."""
        steps = (utc_s - self.start_utc_s) / self.step_s
        first = np.clip(steps.astype(np.int64), 0, len(self.positions_km) - 2)
        return first, steps - first

    def between(self, first: np.ndarray, along: Floats) -> tuple[Floats, Floats]:
        """Return positions and velocities a part of a step after nodes."""
        h, u = self.step_s, along[..., None]
        p0, p1 = self.positions_km[first], self.positions_km[first + 1]
        v0, v1 = h * self.velocities_km_s[first], h * self.velocities_km_s[first + 1]
        # p0 + u (v0 + u (b + u a)), the cubic with these ends.
        gap = p1 - p0
        a, b = v0 + v1 - 2 * gap, 3 * gap - 2 * v0 - v1
        position = p0 + u * (v0 + u * (b + u * a))
        velocity = (v0 + u * (2 * b + 3 * u * a)) / h
        return position, velocity


def track_of(
    orbit: Orbit,
    start_utc_s: float,
    stop_utc_s: float,
    ut1_minus_utc_s: float = 0.0,
    error_km: float = ERROR_KM,
) -> Track:
    """Return the track of an orbit from one moment to another.

    Parameters
    ----------
    orbit : Orbit
    start_utc_s, stop_utc_s : float
    ut1_minus_utc_s : float
    error_km : float
        By how far the curve may be off the orbit, 1e-5 to 1.

    Raises
    ------
    OutsideModel
        If it does not end after it starts, or takes more than twenty million nodes.
    ConfigurationError
        If the orbit cannot be propagated so far.
    """
    check_utc([start_utc_s, stop_utc_s])
    if not stop_utc_s > start_utc_s:
        raise OutsideModel("stop_utc_s", stop_utc_s, f"after the start, {start_utc_s:.0f}")
    longest_s = node_step_s(orbit, check_range("error_km", error_km, 1e-5, 1.0))
    steps = math.ceil((stop_utc_s - start_utc_s) / longest_s)
    check_range("track_nodes", steps + 1, 2, NODES_MAX)
    step_s = (stop_utc_s - start_utc_s) / steps
    moments = start_utc_s + step_s * np.arange(steps + 1)
    position, velocity = earth_fixed(*orbit.states(moments), moments, ut1_minus_utc_s)
    return Track(
        orbit.name,
        start_utc_s,
        step_s,
        position,
        velocity,
        OSCULATING * orbit.apogee_radius_km,
        turn_rad_s(orbit),
    )


def node_step_s(orbit: Orbit, error_km: ArrayLike = ERROR_KM) -> float:
    """Return the longest step with which a cubic is within the error: ``h^4 r n^4 / 384``, at perigee."""
    radius, turn = orbit.perigee_radius_km, turn_rad_s(orbit)
    step_s = float((384 * np.asarray(error_km) / (radius * turn**4)) ** 0.25)
    return min(step_s, STEP_S_MAX)


def turn_rad_s(orbit: Orbit) -> float:
    """Return how fast the satellite moves at most, as an angle at the centre of the turning Earth."""
    perigee, apogee = orbit.perigee_radius_km, orbit.apogee_radius_km
    axis = (perigee + apogee) / 2
    speed = math.sqrt(EARTH_GRAVITY_KM3_S2 * (2 / perigee - 1 / axis))
    return OSCULATING * (speed / perigee + ROTATION_RAD_S)
