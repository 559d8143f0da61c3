"""ETSI GS QKD 015 V2.1.1 over RESTCONF, statement by statement, against real nodes.

What is served is held against the published YANG modules by yangson, an implementation that is not ours.
"""

import base64
import json
import ssl
import time
from typing import Any

import pytest
from yangson.schemanode import (
    ContainerNode,
    InternalNode,
    LeafListNode,
    LeafNode,
    ListNode,
    SchemaNode,
)

from openqci.control.etsi015 import link_uuid, node_uuid
from openqci.control.etsi015.model import IDENTITIES, MODULE, QKD_NODE, TYPES, Branch, Leaf
from openqci.core.identifiers import KmeId, LinkId
from tests.conformance.etsi015.make import (
    NODE,
    QUOTA_BPS,
    TTL_S,
    YANG_JSON,
    Agents,
    validate,
)
from tests.kme.make import keys_in_time, openqci

LIBRARY = "/restconf/data/ietf-yang-library:modules-state"


def children(node: InternalNode) -> dict[str, SchemaNode]:
    return {child.name: child for child in node.data_children()}


def compare(model: Leaf | Branch, node: SchemaNode, path: str) -> None:
    """Hold our table against the published module with our deviations, node by node."""
    if isinstance(model, Leaf):
        assert isinstance(node, LeafListNode if model.many else LeafNode), path
        if not isinstance(node.parent, ListNode) or node.qual_name not in node.parent.keys:
            assert node.config == model.writable, path
        told = str(node.type)
        assert model.type in told or ("identityref" in told and model.type in IDENTITIES), (path, told)
        return
    assert isinstance(node, ListNode if model.key else ContainerNode), path
    if isinstance(node, ListNode):
        assert [name for name, _ in node.keys] == model.key.split(), path
    below = children(node)
    assert below.keys() == model.children.keys(), path
    for name, child in model.children.items():
        compare(child, below[name], f"{path}/{name}")


def test_015_01_the_published_modules_load_with_our_deviations_and_what_is_served_is_valid(
    agents: Agents,
) -> None:
    model = agents.model()
    for place in (0, 1):
        answer = agents.call("GET", "/restconf/data", place=place, headers={"Accept": YANG_JSON})
        validate(model, answer.json["ietf-restconf:data"])
    node = agents.node()
    assert node["qkd_applications"]["qkd_app"] and node["qkd_interfaces"]["qkd_interface"]
    compare(QKD_NODE, model.get_data_node(f"/{MODULE}:qkd_node"), "")


def test_015_01_what_is_no_such_data_would_be_found(agents: Agents) -> None:
    model = agents.model()
    data = agents.call("GET", "/restconf/data").json["ietf-restconf:data"]
    data[f"{MODULE}:qkd_node"]["qkdn_status"] = "OPERATING"
    with pytest.raises(Exception, match="qkdn_status"):
        validate(model, data)


def test_015_02_the_way_from_host_meta_to_the_node(agents: Agents) -> None:
    meta = agents.call("GET", "/.well-known/host-meta")
    assert meta.headers["content-type"].startswith("application/xrd+xml")
    assert b"rel='restconf' href='/restconf'" in meta.body
    top = agents.call("GET", "/restconf").json["ietf-restconf:restconf"]
    version = agents.call("GET", "/restconf/yang-library-version").json
    assert version == {"ietf-restconf:yang-library-version": top["yang-library-version"]}
    names = {module["name"] for module in agents.call("GET", LIBRARY).json[LIBRARY[15:]]["module"]}
    assert {MODULE, TYPES, "openqci-qkd-sdn-node-deviations"} <= names
    answer = agents.call("GET", NODE, headers={"Accept": YANG_JSON})
    assert answer.headers["content-type"] == YANG_JSON and answer.headers["etag"]
    (name,) = answer.json
    assert name == f"{MODULE}:qkd_node"
    assert answer.json[name]["qkdn_status"] == f"{TYPES}:OPERATING"
    assert agents.call("GET", NODE, headers={"Accept": "application/yang-data+xml"}).status == 406
    assert agents.call("OPTIONS", NODE).headers["accept-patch"] == YANG_JSON


