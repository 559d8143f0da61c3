"""What OpenQCI says beside a key that crosses a border: origin, age, and how to use it as a whole batch.

ETSI GS QKD 020 V1.1.1 hands on keys without a word of expiry or provenance, and each key under its own UUID.
Two extensions, both optional, so that a network which knows neither passes them on unchanged:

``E32473_openqci_key``
    When the key was made and when it is to be destroyed, and one *segment* for each network that it crossed.
    Each KME of OpenQCI that hands the key on appends the segment of its own network; nobody says more of
    the interior than the sums. The target's KME returns the whole in its acknowledgement.

``E32473_openqci_batch``
    The value is a batch: ``key (n bytes) | seed of key IDs (16) | confirmation key (32)``. Keys are ranges of
    it (:mod:`openqci.delivery.pair_stock`). The target's KME returns a one-time MAC under the confirmation
    key; a batch whose confirmation is wrong or missing is never released at its origin, so that a network in
    between cannot make the two ends hold different key.

32473 is the Private Enterprise Number for examples (RFC 5612): OpenQCI has none of its own yet, and the names
say whose extensions these are.
"""

from base64 import b64decode, b64encode
from itertools import pairwise
from typing import TypeVar

import msgspec

from openqci.core.errors import PeerMisbehaved, invariant
from openqci.core.identifiers import KeyId, SaeId
from openqci.core.keys import SecretBytes
from openqci.core.provenance import Provenance
from openqci.crypto import ONE_TIME_MAC_KEY_BYTES, equal, one_time_mac
from openqci.delivery.etsi020_model import extension_member, with_extension
from openqci.delivery.key_ids import BATCH_TAG_BITS, ID_SEED_BYTES

Document = TypeVar("Document")

PREFIX = "E32473_openqci_"
KEY_EXTENSION = PREFIX + "key"
BATCH_EXTENSION = PREFIX + "batch"
KNOWN = frozenset({KEY_EXTENSION, BATCH_EXTENSION})
"""Extensions that this KME acts on, also when they are mandatory."""

BATCH_CONTROL_BYTES = ID_SEED_BYTES + ONE_TIME_MAC_KEY_BYTES
BATCH_KEY_BYTES_MAX = 64 * 1024
SEGMENTS_MAX = 32
FORM = "handed over at borders (ETSI GS QKD 020)"
UNKNOWN_NETWORKS = "a network that says nothing of itself"


class Segment(msgspec.Struct, frozen=True):
    """One network's part of a key's way: sums over its interior, and nothing else of it."""

    domain: str
    hops: int = 0
    epsilon: float = 0.0
    simulated: bool = False
    computational: bool = False
    protocols: tuple[str, ...] = ()


class KeyDocument(msgspec.Struct, frozen=True):
    """``E32473_openqci_key``.

    ``route`` is the way over networks that the origin was told to take, if any; ``emergency`` asks to be let
    through beyond a quota, which an agreement may allow.
    """

    created_s: float
    expires_s: float = 0.0
    segments: tuple[Segment, ...] = ()
    route: tuple[str, ...] = ()
    emergency: bool = False


class BatchDocument(msgspec.Struct, frozen=True):
    """``E32473_openqci_batch`` of a request. ``batch_tag`` is ten hexadecimal digits."""

    version: int
    batch_tag: str
    key_bytes: int

    @property
    def tag(self) -> int:
        return int(self.batch_tag, 16)

    @property
    def value_bytes(self) -> int:
        """Length of the value that this describes."""
        return self.key_bytes + BATCH_CONTROL_BYTES


class BatchConfirmation(msgspec.Struct, frozen=True):
    """``E32473_openqci_batch`` of an acknowledgement: base64 of the MAC."""

    confirmation: str


def key_document(extension: bytes) -> KeyDocument | None:
    """Return what an extension says of its keys; None if it is not there, or makes no sense."""
    document = _decoded(extension, KEY_EXTENSION, KeyDocument)
    sound = document is not None and len(document.segments) <= SEGMENTS_MAX and _finite(document)
    return document if sound else None


def batch_document(extension: bytes) -> BatchDocument | None:
    """Return what an extension says of a batch; None if it is not there, or makes no sense."""
    document = _decoded(extension, BATCH_EXTENSION, BatchDocument)
    if document is None or document.version != 1 or not 0 < document.key_bytes <= BATCH_KEY_BYTES_MAX:
        return None
    try:
        sound = 0 <= document.tag < 1 << BATCH_TAG_BITS
    except ValueError:
        return None
    return document if sound else None


