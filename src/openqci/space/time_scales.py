"""Moments in time as arrays, and how far the Earth has turned.

Every moment here is ``utc_s``: seconds of UTC since 1970 as POSIX counts them (every day has 86 400, a leap
second has no number of its own). A double holds such a moment to half a microsecond, in which a satellite
flies 2 mm.

>>> moment = utc_seconds("2026-03-20T12:00:00Z")
>>> moment, utc_text(moment)
(1774008000.0, '2026-03-20T12:00:00Z')
>>> round(float(np.degrees(sidereal_angle_rad(moment))), 3)
358.034

Left out: UT1 - UTC, below 0.9 s by definition and some tenths of a second in this decade. A station near the
equator is 0.46 km further west or east per second of it. Read :mod:`openqci.space.frames` next.
"""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import ArrayLike

from openqci.core.errors import ConfigurationError
from openqci.space.ranges import Floats, check_range

DAY_S = 86_400.0
EPOCH_JULIAN_DAY = 2_440_587.5
"""1970-01-01, 0 h UTC."""

J2000_JULIAN_DAY = 2_451_545.0
TT_MINUS_UTC_S = 69.184
"""Terrestrial time less UTC, since 2017; the Moon moves half an arcsecond in a second."""

UTC_S_MIN, UTC_S_MAX = -410_227_200.0, 4_102_444_800.0
"""1957, before the first satellite, to 2100, to which the formulas for Sun and Moon hold."""


def utc_seconds(text: str) -> float:
    """Return the moment of an ISO 8601 text: a day, or a day and a time; UTC unless it names an offset.

    Raises
    ------
    ConfigurationError
        For anything else, or a moment before 1957 or after 2100.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        wanted = "a day as 2027-03-20 or a moment as 2027-03-20T21:00:00Z"
        raise ConfigurationError(f"time {text!r}; expected {wanted}") from error
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    # Not timestamp(): an offset from the epoch has no time zone data to lean on.
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)
    if not UTC_S_MIN <= seconds <= UTC_S_MAX:
        raise ConfigurationError(f"time {text!r}; expected one from 1957 to 2099")
    return seconds


def utc_text(utc_s: float) -> str:
    """Return a moment as ISO 8601 in UTC, to the second."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=round(utc_s))
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def check_utc(utc_s: ArrayLike) -> Floats:
    """Return moments as floats; OutsideModel before 1957 or after 2100."""
    return check_range("utc_s", utc_s, UTC_S_MIN, UTC_S_MAX)


def julian_day(utc_s: ArrayLike) -> tuple[Floats, Floats]:
    """Return the Julian day at the midnight before, and the fraction of the day since.

    Two numbers, because one double would hold a moment to 40 microseconds only.
    """
    days, seconds = np.divmod(check_utc(utc_s), DAY_S)
    return days + EPOCH_JULIAN_DAY, seconds / DAY_S


def centuries_tt(utc_s: ArrayLike) -> Floats:
    """Return Julian centuries of terrestrial time since 2000-01-01, 12 h."""
    whole, fraction = julian_day(utc_s)
    centuries: Floats = ((whole - J2000_JULIAN_DAY) + (fraction + TT_MINUS_UTC_S / DAY_S)) / 36_525
    return centuries


def sidereal_angle_rad(utc_s: ArrayLike, ut1_minus_utc_s: float = 0.0) -> Floats:
    """Return Greenwich mean sidereal time, the angle from the mean equinox to Greenwich; 0 to 2 pi.

    Parameters
    ----------
    utc_s : array_like, shape S
    ut1_minus_utc_s : float
        From a bulletin of the IERS where it is known, -0.9 to 0.9.

    References
    ----------
    The expression of the IAU of 1982, which belongs to the frame of SGP4: S. Aoki et al., Astron. Astrophys.
    105, 359 (1982).
    """
    check_range("ut1_minus_utc_s", ut1_minus_utc_s, -0.9, 0.9)
    days, seconds = np.divmod(check_utc(utc_s) + ut1_minus_utc_s, DAY_S)
    # Sidereal time at midnight, and the mean solar day in it: the large term never meets the small ones.
    t = (days + EPOCH_JULIAN_DAY - J2000_JULIAN_DAY) / 36_525
    midnight_s = 24_110.54841 + 8_640_184.812866 * t + 0.093104 * t**2 - 6.2e-6 * t**3
    turned_s = seconds * (1.00273790935 + 5.9006e-11 * t)
    angle: Floats = np.mod(midnight_s + turned_s, DAY_S) * (2 * math.pi / DAY_S)
    return angle
