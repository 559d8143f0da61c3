"""The shipped scenarios are what the data set and the issue say, and any scenario gives a sound network."""

import math
import pickle
import shutil
from collections import Counter, defaultdict
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from openqci.network import Network, load_scenario, network_digest, scenario_names
from openqci.network.catalogue import (
    MEMBER_STATES,
    catalogue_links,
    catalogue_sites,
    catalogue_sources,
    catalogue_text,
)
from openqci.network.documents import Loader
from tests.network.make import FILES, write_scenario


@pytest.fixture(scope="module")
def europe() -> Network:
    return load_scenario("eu27")


@pytest.fixture(scope="module")
def metro() -> Network:
    return load_scenario("metro")


def test_two_scenarios_are_shipped():
    assert scenario_names() == ("eu27", "islands", "metro")


def test_europe_has_the_counts_of_80_km_spans(europe):
    assert (len(europe.sites), len(europe.hops)) == (1323, 1337) and len(europe.borders) == 69
    assert sum(not site.generated for site in europe.sites.values()) == 489
    assert len(europe.domains) == 27 and set(europe.domains) == MEMBER_STATES


def test_europe_has_the_counts_of_100_km_spans(tmp_path):
    folder = tmp_path / "eu100"
    shutil.copytree(str(files("openqci.network").joinpath("scenarios", "eu27")), folder)
    text = (folder / "scenario.yaml").read_text()
    (folder / "scenario.yaml").write_text(text.replace("span_km_max: 80.0", "span_km_max: 100.0"))
    network = load_scenario(folder)
    assert (len(network.sites), len(network.hops)) == (1115, 1129)


def test_every_site_of_the_data_set_is_there_as_it_says(europe):
    for site in catalogue_sites():
        built = europe.sites[site.id]
        assert (built.name, built.country, built.kind, built.lat, built.lon, built.source) == (
            (site.name, site.country, site.kind, site.lat, site.lon, site.source)
        )
        assert not built.generated


def test_every_feasible_link_is_built_over_its_whole_length(europe):
    lengths_km: dict[str, list[float]] = defaultdict(list)
    for hop in europe.hops.values():
        lengths_km[hop.parent_link].append(hop.length_km)
    links = {link.id: link for link in catalogue_links() if link.qkd_feasible_fibre}
    assert set(lengths_km) == set(links)
    for link_id, link in links.items():
        assert math.fsum(lengths_km[link_id]) == pytest.approx(link.fibre_km)
        # The data set counts trusted nodes itself, for land links only.
        assert len(lengths_km[link_id]) == 1 + (link.tn_span80 or 0)


def test_hops_keep_to_the_span_but_for_sea_cables_which_have_better_detectors(europe):
    beyond = [hop for hop in europe.hops.values() if hop.length_km > 80]
    assert {hop.parent_link for hop in beyond} == {
        link.id
        for link in catalogue_links()
        if link.medium == "submarine" and link.qkd_feasible_fibre and link.fibre_km > 80
    }
    assert {hop.device for hop in beyond} == {"dv-snspd"}
    assert max(hop.loss_db for hop in beyond) == pytest.approx(29.16)
    assert {hop.device for hop in europe.hops.values() if hop.length_km <= 80} == {"dv-metro"}


def test_loss_is_that_of_the_data_set_where_a_link_is_one_hop(europe):
    losses_db = {link.id: link.loss_db for link in catalogue_links()}
    for hop in europe.hops.values():
        if hop.link_id == hop.parent_link:
            assert hop.loss_db == pytest.approx(losses_db[hop.link_id], abs=0.051)


def part_of(network: Network, site_id: str) -> frozenset[str]:
    return next(part for part in network.islands() if site_id in part)


def test_lisbon_and_warsaw_are_connected(europe):
    assert "pl-warsaw" in part_of(europe, "pt-lisbon")
    assert len(part_of(europe, "pt-lisbon")) == 1241


