"""The key delivery of all KMEs of a process: one durable transaction per request, and waiting for stock.

The rules are pure functions in ``openqci.delivery.etsi014``; this shell runs each inside one transaction
of the store and answers when that is durable (invariant I3). When a pair's stock is short it says so to
``on_demand`` and waits a moment for :meth:`KmeService.stock_arrived`, because the first key of a new pair
takes a relay; then it refuses with 503. No lock is held and nothing is reserved while it waits.
"""

import asyncio
import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

import msgspec

from openqci.core.errors import KeyUnavailable, OpenQCIError, RequestRefused
from openqci.core.identifiers import KmeId, SaeId
from openqci.core.keys import DeliveredKey
from openqci.delivery import etsi014, etsi014_leases
from openqci.delivery.admission import Forecast, Quota
from openqci.delivery.directory import PeerIdentity, SaeDirectory
from openqci.delivery.etsi014 import Delivery, DemandsUnmet
from openqci.delivery.etsi014_model import (
    KEYS_NOT_FOUND,
    STANDARD,
    KeyDemands,
    KeyIdsRequest,
    KeyRequest,
    LeaseDocument,
    LeaseList,
    LeaseRequest,
    LeaseReturn,
    Profile,
    Status,
)
from openqci.delivery.leases import Lease, LeaseEnded
from openqci.delivery.pair_stock import RestRule
from openqci.keystore.ports import KmeView, StoreTransaction

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Group = tuple[SaeId, ...]
"""A master, its slave, and additional slaves in order of their IDs."""

Demand = Callable[[SaeId, SaeId, int, tuple[SaeId, ...], int], str | None]
Outlook = Callable[[SaeId, SaeId], tuple[str, float] | None]
"""What brings a pair its next key, and in how many seconds; None where a forecast is all there is."""

SpecialDemand = Callable[[SaeId, SaeId, int, KeyDemands], str | None]

INTERFACE = "etsi014"
FORECASTS_MAX = 10_000

WAIT_S = 5.0
"""How long a request waits for stock: well below the 10 s after which common clients give up."""

WAITING_MAX = 2_000
WAITING_PER_MASTER_MAX = 256
WAITING_PER_PAIR_MAX = 64
"""Requests that may wait at once, in all, per application and per pair of them; one more is refused at once
(invariant I9)."""


class KeyStore(Protocol):
    """The part of a key store that delivery needs."""

    async def run(self, work: Callable[[StoreTransaction], Result]) -> Result:
        """Run ``work`` in one transaction; return when what it did is durable."""

    async def read(self, work: Callable[[StoreTransaction], Result]) -> Result:
        """Run ``work``, which changes nothing, over what is durable now."""


class Quotas(Protocol):
    """Grants key within the quotas of applications."""

    async def take(self, sae: SaeId, bits: int) -> float:
        """Take bits of an application's quota: 0. Else take none, and return how long to wait, in seconds."""

    def give_back(self, sae: SaeId, bits: int) -> None:
        """Return the bits of a request that got no key."""


class Admission(Protocol):
    """Lets requests for key through within the quotas of applications, whatever interface they came by."""

    async def admit(self, sae: SaeId, bits: int) -> None:
        """Take bits of an application's quota; RequestRefused if it does not allow them now."""

    def give_back(self, sae: SaeId, bits: int) -> None:
        """Return the bits of a request that got no key."""


class OwnQuotas:
    """The quotas of applications, kept in this process; who has none may have all."""

    def __init__(self, quotas: Mapping[SaeId, Quota]) -> None:
        self._quotas = dict(quotas)

    async def take(self, sae: SaeId, bits: int) -> float:
        """Take them at once."""
        return self.take_now(sae, bits)

    def take_now(self, sae: SaeId, bits: int) -> float:
        """Take bits of an application's quota, or return how long to wait."""
        quota = self._quotas.get(sae)
        return quota.take(bits, time.monotonic()) if quota is not None else 0.0

    def give_back(self, sae: SaeId, bits: int) -> None:
        """Return bits."""
        if (quota := self._quotas.get(sae)) is not None:
            quota.give_back(bits)


