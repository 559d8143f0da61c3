"""ETSI GS QKD 004 as a source of link key: two nodes whose modules are the stream servers of two others."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from openqci.core.errors import IntegrityError, KeyUnavailable, PeerMisbehaved
from openqci.delivery.etsi004_model import Status
from openqci.keystore.supply import JoinedSource, SourceReport
from openqci.services import source_004
from openqci.services.kme_check import check_neighbours
from openqci.services.kme_config_file import load_config
from openqci.services.source_004 import Source004, Source004Settings, parse_name, report_of
from openqci.services.tls import TlsFiles
from tests.conformance.etsi004.make import ALICE, BOB, StreamSites
from tests.services.link_nodes import Nodes

CHUNK_BYTES = 256
STATED = SourceReport("BB84", "stated", 1e-9, False)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StreamSites]:
    running = StreamSites(tmp_path_factory.mktemp("modules"), 19400)
    running.wait_until_met()
    yield running
    running.close()


def source(sites: StreamSites, sae: str, chunk_bytes: int = CHUNK_BYTES) -> Source004:
    """Return one end: the node that is an application of this name at its module."""
    settings = Source004Settings(
        host="127.0.0.1",
        port=sites.port(ALICE if sae == ALICE else BOB),
        source="qkd://alice",
        destination="qkd://bob",
        chunk_bytes=chunk_bytes,
        report=STATED,
    )
    folder = sites.folder / sae
    files = TlsFiles(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")
    return Source004(settings, files.client_context)


class Ends:
    """Both ends of a link, each with its own module."""

    def __init__(self, sites: StreamSites) -> None:
        self.sites = sites
        self.leader, self.follower = source(sites, ALICE), source(sites, BOB)

    async def joined(self) -> None:
        text = await self.leader.prepare()
        assert text is not None
        await self.follower.join(text)

    async def drawn(self, length_bytes_max: int = 4096) -> tuple[tuple[str, ...], bytes]:
        """Draw at the leading end, as often as it takes."""
        until_s = time.monotonic() + 30
        while True:
            try:
                supplied = await self.leader.draw(length_bytes_max)
            except KeyUnavailable:
                assert time.monotonic() < until_s, "no key came"
            else:
                with supplied.key:
                    assert supplied.report == STATED
                    return supplied.key_ids, bytes(supplied.key.reveal())

    async def named(self, names: tuple[str, ...], length_bytes: int) -> bytes:
        key, report = await self.follower.draw_named(names, length_bytes)
        assert report == STATED
        with key:
            return bytes(key.reveal())

    async def close(self) -> None:
        await self.leader.close()
        await self.follower.close()


@pytest.fixture
def ends(sites: StreamSites) -> Iterator[Ends]:
    both = Ends(sites)
    yield both
    sites.on_loop(both.close())


def test_it_is_a_source_whose_ends_meet_first() -> None:
    assert issubclass(Source004, JoinedSource)


def test_both_ends_draw_the_same_once(sites: StreamSites, ends: Ends) -> None:
    async def work() -> None:
        await ends.joined()
        seen = set()
        for _ in range(6):
            names, key = await ends.drawn()
            assert 64 < len(key) <= 4096 and len(key) == CHUNK_BYTES * len(names)
            assert await ends.named(names, len(key)) == key
            seen.update(names)
            with pytest.raises(IntegrityError):
                await ends.follower.draw_named(names, len(key))
        ksids = {parse_name(name)[0] for name in seen}
        assert len(ksids) == 1 and sorted(parse_name(name)[1] for name in seen) == list(range(len(seen)))

    sites.on_loop(work(), 60.0)


def test_until_the_other_end_has_joined_there_is_no_key(sites: StreamSites, ends: Ends) -> None:
    async def work() -> None:
        with pytest.raises(KeyUnavailable):
            await ends.leader.draw(4096)
        text = await ends.leader.prepare()
        with pytest.raises(KeyUnavailable):
            await ends.leader.draw(4096)
        assert text is not None and await ends.leader.prepare() is None
        await ends.follower.join(text)
        names, key = await ends.drawn()
        assert await ends.named(names, len(key)) == key

    sites.on_loop(work(), 60.0)


def test_the_other_end_goes_on_after_it_has_started_again(sites: StreamSites, ends: Ends) -> None:
    async def work() -> None:
        await ends.joined()
        names, key = await ends.drawn()
        again = source(sites, BOB)  # it has forgotten that it had joined
        drawn, _ = await again.draw_named(names, len(key))
        with drawn:
            assert bytes(drawn.reveal()) == key
        await again.close()

    sites.on_loop(work(), 60.0)


def test_what_the_leading_end_has_drawn_can_be_fetched_after_it_has_closed(
    sites: StreamSites, ends: Ends
) -> None:
    async def work() -> None:
        await ends.joined()
        names, key = await ends.drawn()
        await ends.leader.close()
        assert await ends.named(names, len(key)) == key

    sites.on_loop(work(), 60.0)


def test_a_stream_that_its_module_ended_is_followed_by_another(sites: StreamSites, ends: Ends) -> None:
    async def work() -> None:
        await ends.joined()
        names, key = await ends.drawn()
        assert await ends.named(names, len(key)) == key
        ksid = parse_name(names[0])[0]
        assert await ends.leader._call(lambda client: client.close_stream(ksid)) is Status.SUCCESS
        with pytest.raises(KeyUnavailable):
            await ends.leader.draw(4096)
        await ends.joined()
        names, key = await ends.drawn()
        assert parse_name(names[0])[0] != ksid
        assert await ends.named(names, len(key)) == key

    sites.on_loop(work(), 60.0)


def test_a_stream_that_nobody_joins_is_followed_by_another(
    sites: StreamSites, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_004, "STILL_S_MAX", 0.0)

    async def work() -> None:
        first = await ends.leader.prepare()
        for _ in range(2):
            with suppress(KeyUnavailable):
                await ends.leader.draw(4096)
        second = await ends.leader.prepare()
        assert first is not None and second is not None and first != second

    sites.on_loop(work(), 60.0)


def test_a_lost_answer_costs_its_chunk_and_no_more(sites: StreamSites, ends: Ends) -> None:
    async def work() -> None:
        await ends.joined()
        names, key = await ends.drawn()
        assert await ends.named(names, len(key)) == key
        after = parse_name(names[-1])[1]

        real = ends.leader._connection
        assert real is not None
        asked = asyncio.Event()

        async def lost(*args: object) -> None:
            asked.set()
            raise ConnectionResetError("cut")

        real.get_key = lost  # type: ignore[method-assign,assignment]
        with pytest.raises(ConnectionError):
            await ends.leader.draw(4096)
        assert asked.is_set() and ends.leader.answers_lost == 1
        names, key = await ends.drawn()
        assert parse_name(names[0])[1] == after + 2
        assert await ends.named(names, len(key)) == key

    sites.on_loop(work(), 60.0)


def test_chunks_of_a_drawing_that_broke_off_are_not_lost(sites: StreamSites, ends: Ends) -> None:
    """A module gives a chunk once: what came before the break is there when it is asked for again."""

    async def work() -> None:
        await ends.joined()
        names, key = await ends.drawn()
        assert len(names) > 2
        await ends.named(names[:1], CHUNK_BYTES)
        names, key = names[1:], key[CHUNK_BYTES:]
        client, count = ends.follower._connection, 0
        assert client is not None
        get_key = client.get_key

        async def breaks(ksid: UUID, index: int, *rest: float) -> object:
            nonlocal count
            count += 1
            if count == 2:
                raise ConnectionResetError("cut")
            return await get_key(ksid, index, *rest)

        client.get_key = breaks  # type: ignore[method-assign,assignment]
        with pytest.raises(ConnectionError):
            await ends.named(names, len(key))
        assert await ends.named(names, len(key)) == key

    sites.on_loop(work(), 60.0)


def test_chunks_that_never_come_do_not_hold_up_the_line(
    sites: StreamSites, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        await ends.joined()
        names, _ = await ends.drawn()
        ksid = parse_name(names[0])[0]
        never = (f"{ksid}:4000000",)
        with pytest.raises(KeyUnavailable):
            await ends.named(never, CHUNK_BYTES)
        monkeypatch.setattr(source_004, "NAMED_S_MAX", 0.0)
        with pytest.raises(IntegrityError):
            await ends.named(never, CHUNK_BYTES)
        with pytest.raises((IntegrityError, KeyUnavailable)):
            await ends.named((f"{uuid4()}:0",), CHUNK_BYTES)

    sites.on_loop(work(), 60.0)


@pytest.mark.parametrize(
    "names",
    [("",), ("x:1",), (f"{UUID(int=0)}:1",), (f"{uuid4()}:-1",), (f"{uuid4()}:99999999999",), ("a", "a"), ()],
)
def test_names_that_are_none_are_refused(sites: StreamSites, ends: Ends, names: tuple[str, ...]) -> None:
    with pytest.raises(PeerMisbehaved):
        sites.on_loop(ends.named(names, CHUNK_BYTES))


def test_what_a_module_tells_of_its_key_counts() -> None:
    assert report_of(STATED, b"no JSON") == STATED
    assert report_of(STATED, b'{"age":3,"hops":1}') == STATED
    assert report_of(STATED, b'{"openqci_provenance":{"simulated":true}}').simulated
    assert report_of(STATED, b'{"openqci_source":{"protocol":"COW"}}').protocol == "COW"
    with pytest.raises(PeerMisbehaved):
        report_of(STATED, b'{"openqci_source":{"epsilon":"small"}}')


def link(sites: StreamSites, end: str) -> str:
    """Return the source of a node's link: the end p is alice at its module, the end q is bob."""
    sae = ALICE if end == "p" else BOB
    folder = sites.folder / sae
    return f"""[link.etsi004]
address = "127.0.0.1:{sites.port(sae)}"
source = "qkd://alice"
destination = "qkd://bob"
certificate = "{folder}/cert.pem"
key = "{folder}/key.pem"
authority = "{folder}/ca.pem"
"""


