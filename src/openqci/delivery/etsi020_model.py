"""The data model of ETSI GS QKD 020 V1.1.1: what KMEs of two networks write to each other, parsed and built.

Keys pass here in clear, between two KMEs inside one protected site. The names differ from those of
ETSI GS QKD 014 (``key_id`` and ``value``, one object of extensions instead of an array). Extensions are kept
as the bytes that came, so that what this KME does not know goes on unchanged.

Every fault is a RequestRefused whose message is the title of the standard's problem type and whose details
are its ``details``: :func:`problem_body` writes it. Partners that run a draft of 2024 or 2025 say some things
otherwise; ``draft`` reads and writes it their way (``docs/reference/etsi-020.md`` lists the differences).
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import msgspec

from openqci.core.errors import ConfigurationError, RequestRefused
from openqci.core.identifiers import KeyId, SaeId
from openqci.core.keys import SecretBytes
from openqci.delivery import strict_json
from openqci.delivery.directory import parse_sae_id
from openqci.delivery.key_ids import parse_key_id

VERSION = "v1"
SYNCHRONOUS = "synchronous_mode"
VERSIONS_PATH = "/kmapi/versions"
KEYS_PATH = "/kmapi/v1/ext_keys"
ACK_PATH = "/kmapi/v1/ext_keys/ack"
VOID_PATH = "/kmapi/v1/ext_keys/void"
DRAFT_VERSIONS_PATH = "/kmapi/v1/versions"

PROBLEM_BASE = "https://qkd.etsi.org/gs020-interop-kms/"
INVALID = "invalid parameter"
MISSING = "missing parameters"
ROUTING = "key routing error"
UNAUTHORISED = "unauthorized"
SERVER_SIDE = "server side general error"
INSUFFICIENT = "insufficient key material"
UNSUPPORTED = "unsupported mandatory extension"
TIMEOUT = "timeout"
NOT_PRESENT = "key not present"
ACK_NOT_UNDERSTOOD = "ack not understood"
VOID_NOT_UNDERSTOOD = "void request not understood"
NO_CONFIRMATION = "no key ids or confirmation"
"""Titles of the standard's problem types; the type is the title with hyphens."""

KEYS_PER_REQUEST_MAX = 128
VALUE_BYTES_MAX = 64 * 1024 + 48
"""The longest value: a batch of 64 KiB with the seed of its key IDs and its confirmation key."""

BODY_BYTES_MAX = 1024 * 1024
ACK_CONTAINERS_MAX = 1024
ACK_KEYS_MAX = 1024
MESSAGE_CHARACTERS_MAX = 4096
EXTENSIONS_MAX = 1024
EXTENSION_DEPTH_MAX = 64
URL_CHARACTERS_MAX = 1024
TARGETS_PARSED_MAX = 1024
"""Bounds of the standard where it has one; it sets none on keys, values and targets."""

Form = TypeVar("Form")

_EXTENSION_PREFIX = re.compile(r"E[0-9]{1,10}_", re.ASCII)


class AckStatus(StrEnum):
    """What became of a key."""

    RELAYED = "relayed"
    FAILED = "failed"
    VOIDED = "voided"
    FAILED_TO_VOID = "failed to void"
    NOT_PRESENT = "key not present"


class TransferKey(msgspec.Struct, frozen=True):
    """One key that changes hands. ``extension`` is JSON as it came, empty if there is none."""

    key_id: KeyId
    value: SecretBytes
    extension: bytes = b""


class ExtKeyContainer(msgspec.Struct, frozen=True):
    """A request to pass keys on; without a ``callback_url`` it is synchronous.

    ``mandatory`` names the extensions that shall be handled; ``optional`` is JSON as it came.
    """

    keys: tuple[TransferKey, ...]
    initiator: SaeId
    targets: tuple[SaeId, ...]
    callback_url: str = ""
    mandatory: tuple[str, ...] = ()
    optional: bytes = b""

    def wipe(self) -> None:
        """Forget the key bytes."""
        for key in self.keys:
            key.value.wipe()


class AckKey(msgspec.Struct, frozen=True):
    """One acknowledged key, with JSON of its extension as it came."""

    key_id: KeyId
    extension: bytes = b""


class AckContainer(msgspec.Struct, frozen=True):
    """What became of keys that share a status and their applications."""

    keys: tuple[AckKey, ...]
    status: AckStatus
    initiator: SaeId
    targets: tuple[SaeId, ...]
    message: str = ""
    extension: bytes = b""


