"""The small network broken on purpose with ``openqci fault``: cut, stopped, flooded, attacked, and mended."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from openqci.core.identifiers import LinkId
from openqci.network import load_scenario
from openqci.services.audit import entries, verify
from openqci.services.sae_client import SAEClient
from tests.dashboard.test_console_page import ARGUMENTS, CHROMIUM, OpenConsole
from tests.system.make import RunningNetwork, keys_in_time, run

METRO = load_scenario("metro")
FLOWS_AGAIN_S = 2.0
COMMISSIONED_S = 240
"""The first block of a fresh environment compiles its kernels."""

VIENNA, GYOR = "sae-vienna-ministry", "sae-gyor-backup"


def until(holds: Callable[[], Any], what: str, limit_s: float = 60) -> Any:
    give_up_s = time.monotonic() + limit_s
    while not (found := holds()):
        assert time.monotonic() < give_up_s, f"never came true: {what}"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def metro(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNetwork]:
    folder = tmp_path_factory.mktemp("faults") / "metro"
    with RunningNetwork("metro", folder, extra=("--no-load",)) as network:
        network.start()
        low_bits = METRO.stock.low_bits
        until(
            lambda: all(
                min(hop["stock_by_initiator"].values()) > low_bits for hop in status(network)["hops"]
            ),
            "every hop has key in both directions",
            COMMISSIONED_S,
        )
        yield network
        assert network.stop() == 0
        assert not verify(folder / "audit").fault


@pytest.fixture(autouse=True)
def mended(metro: RunningNetwork) -> Iterator[None]:
    yield
    run("fault", "clear", "--data-dir", metro.data_dir)
    assert status(metro)["faults"] == []


def status(network: RunningNetwork) -> dict[str, Any]:
    return dict(network.console("/api/status"))


def fault(network: RunningNetwork, *words: object, expect: int = 0) -> str:
    return run("fault", *words, "--data-dir", network.data_dir, expect=expect).stdout


def application(network: RunningNetwork, sae: str) -> SAEClient:
    (site,) = (each.site for each in METRO.saes.values() if each.sae_id == sae)
    return network.client(site, network.data_dir / "saes" / sae)


def newest_links(network: RunningNetwork) -> list[str]:
    route = network.console("/api/live?once=1")["last_route"]
    return [link for link in route["links"] if link in METRO.hops] if route else []


def emptied(client: SAEClient, slave: str) -> None:
    """Take a pair's keys until it waits for a relay: from here on, only what flows is served."""
    while client.enc_keys(slave, number=32).status == 200:
        pass


def test_after_a_cut_keys_flow_again_within_two_seconds_and_the_hop_comes_back(metro: RunningNetwork) -> None:
    with application(metro, VIENNA) as vienna:
        keys_in_time(vienna, GYOR, 1)
        cut = until(lambda: newest_links(metro), "a relay")[1]
        document = json.loads(fault(metro, "cut", cut, "--json"))
        began_s = time.monotonic()
        relays = status(metro)["totals"]["relays"]
        while status(metro)["totals"]["relays"] == relays:
            keys_in_time(vienna, GYOR, 8)
        # A bound with room for a loaded machine: alone on it, this takes a few tenths of a second.
        assert time.monotonic() - began_s < 5 * FLOWS_AGAIN_S
        assert cut not in newest_links(metro)
    now = status(metro)
    assert [each["links"] for each in now["faults"]] == [[cut]]
    (hop,) = [each for each in now["hops"] if each["link_id"] == cut]
    assert hop["state"] == "down" and hop["trouble"] == f"the fibre of {cut} is cut"
    assert run("alarm", "list", "--data-dir", metro.data_dir, expect=1).stdout.count("link lost") == 1
    assert f"cleared: {document['fault_id']}" in fault(metro, "clear", document["fault_id"])
    (hop,) = [each for each in status(metro)["hops"] if each["link_id"] == cut]
    assert hop["trouble"] == "" and hop["stock_bits"] > 0


