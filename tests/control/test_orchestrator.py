"""Ways over domains from their offers alone: both sides of a border, disjoint alternatives, versions."""

import time

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.control.offers import (
    BorderOffer,
    Crossing,
    DomainOffer,
    Gate,
    WayTable,
    sign_offer,
    sign_table,
    verify_offer,
    verify_table,
)
from openqci.control.orchestrator import Orchestrator, WayPolicy, reaches_of
from openqci.core.errors import ConfigurationError, PeerMisbehaved
from openqci.crypto.signatures import SigningKey, VerifyingKey

NOW_S = 1_000.0
_keys = {}


def key_of(domain: str) -> tuple[SigningKey, VerifyingKey]:
    if domain not in _keys:
        private = ec.generate_private_key(ec.SECP256R1())
        _keys[domain] = SigningKey(private), VerifyingKey(private.public_key())
    return _keys[domain]


def offer(
    domain: str, *neighbours: str, version: int = 1, rate_bps: float = 1e4, **more: object
) -> DomainOffer:
    members = {
        "issued_s": NOW_S,
        "expires_s": NOW_S + 60,
        "countries": (domain,),
        "trust": 2,
        "saes": (f"app-{domain.lower()}",),
        "transit_bps": 1e4,
        "price_eur_per_mib": 0.5,
        "epsilon": 1e-9,
    } | more
    borders = tuple(BorderOffer(each, rate_bps) for each in neighbours)
    return DomainOffer(domain, version, borders=borders, **members)  # type: ignore[arg-type]


def told(*offers: DomainOffer) -> Orchestrator:
    found = Orchestrator({each.domain: key_of(each.domain)[1] for each in offers})
    for each in offers:
        found.receive_offer(sign_offer(each, key_of(each.domain)[0]), NOW_S)
    return found


def ring() -> Orchestrator:
    """PT - ES - FR and PT - IE - FR, and BE behind FR."""
    return told(
        offer("PT", "ES", "IE"),
        offer("ES", "PT", "FR"),
        offer("IE", "PT", "FR", price_eur_per_mib=2.0),
        offer("FR", "ES", "IE", "BE"),
        offer("BE", "FR"),
    )


def domains(
    found: Orchestrator, source: str, target: str, paths: int = 1, **policy: object
) -> list[tuple[str, ...]]:
    return [
        way.domains
        for way in found.ways(source, target, paths, WayPolicy(**policy)).ways  # type: ignore[arg-type]
    ]


def test_the_cheapest_way_comes_first_and_alternatives_share_no_domain() -> None:
    found = ring()
    assert domains(found, "PT", "FR") == [("PT", "ES", "FR")]
    assert domains(found, "PT", "FR", 3) == [("PT", "ES", "FR"), ("PT", "IE", "FR")]
    assert domains(found, "PT", "BE", 2) == [("PT", "ES", "FR", "BE")]
    (way,) = found.ways("PT", "BE").ways
    assert (way.rate_bps, way.trust, way.price_eur_per_mib) == (1e4, 2, 1.0)
    assert way.epsilon == pytest.approx(3e-9)


def test_policies_say_what_is_crossed_and_the_answer_says_why_not() -> None:
    found = ring()
    assert domains(found, "PT", "FR", avoid_domains=frozenset({"ES"})) == [("PT", "IE", "FR")]
    assert domains(found, "PT", "FR", avoid_countries=frozenset({"ES", "IE"})) == []
    assert domains(found, "PT", "FR", 2, price_eur_per_mib_max=1.0) == [("PT", "ES", "FR")]
    assert domains(found, "PT", "BE", domains_max=3) == []
    assert domains(found, "PT", "FR", trust_min=3) == []
    assert domains(found, "PT", "FR", rate_bps_min=1e5) == []
    answer = found.ways("PT", "FR", 1, WayPolicy(avoid_countries=frozenset({"ES"}), trust_min=3))
    assert answer.refused["ES"] == "avoided: country ES"
    assert answer.refused["IE"] == "trust class 2, at least 3 asked for"
    assert "PT" not in answer.refused and "FR" not in answer.refused


def test_a_border_counts_when_both_sides_offer_it() -> None:
    found = told(offer("PT", "ES"), offer("ES", "PT", "FR"), offer("FR"))
    assert domains(found, "PT", "ES") == [("PT", "ES")] and domains(found, "PT", "FR") == []
    found.receive_offer(sign_offer(offer("FR", "ES", version=2, rate_bps=100.0), key_of("FR")[0]), NOW_S)
    assert found.ways("PT", "FR").ways[0].rate_bps == 100.0