class VoidContainer(msgspec.Struct, frozen=True):
    """A request not to deliver keys; no key IDs mean all keys of the association."""

    key_ids: tuple[KeyId, ...]
    initiator: SaeId
    targets: tuple[SaeId, ...]
    callback_url: str = ""
    extension: bytes = b""


# What comes in


def ext_keys_from_body(body: bytes, *, draft: bool = False) -> ExtKeyContainer:
    """Read a request to pass keys on; RequestRefused with status 400 for what is none."""
    members = _object(_document(body, INVALID, "body"), INVALID, "body")
    _require(members, ("keys", "initiator_sae_id", "target_sae_ids"))
    entries = members["keys"]
    if not isinstance(entries, list) or not entries:
        _invalid("keys", "shall be an array of at least one object")
    if len(entries) > KEYS_PER_REQUEST_MAX:
        _invalid("keys", f"shall have at most {KEYS_PER_REQUEST_MAX} elements at this KME")
    key_ids = [_key_id(_key_members(entry).get("key_id"), "keys") for entry in entries]
    if len(set(key_ids)) < len(key_ids):
        _invalid("keys", "shall not hold a key_id twice")
    initiator, targets = _association(members)
    for name in ("extension_mandatory", "extension_optional"):
        _check_extension(members, name, draft)
    for entry in entries:
        _check_extension(entry, "extension", draft)
    callback_url, raw = _callback_url(members), _as_it_came(body, _RawContainer)
    values = [_value(entry["value"]) for entry in entries]
    keys = tuple(
        TransferKey(key_id, value, _bytes(entry.extension))
        for key_id, value, entry in zip(key_ids, values, raw.keys, strict=True)
    )
    return ExtKeyContainer(
        keys,
        initiator,
        targets,
        callback_url,
        tuple(map(_printable, members.get("extension_mandatory") or ())),
        _bytes(raw.extension_optional),
    )


def acks_from_body(body: bytes, *, draft: bool = False) -> tuple[AckContainer, ...]:
    """Read acknowledgements; RequestRefused with status 400 for what is none."""
    entries = _document(body, ACK_NOT_UNDERSTOOD, "ack_not_understood")
    if draft and isinstance(entries, dict):
        entries, body = [entries], b"[" + body + b"]"
    if not isinstance(entries, list) or len(entries) > ACK_CONTAINERS_MAX:
        _not_understood(f"shall be an array of at most {ACK_CONTAINERS_MAX} containers")
    raw = _raw_acks(body)
    return tuple(_ack(entry, own, draft) for entry, own in zip(entries, raw, strict=True))


def void_from_body(body: bytes, *, draft: bool = False) -> VoidContainer:
    """Read a request to void keys; RequestRefused with status 400 for what is none."""
    members = _object(_document(body, VOID_NOT_UNDERSTOOD, "key_voiding_error"), VOID_NOT_UNDERSTOOD, "body")
    if draft and "keys" in members:
        members["key_ids"] = [_plain_id(entry) for entry in _list(members["keys"], "keys")]
    _require(members, ("key_ids", "initiator_sae_id", "target_sae_ids"))
    named = members["key_ids"]
    if not isinstance(named, list) or len(named) > ACK_KEYS_MAX:
        _invalid("key_ids", f"shall be an array of at most {ACK_KEYS_MAX} UUIDs")
    key_ids = tuple(_key_id(each, "key_ids") for each in named)
    if not key_ids and members.get("all_confirmation") is not True:
        text = "without key_ids all keys of the SAEs are voided: set all_confirmation to true to mean that"
        # The standard's prose and its example name this detail differently; a reader finds either.
        names: dict[str, object] = {"no_all_confirmation": text, "no_key_ids_or_confirmation": text}
        raise RequestRefused(400, NO_CONFIRMATION, (names,))
    initiator, targets = _association(members)
    _check_extension(members, "extension", draft)
    extension = _bytes(_as_it_came(body, _RawEntry).extension)
    return VoidContainer(key_ids, initiator, targets, _callback_url(members), extension)


