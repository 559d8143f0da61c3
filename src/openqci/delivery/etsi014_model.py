"""The data model of ETSI GS QKD 014 V1.1.1, clause 6: what comes in is parsed, what goes out has a Struct.

Parsing is strict where the standard gives a type (a number is a JSON integer, not ``"1"``, ``1.0`` or
``true``) and where two readers could understand different things (members that occur twice, text after the
document); members it does not know are ignored. Every fault is a RequestRefused with status 400.
"""

import json
import re
from typing import Any, NoReturn
from urllib.parse import parse_qsl

import msgspec

from openqci.core.errors import RequestRefused
from openqci.core.identifiers import KeyId
from openqci.core.provenance import Provenance
from openqci.delivery.key_ids import parse_key_id

KEY_SIZE_BITS = 256
KEY_SIZE_BITS_MIN = 64
KEY_SIZE_BITS_MAX = 4096
KEYS_PER_REQUEST_MAX = 128
SAE_ID_COUNT_MAX = 0
"""Additional slaves per key: none, multicast is not supported."""

PROVENANCE_EXTENSION = "openqci_provenance"
"""Name of the extension by which an SAE asks where its keys came from; its value is ``true`` or ``{}``."""

SIZE_NOT_MULTIPLE_OF_8 = "size shall be a multiple of 8"
MANDATORY_NOT_SUPPORTED = "not all extension_mandatory parameters are supported"
MANDATORY_NOT_MET = "not all extension_mandatory request options could be met"
OPTIONAL_NOT_HANDLED = "not all extension_optional request options handled"
"""Fixed by the standard, which leaves its use to the KME; this one ignores such options and answers 200."""
KEYS_NOT_FOUND = "one or more keys specified are not found on KME"

_QUERY_FIELDS_MAX = 16
_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)


class Status(msgspec.Struct, frozen=True):
    """Answer of *Get status* (6.1). Sizes in bits."""

    source_KME_ID: str
    target_KME_ID: str
    master_SAE_ID: str
    slave_SAE_ID: str
    key_size: int
    stored_key_count: int
    max_key_count: int
    max_key_per_request: int
    max_key_size: int
    min_key_size: int
    max_SAE_ID_count: int
    status_extension: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class KeyRequest(msgspec.Struct, frozen=True):
    """*Key request* (6.2) after parsing."""

    number: int = 1
    size_bits: int = KEY_SIZE_BITS
    with_provenance: bool = False


class KeyIdsRequest(msgspec.Struct, frozen=True):
    """*Key IDs* (6.4) after parsing: IDs in lower case and in the order of the request."""

    key_ids: tuple[KeyId, ...]
    with_provenance: bool = False


class Key(msgspec.Struct, frozen=True, omit_defaults=True):
    """One key of a *Key container*; ``key`` is written in base64 and never shown."""

    key_ID: KeyId
    key: bytearray
    key_extension: dict[str, Provenance] | None = None

    def __repr__(self) -> str:
        return f"Key({self.key_ID}, {len(self.key)} bytes)"


class KeyContainer(msgspec.Struct, frozen=True, omit_defaults=True):
    """*Key container* (6.3)."""

    keys: tuple[Key, ...]
    key_container_extension: dict[str, Provenance] | None = None


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """*Error* (6.5)."""

    message: str
    details: tuple[dict[str, object], ...] = ()


def error_body(error: RequestRefused) -> bytes:
    """Return the Error document of a refusal."""
    return msgspec.json.encode(ErrorBody(error.message, error.details))


def key_request_from_query(query: str) -> KeyRequest:
    """Read *Get key* in its GET form: ``number`` and ``size`` at most (5.2)."""
    fields = _query_fields(query, once=("number", "size"))
    for name in ("additional_slave_SAE_IDs", "extension_mandatory", "extension_optional"):
        if name in fields:
            _refuse(f"{name} shall be sent by POST")
    return KeyRequest(
        number=_number(_integer_from_text(fields, "number", 1)),
        size_bits=_size_bits(_integer_from_text(fields, "size", KEY_SIZE_BITS)),
    )


def key_request_from_body(body: bytes) -> KeyRequest:
    """Read *Get key* in its POST form; an empty body asks for one key of the default size."""
    members = _json_object(body) if body else {}
    mandatory = _extensions(members, "extension_mandatory")
    optional = _extensions(members, "extension_optional")
    _check_mandatory(mandatory)
    _check_additional_slaves(members.get("additional_slave_SAE_IDs", []))
    return KeyRequest(
        number=_number(members.get("number", 1)),
        size_bits=_size_bits(members.get("size", KEY_SIZE_BITS)),
        with_provenance=any(_asks_for_provenance(extension) for extension in (mandatory, optional)),
    )


