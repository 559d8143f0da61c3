"""What the coordinator of a node and its workers say to each other, and the line on which they say it.

The line is a pair of connected sockets that the coordinator makes and a worker inherits: nobody else can
speak on it. A message is a msgspec structure in MessagePack with its length before it. No message holds key:
root keys are read from the keyring by each process (:mod:`openqci.services.keyring`), delivered keys are
named by their IDs.

What a worker has delivered is with the operating system before the answer leaves, so that the coordinator's
audit log has it even if the worker is killed the moment after.
"""

import asyncio
import logging
from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias, cast

import msgspec

from openqci.delivery.etsi014_model import LeaseDocument
from openqci.delivery.leases import Lease
from openqci.services.kme_config import KmeConfig

log = logging.getLogger(__name__)

HEAD_BYTES = 4
MESSAGE_BYTES_MAX = 16 << 20
"""A configuration of many thousand applications is the largest message."""

UNSENT_BYTES_MAX = 64 << 20
"""What may wait for a coordinator that does not read; reports beyond that are counted and lost."""

GATHER_S = 0.05
"""How long a report that nobody waits for may wait for company."""


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """One message."""


# From the coordinator


class Setup(Message, frozen=True, tag=True, array_like=True):
    """The first message: what the worker is. ``root_key`` is the number of the one in use."""

    number: int
    file: str
    config: KmeConfig
    root_key: int
    log_level: str


class Act(StrEnum):
    """What a worker is told to do; it answers each with :class:`Done`."""

    ANSWER = "answer"
    LEARN_ROOTS = "learn-roots"
    USE_NEWEST_ROOT = "use-newest-root"
    FORGET_OLD_ROOTS = "forget-old-roots"
    RELOAD = "reload"
    DRAIN = "drain"
    END = "end"


class Order(Message, frozen=True, tag=True, array_like=True):
    """Something to do."""

    number: int
    act: Act


class Arrived(Message, frozen=True, tag=True, array_like=True):
    """The stock of a pair has grown."""

    master: str
    slave: str
    additional: tuple[str, ...]
    length_bytes: int


class Hopeless(Message, frozen=True, tag=True, array_like=True):
    """Why no key will come for a pair that a worker has asked for."""

    master: str
    slave: str
    additional: tuple[str, ...]
    reason: str


class QuotaAnswer(Message, frozen=True, tag=True, array_like=True):
    """How long to wait for the bits that were asked for: 0 if they are granted."""

    number: int
    wait_s: float


# From a worker


class Ready(Message, frozen=True, tag=True, array_like=True):
    """The worker serves."""


class Failed(Message, frozen=True, tag=True, array_like=True):
    """The worker cannot serve, and why."""

    reason: str


class Done(Message, frozen=True, tag=True, array_like=True):
    """An order is carried out, or ``fault`` says why not."""

    number: int
    fault: str = ""


class Wanted(Message, frozen=True, tag=True, array_like=True):
    """A request for keys of ``key_bytes`` found the stock of its pair short."""

    master: str
    slave: str
    additional: tuple[str, ...]
    wanted_bytes: int
    key_bytes: int


class QuotaAsked(Message, frozen=True, tag=True, array_like=True):
    """An application asks for so many bits of its quota."""

    number: int
    sae: str
    bits: int


class QuotaReturned(Message, frozen=True, tag=True, array_like=True):
    """A request got no key: its bits go back."""

    sae: str
    bits: int


class Delivered(Message, frozen=True, tag=True, array_like=True):
    """Keys were handed to an application."""

    interface: str
    role: str
    caller: str
    others: tuple[str, ...]
    key_ids: tuple[str, ...]
    size_bits: int


class Consumed(Message, frozen=True, tag=True, array_like=True):
    """Key has left the stock of a pair, for its master or a lease."""

    pair: tuple[str, ...]
    length_bytes: int


class Leased(Message, frozen=True, tag=True, array_like=True):
    """Keys are kept for an application."""

    caller: str
    others: tuple[str, ...]
    lease: LeaseDocument


class LeaseReleased(Message, frozen=True, tag=True, array_like=True):
    """An application has given a lease back."""

    lease: Lease
    returned_bytes: int


class Answered(Message, frozen=True, tag=True, array_like=True):
    """A request was answered."""

    interface: str
    method: str
    status: int
    seconds: float


class Connected(Message, frozen=True, tag=True, array_like=True):
    """Who is connected now, by interface, and why connections were closed since the worker's start."""

    open_now: dict[str, int]
    closed: dict[str, dict[str, int]]


class Refused(Message, frozen=True, tag=True, array_like=True):
    """A request was refused in a way that is written down."""

    interface: str
    method: str
    caller: str
    other: str
    status: int
    reason: str


class Lost(Message, frozen=True, tag=True, array_like=True):
    """So many reports could not be sent."""

    reports: int


AnyMessage: TypeAlias = (
    Setup
    | Order
    | Arrived
    | Hopeless
    | QuotaAnswer
    | Ready
    | Failed
    | Done
    | Wanted
    | QuotaAsked
    | QuotaReturned
    | Delivered
    | Consumed
    | Leased
    | LeaseReleased
    | Answered
    | Connected
    | Refused
    | Lost
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyMessage)


class Channel(asyncio.Protocol):
    """One end of a line. ``received`` is called with each message, ``closed`` once after the last."""

    def __init__(self, received: Callable[[AnyMessage], None], closed: Callable[[], None]) -> None:
        self._received, self._closed = received, closed
        self._transport: asyncio.Transport | None = None
        self._came = bytearray()
        self._later = bytearray()
        self._lost = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._closed()

    def data_received(self, data: bytes) -> None:
        self._came += data
        at = 0
        while len(self._came) - at >= HEAD_BYTES:
            length = int.from_bytes(self._came[at : at + HEAD_BYTES], "big")
            if length > MESSAGE_BYTES_MAX:
                return self._cut(f"a message of {length} bytes")
            end = at + HEAD_BYTES + length
            if len(self._came) < end:
                break
            try:
                message = _decoder.decode(self._came[at + HEAD_BYTES : end])
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                return self._cut(f"a message that cannot be read: {error}")
            at = end
            self._received(message)
        del self._came[:at]
        return None

    def send(self, message: Message) -> None:
        """Give a message to the operating system now, behind those that wait."""
        frame = framed(message)
        if self._transport is None:
            return
        if self._later:
            frame, self._later = bytes(self._later) + frame, bytearray()
        self._transport.write(frame)

    def report(self, message: Message, *, now: bool) -> None:
        """Send what is only to be noted: ``now``, or with the next message and after a moment at the latest.

        A coordinator that does not read for so long that too much waits loses reports, and is told how many.
        """
        if self._transport is None or self._transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            self.send(Lost(lost))
        if now:
            return self.send(message)
        if not self._later:
            asyncio.get_running_loop().call_later(GATHER_S, self.flush)
        self._later += framed(message)
        return None

    def flush(self) -> None:
        """Send what waits."""
        if self._later and self._transport is not None:
            self._transport.write(bytes(self._later))
        self._later.clear()

    def close(self) -> None:
        """Send what waits, and end the line."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def _cut(self, why: str) -> None:
        log.error("the line between the coordinator and a worker is cut: %s", why)
        self._came.clear()
        if self._transport is not None:
            self._transport.abort()


def framed(message: Message) -> bytes:
    """Return a message as it goes over the line."""
    body = _encoder.encode(message)
    return len(body).to_bytes(HEAD_BYTES, "big") + body
