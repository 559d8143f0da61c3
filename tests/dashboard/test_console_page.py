"""The page in a real browser: it draws the network, its counters move, a click shows a node's figures."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Request, sync_playwright

from tests.dashboard.make import MovingSource, made_up_network, served

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_S = 15


class OpenConsole:
    """A page with the console, and everything that it complained about or asked for."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requested: list[str] = []
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._note)
        page.goto(url)
        self.wait_for("window.openqci && openqci.hopsDrawn > 0 && openqci.counters.hops > 0")

    def _note(self, request: Request) -> None:
        self.requested.append(request.url)

    def wait_for(self, expression: str) -> None:
        """Wait until an expression holds; asked from outside, because the page forbids ``eval``."""
        until(lambda: bool(self.page.evaluate(f"Boolean({expression})")), expression)

    def number(self, expression: str) -> float:
        return float(self.page.evaluate(f"Number({expression})"))

    def click_on(self, site_id: str) -> None:
        at = self.page.evaluate(f"openqci.position('{site_id}')")
        self.page.mouse.click(at["x"], at["y"])


def until(holds: Callable[[], bool], what: str) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up_s, f"never came true: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def source() -> MovingSource:
    return MovingSource(made_up_network())


@pytest.fixture(scope="module")
def console(source: MovingSource) -> Iterator[OpenConsole]:
    assert CHROMIUM.exists(), (
        "the console is tested in a real browser; install it: "
        "apt-get update && apt-get install -y --no-install-recommends chromium"
    )
    with served(source) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield OpenConsole(browser.new_page(viewport={"width": 1280, "height": 800}), url)
        browser.close()


@pytest.fixture(autouse=True)
def calm(console: OpenConsole) -> Iterator[None]:
    """Every test begins with the whole map and no panel, and leaves no complaint in the browser's log."""
    console.page.keyboard.press("Escape")
    console.page.get_by_label("Show everything").click()
    console.wait_for("openqci.resting && Math.abs(openqci.zoom - 1) < 0.01")
    yield
    assert console.complaints == []


def test_nodes_and_hops_are_drawn(console: OpenConsole) -> None:
    # overseas and tiny span nodes are not on the whole map: 9 of 13 nodes are
    assert console.number("openqci.nodesDrawn") >= 9
    assert console.number("openqci.hopsDrawn") == 9
    assert console.number("openqci.labelsDrawn") >= 5
    assert console.page.locator("#domains tbody tr").count() == 5
    assert console.page.get_by_text("Simulated photons").is_visible()


def test_a_counter_moves(console: OpenConsole) -> None:
    before = console.page.locator("#counters .value").first.inner_text()
    frames = console.number("openqci.frames")
    until(lambda: console.page.locator("#counters .value").first.inner_text() != before, "a new number")
    assert console.number("openqci.frames") > frames


def test_a_click_on_a_node_shows_its_figures(console: OpenConsole) -> None:
    console.click_on("pl-warsaw")
    panel = console.page.locator("#panel")
    panel.get_by_text("kme-pl-warsaw").wait_for()
    assert panel.locator("h2").inner_text() == "Warsaw"
    assert "1 204" in panel.inner_text().replace("\u2009", " ").replace("\u202f", " ")


def test_from_a_node_to_its_hop_and_out_again_by_keyboard(console: OpenConsole) -> None:
    console.click_on("pt-lisbon")
    panel = console.page.locator("#panel")
    panel.locator("[data-hop]").first.click()
    panel.get_by_text("1.53 %").first.wait_for()
    assert "From photons to key" in panel.inner_text()
    console.page.keyboard.press("Escape")
    assert panel.is_hidden()


def test_a_hop_with_dots_in_its_id_is_found_by_a_click(console: OpenConsole) -> None:
    console.page.evaluate("openqci.select('es-madrid--pt-evora.tn1')")
    console.page.locator("#panel [data-hop]").first.click()
    console.page.locator("#panel").get_by_text("es-madrid--pt-evora.1", exact=True).wait_for()
    assert "From photons to key" in console.page.locator("#panel").inner_text()


def test_search_finds_a_name_without_its_accents(console: OpenConsole) -> None:
    console.page.keyboard.press("/")
    console.page.keyboard.type("evora")
    assert console.page.locator("#found li").first.inner_text().startswith("Évora")
    console.page.keyboard.press("Enter")
    console.page.locator("#panel").get_by_text("kme-pt-evora").wait_for()
    console.wait_for("openqci.resting && openqci.zoom > 1.5")


