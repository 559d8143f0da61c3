"""From an orbit to a key, held against what was flown: Micius in 2016 from its elements, and Jinan-1."""

import numpy as np
import pytest
from msgspec.structs import replace

from openqci.links.budget import SpaceLink
from openqci.links.ground import ground_station, stations_of
from openqci.links.missions import mission
from openqci.links.pass_keys import block_keys, pass_yields
from openqci.links.survey import survey
from openqci.space import find_passes, sample_passes, track_of, utc_seconds, utc_text
from openqci.space.geometry import elevation_deg
from tests.links.test_passes import LOSS_RANGES_KM, LOSSES_DB, RANGES_KM, TIMES_S

MICIUS = mission("micius")
DECOY = MICIUS.design("decoy-2017")
XINGLONG = ground_station("xinglong", MICIUS)
NIGHT = utc_seconds("2016-12-19T12:00:00Z")


@pytest.fixture(scope="module")
def published_pass():
    """The pass of December 2016 as published: 00:50 local time, 645 km at its nearest."""
    orbit = DECOY.orbits(NIGHT)[0]
    track = track_of(orbit, NIGHT, NIGHT + 43_200.0)
    passes = find_passes(track, stations_of([XINGLONG]), 15.0)
    assert len(passes) == 1
    return track, passes, sample_passes(track, stations_of([XINGLONG]), passes, 1.0)


def test_the_published_pass_is_in_the_elements(published_pass):
    _, passes, seen = published_pass
    # Around 00:50 by local time (UTC + 8 h): nearest at 16:52 UTC.
    assert utc_text(passes.culmination_utc_s[0]).startswith("2016-12-19T16:5")
    assert seen.ranges_km.min() == pytest.approx(645.0, abs=3.0)
    # "About five minutes, from 15 deg up to 10 deg down".
    assert 280 < passes.durations_s[0] < 360
    assert (seen.sun_elevations_deg < -60).all() and not seen.sunlit.any()


def test_ranges_of_the_published_pass(published_pass):
    _, _, seen = published_pass
    # Digitised from a figure: its clock is the only thing that is fitted.
    offsets = np.arange(-20.0, 20.0, 0.5) + float(seen.utc_s[seen.ranges_km.argmin()]) - 140.0
    errors = [np.interp(TIMES_S + offset, seen.utc_s, seen.ranges_km) - RANGES_KM for offset in offsets]
    spread = [float(np.sqrt((each**2).mean())) for each in errors]
    assert min(spread) < 10.0, "km, of 645 to 1196"


def test_the_mission_loses_what_the_pass_lost():
    # One number is fitted for all ranges, the optics; the slope at low elevations is the sheet's.
    budget = SpaceLink(DECOY, XINGLONG).at(elevation_deg(LOSS_RANGES_KM, 500.0), LOSS_RANGES_KM, month=12)
    residual_db = budget.channel_db - LOSSES_DB
    assert abs(residual_db.mean()) < 0.1
    assert residual_db.std() < 1.2 and np.abs(residual_db).max() < 2.2
    # The diffraction alone is the 22 dB that are published for 1200 km.
    assert SpaceLink(DECOY, XINGLONG).at(20.0, 1200.0).diffraction_db == pytest.approx(21.6, abs=0.1)


def test_micius_2017_from_orbit_to_key():
    """1 671 072 sifted bits, QBER 1.1 %, 300 939 bits of key in 273 s, within 15, 15 and 25 %.

    A check of the chain and no prediction: ranges come from the elements, but the mission's losses were
    fitted to those of this pass. It gives 13 % more sifted bits than published, so this is held more loosely
    than the row of links.experiments (10, 15, 20 %), which takes the measured losses. Key from 20 deg on.
    """
    operation = replace(DECOY.operation, elevation_min_deg=20.0, acquisition_s=0.0)
    found = survey(replace(DECOY, operation=operation), [XINGLONG], NIGHT, NIGHT + 43_200.0, step_s=5.0)
    assert len(found.passes) == 1
    signal = found.yields.counts[0, :, 0].sum()
    assert signal == pytest.approx(1_671_072, rel=0.15)
    wrong = found.yields.errors[0, :, 0].sum() / signal
    assert wrong == pytest.approx(0.011, rel=0.15)
    assert found.keys.length_bits[0] == pytest.approx(300_939, rel=0.25)
    assert found.keys.proof_id == "lim-2014"


def test_jinan_1_best_pass_of_a_year():
    # Li et al. 2025: 1.07 Mbit in the best pass (0.59 in the preprint). An upper row: without the receiver's
    # losses the model may not lie below. The assumed ones were set with this figure in view.
    jinan = mission("jinan-1")
    design, site = jinan.design(), ground_station("jinan", jinan)
    start = utc_seconds("2027-01-01")
    as_assumed = survey(design, [site], start, start + 120 * 86_400.0)
    assert 0.59e6 < as_assumed.key_bits.max() < 2 * 1.07e6
    lossless = replace(design, station=replace(design.station, optics_loss_db=0.0, low_elevation_loss_db=0.0))
    assert survey(lossless, [site], start, start + 60 * 86_400.0).key_bits.max() > 1.07e6
    # 250 million signal photons per second, as published.
    payload = design.payload
    assert payload.clock_rate_hz * payload.intensities[0] * payload.probabilities[0] == pytest.approx(2.5e8)


def test_the_pass_as_a_block_beats_its_halves(published_pass):
    track, passes, seen = published_pass
    link = SpaceLink(DECOY, XINGLONG)
    whole = block_keys(pass_yields(link, seen), DECOY.operation).length_bits[0]
    middle = seen.utc_s[len(seen) // 2]
    halves = 0.0
    for first, last in ((passes.rise_utc_s[0], middle), (middle, passes.set_utc_s[0])):
        part = sample_passes(
            track,
            stations_of([XINGLONG]),
            type(passes)(
                passes.satellites,
                passes.stations,
                passes.satellite,
                passes.station,
                np.array([first]),
                np.array([middle]),
                np.array([last]),
                passes.culminations_deg,
                passes.whole,
            ),
            1.0,
        )
        halves += block_keys(pass_yields(link, part), DECOY.operation).length_bits[0]
    assert 0 < halves < whole
