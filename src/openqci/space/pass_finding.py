"""When satellites rise over stations, culminate and set: a coarse look, then the roots of polynomials.

Between two nodes of a :class:`~openqci.space.tracks.Track` the satellite moves on a cubic. So the square of
its distance from a station is a polynomial of degree six in time, and its height above the station's horizon
one of degree three: elevation and its slope are ratios of polynomials with a dozen coefficients, and rise,
culmination and set their roots, found by Newton's method inside an interval that holds one.

Which intervals to look at is decided by a bound: within half a step a satellite moves no more than so many
degrees, as seen from the centre of the Earth. Where it is farther from the station than the minimum
elevation allows, with that much to spare, at a node, there is no culmination near that node.

>>> from openqci.space.orbits import sun_synchronous
>>> from openqci.space.tracks import track_of
>>> orbit = sun_synchronous("model", altitude_km=500.0, local_time_h=22.5, epoch_utc_s=1_774_008_000.0)
>>> stations = Stations.of(["teide"], [28.3009], [-16.5118], [2393.0])
>>> track = track_of(orbit, 1_774_008_000.0, 1_774_008_000.0 + 86_400.0)
>>> found = find_passes(track, stations, elevation_min_deg=20.0)
>>> found.culminations_deg.round(1).tolist(), (found.set_utc_s - found.rise_utc_s).round().tolist()
([63.8], [287.0])

Read :mod:`openqci.space.pass_samples` next: what is seen during a pass.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from openqci.kernels import kernels_available
from openqci.space.frames import Stations
from openqci.space.ranges import Floats, check_range
from openqci.space.tracks import Track

Indices = NDArray[np.int64]

EVENT_ERROR_STEPS = 1e-7
"""Of a step; ten microseconds, in which a satellite flies 8 cm."""

ITERATIONS_MAX = 60
"""Of Newton's method inside an interval; four to six are usual, and halving alone takes 24."""

GROUND_RADIUS_KM = 6356.0
"""Less than the polar radius: from nearer to the centre, a satellite is seen farther around."""

DEFLECTION_RAD = math.radians(0.2)
"""How far the vertical of a station may be off the line from the centre; 0.193 deg at 45 deg of latitude."""

ROUNDING_RAD = 1e-3
"""What single precision may be wrong by near the zenith, where a cosine hardly changes."""


@dataclass(frozen=True)
class Passes:
    """Passes of satellites over stations, P of them; every array has shape (P,).

    Attributes
    ----------
    satellites, stations : tuple of str
        Names, to which the next two point.
    satellite, station : ndarray of int
    rise_utc_s, culmination_utc_s, set_utc_s : ndarray
        Crossings of the minimum elevation, and the highest point between them.
    culminations_deg : ndarray
    whole : ndarray of bool
        False where the pass had begun before the time looked at, or went on after it: then rise or set is the
        end of that time.
    """

    satellites: tuple[str, ...]
    stations: tuple[str, ...]
    satellite: Indices
    station: Indices
    rise_utc_s: Floats
    culmination_utc_s: Floats
    set_utc_s: Floats
    culminations_deg: Floats
    whole: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rise_utc_s)

    @property
    def durations_s(self) -> Floats:
        return self.set_utc_s - self.rise_utc_s

    def part(self, chosen: "Indices | slice | NDArray[np.bool_]") -> "Passes":
        """Return some of them, by places or by a mask."""
        arrays = [getattr(self, field.name)[chosen] for field in fields(self)[2:]]
        return Passes(self.satellites, self.stations, *arrays)

    def in_order_of_time(self) -> "Passes":
        return self.part(np.lexsort((self.station, self.satellite, self.rise_utc_s)))


def joined(parts: Sequence[Passes]) -> Passes:
    """Return the passes of several satellites over the same stations as one table."""
    satellites = tuple(name for part in parts for name in part.satellites)
    offsets = np.cumsum([0, *(len(part.satellites) for part in parts)])[:-1]
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Passes)[3:]
    }
    satellite = np.concatenate([part.satellite + offset for part, offset in zip(parts, offsets, strict=True)])
    return Passes(satellites, parts[0].stations, satellite, **columns)