def test_015_02_names_are_the_same_at_both_ends(agents: Agents) -> None:
    here, there = agents.link(0), agents.link(1)
    assert here["qkdl_id"] == there["qkdl_id"] == str(link_uuid(LinkId("0--1")))
    assert here["qkdl_remote"]["qkdn_id"] == agents.node(1)["qkdn_id"] == str(node_uuid(KmeId("kme-1")))
    assert agents.node()["qkdn_location_id"] == "hall 3"


def test_015_04_every_resource_can_be_read_by_itself(agents: Agents) -> None:
    node = agents.node()
    for name in ("qkdn_id", "qkdn_capabilities", "qkd_applications", "qkd_interfaces", "qkd_links"):
        found = agents.call("GET", f"{NODE}/{name}").json[f"{MODULE}:{name}"]
        assert type(found) is type(node[name]) and (isinstance(found, dict) or found == node[name])
    link = agents.link()
    entry = agents.call("GET", agents.link_path()).json[f"{MODULE}:qkd_link"]
    assert [each["qkdl_id"] for each in entry] == [link["qkdl_id"]]
    leaf = agents.call("GET", f"{agents.link_path()}/qkdl_local/qkdi_id")
    assert leaf.json == {f"{MODULE}:qkdi_id": 1}
    upper = f"{NODE}/qkd_links/qkd_link={link['qkdl_id'].upper()}/qkdl_type"
    assert agents.call("GET", upper).json == {f"{MODULE}:qkdl_type": f"{TYPES}:PHYS"}


def test_015_04_queries_say_how_much(agents: Agents) -> None:
    shallow = agents.call("GET", f"{NODE}?depth=2").json[f"{MODULE}:qkd_node"]
    assert shallow["qkd_links"] == {} and shallow["qkdn_id"]
    wanted = "qkdn_id;qkd_links/qkd_link(qkdl_id;qkdl_performance/skr)"
    some = agents.call("GET", f"{NODE}?fields={wanted}").json[f"{MODULE}:qkd_node"]
    assert some.keys() == {"qkdn_id", "qkd_links"}
    (link,) = some["qkd_links"]["qkd_link"]
    assert link.keys() == {"qkdl_id", "qkdl_performance"} and link["qkdl_performance"].keys() == {"skr"}
    config = agents.call("GET", f"{NODE}?content=config").json[f"{MODULE}:qkd_node"]
    assert config == {"qkd_links": {"qkd_link": [{"qkdl_id": link["qkdl_id"], "qkdl_enable": True}]}}
    assert "qkdl_enable" not in json.dumps(agents.call("GET", f"{NODE}?content=nonconfig").json)
    for query in ("depth=0", "depth=x", "content=some", "colour=red", "fields=qkdn_id;", "depth=1&depth=1"):
        assert agents.call("GET", f"{NODE}?{query}").tag == "invalid-value", query


@pytest.mark.parametrize(
    "path",
    ["/qkd_links/qkd_link=3b4f9d0e-0000-4000-8000-000000000000", "/colour", "/qkdn_id/x", "/qkdn_id=1", "/"],
)
def test_015_04_what_is_not_there_gets_404_and_says_so(agents: Agents, path: str) -> None:
    for method in ("GET", "DELETE"):
        answer = agents.call(method, NODE + path)
        assert (answer.status, answer.tag) == (404, "invalid-value")


def test_015_08_expected_consumption_is_the_sum_of_the_applications_bandwidths(agents: Agents) -> None:
    applications = agents.node()["qkd_applications"]["qkd_app"]
    link = agents.link()
    backed = [each for each in applications if link["qkdl_id"] in each["backing_qkdl_id"]]
    assert [each["app_id"] for each in backed] == link["qkdl_applications"]
    assert link["qkdl_performance"]["expected_consumption"] == QUOTA_BPS
    assert sum(each["app_qos"]["max_bandwidth"] for each in backed) == QUOTA_BPS
    agents.until(lambda: agents.link()["qkdl_performance"]["skr"] > 0)


