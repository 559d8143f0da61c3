"""The topology of a domain is valid data of RFC 8345 and of our module, held against them by yangson."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yangson import DataModel
from yangson.enumerations import ContentType

from openqci.control.configuration import Border, DomainConfiguration, Link, Node, Pair
from openqci.control.topology import NETWORKS, decimal64, networks_document

ROOT = Path(__file__).parents[2]
FOLDERS = (
    str(ROOT / "tests" / "control" / "yang"),
    str(ROOT / "tests" / "conformance" / "etsi015" / "yang"),
    str(ROOT / "docs" / "reference" / "yang"),
)
IMPLEMENTED = {
    "ietf-network": ("2018-02-26", "urn:ietf:params:xml:ns:yang:ietf-network"),
    "ietf-network-topology": ("2018-02-26", "urn:ietf:params:xml:ns:yang:ietf-network-topology"),
    "openqci-qkd-topology": ("2026-12-01", "urn:openqci:yang:openqci-qkd-topology"),
}
IMPORTED = {
    "ietf-yang-types": ("2013-07-15", "urn:ietf:params:xml:ns:yang:ietf-yang-types"),
    "ietf-inet-types": ("2013-07-15", "urn:ietf:params:xml:ns:yang:ietf-inet-types"),
}


@pytest.fixture(scope="module")
def model() -> DataModel:
    modules = [
        {"name": name, "revision": revision, "namespace": namespace, "conformance-type": kind}
        for kind, named in (("implement", IMPLEMENTED), ("import", IMPORTED))
        for name, (revision, namespace) in named.items()
    ]
    library = {"ietf-yang-library:modules-state": {"module-set-id": "1", "module": modules}}
    return DataModel(json.dumps(library), FOLDERS)


def domain(links: tuple[Link, ...]) -> DomainConfiguration:
    return DomainConfiguration(
        "AT",
        7,
        0.0,
        nodes=(Node("kme-a", "Hall 3", "AT", "AIT", 2, ("ministry",)), Node("kme-b")),
        links=links,
        pairs=(Pair("ministry", "clinic"),),
        borders=(Border("kme-a", "DE", "kme-x"),),
    )


links = st.builds(
    Link,
    st.just("a--b"),
    st.just("kme-a"),
    st.just("kme-b"),
    st.floats(0.0, 1e12),
    st.floats(0.0, 1.0),
    st.booleans(),
    st.text(max_size=8),
)


@settings(max_examples=25, deadline=None)
@given(links)
def test_any_domain_is_valid_data(model: DataModel, link: Link) -> None:
    document = networks_document(domain((link,)))
    model.from_raw(document).validate(ctype=ContentType.all)  # raises what is wrong
    assert len(document[NETWORKS]["network"][0]["ietf-network-topology:link"]) == 2


def test_each_link_is_there_in_both_directions_and_nothing_of_applications() -> None:
    document = networks_document(domain((Link("a--b", "kme-a", "kme-b", 1_000.0, usable=False),)))
    (network,) = document[NETWORKS]["network"]
    there, back = network["ietf-network-topology:link"]
    assert there["source"]["source-node"] == back["destination"]["dest-node"] == "kme-a"
    assert there["openqci-qkd-topology:qkd"] == back["openqci-qkd-topology:qkd"]
    assert there["openqci-qkd-topology:qkd"]["usable"] is False
    assert network["node"][0]["openqci-qkd-topology:qkd"]["border-to"] == ["DE"]
    assert "ministry" not in json.dumps(document) and "clinic" not in json.dumps(document)


@given(st.floats(0.0, 1.0))
def test_an_epsilon_is_never_told_too_small(value: float) -> None:
    assert float(decimal64(value)) >= value
    assert len(decimal64(value).partition(".")[2]) <= 18
