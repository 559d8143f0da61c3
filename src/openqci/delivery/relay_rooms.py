"""The rooms of a KME with peers: routes name KMEs, and a link's key lies in the streams of its epoch."""

from collections.abc import Mapping

from openqci.core.errors import KeyUnavailable
from openqci.core.identifiers import KmeId, LinkId, StreamId
from openqci.delivery.peers import link_in_epoch, peer_state
from openqci.keystore.deposits import link_key_stream, stream_end, under_way
from openqci.keystore.ports import KmeView
from openqci.relay.messages import RelayFrame, hop_bytes


class EpochRooms:
    """``links`` says to which peer each of this node's links leads."""

    def __init__(self, links: Mapping[str, KmeId]) -> None:
        self._links = dict(links)

    def is_here(self, view: KmeView, name: str) -> bool:
        """Tell whether a name of a route is this KME's."""
        return view.kme == name

    def stream(self, view: KmeView, link_id: LinkId, sender: str, receiver: str) -> StreamId:
        """Return the stream that ``sender`` begins to spend; KeyUnavailable if the two share none now."""
        return link_key_stream(self._link(view, link_id, sender, receiver), KmeId(sender))

    def too_early(self, view: KmeView, frame: RelayFrame) -> bool:
        """Tell whether the range of a frame is still to come: its deposit is under way at this end.

        The other end may know of a deposit's acceptance before its leader does.
        """
        link_id, sender, receiver = frame.order.hop(frame.hop_index)
        try:
            link = self._link(view, link_id, sender, receiver)
        except KeyUnavailable:
            return False
        ends = frame.offset_bytes + hop_bytes(frame.order.key_bytes)
        return stream_end(view, link_key_stream(link, KmeId(sender))) < ends and under_way(view, link)

    def _link(self, view: KmeView, link_id: str, sender: str, receiver: str) -> LinkId:
        """Return the name of a link in its present epoch."""
        peer = KmeId(receiver if view.kme == sender else sender)
        known = peer_state(view, peer) if self._links.get(link_id) == peer else None
        if known is None:
            reason = f"{view.kme} has no link {link_id} to {peer}"
            raise KeyUnavailable(reason, wanted_bytes=1, available_bytes=0)
        return link_in_epoch(link_id, known.epoch)
