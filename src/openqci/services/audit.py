"""The audit log of a node: who got which key IDs and what else happened, in lines chained by hashes.

Each line is a JSON object with its number, time, event and facts, the hash of the line before it, and its own
hash: SHA-256 over its canonical form. A changed, missing, inserted or moved line breaks the chain; that lines
were cut off at the end shows when a later head is known (``openqci kme status`` tells it, and a monitoring
system keeps it). Key IDs stand here, keys never: nothing that holds key is ever given to :meth:`record`.

A thread of its own writes lines in groups, one ``fsync`` a group, so that recording costs a request almost
nothing. What a crash cuts off are the lines of the last tenth of a second; a half-written line is set
aside, and the chain goes on with an entry that says so. If the disk refuses, lines wait in memory.
"""

import hashlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from openqci.core.errors import ConfigurationError, Fault

log = logging.getLogger(__name__)

FIRST_HASH = "0" * 64
FILE_BYTES_MAX = 64 << 20
GROUP_LINES_MAX = 10_000
GATHER_S = 0.1
"""Lines are gathered for so long: a flush for each would slow down the flushes of the key store."""

WAITING_LINES_MAX = 200_000
RETRY_S = 1.0
LINE_BYTES_MAX = 1 << 20


class AuditEvent(StrEnum):
    """What is written down."""

    STARTED = "node-started"
    STOPPED = "node-stopped"
    KEYS_DELIVERED = "keys-delivered"
    REFUSED = "request-refused"
    PEER_MET = "peer-met"
    PEER_NEW_STORE = "peer-has-new-store"
    PEER_ROLLED_BACK = "peer-has-old-store"
    DEPOSIT_REFUSED = "deposit-refused"
    BATCH_FAILED = "batch-failed"
    KEY_EXPIRED = "key-expired"
    KEY_CROSSED = "key-crossed-border"
    KEYS_LEASED = "keys-leased"
    LEASE_ENDED = "lease-ended"
    LINK_SWITCHED = "link-switched"
    CERTIFICATES_READ = "certificates-read"
    ALARM_RAISED = "alarm-raised"
    ALARM_CLEARED = "alarm-cleared"
    KEYS_RENEWED = "keys-renewed"
    ZEROISED = "zeroised"
    LINE_TORN = "line-torn"
    LINES_LOST = "lines-lost"
    FAULT_INJECTED = "fault-injected"
    FAULT_ENDED = "fault-ended"
    SUSPICION_RULED = "suspicion-ruled"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line. ``facts`` are IDs, counts and reasons; ``actor`` is who caused it, ``role`` in which role."""

    number: int
    at: str
    event: str
    actor: str
    role: str
    facts: dict[str, Any]
    previous: str
    hash: str = ""

    def digest(self) -> str:
        """Return the hash that this line has if nobody changed it."""
        return hashlib.sha256(_encoder.encode(msgspec.structs.replace(self, hash=""))).hexdigest()

    def sealed(self) -> tuple[str, bytes]:
        """Return the hash of an entry that has none yet, and the line with it.

        The hash comes last in a line: what it is made of is written once, and the hash put into its place.
        """
        canonical = _encoder.encode(self)
        digest = hashlib.sha256(canonical).hexdigest()
        return digest, canonical.removesuffix(NO_HASH) + b'"hash":"%b"}\n' % digest.encode()


NO_HASH = b'"hash":""}'
"""How the canonical form of a line ends."""

_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Entry)


class Head(msgspec.Struct, frozen=True):
    """Where the chain ends: number and hash of the last line."""

    number: int
    hash: str


class AuditLog:
    """The log in a folder. ``trouble`` hears why lines cannot be written, and None when they can again."""

    def __init__(self, folder: Path, trouble: Callable[[str | None], None] = lambda reason: None) -> None:
        self.trouble = trouble
        self._folder = folder
        self._lines: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._lost = 0
        self._hurry = threading.Event()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file, self.head, torn = _open_end(folder)
        except OSError as error:
            raise ConfigurationError(
                Fault(str(folder), "", f"cannot be used for the audit log ({error.strerror})")
            ) from None
        self._thread = threading.Thread(target=self._serve, name="audit-log", daemon=True)
        self._thread.start()
        if torn:
            self.record(AuditEvent.LINE_TORN, kept_in=torn)

    def record(self, event: AuditEvent, actor: str = "", role: str = "", **facts: Any) -> None:
        """Write down an event; returns at once."""
        if self._lines.qsize() >= WAITING_LINES_MAX:
            self._lost += 1
            return
        self._lines.put(_Waiting(event, actor, role, facts, time.time()))

    def flush(self) -> "Future[None]":
        """Return a future that ends when all that was recorded until now is on the disk."""
        done: Future[None] = Future()
        self._lines.put(_Waiting(None, "", "", {}, 0.0, done))
        self._hurry.set()
        return done

    def close(self) -> None:
        """Write what waits, as far as the disk takes it, and end."""
        self._lines.put(None)
        self._hurry.set()
        self._thread.join()
        os.close(self._file)

    def _serve(self) -> None:
        closing = False
        while not closing:
            group = [self._lines.get()]
            if group[0] is not None and group[0].done is None:
                self._hurry.wait(GATHER_S)
            self._hurry.clear()
            while len(group) < GROUP_LINES_MAX and not self._lines.empty():
                group.append(self._lines.get_nowait())
            closing = None in group
            self._write([line for line in group if line is not None], give_up=closing)

    def _write(self, group: "list[_Waiting]", *, give_up: bool) -> None:
        """Write a group; while the disk refuses, wait and try again. Lines keep their numbers."""
        lost, self._lost = self._lost, 0
        if lost:
            group.insert(0, _Waiting(AuditEvent.LINES_LOST, "", "", {"lines": lost}, time.time()))
        head, text = self._chained(group)
        troubled = False
        while text:
            end = os.lseek(self._file, 0, os.SEEK_END)
            try:
                _write_all(self._file, text)
                os.fsync(self._file)
                break
            except OSError as error:
                os.ftruncate(self._file, end)
                if not troubled:
                    log.error("the audit log cannot be written: %s", error)
                    self.trouble(f"cannot be written ({error.strerror})")
                troubled = True
                if give_up:
                    return
                time.sleep(RETRY_S)
        if troubled:
            self.trouble(None)
        self.head = head
        for line in group:
            if line.done is not None:
                line.done.set_result(None)
        if os.lseek(self._file, 0, os.SEEK_END) > FILE_BYTES_MAX:
            os.close(self._file)
            self._file = _new_file(self._folder, self.head.number + 1)

    def _chained(self, group: "list[_Waiting]") -> tuple[Head, bytes]:
        """Return the lines of a group, and where the chain ends with them."""
        number, previous, lines = self.head.number, self.head.hash, []
        for waiting in group:
            if waiting.event is None:
                continue
            number += 1
            entry = Entry(
                number=number,
                at=datetime.fromtimestamp(waiting.at_s, UTC).isoformat(timespec="milliseconds"),
                event=waiting.event.value,
                actor=waiting.actor,
                role=waiting.role,
                facts=waiting.facts,
                previous=previous,
            )
            previous, line = entry.sealed()
            lines.append(line)
        return Head(number, previous), b"".join(lines)


class _Waiting(msgspec.Struct, frozen=True):
    event: AuditEvent | None
    actor: str
    role: str
    facts: dict[str, Any]
    at_s: float
    done: "Future[None] | None" = None


class Verdict(msgspec.Struct, frozen=True):
    """What a verification found: ``fault`` is empty if the chain is whole."""

    lines: int
    files: int
    head: Head
    fault: str = ""
    head_known: bool = True


def verify(folder: Path, head: str | None = None) -> Verdict:
    """Follow the chain of a folder from its first line; ``head`` must be the hash of some line in it.

    Raises ConfigurationError if there is no log there.
    """
    number, previous, lines, seen = 0, FIRST_HASH, 0, head is None or head == FIRST_HASH
    files = _files(folder)
    for place, line in _lines(files):
        try:
            entry = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Verdict(lines, len(files), Head(number, previous), f"{place}: is no entry", seen)
        if (entry.number, entry.previous) != (number + 1, previous):
            fault = f"{place}: entry {entry.number} does not follow entry {number}"
            return Verdict(lines, len(files), Head(number, previous), fault, seen)
        if entry.digest() != entry.hash:
            fault = f"{place}: entry {entry.number} was changed"
            return Verdict(lines, len(files), Head(number, previous), fault, seen)
        number, previous, lines = entry.number, entry.hash, lines + 1
        seen = seen or entry.hash == head
    fault = "" if seen else "the entry with the given head is not in the log: its end was cut off"
    return Verdict(lines, len(files), Head(number, previous), fault, seen)


def entries(folder: Path) -> Iterator[Entry]:
    """Return all entries in order; ConfigurationError names a line that is none."""
    for place, line in _lines(_files(folder)):
        try:
            yield _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ConfigurationError(Fault(place, "", "is no entry of an audit log")) from None


def _files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("audit-*.jsonl"))
    if not files:
        raise ConfigurationError(Fault(str(folder), "", "holds no audit log; expected files audit-*.jsonl"))
    return files


def _lines(files: list[Path]) -> Iterator[tuple[str, bytes]]:
    for file in files:
        with file.open("rb") as stream:
            for row, line in enumerate(stream, start=1):
                yield f"{file.name}, line {row}", line


def _open_end(folder: Path) -> tuple[int, Head, str]:
    """Open the newest file for appending, after setting a half-written last line aside."""
    files = sorted(folder.glob("audit-*.jsonl"))
    if not files:
        return _new_file(folder, 1), Head(0, FIRST_HASH), ""
    newest = files[-1]
    torn = _set_torn_line_aside(newest)
    head = Head(0, FIRST_HASH)
    for file in reversed(files):
        last = _last_line(file)
        if last:
            try:
                entry = _decoder.decode(last)
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise ConfigurationError(
                    Fault(
                        str(file), "last line", "is no entry; see `openqci audit verify`, then move it away"
                    )
                ) from None
            head = Head(entry.number, entry.hash)
            break
    return os.open(newest, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC), head, torn


def _set_torn_line_aside(file: Path) -> str:
    content_end = file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(max(0, content_end - LINE_BYTES_MAX))
        tail = stream.read()
    whole = tail.rfind(b"\n") + 1
    if whole == len(tail):
        return ""
    aside = file.with_name(f"{file.stem}-{time.time_ns()}.torn")
    aside.write_bytes(tail[whole:])
    os.truncate(file, content_end - (len(tail) - whole))
    return aside.name


def _last_line(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(max(0, size - LINE_BYTES_MAX))
        lines = stream.read().splitlines()
    return lines[-1] if lines else b""


def _new_file(folder: Path, number: int) -> int:
    file = folder / f"audit-{number:012d}.jsonl"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return descriptor


def _write_all(descriptor: int, text: bytes) -> None:
    with memoryview(text) as rest:
        written = 0
        while written < len(rest):
            written += os.write(descriptor, rest[written:])
