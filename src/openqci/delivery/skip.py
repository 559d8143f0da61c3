"""SKIP, the interface between an encryptor and its key provider, as functions inside one transaction.

Source: draft-cisco-skip-02 and draft-singh-skip-00 (informational Internet-Drafts). A key provider is an
application (SAE) of its KME: *localSystemID* is the caller's SAE ID, *remoteSystemID* that of the system at
the other end. A key is one of ETSI GS QKD 014: ``keyId`` is its key ID without dashes. Stock of a pair lies
at both KMEs before its master may spend it, so the other end's provider has a key before the initiator does.
"""

import re
from fnmatch import fnmatchcase

import msgspec

from openqci.core.errors import RequestRefused
from openqci.core.identifiers import KeyId, SaeId
from openqci.core.keys import SecretBytes
from openqci.delivery import etsi014
from openqci.delivery.directory import PeerIdentity, SaeDirectory
from openqci.delivery.etsi014_model import KeyIdsRequest, KeyRequest, Profile
from openqci.delivery.pair_stock import RestRule
from openqci.keystore.ports import KmeView

KEY_BITS = 256
KEY_BITS_MIN, KEY_BITS_MAX = 64, 1024
ENTROPY_BITS_MAX = 4096
ALGORITHM = "QKD"
REMOTE_IDS_MAX = 256

_KEY_ID = re.compile(r"[0-9a-fA-F]{32}", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,6}", re.ASCII)


class SkipRules(msgspec.Struct, frozen=True):
    """``remote_systems`` are patterns (with ``*``) of systems that keys are given for; none: all known."""

    remote_systems: tuple[str, ...] = ()

    def allows(self, remote: str) -> bool:
        """Tell whether a key may be asked for together with a system."""
        return not self.remote_systems or any(fnmatchcase(remote, pattern) for pattern in self.remote_systems)


class Capabilities(msgspec.Struct, frozen=True):
    """Answer of ``GET /capabilities``."""

    entropy: bool
    key: bool
    algorithm: str
    localSystemID: str
    remoteSystemID: tuple[str, ...]


HEX = tuple(f"{byte:02x}".encode() for byte in range(256))
"""Two digits for each byte: written one by one, no text of a whole key comes into being that stays behind."""


class SkipKey(msgspec.Struct, frozen=True):
    """Answer of ``GET /key`` before it is written: the key is wiped by who writes it."""

    key_id: str
    key: SecretBytes

    def body(self) -> bytearray:
        """Return the JSON document, in a buffer that can be wiped."""
        head, tail = f'{{"keyId":"{self.key_id}","key":"'.encode(), b'"}'
        body = bytearray(len(head) + 2 * len(self.key) + len(tail))
        body[: len(head)], body[-len(tail) :] = head, tail
        for number, byte in enumerate(self.key.reveal()):
            at = len(head) + 2 * number
            body[at : at + 2] = HEX[byte]
        return body


class Entropy(msgspec.Struct, frozen=True):
    """Answer of ``GET /entropy``."""

    randomStr: str
    minentropy: int


def capabilities(
    view: KmeView, directory: SaeDirectory, peer: PeerIdentity | None, rules: SkipRules
) -> Capabilities:
    """``GET /capabilities``: who the caller is, and with whom it can have keys."""
    caller = etsi014.enrolled_caller(directory, view.kme, peer)
    remote = rules.remote_systems or tuple(
        record.sae_id for record in directory.saes() if record.kme_id != view.kme
    )
    return Capabilities(True, True, ALGORITHM, caller.sae_id, tuple(remote[:REMOTE_IDS_MAX]))


def get_key(
    view: KmeView,
    directory: SaeDirectory,
    peer: PeerIdentity | None,
    remote: str | None,
    size: str | None,
    rules: SkipRules,
    rests: RestRule | None = None,
) -> SkipKey:
    """``GET /key``: a new key with a remote system. KeyUnavailable if the stock is short now."""
    etsi014.enrolled_caller(directory, view.kme, peer)
    system = remote_system(remote, rules)
    bits = bits_of("size", size, KEY_BITS, KEY_BITS_MIN, KEY_BITS_MAX)
    delivery = etsi014.get_key(view, directory, peer, system, KeyRequest(1, bits), rests=rests)
    return SkipKey(str(delivery.keys[0].key_id).replace("-", ""), delivery.keys[0].key)


def get_key_by_id(
    view: KmeView,
    directory: SaeDirectory,
    peer: PeerIdentity | None,
    key_id: str,
    remote: str | None,
    rules: SkipRules,
) -> SkipKey:
    """``GET /key/{keyId}``: the caller's copy of a key that the remote system has got, once."""
    etsi014.enrolled_caller(directory, view.kme, peer)
    system = remote_system(remote, rules)
    if not _KEY_ID.fullmatch(key_id):
        raise RequestRefused(400, "keyId shall be 32 hexadecimal digits")
    text = key_id.lower()
    uuid = KeyId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")
    try:
        delivery = etsi014.get_key_with_key_ids(
            view, directory, peer, system, KeyIdsRequest((uuid,)), Profile(unknown_key_status=400)
        )
    except RequestRefused:
        # One answer for an unknown key, a spent one and another system's: it tells nothing about keys.
        raise RequestRefused(400, "the keyId is not known") from None
    return SkipKey(text, delivery.keys[0].key)


def remote_system(remote: str | None, rules: SkipRules) -> SaeId:
    """Return the remote system of a request; 400 if it is missing or not one of ours."""
    if not remote:
        raise RequestRefused(400, "remoteSystemID is missing")
    if not rules.allows(remote):
        raise RequestRefused(400, "the remoteSystemID is not one that this key provider serves")
    return SaeId(remote)


def asked_bits(size: str | None) -> int:
    """Return how many bits a request for a new key asks for; 0 for one whose size is refused.

    >>> asked_bits(None), asked_bits("512"), asked_bits("7")
    (256, 512, 0)
    """
    try:
        return bits_of("size", size, KEY_BITS, KEY_BITS_MIN, KEY_BITS_MAX)
    except RequestRefused:
        return 0


def bits_of(name: str, text: str | None, default: int, least: int, most: int) -> int:
    """Return a number of bits from a query; 400 unless it is a multiple of 8 in its range."""
    if text is None:
        return default
    bits = int(text) if _DIGITS.fullmatch(text) else 0
    if bits % 8 or not least <= bits <= most:
        raise RequestRefused(400, f"{name} shall be a multiple of 8 from {least} to {most} (bits)")
    return bits
