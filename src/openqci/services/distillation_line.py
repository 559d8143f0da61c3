"""The line between two link ends that distil: a TCP connection, one at a time, words behind their length.

Each word of a session (:mod:`openqci.distillation.session`) travels behind its length in four bytes,
big-endian. The line needs no secrecy: all that it carries is public, and what matters is authenticated with
one-time keys. Whoever can cut or fill the line can stop the key, and nothing else.

A session computes in a thread of its own, so that a long privacy amplification does not keep the process from
hearing that it shall stop; it stops when that thread is through.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from openqci.core.errors import ConfigurationError
from openqci.distillation.session import LinkSession, SessionEnded, SessionEvent
from openqci.distillation.settings import MESSAGE_BYTES_MAX

LENGTH_BYTES = 4
WORD_BYTES_MAX = MESSAGE_BYTES_MAX + 1024
WORD_BYTES_MAX_OF_ANYBODY = 1 << 20
"""Before the handshake is over."""

CONNECT_TIMEOUT_S = 15.0
PENALTY_S_MAX = 60.0

MakeSession = Callable[[], LinkSession]
Report = Callable[[SessionEvent], None]


async def converse_over(
    session: LinkSession, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, report: Report
) -> SessionEnded:
    """Run one end of a session to its end over a connection; ``report`` hears every event."""
    clock = asyncio.get_running_loop().time
    ended: SessionEnded | None = None
    computing = threading.Lock()

    async def compute(verb: Callable[..., None], *arguments: object) -> None:
        def work() -> None:
            with computing:
                verb(*arguments)

        await asyncio.to_thread(work)

    async def speak() -> None:
        for word in session.messages_to_send():
            writer.write(len(word).to_bytes(LENGTH_BYTES, "big") + word)
        with suppress(ConnectionError):
            await writer.drain()

    def tell() -> SessionEnded | None:
        last = None
        while (event := session.next_event()) is not None:
            report(event)
            last = event if isinstance(event, SessionEnded) else last
        return last

    try:
        await compute(session.start, clock())
        await speak()
        ended = tell()
        while ended is None:
            deadline_s = session.deadline_s()
            try:
                async with asyncio.timeout(None if deadline_s is None else max(0.0, deadline_s - clock())):
                    most = WORD_BYTES_MAX if session.agreed else WORD_BYTES_MAX_OF_ANYBODY
                    word = await read_word(reader, most)
            except TimeoutError:
                await compute(session.advance, clock())
            except (asyncio.IncompleteReadError, ConnectionError):
                session.stop("the line was cut")
            except WordTooLong as error:
                session.stop(str(error))
            else:
                await compute(session.receive, word, clock())
            await speak()
            ended = tell()
    finally:
        with computing:
            if not session.ended:
                session.stop("this end was stopped")
        await speak()
        tell()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return ended


class WordTooLong(Exception):
    """The peer announced a word longer than any may be."""


async def read_word(reader: asyncio.StreamReader, most_bytes: int) -> bytes:
    """Return the next word; IncompleteReadError when the line ends."""
    length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    if length > most_bytes:
        raise WordTooLong(f"a word of {length} bytes announced, at most {most_bytes}")
    return await reader.readexactly(length)


async def call(host: str, port: int, make_session: MakeSession, report: Report) -> SessionEnded:
    """Connect and run one session; ConfigurationError if nobody answers."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        why = getattr(error, "strerror", None) or "no answer"
        raise ConfigurationError(f"{host}:{port}: cannot be reached: {why}") from error
    return await converse_over(make_session(), reader, writer, report)


async def answer(
    host: str,
    port: int,
    make_session: MakeSession,
    report: Report,
    *,
    once: bool,
    listening: Callable[[str, int], None],
) -> SessionEnded | None:
    """Listen and run sessions one after another, for ever or once; return how the last one ended.

    A caller that fails makes the next one wait, twice as long each time up to PENALTY_S_MAX: every handshake
    spends key. A second caller at the same time is turned away.
    """
    turn, over = asyncio.Lock(), asyncio.Event()
    last: SessionEnded | None = None
    penalty_s = 0.0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal last, penalty_s
        if turn.locked() or over.is_set():
            writer.close()
            return
        async with turn:
            last = await converse_over(make_session(), reader, writer, report)
            penalty_s = min(PENALTY_S_MAX, max(1.0, 2 * penalty_s)) if last.fault else 0.0
            if once:
                over.set()
            else:
                await asyncio.sleep(penalty_s)

    try:
        server = await asyncio.start_server(serve, host, port)
    except OSError as error:
        raise ConfigurationError(f"{host}:{port}: cannot be listened on: {error.strerror}") from error
    async with server:
        address = server.sockets[0].getsockname()
        listening(address[0], address[1])
        await over.wait()
    return last
