"""The two ends of relays between KMEs that are no neighbours: shares become batches of end-to-end key.

Puts together :mod:`openqci.relay.carriage`, which carries one payload along one route, and
:mod:`openqci.delivery.end_to_end`, which makes a batch of the payloads of several. Everything happens inside
the transaction that acts on a message; what came of it is told to ``happened``, which a shell reads when the
transaction is durable.
"""

from collections.abc import Callable
from dataclasses import dataclass

from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import KmeId
from openqci.crypto.hybrid import KemPublicKey
from openqci.delivery import end_to_end
from openqci.delivery.end_to_end import (
    BatchGivenUp,
    BatchReady,
    KemKeys,
    KeyWanted,
    ShareDeclined,
    decode_order,
    encode_order,
    share_order,
)
from openqci.keystore.ports import KmeView
from openqci.relay import RelayArrival, carriage
from openqci.relay.carriage import RelayResult
from openqci.relay.node import HopRooms


@dataclass(frozen=True)
class ShareLost:
    """A relay of this origin was not carried on, at a node of its route. The batch may come all the same."""

    result: RelayResult


FarEvent = BatchReady | BatchGivenUp | ShareLost


class FarEnds:
    """What origin and target do with what relays bring (:class:`openqci.relay.carriage.RelayEnds`).

    A target that does not allow simulated key declines orders that say so (invariant I7).
    """

    def __init__(
        self,
        kem_keys: KemKeys,
        now_s: Callable[[], float],
        happened: Callable[[FarEvent], None],
        *,
        simulated_allowed: bool,
    ) -> None:
        self._kem_keys, self._now_s, self._happened = kem_keys, now_s, happened
        self._simulated_allowed = simulated_allowed

    def arrived(self, view: KmeView, arrival: RelayArrival) -> None:
        """Keep a share; confirm all of its batch once there are enough."""
        if not self._simulated_allowed and _is_simulated(arrival.cargo):
            carriage.decline(view, arrival.order, "its key is simulated; a production node refuses it")
            return
        kept = end_to_end.share_arrived(view, arrival, self._kem_keys, self._now_s())
        if isinstance(kept, ShareDeclined):
            carriage.decline(view, arrival.order, kept.reason, forged=kept.forged)
            return
        for relay, word in kept.words:
            carriage.confirm(view, relay, word)

    def ended(self, view: KmeView, result: RelayResult) -> None:
        """Act on the target's word, or on a relay that was not carried on."""
        if result.confirmation:
            event = end_to_end.share_confirmed(view, result.relay_id, result.confirmation)
        else:
            self._happened(ShareLost(result))
            event = end_to_end.share_failed(
                view, result.relay_id, f"at {result.failed_at}: {result.reason}", forged=result.forged
            )
        self._settle(view, event)

    def withdrawn(self, view: KmeView, relay_id: str) -> None:
        """Destroy what has come of a batch that its origin has given up."""
        end_to_end.withdraw(view, relay_id, self._now_s())

    def released(self, view: KmeView, relay_id: str) -> None:
        """Forget what was due: its origin has the batch."""
        end_to_end.release_relay(view, relay_id)

    def give_up(self, view: KmeView, batch_tag: int, reason: str) -> None:
        """Give a batch up, at its origin."""
        self._settle(view, end_to_end.give_up(view, batch_tag, reason))

    def _settle(self, view: KmeView, event: BatchReady | BatchGivenUp | None) -> None:
        if isinstance(event, BatchReady):
            # By every path: the target forgets with the first that comes.
            cargo = encode_order(event.order)
            for number in event.order.numbers:
                carriage.release(view, share_order(event.order, cargo, number))
        elif isinstance(event, BatchGivenUp):
            for relay in event.voids:
                carriage.void(view, relay)
        if event is not None:
            self._happened(event)


def _is_simulated(cargo: bytes) -> bool:
    """Tell whether an order says that its photons were simulated; what is no order is refused later."""
    try:
        return decode_order(cargo).simulated
    except PeerMisbehaved:
        return False


def begin(
    view: KmeView,
    wanted: KeyWanted,
    batch_tag: int,
    kem: KemPublicKey | None,
    now_s: float,
    rooms: HopRooms,
) -> tuple[KmeId, ...]:
    """Begin a batch, at its origin; return the neighbours to which frames are on their way.

    Raises KeyUnavailable if a first hop has not enough key; the transaction undoes what was taken then.
    """
    begun = end_to_end.begin(view, wanted, batch_tag, kem, now_s, rooms)
    for relay, frame in begun.relays:
        carriage.start(view, relay, frame)
    return tuple(KmeId(relay.route[1]) for relay, _ in begun.relays)
