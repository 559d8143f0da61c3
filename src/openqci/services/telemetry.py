"""What a node tells Prometheus. Gauges are computed when somebody looks; the hot path only adds to counters.

No label ever holds a key ID, and nothing here has seen key. The table of all metrics is
``docs/reference/metrics.md``; a test holds the two together.
"""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


BORDER_LABELS = ("partner", "direction", "outcome")


class Telemetry:
    """The metrics of one node, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter(
            "requests", "Requests answered, by interface, method and status.", "interface", "method", "status"
        )
        self.request_seconds = Histogram(
            "openqci_kme_request_seconds",
            "Time from request to answer, by interface and method.",
            ("interface", "method"),
            registry=self.registry,
            buckets=SECONDS_BUCKETS,
        )
        self.keys_delivered = self._counter(
            "keys_delivered", "Keys handed to applications, by interface and role.", "interface", "role"
        )
        self.alarms_raised = self._counter("alarms_raised", "Alarms raised, by code.", "code")
        self.deposits = self._counter(
            "deposits", "Deposits that this node led, by link and verdict.", "link", "verdict"
        )
        self.batches = self._counter(
            "batches", "Batches of key, agreed or failed, by peer.", "peer", "outcome"
        )
        self.border_keys = self._counter(
            "border_keys", "Keys over borders, by partner, direction and outcome.", *BORDER_LABELS
        )
        self.border_bytes = self._counter(
            "border_bytes", "Key over borders, by partner, direction and outcome.", *BORDER_LABELS
        )
        self.border_due = self._gauge(
            "border_due", "What waits to be told to a partner, or to be heard from it.", "partner"
        )
        self.expired_bytes = self._counter("expired_bytes", "Key destroyed because its time was over.")
        self.connections_closed = self._counter(
            "connections_closed", "Connections that this node has closed, and why.", "listener", "reason"
        )
        self._closed_told: dict[tuple[str, str], int] = {}
        self.connections = self._gauge("connections", "Connections open now, by interface.", "listener")
        self.uptime_seconds = self._gauge("uptime_seconds", "Time since the node started.")
        self.peer_met = self._gauge("peer_met", "1 while the line to a peer works, else 0.", "peer")
        self.link_stock_bytes = self._gauge(
            "link_stock_bytes",
            "Link key in stock, by link and the end that may begin to spend it.",
            "link",
            "initiator",
        )
        self.pair_stock_bytes = self._gauge(
            "pair_stock_bytes", "Key that a master here can have now.", "master", "slaves"
        )
        self.pair_low_bytes = self._gauge(
            "pair_low_bytes", "Low watermark of a pair's stock.", "master", "slaves"
        )
        self.pair_leased_bytes = self._gauge(
            "pair_leased_bytes", "Key that is kept for leases of a pair's master.", "master", "slaves"
        )
        self.batches_under_way = self._gauge("batches_under_way", "Batches that wait for their legs.")
        self.alarms_active = self._gauge("alarms_active", "Alarms that stand now, by code.", "code")
        self.workers_serving = self._gauge(
            "workers_serving", "Worker processes that serve applications; 0 in a node of one process."
        )
        self.workers_replaced = self._counter("workers_replaced", "Worker processes that ended unasked.")
        self.certificate_days_left = self._gauge(
            "certificate_days_left", "Days until this node's own certificate ends."
        )

    def text(self, status: dict[str, Any]) -> bytes:
        """Return the Prometheus text; gauges are set from the node's status document."""
        self.uptime_seconds.set(status["uptime_s"])
        self.batches_under_way.set(status["batches_under_way"])
        pairs = self.pair_stock_bytes, self.pair_low_bytes, self.pair_leased_bytes
        for gauge in (self.link_stock_bytes, *pairs, self.alarms_active):
            gauge.clear()
        for peer in status["peers"]:
            self.peer_met.labels(peer["kme_id"]).set(int(peer["met"]))
        for link in status["links"]:
            self.link_stock_bytes.labels(link["link"], "own").set(link["own_bytes"])
            self.link_stock_bytes.labels(link["link"], "peer").set(link["peer_bytes"])
        for pair in status["pairs"]:
            names = pair["master"], "+".join(pair["slaves"])
            self.pair_stock_bytes.labels(*names).set(pair["stock_bytes"])
            self.pair_low_bytes.labels(*names).set(pair["low_bytes"])
            self.pair_leased_bytes.labels(*names).set(pair["leased_bytes"])
        for partner in status["borders"]["partners"] if status["borders"] else ():
            self.border_due.labels(partner["partner"]).set(partner["due"])
        for alarm in status["alarms"]:
            self.alarms_active.labels(alarm["code"]).inc()
        for listener, crowd in status["connections"].items():
            self.connections.labels(listener).set(crowd["open"])
            for reason, count in crowd["closed"].items():
                told = self._closed_told.get((listener, reason), 0)
                self.connections_closed.labels(listener, reason).inc(count - told)
                self._closed_told[listener, reason] = count
        self.workers_serving.set(sum(worker["serving"] for worker in status["workers"]))
        self.certificate_days_left.set(status["certificate_days_left"])
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"openqci_kme_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"openqci_kme_{name}", text, labels, registry=self.registry)
