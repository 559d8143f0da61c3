"""Flies the satellites of a live network: passes, blocks, radio contacts, and when key is to be expected.

Between passes a satellite does nothing but turn. Its light runs from the beginning of a pass to its end; the
detections are distilled then, which takes the time that it takes, and the key is put into both stores while
the radio reaches the satellite: at the end of the pass, or at the next contact. All that a KME on board says
and hears goes by radio, so no relay begins over a satellite that is out of contact.

The order of steps is that of :mod:`openqci.cli.up.production`: authentication key leaves both stores durably
before a block uses it, the key of a block enters both in one transaction, the book learns of it afterwards.
A stop loses the passes that are under way, never a promise.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import msgspec

from openqci.cli.up.clock import SimulatedClock
from openqci.cli.up.production import (
    HOP_FIGURES,
    NETWORK,
    ignore_block,
    keep_block,
    photon_seed,
    spend_authentication,
)
from openqci.cli.up.workers import BlockWorkers
from openqci.core.errors import KeyUnavailable, OpenQCIError
from openqci.core.identifiers import LinkId, SiteId
from openqci.core.keys import wiped
from openqci.core.provenance import LinkPass
from openqci.distillation import BlockName
from openqci.keystore.ports import StoreTransaction
from openqci.network import Hop
from openqci.relay import hop_bytes
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.space import utc_text
from openqci.space.time_scales import DAY_S
from openqci.twin.block import BlockOutcome
from openqci.twin.flights import MARGIN_S, Cloudy, Flight, PlannedPass, next_to_serve
from openqci.twin.hops import HopBook, HopFigures
from openqci.twin.pass_block import PassOrder
from openqci.twin.skies import clear

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 600.0
"""After which a satellite whose store is full looks whether relays have made room; simulated."""

KEY_BYTES = 32
"""A station with less than this in stock cannot take part in one more key."""


@dataclass
class Aboard:
    """One satellite as it is now."""

    flight: Flight
    serving: PlannedPass | None = None
    coming: PlannedPass | None = None
    clouded: int = 0
    under_way: list[PlannedPass] = field(default_factory=list)
    in_contact: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Outlook:
    """When a pair that waits may expect key, and by which pass."""

    satellite: SiteId
    station: SiteId
    expected_s: float
    expected_utc: str

    def __str__(self) -> str:
        return f"after the pass of {self.satellite} over {self.station} at {self.expected_utc}"


class Satellites:
    """All satellites of a network, each on its own, and the blocks of their passes."""

    def __init__(
        self,
        store: SqliteKeyStore,
        book: HopBook,
        flights: Iterable[Flight],
        workers: BlockWorkers,
        clock: SimulatedClock,
        seed: int | None,
        changed: Callable[[Iterable[LinkId]], None],
        block_made: Callable[[BlockOutcome], Awaitable[None]] = ignore_block,
        cloudy: Cloudy = clear,
    ) -> None:
        self.cloudy = cloudy
        self.store, self.book, self.workers, self.clock = store, book, workers, clock
        self.seed, self.changed, self.block_made = seed, changed, block_made
        self.aboard = {flight.satellite: Aboard(flight) for flight in flights}
        self._flight_of = {link: each for each in self.aboard.values() for link in each.flight.links.values()}
        self._blocks: set[asyncio.Task[None]] = set()
        for each in self.aboard.values():
            self._out_of_contact(each)

    async def run(self) -> None:
        """Fly all of them until cancelled."""
        async with asyncio.TaskGroup() as parts:
            for each in self.aboard.values():
                parts.create_task(self._follow_radio(each))
                parts.create_task(self._fly(each))

    async def close(self) -> None:
        """Give up the blocks under way."""
        for task in list(self._blocks):
            task.cancel()
        await asyncio.gather(*self._blocks, return_exceptions=True)

    # Radio

    async def _follow_radio(self, aboard: Aboard) -> None:
        flight, now_s = aboard.flight, self.clock.now_s()
        while True:
            spans = await asyncio.to_thread(flight.contacts, now_s - MARGIN_S, now_s + DAY_S)
            for begin_s, end_s in spans:
                # One that the end of the time looked at has cut is found whole in the next look.
                if end_s <= now_s or end_s >= now_s + DAY_S - MARGIN_S:
                    continue
                await self.clock.wait_until(begin_s)
                self._in_contact(aboard)
                await self.clock.wait_until(end_s)
                self._out_of_contact(aboard)
            now_s = max(now_s + DAY_S - MARGIN_S, self.clock.now_s())
            await self.clock.wait_until(now_s - MARGIN_S)

    def _in_contact(self, aboard: Aboard) -> None:
        for link in aboard.flight.links.values():
            self.book.lines[link].away = ""
        aboard.in_contact.set()
        self.changed(())

    def _out_of_contact(self, aboard: Aboard) -> None:
        aboard.in_contact.clear()
        for link in aboard.flight.links.values():
            self.book.lines[link].away = f"{aboard.flight.satellite} waits for its next radio contact"
        self.changed(aboard.flight.links.values())

    # Passes

    async def _fly(self, aboard: Aboard) -> None:
        while True:
            aboard.coming = await self._next_pass(aboard)
            if aboard.coming is None:
                await self.clock.wait_until(self.clock.now_s() + LOOK_AGAIN_S)
                continue
            await self.clock.wait_until(aboard.coming.begins_s)
            chosen, aboard.coming = aboard.coming, None
            if self.cloudy(chosen.station, chosen.begins_s):
                aboard.clouded += 1
                continue  # a pass that begins later may be clear, also one that was a rival of this
            if self.book.lines[chosen.link_id].trouble:
                continue  # cut since it was chosen
            aboard.serving = chosen
            await self._serve(aboard, chosen)
            aboard.serving = None

    async def _next_pass(self, aboard: Aboard) -> PlannedPass | None:
        """Choose the pass to serve next; None if there is none, or no room for its key."""
        flight = aboard.flight
        now_s = self.clock.now_s()
        # What begins at this very moment has been looked at.
        ahead = [each for each in await asyncio.to_thread(flight.passes, now_s) if each.begins_s > now_s]
        stock_bits = {link: self.book.lines[link].stock_bits for link in flight.links.values()}
        free_bits = (
            flight.store_bits
            - sum(stock_bits.values())
            - int(sum(each.expected_bits for each in aboard.under_way))
        )
        return next_to_serve(
            [each for each in ahead if not self.book.lines[each.link_id].trouble], stock_bits, free_bits
        )

    async def _serve(self, aboard: Aboard, chosen: PlannedPass) -> None:
        """Let the light run for a pass; its block is made while the satellite flies on."""
        number = self.book.begin_block(chosen.link_id, self.clock.now_s())
        breaks = self.book.lines[chosen.link_id].breaks
        await self.clock.wait_until(chosen.ends_s)
        aboard.under_way.append(chosen)
        task = asyncio.create_task(self._make_block(aboard, chosen, number, breaks))
        self._blocks.add(task)
        task.add_done_callback(self._block_done)

    def _block_done(self, task: asyncio.Task[None]) -> None:
        self._blocks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the block of a pass ended with an error", exc_info=error)

    async def _make_block(self, aboard: Aboard, chosen: PlannedPass, number: int, breaks: int) -> None:
        kept, line = False, self.book.lines[chosen.link_id]
        try:
            outcome = await self.workers.distil(await self._order(aboard.flight, chosen, number))
            await aboard.in_contact.wait()
            if line.breaks == breaks:
                await self._keep(outcome, chosen)
                kept = True
        except KeyUnavailable:
            log.error("link %s has no authentication key left and stands still", chosen.link_id)
            line.standing_still = "no authentication key left"
        except (BrokenProcessPool, OpenQCIError) as error:
            log.warning("link %s lost the block of a pass: %s", chosen.link_id, error)
        finally:
            aboard.under_way.remove(chosen)
            if not kept:
                self.book.give_up_block(chosen.link_id, self.clock.now_s())

    async def _order(self, flight: Flight, chosen: PlannedPass, number: int) -> PassOrder:
        """Spend the block's authentication key at both ends and write the order."""
        hop = self.book.lines[chosen.link_id].hop
        ground, seen = await asyncio.to_thread(flight.seen, chosen)
        key_a, key_b = await self.store.run(lambda transaction: spend_authentication(transaction, hop))
        with wiped(key_a, key_b):
            return PassOrder(
                name=BlockName(chosen.link_id, number),
                design=flight.design,
                ground=ground,
                seen=seen,
                photon_seed=photon_seed(self.seed, chosen.link_id, number),
                authentication_key_a=bytes(key_a.reveal()),
                authentication_key_b=bytes(key_b.reveal()),
            )

    async def _keep(self, outcome: BlockOutcome, chosen: PlannedPass) -> None:
        line = self.book.lines[chosen.link_id]
        figures = self.book.figures_after(outcome)
        line.storing = True
        try:
            stored = await self.store.run(
                lambda transaction: keep_pass(transaction, line.hop, outcome, figures, chosen.ends_s)
            )
            self.book.end_block(outcome, figures, stored, self.clock.now_s())
        finally:
            line.storing = False
        if outcome.aborted:
            log.warning("link %s: pass %d left no key: %s", outcome.link_id, outcome.number, outcome.aborted)
        await self.block_made(outcome)
        self.changed(())

    # What others ask

    def passes_of(self, link_id: LinkId, sender: SiteId, length_bytes: int) -> tuple[LinkPass, ...]:
        """Return the passes that the next bytes come from that a site sends over a link; none for fibre."""
        aboard = self._flight_of.get(link_id)
        if aboard is None:
            return ()
        flight, now_s = aboard.flight, self.clock.now_s()
        (station,) = (site for site, link in flight.links.items() if link == link_id)
        return tuple(
            LinkPass(flight.satellite, station, self._utc(aboard, ended_s), round(now_s - ended_s, 1))
            for ended_s in self.book.passes_of_next(link_id, sender, length_bytes)
        )

    def outlook(self, start: frozenset[SiteId], end: frozenset[SiteId]) -> Outlook | None:
        """Return when key may come between sites of which each set is joined by fibre; None if never.

        By the passes as they are planned: one that the satellite gives to another station, or that leaves no
        key, makes it later.
        """
        found = [outlook for each in self.aboard.values() for outlook in self._outlooks(each, start, end)]
        return min(found, key=lambda each: each.expected_s, default=None)

    def _outlooks(
        self, aboard: Aboard, start: frozenset[SiteId], end: frozenset[SiteId]
    ) -> Iterator[Outlook]:
        needed = [self._first_key(aboard, part) for part in (start, end)]
        if None not in needed:
            last = max((each for each in needed if each is not None), key=lambda each: each.ends_s)
            yield Outlook(aboard.flight.satellite, last.station, last.ends_s, self._utc(aboard, last.ends_s))

    def _first_key(self, aboard: Aboard, part: frozenset[SiteId]) -> PlannedPass | None:
        """Return the pass after which the satellite has key with one of these sites; one now if it has."""
        flight, now_s = aboard.flight, self.clock.now_s()
        links = {station: link for station, link in flight.links.items() if station in part}
        for station, link in links.items():
            if min(self.book.lines[link].stock_bytes.values()) >= hop_bytes(KEY_BYTES):
                return PlannedPass(link, station, now_s, now_s, 0.0)
        ahead = [*aboard.under_way, *(each for each in (aboard.serving, aboard.coming) if each is not None)]
        ahead += flight.passes(now_s)
        return next((each for each in ahead if each.station in links), None)

    def figures(self) -> list[dict[str, Any]]:
        """Return where the satellites are and what they do, for the console and ``openqci status``."""
        return [self._figures_of(each) for each in self.aboard.values()]

    def _figures_of(self, aboard: Aboard) -> dict[str, Any]:
        flight, now_s = aboard.flight, self.clock.now_s()
        latitude, longitude, height_km = flight.place(now_s)
        lines = {station: self.book.lines[link] for station, link in flight.links.items()}
        coming = aboard.serving or aboard.coming
        return {
            "satellite": flight.satellite,
            "design": flight.design.name,
            "lat": round(latitude, 3),
            "lon": round(longitude, 3),
            "height_km": round(height_km, 1),
            "track": flight.track(now_s),
            "utc": self._utc(aboard, now_s),
            "in_contact": aboard.in_contact.is_set(),
            "serving": aboard.serving.station if aboard.serving else None,
            "next_station": coming.station if coming else None,
            "next_pass_utc": self._utc(aboard, coming.begins_s) if coming else None,
            "passes_clouded": aboard.clouded,
            "stock_bits": {station: line.stock_bits for station, line in lines.items()},
            "store_bits": flight.store_bits,
        }

    def _utc(self, aboard: Aboard, time_s: float) -> str:
        return utc_text(aboard.flight.start_utc_s + time_s)


def keep_pass(
    transaction: StoreTransaction, hop: Hop, outcome: BlockOutcome, figures: HopFigures, ended_s: float
) -> dict[SiteId, int]:
    """Store the key of a pass at both ends, with when the pass ended; return the bytes per initiator."""
    added = keep_block(transaction, hop, outcome, figures)
    for initiator, length_bytes in added.items():
        if length_bytes:
            in_stock = len(figures.block_ends[initiator])
            ends_s = [*figures.pass_ends_s.get(initiator, []), ended_s][-in_stock:]
            figures.pass_ends_s = {**figures.pass_ends_s, initiator: ends_s}
    transaction.put_record(NETWORK, HOP_FIGURES, hop.link_id, msgspec.json.encode(figures))
    return added
