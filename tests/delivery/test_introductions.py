"""What the leader's source tells the other end's: once, in order with the deposits of its link."""

import msgspec
import pytest

from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import LinkId
from openqci.delivery import peers
from openqci.delivery.peers import LinkRole, PeerHello, PeerRules, PeerTurn
from openqci.keystore import deposits, outbox
from openqci.keystore.deposits import Introduction
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView
from tests.delivery.make import LISBON, WARSAW


class Line:
    """Lisbon, which leads the link, and Warsaw, which have met."""

    def __init__(self) -> None:
        self.store = MemoryKeyStore()
        for own, peer, leads in ((LISBON, WARSAW, True), (WARSAW, LISBON, False)):
            theirs, ours = (LinkRole("lw", not leads),), (LinkRole("lw", leads),)
            hello = PeerHello(peers.PROTOCOL_VERSION, peer, f"store of {peer}", 1, theirs, 0.0)
            self.epoch = peers.meet(self.view(own), peer, f"store of {own}", ours, hello, 0.0).epoch
        self.link = LinkId(f"lw.{self.epoch}")

    def view(self, kme: str) -> KmeView:
        return self.store.submit(lambda tx: KmeView(tx, kme)).result()  # type: ignore[arg-type]

    def turn(self) -> PeerTurn:
        turn = outbox.next_turn(self.view(LISBON), WARSAW, deposits.deposit_lane(self.link))
        assert turn is not None
        return PeerTurn(self.epoch, turn)


def test_an_introduction_is_heard_once_however_often_it_is_sent() -> None:
    line = Line()
    deposits.introduce(line.view(LISBON), WARSAW, line.link, "stream 1")
    turn = line.turn()
    assert peers.introductions(line.view(WARSAW), LISBON, turn.turn) == [Introduction(line.link, "stream 1")]
    first = peers.receive_turn(line.view(WARSAW), LISBON, turn, {}, PeerRules())
    assert peers.introductions(line.view(WARSAW), LISBON, turn.turn) == []
    assert peers.receive_turn(line.view(WARSAW), LISBON, turn, {}, PeerRules()) == first
    assert peers.settle_answers(line.view(LISBON), WARSAW, first, PeerRules()) == []
    assert outbox.next_turn(line.view(LISBON), WARSAW, deposits.deposit_lane(line.link)) is None


@pytest.mark.parametrize("body", [b"", b"\xc1", msgspec.msgpack.encode(Introduction("lw", "x" * 257))])
def test_an_introduction_that_is_none_is_refused(body: bytes) -> None:
    line = Line()
    outbox.post(line.view(LISBON), WARSAW, deposits.deposit_lane(line.link), deposits.INTRODUCTION_KIND, body)
    with pytest.raises(PeerMisbehaved):
        peers.introductions(line.view(WARSAW), LISBON, line.turn().turn)