def test_a_domain_that_carries_nothing_for_others_is_an_end_and_no_transit() -> None:
    found = told(offer("PT", "ES"), offer("ES", "PT", "FR", transit_bps=0.0), offer("FR", "ES"))
    assert domains(found, "PT", "FR") == [] and domains(found, "PT", "ES") == [("PT", "ES")]
    assert found.ways("PT", "FR").refused == {"ES": "carries nothing for others"}


def test_offers_are_their_domains_and_never_go_back() -> None:
    found = ring()
    with pytest.raises(PeerMisbehaved, match="not signed"):
        found.receive_offer(sign_offer(offer("ES", version=2), key_of("FR")[0]), NOW_S)
    with pytest.raises(PeerMisbehaved, match="takes part"):
        found.receive_offer(sign_offer(offer("XX"), key_of("XX")[0]), NOW_S)
    found.receive_offer(sign_offer(offer("ES", "PT", version=3), key_of("ES")[0]), NOW_S)
    for version, text in ((2, "came before"), (3, "two offers")):
        with pytest.raises(PeerMisbehaved, match=text):
            found.receive_offer(sign_offer(offer("ES", "PT", "FR", version=version), key_of("ES")[0]), NOW_S)
    with pytest.raises(PeerMisbehaved, match="does not hold now"):
        old = offer("ES", version=4, issued_s=NOW_S - 100, expires_s=NOW_S)
        found.receive_offer(sign_offer(old, key_of("ES")[0]), NOW_S)
    with pytest.raises(PeerMisbehaved, match="is an application of PT"):
        found.receive_offer(sign_offer(offer("ES", version=5, saes=("app-pt",)), key_of("ES")[0]), NOW_S)
    changed = bytearray(sign_offer(offer("ES", version=6), key_of("ES")[0]))
    changed[len(changed) // 2] ^= 1
    with pytest.raises(PeerMisbehaved):
        found.receive_offer(bytes(changed), NOW_S)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"domain": "a/b"}, "domain"),
        ({"version": 0}, "version"),
        ({"expires_s": NOW_S}, "expires_s"),
        ({"borders": (BorderOffer("ES", 1), BorderOffer("ES", 2))}, "borders"),
        ({"borders": (BorderOffer("PT", 1),)}, "border on itself"),
        ({"saes": ("a", "a")}, "saes"),
        ({"transit_bps": -1.0}, "zero or more"),
        ({"price_eur_per_mib": float("inf")}, "zero or more"),
        ({"epsilon": float("nan")}, "zero or more"),
    ],
)
def test_an_unsound_offer_is_neither_signed_nor_taken(wrong: dict[str, object], text: str) -> None:
    unsound = msgspec.structs.replace(offer("PT", "ES"), **wrong)
    with pytest.raises(ConfigurationError, match=text):
        sign_offer(unsound, key_of("PT")[0])


def test_tables_grow_in_version_when_something_changes_and_only_then() -> None:
    found = ring()
    first = found.table("PT", NOW_S)
    assert found.table("PT", NOW_S + 1) == first
    assert {each.domain: each.ways[0].domains for each in first.destinations} == {
        "ES": ("PT", "ES"),
        "IE": ("PT", "IE"),
        "FR": ("PT", "ES", "FR"),
        "BE": ("PT", "ES", "FR", "BE"),
    }
    same = offer("ES", "PT", "FR", version=2, expires_s=NOW_S + 500)
    found.receive_offer(sign_offer(same, key_of("ES")[0]), NOW_S)
    assert found.table("PT", NOW_S) == first
    assert found.expire(NOW_S + 61) == ["PT", "IE", "FR", "BE"]
    later = found.table("PT", NOW_S + 61)
    assert later.version > first.version and not later.destinations


def test_a_table_is_the_orchestrators_and_for_one_domain() -> None:
    table = ring().table("PT", NOW_S)
    text = sign_table(table, key_of("EU")[0])
    assert verify_table(text, key_of("EU")[1], "PT") == table
    assert ("FR", ("ES", "IE"), ("app-fr",)) in reaches_of(table)
    with pytest.raises(PeerMisbehaved, match="not signed by the orchestrator"):
        verify_table(text, key_of("PT")[1], "PT")
    with pytest.raises(PeerMisbehaved, match="is for domain"):
        verify_table(text, key_of("EU")[1], "ES")
    with pytest.raises(PeerMisbehaved):
        verify_table(sign_offer(offer("PT"), key_of("EU")[0]), key_of("EU")[1], "PT")
    with pytest.raises(PeerMisbehaved):
        verify_offer(text, {"PT": key_of("EU")[1]})