def test_a_stopped_node_refuses_connections_and_serves_again_afterwards(metro: RunningNetwork) -> None:
    fault(metro, "stop", "hu-gyor", "--for", 600)
    gyor = application(metro, GYOR)
    with pytest.raises(OSError):
        gyor.status(VIENNA)
    assert "node Győr is stopped" in fault(metro, "list")
    fault(metro, "clear")
    with application(metro, VIENNA) as vienna:
        answer = keys_in_time(vienna, GYOR, 1)
    assert gyor.dec_keys(VIENNA, answer.key_ids).keys == answer.keys
    gyor.close()


def flooded(network: RunningNetwork) -> dict[str, int]:
    (flood,) = status(network)["faults"]
    return dict(flood["counts"])


def test_a_flood_of_one_application_leaves_the_others_served(metro: RunningNetwork) -> None:
    fault(metro, "flood", VIENNA)
    until(lambda: flooded(metro).get("refused", 0) > 20, "it asks for more than there is")
    before = flooded(metro)
    with application(metro, "sae-trnava-hospital") as hospital:
        waits_s = []
        for _ in range(10):
            began_s = time.monotonic()
            assert hospital.enc_keys(GYOR, number=1).status == 200
            waits_s.append(time.monotonic() - began_s)
    assert sorted(waits_s)[len(waits_s) // 2] < FLOWS_AGAIN_S
    until(lambda: flooded(metro)["requests"] > before["requests"], "the flood goes on all the while")


def test_what_cannot_be_done_is_said(metro: RunningNetwork) -> None:
    done = run("fault", "cut", "at-vienna--mars", "--data-dir", metro.data_dir, expect=2)
    assert "this network has no hop or link 'at-vienna--mars'" in done.stderr
    done = run("fault", "play", "suwalki", "--data-dir", metro.data_dir, expect=2)
    assert "is for eu27; this network is metro" in done.stderr


def test_the_story_of_an_attack_is_seen_in_a_browser(metro: RunningNetwork, tmp_path: Path) -> None:
    """The real chain from the eavesdropper to key made again, and every link of it seen on the page."""
    assert CHROMIUM.exists(), "install the browser: apt-get install -y --no-install-recommends chromium"
    with application(metro, VIENNA) as vienna:
        keys_in_time(vienna, GYOR, 1)
    hop = LinkId(until(lambda: newest_links(metro), "a relay")[1])
    script = tmp_path / "story.yaml"
    script.write_text(
        f"title: The hop {hop}\n"
        "steps:\n"
        f"  - inject: {{kind: qber, target: {hop}, added_qber: 0.15, name: eve}}\n"
        f"  - wait: {{hop: {hop}, state: alarm, within_s: 120}}\n"
        "  - after_s: 4\n"
        "    clear: eve\n"
        f"  - lift: {{hop: {hop}, officer: Ada, verdict: destroy}}\n"
        f"  - wait: {{hop: {hop}, state: key, within_s: 120}}\n"
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        console = OpenConsole(page, metro.ready["console_url"])
        told = fault(metro, "play", script)
        events = page.get_by_role("log")
        for words in (
            "an eavesdropper on",
            "above the bound of 9%",
            "is closed",
            "Alarm, eavesdropping",
            "Ada ruled on",
            "is open again",
        ):
            events.get_by_text(words).first.wait_for(timeout=5000)
            assert words in told
        assert console.number("openqci.troubles.attacked.length") == 0, "the mark goes when it is over"
        events.get_by_text("above the bound of 9%").first.click()
        page.locator("#panel").locator("code").get_by_text(hop, exact=True).wait_for(timeout=5000)
        assert not console.complaints
        browser.close()
    written = [entry.event for entry in entries(metro.data_dir / "audit")]
    assert written[-5:] == [
        *("fault-injected", "alarm-raised", "fault-ended", "suspicion-ruled", "alarm-cleared"),
    ]
