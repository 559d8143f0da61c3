"""Three domains in one process: keys over borders; what goes on when a domain or the orchestrator is gone."""

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from openqci.cli.up.kem_ring import KemRing
from openqci.cli.up.relay_run import Journey, one_step, run_relay, settle_pending
from openqci.cli.up.relaying import EndToEnd, Pair
from openqci.core.identifiers import DomainId, KmeId, LinkId, SaeId, SiteId, is_border, kme_of_site
from openqci.core.provenance import KeyPath, Provenance
from openqci.delivery import SaeDirectory, SaeRecord
from openqci.delivery.border_account import Crossed, crossed
from openqci.delivery.end_to_end import EndToEndOrder, HybridPolicy, KeyWanted, due_keys, open_orders
from openqci.delivery.pair_stock import Role, batch_of
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.services.sqlite_store import SqliteKeyStore
from tests.cli.test_relaying import METRO, STOCK_BYTES, in_book, in_store, put, running, until

VIENNA, SCHWECHAT, BRATISLAVA, GYOR = map(SiteId, ("at-vienna", "at-schwechat", "sk-bratislava", "hu-gyor"))
PLACES = {SaeId("a"): VIENNA, SaeId("b"): SCHWECHAT, SaeId("c"): BRATISLAVA, SaeId("d"): GYOR}
AT_SK, SK_HU = LinkId("sk-bratislava.at|sk-bratislava"), LinkId("sk-bratislava.hu|sk-bratislava")
SOUTH = LinkId("hu-sopron.at|hu-sopron")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteKeyStore]:
    opened = SqliteKeyStore.open(tmp_path / "store.sqlite", bytes(32))
    for sae, site in PLACES.items():
        record = SaeRecord(sae, site, kme_of_site(site), sae, "", 0.0)
        opened.submit(lambda tx, each=record: SaeDirectory(tx).enrol(each)).result()
    for number, (link, hop) in enumerate(METRO.hops.items()):
        for site in (hop.a, hop.b):
            put(opened, link, site, bytes([number, site == hop.a]) * (STOCK_BYTES // 2))
    yield opened
    opened.close()


def do_with(work: Callable[[EndToEnd], object], store: SqliteKeyStore) -> None:
    async def whole() -> None:
        async with running(store) as end_to_end:
            await work(end_to_end)  # type: ignore[misc]

    asyncio.run(whole())


async def keyed(end_to_end: EndToEnd, master: str, slave: str) -> dict[str, object]:
    """Have a pair get key; return what the console is told of its batch."""

    def batches() -> list[dict[str, object]]:
        return [
            each for each in end_to_end.recent if (each["master_sae"], each["slave_sae"]) == (master, slave)
        ]

    known = [each["batch_tag"] for each in batches()]
    assert end_to_end.demand(SaeId(master), SaeId(slave), 32) is None
    await until(lambda: [each for each in batches() if each["batch_tag"] not in known])
    await until(lambda: not any(pair.relaying for pair in end_to_end.pairs.values()))
    return batches()[-1]


async def waiting(end_to_end: EndToEnd, master: str, slave: str) -> Pair:
    """Ask for key that does not come; return the pair once it is known why."""
    end_to_end.demand(SaeId(master), SaeId(slave), 32)
    await until(lambda: (SaeId(master), SaeId(slave)) in end_to_end.pairs)
    pair = end_to_end.pairs[SaeId(master), SaeId(slave)]
    await until(lambda: pair.why_not)
    return pair


def test_keys_go_over_borders_in_both_directions_and_the_book_follows(store: SqliteKeyStore) -> None:
    """Also where a way begins or ends with a border, or crosses two of them in one site."""

    async def work(end_to_end: EndToEnd) -> None:
        for master, slave in (("a", "c"), ("c", "a"), ("c", "d"), ("d", "b"), ("a", "d")):
            batch = await keyed(end_to_end, master, slave)
            assert batch["hybrid"] == ["ML-KEM-768"]
            assert any(link in (AT_SK, SK_HU, SOUTH) for link in batch["links"])  # type: ignore[attr-defined]
        assert in_book(end_to_end.book) == in_store(store)

    do_with(work, store)


def path(route: str, links: str) -> KeyPath:
    return KeyPath(tuple(route.split()), tuple(links.split()), "hop", 1e-9)


TWO_WAYS = (
    path(
        "at-vienna at-schwechat sk-bratislava.at sk-bratislava sk-bratislava.hu hu-mosonmagyarovar hu-gyor",
        f"at-schwechat--at-vienna at-schwechat--sk-bratislava {AT_SK} {SK_HU} "
        "hu-mosonmagyarovar--sk-bratislava hu-gyor--hu-mosonmagyarovar",
    ),
    path(
        "at-vienna at-eisenstadt hu-sopron.at hu-sopron hu-gyor--hu-sopron.tn1 hu-gyor",
        f"at-eisenstadt--at-vienna at-eisenstadt--hu-sopron {SOUTH} "
        "hu-gyor--hu-sopron.2 hu-gyor--hu-sopron.1",
    ),
)
BORDER_FIRST = (
    path(
        "sk-bratislava sk-bratislava.at at-schwechat at-vienna",
        f"{AT_SK} at-schwechat--sk-bratislava at-schwechat--at-vienna",
    ),
)


def wanted(paths: tuple[KeyPath, ...]) -> KeyWanted:
    ends = [kme_of_site(SiteId(site)) for site in (paths[0].route[0], paths[0].route[-1])]
    names = ("c", "a") if paths == BORDER_FIRST else ("a", "d")
    return KeyWanted(
        *ends,
        *map(SaeId, names),
        key_bytes=256,
        paths=paths,
        threshold=len(paths),
        policy=HybridPolicy.BOTH,
        deadline_s=time.time() + 60,
        protocols=("BB84",),
        proofs=("lim-2014",),
        simulated=True,
    )


def batch(store: SqliteKeyStore, order: EndToEndOrder, role: Role) -> bytes | None:
    kme = KmeId(order.origin_kme if role == "master" else order.target_kme)

    def look(transaction: StoreTransaction) -> bytes | None:
        view = KmeView(transaction, kme)
        found = batch_of(view, order.batch_tag, role)
        return None if found is None else bytes(view.take(found.stream, 0, found.length_bytes).reveal())

    return store.submit(look).result()


def pending(transaction: StoreTransaction) -> int:
    views = [KmeView(transaction, kme_of_site(site)) for site in PLACES.values()]
    return sum(len(open_orders(view)) + len(due_keys(view)) for view in views)


def pair_bytes(transaction: StoreTransaction) -> int:
    kmes = (kme_of_site(site) for site in METRO.sites)
    return sum(stock for kme in kmes for _, stock in transaction.streams(kme, "pair/"))


@pytest.mark.parametrize("paths", [TWO_WAYS, BORDER_FIRST], ids=["two ways", "a border first"])
def test_both_ends_hold_the_same_and_nobody_between(
    store: SqliteKeyStore, paths: tuple[KeyPath, ...]
) -> None:
    done = asyncio.run(run_relay(store, wanted(paths), KemRing(store)))
    assert store.submit(pair_bytes).result() == 2 * 256
    assert {link for link, *_ in done.spends} == {link for each in paths for link in each.qkd_links}
    made = store.submit(partial(provenance, order=done.order)).result()
    assert made.hops == len(paths[0].qkd_links)
    assert [way.borders for way in made.ways] == [each.borders for each in paths]
    crossings = [pair for each in paths for pair in zip(each.links, pairwise(each.route), strict=True)]
    counted = {ends for link, ends in crossings if is_border(link)}
    for near, far in (map(kme_of_site, ends) for ends in counted):
        assert Crossed(far, "out", 1, 256) in store.submit(partial(counts, kme=near)).result()
        assert Crossed(near, "in", 1, 256) in store.submit(partial(counts, kme=far)).result()
    key = batch(store, done.order, "master")
    assert key is not None and key == batch(store, done.order, "slave")


def counts(transaction: StoreTransaction, kme: KmeId) -> list[Crossed]:
    return crossed(KmeView(transaction, kme))


def provenance(transaction: StoreTransaction, order: EndToEndOrder) -> Provenance:
    found = batch_of(KmeView(transaction, KmeId(order.target_kme)), order.batch_tag, "slave")
    assert found is not None
    return found.provenance


@pytest.mark.parametrize("paths", [TWO_WAYS, BORDER_FIRST], ids=["two ways", "a border first"])
def test_a_stop_between_any_two_steps_leaves_a_batch_at_both_ends_or_at_none(
    store: SqliteKeyStore, paths: tuple[KeyPath, ...]
) -> None:
    ring = KemRing(store)
    asyncio.run(ring.know([SiteId(paths[0].route[-1])]))
    outcomes = []
    steps, over = 0, False
    while not over:
        before = store.submit(pair_bytes).result()
        journey = Journey(wanted(paths), 100 + steps)
        steps += 1
        for _ in range(steps):
            journey = store.submit(partial(one_step, journey=journey, ring=ring)).result()
        over = journey.over
        store.submit(settle_pending).result()
        assert store.submit(pending).result() == 0
        outcomes.append(store.submit(pair_bytes).result() - before)
        assert journey.order is not None
        ends = [batch(store, journey.order, role) for role in ("master", "slave")]
        assert ends[0] == ends[1] and (ends[0] is None) == (outcomes[-1] == 0)
    assert outcomes[0] == 0 and outcomes[-1] == 2 * 256 and steps >= 4


def test_without_the_orchestrator_pairs_keep_to_their_borders_and_domains_go_on(
    store: SqliteKeyStore,
) -> None:
    async def work(end_to_end: EndToEnd) -> None:
        first = await keyed(end_to_end, "a", "d")
        end_to_end.federation.orchestrator_lost = True
        pair = end_to_end.pairs[SaeId("a"), SaeId("d")]
        pair.routes = ()
        again = await keyed(end_to_end, "a", "d")
        assert again["batch_tag"] != first["batch_tag"] and again["links"] == first["links"]
        assert len((await keyed(end_to_end, "a", "b"))["links"]) == 1  # type: ignore[arg-type]
        new = await waiting(end_to_end, "a", "c")
        assert "orchestrator does not answer" in new.why_not and not new.routes
        end_to_end.federation.orchestrator_lost = False
        await keyed(end_to_end, "a", "c")

    do_with(work, store)


def test_an_isolated_domain_is_gone_round_and_its_own_keys_go_on(store: SqliteKeyStore) -> None:
    async def work(end_to_end: EndToEnd) -> None:
        await keyed(end_to_end, "a", "d")
        for border in (AT_SK, SK_HU):
            end_to_end.book.close(border, "SK is isolated")
            end_to_end.leave(border)
        assert SOUTH in (await keyed(end_to_end, "a", "d"))["links"]  # type: ignore[operator]
        cut_off = await waiting(end_to_end, "a", "c")
        assert "no way over the borders is open" in cut_off.why_not
        for border in (AT_SK, SK_HU):
            end_to_end.book.open(border)
        assert AT_SK in (await keyed(end_to_end, "a", "c"))["links"]  # type: ignore[operator]

    do_with(work, store)


def test_closed_hops_reach_the_nodes_of_their_domain_as_a_later_configuration(store: SqliteKeyStore) -> None:
    async def work(end_to_end: EndToEnd) -> None:
        await keyed(end_to_end, "a", "d")
        first = {name: each.configuration.version for name, each in end_to_end.federation.domains.items()}
        lost = LinkId("hu-gyor--hu-mosonmagyarovar")
        end_to_end.book.lines[lost].standing_still = "cut"
        end_to_end.leave(lost)
        await keyed(end_to_end, "d", "a")
        domains = end_to_end.federation.domains
        await until(lambda: domains[DomainId("HU")].configuration.version > first[DomainId("HU")])
        named = {link.link_id: link.usable for link in domains[DomainId("HU")].configuration.links}
        assert [link for link, usable in named.items() if not usable] == [lost]
        assert domains[DomainId("AT")].configuration.version == first[DomainId("AT")]
        assert set(named).isdisjoint(link.link_id for link in domains[DomainId("AT")].configuration.links)

    do_with(work, store)
