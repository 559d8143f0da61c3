"""One end of a single QKD link on disk: its folder, and the key that it shares with the other end.

::

    DIR/            0700
      link.json     format version, link, which end this is, when it was made
      kek           0600, 32 bytes: without it nothing in the store opens
      store.sqlite  key of the link (and -wal, -shm beside it while in use)
      lock          held by the process that distils

Key lies in streams named after the block it comes from, ``handshake``, ``authentication`` and ``distilled``
(0 for the pre-shared secret), so that a block which only one end could confirm moves nothing else. It is
spent before it is used and stored before the peer is told, each time with a durable commit. What the store
promises: :mod:`openqci.services.sqlite_store`.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Literal, Protocol, Self, TypeVar

import msgspec

from openqci.core.errors import ConfigurationError, Fault, KeyUnavailable
from openqci.core.identifiers import KmeId, LinkId, StreamId
from openqci.core.keys import SecretBytes, SecretKey
from openqci.crypto.sealing import KEK_BYTES
from openqci.distillation import AUTHENTICATION_KEY_BYTES, BlockName
from openqci.distillation.session import (
    BLOCKS_COMPARED,
    HANDSHAKE_KEY_BYTES,
    Range,
    Settlement,
    Stocks,
)
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.keystore.reconcile import surplus
from openqci.services.data_directory import (
    KEK,
    lock_directory,
    read_kek,
    refuse_foreign_files,
    unusable_named,
    write_durably,
)
from openqci.services.sqlite_store import SqliteKeyStore

FORMAT_VERSION = 1
DESCRIPTION = "link.json"

HANDSHAKE, AUTHENTICATION, DISTILLED = "handshake", "authentication", "distilled"

HANDSHAKE_STOCK_BYTES = 32 * HANDSHAKE_KEY_BYTES
AUTHENTICATION_STOCK_BYTES = 64 * AUTHENTICATION_KEY_BYTES
PRESHARED_BYTES = HANDSHAKE_STOCK_BYTES + AUTHENTICATION_STOCK_BYTES
"""A pre-shared secret fills both stocks: 32 sessions and 64 blocks without a key."""

NEXT_BLOCK, KEPT = "next-block", "kept-block"

Result = TypeVar("Result")


class KeyClaim(msgspec.Struct, frozen=True):
    """What a distilled key may claim: the proof behind it, and epsilon of all stages together."""

    proof_id: str
    epsilon: float


class Store(Protocol):
    """What runs a transaction durably; the SQLite store, or one in memory for tests."""

    def submit(self, work: Callable[[StoreTransaction], Result]) -> "Future[Result]":
        """Do the work; the future resolves when it is durable."""


class StoredLinkStock:
    """A :class:`~openqci.distillation.session.LinkStock` over a key store.

    Parameters
    ----------
    store : Store
    link_id : LinkId
    """

    def __init__(self, store: Store, link_id: LinkId) -> None:
        self._store = store
        self._link_id = link_id
        self._refill = (0, 0)

    def stocks(self) -> Stocks:
        return self._run(lambda view: self._stocks(view))

    def take_handshake(self, block: int, offset_bytes: int) -> SecretBytes:
        stream = self._stream(HANDSHAKE, block)
        return self._run(lambda view: view.take(stream, offset_bytes, HANDSHAKE_KEY_BYTES))

    def settle(self, theirs: Stocks) -> Settlement:
        def work(view: KmeView) -> Settlement:
            mine = self._stocks(view)
            destroyed = 0
            for kind, ours, other in (
                (HANDSHAKE, mine.handshake, theirs.handshake),
                (AUTHENTICATION, mine.authentication, theirs.authentication),
            ):
                for block in {block for block, *_ in ours}:
                    for offset, length in surplus(of_block(ours, block), of_block(other, block)):
                        view.take(self._stream(kind, block), offset, length).wipe()
                        destroyed += length
            # Of older blocks the other end says nothing.
            first = max(mine.next_block, theirs.next_block) - BLOCKS_COMPARED
            struck = {each for each in mine.kept_blocks if each >= first} - set(theirs.kept_blocks)
            taken = {each for each in struck if not view.stock_bytes(self._stream(DISTILLED, each))}
            for block in struck:
                destroyed += view.destroy(self._stream(DISTILLED, block))
                view.drop_record(KEPT, self._kept(block))
            self._put_next(view, max(mine.next_block, theirs.next_block))
            return Settlement(destroyed, tuple(sorted(struck)), tuple(sorted(taken)))

        return self._run(work)

    def open_block(self) -> tuple[BlockName, SecretBytes]:
        def work(view: KmeView) -> tuple[BlockName, SecretBytes]:
            stocks = self._stocks(view)
            enough = (each for each in stocks.authentication if each[2] >= AUTHENTICATION_KEY_BYTES)
            first = next(enough, None)
            if first is None:
                raise KeyUnavailable(
                    f"no authentication key is left on link {self._link_id}; share a new secret",
                    wanted_bytes=AUTHENTICATION_KEY_BYTES,
                    available_bytes=bytes_of(stocks.authentication),
                )
            block, offset, _ = first
            key = view.take(self._stream(AUTHENTICATION, block), offset, AUTHENTICATION_KEY_BYTES)
            self._put_next(view, stocks.next_block + 1)
            left = bytes_of(stocks.authentication) - AUTHENTICATION_KEY_BYTES
            self._refill = (
                max(0, HANDSHAKE_STOCK_BYTES - bytes_of(stocks.handshake)),
                max(0, AUTHENTICATION_STOCK_BYTES - left),
            )
            return BlockName(self._link_id, stocks.next_block), key

        return self._run(work)

    def keep(self, number: int, key: SecretKey) -> None:
        """Store a key; up to half of it fills the stocks, as they were when the block was opened."""
        spare = len(key.key) // 2
        handshake = whole(min(self._refill[0], spare), HANDSHAKE_KEY_BYTES)
        authentication = whole(min(self._refill[1], spare - handshake), AUTHENTICATION_KEY_BYTES)

        def work(view: KmeView) -> None:
            rest = SecretBytes(key.key.reveal())
            for kind, length in ((HANDSHAKE, handshake), (AUTHENTICATION, authentication)):
                if length:
                    with rest.take(length) as part:
                        view.append(self._stream(kind, number), part)
            view.append(self._stream(DISTILLED, number), rest)
            view.put_record(
                KEPT, self._kept(number), msgspec.json.encode(KeyClaim(key.proof_id, key.epsilon))
            )
            rest.wipe()

        self._run(work)
        key.key.wipe()

    def distilled(self) -> list[tuple[int, int, "KeyClaim"]]:
        """Return number, bytes and claim of the blocks whose key is here."""

        def work(view: KmeView) -> list[tuple[int, int, KeyClaim]]:
            prefix = f"{DISTILLED}/{self._link_id}/"
            found = []
            for stream, length in list(view.streams(prefix)):
                block = int(stream.removeprefix(prefix))
                claim = view.record(KEPT, self._kept(block))
                if length and claim is not None:
                    found.append((block, length, msgspec.json.decode(claim, type=KeyClaim)))
            return found

        return self._run(work)

    def take_distilled(self, block: int) -> SecretBytes:
        """Spend what is left of a block's key; KeyUnavailable if there is nothing."""

        def work(view: KmeView) -> SecretBytes:
            stream = self._stream(DISTILLED, block)
            taken = bytearray()
            for offset, length in view.ranges(stream):
                with view.take(stream, offset, length) as part:
                    taken += part.reveal()
            if not taken:
                raise KeyUnavailable(f"block {block} left no key here", wanted_bytes=1, available_bytes=0)
            secret = SecretBytes(taken)
            taken[:] = bytes(len(taken))
            return secret

        return self._run(work)

    def share(self, secret: SecretBytes) -> None:
        """Take a pre-shared secret of PRESHARED_BYTES as the first key of the link."""

        def work(view: KmeView) -> None:
            with secret.take(HANDSHAKE_STOCK_BYTES) as part:
                view.append(self._stream(HANDSHAKE, 0), part)
            view.append(self._stream(AUTHENTICATION, 0), secret)
            self._put_next(view, 1)

        self._run(work)

    def _run(self, work: Callable[[KmeView], Result]) -> Result:
        return self._store.submit(lambda transaction: work(KmeView(transaction, OWNER))).result()

    def _stream(self, kind: str, block: int) -> StreamId:
        return StreamId(f"{kind}/{self._link_id}/{block:010d}")

    def _stocks(self, view: KmeView) -> Stocks:
        next_block = int(view.record(NEXT_BLOCK, self._link_id) or b"1")
        prefix = f"{self._link_id}/"
        kept = (int(name.removeprefix(prefix)) for name, _ in view.records(KEPT, prefix))
        return Stocks(
            next_block,
            tuple(self._ranges(view, HANDSHAKE)),
            tuple(self._ranges(view, AUTHENTICATION)),
            tuple(block for block in kept if block >= next_block - BLOCKS_COMPARED),
        )

    def _kept(self, block: int) -> str:
        return f"{self._link_id}/{block:010d}"

    def _ranges(self, view: KmeView, kind: str) -> Iterator[Range]:
        prefix = f"{kind}/{self._link_id}/"
        for stream, _ in list(view.streams(prefix)):
            for offset, length in view.ranges(stream):
                yield int(stream.removeprefix(prefix)), offset, length

    def _put_next(self, view: KmeView, number: int) -> None:
        view.put_record(NEXT_BLOCK, self._link_id, str(number).encode())


