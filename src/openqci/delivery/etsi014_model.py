"""The data model of ETSI GS QKD 014 V1.1.1, clause 6: what comes in is parsed, what goes out has a Struct.

Parsing is strict where the standard gives a type (a number is a JSON integer, not ``"1"``, ``1.0`` or
``true``) and where two readers could understand different things (members that occur twice, text after the
document); members it does not know are ignored, unless the :class:`Profile` is strict. Every fault is a
RequestRefused with status 400.
"""

import re
from collections.abc import Collection, Iterable
from typing import Any, Literal, NoReturn
from urllib.parse import parse_qsl

import msgspec

from openqci.core.errors import RequestRefused
from openqci.core.identifiers import KeyId, SaeId
from openqci.core.provenance import Provenance
from openqci.delivery import strict_json
from openqci.delivery.key_ids import parse_key_id

KEY_SIZE_BITS = 256
KEY_SIZE_BITS_MIN = 64
KEY_SIZE_BITS_MAX = 4096
KEYS_PER_REQUEST_MAX = 128

PROVENANCE_EXTENSION = "openqci_provenance"
"""Name of the extension by which an SAE asks where its keys came from; its value is ``true`` or ``{}``."""

LEASE_EXTENSION = "openqci_lease"
"""Name of the extension by which an SAE draws keys of a lease (:mod:`openqci.delivery.leases`), by its ID."""

LEASE_TTL_S = 60
"""How long a lease lasts if nothing else is asked for."""

MAX_AGE_EXTENSION = "openqci_max_age_s"
MAX_HOPS_EXTENSION = "openqci_max_hops"
MAX_EPSILON_EXTENSION = "openqci_max_epsilon"
MIN_PATHS_EXTENSION = "openqci_min_paths"
AVOID_EXTENSION = "openqci_avoid"
REQUIRE_EXTENSION = "openqci_require"
"""What an SAE demands of its keys: how long ago they were agreed on, over how many hops, with what epsilon,
shared over how many disjoint ways, not by way of these sites, links or domains, and with these properties
(:data:`PROPERTIES`)."""

PROPERTIES = frozenset({"not_simulated", "hybrid", "no_computational"})

SIZE_NOT_MULTIPLE_OF_8 = "size shall be a multiple of 8"
MANDATORY_NOT_SUPPORTED = "not all extension_mandatory parameters are supported"
MANDATORY_NOT_MET = "not all extension_mandatory request options could be met"
OPTIONAL_NOT_HANDLED = "not all extension_optional request options handled"
"""Fixed by the standard, which leaves its use to the KME: see ``Profile.optional_unhandled``."""
KEYS_NOT_FOUND = "one or more keys specified are not found on KME"

_QUANTITIES: dict[str, tuple[str, tuple[type, ...]]] = {
    MAX_AGE_EXTENSION: ("max_age_s", (int, float)),
    MAX_HOPS_EXTENSION: ("max_hops", (int,)),
    MAX_EPSILON_EXTENSION: ("max_epsilon", (int, float)),
    MIN_PATHS_EXTENSION: ("min_paths", (int,)),
}
_EXTENSIONS = frozenset({PROVENANCE_EXTENSION, AVOID_EXTENSION, REQUIRE_EXTENSION, *_QUANTITIES})
_LEASE_MEMBERS = frozenset({"ttl_s"})
_KEY_REQUEST_MEMBERS = frozenset(
    {"number", "size", "additional_slave_SAE_IDs", "extension_mandatory", "extension_optional"}
)
_QUERY_FIELDS_MAX = 16
_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What the standard leaves to a KME, and switches for applications that were built for another one.

    ``additional_slaves_max`` is *max_SAE_ID_count*: 0 means no multicast. The two statuses are what other
    key managers answer in place of the standard's 400 and 503. ``optional_unhandled`` says what becomes of
    an optional extension that is unknown or cannot be met: nothing, or a refusal. A ``strict`` KME refuses
    members that it does not know. A KME with no ``leases_per_sae_max`` offers no leases.
    """

    key_size_bits: int = KEY_SIZE_BITS
    key_size_bits_min: int = KEY_SIZE_BITS_MIN
    key_size_bits_max: int = KEY_SIZE_BITS_MAX
    keys_per_request_max: int = KEYS_PER_REQUEST_MAX
    additional_slaves_max: int = 0
    unknown_key_status: Literal[400, 404] = 400
    insufficient_status: Literal[503, 400, 404] = 503
    optional_unhandled: Literal["ignore", "refuse"] = "ignore"
    strict: bool = False
    leases_per_sae_max: int = 0
    lease_keys_max: int = 1024
    lease_ttl_s_max: int = 900


STANDARD = Profile()


class KeyDemands(msgspec.Struct, frozen=True, kw_only=True):
    """What keys shall be like; a member that is None or empty demands nothing.

    ``min_paths`` is how many disjoint ways' nodes would have to work together to know the key.
    """

    max_age_s: float | None = None
    max_hops: int | None = None
    max_epsilon: float | None = None
    min_paths: int | None = None
    avoid: frozenset[str] = frozenset()
    not_simulated: bool = False
    hybrid: bool = False
    no_computational: bool = False

    def met_by(self, made: Provenance, created_s: float, now_s: float) -> bool:
        """Tell whether key of this provenance will do."""
        return (
            (self.max_age_s is None or now_s - created_s <= self.max_age_s)
            and (self.max_hops is None or made.hops_max <= self.max_hops)
            and (self.max_epsilon is None or made.epsilon <= self.max_epsilon)
            and (self.min_paths is None or made.threshold >= self.min_paths)
            and not self.avoid & made.touched
            and not (self.not_simulated and made.simulated)
            and (not self.hybrid or bool(made.hybrid))
            and not (self.no_computational and made.computational)
        )


NO_DEMANDS = KeyDemands()


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
    """*Key request* (6.2) after parsing: ``demands`` shall be met, ``wishes`` are if they can be."""

    number: int = 1
    size_bits: int = KEY_SIZE_BITS
    with_provenance: bool = False
    additional: tuple[SaeId, ...] = ()
    demands: KeyDemands = NO_DEMANDS
    wishes: KeyDemands = NO_DEMANDS
    lease_id: str = ""


class LeaseRequest(msgspec.Struct, frozen=True):
    """A request for a lease after parsing: what keys, and for how long."""

    keys: KeyRequest
    ttl_s: float


class LeaseDocument(msgspec.Struct, frozen=True):
    """One lease as its holder sees it. ``size`` in bits; ``expires_at_s`` is Unix time by the KME's clock."""

    lease_id: str
    slave_SAE_ID: str
    additional_slave_SAE_IDs: tuple[str, ...]
    size: int
    number: int
    keys_left: int
    expires_at_s: float