def with_key_document(extension: bytes, document: KeyDocument) -> bytes:
    """Return an extension with this said of its keys."""
    return with_extension(extension, KEY_EXTENSION, document)


def with_batch_document(extension: bytes, batch_tag: int, key_bytes: int) -> bytes:
    """Return an extension that says that its one key is a batch."""
    return with_extension(extension, BATCH_EXTENSION, BatchDocument(1, f"{batch_tag:010x}", key_bytes))


def with_segment(extension: bytes, segment: Segment) -> bytes:
    """Return an extension with one more network in it, if it says anything of its keys."""
    document = key_document(extension)
    if document is None or len(document.segments) >= SEGMENTS_MAX:
        return extension
    more = msgspec.structs.replace(document, segments=(*document.segments, segment))
    return with_key_document(extension, more)


def crossed(extension: bytes) -> tuple[str, ...]:
    """Return the networks that a key says it has crossed."""
    document = key_document(extension)
    return tuple(each.domain for each in document.segments) if document is not None else ()


def provenance_of(document: KeyDocument | None, domain: str, made_at_s: float) -> Provenance:
    """Return what is known of a key's way. A key that says nothing came over an unknown network."""
    segments = document.segments if document is not None else ()
    networks = tuple(dict.fromkeys(each.domain for each in segments)) or (UNKNOWN_NETWORKS, domain)
    return Provenance(
        route=networks,
        links=tuple(f"{one}|{other}" for one, other in pairwise(networks)),
        hops=sum(each.hops for each in segments),
        protocols=tuple(sorted({name for each in segments for name in each.protocols})),
        proofs=(),
        epsilon=sum((each.epsilon for each in segments), 0.0),
        form=FORM,
        simulated=any(each.simulated for each in segments),
        made_at_s=document.created_s if document is not None else made_at_s,
        # Of a network that says nothing, nothing better can be said.
        computational=not segments or any(each.computational for each in segments),
        domains=networks,
    )


def open_batch(value: SecretBytes, document: BatchDocument) -> tuple[SecretBytes, bytes, SecretBytes]:
    """Split a value into key, seed of the key IDs, and confirmation key. The value is used up."""
    invariant(len(value) == document.value_bytes, "a batch has the length that it says")
    key = value.take(document.key_bytes)
    with value.take(ID_SEED_BYTES) as seed:
        id_seed = bytes(seed.reveal())
    return key, id_seed, value.take(ONE_TIME_MAC_KEY_BYTES)


def confirmation(
    key_id: KeyId,
    initiator: SaeId,
    target: SaeId,
    document: BatchDocument,
    key: SecretBytes,
    confirmation_key: SecretBytes,
) -> bytes:
    """Return the target's word that it holds these bytes for this pair: a one-time MAC over all of it."""
    text = msgspec.msgpack.encode(
        ("openqci border batch v1", key_id, initiator, target, document.batch_tag, document.key_bytes)
    )
    return one_time_mac(confirmation_key.reveal(), text, key.reveal())


def with_confirmation(extension: bytes, tag: bytes) -> bytes:
    """Return the extension of an acknowledged key with a confirmation."""
    return with_extension(extension, BATCH_EXTENSION, BatchConfirmation(b64encode(tag).decode()))


def check_confirmation(extension: bytes, expected: bytes) -> None:
    """Raise PeerMisbehaved unless an acknowledged key bears this confirmation."""
    said = _decoded(extension, BATCH_EXTENSION, BatchConfirmation)
    if said is None:
        raise PeerMisbehaved("the target's KME has not confirmed the batch; does it know such batches?")
    try:
        tag = b64decode(said.confirmation, validate=True)
    except ValueError:
        tag = b""
    if not equal(tag, expected):
        raise PeerMisbehaved("the target's KME has confirmed other bytes than those that were sent")


def _decoded(extension: bytes, name: str, form: type[Document]) -> Document | None:
    member = extension_member(extension, name)
    if member is None:
        return None
    try:
        return msgspec.json.decode(member, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _finite(document: KeyDocument) -> bool:
    quantities = [document.created_s, document.expires_s, *(each.epsilon for each in document.segments)]
    return all(0 <= each < 1e18 for each in quantities) and all(each.hops >= 0 for each in document.segments)
