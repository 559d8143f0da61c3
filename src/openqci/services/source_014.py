"""A QKD module behind ETSI GS QKD 014 as a source of link key: its KME, of which this node is an SAE.

Vendors' key managers and the ground terminal of Eagle-1 hand their key over in this way. The end that leads
a link asks for new keys (*Get key*, 5.2), the other end for the same by their IDs (*Get key with key IDs*,
5.3).

A request for new keys whose answer is lost has spent them: it is not repeated, and counted. What a module
says of itself in the extension ``openqci_source`` (protocol, proof, epsilon, simulated) goes before what its
operator has configured, except that key is simulated if either says so (invariant I7).
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from openqci.core.errors import IntegrityError, KeyUnavailable, PeerMisbehaved
from openqci.core.keys import SecretBytes
from openqci.delivery.etsi014_model import KEYS_NOT_FOUND
from openqci.delivery.key_ids import parse_key_id
from openqci.keystore.supply import SourceReport, SuppliedKey
from openqci.services.key_http import KeyHTTPClient

SOURCE_EXTENSION = "openqci_source"

REQUEST_S_MAX = 15.0
ANSWER_BYTES_MAX = 4 << 20
STATUS_KEPT_S = 60.0
NOT_FOUND_TRIES = 4
NOT_FOUND_WAIT_S = 0.25
"""Some modules tell their two ends of a key one after the other: an unknown ID is asked for again."""

KEYS_PER_REQUEST_MAX = 1024


class Source014Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a module's KME and what its operator knows of its key.

    ``url`` is everything before ``/api/v1/keys``; ``peer_sae_id`` the SAE ID of the other KME at its module.
    """

    url: str
    peer_sae_id: str
    kme_id: str | None = None
    report: SourceReport


class ModuleStatus(msgspec.Struct, frozen=True):
    """The part of the module's *Status* (6.1) that decides what is asked of it. Sizes in bits."""

    key_size: int
    max_key_per_request: int
    max_key_size: int
    min_key_size: int
    stored_key_count: int
    status_extension: dict[str, Any] = {}


