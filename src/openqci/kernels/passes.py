"""Satellite passes: roots of elevation and samples along a pass, one after another in registers.

The same arithmetic as the portable routes in :mod:`openqci.space.pass_finding` and
:mod:`openqci.space.pass_samples`, where it is explained; equal to them to rounding.
"""

import math
from typing import Any

from openqci.kernels.compiling import kernel

ERROR, ITERATIONS_MAX = 1e-7, 60
"""Of a root, in steps of the track; see EVENT_ERROR_STEPS and ITERATIONS_MAX in pass_finding."""


@kernel
def step_of(positions: Any, velocities: Any, step_s: float, site: Any, node: int) -> Any:
    """Return the cubics of one step seen from a site: for x, y and z the coefficients of 1, u, u^2, u^3."""
    h = step_s
    gap_x = positions[node + 1, 0] - positions[node, 0]
    gap_y = positions[node + 1, 1] - positions[node, 1]
    gap_z = positions[node + 1, 2] - positions[node, 2]
    bx, by, bz = h * velocities[node, 0], h * velocities[node, 1], h * velocities[node, 2]
    ex, ey, ez = h * velocities[node + 1, 0], h * velocities[node + 1, 1], h * velocities[node + 1, 2]
    return (
        (positions[node, 0] - site[0], bx, 3 * gap_x - 2 * bx - ex, bx + ex - 2 * gap_x),
        (positions[node, 1] - site[1], by, 3 * gap_y - 2 * by - ey, by + ey - 2 * gap_y),
        (positions[node, 2] - site[2], bz, 3 * gap_z - 2 * bz - ez, bz + ez - 2 * gap_z),
    )


@kernel
def cubic(c: Any, u: float) -> Any:
    """Return a cubic with its first and second derivative."""
    value = c[0] + u * (c[1] + u * (c[2] + u * c[3]))
    return value, c[1] + u * (2 * c[2] + 3 * u * c[3]), 2 * c[2] + 6 * u * c[3]


@kernel
def height_and_distance(x: Any, y: Any, z: Any, up: Any, u: float) -> Any:
    """Return height above the horizontal plane and square of the distance, each with two derivatives."""
    px, vx, ax = cubic(x, u)
    py, vy, ay = cubic(y, u)
    pz, vz, az = cubic(z, u)
    height = px * up[0] + py * up[1] + pz * up[2]
    climb = vx * up[0] + vy * up[1] + vz * up[2]
    bend = ax * up[0] + ay * up[1] + az * up[2]
    squared = px * px + py * py + pz * pz
    change = 2 * (px * vx + py * vy + pz * vz)
    curve = 2 * (vx * vx + vy * vy + vz * vz + px * ax + py * ay + pz * az)
    return height, climb, bend, squared, change, curve


@kernel
def crossings(
    positions: Any,
    velocities: Any,
    step_s: float,
    sites: Any,
    ups: Any,
    station: Any,
    node: Any,
    lowest: float,
    sign: float,
    low: Any,
    high: Any,
    found: Any,
) -> None:
    """Write where in a step the sine of the elevation rises (sign 1) or falls (-1) through ``lowest``."""
    for row in range(station.size):
        up = ups[station[row]]
        x, y, z = step_of(positions, velocities, step_s, sites[station[row]], node[row])
        lo, hi = low[row], high[row]
        u = (lo + hi) / 2
        for _ in range(ITERATIONS_MAX):
            height, climb, _bend, squared, change, _curve = height_and_distance(x, y, z, up, u)
            distance = math.sqrt(squared)
            value = sign * (height - lowest * distance)
            slope = sign * (climb - lowest * change / (2 * distance))
            if value < 0:
                lo = u
            else:
                hi = u
            moved = u - value / slope if slope != 0 else lo
            if not lo < moved < hi:
                moved = (lo + hi) / 2
            near = abs(moved - u) <= ERROR
            u = moved
            if near:
                break
        found[row] = u


@kernel
def culminations(
    positions: Any,
    velocities: Any,
    step_s: float,
    sites: Any,
    ups: Any,
    station: Any,
    node: Any,
    part: Any,
    sine: Any,
) -> None:
    """Write where in a step the elevation is highest, and its sine."""
    for row in range(station.size):
        up = ups[station[row]]
        x, y, z = step_of(positions, velocities, step_s, sites[station[row]], node[row])
        lo, hi, u = 0.0, 1.0, 0.5
        for _ in range(ITERATIONS_MAX):
            height, climb, bend, squared, change, curve = height_and_distance(x, y, z, up, u)
            value = height * change - 2 * climb * squared
            slope = height * curve - climb * change - 2 * bend * squared
            if value < 0:
                lo = u
            else:
                hi = u
            moved = u - value / slope if slope != 0 else lo
            if not lo < moved < hi:
                moved = (lo + hi) / 2
            near = abs(moved - u) <= ERROR
            u = moved
            if near:
                break
        height, _climb, _bend, squared, _change, _curve = height_and_distance(x, y, z, up, u)
        part[row] = u
        sine[row] = height / math.sqrt(squared)


