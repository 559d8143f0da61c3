"""Samples of passes: the same as asking for each moment by itself."""

from dataclasses import fields

import numpy as np
import pytest

from openqci.core.errors import OutsideModel
from openqci.space.frames import angle_deg, topocentric
from openqci.space.orbits import sun_synchronous
from openqci.space.pass_finding import find_passes
from openqci.space.pass_samples import Almanac, PassSamples, sample_passes
from openqci.space.sun_moon import (
    is_sunlit,
    moon_elevation_deg,
    moon_position_km,
    sun_elevation_deg,
    sun_position_km,
)
from openqci.space.time_scales import DAY_S, utc_seconds
from openqci.space.tracks import track_of
from tests.space.make import SITES

EPOCH = utc_seconds("2027-03-20")
ORBIT = sun_synchronous("sso", altitude_km=500.0, local_time_h=21.0, epoch_utc_s=EPOCH)
TRACK = track_of(ORBIT, EPOCH, EPOCH + 6 * DAY_S)
PASSES = find_passes(TRACK, SITES, 10.0)


@pytest.fixture(scope="module")
def seen() -> PassSamples:
    return sample_passes(TRACK, SITES, PASSES, 10.0)


def test_the_compiled_route_and_the_portable_one_agree(seen):
    portable = sample_passes(TRACK, SITES, PASSES, 10.0, compiled=False)
    compiled = sample_passes(TRACK, SITES, PASSES, 10.0, compiled=True)
    for field in fields(PassSamples):
        assert getattr(compiled, field.name) == pytest.approx(getattr(portable, field.name), abs=1e-9)
    assert len(seen) == len(portable) > 3000


def test_a_pass_goes_from_rise_to_set_in_even_steps(seen):
    assert seen.passes == len(PASSES)
    for index in range(0, len(PASSES), 7):
        one = seen.one(index)
        assert one.utc_s[[0, -1]] == pytest.approx([PASSES.rise_utc_s[index], PASSES.set_utc_s[index]])
        assert np.diff(one.utc_s).max() <= 10.0 + 1e-6 and np.ptp(np.diff(one.utc_s)) < 1e-5
        assert one.weights_s.sum() == pytest.approx(PASSES.durations_s[index])
        if PASSES.whole[index]:
            assert one.elevations_deg[[0, -1]] == pytest.approx(10.0, abs=1e-4)
        assert one.elevations_deg.max() <= PASSES.culminations_deg[index] + 1e-6
        # It comes, then it goes.
        assert np.count_nonzero(np.diff(np.sign(one.range_rates_km_s))) <= 1


def test_every_sample_is_what_its_moment_shows(seen):
    chosen = np.arange(0, len(seen), 37)
    station = PASSES.station[seen.owner[chosen]]
    moments = seen.utc_s[chosen]
    position, velocity = TRACK.at(moments)
    sun, moon = sun_position_km(moments), moon_position_km(moments)
    for place, at in enumerate(chosen):
        one = SITES.part([station[place]])
        there = topocentric(one, position[place], velocity[place])
        assert seen.elevations_deg[at] == pytest.approx(there.elevations_deg[0], abs=1e-6)
        assert seen.azimuths_deg[at] == pytest.approx(there.azimuths_deg[0], abs=1e-6)
        assert seen.ranges_km[at] == pytest.approx(there.ranges_km[0], abs=1e-6)
        assert seen.range_rates_km_s[at] == pytest.approx(there.range_rates_km_s[0], abs=1e-9)
        # The Sun without its parallax of 9 arcseconds, and both on straight lines of four minutes.
        assert seen.sun_elevations_deg[at] == pytest.approx(
            sun_elevation_deg(one, moments[place])[0, 0], abs=4e-3
        )
        assert seen.moon_elevations_deg[at] == pytest.approx(
            moon_elevation_deg(one, moments[place])[0, 0], abs=2e-3
        )
        aside = angle_deg(moon[place] - one.positions_km[0], position[place] - one.positions_km[0])
        assert seen.moon_separations_deg[at] == pytest.approx(aside, abs=2e-3)
        assert seen.sunlit[at] == is_sunlit(position[place], sun[place])


def test_a_rate_is_integrated_over_each_pass(seen):
    ones = np.ones((len(seen), 2))
    assert seen.total(ones) == pytest.approx(np.stack([PASSES.durations_s] * 2, axis=1))
    travelled = seen.total(seen.range_rates_km_s)
    ends = seen.ranges_km[seen.offsets[1:] - 1] - seen.ranges_km[seen.offsets[:-1]]
    assert travelled == pytest.approx(ends, abs=2.0)


def test_a_day_without_passes_has_no_samples():
    none = PASSES.part(PASSES.culminations_deg > 90.0)
    for compiled in (True, False):
        empty = sample_passes(TRACK, SITES, none, 10.0, compiled=compiled)
        assert len(empty) == empty.passes == 0
        assert empty.total(empty.utc_s).shape == (0,)


def test_limits_are_named():
    with pytest.raises(OutsideModel, match="step_s = 0"):
        sample_passes(TRACK, SITES, PASSES, 0.0)
    with pytest.raises(OutsideModel, match="utc_s"):
        Almanac.of(EPOCH, EPOCH + 3600).at(np.array([EPOCH + 7200.0]))
