"""The catalogue's model of demand over eu27: 3,241 flows, each rule counted again from its figures."""

from collections import Counter

import pytest

from openqci.core.errors import ConfigurationError
from openqci.network import load_scenario, modelled_demand
from openqci.network.catalogue import catalogue_demand

EUROPE = load_scenario("eu27", whole_demand=True)
MODEL = catalogue_demand()
FLOWS = Counter(flow.use_case for flow in EUROPE.flows)


def test_each_rule_gives_as_many_flows_as_the_catalogue_s_counts() -> None:
    def sites(kind: str) -> int:
        return sum(int(each[kind]) for each in MODEL.strategic_site_counts.values())

    states = len(MODEL.strategic_site_counts)
    pairs, neighbours = states * (states - 1) // 2, len(MODEL.tso_adjacency)
    government, energy = sites("government"), sites("energy_control")
    assert {
        "gov-ipsec-restricted": government + pairs + states,
        "gov-ipsec-std": government + pairs,
        "gov-otp-voice": pairs,
        "gov-otp-text": pairs,
        "dc-100g-l1": sites("data_centre"),
        "dc-10g-macsec": sites("data_centre"),
        "hosp-ipsec": sites("hospital"),
        "hosp-object-key": sites("hospital"),
        "energy-scada-ipsec": energy + neighbours,
        "energy-otp-command": energy + neighbours,
    } == FLOWS
    assert sum(FLOWS.values()) == 3241


def test_every_flow_is_a_pair_of_its_own_between_two_sites_with_a_hop() -> None:
    assert len({(flow.master, flow.slave) for flow in EUROPE.flows}) == len(EUROPE.flows)
    unreached = set(EUROPE.unreached)
    for flow in EUROPE.flows:
        ends = {EUROPE.saes[flow.master].site, EUROPE.saes[flow.slave].site}
        assert len(ends) == 2 and flow.keys_per_s > 0
        assert not ends & unreached or ends & unreached <= {"cy-nicosia", "ie-dublin"}
    assert not EUROPE.consistency_check()


def test_rates_are_those_of_the_class_times_the_tunnels_of_the_rule() -> None:
    per_s = {(flow.master, flow.slave): flow.keys_per_s for flow in EUROPE.flows}
    six_tunnels = per_s["at-vienna.gov-ipsec-restricted", "be-brussels.institutions"]  # type: ignore[index]
    assert six_tunnels == pytest.approx(6 * 8.533 / 256)
    voice = per_s["at-vienna.gov-otp-voice", "de-berlin.gov-otp-voice"]  # type: ignore[index]
    assert voice == pytest.approx(222.222 / 256)


def test_the_first_site_of_a_kind_is_the_known_one_and_the_others_are_spread_over_towns() -> None:
    site_of = {sae.sae_id: sae.site for sae in EUROPE.saes.values()}
    assert site_of["de-hospital-01"] == "de-s-hosp"  # type: ignore[index]
    hospitals = [site for sae, site in site_of.items() if sae.startswith("de-hospital-")]
    assert len(hospitals) == 30 and len(set(hospitals)) >= 25
    assert all(EUROPE.sites[site].country == "DE" for site in hospitals)


def test_the_listed_saes_stay_and_the_listed_flows_go() -> None:
    light = load_scenario("eu27")
    assert light.saes.keys() <= EUROPE.saes.keys()
    assert len(light.flows) < 100 and not {*light.flows} & {*EUROPE.flows}
    assert light.digest == EUROPE.digest
    assert load_scenario("metro", whole_demand=True) == load_scenario("metro")
    saes, flows = modelled_demand(light.sites, light.hops.values())
    assert flows == EUROPE.flows and len(saes) == 1137


def test_a_model_without_the_catalogue_is_refused(tmp_path) -> None:
    (tmp_path / "scenario.yaml").write_text(
        "version: 1\nname: small\ntitle: Small\n"
        "stock: {low_bits: 8, high_bits: 16, pair_low_keys: 1, pair_high_keys: 2}\n"
    )
    place = "kind: trusted_node, country: AT, lat: 48.0, lon: 16.0"
    (tmp_path / "sites.yaml").write_text(
        f"version: 1\nsites:\n  - {{id: a, name: A, {place}}}\n  - {{id: b, name: B, {place}}}\n"
    )
    (tmp_path / "links.yaml").write_text(
        "version: 1\nlinks:\n  - {id: a--b, a: a, b: b, type: metro, fibre_km: 9}\n"
    )
    (tmp_path / "demand.yaml").write_text("version: 1\nmodel: euroqci\nsaes: []\nflows: []\n")
    with pytest.raises(ConfigurationError, match="expected catalogue: euroqci"):
        load_scenario(tmp_path)