def find_passes(
    track: Track, stations: Stations, elevation_min_deg: float, *, compiled: bool | None = None
) -> Passes:
    """Return all passes of one satellite over stations during its track.

    Parameters
    ----------
    track : Track
    stations : Stations
        G of them.
    elevation_min_deg : float
        0 to 89.
    compiled : bool, optional
        Whether roots are found by compiled kernels; by default where they are installed.

    Returns
    -------
    Passes
        In the order of stations, then of time; none for a station that never sees the satellite so high.
    """
    lowest = math.sin(math.radians(float(check_range("elevation_min_deg", elevation_min_deg, 0.0, 89.0))))
    near = nodes_nearby(track, stations, float(elevation_min_deg))
    seek = (KernelRoots if use_kernels(compiled) else PortableRoots)(track, stations)
    spans = spans_of_passes(seek, *near, lowest)
    last = len(track.positions_km) - 1
    begun, unfinished = spans.below_before < 0, spans.below_after > last
    node = np.maximum(spans.below_before, 0)
    low, high = np.zeros(len(node)), np.minimum(spans.peak - node, 1.0)
    rise = np.where(begun, 0.0, node + seek.crossings(spans.station, node, lowest, 1.0, low, high))
    node = np.minimum(spans.below_after, last) - 1
    low, high = np.maximum(spans.peak - node, 0.0), np.ones(len(node))
    sets = np.where(unfinished, last, node + seek.crossings(spans.station, node, lowest, -1.0, low, high))
    rise_s, peak_s, set_s = (track.start_utc_s + track.step_s * each for each in (rise, spans.peak, sets))
    return Passes(
        (track.name,),
        stations.names,
        np.zeros(len(rise), dtype=np.int64),
        spans.station,
        rise_s,
        peak_s,
        set_s,
        np.degrees(np.arcsin(np.clip(spans.peak_sine, -1.0, 1.0))),
        ~(begun | unfinished),
    )


# The coarse look


def nodes_nearby(track: Track, stations: Stations, elevation_min_deg: float) -> tuple[Indices, Indices]:
    """Return stations and nodes, as pairs in order, at which a satellite may be about to culminate in a pass.

    Every pass has its culmination within half a step of one of these nodes, or of an end of the track.
    """
    lowest = math.radians(elevation_min_deg) - DEFLECTION_RAD
    farthest = math.acos(GROUND_RADIUS_KM * math.cos(lowest) / track.apogee_radius_km) - lowest
    reach = farthest + DEFLECTION_RAD + track.turn_rad_s * track.step_s / 2 + ROUNDING_RAD
    least_cosine = math.cos(min(reach, math.pi))
    radii = np.sqrt(np.einsum("ni,ni->n", track.positions_km, track.positions_km))
    x, y, z = (track.positions_km.T / radii).astype(np.float32)
    # Not a product of matrices: with three terms to a sum, the threads of BLAS wait more than they work.
    cosines = (x * east + y * north + z * pole for east, north, pole in stations.up.astype(np.float32))
    found = [np.flatnonzero(each > least_cosine) for each in cosines]
    return np.repeat(np.arange(len(found)), [len(each) for each in found]), np.concatenate(found)


@dataclass(frozen=True)
class Spans:
    """Passes by the nodes beside them, arrays of shape (P,).

    ``below_before`` is the last node before the rise, -1 if it rose before the track; ``below_after`` the
    first after the set, or one beyond the track; ``peak`` the culmination, in steps from the first node, and
    ``peak_sine`` the sine of the elevation then.
    """

    station: Indices
    below_before: Indices
    below_after: Indices
    peak: Floats
    peak_sine: Floats


def spans_of_passes(seek: "Roots", station: Indices, node: Indices, lowest: float) -> Spans:
    """Return the passes of which a nearby node is a part, or that lie between two nodes, in order."""
    sine, slope = at_nodes(seek.track, seek.stations, station, node)
    above = sine > lowest
    # Neighbours in the list are neighbours in time unless the station changes or nodes are left out.
    follows = (station[1:] == station[:-1]) & (node[1:] == node[:-1] + 1)
    joins = follows & above[1:] & above[:-1]
    first = np.flatnonzero(above & ~np.concatenate([[False], joins]))
    last = np.flatnonzero(above & ~np.concatenate([joins, [False]]))
    highest = first_maxima(np.where(above, sine, -2.0), first)
    # A satellite that stands higher at no node than the minimum may do so in between, where it climbs after
    # one node and sinks before the next. Of a node that is not in the list is known that it is low.
    low_after, low_before = np.concatenate([~follows, [True]]), np.concatenate([[True], ~follows])
    low_after[:-1] |= ~above[1:] & (slope[1:] < 0)
    between = np.flatnonzero(~above & np.where(slope > 0, low_after, low_before))
    row = np.concatenate([highest, between])
    begins, part, peak_sine = culminations(seek, station[row], node[row], slope[row])
    before = np.concatenate([node[first] - 1, begins[len(first) :]])
    after = np.concatenate([node[last] + 1, begins[len(first) :] + 1])
    passes = peak_sine > lowest
    passes[: len(first)] = True
    found = np.flatnonzero(passes)
    found = found[np.lexsort((before[found], station[row][found]))]
    return Spans(station[row][found], before[found], after[found], (begins + part)[found], peak_sine[found])


