"""A node at the borders of its network: answers partners, sends what is due, keeps far stocks filled.

The shell around :class:`openqci.delivery.etsi020.Border`. Each partner has a task of its own that works
through the partner's lane of what is due; one more does what is done here alone. All state is in the store:
a node that is killed goes on from there.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from openqci.core.errors import KeyUnavailable, OpenQCIError, RequestRefused
from openqci.core.identifiers import KeyId, KmeId
from openqci.delivery import border_account, named_keys, transfers
from openqci.delivery import etsi020_model as model
from openqci.delivery.etsi020 import Border
from openqci.delivery.etsi020_model import AckContainer, ExtKeyContainer, TransferKey, VoidContainer
from openqci.delivery.etsi020_rules import (
    AcksToSend,
    BorderEvent,
    BorderTrouble,
    KeysReleased,
    KeysToSend,
    Rules,
    TransferSettled,
    VoidsToSend,
    Work,
)
from openqci.delivery.named_keys import NamedKey
from openqci.delivery.transfers import INSIDE, Neighbour, Side
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.services.etsi020_client import PartnerAnswer, PartnerClient
from openqci.services.kme import KeyStore, Observer

log = logging.getLogger(__name__)

Result = TypeVar("Result")

LOOK_EVERY_S = 1.0
"""How often a lane looks for what is due though nobody has said that there is anything."""

TROUBLE_WAIT_S = 2.0
SYNCHRONOUS_S_MAX = 15.0
"""How long a synchronous request waits for the end of its keys: less than clients wait."""

LANES_MAX = 256


@dataclass
class BorderFigures:
    """What went over the borders since the start."""

    settled: dict[tuple[str, str], int] = field(default_factory=dict)
    released_bytes: int = 0
    expired_keys: int = 0


class BorderService:
    """The borders of one node. Call :meth:`run` once; :meth:`answer` and the rest answer partners.

    ``released`` is called when an initiator here can have more key, ``happened`` with every event.
    """

    def __init__(
        self,
        kme: KmeId,
        store: KeyStore,
        rules: Callable[[], Rules],
        clients: dict[KmeId, PartnerClient],
        observer: Observer,
    ) -> None:
        self.figures = BorderFigures()
        self.released: Callable[[KeysReleased], None] = lambda released: None
        self.happened: Callable[[BorderEvent], None] = lambda event: None
        self.trouble: Callable[[str, str, str | None], None] = lambda code, subject, reason: None
        self.expired: Callable[[NamedKey], None] = lambda named: None
        self._kme, self._store, self._rules, self._clients = kme, store, rules, clients
        self._observer = observer
        self._wakes: dict[str, asyncio.Event] = {}
        self._settled = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    # Partners call

    def is_draft(self, partner: KmeId) -> bool:
        """Tell whether a partner runs a draft of the standard."""
        known = self._rules().partners.get(partner)
        return known is not None and known.draft

    async def versions(self, partner: KmeId) -> tuple[int, bytes]:
        """*versions* (``/kmapi/versions``)."""
        return 200, model.versions_body(synchronous=self._rules().synchronous)

    async def ext_keys(self, partner: KmeId, body: bytes) -> tuple[int, bytes]:
        """*ext_keys*: 202, or for a synchronous request 200 with what has become of its keys."""
        container = model.ext_keys_from_body(body, draft=self.is_draft(partner))
        try:
            await self.at_border(lambda border: border.receive(partner, container))
        finally:
            container.wipe()
        self.wake()
        if container.callback_url:
            return 202, b""
        ids = [key.key_id for key in container.keys]
        association = container.initiator, container.targets
        return await self._synchronous(
            partner, lambda border: border.outcomes(partner, ids, *association, void=False)
        )

    async def ack(self, partner: KmeId, body: bytes) -> tuple[int, bytes]:
        """*ext_keys/ack*: 200 without a body."""
        containers = model.acks_from_body(body, draft=self.is_draft(partner))
        await self.at_border(lambda border: border.acknowledge(partner, containers))
        self.wake()
        return 200, b""

    async def void(self, partner: KmeId, body: bytes) -> tuple[int, bytes]:
        """*ext_keys/void*: 202, or for a synchronous request 200 with how that has ended."""
        container = model.void_from_body(body, draft=self.is_draft(partner))

        def work(border: Border) -> Sequence[KeyId]:
            meant = border.meant(partner, container)
            border.void(partner, container)
            return meant

        ids = await self.at_border(work)
        self.wake()
        if container.callback_url:
            return 202, b""
        association = container.initiator, container.targets
        return await self._synchronous(
            partner, lambda border: border.outcomes(partner, ids, *association, void=True)
        )

    def answered(self, method: str, partner: str, status: int, seconds: float, why: str) -> None:
        """Note that a partner was answered."""
        self._observer.answered("etsi020", method, status, seconds)
        if status == 401:
            unknown = RequestRefused(401, why)
            self._observer.refused("etsi020", method, partner, "", unknown)
        elif why:
            log.warning("a request of %s to %s was refused: %s", partner, method, why)

    async def _synchronous(
        self, partner: KmeId, ended: Callable[[Border], list[AckContainer] | None]
    ) -> tuple[int, bytes]:
        """Wait until all keys of a request have come to an end; 408 if that takes too long."""
        try:
            async with asyncio.timeout(SYNCHRONOUS_S_MAX):
                while True:
                    async with self._settled:
                        containers = await self.at_border(ended)
                        if containers is not None:
                            return 200, model.acks_body(containers, draft=self.is_draft(partner))
                        await self._settled.wait()
        except TimeoutError:
            text = "the keys have not come to an end in time; send the request again, or void them"
            raise model.refused(408, model.TIMEOUT, "timeout", text) from None

    # What is due

    def wake(self) -> None:
        """There may be something to do in any lane."""
        for event in self._wakes.values():
            event.set()

    async def run(self) -> None:
        """Work through every lane until cancelled."""
        lanes = {INSIDE, *self._clients, *await self.read(transfers.lanes)}
        async with asyncio.TaskGroup() as tasks:
            for lane in sorted(lanes)[:LANES_MAX]:
                self._wakes[lane] = asyncio.Event()
                tasks.create_task(self._work_through(lane))
            tasks.create_task(self._sweep())

    async def close(self) -> None:
        """Close the connections to the partners."""
        for client in self._clients.values():
            await client.close()

    async def at_border(self, work: Callable[[Border], Result]) -> Result:
        """Do something at the border in one transaction; then tell what came about."""

        def whole(transaction: StoreTransaction) -> tuple[Result, list[BorderEvent]]:
            border = Border(KmeView(transaction, self._kme), self._rules(), time.time())
            return work(border), border.events

        result, events = await self._store.run(whole)
        for event in events:
            self._tell(event)
        if events:
            self.wake()
        if any(isinstance(event, TransferSettled) for event in events):
            self._announce()
        return result

    async def read(self, work: Callable[[KmeView], Result]) -> Result:
        """Run a work that changes nothing over this KME's rooms."""
        return await self._store.read(lambda tx: work(KmeView(tx, self._kme)))

    def _announce(self) -> None:
        """Wake the synchronous requests that wait."""
        task = asyncio.get_running_loop().create_task(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._settled:
            self._settled.notify_all()

    def _tell(self, event: BorderEvent) -> None:
        if isinstance(event, KeysReleased):
            self.figures.released_bytes += event.key_bytes
            self.released(event)
        elif isinstance(event, BorderTrouble):
            code = "border forged" if event.forged else "border void"
            self.trouble(code, str(event.neighbour.kme or self._kme), event.reason)
        self.happened(event)

    async def _work_through(self, lane: str) -> None:
        wake = self._wakes[lane]
        while True:
            wake.clear()
            wait_s = LOOK_EVERY_S
            try:
                work = await self.at_border(lambda border: border.work(lane))
                if work:
                    wait_s = 0.0 if await self._do_all(work) else TROUBLE_WAIT_S
                    await asyncio.sleep(wait_s)
                    continue
                due_s = await self.read(lambda view: transfers.next_due_s(view, lane))
                wait_s = LOOK_EVERY_S if due_s is None else min(LOOK_EVERY_S, max(0.0, due_s - time.time()))
            except OpenQCIError as error:
                log.error("what is due for %s cannot be done now: %s", lane, error)
                wait_s = TROUBLE_WAIT_S
            try:
                async with asyncio.timeout(wait_s):
                    await wake.wait()
            except TimeoutError:
                continue

    async def _do_all(self, work: Sequence[Work]) -> bool:
        """Do what was taken up, until the partner does not answer; what is left comes again by itself."""
        try:
            for one in work:
                if not await self._do(one):
                    return False
        finally:
            for one in work:
                for value in one.values if isinstance(one, KeysToSend) else ():
                    value.wipe()
        return True

    async def _do(self, work: Work) -> bool:
        """Do one thing; False if a partner has not answered."""
        if isinstance(work, KeysToSend):
            return await self._send_keys(work)
        if isinstance(work, AcksToSend):
            return await self._send_acks(work)
        if isinstance(work, VoidsToSend):
            return await self._send_voids(work)
        return await self._carry(work.key_id)

    async def _carry(self, key_id: KeyId) -> bool:
        try:
            await self.at_border(lambda border: border.carry(key_id))
        except KeyUnavailable as shortage:
            reason = str(shortage)
            await self.at_border(lambda border: border.put_off(key_id, reason))
        return True

    async def _send_keys(self, work: KeysToSend) -> bool:
        first = work.transfers[0]
        partner = self._rules().partners.get(work.partner)
        container = ExtKeyContainer(
            tuple(
                TransferKey(each.key_id, value, each.extension)
                for each, value in zip(work.transfers, work.values, strict=True)
            ),
            first.initiator,
            first.targets,
            partner.own_callback_url if partner is not None else "",
            optional=first.optional,
        )
        answer = await self._post(work.partner, model.KEYS_PATH, model.ext_keys_body(container))
        reason = answer.reason or model.problem_in(answer.body)
        ids = [each.key_id for each in work.transfers]
        await self.at_border(
            lambda border: border.keys_answered(
                work.partner, ids, answer.status, reason, self._acks_in(work.partner, answer)
            )
        )
        return answer.status != 0

    async def _send_acks(self, work: AcksToSend) -> bool:
        body = model.acks_body(ack_containers(work), draft=self.is_draft(work.partner))
        answer = await self._post(work.partner, work.callback_url, body)
        await self.at_border(lambda border: border.acks_answered(work.acks, answer.status))
        return answer.status != 0

    async def _send_voids(self, work: VoidsToSend) -> bool:
        first = work.duties[0]
        partner = self._rules().partners.get(work.partner)
        container = VoidContainer(
            tuple(each.key_id for each in work.duties),
            first.initiator,
            first.targets,
            partner.own_callback_url if partner is not None else "",
        )
        body = model.void_body(container, draft=self.is_draft(work.partner))
        answer = await self._post(work.partner, model.VOID_PATH, body)
        reason = answer.reason or model.problem_in(answer.body)
        await self.at_border(
            lambda border: border.voids_answered(
                work.duties, answer.status, reason, self._acks_in(work.partner, answer)
            )
        )
        return answer.status != 0

    async def _post(self, partner: KmeId, where: str, body: bytes) -> PartnerAnswer:
        client = self._clients.get(partner)
        if client is None:
            return PartnerAnswer(0, reason="is no partner of this node any more")
        answer = await (client.post_to if where.startswith("https:") else client.post)(where, body)
        self.trouble("partner", partner, answer.reason if answer.status == 0 else None)
        return answer

    def _acks_in(self, partner: KmeId, answer: PartnerAnswer) -> Sequence[AckContainer]:
        """Return what a partner says in a 200: nothing, if it is none of what was asked."""
        if answer.status != 200 or not answer.body:
            return ()
        try:
            return model.acks_from_body(answer.body, draft=self.is_draft(partner))
        except RequestRefused as fault:
            log.warning("%s answers what cannot be read: %s", partner, fault)
            return ()

    async def _sweep(self) -> None:
        """Destroy named keys whose time is over."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                gone = await self._store.run(self._expired)
            except OpenQCIError as error:
                log.error("keys that have expired cannot be destroyed now: %s", error)
                continue
            self.figures.expired_keys += len(gone)
            for named in gone:
                self.expired(named)

    def _expired(self, transaction: StoreTransaction) -> list[NamedKey]:
        return named_keys.destroy_expired(KmeView(transaction, self._kme), time.time())

    async def status(self) -> list[dict[str, Any]]:
        """Return the partners as they are now."""
        rules = self._rules()

        def work(view: KmeView) -> list[dict[str, Any]]:
            return [
                {
                    "partner": kme,
                    "domain": partner.domain,
                    "agreement": partner.terms.name,
                    "pending_in": transfers.pending(view, Neighbour(Side.PARTNER, kme)),
                    "due": transfers.waiting(view, kme),
                    "quota_bytes": partner.terms.quota_bytes,
                    "used_bytes": border_account.used_bytes(view, kme, partner.terms.window_s, time.time()),
                }
                for kme, partner in rules.partners.items()
            ]

        return await self.read(work)


def new_key_id() -> KeyId:
    """Return a new UUID of version 4 (RFC 9562)."""
    value = secrets.randbits(128) & ~(0xF << 76) & ~(0x3 << 62) | 0x4 << 76 | 0x2 << 62
    text = f"{value:032x}"
    return KeyId("-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])))


def ack_containers(work: AcksToSend) -> list[AckContainer]:
    """Group acknowledgements: one container for each status, association, message and extension."""
    grouped: dict[tuple[object, ...], AckContainer] = {}
    for each in work.acks:
        name = each.status, each.initiator, each.targets, each.message, each.extension
        known = grouped.get(name)
        keys = (*known.keys, each.key) if known is not None else (each.key,)
        grouped[name] = AckContainer(
            keys, each.status, each.initiator, each.targets, each.message, each.extension
        )
    return list(grouped.values())