def test_what_waits_for_the_space_segment_has_its_place(console: OpenConsole) -> None:
    assert console.page.locator("#right").get_by_role("button", name="Palma").is_visible()
    assert console.page.locator("#right figcaption").all_inner_texts() == ["Caribbean and Guiana\n2"]


def test_wheel_drag_and_keys_move_the_map(console: OpenConsole) -> None:
    before = console.page.evaluate("openqci.position('fr-paris')")
    console.page.mouse.move(before["x"] + 40, before["y"] + 40)
    console.page.mouse.wheel(0, -400)
    console.wait_for("openqci.zoom > 1.5")
    zoomed = console.page.evaluate("openqci.position('fr-paris')")
    console.page.mouse.down()
    console.page.mouse.move(zoomed["x"] + 160, zoomed["y"] + 120, steps=4)
    console.page.mouse.up()
    dragged = console.page.evaluate("openqci.position('fr-paris')")
    assert (dragged["x"], dragged["y"]) != (zoomed["x"], zoomed["y"])
    console.page.locator("#map").focus()
    console.page.keyboard.press("0")
    console.wait_for("openqci.resting && Math.abs(openqci.zoom - 1) < 0.01")


def test_a_term_is_explained_in_plain_words(console: OpenConsole) -> None:
    console.page.locator("#counters [data-term=stock]").first.hover()
    assert "both ends" in console.page.locator("#explanation").inner_text()


def test_the_last_key_is_told(console: OpenConsole) -> None:
    card = console.page.locator("#route").inner_text()
    assert "Lisbon" in card and "Warsaw" in card and "7 hops" in card


def test_nothing_is_asked_of_another_host(console: OpenConsole) -> None:
    assert {urlsplit(url).hostname for url in console.requested} == {"127.0.0.1"}


def test_the_route_of_the_last_key_is_told(console: OpenConsole) -> None:
    card = console.page.locator("#route")
    card.get_by_text("via Évora, Madrid").wait_for()
    assert card.get_by_text("Lisbon").is_visible() and card.get_by_text("Warsaw").is_visible()


def test_what_happens_is_marked_on_the_map_and_told_in_words(
    console: OpenConsole, source: MovingSource
) -> None:
    page, hop = console.page, "de-berlin--pl-warsaw"
    assert page.locator("#events").is_hidden(), "nothing has happened yet"
    source.alarms = [
        {"code": "eavesdropping", "severity": "critical", "link_id": hop, "reason": "", "since_s": 1}
    ]
    source.faults = [
        {"fault_id": "f1", "kind": "stop", "target": "fr-paris", "links": [], "sites": ["fr-paris"]},
        {
            "fault_id": "f2",
            "kind": "cut",
            "target": "x",
            "links": ["fr-paris--fr-paris-ministry"],
            "sites": [],
        },
    ]
    source.happens("alarm", "bad", "Alarm on Berlin to <b>Warsaw</b>", links=[hop])
    source.happens("rerouted", "good", "Keys flow again", route=["pt-lisbon", "pt-evora"])
    events = page.get_by_role("log")
    events.get_by_text("Keys flow again").wait_for()
    assert page.locator("#events h2").inner_text() == "2 events"
    newest, oldest = events.locator("li").all_inner_texts()
    assert "Keys flow again" in newest and "<b>Warsaw</b>" in oldest, "the newest first, and never as markup"
    marks = [console.number(f"openqci.troubles.{kind}.length") for kind in ("attacked", "parted", "stopped")]
    assert marks == [1, 1, 1]
    events.get_by_text("Alarm on Berlin").click()
    page.locator("#panel").get_by_text("Berlin – Warsaw").first.wait_for()
    page.keyboard.press("Escape")
    events.get_by_text("Keys flow again").click()
    console.wait_for("openqci.resting && openqci.zoom > 1.5")
    page.get_by_role("button", name="2 events").press("Enter")
    assert events.is_hidden(), "it folds"
    source.alarms, source.faults, source.events = [], [], []
    console.wait_for("openqci.troubles.attacked.length + openqci.troubles.stopped.length === 0")