@pytest.mark.parametrize("island", ["ie-dublin", "cy-nicosia", "ov-ponta-delgada", "es-palma"])
def test_islands_without_a_short_sea_cable_are_on_their_own(europe, island):
    assert "pt-lisbon" not in part_of(europe, island)


def test_all_capitals_but_dublin_and_nicosia_are_on_the_mainland(europe):
    capitals = {site.site_id for site in europe.sites.values() if site.kind == "capital_node"}
    assert len(capitals) == 27
    assert capitals - part_of(europe, "pt-lisbon") == {"ie-dublin", "cy-nicosia"}


def test_sites_without_fibre_wait_on_the_map(europe):
    assert len(europe.unreached) == 8
    assert {"es-palma", "ov-port-aux-francais", "ogs-lapalma"} <= set(europe.unreached)


def test_overseas_sites_belong_to_their_member_state(europe):
    domains = {site_id: europe.sites[site_id].domain for site_id in ("ov-nuuk", "ogs-kourou", "ogs-curacao")}
    assert domains == {"ov-nuuk": "DK", "ogs-kourou": "FR", "ogs-curacao": "NL"}


def test_the_demand_of_europe_is_light_and_reaches_every_capital(europe):
    assert 40 <= len(europe.flows) <= 60
    assert sum(flow.keys_per_s for flow in europe.flows) <= 5
    in_use = {sae for flow in europe.flows for sae in (flow.master, flow.slave)}
    assert in_use == set(europe.saes)
    star = [flow for flow in europe.flows if flow.slave == "sae-be-brussels"]
    assert len(star) == 24
    assert any((flow.master, flow.slave) == ("sae-pt-lisbon", "sae-pl-warsaw") for flow in europe.flows)


def test_use_cases_are_those_of_the_demand_model(europe, metro):
    known = {
        "gov-ipsec-restricted",
        "energy-scada-ipsec",
        "dc-100g-l1",
        "hosp-object-key",
        "hosp-ipsec",
        "sat-ttc",
    }
    assert {flow.use_case for network in (europe, metro) for flow in network.flows} == known


def test_metro_is_small_with_two_routes_and_one_trusted_node(metro):
    assert (len(metro.sites), metro.domains, len(metro.saes), len(metro.flows)) == (
        13,
        ("AT", "HU", "SK"),
        4,
        3,
    )
    generated = [site.site_id for site in metro.sites.values() if site.generated]
    assert generated[:1] == ["hu-gyor--hu-sopron.tn1"] and generated[1:] == [
        each.node for each in metro.borders
    ]
    assert max(hop.length_km for hop in metro.hops.values()) <= 80
    # Both sides of a border stand in one site: so the ring is one of places.
    place = {border.node: border.partner for border in metro.borders}
    ends = {hop.link_id: (place.get(hop.a, hop.a), place.get(hop.b, hop.b)) for hop in metro.hops.values()}
    degree = Counter(end for pair in ends.values() for end in pair)
    # The ring is what is left without the two spurs: every node on it has two neighbours on it.
    ring = set(metro.sites) - {"at-vienna-arsenal", "sk-trnava", *place}
    inside = [pair for pair in ends.values() if ring.issuperset(pair)]
    assert len(inside) == len(ring) == 8 and len(metro.islands()) == 1
    assert all(degree[spur] == 1 for spur in ("at-vienna-arsenal", "sk-trnava"))


def test_metro_lengths_follow_the_rule_of_the_catalogue(metro):
    built_km: Counter[str] = Counter()
    for hop in metro.hops.values():
        built_km[hop.parent_link] += hop.length_km
    for parent, length_km in built_km.items():
        a, b = (metro.sites[end] for end in parent.split("--"))
        phi, lam = math.radians(a.lat - b.lat), math.radians(a.lon - b.lon)
        east = lam * math.cos(math.radians((a.lat + b.lat) / 2))
        assert length_km == pytest.approx(max(5.0, 1.5 * 6371 * math.hypot(phi, east)), rel=0.01)