def test_015_09_what_is_told_of_an_application_is_kept_to(agents: Agents) -> None:
    (application,) = agents.node()["qkd_applications"]["qkd_app"]
    assert application["app_qos"]["ttl"] == TTL_S
    with agents.application() as client:
        assert keys_in_time(client, "app-1").status == 200
        began_s = time.monotonic()
        answers = [client.enc_keys("app-1", 32).status for _ in range(8)]
        took_s = time.monotonic() - began_s
    assert 503 in answers, "8 times 8,192 bits are more than the application may have in 7 s"
    assert answers.count(200) * 32 * 256 <= QUOTA_BPS * (1 + took_s)
    agents.until(lambda: agents.chain.status(0)["expired_bytes"] > 0)


@pytest.mark.parametrize(
    ("method", "below", "document"),
    [
        ("PUT", "/qkdn_id", {f"{MODULE}:qkdn_id": "3b4f9d0e-0000-4000-8000-000000000000"}),
        ("PATCH", "", {f"{MODULE}:qkd_node": {"qkdn_status": f"{TYPES}:DOWN"}}),
        (
            "PATCH",
            "/qkd_links",
            {f"{MODULE}:qkd_links": {"qkd_link": [{"qkdl_id": "ID", "qkdl_status": ""}]}},
        ),
        ("PUT", "/qkd_links", {f"{MODULE}:qkd_links": {}}),
        ("POST", "/qkd_links", {f"{MODULE}:qkd_link": []}),
        ("DELETE", "/qkd_interfaces/qkd_interface=1", None),
    ],
)
def test_015_11_what_cannot_be_written_refuses_writes_and_stays(
    agents: Agents, method: str, below: str, document: Any
) -> None:
    before = agents.call("GET", f"{NODE}?content=config").body
    text = json.loads(json.dumps(document).replace('"ID"', json.dumps(agents.link()["qkdl_id"])))
    answer = agents.call(method, NODE + below, text)
    assert (answer.status, answer.tag) == (405, "operation-not-supported")
    assert agents.call("GET", f"{NODE}?content=config").body == before


@pytest.mark.parametrize(
    ("document", "status", "tag"),
    [
        ({f"{MODULE}:qkdl_enable": "false"}, 400, "invalid-value"),
        ({"qkdl_enable": False}, 400, "malformed-message"),
        ([], 400, "malformed-message"),
    ],
)
def test_015_11_a_value_of_another_type_changes_nothing(
    agents: Agents, document: Any, status: int, tag: str
) -> None:
    answer = agents.call("PUT", f"{agents.link_path()}/qkdl_enable", document)
    assert (answer.status, answer.tag) == (status, tag)
    assert agents.link()["qkdl_enable"] is True


def test_015_11_an_edit_of_a_configuration_that_has_changed_is_refused(agents: Agents) -> None:
    path, off = f"{agents.link_path()}/qkdl_enable", {f"{MODULE}:qkdl_enable": False}
    answer = agents.call("PUT", path, off, headers={"If-Match": '"0"'})
    assert (answer.status, answer.tag) == (412, "operation-failed")
    assert agents.call("PUT", path, off, headers={"Content-Type": "text/plain"}).status == 415
    assert agents.link()["qkdl_enable"] is True


def test_015_12_no_key_and_no_key_id_in_anything_that_is_told(agents: Agents) -> None:
    with agents.application() as client:
        answer = keys_in_time(client, "app-1")
    told = b"".join(agents.call("GET", "/restconf/data", place=place).body for place in (0, 1))
    (key,), (key_id,) = answer.keys, answer.key_ids
    for secret in (key_id, base64.b64encode(key).decode(), key.hex(), key.hex().upper()):
        assert secret.encode() not in told


def test_015_14_mutual_tls_and_roles(agents: Agents) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        agents.call("GET", NODE, role=None)
    off = {f"{MODULE}:qkdl_enable": False}
    for role in ("operator", "auditor"):
        assert agents.call("GET", NODE, role=role).status == 200
        answer = agents.call("PUT", f"{agents.link_path()}/qkdl_enable", off, role=role)
        assert (answer.status, answer.tag) == (403, "access-denied")
    for path in (NODE, "/restconf", "/.well-known/host-meta"):
        answer = agents.call("GET", path, role="sae")
        assert (answer.status, answer.tag) == (401, "access-denied")
    assert agents.link()["qkdl_enable"] is True


