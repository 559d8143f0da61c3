"""Safety rules switched off one at a time: the checker must find each, or it proves nothing.

Each mutation is a context in which one rule of the product is broken.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any
from unittest.mock import patch

from openqci.core.errors import OpenQCIError
from openqci.delivery import agreement, end_to_end, etsi004, far_ends, leases, pair_stock, peers
from openqci.delivery.end_to_end import origin as end_to_end_origin
from openqci.delivery.pair_stock import KeyBatch
from openqci.keystore import deposits, outbox, pushed
from openqci.keystore.deposits import Verdict
from openqci.relay import carriage
from openqci.services import source_004
from openqci.services.kme_node import DRAW_BYTES_MAX, KmeNode
from openqci.services.source_004 import Source004
from openqci.services.source_push import SourcePush
from tests.simulation.loop import CrashingStore

Mutation = Callable[[], AbstractContextManager[Any]]


@contextmanager
def messages_act_twice() -> Iterator[None]:
    """The inbox does not remember what it has acted on."""

    def receive(view: Any, peer: Any, turn: Any, handle: Any, upto: Any = None) -> outbox.Answers:
        answers = []
        for message in turn.messages:
            if upto is not None and message.number >= upto:
                break
            try:
                answers.append((message.number, handle(view, peer, message)))
            except outbox.NotYet:
                break
        return outbox.Answers(turn.lane, tuple(answers))

    with patch.object(outbox, "receive", receive):
        yield


@contextmanager
def different_key_counts() -> Iterator[None]:
    """A deposit's one-time MAC is not looked at."""
    with patch.object(deposits, "equal", lambda one, other: True):
        yield


@contextmanager
def stock_before_confirmation() -> Iterator[None]:
    """The master may spend a batch before its slaves have it."""
    real = agreement._put_aside

    def put_aside(view: Any, order: Any, collect_s: float, ranges: Any) -> None:
        real(view, order, collect_s, ranges)
        body = view.record(agreement.OFFER_KIND, agreement._tag_text(order.batch_tag))
        agreement._complete(view, agreement.msgspec.msgpack.decode(body, type=agreement.OpenOffer))

    with patch.object(agreement, "_put_aside", put_aside):
        yield


@contextmanager
def spent_key_stays() -> Iterator[None]:
    """A slave's key is handed out and not erased."""

    def read(view: Any, batch: Any, offset_bytes: int, length_bytes: int) -> Any:
        key = view.take(batch.stream, offset_bytes, length_bytes)
        if offset_bytes:
            return key
        row = view._transaction._rows.stream(view.kme, batch.stream)
        view._transaction._add(
            view.kme, batch.stream, row.number, offset_bytes, memoryview(bytes(key.reveal()))
        )
        view._transaction._rows.put_stream(view.kme, batch.stream, row.end, row.stock + length_bytes)
        return key

    from openqci.delivery import etsi014

    with patch.object(etsi014, "take_range", read):
        yield


@contextmanager
def answers_before_they_are_durable() -> Iterator[None]:
    """The store answers, and commits later or never."""
    with patch.object(CrashingStore, "answers_early", True):
        yield


@contextmanager
def voids_are_ignored() -> Iterator[None]:
    """A slave's KME does not destroy its copy of a batch that was given up."""
    with patch.object(agreement, "void", lambda view, sender, message: agreement.VOIDED):
        yield


@contextmanager
def refused_deposits_are_kept() -> Iterator[None]:
    """The leader takes a deposit for link key whatever the other end says."""
    real = deposits.settle

    def settle(view: Any, message: Any, answer: bytes) -> Any:
        return real(view, message, Verdict.ACCEPTED.value.encode())

    with patch.object(deposits, "settle", settle):
        yield


@contextmanager
def early_frames_are_refused() -> Iterator[None]:
    """A frame for key whose acceptance is still on its way is refused: a defect that the simulation found."""
    with patch.object(agreement, "under_way", lambda view, link: False):
        yield


