"""A live network: puts the store, the KMEs, production, relays, demand and the console together."""

import argparse
import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from uvicorn import Config, Server

from openqci.cli.sae import enrol
from openqci.cli.up import DATA_ROOT
from openqci.cli.up.chronicle import Chronicle
from openqci.cli.up.clock import SimulatedClock
from openqci.cli.up.commission import (
    clock_start_s,
    hop_stocks,
    keep_clock,
    kme_urls,
    open_store,
    ready_document,
    reconcile_ends,
    share_authentication_keys,
    write_atomically,
)
from openqci.cli.up.faulting import Faulting, Floods
from openqci.cli.up.figures import NetworkFigures, decode_figures
from openqci.cli.up.granting import PROMISED_PART, GrantedFlow, as_listed, distilled_bps, granted
from openqci.cli.up.load import ScenarioLoad
from openqci.cli.up.production import HOP_FIGURES, NETWORK, Production
from openqci.cli.up.reacting import Reacting, suspicions_of
from openqci.cli.up.relay_run import RelayDone, settle_pending
from openqci.cli.up.relaying import EndToEnd
from openqci.cli.up.satellites import Satellites
from openqci.cli.up.telling import Telling
from openqci.cli.up.workers import BlockWorkers
from openqci.control.reaction import Suspicion
from openqci.core.errors import ConfigurationError, Fault
from openqci.core.identifiers import SiteId, kme_of_site
from openqci.dashboard import console_app
from openqci.delivery import SaeDirectory, SaeRecord
from openqci.delivery.end_to_end import HybridPolicy
from openqci.keystore.ports import StoreTransaction
from openqci.network import Network, load_scenario
from openqci.services.audit import AuditLog
from openqci.services.data_directory import DataDirectory
from openqci.services.group_commit import StoreUnavailable
from openqci.services.kme import KmeService
from openqci.services.kme_server import KMEEndpoint, KMEServer, bind_all
from openqci.services.pki import CertificateAuthority
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.flights import Flight, flown, forecasts_of, sky_of
from openqci.twin.hops import HopBook

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 5.0
DIRECTORY_LOOK_S = 2.0
CONSOLE_STOP_S = 1


