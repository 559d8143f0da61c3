"""Keeps the stocks of pairs whose slave is in another network: keys set out when a pair lacks some.

A key that begins at a KME which stands at the border itself has no link of its own network behind it: there
is no link key that it could be. It is drawn from the operating system's generator, and its provenance says so
(``computational``). A key that begins deeper in the network is link key of the first hop, as every other
(decision 0002); who carries it to the border is the node's carrier.
"""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from openqci.control.remote_pairs import RemoteDemand, to_set_out, wait_s
from openqci.core.errors import OpenQCIError, RequestRefused
from openqci.core.identifiers import SaeId
from openqci.core.keys import SecretBytes
from openqci.delivery import named_keys, transfers
from openqci.delivery.border_extensions import BATCH_CONTROL_BYTES, Segment
from openqci.delivery.etsi020 import Border
from openqci.delivery.etsi020_rules import BorderEvent, KeysReleased, NewKey, TransferSettled, Ways
from openqci.delivery.key_ids import BATCH_TAG_BITS
from openqci.delivery.pair_stock import stock_bytes
from openqci.delivery.transfers import HERE, State
from openqci.keystore.ports import KmeView
from openqci.services.border import BorderService, new_key_id
from openqci.services.border_config import Remote
from openqci.services.kme import Demand
from openqci.services.kme_config import LoadedConfig

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
GENERATOR = "random generator of the node"

Group = tuple[SaeId, ...]