class Observer:
    """Hears what a service does; this one does nothing with it."""

    def delivered(
        self, interface: str, role: str, caller: SaeId, others: Sequence[SaeId], keys: Sequence[DeliveredKey]
    ) -> None:
        """Keys were handed to an application."""

    def consumed(self, pair: Group, length_bytes: int) -> None:
        """Key has left the stock of a pair, for its master or a lease."""

    def leased(self, caller: SaeId, others: Sequence[SaeId], lease: LeaseDocument) -> None:
        """Keys are kept for an application."""

    def lease_ended(self, lease: Lease, returned_bytes: int, how: str) -> None:
        """What was left of a lease went back into the stock."""

    def answered(self, interface: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""

    def refused(self, interface: str, method: str, caller: str, other: str, refused: RequestRefused) -> None:
        """A request was refused."""


def is_noted(refused: RequestRefused) -> bool:
    """Tell whether a refusal concerns rights or keys, and is written down; bad input is not."""
    return refused.status == 401 or refused.message == KEYS_NOT_FOUND


class KmeService:
    """ETSI GS QKD 014 for every KME whose rooms are in ``store``. Call it from one event loop.

    Parameters
    ----------
    store
        Holds key, batches and the directory of applications.
    on_demand
        Called as ``on_demand(master_sae, slave_sae, wanted_bytes, additional_slaves, key_bytes)`` whenever a
        request for keys of ``key_bytes`` finds the stock of its pair short; it must return at once: why no
        key can ever come, or None. May be set later.
    on_special_demand
        Called as ``on_special_demand(master_sae, slave_sae, wanted_bytes, demands)`` when a pair has no key
        as its application demands it, though it may have other; it must return at once: why none will be
        made, or None. Without it such a request is refused at once. May be set later.
    wait_s
        How long such a request waits for :meth:`stock_arrived` before it is refused.
    outlook
        Asked when a pair has waited in vain: what will bring it key, and when. May be set later.
    profile
        What the standard leaves to the KME: sizes, counts, switches.
    status_extension
        What every *Status* says beside its own members (6.1).
    rests
        What becomes of the ends of batches that are too short for a key; without it they stay.
    """

    def __init__(
        self,
        store: KeyStore,
        *,
        on_demand: Demand | None = None,
        wait_s: float = WAIT_S,
        profile: Profile = STANDARD,
        status_extension: dict[str, Any] | None = None,
        rests: RestRule | None = None,
    ) -> None:
        self.profile = profile
        self._rests = rests
        self.observer: Observer = Observer()
        self.quotas: Quotas = OwnQuotas({})
        self.forecasts: dict[Group, Forecast] = {}
        self.on_demand = on_demand
        self.outlook: Outlook = lambda master, slave: None
        self.on_special_demand: SpecialDemand | None = None
        self._status_extension = status_extension
        self.keys_delivered: Counter[KmeId] = Counter()
        self._store, self._wait_s = store, wait_s
        self._waiting: dict[Group, dict[asyncio.Future[None], None]] = {}
        self._closing = False

    async def status(self, kme: KmeId, peer: PeerIdentity | None, slave: SaeId) -> Status:
        """*Get status* at a KME."""
        said = await self._run(
            lambda tx: etsi014.status(KmeView(tx, kme), SaeDirectory(tx), peer, slave, self.profile),
            self._store.read,
        )
        return msgspec.structs.replace(said, status_extension=self._status_extension or msgspec.UNSET)

    async def get_key(
        self, kme: KmeId, peer: PeerIdentity | None, slave: SaeId, request: KeyRequest
    ) -> Delivery:
        """*Get key* at the master's KME; waits a moment for stock. Wipe the delivery once it is sent."""
        pair = _group(peer.sae_id if peer is not None else SaeId(""), slave, request.additional)
        key_bytes = request.size_bits // 8

        def work(transaction: StoreTransaction) -> Delivery:
            view, directory = KmeView(transaction, kme), SaeDirectory(transaction)
            return etsi014.get_key(
                view, directory, peer, slave, request, self.profile, time.time(), self._rests
            )

        if request.lease_id:
            delivery = await self._run(work)  # its quota was taken when it was granted
        else:
            delivery = await self._within_quota(pair, request.number, key_bytes, work)
        self.keys_delivered[kme] += len(delivery.keys)
        self.observer.delivered(INTERFACE, "master", pair[0], pair[1:], delivery.keys)
        return delivery

    async def grant_lease(
        self, kme: KmeId, peer: PeerIdentity | None, slave: SaeId, request: LeaseRequest
    ) -> LeaseDocument:
        """Keep keys for a master; waits a moment for stock."""
        keys, lease_id = request.keys, new_lease_id()
        pair = _group(peer.sae_id if peer is not None else SaeId(""), slave, keys.additional)

        def work(transaction: StoreTransaction) -> LeaseDocument:
            view, directory = KmeView(transaction, kme), SaeDirectory(transaction)
            return etsi014_leases.grant_lease(
                view, directory, peer, slave, request, lease_id, self.profile, time.time(), self._rests
            )

        lease = await self._within_quota(pair, keys.number, keys.size_bits // 8, work)
        self.observer.leased(pair[0], pair[1:], lease)
        return lease

    async def leases(self, kme: KmeId, peer: PeerIdentity | None, slave: SaeId) -> LeaseList:
        """The leases that a master holds with a slave."""
        return await self._run(
            lambda tx: etsi014_leases.list_leases(
                KmeView(tx, kme), SaeDirectory(tx), peer, slave, time.time()
            ),
            self._store.read,
        )

    async def lease(
        self, kme: KmeId, peer: PeerIdentity | None, slave: SaeId, lease_id: str
    ) -> LeaseDocument:
        """One lease of a master with a slave."""
        return await self._run(
            lambda tx: etsi014_leases.show_lease(
                KmeView(tx, kme), SaeDirectory(tx), peer, slave, lease_id, time.time()
            ),
            self._store.read,
        )

    async def release_lease(
        self, kme: KmeId, peer: PeerIdentity | None, slave: SaeId, lease_id: str
    ) -> LeaseReturn:
        """Put back what is left of a lease; its quota is given back, too."""
        ended = await self._run(
            lambda tx: etsi014_leases.release_lease(
                KmeView(tx, kme), SaeDirectory(tx), peer, slave, lease_id, time.time()
            )
        )
        self.give_back(ended.lease.master_sae, 8 * ended.returned_bytes)
        self.lease_ended(ended, "released")
        return LeaseReturn(lease_id, ended.returned_bytes // ended.lease.key_bytes)

    def lease_ended(self, ended: LeaseEnded, how: str) -> None:
        """Wake the requests that wait for what a lease has put back. Call it on the event loop."""
        lease = ended.lease
        self.stock_arrived(lease.master_sae, lease.slave_sae, lease.additional_slaves, ended.returned_bytes)
        self.observer.lease_ended(lease, ended.returned_bytes, how)

    async def _within_quota(
        self, pair: Group, number: int, key_bytes: int, work: Callable[[StoreTransaction], Result]
    ) -> Result:
        """Do a work that takes keys of a pair's stock, if its master's quota allows it."""
        bits = 8 * number * key_bytes
        await self.admit(pair[0], bits)
        try:
            result = await self._with_stock(pair, key_bytes, work)
        except RequestRefused:
            self.give_back(pair[0], bits)
            raise
        self.consumed(pair, number * key_bytes)
        self.observer.consumed(pair, number * key_bytes)
        return result

    async def _with_stock(
        self, pair: Group, key_bytes: int, work: Callable[[StoreTransaction], Result]
    ) -> Result:
        """Do a work that takes keys of a pair's stock; wait a moment while that is short."""
        deadline_s = asyncio.get_running_loop().time() + self._wait_s
        while True:
            arrival = self._expect(pair)
            try:
                return await self._run(work)
            except DemandsUnmet as unmet:
                hopeless = self._demand_special(pair, unmet.wanted_bytes, unmet.demands)
                if hopeless is not None:
                    unmet.details = (*unmet.details, {"reason": hopeless})
                    raise
                if not await self._arrived(pair, arrival, deadline_s):
                    raise
            except KeyUnavailable as shortage:
                hopeless = self._demand(pair, shortage.wanted_bytes, key_bytes)
                if hopeless is not None:
                    raise etsi014.insufficient_key(shortage, hopeless, self.profile) from None
                if not await self._arrived(pair, arrival, deadline_s):
                    raise self._short(pair, shortage) from None
            finally:
                self._forget(pair, arrival)

    def _short(self, pair: Group, shortage: KeyUnavailable) -> RequestRefused:
        """Return the refusal of a request that has waited for stock, with when to ask again."""
        expected = self.outlook(pair[0], pair[1])
        if expected is not None:
            what, wait_s = expected
            refused = etsi014.insufficient_key(shortage, None, self.profile, max(1, math.ceil(wait_s)))
            refused.details = (*refused.details, {"expected": what})
            return refused
        lacking_bytes = shortage.wanted_bytes - shortage.available_bytes
        known = self.forecasts.get(pair, Forecast())
        wait_s = known.retry_after_s(lacking_bytes, time.monotonic())
        return etsi014.insufficient_key(shortage, None, self.profile, wait_s)

    async def get_key_with_key_ids(
        self, kme: KmeId, peer: PeerIdentity | None, master: SaeId, request: KeyIdsRequest
    ) -> Delivery:
        """*Get key with key IDs* at the slave's KME. Wipe the delivery once it is sent."""
        delivery = await self._run(
            lambda tx: etsi014.get_key_with_key_ids(
                KmeView(tx, kme), SaeDirectory(tx), peer, master, request, self.profile
            )
        )
        caller = peer.sae_id if peer is not None else SaeId("")
        self.observer.delivered(INTERFACE, "slave", caller, (master,), delivery.keys)
        return delivery

    def stock_arrived(
        self, master: SaeId, slave: SaeId, additional: tuple[SaeId, ...] = (), length_bytes: int = 0
    ) -> None:
        """Wake the requests that wait for key of a pair. Call it on the event loop."""
        group = _group(master, slave, additional)
        if length_bytes:
            if len(self.forecasts) > FORECASTS_MAX:
                self.forecasts.clear()
            self.forecasts.setdefault(group, Forecast()).produced.add(length_bytes, time.monotonic())
        for arrival in self._waiting.pop(group, ()):
            if not arrival.done():
                arrival.set_result(None)

    def consumed(self, pair: Group, length_bytes: int) -> None:
        """Note for the forecast of a pair what has left its stock, here or by a worker."""
        if (forecast := self.forecasts.get(pair)) is not None:
            forecast.consumed.add(length_bytes, time.monotonic())

    async def admit(self, sae: SaeId, bits: int) -> None:
        """Refuse what goes beyond an application's quota, before anything is looked up."""
        wait_s = await self.quotas.take(sae, bits)
        if not wait_s:
            return
        details: tuple[dict[str, object], ...] = ({"requested_bits": bits}, {"reason": "quota"})
        if math.isinf(wait_s):
            raise RequestRefused(
                400, "the request is larger than the quota of this SAE allows at once", details
            )
        headers = {"Retry-After": str(max(1, math.ceil(wait_s)))}
        raise RequestRefused(503, "the quota of this SAE is used up", details, headers)

    def give_back(self, sae: SaeId, bits: int) -> None:
        """Return the bits of a request that was admitted and got no key."""
        self.quotas.give_back(sae, bits)

    def waiting(self) -> dict[Group, int]:
        """Return how many requests are in hand for each pair, waiting or about to."""
        return {pair: len(arrivals) for pair, arrivals in self._waiting.items()}

    def stop_waiting(self) -> None:
        """Refuse, now and from now on, what would have to wait: the process is about to stop."""
        self._closing = True
        for arrivals in self._waiting.values():
            for arrival in arrivals:
                arrival.cancel()

    async def _run(
        self,
        work: Callable[[StoreTransaction], Result],
        how: Callable[[Callable[[StoreTransaction], Result]], Awaitable[Result]] | None = None,
    ) -> Result:
        try:
            return await (how or self._store.run)(work)
        except (RequestRefused, KeyUnavailable):
            raise
        except OpenQCIError as error:
            # An integrity fault, a full disk: the operator must see it, the application only that it failed.
            log.error("a key request failed: %s", error)
            raise RequestRefused(
                503, "the KME cannot serve this request now", headers={"Retry-After": "1"}
            ) from None

    def _expect(self, pair: Group) -> "asyncio.Future[None]":
        """Stand in the line of a pair, before looking at its stock, so that no arrival is missed."""
        arrival = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(pair, {})[arrival] = None
        return arrival

    def _forget(self, pair: Group, arrival: "asyncio.Future[None]") -> None:
        if (line := self._waiting.get(pair)) is not None:
            line.pop(arrival, None)
            if not line:
                del self._waiting[pair]

    def _demand(self, pair: Group, wanted_bytes: int, key_bytes: int) -> str | None:
        if self.on_demand is None or self._closing:
            return None
        return self.on_demand(pair[0], pair[1], wanted_bytes, pair[2:], key_bytes)

    def _demand_special(self, pair: Group, wanted_bytes: int, demands: KeyDemands) -> str | None:
        """Ask for key as demanded; return why none will be made, or None."""
        if self.on_special_demand is None or self._closing or pair[2:]:
            return "no key as demanded is made for this pair"
        return self.on_special_demand(pair[0], pair[1], wanted_bytes, demands)

    async def _arrived(self, pair: Group, arrival: "asyncio.Future[None]", deadline_s: float) -> bool:
        """Wait for an arrival until the deadline; False if there was none or no place to wait."""
        left_s = deadline_s - asyncio.get_running_loop().time()
        if self._closing or self._crowded(pair, arrival) or left_s <= 0:
            return False
        done, _ = await asyncio.wait({arrival}, timeout=left_s)
        return bool(done) and not arrival.cancelled()

    def _crowded(self, pair: Group, arrival: "asyncio.Future[None]") -> bool:
        """Tell whether this request is one more than may wait; one whose stock has just come is not."""
        line = self._waiting.get(pair, {})
        if arrival not in line:
            return False
        by_master = sum(len(each) for group, each in self._waiting.items() if group[0] == pair[0])
        return (
            len(line) > WAITING_PER_PAIR_MAX
            or by_master > WAITING_PER_MASTER_MAX
            or sum(map(len, self._waiting.values())) > WAITING_MAX
        )


def new_lease_id() -> str:
    """Return the ID of a lease: a random UUID (RFC 9562, version 4)."""
    return str(UUID(bytes=secrets.token_bytes(16), version=4))


def _group(master: SaeId, slave: SaeId, additional: tuple[SaeId, ...]) -> Group:
    return (master, slave, *sorted(additional))