def at_nodes(track: Track, stations: Stations, station: Indices, node: Indices) -> tuple[Floats, Floats]:
    """Return the sine of the elevation at nodes, and a number with the sign of its slope."""
    away = track.positions_km[node] - stations.positions_km[station]
    velocity, up = track.velocities_km_s[node], stations.up[station]
    squared = np.einsum("ni,ni->n", away, away)
    height, climb = np.einsum("ni,ni->n", away, up), np.einsum("ni,ni->n", velocity, up)
    slope = climb * squared - height * np.einsum("ni,ni->n", away, velocity)
    return height / np.sqrt(squared), slope


def first_maxima(values: Floats, starts: Indices) -> Indices:
    """Return the place of the largest value of each run, the first of equals; runs begin at ``starts``."""
    if not len(starts):
        return starts
    largest = np.maximum.reduceat(values, starts)
    run = np.zeros(len(values), dtype=np.int64)
    run[starts] = 1
    run = np.cumsum(run) - 1
    hits = np.flatnonzero((run >= 0) & (values == largest[run]))
    _, first = np.unique(run[hits], return_index=True)
    return hits[first]


def culminations(
    seek: "Roots", station: Indices, node: Indices, slope: Floats
) -> tuple[Indices, Floats, Floats]:
    """Return the steps in which satellites are highest beside nodes, how far in them, and the sine then.

    ``slope`` has the sign of the climb at the node: it says on which side of it the culmination is.
    """
    last = len(seek.track.positions_km) - 1
    begins = np.clip(np.where(slope > 0, node, node - 1), 0, last - 1)
    return begins, *seek.culminations(station, begins)


# Roots


class Roots(Protocol):
    """What finds events inside steps of a track as seen from stations."""

    @property
    def track(self) -> Track: ...

    @property
    def stations(self) -> Stations: ...

    def culminations(self, station: Indices, node: Indices) -> tuple[Floats, Floats]:
        """Return where in the step after each node the elevation is highest, 0 to 1, and its sine."""

    def crossings(
        self, station: Indices, node: Indices, lowest: float, sign: float, low: Floats, high: Floats
    ) -> Floats:
        """Return where the sine of the elevation rises (sign 1) or falls (-1) through ``lowest``.

        Between ``low`` and ``high`` of the step after each node.
        """


@dataclass(frozen=True)
class PortableRoots:
    """Roots in NumPy, all of them at once."""

    track: Track
    stations: Stations

    def culminations(self, station: Indices, node: Indices) -> tuple[Floats, Floats]:
        arc = Arc.of(self.track, self.stations, station, node)
        part = root(arc.sinking, np.zeros(len(node)), np.ones(len(node)))
        return part, arc.sine(part)

    def crossings(
        self, station: Indices, node: Indices, lowest: float, sign: float, low: Floats, high: Floats
    ) -> Floats:
        return root(Arc.of(self.track, self.stations, station, node).above(lowest, sign), low, high)


@dataclass(frozen=True)
class KernelRoots:
    """Roots in machine code, one after another; some five times as fast."""

    track: Track
    stations: Stations

    def culminations(self, station: Indices, node: Indices) -> tuple[Floats, Floats]:
        from openqci.kernels.passes import culminations

        part, sine = np.empty(len(node)), np.empty(len(node))
        culminations(*self._places(), station, node, part, sine)
        return part, sine

    def crossings(
        self, station: Indices, node: Indices, lowest: float, sign: float, low: Floats, high: Floats
    ) -> Floats:
        from openqci.kernels.passes import crossings

        found = np.empty(len(node))
        crossings(*self._places(), station, node, lowest, sign, low, high, found)
        return found

    def _places(self) -> tuple[Floats, Floats, float, Floats, Floats]:
        track, stations = self.track, self.stations
        ups = np.ascontiguousarray(stations.up)
        return track.positions_km, track.velocities_km_s, track.step_s, stations.positions_km, ups