@contextmanager
def any_slave_may_fetch() -> Iterator[None]:
    """Who knows a key ID gets the key."""
    with (
        patch.object(KeyBatch, "is_for", lambda self, sae: self.role == "slave"),
        patch.object(KeyBatch, "is_copy_of", lambda self, sae, master: self.role == "slave"),
    ):
        yield


@contextmanager
def one_end_spends_anything() -> Iterator[None]:
    """Both ends of a link begin to spend the same stream."""
    real = deposits.link_key_stream

    def shared(link: Any, initiator: Any) -> Any:
        return real(link, "both")

    with (
        patch.object(deposits, "link_key_stream", shared),
        patch.object(agreement, "link_key_stream", shared),
    ):
        yield


@contextmanager
def epochs_are_not_begun() -> Iterator[None]:
    """Key that was held in common with a store that is gone stays."""
    with patch.object(peers, "start_over", lambda *_: 0):
        yield


@contextmanager
def expiry_at_once() -> Iterator[None]:
    """Slaves' copies are destroyed before their time."""
    real = pair_stock.store_batch

    def store(view: Any, batch: Any, key: Any) -> None:
        if batch.role == "slave":
            batch = agreement.msgspec.structs.replace(batch, expires_s=batch.created_s + 5.0)
        real(view, batch, key)

    with patch.object(agreement, "store_batch", store):
        yield


@contextmanager
def both_ends_feed_streams() -> Iterator[None]:
    """Each of two KMEs feeds the streams between them."""
    with patch.object(etsi004, "feeds", lambda kme, peer: True):
        yield


@contextmanager
def rests_are_kept_by_slaves() -> Iterator[None]:
    """A master's KME destroys what is too short for a key, and tells nobody."""

    def give_up(view: Any, batch: Any, offset_bytes: int, length_bytes: int) -> None:
        agreement.take_range(view, batch, offset_bytes, length_bytes).wipe()

    with patch.object(agreement, "give_up_rest", give_up):
        yield


@contextmanager
def relay_voids_are_ignored() -> Iterator[None]:
    """A target keeps what has come of a batch that its far origin has given up."""
    with patch.object(end_to_end, "withdraw", lambda view, relay_id, now_s: False):
        yield


@contextmanager
def far_stock_before_confirmation() -> Iterator[None]:
    """A master may spend a relayed batch before its target has it."""
    real = far_ends.begin

    def begin(view: Any, wanted: Any, batch_tag: int, *more: Any, **named: Any) -> Any:
        neighbours = real(view, wanted, batch_tag, *more, **named)
        for _, body in list(view.records(end_to_end_origin.OPEN_KIND)):
            found = end_to_end_origin._decode_open(body)
            relay = end_to_end.share_order(found.order, end_to_end.encode_order(found.order), 1)
            end_to_end.share_confirmed(view, relay.relay_id, found.expected)
        return neighbours

    with patch.object(far_ends, "begin", begin):
        yield


@contextmanager
def any_word_confirms() -> Iterator[None]:
    """An origin takes any word for its target's, and a target says one though it could not keep the batch."""
    with (
        patch.object(end_to_end_origin, "equal", lambda one, other: True),
        patch.object(carriage, "decline", lambda view, order, *_, **__: carriage.confirm(view, order, b"?")),
    ):
        yield


@contextmanager
def leased_key_stays_in_stock() -> Iterator[None]:
    """What is leased is not taken out of the stock for others."""
    real = leases.set_apart

    def set_apart(view: Any, run: Any, apart: str) -> Any:
        copy = pair_stock.TakenKey(run.batch, run.offset_bytes, agreement.SecretBytes(run.key.reveal()))
        pair_stock.put_back(view, real(view, copy, apart + "/copy"))
        return real(view, run, apart)

    with patch.object(leases, "set_apart", set_apart):
        yield


@contextmanager
def ended_leases_are_forgotten() -> Iterator[None]:
    """What is left of a lease does not go back into the stock."""
    with patch.object(leases, "put_back", lambda view, piece: None):
        yield


