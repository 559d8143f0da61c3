"""``kme.toml``: its published schema, its page, and what a wrong one is told."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from openqci.core.errors import ConfigurationError
from openqci.services.kme_config_file import checked_config, config_schema, load_config

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def document() -> dict[str, Any]:
    """Return the smallest node with a peer."""
    return {
        "version": 1,
        "node": {"kme_id": "kme-a", "state_dir": "state", "mode": "laboratory"},
        "tls": {"certificate": "c", "key": "k", "authority": "a"},
        "listen": {"sae": "0.0.0.0:8443", "peer": "0.0.0.0:8444"},
        "sae": [{"id": "app-a"}],
        "peer": [{"kme_id": "kme-b", "url": "https://b:8444", "saes": ["app-b"]}],
        "link": [
            {
                "id": "ab",
                "peer": "kme-b",
                "leads": True,
                "etsi014": {
                    "url": "https://m:9500",
                    "peer_sae_id": "kme-b",
                    "certificate": "c",
                    "key": "k",
                    "authority": "a",
                },
            }
        ],
        "pair": [{"master": "app-a", "slaves": ["app-b"]}],
    }


REMOTE = {"domain": "FR", "saes": ["app-fr"], "via": ["kme-b"]}
PARTNER = {
    "kme_id": "kme-es",
    "domain": "ES",
    "url": "https://es:9020",
    "authority": "es.pem",
    "own_callback_url": "https://here:9020/kmapi/v1/ext_keys/ack",
}


def faults_of(changed: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as raised:
        checked_config(Path("kme.toml"), changed)
    return "\n".join(map(str, raised.value.faults))


def test_the_smallest_document_is_good() -> None:
    assert checked_config(Path("kme.toml"), document()).kme_id == "kme-a"


def test_the_published_schema_is_the_one_in_force() -> None:
    published = json.loads((REFERENCE / "kme-config.schema.json").read_text())
    assert published == config_schema(), "write it anew: python -m tests.kme.test_config"


def test_the_page_names_every_setting_and_no_other() -> None:
    told = {
        name
        for row in re.findall(r"^\| [^|]*\| (`[^|]*`) \|", (REFERENCE / "kme-config.md").read_text(), re.M)
        for name in re.findall(r"`(\w+)`", row)
    }
    sections = set(config_schema()["$defs"]["KmeConfig"]["properties"]) - {"version"}
    real = {
        name for definition in config_schema()["$defs"].values() for name in definition.get("properties", {})
    }
    nested = {"etsi014", "etsi004_push"}
    assert told - sections == real - sections - nested


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (("node", "kme_id"), "a b", "node.kme_id"),
        (("node", "colour"), "red", "'colour' was unexpected"),
        (("listen", "sae"), "8443", "listen.sae"),
        (("node", "workers"), 2, "node.workers: is 2, and the store is SQLite"),
        (("node", "workers"), 0, "node.workers"),
        (("link", 0, "peer"), "kme-x", "link[0].peer: 'kme-x' is no [[peer]]; expected one of ['kme-b']"),
        (("link", 0, "low_bytes"), 1 << 30, "link[0].low_bytes: is above high_bytes"),
        (("remote",), [REMOTE], "etsi020: is missing; expected a section with the domain of this node"),
        (("partner",), [PARTNER], "listen.etsi020: is missing; expected the address at which partners call"),
        (("remote",), [{**REMOTE, "via": ["x"]}], "remote[0].via: x: no [[partner]] and no [[peer]]"),
        (("remote",), [{**REMOTE, "saes": ["app-b"]}], "sae: 'app-b' occurs more than once"),
        (("partner",), [{**PARTNER, "agreement": "x"}], "partner[0].agreement: 'x' is no [[agreement]]"),
        (("partner",), [{**PARTNER, "draft": True}], "partner[0].targets_max: is above 1"),
        (
            ("agreement",),
            [{"name": "x", "valid_from": "2026-02-30"}],
            "agreement[0].valid_from: '2026-02-30'",
        ),
        (("pair", 0, "master"), "app-x", "pair[0].master: 'app-x' is not served here"),
        (("pair", 0, "slaves"), ["app-a"], "pair[0].slaves: 'app-a' is at no [[peer]] with a [[link]]"),
        (("sae", 0, "id"), "app b", "sae[0].id"),
        (("peer", 0, "saes"), ["app-a"], "'app-a' occurs more than once"),
        (("peer", 0, "url"), "http://b", "peer[0].url"),
    ],
)
def test_a_fault_is_named_with_its_place(place: tuple[Any, ...], value: object, expected: str) -> None:
    changed: Any = document()
    at = changed
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    assert expected in faults_of(changed)


def test_more_than_half_of_a_link_cannot_be_reserved_and_the_fault_says_how_much() -> None:
    changed = document()
    changed["pair"] = [{"master": "app-a", "slaves": ["app-b"], "reserved_bps": 32_000}]
    checked_config(Path("kme.toml"), changed)  # what the link brings is not known: an alarm will tell
    changed["link"][0]["rate_bps"] = 69_000
    checked_config(Path("kme.toml"), changed)
    changed["link"][0]["rate_bps"] = 60_000
    said = faults_of(changed)
    assert "link[0].rate_bps: is over-committed: by [[pair]] reserved_bps 34500 bit/s are reserved" in said
    assert "4500 more than this end's half of the link's rate, 30000 bit/s" in said
    changed["link"][0]["rate_bps"] = 69_000
    changed["listen"]["etsi004"] = "127.0.0.1:25575"
    assert "with [etsi004] reserved_bps_max 44500 bit/s are reserved, 10000 more" in faults_of(changed)


def test_all_faults_are_named_at_once() -> None:
    changed = document()
    changed["pair"] = [{"master": "x", "slaves": ["app-b"]}, {"master": "y", "slaves": ["z"]}]
    said = faults_of(changed)
    assert "'x' is not served here" in said and "'y' is not served here" in said and "'z' is at no" in said


def test_a_production_node_refuses_a_source_that_is_said_to_be_simulated() -> None:
    changed = document()
    changed["node"]["mode"] = "production"
    changed["link"][0]["etsi014"]["simulated"] = True
    assert "a production node refuses simulated sources" in faults_of(changed)


def test_a_link_has_one_source() -> None:
    changed = document()
    tls = {"certificate": "c", "key": "k", "authority": "a"}
    stream = {"address": "m:25575", "source": "qkd://kme-a", "destination": "qkd://kme-b", **tls}
    changed["link"][0]["etsi004"] = stream
    assert "link[0]: has several sources" in faults_of(changed)
    del changed["link"][0]["etsi014"]
    assert list(checked_config(Path("kme.toml"), changed).config.link[0].sources) == ["etsi004"]
    changed["node"]["mode"] = "production"
    changed["link"][0]["etsi004"] = {**stream, "simulated": True}
    assert "link[0].etsi004.simulated: a production node refuses simulated sources" in faults_of(changed)
    del changed["link"][0]["etsi004"]
    assert "link[0]: has no source" in faults_of(changed)


def test_a_module_that_pushes_needs_a_listener_and_a_name_of_its_own() -> None:
    changed = document()
    tls = {"certificate": "c", "key": "k", "authority": "a"}
    pushing = {"module": "m", "url": "https://m/api", "source": "a", "destination": "b", **tls}
    del changed["link"][0]["etsi014"]
    changed["link"][0]["etsi004_push"] = pushing
    changed["link"].append({**changed["link"][0], "id": "ab2"})
    said = faults_of(changed)
    assert "listen.module: is missing" in said and "link.etsi004_push.module: 'm' occurs more" in said
    changed["listen"]["module"] = "0.0.0.0:8449"
    del changed["link"][1]
    assert list(checked_config(Path("kme.toml"), changed).config.link[0].sources) == ["etsi004_push"]


def test_several_workers_share_a_store_in_postgresql() -> None:
    changed = document()
    changed["node"]["workers"] = 3
    changed["store"] = {"kind": "postgresql", "url_file": "database"}
    assert checked_config(Path("kme.toml"), changed).processes == 4


def test_what_is_no_toml_is_said_so(tmp_path: Path) -> None:
    file = tmp_path / "kme.toml"
    file.write_text("version = ")
    with pytest.raises(ConfigurationError, match="is not TOML"):
        load_config(file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_config(tmp_path / "none.toml")


if __name__ == "__main__":
    (REFERENCE / "kme-config.schema.json").write_text(json.dumps(config_schema(), indent=2) + "\n")