@pytest.mark.parametrize("name", ["eu27", "islands", "metro"])
def test_shipped_networks_are_consistent_and_travel_well(name):
    network = load_scenario(name)
    assert network.consistency_check() == ()
    packed = pickle.dumps(network)
    assert len(packed) < 500_000 and pickle.loads(packed) == network  # noqa: S301
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(network), type=Network) == network


def test_ids_of_nodes_and_hops_are_fit_for_files_and_addresses(europe):
    for name in [*europe.sites, *europe.hops]:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") and len(name) <= 128


def test_a_hop_across_a_border_ends_at_a_node_of_its_builder_in_the_site_of_the_other(metro, europe):
    assert [(border.node, border.partner) for border in metro.borders] == [
        ("sk-bratislava.at", "sk-bratislava"),
        ("sk-bratislava.hu", "sk-bratislava"),
        ("hu-sopron.at", "hu-sopron"),
    ]
    for network in (metro, europe):
        for hop in network.hops.values():
            assert network.sites[hop.a].domain == network.sites[hop.b].domain
        for border in network.borders:
            node, partner = network.sites[border.node], network.sites[border.partner]
            assert node.kind == "border_node" and node.domain != partner.domain
            assert (node.lat, node.lon, node.country) == (partner.lat, partner.lon, partner.country)
            assert border.link_id == f"{border.node}|{border.partner}"


def test_the_digest_names_the_nodes_and_hops(tmp_path):
    base = load_scenario(write_scenario(tmp_path / "a"))
    assert load_scenario(write_scenario(tmp_path / "b")).digest == base.digest
    light = FILES["demand.yaml"].replace("0.5", "0.25")
    assert load_scenario(write_scenario(tmp_path / "c", {"demand.yaml": light})).digest == base.digest
    longer = FILES["links.yaml"].replace("200.0", "300.0")
    assert load_scenario(write_scenario(tmp_path / "d", {"links.yaml": longer})).digest != base.digest
    other = FILES["scenario.yaml"].replace("pair\n", "other\n")
    assert load_scenario(write_scenario(tmp_path / "e", {"scenario.yaml": other})).digest != base.digest


def test_the_digests_of_the_shipped_networks_stay_as_they_are(europe, metro):
    # A change here makes every data directory of the scenario foreign: say so in the release notes.
    assert {network.name: network.digest[:16] for network in (europe, metro)} == DIGESTS


DIGESTS = {"eu27": "b208dd665235c3a9", "metro": "b70971edec39eb0e"}


def test_files_that_are_optional_may_be_missing(tmp_path):
    network = load_scenario(write_scenario(tmp_path / "s", {"demand.yaml": None, "devices.yaml": None}))
    assert network.saes == {} and network.flows == ()
    assert set(network.devices) == {"dv-metro", "dv-snspd"}


def test_own_devices_add_to_the_shipped_ones_and_replace_them(tmp_path):
    own = FILES["devices.yaml"].replace("my-device", "dv-metro")
    assert set(load_scenario(write_scenario(tmp_path / "a")).devices) == {"dv-metro", "dv-snspd", "my-device"}
    assert (
        load_scenario(write_scenario(tmp_path / "b", {"devices.yaml": own})).devices["dv-metro"].reference
        == "none"
    )


def test_own_sites_and_links_add_to_the_catalogue(tmp_path):
    scenario = FILES["scenario.yaml"] + "catalogue: euroqci\n"
    links = "version: 1\nlinks:\n  - {id: new, a: at-one, b: at-vienna, type: national, fibre_km: 60}\n"
    changes = {"scenario.yaml": scenario, "links.yaml": links, "demand.yaml": None}
    network = load_scenario(write_scenario(tmp_path / "s", changes))
    assert len(network.sites) == 1323 + 2 and len(network.hops) == 1337 + 1
    assert network.hops["new"].b == "at-vienna"


def test_a_shipped_name_wins_over_a_folder_and_a_path_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scenario(tmp_path / "metro")
    assert load_scenario("metro").name == "metro"
    assert load_scenario("./metro").name == load_scenario(Path("metro")).name == "pair"