OWNER = KmeId("this-end")
"""A folder is one end's alone; the store asks for a name all the same."""


def of_block(ranges: tuple[Range, ...], block: int) -> list[tuple[int, int]]:
    return [(offset, length) for number, offset, length in ranges if number == block]


def bytes_of(ranges: tuple[Range, ...]) -> int:
    return sum(length for *_, length in ranges)


def whole(length_bytes: int, unit_bytes: int) -> int:
    """Return the length cut to whole units."""
    return length_bytes - length_bytes % unit_bytes


class LinkDescription(msgspec.Struct, frozen=True):
    """What ``link.json`` says."""

    format_version: int
    link_id: LinkId
    end: Literal["alice", "bob"]
    made_at_s: float


class LinkDirectory:
    """An opened folder of one end. Make one with :meth:`make`, open it with :meth:`open`."""

    def __init__(self, path: Path, description: LinkDescription, lock: int, store: SqliteKeyStore) -> None:
        self.path = path
        self.description = description
        self._lock = lock
        self._store = store
        self.stock = StoredLinkStock(store, description.link_id)

    @classmethod
    def make(cls, path: Path, link_id: LinkId, end: Literal["alice", "bob"], secret: SecretBytes) -> Self:
        """Make a folder from a pre-shared secret; ConfigurationError if there is something already."""
        path = path.absolute()
        if len(secret) != PRESHARED_BYTES:
            raise ConfigurationError(
                f"the pre-shared secret has {len(secret)} bytes; expected {PRESHARED_BYTES}, "
                "as `openqci distil preshare` makes"
            )
        with unusable_named(path):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if (path / DESCRIPTION).exists():
                raise ConfigurationError(Fault(str(path), "", "is the folder of a link already"))
            refuse_foreign_files(path)
            path.chmod(0o700)
            lock = lock_directory(path)
            kek = secrets.token_bytes(KEK_BYTES)
            write_durably(path / KEK, kek)
            store = SqliteKeyStore.open(path / "store.sqlite", kek)
            StoredLinkStock(store, link_id).share(secret)
            description = LinkDescription(FORMAT_VERSION, link_id, end, time.time())
            # The description comes last: it says that the folder is whole.
            write_durably(path / DESCRIPTION, msgspec.json.format(msgspec.json.encode(description)))
        return cls(path, description, lock, store)

    @classmethod
    def open(cls, path: Path, end: str | None = None) -> Self:
        """Open a folder and lock it; ConfigurationError if it is none, is in use, or is the other end's."""
        path = path.absolute()
        with unusable_named(path):
            file = path / DESCRIPTION
            if not file.exists():
                raise ConfigurationError(
                    Fault(str(path), "", "is no folder of a link; make one with `openqci distil init`")
                )
            try:
                description = msgspec.json.decode(file.read_bytes(), type=LinkDescription)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise ConfigurationError(Fault(str(file), "", f"is damaged ({error})")) from error
            if description.format_version != FORMAT_VERSION:
                raise ConfigurationError(
                    Fault(str(file), "format_version", f"is not {FORMAT_VERSION}, which this program expects")
                )
            if end is not None and description.end != end:
                raise ConfigurationError(Fault(str(path), "end", f"is {description.end}; expected {end}"))
            kek = read_kek(path / KEK)
            lock = lock_directory(path)
            try:
                return cls(path, description, lock, SqliteKeyStore.open(path / "store.sqlite", kek))
            except BaseException:
                os.close(lock)
                raise

    def close(self) -> None:
        """Close the store and let another process use the folder."""
        self._store.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
