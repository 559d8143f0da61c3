"""How a distillation ends at one end: with a key, or with none and the reason."""

from enum import StrEnum

import msgspec

from openqci.core.keys import SecretKey
from openqci.distillation.report import BlockReport


class AbortReason(StrEnum):
    """Why a block left no key."""

    TOO_FEW_BITS = "too few sifted bits"
    QBER_TOO_HIGH = "QBER too high"
    VERIFICATION_FAILED = "verification failed"
    NO_KEY_LEFT = "no secret bits left"
    PEER_MISBEHAVED = "peer misbehaved"
    PEER_ABORTED = "peer aborted"
    PEER_WENT_SILENT = "peer went silent"
    UNCONFIRMED = "confirmation never came"
    STOPPED = "stopped"


class KeyDistilled(msgspec.Struct, frozen=True):
    """Both ends have confirmed the key; it may be used."""

    key: SecretKey
    report: BlockReport


class DistillationAborted(msgspec.Struct, frozen=True):
    """This end has no key and has wiped what it had.

    ``peer_may_have_key`` is true in one case only, the last-message problem: Bob confirmed and never heard
    again, so that Alice may have released her key. The link must then strike block ``number`` from both
    streams before it goes on.
    """

    reason: AbortReason
    detail: str
    report: BlockReport
    peer_may_have_key: bool = False