class LeaseList(msgspec.Struct, frozen=True):
    """The leases that an application holds with a slave."""

    leases: tuple[LeaseDocument, ...]


class LeaseReturn(msgspec.Struct, frozen=True):
    """What became of a lease that was given back."""

    lease_id: str
    keys_returned: int


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


def key_request_from_query(query: str, profile: Profile = STANDARD) -> KeyRequest:
    """Read *Get key* in its GET form: ``number`` and ``size`` at most (5.2)."""
    fields = _query_fields(query, once=("number", "size"))
    for name in ("additional_slave_SAE_IDs", "extension_mandatory", "extension_optional"):
        if name in fields:
            _refuse(f"{name} shall be sent by POST")
    if profile.strict:
        _check_members(fields, {"number", "size"})
    return KeyRequest(
        number=_number(_integer_from_text(fields, "number", 1), profile),
        size_bits=_size_bits(_integer_from_text(fields, "size", profile.key_size_bits), profile),
    )


def key_request_from_body(body: bytes, profile: Profile = STANDARD) -> KeyRequest:
    """Read *Get key* in its POST form; an empty body asks for one key of the default size."""
    members = _json_object(body) if body else {}
    if profile.strict:
        _check_members(members, _KEY_REQUEST_MEMBERS)
    return _key_request(members, profile, with_lease=profile.leases_per_sae_max > 0)


def lease_request_from_body(body: bytes, profile: Profile = STANDARD) -> LeaseRequest:
    """Read a request for a lease: the members of *Get key*, and ``ttl_s``."""
    members = _json_object(body) if body else {}
    if profile.strict:
        _check_members(members, _KEY_REQUEST_MEMBERS | _LEASE_MEMBERS)
    ttl_s = members.get("ttl_s", min(LEASE_TTL_S, profile.lease_ttl_s_max))
    if type(ttl_s) not in (int, float) or not 0 < ttl_s <= profile.lease_ttl_s_max:
        _refuse(f"ttl_s shall be a number of seconds, above 0 and at most {profile.lease_ttl_s_max}")
    larger = msgspec.structs.replace(profile, keys_per_request_max=profile.lease_keys_max)
    return LeaseRequest(_key_request(members, larger, with_lease=False), float(ttl_s))


def _key_request(members: dict[str, Any], profile: Profile, *, with_lease: bool) -> KeyRequest:
    mandatory = _extensions(members, "extension_mandatory")
    optional = _extensions(members, "extension_optional")
    lease_id = ""
    if with_lease and LEASE_EXTENSION in mandatory:
        lease_id = _lease_id(mandatory.pop(LEASE_EXTENSION))
    if set(mandatory) - _EXTENSIONS:
        _refuse(MANDATORY_NOT_SUPPORTED)
    demands = _demands(mandatory)
    if demands is None:
        _refuse(MANDATORY_NOT_MET)
    wishes = _demands({name: value for name, value in optional.items() if name in _EXTENSIONS})
    if profile.optional_unhandled == "refuse" and (wishes is None or set(optional) - _EXTENSIONS):
        _refuse(OPTIONAL_NOT_HANDLED)
    return KeyRequest(
        number=_number(members.get("number", 1), profile),
        size_bits=_size_bits(members.get("size", profile.key_size_bits), profile),
        with_provenance=any(_asks_for_provenance(extension) for extension in (mandatory, optional)),
        additional=_additional_slaves(members.get("additional_slave_SAE_IDs", []), profile),
        demands=demands,
        wishes=wishes or NO_DEMANDS,
        lease_id=lease_id,
    )


