"""ETSI GS QKD 004 V2.1.1, statement by statement, against two whole nodes over real TLS."""

import asyncio
import json
import logging
import random
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from openqci.delivery import etsi004, etsi004_model
from openqci.delivery.etsi004_model import JSON_MIME, GetKey, OpenConnect, QoS, Service, Status
from openqci.keystore.ports import KmeView
from openqci.services import etsi004_server
from tests.conformance.etsi004.make import ALICE, BOB, EVE, A, App, B, StreamSites, opened_by_both

WAITING = QoS(chunk_bytes=32, timeout_ms=20_000, ttl_s=600)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StreamSites]:
    running = StreamSites(tmp_path_factory.mktemp("etsi004"))
    running.wait_until_met()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def _hang_up(sites: StreamSites) -> Iterator[None]:
    yield
    sites.hang_up()


@pytest.fixture
def alice(sites: StreamSites) -> App:
    return sites.client(ALICE)


@pytest.fixture
def bob(sites: StreamSites) -> App:
    return sites.client(BOB)


def test_004_01_a_nil_ksid_gets_a_new_one(alice: App) -> None:
    opened = [alice.open(WAITING) for _ in range(5)]
    ksids = {each.ksid for each in opened if each.ksid is not None}
    assert len(ksids) == 5 and all(ksid.version == 4 for ksid in ksids)


def test_004_02_each_side_opens_a_ksid_once(alice: App, bob: App) -> None:
    chosen = uuid4()
    assert alice.open(WAITING, chosen).status is Status.PEER_NOT_CONNECTED
    assert bob.open(WAITING, chosen).status is Status.SUCCESS
    assert alice.open(WAITING, chosen).status is Status.KSID_IN_USE
    assert bob.open(WAITING, chosen).status is Status.KSID_IN_USE


def test_004_02_nobody_else_can_join(sites: StreamSites, alice: App) -> None:
    ksid = alice.open(WAITING).ksid
    assert ksid is not None
    time.sleep(0.3)
    eve = sites.client(EVE)
    assert eve.open(WAITING, ksid, destination="eve").status is Status.KSID_IN_USE
    assert eve.get(ksid, 0).status is Status.NO_CONNECTION


def test_004_03_one_side_alone_gets_no_key(alice: App, bob: App) -> None:
    opened = alice.open(WAITING)
    assert opened.status is Status.PEER_NOT_CONNECTED and opened.ksid is not None
    assert alice.get(opened.ksid, 0).status is Status.NO_PEER
    assert bob.open(WAITING, opened.ksid).status is Status.SUCCESS
    assert alice.get(opened.ksid, 0).status is Status.SUCCESS
    assert bob.get(opened.ksid, 0).status is Status.SUCCESS


def test_004_04_the_same_index_gives_the_same_key_once(alice: App, bob: App) -> None:
    ksid = opened_by_both(alice, bob, WAITING)
    order = list(range(300))
    random.Random(4).shuffle(order)
    ours = {index: bytes(alice.get(ksid, index).key) for index in order}
    theirs = {index: bytes(bob.get(ksid, index).key) for index in range(300)}
    assert ours == theirs and len(set(ours.values())) == 300
    assert alice.get(ksid, 7).status is Status.INSUFFICIENT_KEY
    assert bob.get(ksid, 299).status is Status.INSUFFICIENT_KEY


def test_004_04_many_at_once_get_a_chunk_once(sites: StreamSites, alice: App, bob: App) -> None:
    ksid = opened_by_both(alice, bob, WAITING)
    apps = [sites.client(ALICE) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda app: app.get(ksid, 3), apps))
    statuses = sorted(answer.status for answer in answers)
    assert statuses == [Status.SUCCESS] + [Status.INSUFFICIENT_KEY] * 7


@pytest.mark.parametrize("chunk_bytes", [8, 33, 1000, 16 * 1024])
def test_004_05_chunks_have_the_agreed_length(alice: App, bob: App, chunk_bytes: int) -> None:
    ksid = opened_by_both(alice, bob, QoS(chunk_bytes=chunk_bytes, timeout_ms=20_000, ttl_s=600))
    for index in (0, 1, 2):
        ours, theirs = alice.get(ksid, index), bob.get(ksid, index)
        assert ours.index == index and len(ours.key) == chunk_bytes and ours.key == theirs.key