@given(
    km=st.lists(st.floats(0.1, 900), min_size=1, max_size=8),
    span_km_max=st.integers(20, 200),
)
def test_any_chain_of_links_gives_a_connected_network(tmp_path_factory, km, span_km_max):
    sites = [
        {
            "id": f"s{n}",
            "name": f"S {n}",
            "kind": "trusted_node",
            "country": "AT",
            "lat": 40 + n,
            "lon": 3 * n,
        }
        for n in range(len(km) + 1)
    ]
    links = [
        {"id": f"s{n}--s{n + 1}", "a": f"s{n}", "b": f"s{n + 1}", "type": "national", "fibre_km": length_km}
        for n, length_km in enumerate(km)
    ]
    folder = write_scenario(
        tmp_path_factory.mktemp("chain"),
        {
            "scenario.yaml": FILES["scenario.yaml"] + f"span_km_max: {span_km_max}\n",
            "sites.yaml": yaml.safe_dump({"version": 1, "sites": sites}),
            "links.yaml": yaml.safe_dump({"version": 1, "links": links}),
            "demand.yaml": None,
        },
    )
    network = load_scenario(folder)
    assert len(network.islands()) == 1 and network.unreached == ()
    assert len(network.hops) == len(network.sites) - 1
    assert math.fsum(hop.length_km for hop in network.hops.values()) == pytest.approx(math.fsum(km))
    assert all(hop.length_km <= span_km_max * (1 + 1e-12) for hop in network.hops.values())


def test_a_network_put_together_wrongly_says_what_is_wrong(metro):
    hop = next(iter(metro.hops.values()))
    broken = msgspec.structs.replace(
        metro,
        hops={"x": msgspec.structs.replace(hop, a="nowhere", device="magic")},
        saes={"s": msgspec.structs.replace(next(iter(metro.saes.values())), site="moon")},
        sites=metro.sites | {"y": metro.sites["at-vienna"]},
    )
    said = "; ".join(broken.consistency_check())
    for words in (
        f"hop {hop.link_id} is filed under x",
        "hop x ends at nowhere",
        "hop x has device magic",
        "site at-vienna is filed under y",
        "SAE s is at moon",
        "names sae-vienna-ministry, which is not an SAE",
        "the digest is not that",
    ):
        assert words in said


def test_the_digest_does_not_depend_on_order(metro):
    sites, hops = list(metro.sites.values()), list(metro.hops.values())
    assert network_digest("metro", sites[::-1], hops[::-1]) == metro.digest


# The catalogue itself.


def test_every_source_of_the_catalogue_is_explained():
    sources = catalogue_sources()
    own_words = {"model", "unverified"}
    used = {line.source for line in (*catalogue_sites(), *catalogue_links())}
    assert used - own_words <= set(sources)


def test_catalogue_ids_are_unique_and_no_two_links_join_the_same_sites():
    site_ids, links = [site.id for site in catalogue_sites()], catalogue_links()
    assert len(set(site_ids)) == len(site_ids) == 489
    assert len({link.id for link in links}) == len({frozenset((link.a, link.b)) for link in links}) == 586
    assert {end for link in links for end in (link.a, link.b)} <= set(site_ids)


def test_no_field_of_the_catalogue_is_lost_on_reading():
    for name, read in (("sites", catalogue_sites()), ("links", catalogue_links())):
        written = yaml.load(catalogue_text(f"{name}.yaml"), Loader=Loader)[name]
        fields = {field for line in written for field in line}
        assert fields == set(type(read[0]).__struct_fields__)


def test_feasible_sea_cables_are_those_up_to_150_km():
    for link in catalogue_links():
        assert link.qkd_feasible_fibre == (link.medium == "terrestrial" or link.fibre_km <= 150)


def test_the_attribution_names_the_licences():
    text = catalogue_text("ATTRIBUTION.md")
    assert all(word in text for word in ("CC BY 4.0", "GeoNames", "Topology Zoo", "SNDlib", "confidence"))