async def serve(args: argparse.Namespace) -> int:
    """Run the network that the command line asks for until a signal; return the exit code.

    It is 1 if a part failed and the network stopped by itself, so that whatever watches over it can tell.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    began_s = time.monotonic()
    network, flights = flown(load_scenario(args.scenario, whole_demand=args.whole_demand))
    if args.port_base + len(network.sites) > 65535:
        raise ConfigurationError(
            Fault(
                "--port-base",
                "",
                f"{args.port_base} leaves no room for {len(network.sites)} KMEs below 65536",
            )
        )
    known = str(Path(args.scenario).resolve()) if Path(args.scenario).is_dir() else network.name
    directory = DataDirectory.open_or_create(args.data_dir or DATA_ROOT / network.name, known, network.digest)
    try:
        live = LiveNetwork(args, network, directory, Progress(sys.stderr, began_s), flights)
        try:
            await live.start(stop)
            if not args.until_ready:
                await stop.wait()
        finally:
            await live.stop()
    finally:
        directory.close()
    return int(live.failed)


class Progress:
    """Tells the person who started it what is going on, one line at a time."""

    def __init__(self, out: TextIO, began_s: float) -> None:
        self._out, self._began_s = out, began_s

    def __call__(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began_s:6.1f} s] {text}", file=self._out, flush=True)


class LiveNetwork:
    """All running parts of a network, and the order in which they start and stop."""

    def __init__(
        self,
        args: argparse.Namespace,
        network: Network,
        directory: DataDirectory,
        progress: Progress,
        flights: tuple[Flight, ...] = (),
    ) -> None:
        self.flights = flights
        self.args, self.network, self.directory, self.progress = args, network, directory, progress
        self.urls = kme_urls(network, args.port_base)
        self.workers = BlockWorkers(args.workers)
        self.authority = CertificateAuthority.open_or_create(directory.pki_dir)
        self.store: SqliteKeyStore = open_store(directory)
        self.audit = AuditLog(directory.path / "audit")
        self.chronicle = Chronicle(network, self.audit)
        self.saes: dict[SiteId, list[str]] = {}
        self.load: ScenarioLoad | None = None
        self.failed = False
        self.flows: tuple[GrantedFlow, ...] = ()
        self.suspicions: list[Suspicion] = []
        self._notes: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: KMEServer | None = None
        self._console: ConsoleServer | None = None
        self._moving: tuple[Faulting, Production, Satellites, EndToEnd] | None = None

    async def start(self, stop: asyncio.Event) -> None:
        """Commission what is new, start every part, tell when all is ready."""
        network, progress = self.network, self.progress
        progress(f"{network.title}: {len(network.sites)} nodes, {len(network.hops)} QKD hops")
        if self.args.ready_file is not None:
            self.args.ready_file.unlink(missing_ok=True)
        self.clock = SimulatedClock(await self.store.run(clock_start_s), self.args.speed)
        settled = await self.store.run(settle_pending)
        if settled:
            progress(f"destroyed {settled} batches whose relay was cut off by the last stop")
        lost_bytes = await self.store.run(
            lambda transaction: reconcile_ends(transaction, network.hops.values())
        )
        if lost_bytes:
            progress(f"destroyed {lost_bytes} bytes of link key that one end of a hop had lost")
        await asyncio.to_thread(share_authentication_keys, self.store, network, progress)
        await asyncio.to_thread(self._enrol_scenario)
        self.flows = await self._admit()
        book = await self._open_book()
        service = KmeService(self.store)
        figures = self._set_moving(book, service)
        await self._listen(service, figures)
        figures.ready = True
        self._announce()
        if not stop.is_set() and not self.args.until_ready:
            self._begin_load(figures)
            self._tasks.append(asyncio.create_task(self._tell_progress(figures)))

    async def stop(self) -> None:
        """Stop everything in the order that loses nothing: demand, interfaces, relays, blocks, store."""
        if self._moving is not None:
            self.progress("stopping")
        if self.load is not None:
            await asyncio.to_thread(self.load.stop)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.stop()
        if self._console is not None:
            await self._console.stop()
        for part in self._moving or ():
            await part.close()
        await asyncio.gather(*self._notes, return_exceptions=True)
        self.workers.close()
        try:
            if self._moving is not None:
                await self._note_clock()
        finally:
            await asyncio.to_thread(self.store.close)
            await asyncio.to_thread(self.audit.close)
        if self._moving is not None:
            self.progress("stopped; all keys are kept")

    def _enrol_scenario(self) -> None:
        """Enrol the scenario's own SAEs, those that are not there yet."""
        for sae in self.network.saes.values():
            folder = self.directory.saes_dir / sae.sae_id
            enrol(self.store, self.authority, sae.sae_id, sae.site, kme_of_site(sae.site), folder)

    async def _open_book(self) -> HopBook:
        network = self.network
        forecasts = await asyncio.to_thread(forecasts_of, network, self.flights)
        figures = await self.store.run(lambda tx: decode_figures(tx.records(NETWORK, HOP_FIGURES)))
        stocks = await self.store.run(lambda tx: hop_stocks(tx, network))
        self.suspicions = await self.store.run(suspicions_of)
        return HopBook(network, forecasts, figures, stocks)

    def _set_moving(self, book: HopBook, service: KmeService) -> NetworkFigures:
        """Start production and relays."""

        def wake_production() -> None:
            production.wake()

        end_to_end = self.end_to_end = EndToEnd(
            self.store,
            self.network,
            book,
            self.clock,
            service.stock_arrived,
            wake_production,
            HybridPolicy(self.args.policy),
        )
        telling = Telling(self.chronicle, end_to_end.next_way)
        self.reacting = Reacting(
            self.store, self.network, book, self.clock, self.suspicions, end_to_end.leave, telling
        )
        self.faulting = Faulting(
            self.store,
            self.network,
            book,
            self.clock,
            self.reacting,
            self.chronicle,
            Floods(self.network, self.urls, self.directory.saes_dir),
            end_to_end.is_under_way,
        )
        production = Production(
            self.store,
            book,
            self.workers,
            self.clock,
            self.args.seed,
            lambda: book.next_hop(
                end_to_end.shortage.waited_for, end_to_end.shortage.short, self.clock.now_s()
            ),
            end_to_end.wake,
            self.reacting.block_made,
        )
        self.satellites = Satellites(
            self.store,
            book,
            self.flights,
            self.workers,
            self.clock,
            self.args.seed,
            end_to_end.leave_all,
            self.reacting.block_made,
            sky_of(self.network, self.flights),
        )
        end_to_end.passes_of = self.satellites.passes_of
        service.outlook = end_to_end.outlook(self.satellites.outlook)
        end_to_end.relayed = self._relayed
        service.on_special_demand = end_to_end.demand_special
        service.on_demand = lambda master, slave, wanted, *_: end_to_end.demand(master, slave, wanted)
        self._moving = (self.faulting, production, self.satellites, end_to_end)
        parts = [end_to_end.run(), self._watch_directory(), self.faulting.run()]
        if not self.args.until_ready:
            # A block that the stop cuts off has spent authentication key for nothing.
            parts += [production.run(), self.satellites.run()]
        self._tasks += [asyncio.create_task(part) for part in parts]
        for task in self._tasks:
            task.add_done_callback(self._part_ended)
        return NetworkFigures(
            self.network,
            book,
            self.clock,
            end_to_end,
            self.urls,
            lambda: {str(kme): count for kme, count in service.keys_delivered.items()},
            lambda site: self.saes.get(site, []),
            self.directory.path,
            self.reacting.figures,
            self.faulting.figures,
            self.chronicle.latest,
            satellites=self.satellites.figures,
        )

    def _relayed(self, done: RelayDone) -> None:
        """Let the reaction know of a batch; one that crossed a link under suspicion is held."""
        task = asyncio.create_task(self.reacting.relayed(done.order))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    def _part_ended(self, task: "asyncio.Task[None]") -> None:
        """A part that ends by itself has met a bug: say so and let the process stop cleanly."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a part of the network failed; stopping", exc_info=error)
            self.failed = True
            signal.raise_signal(signal.SIGTERM)

    async def _listen(self, service: KmeService, figures: NetworkFigures) -> None:
        files = await asyncio.to_thread(self.authority.issue_kmes, [kme_of_site(site) for site in self.urls])
        endpoints = [
            KMEEndpoint(kme, port, file, file)
            for port, (kme, file) in enumerate(files.items(), start=self.args.port_base + 1)
        ]
        self._console = ConsoleServer(figures, self.args.port_base)
        await self._console.start()
        self._server = KMEServer(endpoints, service, self.authority.certificate_file)
        await self._server.start()
        self.faulting.interfaces = self._server

    def _announce(self) -> None:
        console_url = f"http://127.0.0.1:{self.args.port_base}/"
        text = ready_document(self.network, self.urls, console_url, self.authority.certificate_file)
        write_atomically(self.directory.kmes_file, text)
        if self.args.ready_file is not None:
            write_atomically(self.args.ready_file, text)
        data_dir = self.directory.path
        self.progress(f"ready: {len(self.urls)} KMEs answer; console {console_url}; data in {data_dir}")
        if self.network.flows and not self.args.until_ready:
            first = self.network.flows[0]
            ends = f"--from {first.master} --to {first.slave}"
            self.progress(f"try: {command()} key --data-dir {data_dir} {ends}")

    def _begin_load(self, figures: NetworkFigures) -> None:
        """Let the scenario's applications begin; the stocks of their pairs are filled from now on."""
        if not self.args.no_load:
            for each in self.flows:
                self.end_to_end.keep(each.flow.master, each.flow.slave, each.stock_keys)
            urls = {str(sae.sae_id): self.urls[sae.site] for sae in self.network.saes.values()}
            self.load = ScenarioLoad(self.flows, urls, self.directory.saes_dir, self.args.speed)
            figures.served = self.load.served
            self.load.start()

    async def _admit(self) -> tuple[GrantedFlow, ...]:
        """Return the flows that are served: all, or what admission grants of the whole demand model."""
        if not self.args.whole_demand or self.args.no_load:
            return as_listed(self.network.flows)
        measured_bps = await distilled_bps(self.workers, self.network)
        found = granted(self.network, PROMISED_PART * measured_bps)
        self.progress(
            f"this machine distils {measured_bps / 1e6:.2f} Mbit/s with {self.workers.workers} workers; of "
            f"{len(found.flows) + len(found.refused)} flows {len(found.flows)} are admitted, "
            f"{found.stretched} of them stretched: {found.granted_bps / 1e3:.1f} kbit/s of end-to-end key of "
            f"{found.wanted_bps / 1e3:.1f} wanted"
        )
        return found.flows

    async def _watch_directory(self) -> None:
        """Learn of SAEs that ``openqci sae enrol`` adds while the network runs; remember the time."""
        while True:
            try:
                records = await self.store.run(all_saes)
                await self.reacting.take_rulings()
                await self._note_clock()
            except StoreUnavailable as error:
                log.error("the directory of SAEs cannot be read now: %s", error)
            else:
                self.saes = by_site(records)
            await asyncio.sleep(DIRECTORY_LOOK_S)

    async def _note_clock(self) -> None:
        await self.store.run(lambda transaction: keep_clock(transaction, self.clock.now_s()))

    async def _tell_progress(self, figures: NetworkFigures) -> None:
        """Say how commissioning goes until every hop that can has key."""
        while (live := figures.live())["phase"] == "commissioning":
            totals = live["totals"]
            self.progress(
                f"commissioning: {totals['hops_with_key']} of {totals['hops']} hops have key, "
                f"{totals['distilled_bps'] / 1e6:.2f} Mbit/s being distilled of "
                f"{totals['possible_bps'] / 1e6:.0f} possible"
            )
            await asyncio.sleep(PROGRESS_EVERY_S)
        self.progress("every hop that can make key has key in stock")


def command() -> str:
    """Return how the person who started this can call ``openqci`` again."""
    return "openqci" if shutil.which("openqci") else os.path.relpath(sys.argv[0])


def all_saes(transaction: StoreTransaction) -> list[SaeRecord]:
    """Return every enrolled SAE."""
    return list(SaeDirectory(transaction).saes())


def by_site(records: list[SaeRecord]) -> dict[SiteId, list[str]]:
    """Return the SAE IDs at each site."""
    saes: dict[SiteId, list[str]] = {}
    for record in records:
        saes.setdefault(record.site_id, []).append(record.sae_id)
    return saes


class ConsoleServer:
    """The console's HTTP server on the loopback interface."""

    def __init__(self, figures: NetworkFigures, port: int) -> None:
        (self._socket,) = bind_all("127.0.0.1", [port])
        self._app = console_app(figures)
        config = Config(
            self._app,
            lifespan="off",
            log_config=None,
            access_log=False,
            ws="none",
            timeout_graceful_shutdown=CONSOLE_STOP_S,
        )
        self._server = QuietServer(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._app.state.live.close()
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)


class QuietServer(Server):
    """uvicorn's server without its own signal handlers: this process has one way to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
