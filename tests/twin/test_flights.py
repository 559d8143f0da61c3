"""The satellites of a network: nodes, hops, borders, passes that each come once, contacts, and a choice."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import LinkId, SiteId
from openqci.links.budget import SpaceLink
from openqci.links.pass_keys import block_keys, pass_yields
from openqci.network import MissionUse, Network, SpaceSegment, load_scenario
from openqci.space import sun_elevation_deg, utc_seconds
from openqci.space.time_scales import DAY_S
from openqci.twin.flights import (
    HORIZON_S,
    RADIO_ELEVATION_MIN_DEG,
    Flight,
    PlannedPass,
    flown,
    merged,
    next_to_serve,
    pass_forecasts,
    planned,
    sky_of,
    stations_of,
    survey_of,
)
from openqci.twin.hops import SATELLITE
from openqci.twin.skies import clear

ISLANDS = load_scenario("islands")
WHOLE, (EAGLE,) = flown(ISLANDS)
START = utc_seconds("2027-03-20T16:00:00Z")


def with_mission(mission: str, *stations: str) -> Network:
    use = MissionUse(mission, tuple(SiteId(each) for each in stations or ("ogs-paris",)))
    return msgspec.structs.replace(ISLANDS, space=SpaceSegment("2027-03-20T16:00:00Z", (use,)))


# Nodes and hops


def test_a_satellite_is_a_node_with_a_hop_to_each_station_that_ends_at_a_border_node_there() -> None:
    assert WHOLE.consistency_check() == () and len(WHOLE.islands()) == 1
    satellite = WHOLE.sites[SiteId("eagle-1")]
    assert (satellite.kind, satellite.domain) == (SATELLITE, "eagle-1")
    hop = WHOLE.hops[LinkId("eagle-1--ogs-ireland")]
    assert (hop.a, hop.b, hop.link_type) == ("eagle-1", "ogs-ireland.eagle-1", SATELLITE)
    assert {each.partner for each in WHOLE.borders if each not in ISLANDS.borders} == set(EAGLE.links)
    # 500 km straight up: 24.7 dB of diffraction, and pointing, air and coupling (docs of links.budget).
    assert hop.length_km == pytest.approx(500, abs=25) and 27 < hop.loss_db < 33


def test_keys_of_the_network_without_satellites_do_not_fit_the_one_with() -> None:
    assert WHOLE.digest != ISLANDS.digest
    assert flown(load_scenario("metro")) == (load_scenario("metro"), ())


def test_every_station_of_the_scenario_gets_key_within_ten_days() -> None:
    forecasts = pass_forecasts([EAGLE])
    assert set(forecasts) == set(EAGLE.links.values())
    for forecast in forecasts.values():
        assert 10 < forecast.secret_key_rate_bps < 100
        assert 0.01 < forecast.qber < 0.015 and forecast.block_secret_bits > 1e6


@pytest.mark.parametrize(
    ("mission", "said"),
    [
        ("sputnik", "unknown mission"),
        ("eagle-1:nightly", "no design"),
        ("jinan-1", "both bases"),
        ("micius:pairs-2020", "entangled pairs"),
    ],
)
def test_a_mission_that_cannot_be_flown_live_is_refused(mission: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        flown(with_mission(mission))


def test_the_satellites_of_a_constellation_share_the_border_node_of_a_station() -> None:
    whole, flights = flown(with_mission("constellation-first"))
    assert len(flights) > 1 and whole.consistency_check() == ()
    own = [border for border in whole.borders if border.partner == "ogs-paris"]
    assert len(own) == 1
    assert {whole.hops[LinkId(f"{each.satellite}--ogs-paris")].b for each in flights} == {own[0].node}


# Passes


def test_each_pass_with_key_comes_once_however_often_and_from_where_one_asks() -> None:
    once = planned(EAGLE, survey_of(EAGLE, 0.0, 3 * HORIZON_S))
    now_s, met = 0.0, []
    while (coming := EAGLE.passes(now_s)[0]).ends_s < 3 * HORIZON_S:
        met.append(coming)
        now_s = np.nextafter(coming.begins_s, np.inf)
    assert [(each.link_id, round(each.begins_s)) for each in met] == [
        (each.link_id, round(each.begins_s)) for each in once
    ]


def test_passes_with_key_are_at_night_and_within_radio_contact() -> None:
    contacts = EAGLE.contacts(0.0, 2 * DAY_S)
    for each in EAGLE.passes(0.0):
        ground = [station for station in EAGLE.ground if station.site_id == each.station]
        middle = START + (each.begins_s + each.ends_s) / 2
        assert float(sun_elevation_deg(stations_of(ground), middle).item()) < -6
        if each.ends_s < 2 * DAY_S:
            # From 5 degrees on the radio is there before the light, and after it.
            assert any(begin < each.begins_s - 30 and each.ends_s + 30 < end for begin, end in contacts)
    assert EAGLE.design.operation.elevation_min_deg > RADIO_ELEVATION_MIN_DEG


def test_what_is_seen_in_a_pass_yields_what_was_planned() -> None:
    chosen = EAGLE.passes(0.0)[1]
    ground, seen = EAGLE.seen(chosen)
    assert ground.site_id == chosen.station and seen.passes == 1
    assert float(seen.weights_s.sum()) == pytest.approx(chosen.ends_s - chosen.begins_s, abs=0.01)
    keys = block_keys(pass_yields(SpaceLink(EAGLE.design, ground), seen), EAGLE.design.operation)
    assert float(keys.length_bits[0]) == pytest.approx(chosen.expected_bits, rel=0.01)


def test_the_satellite_is_over_the_station_in_the_middle_of_a_pass() -> None:
    chosen = max(EAGLE.passes(0.0), key=lambda each: each.expected_bits)
    latitude, longitude, height_km = EAGLE.place((chosen.begins_s + chosen.ends_s) / 2)
    site = ISLANDS.sites[chosen.station]
    assert abs(latitude - site.lat) < 4 and abs(longitude - site.lon) < 4
    assert height_km == pytest.approx(500, abs=25)


# Clouds


def test_without_a_seed_skies_are_clear_and_with_one_clouds_are_the_same_after_a_restart() -> None:
    assert sky_of(ISLANDS, [EAGLE]) is clear and not clear("ogs-paris", 0.0)
    assert ISLANDS.space is not None
    seeded, other = (
        msgspec.structs.replace(ISLANDS, space=msgspec.structs.replace(ISLANDS.space, cloud_seed=seed))
        for seed in (5, 6)
    )
    hours = [3600.0 * hour for hour in range(0, 20_000, 7)]
    sky, another = sky_of(seeded, [EAGLE]), sky_of(other, [EAGLE])
    of_station = {each.site_id: [sky(each.site_id, hour) for hour in hours] for each in EAGLE.ground}
    assert of_station["ogs-paris"] != [another("ogs-paris", hour) for hour in hours]
    assert 0.3 < np.mean(of_station["ogs-paris"]) < 0.6
    again = sky_of(seeded, [EAGLE])
    assert of_station["ogs-maido"] == [again("ogs-maido", hour) for hour in hours]
    with pytest.raises(KeyError):
        sky("ogs-nowhere", 0.0)


# The choice


def a_pass(link: str, begins_s: float, ends_s: float, bits: float = 100.0) -> PlannedPass:
    return PlannedPass(LinkId(link), SiteId(link), begins_s, ends_s, bits)


def test_of_passes_at_once_the_station_with_least_in_stock_is_served_and_of_equals_the_best() -> None:
    ahead = [a_pass("a", 0, 10), a_pass("b", 5, 15), a_pass("c", 12, 20)]
    empty = {LinkId(each): 0 for each in "abc"}
    assert next_to_serve(ahead, empty | {LinkId("a"): 50}, 1000) == ahead[1]
    assert next_to_serve(ahead, empty, 1000) == ahead[0]
    better = [ahead[0], a_pass("b", 5, 15, 200.0)]
    assert next_to_serve(better, empty, 1000) == better[1]


def test_a_station_that_no_pass_was_given_yet_does_not_starve_behind_a_chain_of_rivals() -> None:
    """Alentejo, then Paris, then Ireland: each overlaps with the next, Alentejo not with Ireland."""
    ahead = [a_pass("a", 0, 10, 50.0), a_pass("p", 5, 30, 500.0), a_pass("i", 12, 28, 300.0)]
    stock = {LinkId("a"): 500, LinkId("p"): 80, LinkId("i"): 0}
    assert next_to_serve(ahead, stock, 1000) == ahead[0]  # over before Ireland's begins
    assert next_to_serve(ahead[1:], stock, 1000) == ahead[2]


def test_a_full_store_takes_no_pass_and_one_nearly_full_a_small_one() -> None:
    ahead = [a_pass("a", 0, 10, 100.0), a_pass("b", 30, 40, 20.0)]
    empty = {LinkId("a"): 0, LinkId("b"): 0}
    assert next_to_serve(ahead, empty, 10) is None
    assert next_to_serve(ahead, empty, 50) == ahead[1]
    assert next_to_serve([], empty, 50) is None


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)).map(lambda x: (x[0], x[0] + x[1])), max_size=9)
)
def test_merged_spans_cover_what_the_spans_covered_and_do_not_touch(spans: list[tuple[int, int]]) -> None:
    kept = merged((float(begin), float(end)) for begin, end in spans)
    covered = {moment for begin, end in spans for moment in range(begin, end + 1)}
    assert covered <= {moment for begin, end in kept for moment in range(int(begin), int(end) + 1)}
    assert all(earlier[1] < later[0] for earlier, later in pairwise(kept))


def test_a_station_of_which_only_the_place_is_known_has_a_standard_sky() -> None:
    by_site = {each.site_id: each for each in EAGLE.ground}
    assert isinstance(EAGLE, Flight)
    assert by_site["ogs-paris"].linke_turbidity(1) is None
    assert by_site["ogs-maido"].altitude_m == 2160.0
