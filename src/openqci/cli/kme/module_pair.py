"""A pair of simulated QKD modules that hand their key over like a vendor's: ``openqci kme modules``.

One process plays both modules of a link. Photons are simulated; both ends distil them for real; each end
serves its key through ETSI GS QKD 014 over mutual TLS, on a port of its own, and says that it is simulated.
What a node sees is what it sees of a vendor's key manager. For laboratories and first steps: a node in
production refuses such key (invariant I7).
"""

import argparse
import asyncio
import json
import logging
import secrets
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import uvloop
from msgspec import Meta

from openqci.cli.up.commission import is_silent, share
from openqci.cli.up.production import append_part, photon_seed, spend_authentication
from openqci.cli.up.workers import BlockWorkers
from openqci.core.errors import ConfigurationError, Fault, OpenQCIError
from openqci.core.identifiers import KmeId, LinkId, SaeId, SiteId, authentication_stream, kme_of_site
from openqci.core.keys import SecretBytes, wiped
from openqci.core.provenance import Provenance
from openqci.crypto.sealing import KEK_BYTES
from openqci.delivery import pair_stock
from openqci.delivery.directory import SaeDirectory, SaeRecord
from openqci.delivery.key_ids import BATCH_TAG_BITS, ID_SEED_BYTES
from openqci.delivery.pair_stock import KeyBatch, Role, batch_stream
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.links import forecast
from openqci.network import Hop, shipped_devices
from openqci.services.data_directory import KEK, lock_directory, read_kek, unusable_named, write_durably
from openqci.services.kme import KmeService
from openqci.services.kme_server import KMEEndpoint, KMEServer
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.source_014 import SOURCE_EXTENSION
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.block import BlockOrder, BlockOutcome
from openqci.twin.hops import AUTHENTICATION_STOCK_BYTES

log = logging.getLogger(__name__)

CONFIG, STORE, ENDS = "modules.toml", "store.sqlite", ("a", "b")
FIBRE_LOSS_DB_PER_KM = 0.2
FULL_WAIT_S = 0.25
RETRY_S = 5.0


class ModulesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``modules.toml``. ``nodes`` are the SAE IDs under which the two KMEs fetch key, at end a and end b."""

    version: int
    link_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    nodes: Annotated[list[str], Meta(min_length=2, max_length=2)]
    host: str
    bind: str
    ports: Annotated[list[int], Meta(min_length=2, max_length=2)]
    length_km: Annotated[float, Meta(ge=0, le=200)]
    device: str
    speed: Annotated[float, Meta(gt=0, le=1000)]
    stock_bytes: Annotated[int, Meta(ge=1024)]


def run_pair(folder: Path, workers: int) -> int:
    """Run the pair of a folder until a signal."""
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    return uvloop.run(serve(folder, read_config(folder / CONFIG), workers))


def init_modules(args: argparse.Namespace) -> int:
    """Write configuration, test certificates and an empty store; print what the two nodes need."""
    folder = args.folder
    document = {
        "version": 1,
        "link_id": "qkd-1",
        "nodes": [name.strip() for name in args.nodes.split(",")],
        "host": args.host,
        "bind": args.bind,
        "ports": [args.port_base, args.port_base + 1],
        "length_km": args.length_km,
        "device": args.device,
        "speed": args.speed,
        "stock_bytes": 256 * 1024,
    }
    config = checked(str(folder / CONFIG), document)
    with unusable_named(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if (folder / CONFIG).exists():
            raise ConfigurationError(Fault(str(folder / CONFIG), "", "is there already"))
        authority = CertificateAuthority.open_or_create(folder / "pki")
        for end, node in zip(ENDS, config.nodes, strict=True):
            module = authority.issue_kme(module_id(config, end), [config.host])
            write_credentials(folder / f"module-{end}", module, authority)
            write_credentials(folder / f"node-{end}", authority.issue_sae(SaeId(node)), authority)
        write_durably(folder / KEK, secrets.token_bytes(KEK_BYTES))
        text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in document.items())
        (folder / CONFIG).write_text(text, "utf-8")
    for end, port, other in zip(ENDS, config.ports, reversed(config.nodes), strict=True):
        print(
            f"end {end}: --module-url https://{config.host}:{port} --module-sae {other} "
            f"--module-credentials {(folder / f'node-{end}').absolute()}"
        )
    return 0


def read_config(file: Path) -> ModulesConfig:
    """Read ``modules.toml``; ConfigurationError says what is wrong."""
    try:
        return checked(str(file), tomllib.loads(file.read_text("utf-8")))
    except OSError as error:
        raise ConfigurationError(
            Fault(str(file), "", f"cannot be read ({error.strerror}); make it with --init")
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(Fault(str(file), "", f"is not TOML: {error}")) from None


def checked(file: str, document: dict[str, Any]) -> ModulesConfig:
    """Check a configuration."""
    try:
        config = msgspec.convert(document, ModulesConfig)
    except msgspec.ValidationError as error:
        raise ConfigurationError(Fault(file, "", str(error))) from None
    if config.device not in shipped_devices():
        expected = ", ".join(sorted(shipped_devices()))
        raise ConfigurationError(Fault(file, "device", f"is {config.device!r}; expected one of {expected}"))
    if len(set(config.nodes)) < 2:
        raise ConfigurationError(Fault(file, "nodes", "are the same; expected two SAE IDs"))
    return config


def site(config: ModulesConfig, end: str) -> SiteId:
    return SiteId(f"{config.link_id}-{end}")


def module_id(config: ModulesConfig, end: str) -> KmeId:
    """Return the KME ID of the module at an end."""
    return kme_of_site(site(config, end))


def hop_of(config: ModulesConfig) -> Hop:
    """Return the link between the modules: fibre alone, without connectors."""
    loss_db = FIBRE_LOSS_DB_PER_KM * config.length_km
    a, b = (site(config, end) for end in ENDS)
    return Hop(
        LinkId(config.link_id), a, b, config.length_km, loss_db, config.device, "fibre", config.link_id
    )


async def serve(folder: Path, config: ModulesConfig, workers: int) -> int:
    """Run both modules until SIGTERM or Ctrl-C."""
    with unusable_named(folder):
        lock_directory(folder)
    store = SqliteKeyStore.open(folder / STORE, read_kek(folder / KEK))
    pool = BlockWorkers(workers)
    pair = ModulePair(config, store, pool)
    await store.run(pair.prepare)
    report = {"protocol": "bb84-decoy", "proof": "rusca-2018", "simulated": True}
    service = KmeService(store, status_extension={SOURCE_EXTENSION: report})
    pair.arrived = service.stock_arrived
    endpoints = [
        KMEEndpoint(
            module_id(config, end), port, folder / f"module-{end}/cert.pem", folder / f"module-{end}/key.pem"
        )
        for end, port in zip(ENDS, config.ports, strict=True)
    ]
    server = KMEServer(endpoints, service, folder / "pki" / "ca.pem", host=config.bind)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    making = asyncio.create_task(pair.run())
    try:
        await server.start()
        print("ready", flush=True)
        await asyncio.wait(
            {making, stopping := asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED
        )
        stopping.cancel()
        if making.done():
            making.result()
    finally:
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
        await server.stop()
        pool.close()
        store.close()
    return 0


class ModulePair:
    """Makes key for both directions of the link until its stocks are full, and again when they are not."""

    def __init__(self, config: ModulesConfig, store: SqliteKeyStore, workers: BlockWorkers) -> None:
        self.config, self.store, self.workers = config, store, workers
        self.hop, self.device = hop_of(config), shipped_devices()[config.device]
        self.arrived: Callable[[SaeId, SaeId], None] = lambda master, slave: None
        self._detections = forecast(self.device, self.hop).block_detections
        self._number = time.time_ns() // 1_000_000

    def prepare(self, transaction: StoreTransaction) -> None:
        """Enrol the two nodes; give a pair that cannot authenticate a block its pre-shared key."""
        directory = SaeDirectory(transaction)
        for end, node in zip(ENDS, self.config.nodes, strict=True):
            if directory.sae(SaeId(node)) is None:
                directory.enrol(
                    SaeRecord(
                        SaeId(node), site(self.config, end), module_id(self.config, end), "", "", time.time()
                    )
                )
        if is_silent(transaction, self.hop):
            share(transaction, self.hop)

    async def run(self) -> None:
        """Make key until cancelled."""
        while True:
            end = await self.store.run(self._poorer_end)
            if end is None:
                await asyncio.sleep(FULL_WAIT_S)
                continue
            try:
                await self._make_block(end)
            except OpenQCIError as error:
                log.warning("a block was lost: %s", error)
                await asyncio.sleep(RETRY_S)

    def _poorer_end(self, transaction: StoreTransaction) -> int | None:
        """Return the end whose node has least to draw as master, or None if both have enough."""
        stocks = [
            pair_stock.stock_bytes(KmeView(transaction, module_id(self.config, end)), *self._pair(number))
            for number, end in enumerate(ENDS)
        ]
        poorer = stocks.index(min(stocks))
        return poorer if stocks[poorer] < self.config.stock_bytes else None

    async def _make_block(self, end: int) -> None:
        began_s = time.monotonic()
        key_a, key_b = await self.store.run(lambda tx: spend_authentication(tx, self.hop))
        self._number += 1
        with wiped(key_a, key_b):
            order = BlockOrder(
                hop=self.hop,
                device=self.device,
                number=self._number,
                detections=self._detections,
                photon_seed=photon_seed(None, self.hop.link_id, self._number),
                authentication_key_a=bytes(key_a.reveal()),
                authentication_key_b=bytes(key_b.reveal()),
            )
        outcome = await self.workers.distil(order)
        # A block is complete only when its light has arrived, however fast it was computed.
        await asyncio.sleep(max(0.0, began_s + outcome.duration_s / self.config.speed - time.monotonic()))
        if outcome.aborted:
            log.warning("block %d aborted: %s", outcome.number, outcome.aborted)
            return
        await self.store.run(lambda tx: self._keep(tx, outcome, end))
        self.arrived(*self._pair(end))

    def _keep(self, transaction: StoreTransaction, outcome: BlockOutcome, end: int) -> None:
        """Store a block's key at both modules: first what authenticates later blocks, then the pair's."""
        authentication = authentication_stream(self.hop.link_id)
        views = [KmeView(transaction, module_id(self.config, each)) for each in ENDS]
        lacking = max(0, AUTHENTICATION_STOCK_BYTES - views[0].stock_bytes(authentication))
        refill = min(len(outcome.key_a), lacking)
        tag, seed = secrets.randbits(BATCH_TAG_BITS), secrets.token_bytes(ID_SEED_BYTES)
        roles: tuple[Role, Role] = ("master", "slave") if end == 0 else ("slave", "master")
        for view, role, made in zip(views, roles, (outcome.key_a, outcome.key_b), strict=True):
            with SecretBytes(made) as key:
                append_part(view, authentication, key, refill)
                if len(key):
                    with key.take(len(key)) as rest:
                        pair_stock.store_batch(
                            view, self._batch(outcome, end, role, tag, seed, len(rest)), rest
                        )

    def _batch(
        self, outcome: BlockOutcome, end: int, role: Role, tag: int, seed: bytes, length_bytes: int
    ) -> KeyBatch:
        provenance = Provenance(
            route=tuple(site(self.config, each) for each in (ENDS if end == 0 else reversed(ENDS))),
            links=(self.hop.link_id,),
            hops=1,
            protocols=("bb84-decoy",),
            proofs=(outcome.proof_id,),
            epsilon=outcome.epsilon,
            form="direct",
            simulated=True,
            made_at_s=time.time(),
        )
        return KeyBatch(
            tag, role, *self._pair(end), batch_stream(tag, role), length_bytes, seed, provenance, time.time()
        )

    def _pair(self, end: int) -> tuple[SaeId, SaeId]:
        """Return the pair whose master is the node at an end."""
        return SaeId(self.config.nodes[end]), SaeId(self.config.nodes[1 - end])