def versions_from_body(body: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """Return (versions, capabilities) of a partner; RequestRefused if it says no such thing."""
    members = _object(_document(body, INVALID, "body"), INVALID, "body")
    versions, capabilities = members.get("versions"), members.get("capabilities", [])
    if not isinstance(versions, list) or not isinstance(capabilities, list):
        _invalid("versions", "shall be an array of strings")
    return frozenset(map(str, versions)), frozenset(map(str, capabilities))


# What goes out


def ext_keys_body(container: ExtKeyContainer) -> bytes:
    """Write a request to pass keys on; it holds key in clear, and goes to the partner alone."""
    return msgspec.json.encode(
        _OutContainer(
            keys=tuple(
                _OutKey(key.key_id, key.value.reveal(), _raw(key.extension)) for key in container.keys
            ),
            initiator_sae_id=container.initiator,
            target_sae_ids=container.targets,
            ack_callback_url=container.callback_url or msgspec.UNSET,
            extension_optional=_raw(container.optional),
        )
    )


def acks_body(containers: Sequence[AckContainer], *, draft: bool = False) -> bytes:
    """Write acknowledgements; to a draft's reader one container per target, with its four statuses."""
    if draft:
        return msgspec.json.encode([own for each in containers for own in _draft_acks(each)])
    return msgspec.json.encode(
        [
            _OutAck(
                tuple(_OutAckKey(key.key_id, _raw(key.extension)) for key in each.keys),
                each.status,
                each.initiator,
                each.targets,
                each.message or msgspec.UNSET,
                _raw(each.extension),
            )
            for each in containers
        ]
    )


def void_body(container: VoidContainer, *, draft: bool = False) -> bytes:
    """Write a request to void keys."""
    document: dict[str, Any] = {
        "initiator_sae_id": container.initiator,
        "target_sae_ids": container.targets,
    }
    if draft:
        document["keys"] = [{"key_id": key_id} for key_id in container.key_ids]
    else:
        document["key_ids"] = container.key_ids
    if not container.key_ids:
        document["all_confirmation"] = True
    if container.callback_url:
        document["ack_callback_url"] = container.callback_url
    if container.extension:
        document["extension"] = msgspec.Raw(container.extension)
    return msgspec.json.encode(document)


def versions_body(*, synchronous: bool) -> bytes:
    """Write which versions and capabilities this KME has."""
    document: dict[str, Any] = {"versions": [VERSION]}
    if synchronous:
        document["capabilities"] = [SYNCHRONOUS]
    return msgspec.json.encode(document)


def problem_body(refused: RequestRefused, *, draft: bool = False) -> bytes:
    """Write a refusal as the standard's problem document (RFC 9457, with ``details``)."""
    details = {name: str(value) for each in refused.details for name, value in each.items()}
    if draft:
        return msgspec.json.encode({"message": refused.message, "details": list(refused.details)})
    return msgspec.json.encode(
        {
            "type": PROBLEM_BASE + refused.message.replace(" ", "-"),
            "status": refused.status,
            "title": refused.message,
            "details": details or {refused.message.replace(" ", "_"): refused.message},
        }
    )


def refused(status: int, title: str, name: str, text: str) -> RequestRefused:
    """Return a refusal with one detail."""
    return RequestRefused(status, title, ({name: text},))


def problem_in(body: bytes) -> str:
    """Return in one short line what a partner's problem document says, for a log."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "an answer that is no JSON"
    if not isinstance(document, dict):
        return "an answer that is no problem document"
    title = document.get("title") or document.get("message") or document.get("type") or "no title"
    return f"{title}: {document.get('details') or document.get('detail') or ''}"[:300]


# Extensions


def extension_names(extension: bytes) -> tuple[str, ...]:
    """Return the names of an object of extensions."""
    return tuple(msgspec.json.decode(extension, type=dict[str, msgspec.Raw])) if extension else ()


def extension_member(extension: bytes, name: str) -> bytes | None:
    """Return one extension's value, as JSON, or None."""
    if not extension:
        return None
    found = msgspec.json.decode(extension, type=dict[str, msgspec.Raw]).get(name)
    return bytes(found) if found is not None else None


def with_extension(extension: bytes, name: str, value: object) -> bytes:
    """Return an object of extensions with one set; the values of the others keep their bytes."""
    members: dict[str, Any] = msgspec.json.decode(extension, type=dict[str, msgspec.Raw]) if extension else {}
    return msgspec.json.encode({**members, name: value})


# Inside


class _RawEntry(msgspec.Struct):
    extension: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _RawContainer(msgspec.Struct):
    keys: list[_RawEntry]
    extension_optional: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _RawAck(msgspec.Struct):
    key_id_container: list[_RawEntry] = []
    extension: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _OutKey(msgspec.Struct):
    key_id: str
    value: bytearray
    extension: msgspec.Raw | msgspec.UnsetType


class _OutContainer(msgspec.Struct):
    keys: tuple[_OutKey, ...]
    initiator_sae_id: str
    target_sae_ids: tuple[str, ...]
    ack_callback_url: str | msgspec.UnsetType
    extension_optional: msgspec.Raw | msgspec.UnsetType


class _OutAckKey(msgspec.Struct):
    key_id: str
    extension: msgspec.Raw | msgspec.UnsetType


class _OutAck(msgspec.Struct):
    key_id_container: tuple[_OutAckKey, ...]
    ack_status: AckStatus
    initiator_sae_id: str
    target_sae_ids: tuple[str, ...]
    message: str | msgspec.UnsetType
    extension: msgspec.Raw | msgspec.UnsetType


def _raw(extension: bytes) -> msgspec.Raw | msgspec.UnsetType:
    return msgspec.Raw(extension) if extension else msgspec.UNSET


def _bytes(raw: msgspec.Raw | msgspec.UnsetType) -> bytes:
    return bytes(raw) if isinstance(raw, msgspec.Raw) else b""


def _document(body: bytes, title: str, name: str) -> Any:
    try:
        return strict_json.document(body)
    except RequestRefused as fault:
        raise refused(400, title, name, fault.message) from None


def _object(document: Any, title: str, name: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise refused(400, title, name, "the body shall be a JSON object")
    return document


def _require(members: dict[str, Any], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in members]
    if missing:
        raise refused(400, MISSING, "missing_parameters", f"required and not there: {', '.join(missing)}")


def _invalid(name: str, text: str) -> NoReturn:
    raise refused(400, INVALID, name, text)


def _not_understood(text: str) -> NoReturn:
    raise refused(400, ACK_NOT_UNDERSTOOD, "ack_not_understood", text)


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        _invalid(name, "shall be an array")
    return value


def _key_members(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        _invalid("keys", "each element shall be an object")
    _require(entry, ("key_id", "value"))
    return entry


def _key_id(value: Any, name: str) -> KeyId:
    key_id = parse_key_id(value) if isinstance(value, str) else None
    if key_id is None:
        _invalid(name, "a key_id shall be a UUID")
    return key_id


def _value(text: Any) -> SecretBytes:
    """Decode a value; padding and padding bits are none of the key, and shall be what RFC 4648 says."""
    if not isinstance(text, str) or not text:
        _invalid("value", "shall be base64 of at least one byte")
    if len(text) > VALUE_BYTES_MAX * 4 // 3 + 4:
        _invalid("value", f"shall have at most {VALUE_BYTES_MAX} bytes at this KME")
    try:
        decoded: bytearray = msgspec.json.decode(msgspec.json.encode(text), type=bytearray)
    except msgspec.DecodeError:
        decoded = bytearray()
    tail = decoded[(len(decoded) - 1) // 3 * 3 :]
    if not decoded or b64encode(tail).decode() != text[-4:]:
        _invalid("value", "shall be base64 (RFC 4648) with its padding, and zeros as padding bits")
    if len(decoded) > VALUE_BYTES_MAX:
        _invalid("value", f"shall have at most {VALUE_BYTES_MAX} bytes at this KME")
    value = SecretBytes(decoded)
    decoded[:] = bytes(len(decoded))
    return value


def _association(members: dict[str, Any]) -> tuple[SaeId, tuple[SaeId, ...]]:
    initiator = _sae_id(members["initiator_sae_id"], "initiator_sae_id")
    named = members["target_sae_ids"]
    if not isinstance(named, list) or not 0 < len(named) <= TARGETS_PARSED_MAX:
        _invalid("target_sae_ids", f"shall be an array of 1 to {TARGETS_PARSED_MAX} SAE IDs")
    targets = tuple(_sae_id(each, "target_sae_ids") for each in named)
    if len({initiator, *targets}) <= len(targets):
        _invalid("target_sae_ids", "shall not name an SAE twice, nor the initiator")
    return initiator, targets


def _sae_id(value: Any, name: str) -> SaeId:
    try:
        return parse_sae_id(value if isinstance(value, str) else "")
    except ConfigurationError:
        _invalid(name, "an SAE ID has 1 to 64 characters, each of those that a URI may have (RFC 3986)")


def _callback_url(members: dict[str, Any]) -> str:
    url = members.get("ack_callback_url")
    if url is None:
        return ""
    if not isinstance(url, str) or len(url) > URL_CHARACTERS_MAX or _split_url(url) is None:
        _invalid("ack_callback_url", f"shall be an https URL of at most {URL_CHARACTERS_MAX} characters")
    return url


def _split_url(url: str) -> tuple[str, int, str] | None:
    """Return (host, port, path) of a plain https URL: without a user, a query and a fragment."""
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        return None
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    if parts.scheme.lower() != "https" or not parts.hostname or not plain or not url.isascii():
        return None
    return parts.hostname.lower(), port, parts.path or "/"


def is_allowed(url: str, allowed: Iterable[str]) -> bool:
    """Tell whether a URL is one of those allowed, or lies below one of them that ends with a slash.

    >>> is_allowed("https://kme.example/kmapi/v1/ext_keys/ack", ["https://kme.example/"])
    True
    >>> is_allowed("https://kme.example:8443/", ["https://kme.example/"])
    False
    """
    wanted = _split_url(url)
    if wanted is None or ".." in wanted[2]:
        return False
    for each in allowed:
        known = _split_url(each)
        if known is None or known[:2] != wanted[:2]:
            continue
        if known[2] == wanted[2] or (known[2].endswith("/") and wanted[2].startswith(known[2])):
            return True
    return False


def _check_extension(members: dict[str, Any], name: str, draft: bool) -> None:
    """Check an object of extensions, if there is one: 1 to 1,024, each with its vendor prefix."""
    if name not in members:
        return
    extension = members[name]
    if not isinstance(extension, dict) or not 0 < len(extension) <= EXTENSIONS_MAX:
        _invalid(name, f"shall be an object of 1 to {EXTENSIONS_MAX} properties")
    if not draft and not all(_EXTENSION_PREFIX.match(each) for each in extension):
        _invalid(name, "each name shall begin with E, a Private Enterprise Number and an underscore")
    if _depth(extension) > EXTENSION_DEPTH_MAX:
        _invalid(name, f"shall be nested no deeper than {EXTENSION_DEPTH_MAX} levels at this KME")


def _depth(document: Any) -> int:
    """Return how deeply a JSON document is nested."""
    depth, level = 0, [document]
    while level:
        depth += 1
        inner = [each for each in level if isinstance(each, dict | list)]
        level = [part for each in inner for part in (each.values() if isinstance(each, dict) else each)]
    return depth


def _as_it_came(body: bytes, form: type[Form]) -> Form:
    """Read extensions as the bytes that came."""
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _invalid("extension", "shall be JSON that is nested less deeply, in text that is Unicode")


def _raw_acks(body: bytes) -> list[_RawAck]:
    try:
        return msgspec.json.decode(body, type=list[_RawAck])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _not_understood("each container shall be an object, its key_id_container an array of objects")


def _printable(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def _ack(entry: dict[str, Any], raw: _RawAck, draft: bool) -> AckContainer:
    if draft:
        entry = _from_draft(entry)
    missing = [
        name
        for name in ("key_id_container", "ack_status", "initiator_sae_id", "target_sae_ids")
        if name not in entry
    ]
    if missing:
        _not_understood(f"required and not there: {', '.join(missing)}")
    named = entry["key_id_container"]
    if not isinstance(named, list) or not 0 < len(named) <= ACK_KEYS_MAX:
        _not_understood(f"key_id_container shall be an array of 1 to {ACK_KEYS_MAX} objects")
    extensions = [_bytes(each.extension) for each in raw.key_id_container] or [b""] * len(named)
    try:
        status = AckStatus(entry["ack_status"])
        key_ids = [_key_id(_plain_id(each), "key_id_container") for each in named]
        initiator, targets = _association(entry)
        for each in named:
            _check_extension(each if isinstance(each, dict) else {}, "extension", draft)
        _check_extension(entry, "extension", draft)
    except ValueError:
        _not_understood("ack_status shall be one of the five of the standard")
    except RequestRefused as fault:
        _not_understood("; ".join(f"{name} {text}" for each in fault.details for name, text in each.items()))
    message = entry.get("message", "")
    if not isinstance(message, str) or len(message) > MESSAGE_CHARACTERS_MAX:
        _not_understood(f"message shall be a string of at most {MESSAGE_CHARACTERS_MAX} characters")
    keys = tuple(AckKey(*each) for each in zip(key_ids, extensions, strict=True))
    return AckContainer(keys, status, initiator, targets, _printable(message), _bytes(raw.extension))


def _from_draft(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an acknowledgement of a draft in the words of the standard."""
    said = dict(entry)
    if "key_ids" in said:
        said.setdefault("key_id_container", said["key_ids"])
    if "target_sae_id" in said:
        said.setdefault("target_sae_ids", [said["target_sae_id"]])
    return said


def _plain_id(entry: Any) -> Any:
    """Return the UUID of an element that is one, or that is an object with one."""
    return entry.get("key_id") if isinstance(entry, dict) else entry


def _draft_acks(container: AckContainer) -> list[dict[str, Any]]:
    status = AckStatus.FAILED if container.status is AckStatus.NOT_PRESENT else container.status
    return [
        {
            "key_ids": [{"key_id": key.key_id} for key in container.keys],
            "ack_status": status,
            "initiator_sae_id": container.initiator,
            "target_sae_id": target,
            "message": container.message,
        }
        for target in container.targets
    ]