def key_ids_from_query(query: str) -> KeyIdsRequest:
    """Read *Get key with key IDs* in its GET form: exactly one ``key_ID`` (5.3)."""
    fields = _query_fields(query, once=("key_ID",))
    if "key_ID" not in fields:
        _refuse("key_ID is missing")
    return KeyIdsRequest((_key_id(fields["key_ID"]),))


def key_ids_from_body(body: bytes) -> KeyIdsRequest:
    """Read *Get key with key IDs* in its POST form."""
    members = _json_object(body)
    entries = members.get("key_IDs")
    if not isinstance(entries, list) or not entries:
        _refuse("key_IDs shall be an array of at least one object")
    if len(entries) > KEYS_PER_REQUEST_MAX:
        _refuse(f"key_IDs shall have at most {KEYS_PER_REQUEST_MAX} elements")
    key_ids = tuple(_key_id_of_entry(entry) for entry in entries)
    if len(set(key_ids)) < len(key_ids):
        _refuse("key_IDs shall not name a key twice")
    extension = members.get("key_IDs_extension", {})
    if not isinstance(extension, dict):
        _refuse("key_IDs_extension shall be an object")
    return KeyIdsRequest(key_ids, with_provenance=_asks_for_provenance(extension))


def _refuse(message: str) -> NoReturn:
    raise RequestRefused(400, message)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(
            body.decode("utf-8"), object_pairs_hook=_unique_members, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError):
        # The parser's own message may quote the body, which a log should not hold.
        raise RequestRefused(400, "the body is not a JSON document") from None
    if not isinstance(document, dict):
        _refuse("the body shall be a JSON object")
    return document


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        _refuse("a member occurs twice in a JSON object")
    return members


def _refuse_constant(_: str) -> NoReturn:
    _refuse("NaN and Infinity are not JSON")


def _query_fields(query: str, once: tuple[str, ...]) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_QUERY_FIELDS_MAX)
    except ValueError:
        raise RequestRefused(400, "the query is not valid") from None
    names = [name for name, _ in pairs]
    for name in once:
        if names.count(name) > 1:
            _refuse(f"{name} occurs twice in the query; more than one shall be sent by POST")
    return dict(pairs)


def _integer_from_text(fields: dict[str, str], name: str, default: int) -> int:
    text = fields.get(name)
    if text is None:
        return default
    if not _DIGITS.fullmatch(text):
        _refuse(f"{name} shall be a whole number")
    return int(text)


def _number(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= KEYS_PER_REQUEST_MAX:
        _refuse(f"number shall be an integer from 1 to {KEYS_PER_REQUEST_MAX}")
    return int(value)


def _size_bits(value: Any) -> int:
    if type(value) is int and value > 0 and value % 8:
        _refuse(SIZE_NOT_MULTIPLE_OF_8)
    if type(value) is not int or not KEY_SIZE_BITS_MIN <= value <= KEY_SIZE_BITS_MAX:
        _refuse(f"size shall be an integer from {KEY_SIZE_BITS_MIN} to {KEY_SIZE_BITS_MAX} (bits)")
    return int(value)


def _check_additional_slaves(value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(sae, str) for sae in value):
        _refuse("additional_slave_SAE_IDs shall be an array of strings")
    if len(value) > SAE_ID_COUNT_MAX:
        _refuse("additional_slave_SAE_IDs are not supported: max_SAE_ID_count is 0")


def _extensions(members: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the name/value pairs of an array of objects."""
    entries = members.get(name, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        _refuse(f"{name} shall be an array of objects")
    return {key: value for entry in entries for key, value in entry.items()}


def _check_mandatory(extensions: dict[str, Any]) -> None:
    if set(extensions) - {PROVENANCE_EXTENSION}:
        _refuse(MANDATORY_NOT_SUPPORTED)
    if extensions and not _asks_for_provenance(extensions):
        _refuse(MANDATORY_NOT_MET)


def _asks_for_provenance(extensions: dict[str, Any]) -> bool:
    wanted = extensions.get(PROVENANCE_EXTENSION, False)
    return wanted is True or wanted == {}


def _key_id_of_entry(entry: Any) -> KeyId:
    if not isinstance(entry, dict) or not isinstance(entry.get("key_ID"), str):
        _refuse("each element of key_IDs shall be an object with a string key_ID")
    return _key_id(entry["key_ID"])


def _key_id(text: str) -> KeyId:
    key_id = parse_key_id(text)
    if key_id is None:
        _refuse("key_ID shall be a UUID")
    return key_id
