"""What the console and ``openqci status`` show: figures of hops and stocks, never key material."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from openqci.cli.up.clock import SimulatedClock
from openqci.cli.up.relaying import EndToEnd
from openqci.core.identifiers import LinkId, SiteId, kme_of_site
from openqci.network import Network, Site
from openqci.twin.hops import HopBook, HopFigures, HopLine, HopState


class NetworkFigures:
    """The console's source of figures (see ``openqci.dashboard.api.ConsoleSource``)."""

    def __init__(
        self,
        network: Network,
        book: HopBook,
        clock: SimulatedClock,
        end_to_end: EndToEnd,
        urls: Mapping[SiteId, str],
        keys_delivered: Callable[[], Mapping[str, int]],
        saes_at: Callable[[SiteId], list[str]],
        data_dir: Path,
        alarms: Callable[[], list[dict[str, Any]]] = list,
        faults: Callable[[], list[dict[str, Any]]] = list,
        events: Callable[[], list[dict[str, Any]]] = list,
        satellites: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        self._alarms, self._faults, self._events = alarms, faults, events
        self._satellites = satellites
        self._network, self._book, self._clock, self._end_to_end = network, book, clock, end_to_end
        self._urls, self._keys_delivered, self._saes_at = urls, keys_delivered, saes_at
        self._hops_of: dict[SiteId, list[LinkId]] = {site_id: [] for site_id in network.sites}
        for hop in network.hops.values():
            self._hops_of[hop.a].append(hop.link_id)
            self._hops_of[hop.b].append(hop.link_id)
        self._data_dir = data_dir
        self.ready = False
        self.served: Callable[[], dict[str, int] | None] = lambda: None

    def network(self) -> dict[str, Any]:
        """Return what does not change: nodes, hops, domains."""
        network = self._network
        return {
            "name": network.name,
            "title": network.title,
            "simulated": True,
            "nodes": [self._node_facts(site) for site in network.sites.values()],
            "hops": [
                {
                    "link_id": hop.link_id,
                    "a": hop.a,
                    "b": hop.b,
                    "length_km": hop.length_km,
                    "loss_db": hop.loss_db,
                    "type": hop.link_type,
                }
                for hop in network.hops.values()
            ],
            "domains": domain_counts(network, {}),
        }

    def live(self) -> dict[str, Any]:
        """Return the figures of this second; arrays are in the order of ``network()["hops"]``."""
        now_s, lines = self._clock.now_s(), self._book.lines.values()
        # The key of satellites comes with their passes: nobody is to wait for it at the start.
        on_ground = [line for line in lines if not line.by_pass]
        with_key = sum(line.stock_bits > 0 for line in on_ground)
        able = sum(line.can_make_key for line in on_ground)
        return {
            "time_s": now_s,
            "phase": "running" if with_key >= able else "commissioning",
            "ready_fraction": with_key / able if able else 1.0,
            "totals": self._totals(now_s),
            "hops": {
                "stock_bits": [line.stock_bits for line in lines],
                "state": [int(self._book.state(link_id)) for link_id in self._book.lines],
                "distilled_bps": [line.distilled_bps(now_s) for line in lines],
                "stock_high_bits": 2 * self._network.stock.high_bits,
            },
            "last_route": self._end_to_end.recent[-1] if self._end_to_end.recent else None,
            "routes": list(self._end_to_end.recent),
            "alarms": self._alarms(),
            "faults": self._faults(),
            "events": self._events(),
            "satellites": self._satellites(),
        }

    def hop(self, link_id: str) -> dict[str, Any] | None:
        """Return one hop's figures, or None if there is no such hop."""
        line = self._book.lines.get(LinkId(link_id))
        if line is None:
            return None
        state = self._book.state(LinkId(link_id))
        figures = hop_status(line, state, self._clock.now_s())
        figures |= {
            "device": line.hop.device,
            "leak_bits_total": line.figures.leak_bits_total,
            "proof": line.figures.proof_id,
            "last_block": line.figures.last_block,
            "block_duration_s": line.forecast.block_duration_s,
            "qber_expected": line.forecast.qber,
            "standing_still": line.standing_still,
            "intercepted": line.intercepted,
            "last_aborted": line.figures.last_aborted,
        }
        return figures

    def node(self, site_id: str) -> dict[str, Any] | None:
        """Return one node's figures, or None if there is no such node."""
        site = self._network.sites.get(SiteId(site_id))
        if site is None:
            return None
        saes = self._saes_at(site.site_id)
        facts = self._node_facts(site) | {
            "saes": saes,
            "hops": [
                {"link_id": link_id, "stock_bits": self._book.lines[link_id].stock_bits}
                for link_id in self._hops_of[site.site_id]
            ],
            "keys_delivered": self._keys_delivered().get(kme_of_site(site.site_id), 0),
            "beside": self._beside(site.site_id),
            "pair_stocks": [
                {"master": pair.master, "slave": pair.slave, "stock_bits": 8 * pair.stock_bytes}
                for pair in self._end_to_end.pairs.values()
                if pair.master in saes or pair.slave in saes
            ],
        }
        return facts

    def status(self) -> dict[str, Any]:
        """Return what ``openqci status --json`` prints."""
        now_s = self._clock.now_s()
        hops = [hop_status(line, self._book.state(key), now_s) for key, line in self._book.lines.items()]
        report = status_report(
            self._network, hops, self._totals(now_s), running=True, ready=self.ready, time_s=now_s
        )
        return report | {
            "data_dir": str(self._data_dir),
            "alarms": self._alarms(),
            "faults": self._faults(),
            "events": self._events(),
            "satellites": self._satellites(),
            "demand": self.served(),
        }

    def _totals(self, now_s: float) -> dict[str, Any]:
        lines = self._book.lines.values()
        return {
            "secret_bits_total": sum(line.figures.secret_bits_total for line in lines),
            "stock_bits": sum(line.stock_bits for line in lines),
            "distilled_bps": sum(line.distilled_bps(now_s) for line in lines),
            "possible_bps": self._book.possible_bps,
            "consumed_bps": self._end_to_end.consumed_bps(now_s),
            "keys_delivered": sum(self._keys_delivered().values()),
            "relays": self._end_to_end.relays,
            "hops": len(self._book.lines),
            "hops_with_key": sum(line.stock_bits > 0 for line in lines),
            "hops_distilling": sum(line.distilling_since_s is not None for line in lines),
        }

    def _beside(self, site_id: SiteId) -> list[SiteId]:
        """Return the nodes of other domains that stand in the same site, at its borders."""
        borders = self._network.borders
        guests = [border.node for border in borders if border.partner == site_id]
        return guests + [border.partner for border in borders if border.node == site_id]

    def _node_facts(self, site: Site) -> dict[str, Any]:
        return {
            "site_id": site.site_id,
            "name": site.name,
            "kind": site.kind,
            "domain": site.domain,
            "country": site.country,
            "lat": site.lat,
            "lon": site.lon,
            "kme_id": kme_of_site(site.site_id),
            "url": self._urls.get(site.site_id, ""),
            "degree": len(self._hops_of[site.site_id]),
            "generated": site.generated,
        }


def hop_status(line: HopLine, state: HopState, now_s: float) -> dict[str, Any]:
    """Return a hop's line of ``openqci status --json``."""
    hop, figures = line.hop, line.figures
    return {
        "link_id": hop.link_id,
        "a": hop.a,
        "b": hop.b,
        "length_km": hop.length_km,
        "loss_db": hop.loss_db,
        "qber": figures.qber,
        "secret_bits_total": figures.secret_bits_total,
        "stock_bits": line.stock_bits,
        "stock_by_initiator": {site: 8 * stock for site, stock in line.stock_bytes.items()},
        "epsilon_per_block": line.epsilon,
        "state": state.name.lower(),
        "trouble": line.trouble,
        "possible_bps": line.forecast.secret_key_rate_bps,
        "distilled_bps": line.distilled_bps(now_s),
        "blocks": figures.blocks,
        "blocks_aborted": figures.blocks_aborted,
        "detections_total": figures.detections_total,
        "sifted_bits_total": figures.sifted_bits_total,
    }


def status_report(
    network: Network,
    hops: list[dict[str, Any]],
    totals: dict[str, Any],
    *,
    running: bool,
    ready: bool,
    time_s: float,
) -> dict[str, Any]:
    """Return the whole document of ``openqci status --json``."""
    return {
        "scenario": network.name,
        "running": running,
        "ready": ready,
        "time_s": time_s,
        "totals": {"nodes": len(network.sites)} | totals,
        "domains": domain_counts(network, {hop["link_id"]: hop for hop in hops}),
        "hops": hops,
    }


def domain_counts(network: Network, hops: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return nodes, hops and stocks per domain; a border hop counts in both of its domains."""
    counts: dict[str, dict[str, Any]] = {}
    for site in network.sites.values():
        row = counts.setdefault(site.domain, {"domain": site.domain, "nodes": 0, "hops": 0, "stock_bits": 0})
        row["nodes"] += 1
        row.setdefault("secret_bits_total", 0)
    for hop in network.hops.values():
        figures = hops.get(hop.link_id, {})
        for domain in {network.sites[hop.a].domain, network.sites[hop.b].domain}:
            counts[domain]["hops"] += 1
            counts[domain]["stock_bits"] += figures.get("stock_bits", 0)
            counts[domain]["secret_bits_total"] += figures.get("secret_bits_total", 0)
    return [counts[domain] for domain in sorted(counts)]


def decode_figures(records: Iterable[tuple[str, bytes]]) -> dict[LinkId, HopFigures]:
    """Read the figures of all hops from their records in the store."""
    return {LinkId(link_id): msgspec.json.decode(body, type=HopFigures) for link_id, body in records}