class Source014:
    """One end of a link whose module speaks ETSI GS QKD 014."""

    def __init__(self, settings: Source014Settings, tls: Callable[[], ssl.SSLContext]) -> None:
        self.answers_lost = 0
        self._settings = settings
        self._path = f"{urlsplit(settings.url).path.rstrip('/')}/api/v1/keys"
        self._module = KeyHTTPClient(
            settings.url,
            tls,
            server_name=settings.kme_id,
            timeout_s=REQUEST_S_MAX,
            body_bytes_max=ANSWER_BYTES_MAX,
        )
        self._status: ModuleStatus | None = None
        self._status_s = 0.0

    async def draw(self, length_bytes_max: int) -> SuppliedKey:
        """Get new keys: as many as the module gives at once and has, in its largest size."""
        status = await self._fresh_status()
        size_bits = min(status.max_key_size, 8 * length_bytes_max)
        size_bits -= size_bits % 8
        if size_bits < status.min_key_size:
            raise PeerMisbehaved(f"the module's smallest key, {status.min_key_size} bits, is too large")
        size_bits = status.key_size if status.stored_key_count < 2 else size_bits
        number = max(
            1, min(status.max_key_per_request, KEYS_PER_REQUEST_MAX, 8 * length_bytes_max // size_bits)
        )
        # A module that has less than that refuses the whole request: ask for what it says it has.
        stored_bits = status.stored_key_count * status.key_size
        number = max(1, min(number, stored_bits // size_bits))
        if stored_bits < size_bits:
            self._status = None
            raise KeyUnavailable(
                "the module has no key now", wanted_bytes=size_bits // 8, available_bytes=stored_bits // 8
            )
        self._status_s -= STATUS_KEPT_S  # what is stored has changed by the next time
        answer = await self._ask("enc_keys", {"number": number, "size": size_bits}, spends=True)
        keys, report = _container(answer, self._settings.report, status)
        with _wiping(keys):
            if not 1 <= len(keys) <= number or any(8 * len(key) != size_bits for key in keys.values()):
                raise PeerMisbehaved(
                    f"asked for {number} keys of {size_bits} bits, got {len(keys)} (ETSI GS QKD 014, 6.3)"
                )
            return SuppliedKey(tuple(keys), SecretBytes.joined(keys.values()), report)

    async def draw_named(self, key_ids: Sequence[str], length_bytes: int) -> tuple[SecretBytes, SourceReport]:
        """Get the keys of these IDs, in this order, in as many requests as the module's limit needs."""
        status = await self._fresh_status()
        step = max(1, min(status.max_key_per_request, KEYS_PER_REQUEST_MAX))
        parts: list[SecretBytes] = []
        try:
            report = self._settings.report
            for at in range(0, len(key_ids), step):
                part, said = await self._named_part(key_ids[at : at + step], status)
                parts.append(part)
                report = said
            whole = SecretBytes.joined(parts)
        finally:
            for part in parts:
                part.wipe()
        if len(whole) != length_bytes:
            whole.wipe()
            raise PeerMisbehaved(f"the module's keys have {len(whole)} bytes, the peer's {length_bytes}")
        return whole, report

    async def describe(self) -> str:
        """Ask the module for its status and say it in words; draws no key."""
        self._status = None
        status = await self._fresh_status()
        return f"{status.stored_key_count} keys of {status.key_size} bits in stock"

    async def close(self) -> None:
        """Close the connection."""
        await self._module.close()

    async def _named_part(
        self, key_ids: Sequence[str], status: ModuleStatus
    ) -> tuple[SecretBytes, SourceReport]:
        body = {"key_IDs": [{"key_ID": key_id} for key_id in key_ids]}
        for tries_left in reversed(range(NOT_FOUND_TRIES)):
            try:
                answer = await self._ask("dec_keys", body)
                break
            except IntegrityError:
                if not tries_left:
                    raise
                await asyncio.sleep(NOT_FOUND_WAIT_S)
        keys, report = _container(answer, self._settings.report, status)
        with _wiping(keys):
            wanted = [parse_key_id(key_id) or key_id for key_id in key_ids]
            if sorted(keys) != sorted(wanted):
                raise PeerMisbehaved(
                    f"asked for {len(wanted)} keys by their IDs, got {len(keys)}, not the same "
                    "(ETSI GS QKD 014, 5.3)"
                )
            return SecretBytes.joined(keys[key_id] for key_id in wanted), report

    async def _fresh_status(self) -> ModuleStatus:
        if self._status is None or time.monotonic() - self._status_s > STATUS_KEPT_S:
            answer = await self._ask("status", None)
            try:
                status = msgspec.json.decode(answer, type=ModuleStatus)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise PeerMisbehaved(f"the module's status is none (ETSI GS QKD 014, 6.1): {error}") from None
            if not 0 < status.min_key_size <= status.key_size <= status.max_key_size:
                raise PeerMisbehaved("the module's key sizes contradict each other (ETSI GS QKD 014, 6.1)")
            self._status, self._status_s = status, time.monotonic()
        return self._status

    async def _ask(self, method: str, body: dict[str, Any] | None, *, spends: bool = False) -> bytearray:
        """Send one request; return the body of a 200. The caller wipes it."""
        target = f"{self._path}/{quote(self._settings.peer_sae_id, safe='')}/{method}"
        try:
            answer = await self._module.request(
                "GET" if body is None else "POST", target, None if body is None else msgspec.json.encode(body)
            )
        except OSError as error:
            self.answers_lost += spends
            reason = str(error) or type(error).__name__
            raise ConnectionError(f"the module at {self._settings.url} cannot be reached: {reason}") from None
        if answer.status == 200:
            return answer.body
        retry_after = answer.headers.get("retry-after", "")
        raise _refusal(answer.status, _message(answer.body), retry_after)


def _refusal(status: int, message: str, retry_after: str) -> Exception:
    if status == 503:
        wait = f", come back after {retry_after} s" if retry_after.isdigit() else ""
        return KeyUnavailable(f"the module says {message!r}{wait}", wanted_bytes=1, available_bytes=0)
    if status == 404 or message == KEYS_NOT_FOUND:
        return IntegrityError(f"the module says {message!r}")
    return PeerMisbehaved(f"the module answers {status} {message!r}")


def _message(content: bytes | bytearray) -> str:
    try:
        document = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "no JSON"
    return str(document.get("message", ""))[:200] if isinstance(document, dict) else ""


class _Key(msgspec.Struct):
    """``key`` is decoded from base64 straight into a buffer that can be wiped."""

    key_ID: str
    key: bytearray

    def __repr__(self) -> str:
        return f"_Key({self.key_ID})"


class _Container(msgspec.Struct):
    keys: list[_Key]
    key_container_extension: dict[str, Any] = {}


def _container(
    content: bytearray, configured: SourceReport, status: ModuleStatus
) -> tuple[dict[str, SecretBytes], SourceReport]:
    """Read a *Key container*; return keys by ID in lower case, in order. Wipes ``content``."""
    keys: dict[str, SecretBytes] = {}
    try:
        container = msgspec.json.decode(content, type=_Container)
        for entry in container.keys:
            key_id = parse_key_id(entry.key_ID) or entry.key_ID
            if key_id in keys:
                raise PeerMisbehaved("the module gives one key ID twice (ETSI GS QKD 014, 6.3)")
            keys[key_id] = SecretBytes.owning(entry.key)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # A decoder's message names the place, never the content.
        raise PeerMisbehaved(f"the module's keys cannot be read (ETSI GS QKD 014, 6.3): {error}") from None
    finally:
        content[:] = bytes(len(content))
    said = [
        status.status_extension.get(SOURCE_EXTENSION),
        container.key_container_extension.get(SOURCE_EXTENSION),
    ]
    return keys, said_report(configured, said)


def said_report(configured: SourceReport, said: Sequence[object]) -> SourceReport:
    """Return what a module says of its key where it says so, else what is configured; the worse of simulated.

    >>> configured = SourceReport("BB84", "stated", 1e-9, False)
    >>> said_report(configured, [{"simulated": True, "epsilon": 1e-10}]).simulated
    True
    """
    report = configured
    for each in said:
        if not isinstance(each, dict):
            continue
        try:
            own = msgspec.convert({**msgspec.structs.asdict(report), **each}, SourceReport)
        except msgspec.ValidationError as error:
            raise PeerMisbehaved(f"the module's {SOURCE_EXTENSION} cannot be read: {error}") from None
        report = msgspec.structs.replace(own, simulated=own.simulated or report.simulated)
    return report


class _wiping:
    """Wipe the keys of a container when the block ends."""

    def __init__(self, keys: dict[str, SecretBytes]) -> None:
        self._keys = keys

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        for key in self._keys.values():
            key.wipe()
