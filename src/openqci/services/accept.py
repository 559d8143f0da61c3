"""Lets TLS connections in at one address: a bounded number of them, each through a bounded handshake.

A server of asyncio takes every connection there is, so that whoever opens thousands has all the files of the
process, and with them the database's and the peers'. Here a connection beyond the limits is closed at once.
Before its handshake nobody is known: then the limits are those of an address and of all, and where they are
reached it is the *oldest* handshake that goes, since one that drags on is worth less than a new one. A flood
of connections that say nothing so delays an honest client, whose handshake takes milliseconds, by nothing.

What goes wrong in a handshake ends the connection and is counted. Only what somebody can put right is logged,
and that a few times a minute: a certificate that is none, ended, revoked, or of another authority. With
anything else whoever can reach the port could fill the disk.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from openqci.services.logs import about

log = logging.getLogger(__name__)

HANDSHAKE_S_MAX = 10.0
"""How long a handshake may take: several times what a slow satellite line needs."""

TLS_SHUTDOWN_S_MAX = 2.0
"""How long a closed connection waits for its last bytes to be taken, and for the other end's farewell."""

HANDSHAKES_MAX = 128
HANDSHAKES_PER_ADDRESS_MAX = 64
"""Handshakes under way at one address of ours. Where nobody attacks they are few: they last milliseconds."""

CONNECTIONS_MAX = 1024
CONNECTIONS_PER_ADDRESS_MAX = 512
"""Connections of verified callers at one address of ours, and from one address. Several applications may be
behind one address, so this is more than one application may have (``CONNECTIONS_PER_SAE_MAX``)."""

FILES_PER_ADDRESS = CONNECTIONS_MAX + HANDSHAKES_MAX
"""Open files that an address of ours may take."""

REFUSALS_TOLD_MAX, TOLD_EVERY_S = 6, 60.0
"""Refused certificates that are logged, and in what time."""

BACKLOG = 128
ACCEPTS_PER_TURN = 64
"""Connections taken before other tasks get their turn."""

NO_FILES_REST_S = 1.0
"""How long nobody is let in when the process can open no more files."""

HANDSHAKE, EVICTED, CROWDED = "handshake", "evicted", "crowded"
HEAD, BODY, ANSWER = "head", "body", "answer"
"""Why a connection was closed from our side: its handshake failed, or was the oldest of too many; too many
were there, or as many of one caller; the head or the body of a request took too long, or was too long; an
answer was not read."""


class Listening(Protocol):
    """An address that is listened at."""

    def close(self) -> None:
        """Listen no longer."""


class Crowd:
    """Who is connected to one address of ours: kept over all acceptors that take each other's place there.

    The protocols say who comes and goes; ``closed`` counts why connections were closed by us.
    """

    def __init__(self) -> None:
        self.closed: Counter[str] = Counter()
        self._from: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._from.total()

    def is_full(self, address: str) -> bool:
        """Tell whether one more connection from an address is too many."""
        return len(self) >= CONNECTIONS_MAX or self._from[address] >= CONNECTIONS_PER_ADDRESS_MAX

    def enter(self, transport: asyncio.BaseTransport) -> str:
        """A connection's handshake has ended well; return the address under which it leaves again."""
        address = str((transport.get_extra_info("peername") or ("",))[0])
        self._from[address] += 1
        return address

    def leave(self, address: str) -> None:
        """A connection from an address is no more."""
        self._from[address] -= 1
        if not self._from[address]:
            del self._from[address]


class TlsAcceptor:
    """Takes the connections of a listening socket, which it owns, until it is closed.

    ``protocol`` makes what serves one; it enters the crowd when it is connected, and leaves it.
    """

    def __init__(
        self,
        listening: socket.socket,
        context: ssl.SSLContext,
        protocol: Callable[[], asyncio.BaseProtocol],
        crowd: Crowd,
    ) -> None:
        self._socket, self._context, self._protocol, self._crowd = listening, context, protocol, crowd
        self._loop = asyncio.get_running_loop()
        self._handshakes: dict[asyncio.Task[None], str] = {}
        self._resting: asyncio.TimerHandle | None = None
        self._told, self._told_since_s = 0, 0.0
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Take no more; who has not ended its handshake under these rules shall not end it."""
        if self._resting is not None:
            self._resting.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        for handshake in self._handshakes:
            handshake.cancel()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, (address, *_) = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # gone before it was taken
            except OSError as error:
                self._rest(error)
                return
            self._admit(connection, address)

    def _admit(self, connection: socket.socket, address: str) -> None:
        if self._crowd.is_full(address):
            self._crowd.closed[CROWDED] += 1
            connection.close()
            return
        self._make_room(address)
        connection.setblocking(False)
        handshake = self._loop.create_task(self._greet(connection, address))
        self._handshakes[handshake] = address
        handshake.add_done_callback(self._over)

    def _make_room(self, address: str) -> None:
        """Give up the oldest handshake, from this address or of all, if there are as many as may be."""
        same = [task for task, place in self._handshakes.items() if place == address]
        if len(same) >= HANDSHAKES_PER_ADDRESS_MAX:
            oldest = same[0]
        elif len(self._handshakes) >= HANDSHAKES_MAX:
            oldest = next(iter(self._handshakes))
        else:
            return
        self._crowd.closed[EVICTED] += 1
        del self._handshakes[oldest]
        oldest.cancel()

    async def _greet(self, connection: socket.socket, address: str) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S_MAX,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S_MAX,
            )
        except (OSError, TimeoutError) as error:
            self._crowd.closed[HANDSHAKE] += 1
            self._tell(address, error)

    def _tell(self, address: str, error: Exception) -> None:
        """Log what somebody can put right, unless that was done often enough lately."""
        why = fault_of_certificate(error)
        if why is None:
            return
        if self._loop.time() - self._told_since_s > TOLD_EVERY_S:
            self._told, self._told_since_s = 0, self._loop.time()
        self._told += 1
        if self._told <= REFUSALS_TOLD_MAX:
            port = self._socket.getsockname()[1] if self._socket.fileno() >= 0 else 0
            more = "; more are only counted for a minute" if self._told == REFUSALS_TOLD_MAX else ""
            log.warning(
                "no connection of %s to port %d: %s%s", address, port, why, more, extra=about(address=address)
            )

    def _over(self, handshake: "asyncio.Task[None]") -> None:
        self._handshakes.pop(handshake, None)
        if not handshake.cancelled() and (error := handshake.exception()) is not None:
            log.error("a connection could not be served: %s", error, exc_info=error)

    def _rest(self, error: OSError) -> None:
        """No more files, say: let nobody in for a moment, and say so."""
        log.error("connections cannot be accepted now: %s", error)
        self._loop.remove_reader(self._socket)
        self._resting = self._loop.call_later(NO_FILES_REST_S, self._wake)

    def _wake(self) -> None:
        self._resting = None
        self._loop.add_reader(self._socket, self._accept)


CERTIFICATE_ALERTS = ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_EXPIRED", "CERTIFICATE_UNKNOWN")
"""How a caller says that it does not take our certificate (RFC 8446, 6.2)."""


def fault_of_certificate(error: Exception) -> str | None:
    """Return what is wrong with a certificate, if that was why a handshake failed.

    >>> fault_of_certificate(ConnectionResetError()) is None
    True
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "it shows no certificate"
    if "ALERT" in reason and any(alert in reason for alert in CERTIFICATE_ALERTS):
        return f"it refuses the certificate of this node ({reason.lower().replace('_', ' ')})"
    return None
