"""ETSI GS QKD 014 V1.1.1 as functions from (request, caller, store view) to answer.

The caller is who the client certificate says; nothing in a request can change that (5.1). What cannot be
answered raises RequestRefused with the code and, where the standard fixes one, the exact message (5.4 to
5.7); the transaction is rolled back then, so that a refused request consumes nothing. Profile choices where
the standard is silent are listed in ``docs/reference/etsi-014.md``.
"""

import json
from typing import Any, NoReturn, TypeVar

import msgspec

from openqci.core.errors import KeyUnavailable, RequestRefused
from openqci.core.identifiers import KeyId, KmeId, SaeId
from openqci.core.keys import DeliveredKey, SecretBytes
from openqci.delivery.key_ids import batch_tag_of, decode_key_id, encode_key_id
from openqci.delivery.pair_stock import KeyBatch, drop_batch, master_batches, slave_batch
from openqci.keystore.ports import KmeView

KEY_SIZE_BITS = 256
KEY_SIZE_BITS_MIN = 64
KEY_SIZE_BITS_MAX = 4096
KEYS_PER_REQUEST_MAX = 128
STORED_KEYS_MAX = 10_000
ADDITIONAL_SAES_MAX = 0
"""Multicast (optional in the standard) is not offered."""

PROVENANCE_EXTENSION = "openqci_provenance"
"""Ask for it as an extension parameter, and each key comes with the facts of its making (invariant I7)."""

NOT_A_MULTIPLE_OF_8 = "size shall be a multiple of 8"
MANDATORY_UNSUPPORTED = "not all extension_mandatory parameters are supported"
KEYS_NOT_FOUND = "one or more keys specified are not found on KME"
NOT_YOURS = "the caller is not the slave SAE to which these keys belong"
NOT_ENOUGH_KEY = "insufficient key material"


class Status(
    msgspec.Struct,
    frozen=True,
    rename={
        "source_kme_id": "source_KME_ID",
        "target_kme_id": "target_KME_ID",
        "master_sae_id": "master_SAE_ID",
        "slave_sae_id": "slave_SAE_ID",
        "max_sae_id_count": "max_SAE_ID_count",
    },
):
    """Status data format (6.1)."""

    source_kme_id: str
    target_kme_id: str
    master_sae_id: str
    slave_sae_id: str
    key_size: int
    stored_key_count: int
    max_key_count: int
    max_key_per_request: int
    max_key_size: int
    min_key_size: int
    max_sae_id_count: int


class KeyRequest(
    msgspec.Struct, frozen=True, rename={"additional_slave_sae_ids": "additional_slave_SAE_IDs"}
):
    """Key request data format (6.2)."""

    number: int = 1
    size: int = KEY_SIZE_BITS
    additional_slave_sae_ids: list[str] = []
    extension_mandatory: list[dict[str, Any]] = []
    extension_optional: list[dict[str, Any]] = []

    @property
    def wants_provenance(self) -> bool:
        return wants_provenance(self.extension_mandatory, self.extension_optional)


class NamedKey(msgspec.Struct, frozen=True, rename={"key_id": "key_ID"}):
    """One entry of the Key IDs data format (6.4)."""

    key_id: str


class KeyIds(
    msgspec.Struct, frozen=True, rename={"key_ids": "key_IDs", "key_ids_extension": "key_IDs_extension"}
):
    """Key IDs data format (6.4). ``key_IDs_extension`` may name ``openqci_provenance``."""

    key_ids: list[NamedKey]
    key_ids_extension: dict[str, Any] = {}

    @property
    def wants_provenance(self) -> bool:
        return PROVENANCE_EXTENSION in self.key_ids_extension


class ContainedKey(msgspec.Struct, frozen=True, omit_defaults=True, rename={"key_id": "key_ID"}):
    """One key of a Key container (6.3); the bytes are wiped when the answer has been written."""

    key_id: str
    key: bytearray
    key_extension: dict[str, Any] | None = None


class KeyContainer(msgspec.Struct, frozen=True):
    """Key container data format (6.3)."""

    keys: list[ContainedKey]

    def wipe(self) -> None:
        """Overwrite the key bytes with zeros."""
        for contained in self.keys:
            contained.key[:] = bytes(len(contained.key))


