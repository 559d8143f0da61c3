"""Keys of many passes: equal to those of one pass at a time, one bound per block, and traps by name."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.links.budget import SpaceLink
from openqci.links.ground import ground_station
from openqci.links.missions import mission
from openqci.links.pass_keys import (
    FADING_NODES,
    PulseSettings,
    block_keys,
    block_of_passes,
    credited,
    pass_yields,
    tracked,
)
from openqci.links.passes import PassChannel, pass_counts, pass_key
from openqci.links.survey import (
    SatelliteTask,
    gathered,
    never_seen,
    seen_of_satellite,
    survey,
    warnings_of,
    yields_of_stations,
)
from openqci.space import utc_seconds
from openqci.space.fading import Fading, pointing_fading
from openqci.space.time_scales import DAY_S

START = utc_seconds("2027-03-20")
STOP = START + 4 * DAY_S
OP = ground_station("ogs-oberpfaffenhofen")
GROUND = (OP, ground_station("ogs-helmos"))
EAGLE = mission("eagle-1").design()
PILOT = mission("microsat-pilot").design("class-23kg")


def flown(design, ground=GROUND, days=4.0, step_s=10.0):
    """Passes of the first satellite of a design, with their samples."""
    orbit = design.orbits(START)[0]
    task = SatelliteTask(design, orbit, ground, START, START + days * DAY_S, step_s, None, None)
    return task, *seen_of_satellite(task)


@pytest.mark.parametrize("design", [EAGLE, PILOT, mission("jinan-1").design()], ids=lambda each: each.name)
def test_many_passes_at_once_are_what_each_is_by_itself(design):
    """Against links.passes, which asks the quantum link anew for every sample and node of the fading."""
    _task, _passes, seen = flown(design, (OP,))
    link = SpaceLink(design, OP)
    yields = pass_yields(link, seen)
    keys = block_keys(yields, design.operation)
    budget = link.of_samples(seen)
    allowed = credited(seen, design.operation)
    node_fading = pointing_fading(link.jitter_exponent, FADING_NODES)
    fading = Fading(node_fading.transmittances / node_fading.mean, node_fading.weights)
    receiver = design.station.receiver(design.payload)
    compared = 0
    for index in np.flatnonzero(yields.durations_s > 60)[:3]:
        rows = slice(int(seen.offsets[index]), int(seen.offsets[index + 1]))
        arriving_db = budget.channel_db[rows] - design.station.optics_loss_db
        channel = PassChannel(
            seen.utc_s[rows] - seen.utc_s[rows][0],
            10 ** (-arriving_db / 10),
            budget.background_photons_hz[rows],
            allowed[rows],
        )
        counts = pass_counts(design.payload.source(), receiver, channel, fading)
        assert yields.counts[index] == pytest.approx(counts.counts, rel=2e-5)
        assert yields.errors[index] == pytest.approx(counts.errors, rel=2e-4)
        assert yields.durations_s[index] == pytest.approx(counts.duration_s)
        one = pass_key(
            counts,
            proof_id=design.operation.proof,
            epsilon_sec=design.operation.epsilon_sec,
            epsilon_cor=design.operation.epsilon_cor,
            error_correction_efficiency=design.operation.error_correction_efficiency,
            key_bases=design.operation.key_bases,
        )
        less_tags = max(0, one.length_bits - design.operation.authentication_bits)
        assert keys.length_bits[index] == pytest.approx(less_tags, rel=1e-3, abs=10)
        assert keys.qber[index] == pytest.approx(one.qber, rel=1e-3)
        compared += 1
    assert compared >= 2


def test_compiled_and_portable_counts_are_one():
    _, _, seen = flown(EAGLE)
    link = SpaceLink(EAGLE, OP)
    one, other = (pass_yields(link, seen, compiled=each) for each in (True, False))
    assert one.counts == pytest.approx(other.counts, rel=1e-9)
    assert one.errors == pytest.approx(other.errors, rel=1e-9)
    assert one.durations_s == pytest.approx(other.durations_s) and one.counts.sum() > 1e6


def test_fading_with_two_nodes_is_fading_with_twelve():
    design = replace(EAGLE, payload=replace(EAGLE.payload, jitter_urad=8.0))
    _, _, seen = flown(design, (OP,))
    link = SpaceLink(design, OP)
    two = pass_yields(link, seen)
    index = int(two.durations_s.argmax())
    rows = slice(int(seen.offsets[index]), int(seen.offsets[index + 1]))
    arriving_db = link.of_samples(seen).channel_db[rows] - design.station.optics_loss_db
    twelve = pointing_fading(link.jitter_exponent)
    channel = PassChannel(
        seen.utc_s[rows] - seen.utc_s[rows][0],
        10 ** (-arriving_db / 10),
        link.of_samples(seen).background_photons_hz[rows],
        credited(seen, design.operation)[rows],
    )
    counts = pass_counts(
        design.payload.source(),
        design.station.receiver(design.payload),
        channel,
        Fading(twelve.transmittances / twelve.mean, twelve.weights),
    )
    assert two.counts[index] == pytest.approx(counts.counts, rel=1e-4)


# ---- blocks


def test_trap_02_a_block_is_bounded_once_and_not_part_by_part():
    _task, passes, seen = flown(PILOT, (OP,), days=20.0)
    yields = pass_yields(SpaceLink(PILOT, OP), seen)
    apart = block_keys(yields, PILOT.operation)
    block, blocks = block_of_passes(passes, yields.durations_s > 0, 5)
    together = block_keys(yields.summed(block, blocks), PILOT.operation)
    assert together.length_bits.sum() > 1.02 * apart.length_bits.sum() > 0
    # And a pass cut in ten gives less than the pass.
    best = int(apart.length_bits.argmax())
    tenth = replace_counts(yields, yields.counts[best] / 10, yields.errors[best] / 10)
    assert 10 * block_keys(tenth, PILOT.operation).length_bits[0] < apart.length_bits[best]


def replace_counts(yields, counts, errors):
    return type(yields)(yields.settings, counts[None], errors[None], np.ones(1))


def test_blocks_are_of_one_satellite_and_one_station_in_the_order_of_time():
    found = survey(EAGLE, GROUND, START, STOP, passes_per_block=3)
    used = found.block >= 0
    for each in range(found.block.max() + 1):
        rows = np.flatnonzero(found.block == each)
        assert 1 <= len(rows) <= 3
        assert len(set(found.passes.station[rows])) == len(set(found.passes.satellite[rows])) == 1
        others = np.flatnonzero(used & (found.passes.station == found.passes.station[rows[0]]))
        inside = (found.passes.rise_utc_s[others] >= found.passes.rise_utc_s[rows].min()) & (
            found.passes.rise_utc_s[others] <= found.passes.rise_utc_s[rows].max()
        )
        assert inside.sum() == len(rows)
    assert found.key_bits.sum() == pytest.approx(found.keys.length_bits.sum())
    assert (found.key_bits[~used] == 0).all()
    with pytest.raises(OutsideModel, match="passes_per_block = 0"):
        survey(EAGLE, GROUND, START, STOP, passes_per_block=0)


def test_authentication_is_taken_from_the_key_once_per_block():
    _task, _passes, seen = flown(EAGLE, (OP,))
    yields = pass_yields(SpaceLink(EAGLE, OP), seen)
    free = block_keys(yields, replace(EAGLE.operation, authentication_bits=0))
    paid = block_keys(yields, EAGLE.operation)
    with_key = paid.length_bits > 0
    assert with_key.any()
    assert (free.length_bits - paid.length_bits)[with_key] == pytest.approx(2560)


def test_trap_22_authentication_can_take_all_of_a_small_key():
    yields = pass_yields(SpaceLink(PILOT, OP), flown(PILOT, (OP,))[2])
    usual = block_keys(yields, PILOT.operation).length_bits
    had = usual > 0
    keys = block_keys(yields, replace(PILOT.operation, authentication_bits=int(np.median(usual[had]))))
    assert had.any() and (keys.length_bits[had] == 0).any()
    reasons = keys.zero_because(yields.durations_s)
    assert "authentication takes more than the key" in reasons


# ---- what is credited


def test_trap_21_no_key_by_day_in_sunlight_or_beside_the_moon():
    _, _, seen = flown(PILOT, days=20.0)
    allowed = credited(seen, PILOT.operation)
    assert 0 < allowed.mean() < 1
    assert (seen.sun_elevations_deg[allowed] <= -12.0).all()
    assert not seen.sunlit[allowed].any()
    up = seen.moon_elevations_deg > 0
    assert (seen.moon_separations_deg[allowed & up] >= 5.0).all()
    yields = pass_yields(SpaceLink(PILOT, OP), seen)
    dark = np.array([allowed[a:b].any() for a, b in zip(seen.offsets[:-1], seen.offsets[1:], strict=True)])
    assert ((yields.durations_s > 0) == dark).all()
    # In midsummer, far in the north, no pass is dark: no key, with a reason, not a silent zero.
    north = ground_station("ogs-metsahovi")
    june = utc_seconds("2027-06-20")
    found = survey(PILOT, [north], june, june + 5 * DAY_S)
    assert len(found.passes) > 5 and found.key_bits.sum() == 0 and found.keys.length_bits.size == 0


def test_acquisition_takes_the_beginning_of_a_pass():
    _task, passes, _ = flown(EAGLE)
    late = tracked(passes, 30.0)
    assert late.durations_s == pytest.approx(np.maximum(passes.durations_s - 30.0, 0.0), abs=1e-6)
    assert (late.set_utc_s == passes.set_utc_s).all()
    patient = replace(EAGLE, operation=replace(EAGLE.operation, acquisition_s=0.0))
    assert (
        survey(patient, GROUND, START, STOP).key_bits.sum()
        > survey(EAGLE, GROUND, START, STOP).key_bits.sum()
    )


# ---- traps of passes, by name


def test_trap_01_an_endless_block_promises_what_a_pass_does_not_give():
    _task, _, seen = flown(PILOT, (OP,))
    yields = pass_yields(SpaceLink(PILOT, OP), seen)
    endless = type(yields)(yields.settings, yields.counts * 1e6, yields.errors * 1e6, yields.durations_s)
    per_pass = block_keys(yields, PILOT.operation).length_bits
    promised = block_keys(endless, PILOT.operation).length_bits / 1e6
    seen_key = per_pass > 0
    assert (promised[seen_key] > 1.15 * per_pass[seen_key]).all()
    weak = (yields.durations_s > 0) & (promised > 0)
    assert (per_pass[weak] < promised[weak]).all()


def test_trap_06_sifting_and_the_detector_count_once():
    _task, _, seen = flown(EAGLE, (OP,))
    link = SpaceLink(EAGLE, OP)
    yields = pass_yields(link, seen)
    index = int(yields.durations_s.argmax())
    rows = slice(int(seen.offsets[index]), int(seen.offsets[index + 1]))
    allowed = credited(seen, EAGLE.operation)[rows]
    through = 10 ** (-link.of_samples(seen).total_db[rows] / 10)
    # Weak light by hand: clock x probability x intensity x transmittance x z^2, detector in the last but one.
    by_hand = 1e9 * 0.5 * 0.4 * (through * allowed * seen.weights_s[rows]).sum() * 0.8**2
    assert yields.counts[index, 0, 0] == pytest.approx(by_hand, rel=0.03)


def test_trap_18_background_meets_the_receivers_optics_and_half_of_it_each_detector():
    bright = replace(EAGLE.station, dark_count_probability=0.0)
    design = replace(EAGLE, station=bright, operation=replace(EAGLE.operation, sun_elevation_max_deg=90.0))
    _, _, seen = flown(design, (OP,))
    link = SpaceLink(design, OP)
    yields = pass_yields(link, seen)
    vacuum = replace(design.payload, intensities=(1e-9, 0.0))
    dark = pass_yields(SpaceLink(replace(design, payload=vacuum), OP), seen)
    index = int((dark.counts.sum(axis=(1, 2))).argmax())
    rows = slice(int(seen.offsets[index]), int(seen.offsets[index + 1]))
    photons = link.of_samples(seen).background_photons_hz[rows] * seen.weights_s[rows]
    # Photons/s x gate x optics x efficiency x gates/s, sifted in both bases.
    by_hand = photons.sum() * 4e-10 * 10**-0.3 * 0.8 * 1e9 * (0.8**2 + 0.2**2)
    assert dark.counts[index].sum() == pytest.approx(by_hand, rel=0.02)
    assert dark.errors[index].sum() == pytest.approx(dark.counts[index].sum() / 2, rel=1e-6)
    assert yields.counts[index].sum() > dark.counts[index].sum()


# ---- laws


@settings(max_examples=15, deadline=None)
@given(st.floats(0.0, 10.0), st.floats(0.0, 5.0))
def test_more_loss_never_yields_more(optics_db, more_db):
    def key(loss_db):
        station = replace(EAGLE.station, optics_loss_db=loss_db)
        link = SpaceLink(replace(EAGLE, station=station), OP)
        return block_keys(pass_yields(link, SEEN), EAGLE.operation)

    assert (key(optics_db + more_db).length_bits <= key(optics_db).length_bits + 1).all()


_, _, SEEN = flown(EAGLE, (OP,), days=2.0, step_s=20.0)


def test_a_finer_step_changes_little():
    for design in (EAGLE, PILOT):
        coarse, fine = (
            pass_yields(SpaceLink(design, OP), flown(design, (OP,), step_s=step)[2]) for step in (10.0, 2.0)
        )
        whole = coarse.durations_s > 100
        assert coarse.counts[whole].sum(axis=(1, 2)) == pytest.approx(
            fine.counts[whole].sum(axis=(1, 2)), rel=0.02
        )


# ---- surveys


def test_workers_change_nothing():
    from concurrent.futures import ThreadPoolExecutor

    six = mission("constellation-first").design("sso-6")
    alone = survey(six, GROUND, START, START + DAY_S)
    with ThreadPoolExecutor(2) as executor:
        divided = survey(six, GROUND, START, START + DAY_S, executor=executor)
    assert alone.passes.satellites == divided.passes.satellites and len(alone.passes.satellites) == 6
    assert (alone.key_bits == divided.key_bits).all() and alone.key_bits.sum() > 0


def test_sums_by_day_season_and_station():
    found = survey(EAGLE, GROUND, START, START + 40 * DAY_S, step_s=30.0)
    days, seasons, stations = found.by_day(), found.by_season(), found.by_station()
    assert len(days.labels) == 40 and str(days.labels[0]) == "2027-03-20"
    for each in (days, seasons, stations):
        assert each.key_bits.sum() == pytest.approx(found.key_bits.sum())
        assert each.passes.sum() == len(found.passes)
        assert each.duration_s.sum() == pytest.approx(found.yields.durations_s.sum())
    assert seasons.labels[seasons.passes > 0].tolist() == ["spring"]
    assert stations.labels.tolist() == ["ogs-oberpfaffenhofen", "ogs-helmos"]
    assert found.key_bits_per_day == pytest.approx(found.key_bits.sum() / 40)


def test_a_station_below_the_horizon_all_year_is_named():
    equatorial = replace(EAGLE.orbit, kind="circular", inclination_deg=1.0)
    found = survey(replace(EAGLE, orbit=equatorial), GROUND, START, STOP)
    assert never_seen(found.passes) == ["ogs-oberpfaffenhofen", "ogs-helmos"]
    assert len(found.passes) == 0 and found.key_bits_per_day == 0.0


def test_stale_elements_are_told_and_decayed_ones_refused():
    flown_design = mission("micius").design()
    december = utc_seconds("2016-12-19")
    assert warnings_of(flown_design, december, december + DAY_S) == []
    said = warnings_of(flown_design, december + 60 * DAY_S, december + 61 * DAY_S)
    assert len(said) == 1 and "micius" in said[0] and "take newer elements" in said[0]
    lines = (
        "1 41731U 16051A   25265.33409832  .00080539  00000-0  89175-3 0  9999",
        "2 41731  97.2945 187.6583 0004596  12.3887 347.7483 15.62724089508176",
    )
    decayed = replace(flown_design, orbit=replace(flown_design.orbit, lines=lines))
    later = utc_seconds("2027-06-01")
    with pytest.raises(ConfigurationError, match=r"micius cannot be propagated to .* decayed"):
        survey(decayed, [ground_station("xinglong", mission("micius"))], later, later + DAY_S)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ground": []}, "no ground station"),
        ({"stop_utc_s": START}, "days = 0"),
        ({"stop_utc_s": START + 4000 * DAY_S}, "days = 4000"),
        ({"design": mission("micius").design("pairs-2020")}, "sends entangled pairs"),
    ],
)
def test_surveys_that_cannot_be(change, said):
    given_ = {"design": EAGLE, "ground": GROUND, "start_utc_s": START, "stop_utc_s": STOP} | change
    with pytest.raises((ConfigurationError, OutsideModel), match=said):
        survey(**given_)


def test_impossible_optics_are_refused_and_not_silently_zero():
    blinding = replace(PILOT.station, filter_nm=100.0, field_of_view_urad=10_000.0)
    by_day = replace(PILOT.operation, sun_elevation_max_deg=90.0, eclipse_needed=False)
    with pytest.raises(OutsideModel, match="background_photons_hz"):
        survey(replace(PILOT, station=blinding, operation=by_day), GROUND, START, STOP)
    with pytest.raises(OutsideModel, match="aperture_radius_over_waist"):
        survey(replace(EAGLE, payload=replace(EAGLE.payload, waist_m=0.001)), GROUND, START, STOP)
    hopeless = replace(PILOT, station=replace(PILOT.station, optics_loss_db=30.0))
    found = survey(hopeless, GROUND, START, STOP)
    assert found.key_bits.sum() == 0
    reasons = set(
        found.keys.zero_because(found.yields.summed(found.block, len(found.keys.length_bits)).durations_s)
    )
    assert reasons and all("can be bounded" in each for each in reasons)


def test_gathering_satellites_keeps_every_pass():
    task, passes, seen = flown(EAGLE)
    one = gathered(EAGLE, START, STOP, [(passes, yields_of_stations(task, passes, seen))])
    assert (one.key_bits == survey(EAGLE, GROUND, START, STOP).key_bits).all()


def test_settings_are_the_missions_unless_given():
    link = SpaceLink(EAGLE, OP)
    assert PulseSettings.of(link).intensities.tolist() == [0.4, 0.12]
    other = PulseSettings(np.array([0.3, 0.1]), np.array([0.6, 0.4]), 0.9)
    assert pass_yields(link, SEEN, other).settings is other
