"""The reaction on a live network: a link is attacked, keys go another way, what is held waits for someone."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from openqci.cli.main import main
from openqci.cli.up.reacting import (
    Reacting,
    leave_ruling,
    rulings_of,
    seen_of_block,
    suspicions_of,
)
from openqci.cli.up.relaying import EndToEnd
from openqci.control.reaction import (
    DESTROY,
    EAVESDROPPING,
    RELEASE,
    BlockKept,
    BlockRefused,
    LinkBack,
    LinkLost,
    Ruling,
)
from openqci.core.identifiers import LinkId, kme_of_site
from openqci.delivery.holding import held_batches
from openqci.keystore.ports import KmeView
from openqci.services.data_directory import DataDirectory
from openqci.services.sqlite_store import SqliteKeyStore
from openqci.twin.block import QBER_MAX, BlockOutcome
from openqci.twin.hops import HopState
from tests.cli.test_relaying import (
    MASTER,
    METRO,
    SLAVE,
    STOCK_BYTES,
    in_book,
    in_store,
    pair_stock,
    put,
    running,
    until,
)

START, END = next(iter(METRO.hops.values())).a, list(METRO.hops.values())[-1].b
WAIT_S = 2.0
"""After a cut stocks flow again within this."""


def attacked(link: LinkId) -> BlockRefused:
    return BlockRefused(link, 0.13, "QBER too high 0.1300 in the key basis, limit 0.09", 1.0)


@asynccontextmanager
async def reacting_network(store: SqliteKeyStore) -> AsyncIterator[tuple[EndToEnd, Reacting]]:
    """Run relays over a full network, with the reaction beside them, as the live network does."""
    async with running(store) as end_to_end:
        known = await store.run(suspicions_of)
        reacting = Reacting(store, METRO, end_to_end.book, end_to_end.clock, known, end_to_end.leave)
        notes: set[asyncio.Task[None]] = set()
        end_to_end.relayed = lambda done: notes.add(asyncio.create_task(reacting.relayed(done.order)))
        try:
            yield end_to_end, reacting
        finally:
            await asyncio.gather(*notes)


def fill(store: SqliteKeyStore) -> None:
    for link, hop in METRO.hops.items():
        for site in (hop.a, hop.b):
            put(store, link, site, link.encode() * (STOCK_BYTES // len(link)))


async def one_relay(end_to_end: EndToEnd) -> tuple[LinkId, ...]:
    """Ask for key, wait until it is there, and return the links that it came over."""
    before = end_to_end.relays
    assert end_to_end.demand(MASTER, SLAVE, 32) is None
    await until(lambda: end_to_end.relays > before)
    await until(lambda: not any(pair.relaying for pair in end_to_end.pairs.values()))
    await asyncio.sleep(0.05)
    return tuple(end_to_end.recent[-1]["links"])


def held(store: SqliteKeyStore) -> list[int]:
    """Return how many batches each end holds."""
    return [
        store.submit(lambda tx, site=site: len(held_batches(KmeView(tx, kme_of_site(site))))).result()
        for site in (START, END)
    ]


def test_after_an_attack_on_a_link_keys_flow_again_another_way_within_two_seconds(
    store: SqliteKeyStore,
) -> None:
    fill(store)

    async def attack() -> None:
        async with reacting_network(store) as (end_to_end, reacting):
            links = await one_relay(end_to_end)
            began_s = time.monotonic()
            await reacting.see(attacked(links[0]))
            others = await one_relay(end_to_end)
            assert time.monotonic() - began_s < WAIT_S
            assert links[0] not in others
            assert end_to_end.book.state(links[0]) is HopState.DOWN
            (alarm,) = reacting.figures()
            assert (alarm["code"], alarm["severity"], alarm["link_id"]) == (
                EAVESDROPPING,
                "critical",
                links[0],
            )
            assert f"1 batch relayed over it since its last good block held, of {MASTER} and {SLAVE}" in str(
                alarm["reason"]
            )

    asyncio.run(attack())


def test_a_node_out_of_touch_is_gone_round_and_used_again_when_it_is_back(
    store: SqliteKeyStore,
) -> None:
    fill(store)

    async def cut() -> None:
        async with reacting_network(store) as (end_to_end, reacting):
            links = await one_relay(end_to_end)
            await reacting.see(LinkLost(links[0], "fibre cut", 1.0, reaches_peer=False))
            assert links[0] not in await one_relay(end_to_end)
            await reacting.see(LinkBack(links[0], 2.0))
            assert not reacting.figures() and not end_to_end.book.lines[links[0]].trouble
            assert held(store) == [0, 0]

    asyncio.run(cut())


@pytest.mark.parametrize("verdict", [RELEASE, DESTROY])
def test_what_is_held_waits_for_the_officer_at_both_ends_also_over_a_restart(
    store: SqliteKeyStore,
    verdict: str,
) -> None:
    fill(store)

    async def attack() -> tuple[LinkId, ...]:
        async with reacting_network(store) as (end_to_end, reacting):
            links = await one_relay(end_to_end)
            assert pair_stock(store) > 0
            await reacting.see(attacked(links[-1]))
            assert pair_stock(store) == 0 and held(store) == [1, 1]
            return links

    async def rule(link: LinkId) -> None:
        store.submit(lambda tx: leave_ruling(tx, Ruling(link, "Ada", verdict, 0.0))).result()
        async with reacting_network(store) as (end_to_end, reacting):
            assert end_to_end.book.lines[link].trouble.startswith("under suspicion")
            assert [each["code"] for each in reacting.figures()] == [EAVESDROPPING]
            await reacting.take_rulings()
            assert not end_to_end.book.lines[link].trouble and not reacting.figures()
            assert in_book(end_to_end.book) == in_store(store)

    links = asyncio.run(attack())
    before = in_store(store)
    asyncio.run(rule(links[-1]))
    assert held(store) == [0, 0] and not store.submit(suspicions_of).result()
    assert not store.submit(rulings_of).result()
    of_link = {place: left for place, left in in_store(store).items() if place[0] == links[-1]}
    if verdict == RELEASE:
        assert pair_stock(store) > 0 and of_link.items() <= before.items()
    else:
        assert pair_stock(store) == 0 and set(of_link.values()) == {0}


def test_a_relay_under_way_over_an_attacked_link_is_held_when_it_arrives(
    store: SqliteKeyStore,
) -> None:
    fill(store)

    async def attack() -> None:
        async with reacting_network(store) as (end_to_end, reacting):
            end_to_end.demand(MASTER, SLAVE, 32)
            async with asyncio.timeout(10):
                # At every turn of the loop: a relay may be under way for a few of them only.
                while not any(pair.relaying for pair in end_to_end.pairs.values()):
                    await asyncio.sleep(0)
            (pair,) = end_to_end.pairs.values()
            assert pair.routes
            await reacting.see(attacked(pair.routes[0].links[0]))
            await until(lambda: held(store) == [1, 1])

    asyncio.run(attack())


def test_a_ruling_out_of_place_changes_nothing(store: SqliteKeyStore) -> None:
    link = next(iter(METRO.hops))
    store.submit(lambda tx: leave_ruling(tx, Ruling(link, "Ada", RELEASE, 0.0))).result()

    async def rule() -> None:
        async with reacting_network(store) as (_, reacting):
            await reacting.take_rulings()

    asyncio.run(rule())
    assert not store.submit(rulings_of).result()


@pytest.mark.parametrize(
    ("aborted", "expected"),
    [
        ("", BlockKept),
        ("QBER too high 0.1300 in the key basis, limit 0.09; peer aborted ", BlockRefused),
        ("verification failed ", BlockRefused),
    ],
)
def test_what_a_block_says_of_its_link(aborted: str, expected: type) -> None:
    outcome = BlockOutcome("a--b", 1, b"", b"", 1.0, 10, "proof", 0.0, None, aborted)
    seen = seen_of_block(outcome, 5.0)
    assert type(seen) is expected and seen.link_id == "a--b" and seen.now_s == 5.0
    if isinstance(seen, BlockRefused):
        assert ((seen.qber or 0.0) > QBER_MAX) == ("QBER too high" in aborted)


def test_the_officer_rules_on_a_network_at_rest_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "net"
    directory = DataDirectory.open_or_create(folder, "metro", METRO.digest)
    link = next(iter(METRO.hops))
    opened = SqliteKeyStore.open(directory.store_path, directory.kek())

    async def attack() -> None:
        async with running(opened) as end_to_end:
            reacting = Reacting(opened, METRO, end_to_end.book, end_to_end.clock, [], end_to_end.leave)
            await reacting.see(attacked(link))

    asyncio.run(attack())
    opened.close()
    directory.close()
    data_dir = ["--data-dir", str(folder)]
    assert main(["alarm", "list", *data_dir]) == 1
    assert f"critical eavesdropping  {link}: QBER too high" in capsys.readouterr().out
    lift = ["alarm", "lift", *data_dir, "--officer", "Ada"]
    assert main([*lift, "--link", "nowhere", "--release"]) == 2
    assert f"under suspicion: {link}" in capsys.readouterr().err
    assert main([*lift, "--link", link, "--destroy"]) == 0
    assert "destroy its stock and 0 batches, by Ada; done at the next start" in capsys.readouterr().out
