"""Every kind of broken scenario gives the one clear fault, with file, line, path and expectation."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openqci.core.errors import ConfigurationError, Fault
from openqci.network import LocatedFault, ScenarioNotFound, load_scenario
from openqci.network.documents import parse_document
from tests.network.make import FILES, edited, write_scenario

SITE, LINK, FLOW = "sites.yaml", "links.yaml", "demand.yaml"


def faults_of(folder: Path) -> list[LocatedFault]:
    with pytest.raises(ConfigurationError) as refusal:
        load_scenario(folder)
    for fault in refusal.value.faults:
        assert isinstance(fault, Fault) and "\n" not in str(fault)
    return [fault for fault in refusal.value.faults if isinstance(fault, Fault)]


def one_fault(folder: Path) -> tuple[str, str, int, str]:
    faults = faults_of(folder)
    assert len(faults) == 1, "\n".join(map(str, faults))
    fault = faults[0]
    return Path(fault.file).name, fault.path, getattr(fault, "line", 0), fault.message


NOON = "2027-03-20T12:00:00Z"
SPACE = 'space: {{start_utc: "{start}", missions: [{{mission: eagle-1, stations: [{stations}]}}]}}'

FORM = [
    # what is changed, path, line, part of the message
    (
        edited(LINK, ("fibre_km: 200.0", "fibre_km: -3")),
        "links[0].fibre_km",
        3,
        "above 0, at most 20000 km, found -3",
    ),
    (edited(LINK, ("fibre_km: 200.0", "fibre_km: 1.0e9")), "links[0].fibre_km", 3, "; write 1.0e+9"),
    (edited(LINK, ("fibre_km: 200.0", "fibre_km: 2E1")), "links[0].fibre_km", 3, "; write 2.0e+1"),
    (edited(LINK, ("fibre_km: 200.0", "fibre_km: .nan")), "links[0].fibre_km", 3, "expected a finite number"),
    (edited(LINK, ("fibre_km: 200.0", "fibre_km: .inf")), "links[0].fibre_km", 3, "expected a finite number"),
    (edited(LINK, ("fibre_km: 200.0", "fibre_km: far")), "links[0].fibre_km", 3, 'found text "far"'),
    (edited(LINK, ("fibre_km: 200.0", "fibre_km: true")), "links[0].fibre_km", 3, "finite number above 0"),
    (edited(LINK, (", fibre_km: 200.0", "")), "links[0].fibre_km", 3, "missing; expected a finite number"),
    (
        edited(LINK, ("cross_border", "border")),
        "links[0].type",
        3,
        "expected one of national, metro, cross_border",
    ),
    (edited(LINK, ("fibre_km", "fibre_km: 3, lenght_km")), "links[0].lenght_km", 3, "unknown field"),
    (edited(SITE, ("lat: 48.0", "lat: 91")), "sites[0].lat", 3, "at least -90, at most 90 degrees, found 91"),
    (edited(SITE, ("lon: 17.0", "lon: -180.5")), "sites[1].lon", 4, "at least -180"),
    (edited(SITE, ("country: AT", "country: NO")), "sites[0].country", 3, "write it in quotes"),
    (edited(SITE, ("country: AT", "country: Austria")), "sites[0].country", 3, "ISO 3166-1"),
    (edited(SITE, ("name: One", "name: 1")), "sites[0].name", 3, "write it in quotes"),
    (
        edited(SITE, ("name: One", "nome: One, name: X")),
        "sites[0].nome",
        3,
        "expected name (a slip of the pen?)",
    ),
    (edited(SITE, ("kind: trusted_node", "kind: pub")), "sites[0].kind", 3, "capital_node"),
    (
        edited(SITE, ("version: 1", "version: 2")),
        "version",
        1,
        "expected 1, the only one that this OpenQCI reads",
    ),
    (edited(SITE, ("version: 1\n", "")), "version", 1, "missing; expected 1"),
    ({SITE: "- a\n"}, "", 1, "expected a mapping (name: value), found a list of 1"),
    ({SITE: ""}, "", 0, "expected a mapping (name: value), found nothing"),
    ({SITE: "version: 1\nsites: 7\n"}, "sites", 2, "expected a list"),
    (
        edited(FLOW, ("keys_per_s: 0.5", "keys_per_s: 1, key_size_bits: 100")),
        "flows[0].key_size_bits",
        6,
        "multiple of 8",
    ),
    (edited(FLOW, ("id: sae-two", "id: sae two")), "saes[1].id", 4, "RFC 3986"),
    (edited(FLOW, ("id: sae-two", 'id: "sae-two\\n"')), "saes[1].id", 4, "RFC 3986"),
    (edited("devices.yaml", ("1.0e+9", "1e9")), "devices[0].clock_rate_hz", 4, "; write 1.0e+9"),
    (edited("devices.yaml", ("65536", "65536.5")), "devices[0].block_sifted_bits", 15, "a whole number"),
    (
        edited("scenario.yaml", ("high_bits: 2000, ", "")),
        "stock.high_bits",
        4,
        "missing; expected a whole number",
    ),
]

YAML = [
    (edited(SITE, ("lat: 48.0", "lat: 48.0, lat: 49.0")), "sites[0].lat", 3, "given twice"),
    ({SITE: "version: 1\nsites: [}\n"}, "", 2, "not valid YAML"),
    ({SITE: "version: 1\nsites: &a [*a]\n"}, "sites[0]", 2, "an alias (*name) is not allowed"),
    ({SITE: "version: 1\nsites: !!python/object:os.system {}\n"}, "", 2, "not valid YAML"),
    ({SITE: "version: 2001-99-99\n"}, "", 0, "not valid YAML"),
    ({SITE: "version: \x07\n"}, "", 0, "not valid YAML"),
]

FIT = [
    (edited(LINK, ("b: sk-two", "b: sk-three")), "links[0].b", 3, "no site sk-three"),
    (edited(LINK, ("b: sk-two", "b: at-one")), "links[0].b", 3, "ends where it begins"),
    (
        edited(LINK, ("fibre_km", "device: magic, fibre_km")),
        "links[0].device",
        3,
        "no device magic; expected one of dv-m",
    ),
    (
        {LINK: FILES[LINK] + FILES[LINK].splitlines()[2] + "\n"},
        "links[1].id",
        4,
        "one--two is also the id of links[0]",
    ),
    (
        {LINK: FILES[LINK] + FILES[LINK].splitlines()[2].replace("one--two", "other") + "\n"},
        "links[1].b",
        4,
        "one--two joins the same two sites",
    ),
    (
        edited(LINK, ("fibre_km: 200.0", "medium: submarine, fibre_km: 151")),
        "links[0].fibre_km",
        3,
        "expected at most submarine_km_max, 150 km",
    ),
    (
        {SITE: FILES[SITE] + FILES[SITE].splitlines()[2] + "\n"},
        "sites[2].id",
        5,
        "at-one is also the id of sites[0]",
    ),
    (edited(FLOW, ("site: sk-two", "site: sk-three")), "saes[1].site", 4, "no site sk-three"),
    (edited(FLOW, ("slave: sae-two", "slave: sae-3")), "flows[0].slave", 6, "no SAE sae-3"),
    (edited(FLOW, ("slave: sae-two", "slave: sae-one")), "flows[0].slave", 6, "also the master"),
    (edited(FLOW, ("id: sae-two", "id: sae-one")), "saes[1].id", 4, "also the id of saes[0]"),
    (
        {FLOW: FILES[FLOW] + FILES[FLOW].splitlines()[5] + "\n"},
        "flows[1].slave",
        7,
        "a flow of these two is above",
    ),
    (
        edited("scenario.yaml", ("low_bits: 1000", "low_bits: 2000")),
        "stock.low_bits",
        4,
        "less than high_bits",
    ),
    (
        edited("scenario.yaml", ("pair_low_keys: 1", "pair_low_keys: 9")),
        "stock.pair_low_keys",
        4,
        "pair_high_keys",
    ),
    (edited("scenario.yaml", ("stock", "device: nix\nstock")), "device", 4, "no device nix"),
    (
        edited("scenario.yaml", ("stock", f"{SPACE.format(start=NOON, stations='at-one, ogs-x')}\nstock")),
        "space.missions[0].stations[1]",
        4,
        "no site 'ogs-x'",
    ),
    (
        edited("scenario.yaml", ("stock", f"{SPACE.format(start='noon', stations='at-one')}\nstock")),
        "space.start_utc",
        4,
        "a moment in UTC",
    ),
    (
        edited("devices.yaml", ("0.1", "0.5")),
        "devices[0].decoy_intensity",
        6,
        "less than signal_intensity, 0.5",
    ),
]


@pytest.mark.parametrize(("changes", "path", "line", "words"), [*FORM, *YAML, *FIT])
def test_a_broken_scenario_gives_one_clear_fault(tmp_path, changes, path, line, words):
    file, found_path, found_line, message = one_fault(write_scenario(tmp_path / "s", changes))
    assert file == next(iter(changes))
    assert (found_path, found_line) == (path, line)
    assert words in message


def test_a_flow_without_a_route_is_named(tmp_path):
    folder = write_scenario(tmp_path / "s", {LINK: "version: 1\nlinks: []\n"})
    assert one_fault(folder) == (
        "demand.yaml",
        "flows[0].slave",
        6,
        "no links lead from at-one to sk-two; expected sites that fibre or a satellite joins",
    )


def test_a_satellite_is_a_route_between_its_stations(tmp_path):
    space = SPACE.format(start=NOON, stations="at-one, sk-two")
    changes = edited("scenario.yaml", ("stock", f"{space}\nstock")) | {LINK: "version: 1\nlinks: []\n"}
    network = load_scenario(write_scenario(tmp_path / "s", changes))
    assert network.space is not None and network.space.missions[0].stations == ("at-one", "sk-two")
    assert network.space.missions[0].store_bits == 200_000_000 and network.hops == {}


@pytest.mark.parametrize("name", ["scenario", "sites", "links"])
def test_a_missing_file_is_named(tmp_path, name):
    file, path, line, message = one_fault(write_scenario(tmp_path / "s", {f"{name}.yaml": None}))
    assert (file, path, line) == (f"{name}.yaml", "", 0)
    assert message.startswith("file missing; expected it")


def test_a_file_that_nobody_would_read_is_named(tmp_path):
    folder = write_scenario(tmp_path / "s")
    (folder / "link.yaml").write_text("version: 1\n")
    assert one_fault(folder)[::3] == (
        "link.yaml",
        "this file is not part of a scenario; expected one of "
        "scenario.yaml, sites.yaml, links.yaml, devices.yaml, demand.yaml",
    )


def test_text_that_is_not_utf8_is_named(tmp_path):
    folder = write_scenario(tmp_path / "s")
    (folder / "sites.yaml").write_bytes(b"version: 1\nsites: \xff\n")
    assert one_fault(folder) == ("sites.yaml", "", 0, "not UTF-8 text at byte 18")


def test_a_file_beyond_all_measure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("openqci.network.reading.FILE_BYTES_MAX", 20)
    faults = faults_of(write_scenario(tmp_path / "s"))
    assert {fault.message for fault in faults} == {"expected at most 20 bytes"}


def test_a_network_beyond_all_measure_is_refused(tmp_path):
    changes = edited(LINK, ("200.0", "20000")) | edited("scenario.yaml", ("stock", "span_km_max: 1\nstock"))
    many = "".join(
        f"  - {{id: s{n}, name: S, kind: trusted_node, country: AT, lat: 0, lon: {n}}}\n" for n in range(6)
    )
    wires = "".join(
        f"  - {{id: w{n}, a: at-one, b: s{n}, type: national, fibre_km: 20000}}\n" for n in range(6)
    )
    changes[LINK] = (changes[LINK] or "") + wires
    folder = write_scenario(tmp_path / "s", changes | {SITE: FILES[SITE] + many})
    file, path, line, message = one_fault(folder)
    assert (file, path, line) == ("scenario.yaml", "span_km_max", 4)
    assert message.startswith("the links need 140000 hops; expected at most 100000")


def test_all_faults_of_all_files_come_at_once(tmp_path):
    changes = (
        edited(SITE, ("lat: 48.0", "lat: 99"))
        | edited(LINK, ("b: sk-two", "b: nowhere"))
        | edited(FLOW, ("site: at-one", "site: moon"), ("keys_per_s: 0.5", "keys_per_s: often"))
        | {"scenario.yaml": FILES["scenario.yaml"] + "colour: red\n"}
    )
    found = {
        (Path(fault.file).name, fault.path) for fault in faults_of(write_scenario(tmp_path / "s", changes))
    }
    # scenario.yaml is broken itself, so what depends on its catalogue is not guessed at.
    assert found == {
        ("sites.yaml", "sites[0].lat"),
        ("demand.yaml", "flows[0].keys_per_s"),
        ("scenario.yaml", "colour"),
    }
    changes["scenario.yaml"] = FILES["scenario.yaml"]
    found = {
        (Path(fault.file).name, fault.path) for fault in faults_of(write_scenario(tmp_path / "s", changes))
    }
    # The site with the wrong latitude still exists: nothing else complains that it does not.
    assert found == {
        ("sites.yaml", "sites[0].lat"),
        ("links.yaml", "links[0].b"),
        ("demand.yaml", "saes[0].site"),
        ("demand.yaml", "flows[0].keys_per_s"),
    }


def test_every_missing_and_every_unknown_field_is_named_once(tmp_path):
    folder = write_scenario(
        tmp_path / "s", {SITE: FILES[SITE] + "  - {id: x, colour: red, size: 3}\n", FLOW: None}
    )
    paths = [fault.path for fault in faults_of(folder)]
    fields = ("name", "kind", "country", "lat", "lon", "colour", "size")
    assert sorted(paths) == sorted(f"sites[2].{field}" for field in fields)


def test_a_catalogue_site_is_not_defined_again(tmp_path):
    changes = edited("scenario.yaml", ("stock", "catalogue: euroqci\nstock")) | edited(
        SITE, ("at-one", "at-vienna")
    )
    folder = write_scenario(tmp_path / "s", changes | {LINK: None, FLOW: None})
    assert one_fault(folder)[1::2] == (
        "sites[0].id",
        "at-vienna is in the catalogue already; expected a new id",
    )


@pytest.mark.parametrize("name", ["atlantis", "./eu27", "/no/such/folder", ""])
def test_an_unknown_scenario_lists_the_known_ones(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScenarioNotFound, match="expected a folder or one of eu27, islands, metro") as refusal:
        load_scenario(name)
    assert len(refusal.value.faults) == 1


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ScenarioNotFound, match="file: not a folder"):
        load_scenario(tmp_path / "file")


def test_a_fault_reads_as_file_line_path_and_message():
    assert str(LocatedFault("a.yaml", "links[0].b", "no site x", 7)) == "a.yaml:7: links[0].b: no site x"
    assert str(LocatedFault("a.yaml", "", "missing")) == "a.yaml: missing"


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(name=st.sampled_from(sorted(FILES)), where=st.integers(0, 40), value=anything)
def test_whatever_a_file_holds_the_answer_is_a_network_or_its_faults(tmp_path, name, where, value):
    content = yaml.safe_load(FILES[name])
    places = list(walk(content))
    holder, key = places[where % len(places)]
    holder[key] = value
    folder = write_scenario(tmp_path / "s", {name: yaml.safe_dump(content, allow_unicode=True)})
    try:
        assert load_scenario(folder).consistency_check() == ()
    except ConfigurationError as refusal:
        assert refusal.faults


def walk(content):
    for key, value in list(content.items() if isinstance(content, dict) else enumerate(content)):
        yield content, key
        if isinstance(value, dict | list):
            yield from walk(value)


@given(st.text(max_size=60))
def test_whatever_text_there_is_parsing_gives_a_document_or_its_faults(text):
    try:
        parse_document(text, "x.yaml")
    except ConfigurationError as refusal:
        assert refusal.faults


def test_lists_without_end_are_refused():
    with pytest.raises(ConfigurationError, match=r"x\.yaml:1: lists and mappings are nested more than 20"):
        parse_document("[" * 50_000, "x.yaml")
