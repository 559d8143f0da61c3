"""Key streams between two KMEs whose messages are lost, doubled and late; and the encoding of their calls."""

import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import KeyUnavailable
from openqci.core.identifiers import KmeId, LinkId, SaeId
from openqci.core.keys import SecretBytes
from openqci.delivery import agreement, etsi004, etsi004_model
from openqci.delivery.agreement import BatchFailed
from openqci.delivery.directory import SaeDirectory
from openqci.delivery.etsi004 import StreamLimits, StreamRefused
from openqci.delivery.etsi004_model import (
    HEADER_BYTES,
    Close,
    FrameError,
    GetKey,
    OpenConnect,
    QoS,
    Request,
    Service,
    Status,
)
from openqci.keystore import outbox
from openqci.keystore.deposits import link_key_stream
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView
from tests.delivery.make import ALICE, BOB, HOMES, LISBON, WARSAW, enrol, identity

Result = TypeVar("Result")

LINK = LinkId("lisbon--warsaw")
KSID = UUID("6f9619ff-8b86-4011-b42d-00c04fc964ff")
CHUNK_BYTES = 16 * 1024  # large, so that few chunks make a batch
WISH = QoS(chunk_bytes=CHUNK_BYTES, ttl_s=100)
REQUEST = OpenConnect(ALICE, BOB, WISH, KSID)
OTHER = {LISBON: WARSAW, WARSAW: LISBON}
AT = {LISBON: ALICE, WARSAW: BOB}