def use_kernels(compiled: bool | None) -> bool:
    """Return what was asked for, or whether compiled kernels are there."""
    return kernels_available() if compiled is None else compiled


@dataclass(frozen=True)
class Arc:
    """One step of the track as seen from a station, P of them, as polynomials of the part of the step.

    Attributes
    ----------
    node : ndarray, shape (P,)
        At which the step begins.
    height : ndarray, shape (4, P)
        Above the horizontal plane of the station, km; coefficients of rising powers.
    squared : ndarray, shape (7, P)
        Square of the distance, km2.
    """

    node: Indices
    height: Floats
    squared: Floats

    @classmethod
    def of(cls, track: Track, stations: Stations, station: Indices, node: Indices) -> "Arc":
        p0, p1 = track.positions_km[node], track.positions_km[node + 1]
        v0, v1 = (track.step_s * track.velocities_km_s[each] for each in (node, node + 1))
        gap = p1 - p0
        cubic = np.stack([p0 - stations.positions_km[station], v0, 3 * gap - 2 * v0 - v1, v0 + v1 - 2 * gap])
        squared = np.zeros((7, len(node)))
        for i in range(4):
            for j in range(4):
                squared[i + j] += np.einsum("pi,pi->p", cubic[i], cubic[j])
        return cls(node, np.einsum("kpi,pi->kp", cubic, stations.up[station]), squared)

    def above(self, lowest: float, sign: float) -> "Function":
        """Return the height above the cone of the minimum elevation, times a sign, and its slope."""

        def value(u: Floats, rows: Indices) -> tuple[Floats, Floats]:
            height, climb = polynomial(self.height[:, rows], u)
            squared, change = polynomial(self.squared[:, rows], u)
            distance = np.sqrt(squared)
            return sign * (height - lowest * distance), sign * (climb - lowest * change / (2 * distance))

        return value

    def sinking(self, u: Floats, rows: Indices) -> tuple[Floats, Floats]:
        """Return a number with the sign of minus the slope of the elevation, and the slope of that number."""
        height, climb, bend = polynomial(self.height[:, rows], u, 3)
        squared, change, curve = polynomial(self.squared[:, rows], u, 3)
        value = height * change - 2 * climb * squared
        return value, height * curve - climb * change - 2 * bend * squared

    def sine(self, u: Floats) -> Floats:
        """Return the sine of the elevation."""
        rows = np.arange(len(self.node))
        sine: Floats = polynomial(self.height[:, rows], u)[0] / np.sqrt(polynomial(self.squared, u)[0])
        return sine


Function = Callable[[Floats, Indices], tuple[Floats, Floats]]
"""From places in intervals, and which intervals these are, to values and slopes."""


def polynomial(coefficients: Floats, u: Floats, orders: int = 2) -> list[Floats]:
    """Return polynomials and their first derivatives, so many in all, by Horner's rule."""
    results = [np.zeros_like(u) for _ in range(orders)]
    for coefficient in coefficients[::-1]:
        for order in range(orders - 1, 0, -1):
            results[order] = results[order] * u + order * results[order - 1]
        results[0] = results[0] * u + coefficient
    return results


def root(function: Function, low: Floats, high: Floats) -> Floats:
    """Return where functions that rise through zero do so, each inside its interval.

    Newton's method; where a step would leave what is left of the interval, that is halved. An interval
    without a root gives one of its ends, the nearer one.
    """
    found = (low + high) / 2
    rows = np.arange(len(found))
    low, high = low.copy(), high.copy()
    for _ in range(ITERATIONS_MAX):
        if not len(rows):
            break
        u = found[rows]
        value, slope = function(u, rows)
        low[rows], high[rows] = np.where(value < 0, u, low[rows]), np.where(value < 0, high[rows], u)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = u - value / slope
        inside = (step > low[rows]) & (step < high[rows])
        moved = np.where(inside, step, (low[rows] + high[rows]) / 2)
        found[rows] = moved
        rows = rows[np.abs(moved - u) > EVENT_ERROR_STEPS]
    return found