def test_two_nodes_take_their_link_key_from_key_streams(sites: StreamSites, tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, sites.authority, sites.on_loop, lambda end: link(sites, end))
    nodes.start("p", "q")
    try:
        nodes.exchange()
        for end in "pq":
            results = sites.on_loop(check_neighbours(load_config(tmp_path / end / "kme.toml")))
            assert [str(result) for result in results if not result.good] == []
            assert any("ETSI GS QKD 004" in result.note for result in results)
        deposited = nodes.apps["p"].node.figures.links["pq"].deposited_bytes
        for end in "qp":
            nodes.stop(end)
            nodes.start(end)
        nodes.exchange()
        assert deposited > 0 and nodes.apps["p"].node.figures.links["pq"].refused_deposits == 0
    finally:
        nodes.close()


def test_a_link_is_filled_though_only_one_end_spends(sites: StreamSites, tmp_path: Path) -> None:
    """Each end may begin to spend half of the key; what the other leaves must not stop the filling."""
    watermarks = "low_bytes = 65536\nhigh_bytes = 262144\n"
    nodes = Nodes(tmp_path, sites.authority, sites.on_loop, lambda end: watermarks + link(sites, end))
    nodes.start("p", "q")
    try:
        for _ in range(5):
            nodes.exchange(number=128, size_bits=4096)
        status = sites.on_loop(nodes.apps["p"].node.status())["links"][0]
        assert status["deposited_bytes"] > 5 * 128 * 512
    finally:
        nodes.close()
