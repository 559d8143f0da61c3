"""What a node notes of itself: the audit log, the metrics and the alarms, fed from one place.

:class:`Watch` hears of deliveries and answers from the interfaces, and of peers, deposits, batches and
troubles from the node's tasks. Alarms are those troubles; they stand until what caused them is over.
"""

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from openqci.core.errors import RequestRefused
from openqci.core.identifiers import KmeId, SaeId
from openqci.core.keys import DeliveredKey
from openqci.delivery.agreement import BatchAgreed, BatchFailed
from openqci.delivery.etsi014_model import LeaseDocument
from openqci.delivery.etsi020_rules import Accounted, BorderEvent
from openqci.delivery.leases import Lease
from openqci.delivery.named_keys import NamedKey
from openqci.delivery.pair_stock import KeyBatch
from openqci.delivery.peers import DepositSettled, Meeting, Standing
from openqci.keystore.deposits import Verdict
from openqci.services.audit import AuditEvent, AuditLog
from openqci.services.kme import Observer, is_noted
from openqci.services.logs import about
from openqci.services.telemetry import Telemetry

log = logging.getLogger(__name__)

SEVERITY = {
    "rolled back": "critical",
    "forged": "critical",
    "mismatch": "critical",
    "audit": "major",
    "certificates": "major",
    "domain configuration": "major",
    "controller": "minor",
    "peer": "major",
    "partner": "major",
    "border void": "major",
    "border forged": "critical",
    "source": "major",
    "stock": "major",
    "over-committed": "major",
    "worker": "major",
    "certificate ends": "minor",
    "key renewal": "major",
    "clock": "minor",
    "clock jump": "minor",
}
"""How urgent each alarm is; ``docs/reference/alarms.md`` says what to do."""

LASTING = frozenset({"forged", "border forged", "border void", "clock jump"})
"""Alarms that nothing clears by itself: somebody has to look. They go with a restart."""


class Alarm:
    """One alarm: what, of whom, why, since when."""

    def __init__(self, code: str, subject: str, reason: str) -> None:
        self.code, self.subject, self.reason = code, subject, reason
        self.since_s = time.time()

    def document(self) -> dict[str, Any]:
        """Return it for the status document."""
        return {
            "code": self.code,
            "severity": SEVERITY[self.code],
            "subject": self.subject,
            "reason": self.reason,
            "since": datetime.fromtimestamp(self.since_s, UTC).isoformat(timespec="seconds"),
        }