def key_ids_from_query(query: str, profile: Profile = STANDARD) -> KeyIdsRequest:
    """Read *Get key with key IDs* in its GET form: exactly one ``key_ID`` (5.3)."""
    fields = _query_fields(query, once=("key_ID",))
    if "key_ID" not in fields:
        _refuse("key_ID is missing")
    if profile.strict:
        _check_members(fields, {"key_ID"})
    return KeyIdsRequest((_key_id(fields["key_ID"]),))


def key_ids_from_body(body: bytes, profile: Profile = STANDARD) -> KeyIdsRequest:
    """Read *Get key with key IDs* in its POST form."""
    members = _json_object(body)
    if profile.strict:
        _check_members(members, {"key_IDs", "key_IDs_extension"})
    entries = members.get("key_IDs")
    if not isinstance(entries, list) or not entries:
        _refuse("key_IDs shall be an array of at least one object")
    if len(entries) > profile.keys_per_request_max:
        _refuse(f"key_IDs shall have at most {profile.keys_per_request_max} elements")
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
    members = strict_json.document(body)
    if not isinstance(members, dict):
        _refuse("the body shall be a JSON object")
    return members


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


def _number(value: Any, profile: Profile) -> int:
    if type(value) is not int or not 1 <= value <= profile.keys_per_request_max:
        _refuse(f"number shall be an integer from 1 to {profile.keys_per_request_max}")
    return int(value)


def _size_bits(value: Any, profile: Profile) -> int:
    if type(value) is int and value > 0 and value % 8:
        _refuse(SIZE_NOT_MULTIPLE_OF_8)
    if type(value) is not int or not profile.key_size_bits_min <= value <= profile.key_size_bits_max:
        _refuse(
            f"size shall be an integer from {profile.key_size_bits_min} to {profile.key_size_bits_max} (bits)"
        )
    return int(value)


def _additional_slaves(value: Any, profile: Profile) -> tuple[SaeId, ...]:
    if not isinstance(value, list) or not all(isinstance(sae, str) and sae for sae in value):
        _refuse("additional_slave_SAE_IDs shall be an array of strings that are not empty")
    if len(value) > profile.additional_slaves_max:
        _refuse(
            f"additional_slave_SAE_IDs shall have at most {profile.additional_slaves_max} elements: "
            "max_SAE_ID_count"
        )
    if len(set(value)) < len(value):
        _refuse("additional_slave_SAE_IDs shall not name an SAE twice")
    return tuple(map(SaeId, value))


def _check_members(members: Iterable[str], known: Collection[str]) -> None:
    unknown = sorted(set(members) - set(known))
    if unknown:
        _refuse(f"this KME refuses members that it does not know; expected only {', '.join(sorted(known))}")


def _extensions(members: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the name/value pairs of an array of objects."""
    entries = members.get(name, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        _refuse(f"{name} shall be an array of objects")
    return {key: value for entry in entries for key, value in entry.items()}


def _demands(extensions: dict[str, Any]) -> KeyDemands | None:
    """Return what extensions that we know demand, or None if a value is none that can be met."""
    wanted: dict[str, Any] = {}
    for name, value in extensions.items():
        if name == PROVENANCE_EXTENSION:
            if not _asks_for_provenance(extensions):
                return None
        elif name in _QUANTITIES:
            if type(value) not in _QUANTITIES[name][1] or not 0 < value < float("inf"):
                return None
            wanted[_QUANTITIES[name][0]] = value
        elif not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            return None
        elif name == AVOID_EXTENSION:
            wanted["avoid"] = frozenset(value)
        elif set(value) - PROPERTIES:
            return None
        else:
            wanted |= dict.fromkeys(value, True)
    return KeyDemands(**wanted)


def _asks_for_provenance(extensions: dict[str, Any]) -> bool:
    wanted = extensions.get(PROVENANCE_EXTENSION, False)
    return wanted is True or wanted == {}


def _key_id_of_entry(entry: Any) -> KeyId:
    if not isinstance(entry, dict) or not isinstance(entry.get("key_ID"), str):
        _refuse("each element of key_IDs shall be an object with a string key_ID")
    return _key_id(entry["key_ID"])


def _lease_id(value: Any) -> str:
    lease_id = parse_key_id(value) if isinstance(value, str) else None
    if lease_id is None:
        _refuse(MANDATORY_NOT_MET)
    return lease_id


def _key_id(text: str) -> KeyId:
    key_id = parse_key_id(text)
    if key_id is None:
        _refuse("key_ID shall be a UUID")
    return key_id
