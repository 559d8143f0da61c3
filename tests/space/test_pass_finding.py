"""Passes: against looking every two seconds, against Skyfield, and the awkward ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skyfield.api import EarthSatellite, load, wgs84

from openqci.core.errors import OutsideModel
from openqci.space.frames import Stations, earth_fixed
from openqci.space.geometry import pass_duration_s
from openqci.space.orbits import ModelOrbit, circular, geostationary, sun_synchronous
from openqci.space.pass_finding import find_passes, joined
from openqci.space.time_scales import DAY_S, utc_seconds
from openqci.space.tracks import track_of
from tests.space.make import MICIUS_2016, MICIUS_2024, SITES, micius

EPOCH = utc_seconds("2027-03-20")
ORBITS = {
    "sso": sun_synchronous("sso", altitude_km=500.0, local_time_h=22.5, epoch_utc_s=EPOCH),
    "low": circular("low", altitude_km=200.0, inclination_deg=120.0, epoch_utc_s=EPOCH),
    "meo": circular("meo", altitude_km=8000.0, inclination_deg=56.0, epoch_utc_s=EPOCH),
    "geo": geostationary("geo", longitude_deg=0.0, epoch_utc_s=EPOCH),
    "molniya": ModelOrbit("molniya", EPOCH, 26_600.0, 63.4, 0.0, 0.0, 0.74, 270.0),
    "ellipse": ModelOrbit("ellipse", EPOCH, 9000.0, 50.0, 0.0, 0.0, 0.2, 70.0),
}
RNG = np.random.Generator(np.random.SFC64(11))
PLACES = Stations.of(
    [f"s{place}" for place in range(12)],
    np.degrees(np.arcsin(RNG.uniform(-1, 1, 12))),
    RNG.uniform(-180, 180, 12),
    RNG.uniform(0, 3000, 12),
)
LOOK_S = 2.0


def looked_for(orbit, elevation_deg, days):
    """Passes by looking every two seconds: station, rise, set; straight lines in between."""
    moments = EPOCH + np.arange(0.0, days * DAY_S + 1, LOOK_S)
    position, _ = earth_fixed(*orbit.states(moments), moments)
    for station in range(len(PLACES)):
        away = position - PLACES.positions_km[station]
        height = away @ PLACES.up[station] / np.linalg.norm(away, axis=1)
        over = height - np.sin(np.radians(elevation_deg))
        above = np.concatenate([[False], over > 0, [False]])
        rises, sets = np.flatnonzero(np.diff(above))[::2], np.flatnonzero(np.diff(above))[1::2] - 1
        for rise, set_ in zip(rises, sets, strict=True):
            last = len(moments) - 1
            before = LOOK_S * over[rise] / (over[rise] - over[rise - 1]) if rise else 0.0
            after = LOOK_S * over[set_] / (over[set_] - over[set_ + 1]) if set_ < last else 0.0
            yield station, moments[rise] - before, moments[set_] + after


@pytest.mark.parametrize("elevation_deg", [0.0, 10.0, 30.0, 80.0])
@pytest.mark.parametrize("name", ORBITS)
def test_all_passes_are_found_and_no_others(name, elevation_deg):
    found = find_passes(track_of(ORBITS[name], EPOCH, EPOCH + 2 * DAY_S), PLACES, elevation_deg)
    expected = list(looked_for(ORBITS[name], elevation_deg, 2))
    # Whoever looks every two seconds may miss a shorter pass.
    long = found.part(found.durations_s > LOOK_S)
    assert len(long) <= len(expected) <= len(found)
    for station, rise, set_ in expected:
        here = np.flatnonzero((found.station == station) & (np.abs(found.rise_utc_s - rise) < LOOK_S))
        assert len(here) == 1
        assert found.rise_utc_s[here[0]] == pytest.approx(rise, abs=1.0)
        assert found.set_utc_s[here[0]] == pytest.approx(set_, abs=1.0)
    assert (found.rise_utc_s <= found.culmination_utc_s + 1e-3).all()
    assert (found.culmination_utc_s <= found.set_utc_s + 1e-3).all()
    assert (found.culminations_deg >= elevation_deg - 1e-9).all()


@pytest.mark.parametrize("elevation_deg", [10.0, 30.0])
@pytest.mark.parametrize("text", [MICIUS_2016, MICIUS_2024])
def test_events_are_those_of_skyfield_within_a_second(text, elevation_deg):
    orbit = micius(text)
    start = orbit.elements.epoch_utc_s
    days = 10
    found = find_passes(track_of(orbit, start, start + days * DAY_S), SITES, elevation_deg)
    scale = load.timescale(builtin=True)
    satellite = EarthSatellite(*text.splitlines()[1:], ts=scale)
    day, second = divmod(start, DAY_S)
    midnight = scale.utc(1970, 1, 1 + day)
    from_, to = scale.utc(1970, 1, 1 + day, 0, 0, second), scale.utc(1970, 1, 1 + day + days, 0, 0, second)
    events = 0
    for station in range(len(SITES)):
        site = wgs84.latlon(
            SITES.latitudes_deg[station],
            SITES.longitudes_deg[station],
            elevation_m=SITES.altitudes_m[station],
        )
        when, what = satellite.find_events(site, from_, to, altitude_degrees=elevation_deg)
        theirs = day * DAY_S + (when - midnight) * DAY_S if len(when) else np.array([])
        ours = found.part(found.station == station)
        events += len(what)
        for kind, moments in enumerate((ours.rise_utc_s, ours.culmination_utc_s, ours.set_utc_s)):
            whole = moments if kind == 1 else moments[ours.whole]
            # Skyfield tells no event of what has begun or goes on; a culmination it does.
            matched = [float(np.abs(theirs[what == kind] - moment).min()) for moment in whole]
            assert max(matched, default=0.0) < 1.0
        assert len(ours) - (what == 1).sum() in (0, 1, 2)
    assert events > 100 or elevation_deg > 10


def test_compiled_and_portable_routes_are_one():
    track = track_of(ORBITS["sso"], EPOCH, EPOCH + 10 * DAY_S)
    one, other = (find_passes(track, PLACES, 20.0, compiled=each) for each in (True, False))
    assert len(one) == len(other) > 100
    for name in ("rise_utc_s", "set_utc_s"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-4)
    # A culmination is flat: its moment is known less well than its height.
    assert one.culmination_utc_s == pytest.approx(other.culmination_utc_s, abs=1e-2)
    assert one.culminations_deg == pytest.approx(other.culminations_deg, abs=1e-7)


def test_an_overhead_pass_lasts_as_long_as_the_closed_form_says():
    orbit = circular("polar", altitude_km=500.0, inclination_deg=90.0, epoch_utc_s=EPOCH)
    found = find_passes(track_of(orbit, EPOCH, EPOCH + 20 * DAY_S), SITES, 20.0)
    pole = found.part((found.station == 5) & (found.culminations_deg > 89.0))
    # Over the pole the Earth's turning does not matter; altitude there is 21 km more than over the equator.
    assert pole.durations_s == pytest.approx(pass_duration_s(521.4, 20.0), rel=0.01)


def test_a_geostationary_satellite_is_one_pass_without_ends():
    found = find_passes(track_of(ORBITS["geo"], EPOCH, EPOCH + DAY_S), SITES, 5.0)
    seen = {SITES.names[station] for station in found.station}
    assert seen == {"kourou", "teide", "oberpfaffenhofen", "kiruna"}
    assert not found.whole.any()
    assert (found.rise_utc_s == EPOCH).all() and found.set_utc_s == pytest.approx(EPOCH + DAY_S)


def test_a_station_that_never_sees_it_has_no_pass():
    equatorial = circular("equatorial", altitude_km=500.0, inclination_deg=5.0, epoch_utc_s=EPOCH)
    found = find_passes(track_of(equatorial, EPOCH, EPOCH + 30 * DAY_S), SITES, 10.0)
    assert {SITES.names[station] for station in found.station} == {"kourou"}


def test_cutting_the_time_cuts_passes_and_loses_none():
    orbit = ORBITS["sso"]
    whole = find_passes(track_of(orbit, EPOCH, EPOCH + 2 * DAY_S), PLACES, 10.0)
    # In the middle of a pass.
    cut = float(whole.culmination_utc_s[len(whole) // 2])
    first = find_passes(track_of(orbit, EPOCH, cut), PLACES, 10.0)
    second = find_passes(track_of(orbit, cut, EPOCH + 2 * DAY_S), PLACES, 10.0)
    assert len(first) + len(second) - len(whole) == (~first.whole & (first.set_utc_s > cut - 1e-3)).sum() > 0
    total = first.durations_s.sum() + second.durations_s.sum()
    assert total == pytest.approx(whole.durations_s.sum(), abs=0.1)


@settings(max_examples=25, deadline=None)
@given(st.floats(300.0, 2000.0), st.floats(0.0, 180.0), st.floats(0.0, 360.0), st.floats(5.0, 60.0))
def test_a_higher_minimum_makes_every_pass_shorter(altitude_km, inclination_deg, raan_deg, elevation_deg):
    orbit = circular(
        "x",
        altitude_km=altitude_km,
        inclination_deg=inclination_deg,
        raan_deg=raan_deg,
        epoch_utc_s=EPOCH,
    )
    track = track_of(orbit, EPOCH, EPOCH + DAY_S)
    low, high = (find_passes(track, PLACES, each) for each in (elevation_deg, elevation_deg + 10))
    for index in range(len(high)):
        around = (
            (low.station == high.station[index])
            & (low.rise_utc_s <= high.rise_utc_s[index] + 1e-3)
            & (low.set_utc_s >= high.set_utc_s[index] - 1e-3)
        )
        assert around.sum() == 1
    assert low.culminations_deg[low.culminations_deg > elevation_deg + 10] == pytest.approx(
        high.culminations_deg, abs=1e-6
    )


def test_passes_of_several_satellites_in_the_order_of_time():
    tracks = [track_of(ORBITS[name], EPOCH, EPOCH + DAY_S) for name in ("sso", "low")]
    both = joined([find_passes(track, PLACES, 10.0) for track in tracks]).in_order_of_time()
    assert both.satellites == ("sso", "low") and set(both.satellite) == {0, 1}
    assert (np.diff(both.rise_utc_s) >= 0).all()


def test_a_minimum_elevation_that_is_none():
    with pytest.raises(OutsideModel, match="elevation_min_deg = -1"):
        find_passes(track_of(ORBITS["sso"], EPOCH, EPOCH + DAY_S), SITES, -1.0)