class Watch(Observer):
    """Notes everything in the audit log and the metrics. Call it from the event loop, or any thread."""

    def __init__(self, audit: AuditLog, telemetry: Telemetry) -> None:
        self.audit, self.telemetry = audit, telemetry
        # A metric's child for its labels, looked up once: a request meets four of them.
        self._delivered = cache(telemetry.keys_delivered.labels)
        self._requests = cache(telemetry.requests.labels)
        self._request_seconds = cache(telemetry.request_seconds.labels)
        self._alarms: dict[tuple[str, str], Alarm] = {}

    def alarms(self) -> list[dict[str, Any]]:
        """Return the alarms that stand, the most severe first."""
        order = ("critical", "major", "minor")
        standing = sorted(
            self._alarms.values(), key=lambda alarm: (order.index(SEVERITY[alarm.code]), alarm.since_s)
        )
        return [alarm.document() for alarm in standing]

    def trouble(self, code: str, subject: str, reason: str | None) -> None:
        """Raise an alarm, change why it stands, or clear it with None."""
        standing = self._alarms.get((code, subject))
        if reason is None:
            if standing is not None and code not in LASTING:
                del self._alarms[code, subject]
                self.audit.record(AuditEvent.ALARM_CLEARED, code=code, subject=subject)
            return
        if standing is None:
            self._alarms[code, subject] = Alarm(code, subject, reason)
            self.telemetry.alarms_raised.labels(code).inc()
            self.audit.record(AuditEvent.ALARM_RAISED, code=code, subject=subject, reason=reason)
        if standing is None or standing.reason != reason:
            self._alarms[code, subject].reason = reason
            log.warning("%s %s: %s", code, subject, reason, extra=about(code=code, subject=subject))

    # From the interfaces

    def delivered(
        self, interface: str, role: str, caller: SaeId, others: Sequence[SaeId], keys: Sequence[DeliveredKey]
    ) -> None:
        """Keys were handed to an application."""
        size_bits = 8 * len(keys[0].key) if keys else 0
        self.delivered_ids(interface, role, caller, others, [key.key_id for key in keys], size_bits)

    def delivered_ids(
        self,
        interface: str,
        role: str,
        caller: str,
        others: Sequence[str],
        key_ids: Sequence[str],
        size_bits: int,
    ) -> None:
        """Keys with these IDs were handed to an application, here or by a worker."""
        self._delivered(interface, role).inc(len(key_ids))
        self.audit.record(
            AuditEvent.KEYS_DELIVERED,
            caller,
            role,
            interface=interface,
            others=list(others),
            key_ids=list(key_ids),
            size_bits=size_bits,
        )

    def leased(self, caller: SaeId, others: Sequence[SaeId], lease: LeaseDocument) -> None:
        """Keys are kept for an application."""
        self.audit.record(
            AuditEvent.KEYS_LEASED,
            caller,
            "master",
            others=list(others),
            lease_id=lease.lease_id,
            number=lease.number,
            size_bits=lease.size,
            expires_at_s=lease.expires_at_s,
        )

    def lease_ended(self, lease: Lease, returned_bytes: int, how: str) -> None:
        """What was left of a lease went back into the stock."""
        self.audit.record(
            AuditEvent.LEASE_ENDED,
            lease.master_sae,
            "master",
            lease_id=lease.lease_id,
            how=how,
            returned_bytes=returned_bytes,
        )

    def answered(self, interface: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests(interface, method, status).inc()
        self._request_seconds(interface, method).observe(seconds)

    def refused(self, interface: str, method: str, caller: str, other: str, refused: RequestRefused) -> None:
        """A request was refused; what concerns rights and keys is written down, bad input is not."""
        if is_noted(refused):
            self.audit.record(
                AuditEvent.REFUSED,
                caller,
                "sae",
                interface=interface,
                method=method,
                other=other[:64],
                status=refused.status,
                reason=refused.message,
            )

    # From the node's tasks

    def happened(self, peer: KmeId, event: object) -> None:
        """Something came about between this node and a peer."""
        if isinstance(event, Meeting):
            self._met(peer, event)
        elif isinstance(event, BatchAgreed):
            self.telemetry.batches.labels(peer, "agreed").inc()
        elif isinstance(event, BatchFailed):
            self.telemetry.batches.labels(peer, "failed").inc()
            self.audit.record(AuditEvent.BATCH_FAILED, peer, "kme", reason=event.reason, forged=event.forged)
        elif isinstance(event, DepositSettled):
            link = event.notice.link.rpartition(".")[0]
            self.telemetry.deposits.labels(link, event.verdict.value).inc()
            if event.verdict is not Verdict.ACCEPTED:
                self.audit.record(
                    AuditEvent.DEPOSIT_REFUSED, peer, "kme", link=link, verdict=event.verdict.value
                )

    def expired(self, batch: KeyBatch, left_bytes: int) -> None:
        """Key was destroyed because its time was over."""
        self.telemetry.expired_bytes.inc(left_bytes)
        self.audit.record(
            AuditEvent.KEY_EXPIRED, master=batch.master_sae, slave=batch.slave_sae, bytes=left_bytes
        )

    def named_key_expired(self, named: NamedKey) -> None:
        """A key that had come over a border was destroyed because its time was over."""
        self.telemetry.expired_bytes.inc(named.length_bytes)
        self.audit.record(
            AuditEvent.KEY_EXPIRED, master=named.master, slave=named.slave, bytes=named.length_bytes
        )

    def at_border(self, event: BorderEvent) -> None:
        """Something came about at a border: what is in the account is in the audit log, too."""
        if isinstance(event, Accounted):
            entry = event.entry
            labels = entry.partner, entry.direction, entry.outcome
            self.telemetry.border_keys.labels(*labels).inc()
            self.telemetry.border_bytes.labels(*labels).inc(entry.key_bytes)
            self.audit.record(
                AuditEvent.KEY_CROSSED,
                entry.partner,
                "kme",
                direction=entry.direction,
                outcome=entry.outcome,
                key_id=entry.key_id,
                initiator=entry.initiator,
                targets=list(entry.targets),
                bytes=entry.key_bytes,
                agreement=entry.agreement,
                account=entry.number,
            )

    def _met(self, peer: KmeId, meeting: Meeting) -> None:
        event = {
            Standing.NEW: AuditEvent.PEER_NEW_STORE,
            Standing.ROLLED_BACK: AuditEvent.PEER_ROLLED_BACK,
        }.get(meeting.standing, AuditEvent.PEER_MET)
        self.audit.record(event, peer, "kme", destroyed_bytes=meeting.destroyed_bytes)
