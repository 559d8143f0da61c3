"""How ``openqci fault`` reaches the running network: orders and answers as records in the store.

The console is read-only and the KMEs serve applications; who may break things is who may open the store, as
with ``openqci alarm lift``: the account that has the data directory and its key-encryption key. An order is
taken within :data:`LOOK_EVERY_S` and answered with what has come of it.
"""

import asyncio
import secrets
from collections.abc import Iterable
from functools import partial

import msgspec

from openqci.cli.up.production import NETWORK
from openqci.core.errors import ConfigurationError, OpenQCIError
from openqci.keystore.ports import StoreTransaction
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.faults import FaultOrder

ORDERS, ANSWERS = "fault-order", "fault-answer"
LOOK_EVERY_S = 0.2
ANSWER_WAIT_S = 15.0
"""A network that is busy with starting a thousand KMEs takes its orders late, but by then it has."""


class Inject(msgspec.Struct, frozen=True, tag="inject"):
    """Let a fault begin."""

    order: FaultOrder


class Clear(msgspec.Struct, frozen=True, tag="clear"):
    """End a fault, or all without an ID."""

    by: str
    fault_id: str = ""


Wish = Inject | Clear


class Answer(msgspec.Struct, frozen=True):
    """What has come of an order: the IDs of the faults that began or ended, or why none did."""

    fault_ids: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refused: str = ""


async def ask(store: SqliteKeyStore, wish: Wish) -> Answer:
    """Leave an order for the running network and return its answer.

    ConfigurationError if it is refused, OpenQCIError if no answer comes.
    """
    name = secrets.token_hex(8)
    await store.run(lambda tx: tx.put_record(NETWORK, ORDERS, name, msgspec.json.encode(wish)))
    try:
        async with asyncio.timeout(ANSWER_WAIT_S):
            while (body := await store.read(lambda tx: tx.record(NETWORK, ANSWERS, name))) is None:
                await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError:
        raise OpenQCIError(f"the network has not answered for {ANSWER_WAIT_S:g} s; see its log") from None
    finally:
        await store.run(partial(forget, names=[name]))
    answer = msgspec.json.decode(body, type=Answer)
    if answer.refused:
        raise ConfigurationError(answer.refused)
    return answer


def orders_of(transaction: StoreTransaction) -> list[tuple[str, Wish | None]]:
    """Return the orders that wait, each with its name; None for one that this version cannot read."""
    return [(name, read_wish(body)) for name, body in transaction.records(NETWORK, ORDERS)]


def read_wish(body: bytes) -> Wish | None:
    """Read an order; None if it is of another version."""
    try:
        wish: Wish = msgspec.json.decode(body, type=Wish)
    except msgspec.DecodeError:
        return None
    return wish


def answer(transaction: StoreTransaction, name: str, what: Answer) -> None:
    """Put an answer in place of its order."""
    transaction.drop_record(NETWORK, ORDERS, name)
    transaction.put_record(NETWORK, ANSWERS, name, msgspec.json.encode(what))


def forget(transaction: StoreTransaction, names: Iterable[str]) -> None:
    """Drop orders and answers that nobody waits for any more."""
    for name in names:
        transaction.drop_record(NETWORK, ORDERS, name)
        transaction.drop_record(NETWORK, ANSWERS, name)


def forget_all(transaction: StoreTransaction) -> None:
    """Drop what an earlier run has left: its orders were for that run."""
    left = [name for kind in (ORDERS, ANSWERS) for name, _ in transaction.records(NETWORK, kind)]
    forget(transaction, left)
