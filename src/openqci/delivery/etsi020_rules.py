"""What the rules of ETSI GS QKD 020 are given: partners, ways, times; and what they give: work and events.

The port :class:`Carrier` brings a key from this KME to another of the same network. A KME that serves all
targets itself, or stands at every border itself, needs none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from openqci.core.identifiers import KeyId, KmeId, SaeId
from openqci.core.keys import SecretBytes
from openqci.delivery.border_account import BorderEntry
from openqci.delivery.border_extensions import Segment
from openqci.delivery.etsi020_model import AckStatus
from openqci.delivery.transfers import Ack, Neighbour, Transfer, VoidDuty
from openqci.keystore.ports import KmeView


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What is agreed with a partner about the keys that it sends; None and 0 mean no bound.

    ``quota_bytes`` is for each window. Keys that say they are for an emergency are beyond the quota, if
    ``emergency`` allows that.
    """

    name: str = ""
    valid_from_s: float = 0.0
    valid_until_s: float = 0.0
    quota_bytes: int | None = None
    window_s: float = 86_400.0
    emergency: bool = False
    priority: int = 3


@dataclass(frozen=True)
class Partner:
    """A KME of another network that stands in the same site.

    ``callback_urls`` are those to which acknowledgements may be sent, ``own_callback_url`` is ours to it.
    """

    kme: KmeId
    domain: str
    callback_urls: tuple[str, ...]
    own_callback_url: str
    terms: Terms = field(default_factory=Terms)
    draft: bool = False
    pending_max: int = 4096
    targets_max: int = 16


@dataclass(frozen=True)
class Timing:
    """How long things are tried. Each wait doubles from ``retry_s_min`` to ``retry_s_max``."""

    request_s_max: float = 20.0
    retry_s_min: float = 1.0
    retry_s_max: float = 60.0
    ack_wait_s: float = 30.0
    """A key that was accepted is sent again if nothing was heard of it for so long."""
    transfer_s_max: float = 300.0
    """A key that is on its way for longer is given up, and voided."""
    ack_s_max: float = 600.0
    """An acknowledgement that is not taken for longer is given up, and its key voided."""
    void_s_max: float = 86_400.0
    retention_s: float = 86_400.0
    """How long a transfer that is over is remembered, for requests that come again."""
    keep_s: float = 86_400.0
    """How long a key is kept that says nothing of its expiry."""
    collect_s: float = 300.0
    """So much earlier than at its target a key expires at its origin."""

    def wait_s(self, attempts: int) -> float:
        """Return how long to wait after so many tries.

        >>> [Timing().wait_s(attempts) for attempts in (1, 2, 3, 10)]
        [1.0, 2.0, 4.0, 60.0]
        """
        doubled: float = self.retry_s_min * 2 ** min(max(0, attempts - 1), 30)
        return min(self.retry_s_max, doubled)


class Parcel(msgspec.Struct, frozen=True):
    """What travels beside a key between two KMEs of one network: all but its bytes."""

    key_id: KeyId
    initiator: SaeId
    targets: tuple[SaeId, ...]
    optional: bytes = b""
    extension: bytes = b""


class Outcome(msgspec.Struct, frozen=True, tag="outcome"):
    """How a key's way went on, told to the KME of the same network that it came from."""

    key_id: KeyId
    status: AckStatus
    message: str = ""
    ack_key: bytes = b""
    ack_extension: bytes = b""


class VoidOrder(msgspec.Struct, frozen=True, tag="void"):
    """A key is not to be delivered, told to a KME of the same network."""

    key_id: KeyId


Told = Outcome | VoidOrder


class Carrier(Protocol):
    """Brings keys and words to another KME of this network, durably, each in the caller's transaction."""

    def carry(self, view: KmeView, to: KmeId, parcel: Parcel, value: SecretBytes) -> None:
        """Begin to carry a key; the far end calls ``Border.arrived``. KeyUnavailable if a link lacks key.

        If it fails later, this end calls ``Border.carriage_failed``.
        """

    def tell(self, view: KmeView, to: KmeId, told: Told) -> None:
        """Send a word, exactly once and in order; the far end calls ``Border.told``."""


Ways = Callable[[SaeId], Sequence[Neighbour] | None]
"""The next neighbours on the way to an SAE, the best first; None if nobody knows it."""


def _no_ways(sae: SaeId) -> None:
    return None


@dataclass(frozen=True)
class Rules:
    """What a KME knows of its borders. ``fresh`` draws random bytes for the checks of repeated requests."""

    domain: str
    partners: Mapping[KmeId, Partner]
    fresh: Callable[[int], bytes]
    ways: Ways = _no_ways
    carrier: Carrier | None = None
    synchronous: bool = False
    timing: Timing = field(default_factory=Timing)


# Work for the shell


@dataclass(frozen=True)
class KeysToSend:
    """Keys for a partner. Each value is a copy in clear: wipe it when the request was sent."""

    partner: KmeId
    transfers: tuple[Transfer, ...]
    values: tuple[SecretBytes, ...]


@dataclass(frozen=True)
class AcksToSend:
    """Acknowledgements for one callback URL of a partner."""

    partner: KmeId
    callback_url: str
    acks: tuple[Ack, ...]


@dataclass(frozen=True)
class VoidsToSend:
    """Keys of one association that a partner shall void."""

    partner: KmeId
    duties: tuple[VoidDuty, ...]


@dataclass(frozen=True)
class KeyToCarry:
    """A key that waits to be carried on inside this network: call ``Border.carry``."""

    key_id: KeyId
    priority: int


Work = KeysToSend | AcksToSend | VoidsToSend | KeyToCarry


# Events


@dataclass(frozen=True)
class TransferSettled:
    """A transfer has come to an end, or to another end than before."""

    transfer: Transfer


@dataclass(frozen=True)
class KeysReleased:
    """An initiator here can have more key."""

    master: SaeId
    slave: SaeId
    additional: tuple[SaeId, ...]
    key_bytes: int


@dataclass(frozen=True)
class BorderTrouble:
    """Something that a person must see: a key that could not be voided, a confirmation that was wrong."""

    neighbour: Neighbour
    reason: str
    forged: bool = False


@dataclass(frozen=True)
class Accounted:
    """A line was written into the account."""

    entry: BorderEntry


BorderEvent = TransferSettled | KeysReleased | BorderTrouble | Accounted


@dataclass(frozen=True)
class NewKey:
    """A key that begins its way at this KME. ``segment`` is what this network adds to its provenance."""

    key_id: KeyId
    initiator: SaeId
    targets: tuple[SaeId, ...]
    created_s: float
    expires_s: float
    segment: Segment
    batch_tag: int | None = None
    route: tuple[str, ...] = ()
