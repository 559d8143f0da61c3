"""Detections drawn for a pass against the closed form for the same pass: they differ only by chance."""

import numpy as np
import pytest
from msgspec.structs import replace

from openqci.core.errors import OutsideModel
from openqci.links.budget import SpaceLink
from openqci.links.ground import ground_station
from openqci.links.missions import Design, mission
from openqci.links.pass_detections import SAMPLE_STEP_S, pass_exchange, pass_stretches
from openqci.links.pass_keys import PassYields, pass_yields
from openqci.links.survey import SatelliteTask, seen_of_satellite
from openqci.space import PassSamples, utc_seconds
from openqci.space.time_scales import DAY_S

START = utc_seconds("2027-03-20")
OP = ground_station("ogs-oberpfaffenhofen")
EAGLE = mission("eagle-1").design()


def passes_of(design: Design) -> tuple[SpaceLink, PassSamples, PassYields]:
    """Four days of passes over Oberpfaffenhofen, in steps of a second, and what they yield on average."""
    orbit = design.orbits(START)[0]
    task = SatelliteTask(design, orbit, (OP,), START, START + 4 * DAY_S, SAMPLE_STEP_S, None, None)
    _passes, seen = seen_of_satellite(task)
    link = SpaceLink(design, OP)
    return link, seen, pass_yields(link, seen)


def rng(seed: int = 5) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(seed))


@pytest.mark.parametrize(
    "design",
    [EAGLE, mission("microsat-pilot").design(), mission("jinan-1").design(), mission("micius").design()],
    ids=lambda each: each.mission_id,
)
def test_counts_and_errors_of_a_pass_are_those_expected_within_chance(design: Design) -> None:
    link, seen, yields = passes_of(design)
    dimmest = np.where(yields.sifted_bits > 0, yields.sifted_bits, np.inf)
    index = int(np.argmin(dimmest))
    photons = pass_exchange(link, seen.one(index), rng())
    emitted, detected = photons.emissions, photons.detections
    intensities = yields.counts.shape[2]
    assert photons.duration_s == pytest.approx(yields.durations_s[index], rel=1e-6)
    for basis in (0, 1):
        matched = (emitted.bases == basis) & (detected.bases == basis)
        wrong = matched & (emitted.bits != detected.bits)
        for chosen, expected in ((matched, yields.counts), (wrong, yields.errors)):
            found = np.bincount(emitted.intensities[chosen], minlength=intensities)
            mean = expected[index, basis]
            assert np.abs(found - mean).max() <= (5 * np.sqrt(np.maximum(mean, 4.0))).max()
            assert np.all(np.abs(found - mean) <= 5 * np.sqrt(np.maximum(mean, 4.0)))


def test_light_comes_and_goes_with_the_elevation() -> None:
    link, seen, yields = passes_of(EAGLE)
    index = int(np.argmax(yields.sifted_bits))
    slots = pass_exchange(link, seen.one(index), rng()).detections.slots
    per_second = np.bincount(slots // 10**9)
    assert per_second[len(per_second) // 2] > 3 * per_second[:10].mean()


def test_a_pass_by_day_gives_no_detection() -> None:
    link, seen, yields = passes_of(EAGLE)
    by_day = int(np.argmin(yields.durations_s))
    assert yields.durations_s[by_day] == 0 and pass_stretches(link, seen.one(by_day)) == []
    photons = pass_exchange(link, seen.one(by_day), rng())
    assert photons.detections.slots.size == photons.emissions.pulses == photons.duration_s == 0


def test_the_passes_of_one_block_follow_each_other_in_its_slots() -> None:
    link, seen, yields = passes_of(EAGLE)
    night = np.flatnonzero(yields.durations_s > 0)
    first, last = int(night[0]), int(night[1])
    both = pass_stretches(link, seen.among(first, last + 1))
    alone = pass_stretches(link, seen.one(first)), pass_stretches(link, seen.one(last))
    assert sum(each.pulses for each in both) == sum(each.pulses for part in alone for each in part)


def test_entangled_pairs_are_refused() -> None:
    design = mission("micius").design("pairs-2020")
    _, seen, _ = passes_of(EAGLE)
    with pytest.raises(OutsideModel, match="bbm92"):
        pass_stretches(SpaceLink(design, OP), seen.one(0))


def test_a_sky_too_bright_for_the_detectors_is_refused() -> None:
    station = replace(EAGLE.station, reception="field", field_of_view_urad=1e3, filter_nm=100.0)
    operation = replace(EAGLE.operation, sun_elevation_max_deg=90.0)
    _, seen, yields = passes_of(EAGLE)
    by_day = int(np.argmin(yields.durations_s))
    with pytest.raises(OutsideModel, match="background_photons_hz"):
        pass_stretches(SpaceLink(replace(EAGLE, station=station, operation=operation), OP), seen.one(by_day))
