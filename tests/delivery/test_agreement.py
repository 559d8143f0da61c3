"""Agreeing on batches: tags that come twice, and orders that only their own origin may give."""

import msgspec

from openqci.core.identifiers import KmeId, LinkId, SaeId
from openqci.core.keys import SecretBytes
from openqci.delivery import agreement
from openqci.delivery.agreement import BatchAgreed, BatchFailed, BatchVoid, BatchWanted
from openqci.delivery.pair_stock import slave_copies, stock_bytes, take_keys, take_range
from openqci.keystore import outbox
from openqci.keystore.deposits import link_key_stream
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView
from tests.delivery.make import ALICE, BOB, LISBON, WARSAW

MADRID, CARLA = KmeId("kme-madrid"), SaeId("carla")
ONE_BATCH_BYTES = 64
TAG = 7


class Network:
    """Warsaw with a link to Lisbon and one to Madrid, each with some link key for the other end to begin."""

    def __init__(self) -> None:
        self.store = MemoryKeyStore()
        for kme in (LISBON, MADRID):
            for end in (kme, WARSAW):
                key = SecretBytes(kme.encode()[:10] * 100)
                self.view(end).append(link_key_stream(self.link(kme), kme), key)

    def view(self, kme: KmeId) -> KmeView:
        return self.store.submit(lambda tx: KmeView(tx, kme)).result()

    def link(self, kme: KmeId) -> LinkId:
        return LinkId(f"{kme}--warsaw")

    def link_stock_bytes(self, kme: KmeId, at: KmeId) -> int:
        return self.view(at).stock_bytes(link_key_stream(self.link(kme), kme))

    def offer(self, master: SaeId, kme: KmeId, tag: int = TAG) -> int:
        wanted = BatchWanted(master, ((BOB, WARSAW, self.link(kme)),), ONE_BATCH_BYTES)
        return agreement.offer(self.view(kme), wanted, tag, 1.0).batch_tag

    def carry(self, sender: KmeId) -> list[object]:
        """Bring what waits in a sender's outbox to Warsaw, and the answers back; return what came of it."""
        events: list[object] = []
        turn = outbox.next_turn(self.view(sender), WARSAW, agreement.BATCH_LANE)
        assert turn is not None

        def handle(view: KmeView, peer: KmeId, message: outbox.Message) -> bytes:
            act = agreement.void if message.kind == agreement.VOID_KIND else agreement.accept
            return act(view, peer, message)

        def settle(view: KmeView, peer: KmeId, message: outbox.Message, answer: bytes) -> None:
            events.append(agreement.settle(view, peer, message, answer))

        answers = outbox.receive(self.view(WARSAW), sender, turn, handle)
        outbox.settle(self.view(sender), WARSAW, answers, settle)
        return events


def test_a_tag_that_was_spent_long_ago_is_not_used_again() -> None:
    """A million batches make it as likely as not: the line between the two must not stand still for it."""
    network = Network()
    for number in range(3):
        assert network.offer(ALICE, LISBON) == TAG + number
        (event,) = network.carry(LISBON)
        assert isinstance(event, BatchAgreed)
        (taken,) = take_keys(network.view(LISBON), ALICE, BOB, 1, ONE_BATCH_BYTES)
        (copy,) = slave_copies(network.view(WARSAW), TAG + number)
        assert take_range(network.view(WARSAW), copy, 0, ONE_BATCH_BYTES).reveal() == taken.key.reveal()
        assert slave_copies(network.view(WARSAW), TAG + number) == []


def test_a_tag_that_another_kme_used_fails_one_batch_and_no_more() -> None:
    network = Network()
    network.offer(ALICE, LISBON)
    network.carry(LISBON)
    (copy,) = slave_copies(network.view(WARSAW), TAG)
    take_range(network.view(WARSAW), copy, 0, ONE_BATCH_BYTES).wipe()
    network.offer(CARLA, MADRID)
    (event,) = network.carry(MADRID)
    assert isinstance(event, BatchFailed) and event.reason == "no such key" and not event.forged
    assert network.link_stock_bytes(MADRID, WARSAW) == network.link_stock_bytes(MADRID, MADRID)
    assert network.offer(CARLA, MADRID) == TAG + 1
    (event,) = network.carry(MADRID)
    assert isinstance(event, BatchAgreed)


def test_a_kme_cannot_void_what_another_has_agreed() -> None:
    network = Network()
    network.offer(ALICE, LISBON)
    network.carry(LISBON)
    void = msgspec.msgpack.encode(BatchVoid(TAG, BOB, network.link(MADRID), 0, 100))
    agreement.void(network.view(WARSAW), MADRID, outbox.Message(0, agreement.VOID_KIND, void))
    (copy,) = slave_copies(network.view(WARSAW), TAG)
    assert network.view(WARSAW).stock_bytes(copy.stream) == ONE_BATCH_BYTES
    assert stock_bytes(network.view(LISBON), ALICE, BOB) == ONE_BATCH_BYTES
