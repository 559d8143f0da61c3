"""The span rule: properties for any link, and examples that can be checked by eye."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.network import Link, Site, SpanRule, expand
from openqci.network.expansion import point_between

EARTH_RADIUS_KM = 6371.0


def rule(**changes: object) -> SpanRule:
    given_values = {
        "span_km_max": 80.0,
        "attenuation_db_per_km": 0.2,
        "connector_loss_db": 1.0,
        "device": "dv-metro",
        "device_beyond_span": "dv-snspd",
    }
    return SpanRule(**(given_values | changes))


def site(site_id: str, lat: float, lon: float, domain: str) -> Site:
    return Site(site_id, site_id, "trusted_node", domain, domain, lat, lon, "test")


LISBON, MADRID = site("pt-lisbon", 38.7251, -9.1498, "PT"), site("es-madrid", 40.4165, -3.7026, "ES")


def link(fibre_km: float, **changes: object) -> Link:
    return Link("l", LISBON.site_id, MADRID.site_id, "cross_border", fibre_km, **changes)


latitudes, longitudes = st.floats(-90, 90), st.floats(-180, 180)


def distance_km(lat_a: float, lon_a: float, lat_b: float, lon_b: float) -> float:
    """Great-circle distance by the haversine formula: another way than the code under test takes."""
    phi_a, phi_b = math.radians(lat_a), math.radians(lat_b)
    half_lat, half_lon = (phi_b - phi_a) / 2, math.radians(lon_b - lon_a) / 2
    h = math.sin(half_lat) ** 2 + math.cos(phi_a) * math.cos(phi_b) * math.sin(half_lon) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(h)))


@given(fibre_km=st.floats(0.001, 5000), span_km_max=st.floats(1, 400))
def test_hops_are_short_enough_equal_and_sum_to_the_fibre(fibre_km, span_km_max):
    nodes, hops = expand(link(fibre_km), LISBON, MADRID, rule(span_km_max=span_km_max))
    assert all(hop.length_km <= span_km_max * (1 + 1e-12) for hop in hops)
    assert math.fsum(hop.length_km for hop in hops) == pytest.approx(fibre_km, rel=1e-12)
    assert len(hops) == len(nodes) + 1 == max(1, math.ceil(fibre_km / span_km_max))
    assert all(hop.loss_db == pytest.approx(0.2 * hop.length_km + 1.0) for hop in hops)
    assert {hop.device for hop in hops} == {"dv-metro"}


@given(fibre_km=st.floats(0.001, 5000))
def test_hops_are_a_chain_from_a_to_b_with_ids_of_their_own(fibre_km):
    nodes, hops = expand(link(fibre_km), LISBON, MADRID, rule())
    assert [hops[0].a, *(hop.b for hop in hops)] == [
        LISBON.site_id,
        *(node.site_id for node in nodes),
        MADRID.site_id,
    ]
    assert all(before.b == after.a for before, after in pairwise(hops))
    assert len({hop.link_id for hop in hops}) == len(hops)
    assert {hop.parent_link for hop in hops} == {"l"} and {hop.link_type for hop in hops} == {"cross_border"}
    assert all(node.generated and node.kind == "trusted_node" for node in nodes)


@given(latitudes, longitudes, latitudes, longitudes, st.floats(0, 1))
def test_a_point_on_the_way_divides_the_great_circle(lat_a, lon_a, lat_b, lon_b, part):
    whole_km = distance_km(lat_a, lon_a, lat_b, lon_b)
    if whole_km > 0.99 * math.pi * EARTH_RADIUS_KM:
        return  # near antipodes the circle itself is not determined
    lat, lon = point_between(lat_a, lon_a, lat_b, lon_b, part)
    assert -90 <= lat <= 90 and -180 <= lon <= 180
    assert distance_km(lat_a, lon_a, lat, lon) == pytest.approx(part * whole_km, abs=0.05)
    assert distance_km(lat, lon, lat_b, lon_b) == pytest.approx((1 - part) * whole_km, abs=0.05)


def test_a_link_of_240_km_gets_two_trusted_nodes():
    nodes, hops = expand(link(240.0), LISBON, MADRID, rule())
    assert [node.site_id for node in nodes] == ["l.tn1", "l.tn2"]
    assert [node.domain for node in nodes] == ["PT", "ES"] == [node.country for node in nodes]
    assert [(hop.link_id, hop.a, hop.b) for hop in hops] == [
        ("l.1", "pt-lisbon", "l.tn1"),
        ("l.2", "l.tn1", "l.tn2"),
        ("l.3", "l.tn2", "es-madrid"),
    ]
    assert nodes[0].name == "Trusted node 1 of 2, pt-lisbon to es-madrid"


def test_a_node_in_the_middle_belongs_to_a():
    nodes, _ = expand(link(160.0), LISBON, MADRID, rule())
    assert [node.domain for node in nodes] == ["PT"]


def test_a_link_of_one_span_keeps_its_id():
    nodes, hops = expand(link(80.0), LISBON, MADRID, rule())
    assert nodes == [] and [hop.link_id for hop in hops] == ["l"]


def test_a_sea_cable_is_one_hop_and_takes_the_better_device_only_where_it_must():
    for length_km, device in ((140.0, "dv-snspd"), (60.0, "dv-metro")):
        nodes, hops = expand(link(length_km, medium="submarine"), LISBON, MADRID, rule())
        assert nodes == [] and [(hop.length_km, hop.device) for hop in hops] == [(length_km, device)]


def test_a_link_may_name_its_own_device_and_measured_loss():
    _, hops = expand(link(100.0, device="mine", attenuation_db_per_km=0.3), LISBON, MADRID, rule())
    assert [(hop.device, hop.loss_db) for hop in hops] == [("mine", pytest.approx(16.0))] * 2


def test_equal_and_opposite_places_have_a_middle_of_sorts():
    assert point_between(10.0, 20.0, 10.0, 20.0, 0.5) == (10.0, 20.0)
    assert point_between(10.0, 20.0, -10.0, -160.0, 0.5) == (10.0, 20.0)
