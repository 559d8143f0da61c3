"""A small made-up network, a source that moves, and the console served on a loopback port."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from openqci.dashboard import ConsoleSource, console_app

STOCK_HIGH_BITS = 2_000_000

PLACES = [
    # site_id, name, kind, domain, lat, lon
    ("pt-lisbon", "Lisbon", "capital_node", "PT", 38.73, -9.15),
    ("pt-evora", "Évora", "trusted_node", "PT", 38.57, -7.90),
    ("ogs-alentejo", "Alentejo optical terminal", "ground_station", "PT", 38.40, -7.60),
    ("es-madrid", "Madrid", "capital_node", "ES", 40.42, -3.70),
    ("es-palma", "Palma", "trusted_node", "ES", 39.57, 2.65),
    ("fr-paris", "Paris", "capital_node", "FR", 48.85, 2.35),
    ("fr-paris-ministry", "A ministry in Paris", "strategic_site", "FR", 48.84, 2.30),
    ("eu-iris2-toulouse", "Control site Toulouse", "gateway", "FR", 43.60, 1.44),
    ("de-berlin", "Berlin", "capital_node", "DE", 52.52, 13.41),
    ("pl-warsaw", "Warsaw", "capital_node", "PL", 52.23, 21.01),
    ("ov-cayenne", "Cayenne", "overseas_node", "FR", 4.94, -52.33),
    ("ogs-kourou", "Kourou area", "ground_station", "FR", 5.12, -52.64),
]
SPANS = [("es-madrid--pt-evora.tn1", "Span node", "ES", 39.4, -5.9)]
JOINED = [
    # a, b, length_km, type; the hop of two spans has dots in its link ids, as the real ones
    ("ogs-alentejo", "pt-evora", 30.0, "ogs_backhaul"),
    ("pt-evora", "pt-lisbon", 79.5, "national"),
    ("es-madrid", "es-madrid--pt-evora.tn1", 78.1, "cross_border"),
    ("es-madrid--pt-evora.tn1", "pt-evora", 78.1, "cross_border"),
    ("es-madrid", "eu-iris2-toulouse", 76.0, "national"),
    ("eu-iris2-toulouse", "fr-paris", 77.0, "national"),
    ("fr-paris", "fr-paris-ministry", 8.0, "metro"),
    ("de-berlin", "fr-paris", 79.0, "cross_border"),
    ("de-berlin", "pl-warsaw", 79.9, "cross_border"),
    ("ogs-kourou", "ov-cayenne", 60.0, "ogs_backhaul"),
]
ROUTE = (
    "pt-lisbon", "pt-evora", "es-madrid--pt-evora.tn1", "es-madrid", "eu-iris2-toulouse", "fr-paris",
    "de-berlin", "pl-warsaw",
)  # fmt: skip


def made_up_network() -> dict[str, Any]:
    """Return thirteen nodes and ten hops in five domains, one of them overseas and one an island."""
    nodes = [node(*place) for place in PLACES]
    nodes += [
        node(site, name, "trusted_node", domain, lat, lon, True) for site, name, domain, lat, lon in SPANS
    ]
    hops = [hop(*ends) for ends in JOINED]
    for one in nodes:
        one["degree"] = sum(one["site_id"] in (each["a"], each["b"]) for each in hops)
    names = sorted({one["domain"] for one in nodes})
    domains = [
        {"domain": name, "nodes": sum(one["domain"] == name for one in nodes), "hops": 1} for name in names
    ]
    return {
        "name": "made-up", "title": "A made-up network", "simulated": True,
        "nodes": nodes, "hops": hops, "domains": domains,
    }  # fmt: skip


def node(
    site_id: str, name: str, kind: str, domain: str, lat: float, lon: float, generated: bool = False
) -> dict[str, Any]:
    return {
        "site_id": site_id, "name": name, "kind": kind, "domain": domain, "country": domain, "lat": lat,
        "lon": lon, "kme_id": f"kme-{site_id}", "url": "https://127.0.0.1:20000", "degree": 0,
        "generated": generated,
    }  # fmt: skip


def hop(a: str, b: str, length_km: float, kind: str) -> dict[str, Any]:
    link_id = f"{a}--{b}" if "tn1" not in a + b else f"es-madrid--pt-evora.{1 if b.endswith('tn1') else 2}"
    return {
        "link_id": link_id, "a": a, "b": b, "length_km": length_km,
        "loss_db": 0.2 * length_km + 1, "type": kind,
    }  # fmt: skip


class MovingSource:
    """A console source whose figures grow with the clock; the same shapes as the real one's."""

    def __init__(self, network: dict[str, Any], route: tuple[str, ...] = ROUTE) -> None:
        self._network = network
        self._route = route
        self._began_s = time.monotonic()
        self.alarms: list[dict[str, Any]] = []
        self.faults: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self._hops = {each["link_id"]: (index, each) for index, each in enumerate(network["hops"])}
        self._nodes = {each["site_id"]: each for each in network["nodes"]}

    def network(self) -> dict[str, Any]:
        return self._network

    def happens(self, kind: str, tone: str, text: str, **where: list[str]) -> None:
        """Let something happen that the page tells of."""
        event = {
            "number": len(self.events) + 1, "at": "2026-12-01T00:00:00.000+00:00", "at_s": 3600.0,
            "kind": kind, "tone": tone, "text": text, "links": [], "sites": [], "route": [],
        }  # fmt: skip
        self.events = [*self.events, event | where]

    def live(self) -> dict[str, Any]:
        elapsed_s = time.monotonic() - self._began_s
        stocks = [self.stock_bits(index, elapsed_s) for index in range(len(self._hops))]
        states = [self.state(index, elapsed_s) for index in range(len(self._hops))]
        rates = [1000.0 + 10 * index if state == 1 else 0.0 for index, state in enumerate(states)]
        return {
            "time_s": 3600 + elapsed_s, "phase": "running", "ready_fraction": 1.0,
            "totals": {
                "secret_bits_total": int(1_284_559_104 + 4_210_000 * elapsed_s), "stock_bits": sum(stocks),
                "distilled_bps": sum(rates), "possible_bps": 3.1e4 * len(rates), "consumed_bps": 512.0,
                "keys_delivered": int(1204 + 3 * elapsed_s), "relays": 37,
                "hops_with_key": sum(stock > 0 for stock in stocks), "hops_distilling": states.count(1),
                "hops": len(stocks),
            },
            "hops": {
                "stock_bits": stocks, "state": states, "distilled_bps": rates,
                "stock_high_bits": STOCK_HIGH_BITS,
            },
            "last_route": self.last_route(elapsed_s), "routes": [],
            "alarms": self.alarms, "faults": self.faults, "events": self.events,
        }  # fmt: skip

    def stock_bits(self, index: int, elapsed_s: float) -> int:
        """Some hops empty, some full, most between and growing."""
        spread = (index * 0.618034) % 1
        if spread < 0.16:
            return 0
        return int(STOCK_HIGH_BITS * min(1.0, 2.2 * (spread - 0.16) ** 1.5 + 0.001 * elapsed_s))

    def state(self, index: int, elapsed_s: float) -> int:
        stock = self.stock_bits(index, elapsed_s)
        if stock >= STOCK_HIGH_BITS:
            return 2
        return 1 if (index + int(elapsed_s) // 3) % 11 == 0 else 3 if stock else 0

    def last_route(self, elapsed_s: float) -> dict[str, Any]:
        return {
            "batch_tag": "00c0ffee00", "master_sae": "sae-a", "slave_sae": "sae-b",
            "sites": list(self._route),
            "links": [], "at_s": 3600.0, "hops": len(self._route) - 1,
        }  # fmt: skip

    def node(self, site_id: str) -> dict[str, Any] | None:
        found = self._nodes.get(site_id)
        if found is None:
            return None
        links = [each["link_id"] for _, each in self._hops.values() if site_id in (each["a"], each["b"])]
        pairs = [{"master": "sae-a", "slave": "sae-b", "stock_bits": 51_200}]
        return {**found, "saes": ["sae-a"], "hops": links, "keys_delivered": 1204, "pair_stocks": pairs}

    def hop(self, link_id: str) -> dict[str, Any] | None:
        if link_id not in self._hops:
            return None
        index, found = self._hops[link_id]
        stock = self.stock_bits(index, time.monotonic() - self._began_s)
        return {
            **found, "device": "decoy-bb84-1ghz", "qber": 0.0153, "secret_bits_total": stock + 200_000,
            "stock_bits": stock,
            "stock_by_initiator": {found["a"]: stock // 2, found["b"]: stock - stock // 2},
            "possible_bps": 31_200.0, "distilled_bps": 4_100.0, "state": "distilling", "blocks": 14,
            "blocks_aborted": 0, "detections_total": 5_800_000, "sifted_bits_total": 4_600_000,
            "leak_bits_total": 640_000, "epsilon_per_block": 1e-10, "proof": "rusca-2018",
            "last_block": {"detections": 412_345, "sifted_bits": 330_102, "leak_bits": 45_800},
        }  # fmt: skip

    def status(self) -> dict[str, Any]:
        return {"totals": self.live()["totals"], "hops": [each for _, each in self._hops.values()]}


@contextmanager
def served(source: ConsoleSource) -> Iterator[str]:
    """Serve the console on a free loopback port and yield its address."""
    app = console_app(source)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, args=([listener],), name=f"console {address}", daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield address
    finally:
        app.state.live.close()
        server.should_exit = True
        thread.join(timeout=5)
        listener.close()