def test_an_offer_says_nothing_of_an_interior() -> None:
    assert set(DomainOffer.__struct_fields__) == {
        "domain",
        "version",
        "issued_s",
        "expires_s",
        "countries",
        "operator",
        "trust",
        "saes",
        "borders",
        "transit_bps",
        "epsilon",
        "price_eur_per_mib",
        "gates",
        "crossings",
    }
    assert Gate.__struct_fields__ == ("border", "node", "partner", "domain")
    assert Crossing.__struct_fields__ == ("entrance", "exit", "cost")
    assert BorderOffer.__struct_fields__ == ("domain", "rate_bps")
    assert "interior" not in str(WayTable.__struct_fields__)


def test_gates_and_crossings_that_contradict_the_borders_are_refused() -> None:
    gate = Gate("a.b|a", "a.b", "a", "AT")
    sound = DomainOffer("SK", 1, 0.0, 1.0, borders=(BorderOffer("AT", 1.0),), gates=(gate,))
    assert sound.faults() == ()
    for wrong, told in (
        ({"gates": (gate, gate)}, "occurs more than once"),
        ({"gates": (Gate("x|y", "x", "y", "HU"),)}, "leads to 'HU', which is none of the borders"),
        ({"crossings": (Crossing("a.b", "z", 1.0),)}, "does not lead from gate to gate"),
        ({"crossings": (Crossing("a.b", "a.b", 1.0),)}, "does not lead from gate to gate"),
        ({"crossings": (Crossing("a.b", "z", -1.0),)}, "expected 0 or more"),
    ):
        assert any(told in fault for fault in msgspec.structs.replace(sound, **wrong).faults())


BORDERS = st.tuples(st.integers(0, 7), st.integers(0, 7), st.booleans(), st.floats(1, 1e6))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 7), st.integers(0, 7), st.booleans(), st.floats(1, 1e6)),
        min_size=4,
        max_size=20,
    ),
    st.sets(st.integers(0, 7), max_size=3),
)
def test_any_ways_are_of_borders_that_both_offer_and_share_no_domain(
    borders: list[tuple[int, int, bool, float]], closed: set[int]
) -> None:
    names = [f"D{number}" for number in range(8)]
    said: dict[str, dict[str, float]] = {name: {} for name in names}
    for one, other, both, rate in borders:
        if one != other:
            said[names[one]][names[other]] = rate
            if both:
                said[names[other]][names[one]] = rate
    found = Orchestrator({name: key_of(name)[1] for name in names})
    for number, name in enumerate(names):
        offered = msgspec.structs.replace(
            offer(name, transit_bps=0.0 if number in closed else 1e3),
            borders=tuple(BorderOffer(other, rate) for other, rate in said[name].items()),
        )
        found.receive_offer(sign_offer(offered, key_of(name)[0]), NOW_S)
    for target in names[1:]:
        ways = found.ways("D0", target, 3).ways
        inner = [domain for way in ways for domain in way.domains[1:-1]]
        assert len(inner) == len(set(inner)) and not {f"D{number}" for number in closed} & set(inner)
        for way in ways:
            assert (way.domains[0], way.domains[-1]) == ("D0", target)
            hops = list(zip(way.domains, way.domains[1:], strict=False))
            rates = [min(said[a][b], said[b][a]) for a, b in hops]
            assert way.rate_bps == min([*rates, *[1e3] * (len(way.domains) - 2)])


def test_27_domains_are_routed_in_time() -> None:
    names = [f"D{number:02d}" for number in range(27)]
    offers = [
        offer(
            name,
            *{names[(at + step) % 27] for step in (1, 2, 5, -1, -2, -5)},
            saes=tuple(f"{name}-{number}" for number in range(50)),
        )
        for at, name in enumerate(names)
    ]
    found = told(*offers)
    began_s = time.perf_counter()
    tables = [found.table(name, NOW_S) for name in names]
    took_s = time.perf_counter() - began_s
    assert all(len(table.destinations) == 26 for table in tables)
    assert all(len(each.ways) == 3 for table in tables for each in table.destinations)
    assert took_s < 20