@kernel
def degrees_of_sine(sine: float) -> float:
    return math.degrees(math.asin(min(1.0, max(-1.0, sine))))


@kernel
def samples(
    positions: Any,
    velocities: Any,
    start_utc_s: float,
    step_s: float,
    sites: Any,
    axes: Any,
    station: Any,
    rise_utc_s: Any,
    gap_s: Any,
    offsets: Any,
    sun: Any,
    moon: Any,
    almanac_start_utc_s: float,
    almanac_step_s: float,
    shadow_radius_km: float,
    sun_radius_km: float,
    utc_s: Any,
    weights_s: Any,
    elevations: Any,
    azimuths: Any,
    ranges: Any,
    range_rates: Any,
    sun_elevations: Any,
    moon_elevations: Any,
    moon_separations: Any,
    moon_phases: Any,
    sunlit: Any,
) -> None:
    """Write the samples of all passes; arrays after the radii have one place per sample."""
    last, last_almanac = positions.shape[0] - 2, sun.shape[0] - 2
    for row in range(station.size):
        site, frame = sites[station[row]], axes[station[row]]
        begin, end = offsets[row], offsets[row + 1] - 1
        for place in range(begin, end + 1):
            moment = rise_utc_s[row] + gap_s[row] * (place - begin)
            utc_s[place] = moment
            weights_s[place] = gap_s[row] / 2 if place in (begin, end) else gap_s[row]
            steps = (moment - start_utc_s) / step_s
            node = min(max(int(steps), 0), last)
            x, y, z = step_of(positions, velocities, step_s, site, node)
            dx, vx, _x = cubic(x, steps - node)
            dy, vy, _y = cubic(y, steps - node)
            dz, vz, _z = cubic(z, steps - node)
            distance = math.sqrt(dx * dx + dy * dy + dz * dz)
            east = dx * frame[0, 0] + dy * frame[0, 1] + dz * frame[0, 2]
            north = dx * frame[1, 0] + dy * frame[1, 1] + dz * frame[1, 2]
            up = dx * frame[2, 0] + dy * frame[2, 1] + dz * frame[2, 2]
            elevations[place] = degrees_of_sine(up / distance)
            azimuth = math.degrees(math.atan2(east, north))
            azimuths[place] = azimuth + 360.0 if azimuth < 0 else azimuth
            ranges[place] = distance
            range_rates[place] = (dx * vx + dy * vy + dz * vz) / distance / step_s

            steps = (moment - almanac_start_utc_s) / almanac_step_s
            node = min(max(int(steps), 0), last_almanac)
            along = steps - node
            sx = sun[node, 0] + along * (sun[node + 1, 0] - sun[node, 0])
            sy = sun[node, 1] + along * (sun[node + 1, 1] - sun[node, 1])
            sz = sun[node, 2] + along * (sun[node + 1, 2] - sun[node, 2])
            mx = moon[node, 0] + along * (moon[node + 1, 0] - moon[node, 0]) - site[0]
            my = moon[node, 1] + along * (moon[node + 1, 1] - moon[node, 1]) - site[1]
            mz = moon[node, 2] + along * (moon[node + 1, 2] - moon[node, 2]) - site[2]
            sun_distance = math.sqrt(sx * sx + sy * sy + sz * sz)
            moon_distance = math.sqrt(mx * mx + my * my + mz * mz)
            sun_up = sx * frame[2, 0] + sy * frame[2, 1] + sz * frame[2, 2]
            sun_elevations[place] = degrees_of_sine(sun_up / sun_distance)
            moon_up = mx * frame[2, 0] + my * frame[2, 1] + mz * frame[2, 2]
            moon_elevations[place] = degrees_of_sine(moon_up / moon_distance)
            together = (dx * mx + dy * my + dz * mz) / (distance * moon_distance)
            moon_separations[place] = 90.0 - degrees_of_sine(together)
            fx, fy, fz = sx - site[0] - mx, sy - site[1] - my, sz - site[2] - mz
            facing = -(fx * mx + fy * my + fz * mz)
            facing /= math.sqrt(fx * fx + fy * fy + fz * fz) * moon_distance
            moon_phases[place] = 90.0 - degrees_of_sine(facing)

            px, py, pz = dx + site[0], dy + site[1], dz + site[2]
            behind = -(px * sx + py * sy + pz * sz) / sun_distance
            off_axis = math.sqrt(max(px * px + py * py + pz * pz - behind * behind, 0.0))
            umbra = shadow_radius_km - behind * (sun_radius_km - shadow_radius_km) / sun_distance
            sunlit[place] = behind <= 0 or off_axis > umbra