@pytest.mark.parametrize(
    "wish",
    [
        {"chunk_bytes": 1},
        {"chunk_bytes": 1 << 20},
        {"min_bps": 1_000_000},
        {"max_bps": 100, "min_bps": 200},
        {"ttl_s": 10_000_000},
        {"timeout_ms": 3_600_000},
        {"metadata_mimetype": "text/xml"},
    ],
)
def test_004_06_a_qos_that_is_not_met_gets_one_that_is(alice: App, wish: dict[str, object]) -> None:
    first = alice.open(QoS(**{"chunk_bytes": 32, "timeout_ms": 100, "ttl_s": 60, **wish}))  # type: ignore[arg-type]
    assert first.status is Status.QOS_NOT_MET and first.qos is not None
    second = alice.open(first.qos)
    assert second.status is Status.PEER_NOT_CONNECTED and second.qos == first.qos
    assert second.ksid is not None and alice.close_stream(second.ksid) is Status.SUCCESS


def test_004_06_the_second_application_learns_the_qos_of_the_first(alice: App, bob: App) -> None:
    ksid = alice.open(QoS(chunk_bytes=64, timeout_ms=20_000, ttl_s=600)).ksid
    assert ksid is not None
    time.sleep(0.5)
    other = bob.open(QoS(chunk_bytes=32, timeout_ms=20_000, ttl_s=600), ksid)
    assert other.status is Status.QOS_NOT_MET and other.qos is not None and other.qos.chunk_bytes == 64
    assert bob.open(other.qos, ksid).status is Status.SUCCESS


def test_004_07_no_second_brings_more_than_the_highest_rate(alice: App, bob: App) -> None:
    ksid = opened_by_both(alice, bob, QoS(chunk_bytes=32, max_bps=2560, timeout_ms=20_000, ttl_s=600))
    came_s = []
    for index in range(16):
        assert alice.get(ksid, index).status is Status.SUCCESS
        came_s.append(time.monotonic())
    # Ten chunks of 256 bits a second: the eleventh comes a second after the first, less the way of an answer.
    for first, eleventh in zip(came_s, came_s[10:], strict=False):
        assert eleventh - first > 0.9


def test_004_07_the_lowest_rates_of_all_streams_fit_the_link(alice: App) -> None:
    first = alice.open(QoS(chunk_bytes=32, min_bps=8_000, ttl_s=60))
    assert first.status is Status.PEER_NOT_CONNECTED and first.ksid is not None
    second = alice.open(QoS(chunk_bytes=32, min_bps=8_000, ttl_s=60))
    assert second.status is Status.QOS_NOT_MET and second.qos is not None and second.qos.min_bps == 2_000
    alice.close_stream(first.ksid)
    third = alice.open(QoS(chunk_bytes=32, min_bps=8_000, ttl_s=60))
    assert third.status is Status.PEER_NOT_CONNECTED and third.ksid is not None
    alice.close_stream(third.ksid)


def test_004_08_a_call_that_finds_no_key_ends_at_its_timeout(alice: App, bob: App) -> None:
    ksid = opened_by_both(alice, bob, QoS(chunk_bytes=32, timeout_ms=1_000, ttl_s=600))
    began_s = time.monotonic()
    answer = alice.get(ksid, 1_000_000)  # far beyond what is fed
    took_s = time.monotonic() - began_s
    assert answer.status in (Status.INSUFFICIENT_KEY, Status.TIMEOUT)
    assert 0.9 <= took_s <= 1.1 + 0.3  # 10 %, and the ways of question and answer on a busy machine


