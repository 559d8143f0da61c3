"""The console of a running network in a real browser: what it shows is what the network does."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import sync_playwright

from tests.dashboard.test_console_page import ARGUMENTS, CHROMIUM, OpenConsole, until
from tests.system.make import RunningNetwork, run


@pytest.fixture(scope="module")
def metro(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNetwork]:
    with RunningNetwork("metro", tmp_path_factory.mktemp("console") / "metro") as network:
        network.start()
        yield network


@pytest.fixture(scope="module")
def console(metro: RunningNetwork) -> Iterator[OpenConsole]:
    assert CHROMIUM.exists(), "install the browser: apt-get install -y --no-install-recommends chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield OpenConsole(
            browser.new_page(viewport={"width": 1280, "height": 800}), metro.ready["console_url"]
        )
        browser.close()


def test_all_nodes_and_hops_of_the_network_are_drawn(console: OpenConsole) -> None:
    # At this zoom a trusted node on a long link and a strategic site are too small to be drawn.
    assert console.number("openqci.nodesDrawn") >= 8
    assert console.number("openqci.hopsDrawn") == 10


def test_the_counter_of_keys_moves_when_an_application_fetches_some(
    metro: RunningNetwork, console: OpenConsole
) -> None:
    before = console.number("openqci.counters.keys_delivered")
    ends = ["--from", "sae-vienna-ministry", "--to", "sae-gyor-backup"]
    run("key", "--data-dir", metro.data_dir, *ends, "--number", 20)
    until(lambda: console.number("openqci.counters.keys_delivered") >= before + 19, "twenty keys more")


def test_a_click_on_a_node_shows_what_the_network_says_of_it(
    metro: RunningNetwork, console: OpenConsole
) -> None:
    console.click_on("hu-gyor")
    panel = console.page.locator("#panel")
    panel.get_by_text("kme-hu-gyor").first.wait_for()
    panel.get_by_text("sae-gyor-backup").first.wait_for()
    assert metro.kme_url("hu-gyor") in panel.inner_text()
    assert not console.complaints
    local = metro.ready["console_url"]
    assert all(url.startswith(local) for url in console.requested), (
        "the page asked another host for something"
    )