class RemoteStocks:
    """The pairs of one node whose slaves are in other networks. Call :meth:`run` once."""

    def __init__(
        self,
        loaded: LoadedConfig,
        border: BorderService,
        ways: Ways,
        domain: str,
        remote_of: Callable[[SaeId], Remote | None],
    ) -> None:
        self._loaded, self._border, self._ways, self._domain = loaded, border, ways, domain
        self._remote_of = remote_of
        self._demands: dict[Group, RemoteDemand] = {}
        self._fixed: set[Group] = set()
        self._asked_s: dict[Group, float] = {}
        self._waiting: dict[Group, int] = {}
        self._failures: dict[Group, int] = {}
        self._later_s: dict[Group, float] = {}
        self._look = asyncio.Event()
        for pair in loaded.config.pair:
            group = SaeId(pair.master), *map(SaeId, pair.slaves)
            demand = self._demand_of(group, pair.low_keys, pair.high_keys, pair.ttl_s)
            if demand is not None:
                self._demands[group] = demand
                self._fixed.add(group)

    def is_beyond(self, sae: SaeId) -> bool:
        """Tell whether an application is served in another network."""
        return self._remote_of(sae) is not None

    def demand(
        self, master: SaeId, slave: SaeId, wanted_bytes: int, additional: tuple[SaeId, ...] = ()
    ) -> str | None:
        """Note that a request waits for key; return why none can ever come, or None."""
        group = master, slave, *additional
        settings = self._loaded.config.demand
        if group not in self._demands:
            if len(self._demands) >= settings.pairs_max:
                return f"this KME keeps stocks for {settings.pairs_max} pairs already"
            demand = self._demand_of(group, settings.low_keys, settings.high_keys, settings.ttl_s)
            if demand is None:
                return "the slaves are not all served in one other network"
            self._demands[group] = demand
        if not any(self._ways(sae) for sae in group[1:]):
            return "no way over a border leads to the slave"
        self._asked_s[group] = time.monotonic()
        self._waiting[group] = max(self._waiting.get(group, 0), wanted_bytes)
        self._look.set()
        return None

    def happened(self, event: BorderEvent) -> None:
        """Learn how keys that have set out here have ended."""
        if isinstance(event, KeysReleased):
            group = event.master, event.slave, *event.additional
            self._failures.pop(group, None)
            self._later_s.pop(group, None)
            self._look.set()
        elif isinstance(event, TransferSettled) and event.transfer.upstream == HERE:
            transfer = event.transfer
            if transfer.state is State.FAILED:
                group = transfer.initiator, *transfer.targets
                self._failures[group] = self._failures.get(group, 0) + 1
                self._later_s[group] = time.monotonic() + wait_s(self._failures[group])
                log.warning("a key of %s has failed: %s", " > ".join(group), transfer.message)

    async def run(self) -> None:
        """Look after the stocks until cancelled."""
        while True:
            self._look.clear()
            try:
                await self._set_out()
            except OpenQCIError as error:
                log.error("far stocks cannot be looked after now: %s", error)
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._look.wait()
            except TimeoutError:
                continue

    async def _set_out(self) -> None:
        now_s = time.monotonic()
        self._forget(now_s)
        waiting, self._waiting = self._waiting, {}
        for group, demand in list(self._demands.items()):
            if now_s < self._later_s.get(group, 0.0):
                self._waiting.setdefault(group, waiting.get(group, 0))
                continue
            asked = replace(demand, waiting_bytes=waiting.get(group, 0))
            stock, coming = await self._border.read(partial(state_of, demand=asked))
            lengths = to_set_out(asked, stock, coming)
            if lengths and any(self._ways(sae) for sae in asked.slaves):
                await self._originate(asked, lengths)

    async def _originate(self, demand: RemoteDemand, lengths: Sequence[int]) -> None:
        """Let keys of these lengths begin their way."""
        now_s = time.time()
        expires_s = now_s + demand.ttl_s if demand.ttl_s else 0.0
        segment = Segment(self._domain, computational=True, protocols=(GENERATOR,))
        batches = demand.batches and len(demand.slaves) == 1
        for length in lengths:
            tag = secrets.randbits(BATCH_TAG_BITS) if batches else None
            new = NewKey(new_key_id(), demand.master, demand.slaves, now_s, expires_s, segment, tag)
            with SecretBytes(os.urandom(length + (BATCH_CONTROL_BYTES if batches else 0))) as value:
                try:
                    await self._border.at_border(partial(_begin, new=new, value=value))
                except RequestRefused as refused:
                    log.warning("no key can set out for %s: %s", demand.slaves, refused)
                    return
        self._border.wake()

    def _demand_of(self, group: Group, low_keys: int, high_keys: int, ttl_s: float) -> RemoteDemand | None:
        remotes = [self._remote_of(sae) for sae in group[1:]]
        first = remotes[0]
        if first is None or any(each is None or each.domain != first.domain for each in remotes):
            return None
        return RemoteDemand(
            group[0],
            group[1:],
            first.domain,
            low_keys * 32,
            high_keys * 32,
            ttl_s,
            first.batches,
            self._loaded.key_bytes,
        )

    def _forget(self, now_s: float) -> None:
        """Drop the pairs that nobody has asked for in a while."""
        forget_s = self._loaded.config.demand.forget_after_s
        for group in [each for each in self._demands if each not in self._fixed]:
            if now_s - self._asked_s.get(group, now_s) > forget_s:
                del self._demands[group]
                self._asked_s.pop(group, None)

    async def status(self) -> list[dict[str, Any]]:
        """Return the pairs as they are now, as the status document has them."""
        demands = list(self._demands.values())

        def work(view: KmeView) -> list[dict[str, Any]]:
            found = []
            for demand in demands:
                stock, coming = state_of(view, demand)
                found.append(
                    {
                        "master": demand.master,
                        "slaves": list(demand.slaves),
                        "domain": demand.domain,
                        "stock_bytes": stock,
                        "coming_bytes": coming,
                        "low_bytes": demand.low_bytes,
                        "high_bytes": demand.high_bytes,
                    }
                )
            return found

        return await self._border.read(work)


def _begin(border: Border, new: NewKey, value: SecretBytes) -> None:
    border.originate(new, value)


def state_of(view: KmeView, demand: RemoteDemand) -> tuple[int, int]:
    """Return what a pair has in stock here, and what is on its way to be so, in bytes."""
    master, (slave, *others) = demand.master, demand.slaves
    additional = tuple(sorted(others))
    named = named_keys.stock_keys(view, master, slave, demand.key_bytes, additional)
    stock = stock_bytes(view, master, slave, additional) + named * demand.key_bytes
    coming = transfers.coming_bytes(view, master, demand.slaves)
    return stock, coming


def either(remote: RemoteStocks, inside: Demand) -> Demand:
    """Return what notes a demand where it belongs: here over a border, or inside this network."""

    def demand(
        master: SaeId, slave: SaeId, wanted_bytes: int, additional: tuple[SaeId, ...], key_bytes: int
    ) -> str | None:
        if remote.is_beyond(slave):
            return remote.demand(master, slave, wanted_bytes, additional)
        return inside(master, slave, wanted_bytes, additional, key_bytes)

    return demand