def test_004_09_unread_chunks_are_destroyed_at_their_time(sites: StreamSites, alice: App, bob: App) -> None:
    ksid = opened_by_both(alice, bob, QoS(chunk_bytes=32, timeout_ms=200, ttl_s=1))
    deadline_s = time.monotonic() + 20
    while not unread_bytes(sites, ksid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    name = first_batch(sites, ksid)
    while holds_batch(sites, name) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert not holds_batch(sites, name)


def unread_bytes(sites: StreamSites, ksid: UUID) -> int:
    """Return what both nodes hold of a stream."""

    async def count() -> int:
        total = 0
        for kme, app in sites.apps.items():
            total += await app.store.run(lambda tx, kme=kme: held(KmeView(tx, kme), ksid))  # type: ignore[misc]
        return total

    def held(view: KmeView, ksid: UUID) -> int:
        stream = etsi004.stream_of(view, str(ksid))
        batches = etsi004.stream_batches(view, stream.batches) if stream is not None else []
        return sum(view.stock_bytes(batch.stream) for batch in batches)

    return sites.on_loop(count())


def first_batch(sites: StreamSites, ksid: UUID) -> int:
    """Return the tag of the first batch of a stream that either node holds."""

    def tags(view: KmeView) -> list[int]:
        stream = etsi004.stream_of(view, str(ksid))
        batches = etsi004.stream_batches(view, stream.batches) if stream is not None else []
        return [batch.batch_tag for batch in batches]

    async def find() -> int:
        for kme, app in sites.apps.items():
            for tag in await app.store.run(lambda tx, kme=kme: tags(KmeView(tx, kme))):  # type: ignore[misc]
                return tag
        raise AssertionError("neither node holds key of the stream")

    return sites.on_loop(find())


def holds_batch(sites: StreamSites, tag: int) -> bool:
    """Tell whether any byte of a batch is left at either node."""

    def left(view: KmeView) -> int:
        return sum(stock for name, stock in view.streams("pair/") if f"{tag:010x}" in name)

    async def count() -> int:
        return sum(
            [await app.store.run(lambda tx, k=kme: left(KmeView(tx, k))) for kme, app in sites.apps.items()]
        )

    return sites.on_loop(count()) > 0


def test_004_10_metadata_that_do_not_fit_cost_no_key(alice: App, bob: App) -> None:
    qos = QoS(chunk_bytes=32, timeout_ms=20_000, ttl_s=600, metadata_mimetype=JSON_MIME)
    ksid = opened_by_both(alice, bob, qos)
    small = alice.get(ksid, 0, metadata_size=4)
    assert small.status is Status.METADATA_TOO_SMALL and small.metadata_size > 4
    enough = alice.get(ksid, 0, metadata_size=small.metadata_size + 4)  # the age may have grown a digit
    assert enough.status is Status.SUCCESS and enough.key == bob.get(ksid, 0, 1024).key
    said = json.loads(enough.metadata)
    assert said["hops"] == 1 and 0 <= said["age"] < 60_000
    full = json.loads(alice.get(ksid, 1, metadata_size=4096).metadata)
    assert full["openqci_provenance"]["links"] and not full["openqci_provenance"]["simulated"]


def test_004_11_closing_frees_the_ksid(alice: App, bob: App) -> None:
    ksid = opened_by_both(alice, bob, WAITING)
    first = alice.get(ksid, 0).key
    assert alice.close_stream(ksid) is Status.SUCCESS
    assert alice.close_stream(ksid) is Status.NO_CONNECTION
    assert alice.get(ksid, 1).status is Status.NO_CONNECTION
    assert bob.close_stream(ksid) is Status.SUCCESS
    time.sleep(0.5)
    assert alice.open(WAITING, ksid).status is Status.PEER_NOT_CONNECTED
    assert bob.open(WAITING, ksid).status is Status.SUCCESS
    again = alice.get(ksid, 0)
    assert again.status is Status.SUCCESS and again.key != first
    assert bob.get(ksid, 0).key == again.key


def test_004_11_an_unknown_ksid_is_an_error(alice: App) -> None:
    assert alice.get(uuid4(), 0).status is Status.NO_CONNECTION
    assert alice.close_stream(uuid4()) is Status.NO_CONNECTION


def test_004_12_after_a_close_the_other_side_reads_to_the_end(
    sites: StreamSites, alice: App, bob: App
) -> None:
    ksid = opened_by_both(alice, bob, QoS(chunk_bytes=4096, timeout_ms=3_000, ttl_s=600))
    assert bob.get(ksid, 0).status is Status.SUCCESS
    assert alice.close_stream(ksid) is Status.SUCCESS
    time.sleep(0.5)
    read = 0
    while (answer := bob.get(ksid, read + 1)).status is Status.SUCCESS:
        read += 1
    assert answer.status is Status.NO_PEER and 1 <= read < 64
    assert bob.close_stream(ksid) is Status.SUCCESS
    time.sleep(0.2)
    assert unread_bytes(sites, ksid) == 0


HEAD = etsi004_model.HEAD
GOOD_OPEN = bytes(etsi004_model.encode_request(OpenConnect("alice", "bob", WAITING)))


@pytest.mark.parametrize(
    "frame",
    [
        b"\x02\x00\x01" + GOOD_OPEN[3:],
        HEAD.pack(b"\x01\x00\x01", 0x77, 0),
        HEAD.pack(b"\x01\x00\x01", Service.OPEN_CONNECT_REPLY, 4) + bytes(4),
        HEAD.pack(b"\x01\x00\x01", Service.GET_KEY, 0xFFFFFFFF),
        HEAD.pack(b"\x01\x00\x01", Service.GET_KEY, 20) + bytes(20),
        HEAD.pack(b"\x01\x00\x01", Service.CLOSE, 0),
        HEAD.pack(b"\x01\x00\x01", Service.OPEN_CONNECT, len(GOOD_OPEN) - 9) + GOOD_OPEN[8:-1],
        HEAD.pack(b"\x01\x00\x01", Service.OPEN_CONNECT, 302) + bytes(302),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_004_13_what_is_no_frame_closes_the_connection(sites: StreamSites, frame: bytes) -> None:
    before = streams_of(sites)
    assert sites.on_loop(said_to(sites, frame)) == b""
    assert streams_of(sites) == before


def test_004_13_a_frame_that_is_cut_off_has_no_effect(
    sites: StreamSites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etsi004_server, "FRAME_S_MAX", 0.3)
    before = streams_of(sites)
    for end in (1, 7, 8, 20, len(GOOD_OPEN) - 1):
        assert sites.on_loop(said_to(sites, GOOD_OPEN[:end])) == b""
    assert streams_of(sites) == before


def test_004_13_random_bytes_close_the_connection(
    sites: StreamSites, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etsi004_server, "FRAME_S_MAX", 0.3)
    chance = random.Random(13)
    before = streams_of(sites)
    with caplog.at_level(logging.WARNING):
        for _ in range(150):
            noise = chance.randbytes(chance.randrange(1, 64))
            frame = bytearray(GOOD_OPEN if chance.random() < 0.5 else noise)
            for _ in range(chance.randrange(1, 4)):
                frame[chance.randrange(min(len(frame), 8))] = chance.randrange(256)
            sites.on_loop(said_to(sites, bytes(frame)))
    assert not [record for record in caplog.records if "failed" in record.getMessage()]
    assert streams_of(sites) - before <= set()


async def said_to(sites: StreamSites, frame: bytes) -> bytes:
    """Send bytes as Alice; return what comes back until the server closes."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", sites.port(ALICE), ssl=sites.context(ALICE), server_hostname="127.0.0.1"
    )
    writer.write(frame)
    said = b""
    with suppress(ConnectionError):
        said = await asyncio.wait_for(reader.read(), 15)
    writer.transport.abort()
    return said


def streams_of(sites: StreamSites) -> set[str]:
    async def names() -> set[str]:
        streams = await sites.apps[A].store.run(lambda tx: etsi004.all_streams(KmeView(tx, A)))
        return {stream.ksid for stream in streams}

    return sites.on_loop(names())


def test_004_14_without_a_certificate_there_is_no_connection(sites: StreamSites) -> None:
    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", sites.port(ALICE), ssl=sites.context(None), server_hostname="127.0.0.1"
        )
        try:
            writer.write(GOOD_OPEN)
            return await reader.read()
        finally:
            writer.transport.abort()

    # In TLS 1.3 a client learns only after its handshake that the server refuses it.
    said = b""
    with suppress(ssl.SSLError, ConnectionError):
        said = sites.on_loop(ask())
    assert said == b""


def test_004_14_the_certificate_must_be_of_one_of_the_two(sites: StreamSites, alice: App) -> None:
    assert alice.open(WAITING, source="eve", destination="bob").status is Status.NO_CONNECTION
    assert alice.open(WAITING, source="bob", destination="eve").status is Status.NO_CONNECTION
    ksid = alice.open(WAITING).ksid
    assert ksid is not None
    with pytest.raises((ConnectionError, OSError)):
        # Eve is served at the other node: here she is nobody.
        sites.client(ALICE, certificate_of=EVE).open(WAITING, ksid)


def test_a_node_that_is_started_again_goes_on_with_its_streams(tmp_path: Path) -> None:
    own = StreamSites(tmp_path, 19200)
    try:
        own.wait_until_met()
        alice, bob = own.client(ALICE), own.client(BOB)
        ksid = opened_by_both(alice, bob, WAITING)
        first = alice.get(ksid, 0).key
        own.hang_up()
        for kme in (B, A):
            own.stop(kme)
            own.start(kme)
        own.wait_until_met()
        alice, bob = own.client(ALICE), own.client(BOB)
        assert bob.get(ksid, 0).key == first
        assert alice.get(ksid, 0).status is Status.INSUFFICIENT_KEY
        assert alice.get(ksid, 5000).status in (Status.TIMEOUT, Status.SUCCESS)
        assert alice.get(ksid, 600).key == bob.get(ksid, 600).key
    finally:
        own.close()


def test_the_wire_forms_are_those_of_the_sheet() -> None:
    """Golden bytes: header of 8 bytes, then KSID, index and room for metadata, all big-endian."""
    ksid = UUID("00112233-4455-6677-8899-aabbccddeeff")
    frame = etsi004_model.encode_request(GetKey(ksid, 258, 1024))
    assert frame.hex() == "0100010400000018" + "00112233445566778899aabbccddeeff" + "00000102" + "00000400"
    answer = etsi004_model.encode_key(258, b"\xaa\xbb", b"{}")
    assert answer.hex() == "0100010500000014000000000000010200000002aabb000000027b7d"
    assert len(GOOD_OPEN) == 8 + len(b"alice\0bob\0") + 7 * 4 + 256 + 16
