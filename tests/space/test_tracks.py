"""Tracks: the curve between nodes is the orbit, to ten metres."""

import numpy as np
import pytest

from openqci.core.errors import OutsideModel
from openqci.space.frames import earth_fixed
from openqci.space.orbits import ModelOrbit, circular, geostationary, sun_synchronous
from openqci.space.time_scales import DAY_S, utc_seconds
from openqci.space.tracks import ERROR_KM, node_step_s, track_of
from tests.space.make import micius

EPOCH = utc_seconds("2027-03-20")
ORBITS = [
    micius(),
    sun_synchronous("sso", altitude_km=500.0, local_time_h=22.5, epoch_utc_s=EPOCH),
    circular("retrograde", altitude_km=300.0, inclination_deg=180.0, epoch_utc_s=EPOCH),
    circular("meo", altitude_km=8000.0, inclination_deg=0.0, epoch_utc_s=EPOCH),
    geostationary("geo", longitude_deg=10.0, epoch_utc_s=EPOCH),
    ModelOrbit("molniya", EPOCH, 26_600.0, 63.4, 0.0, 0.0, 0.74, 270.0),
]


@pytest.mark.parametrize("orbit", ORBITS, ids=lambda orbit: orbit.name)
def test_between_nodes_the_track_is_the_orbit(orbit):
    start = orbit.elements.epoch_utc_s if hasattr(orbit, "elements") else EPOCH
    track = track_of(orbit, start, start + 2 * DAY_S)
    moments = np.random.Generator(np.random.SFC64(3)).uniform(start, start + 2 * DAY_S, 20_000)
    position, velocity = track.at(moments)
    there, speed = earth_fixed(*orbit.states(moments), moments)
    assert np.linalg.norm(position - there, axis=1).max() < 1.1 * ERROR_KM
    assert np.linalg.norm(velocity - speed, axis=1).max() < 4e-4
    assert np.linalg.norm(there, axis=1).max() < track.apogee_radius_km
    turn = np.linalg.norm(np.cross(there, speed), axis=1) / np.einsum("ni,ni->n", there, there)
    assert turn.max() < track.turn_rad_s


def test_nodes_are_exact_and_the_ends_are_the_ends():
    orbit = ORBITS[1]
    track = track_of(orbit, EPOCH, EPOCH + 5000.0)
    assert track.stop_utc_s == pytest.approx(EPOCH + 5000.0)
    there, _ = earth_fixed(*orbit.states([EPOCH, EPOCH + 5000.0]), [EPOCH, EPOCH + 5000.0])
    assert track.at([EPOCH, track.stop_utc_s])[0] == pytest.approx(there, abs=1e-6)


def test_the_step_follows_the_error_asked_for():
    orbit = ORBITS[1]
    assert node_step_s(orbit, 0.16) == pytest.approx(2 * node_step_s(orbit, 0.01))
    assert node_step_s(orbit) == pytest.approx(129.0, abs=1.0)


def test_a_track_ends_after_it_starts_and_is_not_asked_beyond():
    with pytest.raises(OutsideModel, match="stop_utc_s"):
        track_of(ORBITS[1], EPOCH, EPOCH)
    with pytest.raises(OutsideModel, match="utc_s"):
        track_of(ORBITS[1], EPOCH, EPOCH + 100.0).at(EPOCH + 101.0)