@contextmanager
def pieces_forget_their_place() -> Iterator[None]:
    """A piece of a batch does not know at which byte of it it begins."""
    real = leases.set_apart

    def set_apart(view: Any, run: Any, apart: str) -> Any:
        return real(view, pair_stock.TakenKey(run.batch, 0, run.key), apart)

    with patch.object(leases, "set_apart", set_apart):
        yield


@contextmanager
def pushes_are_acknowledged_early() -> Iterator[None]:
    """A module hears that its chunk is there before it is in the store."""
    real = SourcePush.take_in

    async def take_in(source: SourcePush, chunk: Any) -> None:
        async def later() -> None:
            with suppress(OpenQCIError):
                await real(source, chunk)

        kept = asyncio.get_running_loop().create_task(later())
        UNDER_WAY.add(kept)
        kept.add_done_callback(UNDER_WAY.discard)

    with patch.object(SourcePush, "take_in", take_in):
        yield


@contextmanager
def chunks_are_drawn_before_their_deposit() -> Iterator[None]:
    """What waits is taken in one transaction, and a while later a deposit made of it in the next."""

    async def deposit_kept(node: KmeNode, peer: Any, link: Any, initiator: Any, source: Any) -> None:
        supplied = await node.read(lambda view: source.draw_kept(view, DRAW_BYTES_MAX))
        await asyncio.sleep(0.3)
        await node._deposit(peer, link, initiator, supplied)

    with patch.object(KmeNode, "_deposit_kept", deposit_kept):
        yield


@contextmanager
def used_chunks_are_kept_again() -> Iterator[None]:
    """What a module pushes once more after it was used is taken for new."""
    real = pushed.keep

    def keep(view: Any, link: str, *chunk: Any) -> bool:
        stream = pushed.current(view, link)
        if stream is not None:
            pushed._put(view, link, agreement.msgspec.structs.replace(stream, next_index=0))
        return real(view, link, *chunk)

    with patch.object(pushed, "keep", keep):
        yield


@contextmanager
def given_chunks_are_given_again() -> Iterator[None]:
    """A source of key streams goes on holding what it has given out."""
    real = Source004._given_out

    def given_out(source: Source004, names: Any) -> Any:
        key, report = real(source, names)
        at = len(key) // len(names)
        for number, name in enumerate(names):
            part = agreement.SecretBytes(key.reveal()[number * at : (number + 1) * at])
            source._held[name] = source_004._Drawn(part, report)
        return key, report

    with patch.object(Source004, "_given_out", given_out):
        yield


@contextmanager
def lost_answers_empty_the_hand() -> Iterator[None]:
    """With a connection to a module goes what came over it before."""
    real = Source004._hang_up

    def hang_up(source: Source004) -> None:
        real(source)
        source._held.clear()

    with patch.object(Source004, "_hang_up", hang_up):
        yield


UNDER_WAY: set[asyncio.Task[None]] = set()
"""Works that nobody waits for."""

MUTATIONS: dict[str, Mutation] = {
    each.__name__: each
    for each in (
        messages_act_twice,
        different_key_counts,
        stock_before_confirmation,
        spent_key_stays,
        answers_before_they_are_durable,
        voids_are_ignored,
        refused_deposits_are_kept,
        early_frames_are_refused,
        any_slave_may_fetch,
        one_end_spends_anything,
        epochs_are_not_begun,
        expiry_at_once,
        both_ends_feed_streams,
        relay_voids_are_ignored,
        far_stock_before_confirmation,
        any_word_confirms,
        rests_are_kept_by_slaves,
        leased_key_stays_in_stock,
        ended_leases_are_forgotten,
        pieces_forget_their_place,
        pushes_are_acknowledged_early,
        chunks_are_drawn_before_their_deposit,
        used_chunks_are_kept_again,
        given_chunks_are_given_again,
        lost_answers_empty_the_hand,
    )
}
