"""The line between a coordinator and its workers: messages arrive whole, in order, or not at all."""

import asyncio
import os
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import RequestRefused
from openqci.core.identifiers import SaeId
from openqci.services import kme_worker, worker_channel
from openqci.services.kme_worker import CoordinatorQuotas
from openqci.services.worker_channel import (
    HEAD_BYTES,
    MESSAGE_BYTES_MAX,
    Act,
    Answered,
    AnyMessage,
    Arrived,
    Channel,
    Delivered,
    Done,
    Lost,
    Order,
    QuotaAnswer,
    QuotaAsked,
    Ready,
    framed,
)

TEXT = st.text(max_size=20)
TEXTS = st.lists(TEXT, max_size=5).map(tuple)
MESSAGES = st.one_of(
    st.builds(Ready),
    st.builds(Order, st.integers(0, 1 << 40), st.sampled_from(Act)),
    st.builds(Done, st.integers(0, 1 << 40), TEXT),
    st.builds(Arrived, TEXT, TEXT, TEXTS, st.integers(0, 1 << 40)),
    st.builds(Delivered, TEXT, TEXT, TEXT, TEXTS, TEXTS, st.integers(0, 4096)),
    st.builds(QuotaAnswer, st.integers(0, 1 << 40), st.floats(0, allow_nan=False)),
)


class Transport:
    """What a channel writes to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.waiting_bytes = 0
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return self.waiting_bytes

    def abort(self) -> None:
        self.aborted = True


def channel_and_heard() -> tuple[Channel, list[AnyMessage], Transport]:
    heard: list[AnyMessage] = []
    channel, transport = Channel(heard.append, lambda: None), Transport()
    channel.connection_made(transport)  # type: ignore[arg-type]
    return channel, heard, transport


@given(st.lists(MESSAGES, max_size=8), st.lists(st.integers(1, 40), min_size=1))
def test_messages_arrive_whole_however_the_bytes_are_cut(messages: list[Any], cuts: list[int]) -> None:
    channel, heard, _ = channel_and_heard()
    stream, at, turn = b"".join(map(framed, messages)), 0, 0
    while at < len(stream):
        channel.data_received(stream[at : at + cuts[turn % len(cuts)]])
        at, turn = at + cuts[turn % len(cuts)], turn + 1
    assert heard == messages


@pytest.mark.parametrize(
    "wrong",
    [
        (MESSAGE_BYTES_MAX + 1).to_bytes(HEAD_BYTES, "big"),
        (3).to_bytes(HEAD_BYTES, "big") + b"\xc1\xc1\xc1",
        (1).to_bytes(HEAD_BYTES, "big") + b"\x01",
        framed(Ready())[:HEAD_BYTES] + bytes(len(framed(Ready())) - HEAD_BYTES),
    ],
)
def test_what_is_no_message_cuts_the_line(wrong: bytes) -> None:
    channel, heard, transport = channel_and_heard()
    channel.data_received(framed(Done(1)) + wrong)
    assert heard == [Done(1)] and transport.aborted


def test_a_delivery_is_written_at_once_and_others_travel_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_channel, "GATHER_S", 0.01)
    delivered = Delivered("etsi014", "master", "alice", ("bob",), ("id",), 256)
    answered = Answered("etsi014", "enc_keys", 200, 0.001)

    async def scenario() -> None:
        channel, _, transport = channel_and_heard()
        channel.report(answered, now=False)
        assert transport.written == []
        channel.report(delivered, now=True)
        assert transport.written == [framed(answered) + framed(delivered)]
        channel.report(answered, now=False)
        await asyncio.sleep(0.05)
        assert transport.written[1:] == [framed(answered)]

    asyncio.run(scenario())


def test_a_coordinator_that_does_not_read_loses_reports_and_is_told_how_many() -> None:
    channel, _, transport = channel_and_heard()
    transport.waiting_bytes = worker_channel.UNSENT_BYTES_MAX + 1
    for _ in range(3):
        channel.report(Ready(), now=True)
    assert transport.written == []
    transport.waiting_bytes = 0
    channel.report(Ready(), now=True)
    assert transport.written == [framed(Lost(3)), framed(Ready())]


def test_messages_over_a_real_line_to_its_end() -> None:
    async def scenario() -> None:
        heard: list[AnyMessage] = []
        ended = asyncio.Event()
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        here, there = Channel(lambda message: None, lambda: None), Channel(heard.append, ended.set)
        await loop.create_unix_connection(lambda: here, sock=ours)
        await loop.create_unix_connection(lambda: there, sock=theirs)
        key_ids = tuple(os.urandom(16).hex() for _ in range(64))
        many = [Delivered("i", "master", "a", ("b",), key_ids, 256)] * 500
        for message in many:
            here.report(message, now=True)
        here.report(Answered("i", "m", 200, 0.1), now=False)
        here.close()
        async with asyncio.timeout(10):
            await ended.wait()
        assert heard == [*many, Answered("i", "m", 200, 0.1)]

    asyncio.run(scenario())


def test_a_quota_is_the_coordinators_to_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kme_worker, "QUOTA_ANSWER_S_MAX", 0.05)

    async def scenario() -> None:
        channel, _, transport = channel_and_heard()
        quotas = CoordinatorQuotas(channel, frozenset({SaeId("alice")}))
        assert await quotas.take(SaeId("bob"), 1 << 40) == 0.0 and transport.written == []
        asked = asyncio.create_task(quotas.take(SaeId("alice"), 256))
        await asyncio.sleep(0)
        assert transport.written == [framed(QuotaAsked(1, "alice", 256))]
        quotas.answer(QuotaAnswer(1, 2.5))
        assert await asked == 2.5
        # Without an answer nobody gets anything; an answer that comes later is passed over.
        with pytest.raises(RequestRefused) as refused:
            await quotas.take(SaeId("alice"), 256)
        assert refused.value.status == 503
        quotas.answer(QuotaAnswer(2, 0.0))

    asyncio.run(scenario())
