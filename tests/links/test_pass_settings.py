"""One setting for all passes of a mission: better than the mission's own, and below what nobody can have."""

import numpy as np
import pytest
from msgspec.structs import replace

from openqci.links.ground import ground_station
from openqci.links.missions import mission
from openqci.links.pass_keys import PulseSettings
from openqci.links.pass_settings import Sampled, best_settings, clairvoyant_bits, evenly, highest, sampled
from openqci.links.survey import survey
from openqci.space import utc_seconds

START = utc_seconds("2027-03-20")
STOP = START + 10 * 86_400.0
GROUND = [ground_station("ogs-helmos"), ground_station("ogs-oberpfaffenhofen")]
PILOT = mission("microsat-pilot").design()


@pytest.mark.parametrize("name", ["eagle-1", "microsat-pilot", "jinan-1"])
def test_the_optimum_is_never_worse_than_what_the_mission_says(name):
    design = mission(name).design()
    best = best_settings(design, GROUND, START, STOP)
    as_set = survey(design, GROUND, START, STOP).key_bits.sum()
    assert survey(design, GROUND, START, STOP, settings=best).key_bits.sum() > 1.2 * as_set > 0
    assert best.probabilities.sum() == pytest.approx(1.0) and (np.diff(best.intensities) < 0).all()


def test_no_neighbour_of_the_optimum_is_better():
    """It is a top: three per cent more or less of any of its figures gives no more key."""
    sample = sampled(PILOT, GROUND, START, STOP)
    best = highest(sample, PulseSettings.of(sample.link))
    height = sample.height(best)
    for place in range(2):
        for factor in (0.97, 1.03):
            intensities = best.intensities.copy()
            intensities[place] *= factor
            moved = PulseSettings(intensities, best.probabilities, best.z_basis_probability)
            assert sample.height(moved) < height * 1.0005
    for bias in (best.z_basis_probability - 0.02, best.z_basis_probability + 0.02):
        assert sample.height(PulseSettings(best.intensities, best.probabilities, bias)) < height * 1.0005


def test_one_setting_for_all_passes_gives_less_than_one_for_each():
    """Trap 16 of our physics notes: a satellite does not know the loss, so it may not choose by it."""
    together, clairvoyant = clairvoyant_bits(sampled(PILOT, GROUND, START, STOP).thinned(4))
    assert 0 < together < clairvoyant


def test_a_mission_at_its_limit_is_not_lost_on_the_plateau_of_zero():
    """Where the mission's own setting gives no key at all, the search still finds one that does."""
    station = replace(PILOT.station, optics_loss_db=PILOT.station.optics_loss_db + 4.5)
    weak = replace(PILOT, station=station)
    assert survey(weak, GROUND[:1], START, STOP).key_bits.sum() == 0
    best = best_settings(weak, GROUND[:1], START, STOP)
    assert survey(weak, GROUND[:1], START, STOP, settings=best).key_bits.sum() > 1000


def test_a_sample_stands_for_all_blocks():
    whole = sampled(PILOT, GROUND, START, STOP)
    settings = PulseSettings.of(whole.link)
    mean = whole.height(settings) / whole.blocks
    few = whole.thinned(8)
    assert few.blocks == 8 < whole.blocks
    assert few.height(settings) / few.blocks == pytest.approx(mean, rel=0.3)
    # All blocks in another order are the same blocks.
    turned = whole.only(np.arange(whole.blocks)[::-1])
    assert turned.unclipped_bits(settings)[::-1] == pytest.approx(whole.unclipped_bits(settings))


def test_blocks_of_the_sample_are_those_of_the_survey():
    whole = sampled(PILOT, GROUND, START, STOP, passes_per_block=3)
    found = survey(PILOT, GROUND, START, STOP, passes_per_block=3)
    bits = np.maximum(whole.unclipped_bits(PulseSettings.of(whole.link)), 0)
    assert whole.blocks == len(found.keys.length_bits)
    assert bits.sum() == pytest.approx(found.keys.length_bits.sum(), rel=1e-3)


def test_without_any_usable_pass_the_mission_stays_as_set():
    dark = replace(PILOT, operation=replace(PILOT.operation, sun_elevation_max_deg=-70.0))
    best = best_settings(dark, GROUND[:1], START, START + 86_400.0)
    assert best.intensities.tolist() == list(PILOT.payload.intensities)


def test_evenly():
    assert evenly(3, 5).tolist() == [0, 1, 2] and evenly(100, 3).tolist() == [0, 50, 99]
    assert isinstance(sampled(PILOT, GROUND, START, STOP), Sampled)
