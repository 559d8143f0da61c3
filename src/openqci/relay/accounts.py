"""The account of spent link key: which relay has used which bytes of a hop for what, at both ends of it.

That a byte is spent shows in the store by its absence; that is what keeps it from being used again. The
account says what it was used for, without any key, so that the two ends of a hop can be compared, and an
auditor can see that no two uses meet. Each use is written in the transaction that spends its range.

>>> SpentRange("a relay", "pad", 1000, 96).mac_key
range(1096, 1128)
"""

from collections.abc import Iterator

import msgspec

from openqci.core.identifiers import StreamId
from openqci.crypto import ONE_TIME_MAC_KEY_BYTES
from openqci.keystore.ports import KmeView

ACCOUNT_KIND = "spent-range"

ACCOUNT_BYTES_KEPT = 1 << 20
"""How far back in a stream its account goes: one direction of a link at 10 kbit/s for 14 minutes."""

DROPPED_AT_ONCE = 4
"""Old entries that each new one may drop: an account shrinks faster than it grows."""


class SpentRange(msgspec.Struct, frozen=True):
    """One use of a range: ``payload_bytes`` as ``use`` says, then the key of a one-time MAC.

    ``use`` is *payload* where the bytes are what a relay carries, *pad* where they cover it, *xor* where a
    node has published their XOR with others, *destroyed* where a wrong MAC or a dry hop ended it.
    """

    relay_id: str
    use: str
    offset_bytes: int
    payload_bytes: int

    @property
    def payload(self) -> range:
        """The places of the bytes that cover, or are, what is carried."""
        return range(self.offset_bytes, self.offset_bytes + self.payload_bytes)

    @property
    def mac_key(self) -> range:
        """The places of the key of the one-time MAC."""
        return range(self.payload.stop, self.payload.stop + ONE_TIME_MAC_KEY_BYTES)


def note_spent(view: KmeView, stream: StreamId, spent: SpentRange) -> None:
    """Enter a use into the account of a stream; a later entry for the same range replaces it."""
    view.put_record(ACCOUNT_KIND, f"{stream}@{spent.offset_bytes:012x}", msgspec.msgpack.encode(spent))
    oldest = list(view.records(ACCOUNT_KIND, f"{stream}@", DROPPED_AT_ONCE))
    for key, _ in oldest:
        if int(key.rpartition("@")[2], 16) < spent.offset_bytes - ACCOUNT_BYTES_KEPT:
            view.drop_record(ACCOUNT_KIND, key)


def spent_ranges(view: KmeView, stream: StreamId) -> Iterator[SpentRange]:
    """Return the account of a stream at one end, in order of place."""
    for _, body in view.records(ACCOUNT_KIND, f"{stream}@"):
        yield msgspec.msgpack.decode(body, type=SpentRange)


def overlaps(account: list[SpentRange]) -> list[tuple[SpentRange, SpentRange]]:
    """Return pairs of uses that have a byte in common: there must be none, pads and MAC keys alike.

    >>> overlaps([SpentRange("a", "pad", 0, 10), SpentRange("b", "pad", 42, 10)])
    []
    >>> len(overlaps([SpentRange("a", "pad", 0, 10), SpentRange("b", "pad", 41, 10)]))
    1
    """
    placed = sorted(account, key=lambda spent: spent.offset_bytes)
    return [
        (one, other)
        for at, one in enumerate(placed)
        for other in placed[at + 1 :]
        if other.offset_bytes < one.mac_key.stop
    ]
