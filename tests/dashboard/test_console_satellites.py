"""A satellite on the map: it moves, its hop is there while it serves a station, no town overseas."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from tests.dashboard.make import MovingSource, hop, made_up_network, node, served
from tests.dashboard.test_console_page import ARGUMENTS, CHROMIUM, OpenConsole


def network_with_a_satellite() -> dict[str, Any]:
    network = made_up_network()
    network["nodes"].append(node("eagle-1", "eagle-1", "satellite", "eagle-1", -60.0, 100.0))
    network["hops"].append(hop("eagle-1", "ogs-alentejo", 500.0, "satellite"))
    return network


class FlyingSource(MovingSource):
    """The same with a satellite that comes up from the south, and serves a station when it is told to."""

    serving: str | None = None

    def live(self) -> dict[str, Any]:
        elapsed_s = time.monotonic() - self._began_s
        latitude = min(60.0, 34.0 + 0.3 * elapsed_s)
        satellite = {
            "satellite": "eagle-1", "lat": latitude, "lon": -6.0, "in_contact": True,
            "serving": self.serving,
            "track": [(-6.0 - step, latitude + 3 * step) for step in range(10)],
        }  # fmt: skip
        return super().live() | {"satellites": [satellite]}


@pytest.fixture(scope="module")
def flown() -> Iterator[tuple[OpenConsole, FlyingSource]]:
    source = FlyingSource(network_with_a_satellite())
    with served(source) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield OpenConsole(browser.new_page(viewport={"width": 1280, "height": 800}), url), source
        browser.close()


def test_it_moves_and_its_hop_comes_with_the_pass(
    flown: tuple[OpenConsole, FlyingSource],
) -> None:
    console, source = flown
    assert console.number("openqci.hopsDrawn") == 9  # of eleven: one is overseas, one has no light yet
    assert console.page.locator("#right figcaption").all_inner_texts() == ["Caribbean and Guiana\n2"]
    console.wait_for("Number.isFinite(openqci.position('eagle-1').y)")
    before = console.page.evaluate("openqci.position('eagle-1')")["y"]
    console.wait_for(f"openqci.position('eagle-1').y < {before} - 2")
    source.serving = "ogs-alentejo"
    console.wait_for("openqci.hopsDrawn === 10")
    console.page.evaluate("openqci.select('eagle-1')")
    console.page.locator("#panel").get_by_text("kme-eagle-1").wait_for()
    assert console.complaints == []
