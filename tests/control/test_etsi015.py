"""The pure part of the agent of ETSI GS QKD 015: resources, queries and edits of any tree."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.control.etsi015 import (
    LinkFacts,
    NodeFacts,
    PairFacts,
    Query,
    RestconfError,
    edits,
    node_document,
    read,
)
from openqci.control.etsi015.library import modules_state, restconf_state
from openqci.control.etsi015.model import DATA, MODULE, Branch, Leaf
from openqci.control.etsi015.node import UINT32_MAX, link_status
from openqci.control.etsi015.tree import parse_fields, parse_query
from openqci.core.identifiers import KmeId, LinkId, SaeId

few = settings(max_examples=30, deadline=None)

TOP = f"{MODULE}:qkd_node"

links = st.builds(
    LinkFacts,
    st.integers(0, 9).map(lambda number: LinkId(f"link-{number}")),
    st.integers(1, 9),
    st.sampled_from([KmeId("kme-b"), KmeId("kme-c")]),
    st.sampled_from(["BB84 decoy", "CV GG02", "COW", "unknown", ""]),
    st.booleans(),
    st.integers(0, 10**6),
    st.floats(0.0, 1e12),
    st.sampled_from(["", "module is off"]),
)
pairs = st.builds(
    PairFacts,
    st.just(SaeId("bank a")),
    st.just((SaeId("bank/b"),)),
    st.just(KmeId("kme-b")),
    st.just((LinkId("link-0"),)),
    max_bps=st.integers(0, 10**12),
    min_bps=st.integers(0, 10**12),
)
nodes = st.builds(
    NodeFacts,
    st.just(KmeId("kme-a")),
    st.just("hall"),
    st.just("1"),
    st.booleans(),
    st.lists(links, max_size=3, unique_by=(lambda link: link.link_id, lambda link: link.number)).map(tuple),
    st.lists(pairs, max_size=1).map(tuple),
)


def data(facts: NodeFacts) -> dict[str, Any]:
    return {
        TOP: node_document(facts),
        "ietf-yang-library:modules-state": modules_state(),
        "ietf-restconf-monitoring:restconf-state": restconf_state("https://kme", "2026-12-01T00:00:00Z"),
    }


def resources(
    value: Any, model: Branch | Leaf, path: str, *, entry: bool = False
) -> Iterator[tuple[str, Any]]:
    """Yield the path of each resource, and what is there."""
    yield path, [value] if entry else value
    if isinstance(model, Leaf):
        return
    if isinstance(value, list):
        for each in value:
            key = ",".join(quote(str(each[name]), safe="") for name in model.key.split())
            yield from resources(each, model, f"{path}={key}", entry=True)
        return
    for name, child in value.items():
        yield from resources(child, model.children[name], f"{path}/{name}" if path else name)


@few
@given(nodes)
def test_every_resource_is_found_at_its_path(facts: NodeFacts) -> None:
    whole = data(facts)
    for path, value in resources(whole, DATA, ""):
        assert list(read(whole, path, Query()).values()) == [value], path


@few
@given(nodes)
def test_what_can_be_set_and_what_cannot_are_all_there_is(facts: NodeFacts) -> None:
    whole = data(facts)
    for path, value in resources(whole, DATA, ""):
        if isinstance(value, dict | list):
            continue
        found = []
        for content in ("config", "nonconfig"):
            try:
                read(whole, path, Query(content))
                found.append(content)
            except RestconfError as missing:
                assert missing.status == 404
        assert found == (["config"] if path.endswith("qkdl_enable") else ["nonconfig"]), path


@few
@given(nodes, st.integers(1, 8))
def test_less_depth_is_never_more(facts: NodeFacts, depth: int) -> None:
    def size(query: Query) -> int:
        return len(str(read(data(facts), TOP, query)))

    assert size(Query(depth=depth)) <= size(Query(depth=depth + 1)) <= size(Query())


@few
@given(nodes, st.sampled_from(["PUT", "PATCH", "POST", "DELETE"]), st.booleans())
def test_an_edit_sets_switches_of_links_and_nothing_else(facts: NodeFacts, method: str, value: bool) -> None:
    whole = data(facts)
    for path, _ in resources(whole, DATA, ""):
        name = next(iter(read(whole, path, Query())))
        try:
            made = edits(whole, method, path, {name: value})
        except RestconfError as refused:
            assert refused.status in (400, 405)
            continue
        assert [(steps[-1], set_to) for steps, set_to in made] == [("qkdl_enable", value)]
        assert method in ("PUT", "PATCH")


@few
@given(nodes)
def test_the_whole_configuration_can_be_put_back_by_a_patch(facts: NodeFacts) -> None:
    whole = data(facts)
    if not facts.links:
        return
    told = read(whole, TOP, Query("config"))
    assert sorted(steps[-2] for steps, _ in edits(whole, "PATCH", TOP, told)) == sorted(
        f"={link['qkdl_id']}" for link in whole[TOP]["qkd_links"]["qkd_link"]
    )


@given(links)
def test_a_link_without_key_to_come_and_stock_is_not_active(link: LinkFacts) -> None:
    status = link_status(link)
    assert (status == "ACTIVE") == (link.enabled and not link.trouble)
    assert (status == "PASSIVE") == (status != "ACTIVE" and link.stock_bytes > 0)


def test_rates_beyond_the_standards_numbers_are_told_as_the_largest() -> None:
    fast = LinkFacts(LinkId("l"), 1, KmeId("b"), "BB84", True, 0, 1e13)
    (link,) = node_document(NodeFacts(KmeId("a"), "", "1", False, (fast,)))["qkd_links"]["qkd_link"]
    assert link["qkdl_performance"]["skr"] == UINT32_MAX


@given(st.text("ab;/()", max_size=12))
def test_any_text_is_fields_or_refused(text: str) -> None:
    try:
        assert parse_fields(text)
    except RestconfError as refused:
        assert refused.status == 400


def test_fields_that_name_a_node_twice_ask_for_both_parts() -> None:
    assert parse_fields("a/b;a/c;d") == {"a": {"b": None, "c": None}, "d": None}
    assert parse_fields("a/b;a") == {"a": None}


def test_fields_are_bounded_in_depth() -> None:
    with pytest.raises(RestconfError, match="levels"):
        parse_fields("/".join("a" * 40))


def test_a_query_has_its_defaults() -> None:
    assert parse_query([]) == Query() == parse_query([("content", "all"), ("depth", "unbounded")])
