"""ETSI GS QKD 015, statement 10: each of the 11 notifications is brought about at a real node, heard once."""

import time
from collections.abc import Iterator

import pytest
from yangson import DataModel

from openqci.control.etsi015.notices import NAMES
from openqci.services.kme_server import STOP_S_MAX
from tests.conformance.etsi015.make import WAIT_S, Agents, Subscriber

HEARD: set[str] = set()
"""The notifications that the tests of this file have heard."""


@pytest.fixture(scope="module")
def model(agents: Agents) -> DataModel:
    return agents.model()


@pytest.fixture
def subscribers(agents: Agents, model: DataModel) -> Iterator[tuple[Subscriber, Subscriber]]:
    one, other = Subscriber(agents, model), Subscriber(agents, model)
    try:
        yield one, other
    finally:
        HEARD.update(one.names())
        other.close()
        one.close()


def replayed(agents: Agents, model: DataModel, place: int, name: str) -> Subscriber:
    """Listen to all since a node's start until a notification has come."""
    heard = Subscriber(agents, model, place, "?start-time=2026-01-01T00:00:00Z")
    try:
        agents.until(lambda: name in heard.names())
    finally:
        HEARD.update(heard.names())
        heard.close()
    return heard


def test_015_10_a_new_module_is_told_and_can_be_heard_later(agents: Agents, model: DataModel) -> None:
    heard = replayed(agents, model, 1, "sdqkdn_interface_new")
    assert heard.names().count("sdqkdn_interface_new") == 1
    (told,) = (content for name, content in heard.heard if name == "sdqkdn_interface_new")
    assert told["qkd_interface"]["qkdi_id"] == 1


def test_015_10_what_happens_is_told_to_all_who_listen_once(
    agents: Agents, subscribers: tuple[Subscriber, Subscriber]
) -> None:
    one, other = subscribers
    agents.switch(False)
    agents.until(lambda: one.names().count("event") == 1)
    agents.switch(True)
    agents.until(lambda: one.names().count("event") == 2)
    agents.until(lambda: agents.link()["qkdl_performance"]["skr"] > 0)
    agents.drain()
    agents.until(lambda: {"sdqkdn_application_new", "sdqkdn_link_overloaded"} <= set(one.names()))
    agents.chain.modules[0].kill()
    deadline_s = time.monotonic() + WAIT_S
    while "sdqkdn_link_down" not in one.names() and time.monotonic() < deadline_s:
        agents.drain()
    lost = {"sdqkdn_interface_down", "sdqkdn_link_down", "alarm"}
    agents.until(lambda: lost <= set(one.names()))
    told = {"sdqkdn_application_disconnected", "sdqkdn_link_perf_update"}
    agents.until(lambda: told <= set(one.names()))
    agents.until(lambda: len(other.lines) >= len(one.lines))
    common = min(len(one.lines), len(other.lines))
    assert one.lines[:common] == other.lines[:common]
    assert len(set(one.lines)) == len(one.lines), "nothing is told twice"
    assert one.names().count("sdqkdn_link_down") == 1


def test_015_10_what_is_promised_otherwise_after_a_restart_is_told(agents: Agents, model: DataModel) -> None:
    file = agents.chain.folder / "node-0" / "kme.toml"
    agents.chain.kmes[0].kill()
    file.write_text(file.read_text().replace("ttl_s = 8.0", "ttl_s = 9.0"))
    agents.chain.kmes[0].start()
    heard = replayed(agents, model, 0, "sdqkdn_application_qos_update")
    (told,) = (content for name, content in heard.heard if name == "sdqkdn_application_qos_update")
    assert told["qkd_application"]["app_qos"]["ttl"] == 9


def test_015_10_a_module_that_was_taken_out_is_told(agents: Agents, model: DataModel) -> None:
    file = agents.chain.folder / "node-1" / "kme.toml"
    listening = Subscriber(agents, model, 1)
    began_s = time.monotonic()
    assert agents.chain.kmes[1].stop() == 0
    assert time.monotonic() - began_s < STOP_S_MAX, "a stream that is open keeps no node from stopping"
    listening.close()
    before, _, _ = file.read_text().partition("\n[[link]]")
    file.write_text(before)
    agents.chain.kmes[1].start()
    heard = replayed(agents, model, 1, "sdqkdn_interface_out")
    assert ("sdqkdn_interface_out", {"qkd_interface": {"qkdi_id": 1}}) in heard.heard


def test_015_10_all_eleven_were_heard() -> None:
    assert set(NAMES) == HEARD


@pytest.mark.parametrize(
    "query", ["?stop-time=2026-01-01T00:00:00Z", "?start-time=2126-01-01T00:00:00Z", "?start-time=x", "?x=1"]
)
def test_015_10_a_time_that_makes_no_sense_is_refused(agents: Agents, query: str) -> None:
    answer = agents.call("GET", agents.stream_path(0) + query)
    assert (answer.status, answer.tag) == (400, "invalid-value")


def test_015_10_who_has_no_role_hears_nothing(agents: Agents) -> None:
    assert agents.call("GET", agents.stream_path(0), role="sae").status == 401