def status(view: KmeView, target_kme: KmeId, caller: SaeId, slave: SaeId) -> Status:
    """Answer *Get status* (5.4): what the caller, as master, could draw for this slave now."""
    key_bytes = KEY_SIZE_BITS // 8
    stored = sum(view.stock_bytes(batch.stream) // key_bytes for batch in master_batches(view, caller, slave))
    return Status(
        source_kme_id=view.kme,
        target_kme_id=target_kme,
        master_sae_id=caller,
        slave_sae_id=slave,
        key_size=KEY_SIZE_BITS,
        stored_key_count=min(stored, STORED_KEYS_MAX),
        max_key_count=STORED_KEYS_MAX,
        max_key_per_request=KEYS_PER_REQUEST_MAX,
        max_key_size=KEY_SIZE_BITS_MAX,
        min_key_size=KEY_SIZE_BITS_MIN,
        max_sae_id_count=ADDITIONAL_SAES_MAX,
    )


def get_key(view: KmeView, caller: SaeId, slave: SaeId, request: KeyRequest) -> KeyContainer:
    """Answer *Get key* (5.5): cut new keys from the pair's stock; they leave it with this answer.

    Raises KeyUnavailable when the stock is too small; nothing is taken then.
    """
    key_bytes = request.size // 8
    keys: list[ContainedKey] = []
    for batch in list(master_batches(view, caller, slave)):
        stock = view.stock_bytes(batch.stream)
        while len(keys) < request.number and stock >= key_bytes:
            keys.append(contained(cut(view, batch, key_bytes), batch, request.wants_provenance))
            stock -= key_bytes
        if stock < KEY_SIZE_BITS_MIN // 8:
            drop_batch(view, batch)
        if len(keys) == request.number:
            return KeyContainer(keys)
    raise KeyUnavailable(
        f"stock from {caller} to {slave} at {view.kme}",
        wanted_bytes=request.number * key_bytes,
        available_bytes=len(keys) * key_bytes,
    )


def get_key_with_key_ids(view: KmeView, caller: SaeId, master: SaeId, request: KeyIds) -> KeyContainer:
    """Answer *Get key with key IDs* (5.6): all of the keys, in the order asked, or none."""
    return KeyContainer(
        [fetch(view, caller, master, named.key_id, request.wants_provenance) for named in request.key_ids]
    )


def cut(view: KmeView, batch: KeyBatch, key_bytes: int) -> DeliveredKey:
    """Take the next key out of a master's batch and name it."""
    offset, key = view.take_next(batch.stream, key_bytes)
    return DeliveredKey(encode_key_id(batch.id_seed, batch.batch_tag, offset, key_bytes), key)


def fetch(view: KmeView, caller: SaeId, master: SaeId, key_id: str, with_provenance: bool) -> ContainedKey:
    """Take the key that an ID names out of the slave's batch."""
    tag = batch_tag_of(key_id)
    batch = None if tag is None else slave_batch(view, tag)
    place = None if batch is None else decode_key_id(batch.id_seed, key_id)
    if batch is None or place is None:
        raise RequestRefused(400, KEYS_NOT_FOUND)
    if (caller, master) != (batch.slave_sae, batch.master_sae):
        raise RequestRefused(401, NOT_YOURS)
    try:
        key = view.take(batch.stream, *place)
    except KeyUnavailable:
        # It was there and is gone: delivered before. To the caller that is the same as never there.
        raise RequestRefused(400, KEYS_NOT_FOUND) from None
    if not view.stock_bytes(batch.stream):
        drop_batch(view, batch)
    return contained(DeliveredKey(KeyId(key_id), key), batch, with_provenance)


def contained(delivered: DeliveredKey, batch: KeyBatch, with_provenance: bool) -> ContainedKey:
    """Put a key into its place in an answer."""
    extension = {PROVENANCE_EXTENSION: msgspec.to_builtins(batch.provenance)} if with_provenance else None
    return ContainedKey(delivered.key_id, bytearray(copy_out(delivered.key)), extension)


def copy_out(key: SecretBytes) -> bytearray:
    """Return a copy of a key's bytes and wipe the original."""
    with key:
        return bytearray(key.reveal())


def key_request_of_query(query: dict[str, list[str]]) -> KeyRequest:
    """Read *Get key* by GET: only ``number`` and ``size`` may be given so (5.5)."""
    values: dict[str, int] = {}
    for name, given in query.items():
        if name not in ("number", "size"):
            refuse(f"{name!r} cannot be given in a URL; use POST")
        if len(given) != 1 or not given[0].isascii() or not given[0].isdigit() or len(given[0]) > 9:
            refuse(f"{name} is expected once, as a whole number")
        values[name] = int(given[0])
    return checked(KeyRequest(number=values.get("number", 1), size=values.get("size", KEY_SIZE_BITS)))


def key_request_of_body(body: bytes) -> KeyRequest:
    """Read *Get key* by POST; an empty body asks for one key of the default size."""
    return checked(read(body or b"{}", KeyRequest))


def key_ids_of_query(query: dict[str, list[str]]) -> KeyIds:
    """Read *Get key with key IDs* by GET: exactly one ``key_ID`` (5.6)."""
    given = query.get("key_ID", [])
    if len(given) != 1 or set(query) != {"key_ID"}:
        refuse("exactly one key_ID is expected in the URL; use POST for several")
    return checked_ids(KeyIds([NamedKey(given[0])]))


def key_ids_of_body(body: bytes) -> KeyIds:
    """Read *Get key with key IDs* by POST."""
    return checked_ids(read(body, KeyIds))


def checked(request: KeyRequest) -> KeyRequest:
    """Refuse what this KME cannot do."""
    if not 1 <= request.number <= KEYS_PER_REQUEST_MAX:
        refuse(f"number is {request.number}, expected 1 to {KEYS_PER_REQUEST_MAX}")
    if request.size % 8:
        refuse(NOT_A_MULTIPLE_OF_8)
    if not KEY_SIZE_BITS_MIN <= request.size <= KEY_SIZE_BITS_MAX:
        refuse(f"size is {request.size} bits, expected {KEY_SIZE_BITS_MIN} to {KEY_SIZE_BITS_MAX}")
    if len(request.additional_slave_sae_ids) > ADDITIONAL_SAES_MAX:
        refuse(f"at most {ADDITIONAL_SAES_MAX} additional_slave_SAE_IDs are supported")
    if any(set(parameter) - {PROVENANCE_EXTENSION} for parameter in request.extension_mandatory):
        refuse(MANDATORY_UNSUPPORTED)
    return request


def checked_ids(request: KeyIds) -> KeyIds:
    """Refuse too few or too many IDs, and what is no UUID."""
    if not 1 <= len(request.key_ids) <= KEYS_PER_REQUEST_MAX:
        refuse(f"{len(request.key_ids)} key_IDs, expected 1 to {KEYS_PER_REQUEST_MAX}")
    return KeyIds(
        [NamedKey(normal_uuid(named.key_id)) for named in request.key_ids], request.key_ids_extension
    )


def normal_uuid(text: str) -> str:
    """Return a UUID in lower case; refuse what is none."""
    parts = text.split("-")
    if [len(part) for part in parts] != [8, 4, 4, 4, 12] or set("".join(parts).lower()) - set(
        "0123456789abcdef"
    ):
        refuse("a key_ID is expected to be a UUID")
    return text.lower()


Body = TypeVar("Body")


def read(body: bytes, form: type[Body]) -> Body:
    """Read a JSON body: no duplicate members, no strings for numbers; unknown members are ignored."""
    try:
        document = json.loads(body, object_pairs_hook=members_once)
        return msgspec.convert(document, form, strict=True)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        refuse(f"the body is not what was expected: {error}"[:200])


def members_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; a member given twice is an error, not a choice."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is given twice")
    return members


def wants_provenance(*extensions: list[dict[str, Any]]) -> bool:
    return any(PROVENANCE_EXTENSION in parameter for extension in extensions for parameter in extension)


def refuse(message: str) -> NoReturn:
    raise RequestRefused(400, message)