class Two:
    """Two KMEs with link key, and a line between them that a test disturbs."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.store = MemoryKeyStore()
        self.now_s = 1.0
        self.tag = 0
        key = self.chance.randbytes(3 << 20)
        for kme in (LISBON, WARSAW):
            self.run(kme, lambda view: view.append(link_key_stream(LINK, LISBON), SecretBytes(key)))
        for sae, kme in HOMES.items():
            self.store.submit(
                lambda tx, sae=sae, kme=kme: enrol(tx, sae, kme, identity(sae).certificate_sha256)  # type: ignore[misc]
            ).result()

    def run(self, kme: KmeId, work: Callable[[KmeView], Result]) -> Result:
        return self.store.submit(lambda tx: work(KmeView(tx, kme))).result()

    def open(self, kme: KmeId, request: OpenConnect = REQUEST) -> Status:
        def work(view: KmeView) -> Status:
            directory = SaeDirectory(view._transaction)
            sae = AT[kme]
            limits = StreamLimits()
            opened = etsi004.open_connect(
                view, directory, sae, request, KSID, limits, lambda _: True, self.now_s
            )
            return opened.status

        return self.run(kme, work)

    def close(self, kme: KmeId) -> None:
        self.run(kme, lambda view: etsi004.close(view, AT[kme], KSID))

    def get(self, kme: KmeId, index: int) -> tuple[str, bytes]:
        """Return the run of the stream, by which a test tells its lives apart, and the chunk."""
        got = self.run(kme, lambda view: etsi004.get_key(view, AT[kme], KSID, index, 0, self.now_s))
        return got.stream.run, bytes(got.key.reveal())

    def feed(self) -> None:
        for stream in self.run(LISBON, etsi004.hungry):
            self.tag += 1
            feed = partial(etsi004.feed, ksid=stream.ksid, link=LINK, batch_tag=self.tag, now_s=self.now_s)
            with suppress(KeyUnavailable):
                self.run(LISBON, feed)

    def carry(self, sender: KmeId, *, answer_lost: bool = False) -> None:
        """Bring what waits at one KME to the other, and the answers back unless they are lost."""
        receiver = OTHER[sender]
        for lane in self.run(sender, lambda view: outbox.lanes(view, receiver)):
            turn = self.run(sender, lambda view, lane=lane: outbox.next_turn(view, receiver, lane))  # type: ignore[misc]
            assert turn is not None
            answers = self.run(
                receiver,
                lambda view, turn=turn: outbox.receive(view, sender, turn, handle),  # type: ignore[misc]
            )
            if not answer_lost:
                self.run(sender, lambda view, a=answers: outbox.settle(view, receiver, a, settle))  # type: ignore[misc]


def test_a_link_with_little_key_feeds_a_stream_with_what_it_has() -> None:
    """On a slow link an application must not wait until a whole batch is there."""
    two, chunk_bytes = Two(1), 32
    request = OpenConnect(ALICE, BOB, QoS(chunk_bytes=chunk_bytes, ttl_s=100), KSID)
    for kme in (LISBON, WARSAW):
        two.run(kme, lambda view: view.take_next(link_key_stream(LINK, LISBON), (3 << 20) - 1000)[1].wipe())
        two.open(kme, request)
        two.carry(kme)
    two.carry(LISBON)
    two.feed()
    two.carry(LISBON)
    fed = (1000 - agreement.CONTROL_BYTES) // chunk_bytes
    for index in range(fed):
        assert two.get(LISBON, index) == two.get(WARSAW, index)
    with pytest.raises(KeyUnavailable):
        two.get(LISBON, fed)
    two.feed()  # what is left is not worth the control bytes
    assert two.run(LISBON, agreement.open_offers) == []


def handle(view: KmeView, peer: KmeId, message: outbox.Message) -> bytes:
    if message.kind == agreement.FRAME_KIND:
        return agreement.accept(view, peer, message)
    if message.kind == agreement.VOID_KIND:
        return agreement.void(view, peer, message)
    return etsi004.HANDLERS[message.kind](view, peer, message)


def settle(view: KmeView, peer: KmeId, message: outbox.Message, answer: bytes) -> None:
    if message.kind in etsi004.SETTLERS:
        etsi004.SETTLERS[message.kind](view, peer, message, answer)
        return
    event = agreement.settle(view, peer, message, answer)
    if isinstance(event, BatchFailed):
        etsi004.refeed(view, event.order)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), steps=st.integers(50, 400))
def test_whatever_happens_one_chunk_is_the_same_at_both_ends_and_comes_once(seed: int, steps: int) -> None:
    two = Two(seed)
    chance = two.chance
    got: dict[KmeId, dict[tuple[str, int], bytes]] = {LISBON: {}, WARSAW: {}}
    for _ in range(steps):
        kme = chance.choice((LISBON, WARSAW))
        two.now_s += chance.random() * 5
        act = chance.choices(range(6), (3, 0.4, 4, 2, 0.3, 6))[0]
        with suppress(StreamRefused, KeyUnavailable):
            if act == 0:
                two.open(kme)
            elif act == 1:
                two.close(kme)
            elif act == 2:
                two.carry(kme, answer_lost=chance.random() < 0.4)
            elif act == 3:
                two.feed()
            elif act == 4:
                two.run(kme, lambda view: etsi004.sweep(view, two.now_s))
            else:
                index = chance.randrange(8)
                run, key = two.get(kme, index)
                assert (run, index) not in got[kme], "a chunk came twice at one end"
                got[kme][run, index] = key
    for place in got[LISBON].keys() & got[WARSAW].keys():
        assert got[LISBON][place] == got[WARSAW][place]
    for chunks in got.values():
        assert len(set(chunks.values())) == len(chunks), "two chunks are alike"


def test_chunks_come_in_the_end_whatever_was_lost() -> None:
    two = Two(5)
    two.open(LISBON)
    for kme in (LISBON, WARSAW):
        two.carry(kme, answer_lost=True)
    two.open(WARSAW)
    for _ in range(4):
        for kme in (WARSAW, LISBON):
            two.carry(kme, answer_lost=True)
            two.carry(kme)
        two.feed()
    assert [two.get(LISBON, index) for index in range(3)] == [two.get(WARSAW, index) for index in range(3)]


def test_a_batch_that_fails_is_fed_again_at_its_place() -> None:
    two = Two(6)
    two.open(LISBON)
    two.carry(LISBON)
    two.open(WARSAW)
    two.carry(WARSAW)
    # The first range of the link's key is gone at Warsaw alone.
    two.run(WARSAW, lambda view: view.take(link_key_stream(LINK, LISBON), 0, 100).wipe())
    two.feed()
    two.carry(LISBON)
    with pytest.raises(KeyUnavailable):
        two.get(LISBON, 0)
    two.feed()
    two.carry(LISBON)
    assert two.get(LISBON, 0) == two.get(WARSAW, 0)


def test_a_ksid_of_two_other_applications_is_refused_at_the_other_end() -> None:
    two = Two(7)
    two.open(LISBON)
    eve = OpenConnect(SaeId("eve"), ALICE, WISH, KSID)
    AT[WARSAW] = SaeId("eve")
    try:
        two.open(WARSAW, eve)
    finally:
        AT[WARSAW] = BOB
    two.carry(LISBON)
    stream = two.run(LISBON, lambda view: etsi004.opened_stream(view, ALICE, KSID))
    assert stream.refused and not stream.connected


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)
uint32 = st.integers(0, etsi004_model.UINT32_MAX)
qualities = st.builds(
    QoS,
    *[uint32] * 7,
    st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=200),
)
requests: st.SearchStrategy[Request] = st.one_of(
    st.builds(OpenConnect, texts, texts, qualities, st.uuids()),
    st.builds(GetKey, st.uuids(), uint32, uint32),
    st.builds(Close, st.uuids()),
)


@given(requests)
def test_what_was_written_is_read(request: Request) -> None:
    frame = bytes(etsi004_model.encode_request(request))
    service, length = etsi004_model.read_request_header(frame[:HEADER_BYTES])
    assert length == len(frame) - HEADER_BYTES
    assert etsi004_model.decode_request(service, frame[HEADER_BYTES:]) == request


@given(st.sampled_from([Service.OPEN_CONNECT, Service.GET_KEY, Service.CLOSE]), st.binary(max_size=700))
def test_what_is_no_request_is_a_frame_error(service: Service, payload: bytes) -> None:
    try:
        request = etsi004_model.decode_request(service, payload)
    except FrameError:
        return
    assert isinstance(request, OpenConnect | GetKey | Close)


@given(st.binary(max_size=64))
def test_what_is_no_answer_is_a_frame_error(payload: bytes) -> None:
    for decode in (etsi004_model.decode_opened, etsi004_model.decode_closed):
        with suppress(FrameError):
            decode(payload)
    with suppress(FrameError):
        etsi004_model.decode_key(bytearray(payload))