def test_015_03_teraflow_reads_the_tree_as_its_driver_does(agents: Agents) -> None:
    """Held against what the driver does with each answer: see ``control/etsi015/teraflow.py``."""
    name = "qkd_node"
    whole = agents.call("GET", NODE, place=1, headers={"Accept": "*/*"})
    assert whole.headers["content-type"] == "application/json"
    assert whole.json[name]["qkdn_status"] == "OPERATING" and whole.json[name]["qkdn_id"]
    (link,) = agents.call("GET", f"{NODE}/qkd_links/", place=1).json["qkd_links"]
    assert (link["qkdl_type"], link["qkdl_status"]) == ("PHYS", "ACTIVE")
    interfaces = agents.call("GET", f"{NODE}/qkd_interfaces/", place=1).json["qkd_interfaces"]
    assert [each["qkdi_id"] for each in interfaces["qkd_interface"]] == [1]
    applications = agents.call("GET", f"{NODE}/qkd_applications/", place=1).json["qkd_applications"]
    assert isinstance(applications["qkd_app"], list)
    capabilities = agents.call("GET", f"{NODE}/qkdn_capabilities/", place=1).json
    assert capabilities["qkdn_capabilities"]["link_stats_support"] is True
    standard = agents.call("GET", NODE, place=1, headers={"Accept": YANG_JSON})
    assert standard.headers["content-type"] == YANG_JSON and f"{MODULE}:qkd_node" in standard.json


def test_015_03_without_the_switch_there_is_the_standards_form_alone(agents: Agents) -> None:
    assert f"{MODULE}:qkd_node" in agents.call("GET", NODE, headers={"Accept": "*/*"}).json
    assert agents.call("GET", NODE, headers={"Accept": "application/json"}).status == 406
    assert agents.call("GET", f"{NODE}/qkd_links/").status == 404


def drawn(agents: Agents) -> int:
    """Return how much key the link has brought since the node's start."""
    return int(agents.chain.status(0)["links"][0]["deposited_bytes"])


def test_015_06_a_link_that_is_switched_off_draws_no_key_and_rests(agents: Agents) -> None:
    agents.until(lambda: drawn(agents) > 0)
    agents.switch(False)
    try:
        time.sleep(1.0)
        before = drawn(agents)
        assert agents.link()["qkdl_status"] == f"{TYPES}:PASSIVE"
        (interface,) = agents.node()["qkd_interfaces"]["qkd_interface"]
        assert interface["qkdi_status"] == f"{TYPES}:DISABLED"
        while agents.link()["qkdl_status"] != f"{TYPES}:OFF":
            agents.drain()
        assert drawn(agents) == before
    finally:
        agents.switch(True)
    agents.until(lambda: drawn(agents) > before)
    assert agents.link()["qkdl_status"] == f"{TYPES}:ACTIVE"
    shown = openqci(agents.chain.folder, "audit", "show", "node-0/state/audit", "--json").stdout
    entries = [entry for entry in map(json.loads, shown.splitlines()) if entry["event"] == "link-switched"]
    assert [(entry["actor"], entry["role"]) for entry in entries] == 2 * [("a-controller", "controller")]


def test_015_06_the_end_that_follows_can_switch_a_link_off_too(agents: Agents) -> None:
    agents.switch(False, place=1)
    try:
        # What is on its way when the link is switched off is refused by the end that is switched off.
        time.sleep(1.0)
        before = drawn(agents)
        for _ in range(3):
            agents.drain()
        assert drawn(agents) == before
        assert agents.link(1)["qkdl_enable"] is False and agents.link(0)["qkdl_enable"] is True
    finally:
        agents.switch(True, place=1)
    agents.until(lambda: drawn(agents) > before)


def test_015_13_without_its_controller_a_node_serves_on_by_what_was_set(agents: Agents) -> None:
    agents.switch(False)
    chain = agents.chain
    try:
        chain.kmes[0].kill()
        chain.kmes[0].start()
        assert agents.link()["qkdl_enable"] is False
        assert drawn(agents) == 0
    finally:
        agents.switch(True)
    with agents.application() as client:
        assert keys_in_time(client, "app-1").status == 200
