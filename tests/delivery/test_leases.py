"""Leases: kept for one, drawn once, back in the stock when they end; any history of them at both ends."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from openqci.core.errors import KeyUnavailable, RequestRefused
from openqci.core.identifiers import KmeId, SaeId
from openqci.delivery import SaeDirectory, agreement, etsi014, etsi014_leases, leases
from openqci.delivery.etsi014_model import (
    NO_DEMANDS,
    KeyDemands,
    KeyIdsRequest,
    KeyRequest,
    LeaseDocument,
    LeaseRequest,
    Profile,
    key_request_from_body,
    lease_request_from_body,
)
from openqci.delivery.pair_stock import (
    APART_KIND,
    BATCH_KIND,
    EXPIRY_KIND,
    OPENED_KIND,
    QUEUE_KIND,
    RestRule,
    batch_by_key,
    batch_of,
    batches_in_stock,
    destroy_batch,
    destroy_expired,
    stock_bytes,
    stock_keys,
)
from openqci.keystore import outbox
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView
from tests.delivery.make import (
    ALICE,
    BOB,
    LISBON,
    WARSAW,
    enrol,
    identity,
    key_bytes,
    network,
    provenance,
    stock_pair,
)

Result = TypeVar("Result")

PROFILE = Profile(leases_per_sae_max=3, lease_keys_max=50, lease_ttl_s_max=100)
RULE = RestRule(32, agreement.give_up_rest)
IDS = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(40)]


class Site:
    """Lisbon and Warsaw, and what ALICE asks of Lisbon."""

    def __init__(self, *batches: int, expires_s: float = 0.0) -> None:
        self.store: MemoryKeyStore = network()
        self.now_s = 1000.0
        self.tags = 0
        self.stocked = b""
        for length in batches:
            self.stock(length, expires_s)

    def stock(self, length_bytes: int, expires_s: float = 0.0) -> None:
        self.tags += 1
        key = key_bytes(length_bytes)
        self.stocked += key
        self.do(
            partial(
                stock_pair,
                key=key,
                tag=self.tags,
                made=provenance((LISBON, WARSAW)),
                legs=(WARSAW,),
                made_s=1000.0,
                expires_s=expires_s,
            )
        )

    def do(self, work: Callable[..., Result]) -> Result:
        return self.store.submit(work).result()

    def grant(
        self,
        number: int,
        size_bits: int = 256,
        ttl_s: float = 60.0,
        lease_id: str = IDS[0],
        demands: KeyDemands = NO_DEMANDS,
    ) -> LeaseDocument:
        wanted = LeaseRequest(KeyRequest(number, size_bits, demands=demands), ttl_s)
        return self.do(
            lambda tx: etsi014_leases.grant_lease(
                KmeView(tx, LISBON),
                SaeDirectory(tx),
                identity(ALICE),
                BOB,
                wanted,
                lease_id,
                PROFILE,
                self.now_s,
                RULE,
            )
        )

    def enc(
        self, number: int, lease_id: str = "", size_bits: int = 256, caller: SaeId = ALICE
    ) -> dict[str, bytes]:
        request = KeyRequest(number, size_bits, lease_id=lease_id)
        delivery = self.do(
            lambda tx: etsi014.get_key(
                KmeView(tx, LISBON),
                SaeDirectory(tx),
                identity(caller),
                BOB,
                request,
                PROFILE,
                self.now_s,
                RULE,
            )
        )
        return {each.key_id: bytes(each.key.reveal()) for each in delivery.keys}

    def dec(self, keys: dict[str, bytes]) -> None:
        request = KeyIdsRequest(tuple(keys))  # type: ignore[arg-type]
        delivery = self.do(
            lambda tx: etsi014.get_key_with_key_ids(
                KmeView(tx, WARSAW), SaeDirectory(tx), identity(BOB), ALICE, request
            )
        )
        assert {each.key_id: bytes(each.key.reveal()) for each in delivery.keys} == keys

    def show(self, lease_id: str = IDS[0]) -> LeaseDocument:
        return self.do(
            lambda tx: etsi014_leases.show_lease(
                KmeView(tx, LISBON), SaeDirectory(tx), identity(ALICE), BOB, lease_id, self.now_s
            )
        )

    def release(self, lease_id: str = IDS[0], slave: SaeId = BOB) -> int:
        ended = self.do(
            lambda tx: etsi014_leases.release_lease(
                KmeView(tx, LISBON), SaeDirectory(tx), identity(ALICE), slave, lease_id, self.now_s
            )
        )
        return ended.returned_bytes

    def sweep(self) -> list[int]:
        ended = self.do(lambda tx: leases.sweep(KmeView(tx, LISBON), self.now_s))
        return [each.returned_bytes for each in ended]

    def stock_keys(self, size: int = 32) -> int:
        return self.do(lambda tx: stock_keys(KmeView(tx, LISBON), ALICE, BOB, size))

    def records(self, kme: KmeId = LISBON) -> dict[str, int]:
        kinds = BATCH_KIND, QUEUE_KIND, OPENED_KIND, APART_KIND, EXPIRY_KIND, leases.KIND, leases.ENDS_KIND
        return {
            kind: self.do(lambda tx, k=kind: len(list(KmeView(tx, kme).records(k))))  # type: ignore[misc]
            for kind in kinds
        }

    def carry(self) -> None:
        """Bring what Lisbon has to say of rests to Warsaw."""
        turn = self.do(lambda tx: outbox.next_turn(KmeView(tx, LISBON), WARSAW, agreement.BATCH_LANE))
        if turn is not None:
            answers = self.do(lambda tx: outbox.receive(KmeView(tx, WARSAW), LISBON, turn, agreement.rest))
            self.do(lambda tx: outbox.settle(KmeView(tx, LISBON), WARSAW, answers, agreement.settle))


def test_what_is_leased_is_out_of_the_stock_and_the_slave_fetches_it_as_any_key() -> None:
    site = Site(320)
    lease = site.grant(4)
    assert (lease.number, lease.keys_left, lease.size, lease.expires_at_s) == (4, 4, 256, 1060.0)
    assert site.stock_keys() == 6
    others = site.enc(6)
    with pytest.raises(KeyUnavailable):
        site.enc(1)
    own = site.enc(3, IDS[0])
    assert site.show().keys_left == 1
    site.dec(own | others)


def test_the_last_key_ends_a_lease() -> None:
    site = Site(96)
    site.grant(3)
    site.dec(site.enc(3, IDS[0]))
    assert set(site.records().values()) == {0} == set(site.records(WARSAW).values())
    with pytest.raises(RequestRefused) as refused:
        site.show()
    assert refused.value.status == 404


def test_what_is_given_back_is_stock_again_with_the_same_ids() -> None:
    site = Site(320)
    site.grant(8)
    site.dec(site.enc(2, IDS[0]))
    assert site.release() == 6 * 32
    assert site.stock_keys() == 8
    site.dec(site.enc(8))
    assert set(site.records(WARSAW).values()) == {0}


def test_a_lease_ends_by_itself_and_its_keys_return() -> None:
    site = Site(320)
    site.grant(8, ttl_s=60.0)
    site.now_s += 59.0
    assert site.sweep() == []
    site.now_s += 1.5
    with pytest.raises(RequestRefused) as refused:
        site.enc(1, IDS[0])
    assert refused.value.status == 400 and site.stock_keys() == 2, "too late, and not swept yet"
    assert site.sweep() == [8 * 32] and site.sweep() == []
    site.dec(site.enc(10))


def test_a_lease_is_its_holders_alone() -> None:
    site = Site(320)
    site.grant(4)
    for lease_id in (IDS[1], IDS[0][:-1]):
        with pytest.raises(RequestRefused):
            site.enc(1, lease_id)
    mallory = SaeId("mallory")
    site.do(lambda tx: enrol(tx, mallory, LISBON, identity(mallory).certificate_sha256))
    with pytest.raises(RequestRefused) as refused:
        site.enc(1, IDS[0], caller=mallory)
    assert refused.value.status == 400
    with pytest.raises(RequestRefused):
        site.enc(1, IDS[0], caller=BOB)
    with pytest.raises(RequestRefused) as missing:
        site.release(IDS[2])
    assert missing.value.status == 404
    assert site.show().keys_left == 4


def test_a_request_that_does_not_fit_its_lease_takes_nothing() -> None:
    site = Site(320)
    site.grant(4, size_bits=128)
    for number, size in ((5, 128), (1, 256)):
        with pytest.raises(RequestRefused) as refused:
            site.enc(number, IDS[0], size)
        assert refused.value.status == 400 and refused.value.message == etsi014.MANDATORY_NOT_MET
        assert "lease" in str(refused.value.details)
    assert site.show().keys_left == 4
    site.dec(site.enc(4, IDS[0], 128))


def test_a_lease_may_lie_in_several_batches_and_give_parts_of_them_back() -> None:
    site = Site(100, 100, 100)
    site.grant(7)
    site.dec(site.enc(4, IDS[0]))
    site.release()
    assert site.stock_keys() == 9 - 4
    site.dec(site.enc(5))
    site.carry()
    assert set(site.records().values()) == {0} == set(site.records(WARSAW).values())


def test_pieces_do_not_pile_up() -> None:
    site = Site(3200)
    for number in range(40):
        site.grant(1 + number % 3, lease_id=IDS[number])
        site.release(IDS[number])
    assert site.records()[QUEUE_KIND] <= 4
    assert site.stock_keys() == 100


def test_a_short_stock_grants_nothing() -> None:
    site = Site(100)
    with pytest.raises(KeyUnavailable) as shortage:
        site.grant(4)
    assert (shortage.value.wanted_bytes, shortage.value.available_bytes) == (128, 96)
    assert site.stock_keys() == 3 and site.records()[leases.KIND] == 0


def test_an_application_holds_so_many_leases_and_no_more() -> None:
    site = Site(3200)
    for lease_id in IDS[:3]:
        site.grant(1, lease_id=lease_id, ttl_s=50.0)
    with pytest.raises(RequestRefused) as refused:
        site.grant(1, lease_id=IDS[3])
    assert refused.value.status == 503 and refused.value.headers == {"Retry-After": "50"}
    site.release(IDS[1])
    site.grant(1, lease_id=IDS[3])
    site.now_s += 51.0
    site.grant(1, lease_id=IDS[4])


def test_no_lease_lasts_longer_than_its_keys() -> None:
    site = Site(320, expires_s=1050.0)
    with pytest.raises(RequestRefused) as refused:
        site.grant(1, ttl_s=60.0)
    assert refused.value.status == 400 and "50" in refused.value.message
    site.grant(1, ttl_s=50.0)
    site.now_s += 30.0
    with pytest.raises(KeyUnavailable):
        site.grant(1, ttl_s=50.0, lease_id=IDS[1])  # other key, which lives as long, may come
    site.now_s += 21.0
    assert site.sweep() == [32]
    site.do(lambda tx: destroy_expired(KmeView(tx, LISBON), site.now_s))
    assert set(site.records().values()) == {0}
    assert site.do(lambda tx: stock_bytes(KmeView(tx, LISBON), ALICE, BOB)) == 0


def test_demands_are_met_by_what_is_leased() -> None:
    site = Site(320)
    with pytest.raises(RequestRefused) as refused:
        site.grant(1, demands=KeyDemands(max_epsilon=1e-10))
    assert refused.value.message == etsi014.MANDATORY_NOT_MET
    assert site.grant(1, demands=KeyDemands(max_hops=1)).keys_left == 1


def test_a_batch_that_is_destroyed_takes_its_leased_pieces_along() -> None:
    site = Site(320)
    site.grant(4)

    def destroy_all(view: KmeView) -> None:
        """As :func:`openqci.delivery.peers.start_over` does when a peer has another store."""
        for batch in list(batches_in_stock(view, ALICE, BOB)):
            destroy_batch(view, batch)
        lease = leases.lease_of(view, ALICE, IDS[0], site.now_s)
        assert lease is not None
        for piece in list(leases.pieces_apart(view, lease.name)):
            destroy_batch(view, piece)

    site.do(lambda tx: destroy_all(KmeView(tx, LISBON)))
    assert site.show().keys_left == 0
    assert site.release() == 0
    assert set(site.records().values()) == {0}


def test_requests_for_leases_are_read_strictly() -> None:
    request = lease_request_from_body(b'{"number": 40, "size": 128, "ttl_s": 2.5}', PROFILE)
    assert (request.keys.number, request.keys.size_bits, request.ttl_s) == (40, 128, 2.5)
    assert lease_request_from_body(b"", PROFILE) == LeaseRequest(KeyRequest(), 60.0)
    for body in (
        b'{"ttl_s": 0}',
        b'{"ttl_s": 101}',
        b'{"ttl_s": "5"}',
        b'{"ttl_s": true}',
        b'{"ttl_s": null}',
        b'{"number": 51}',
        b'{"number": 0}',
        b'{"size": 12}',
        b'{"extension_mandatory": [{"openqci_lease": "%s"}]}' % IDS[0].encode(),
        b"[]",
    ):
        with pytest.raises(RequestRefused) as refused:
            lease_request_from_body(body, PROFILE)
        assert refused.value.status == 400


def test_a_lease_is_named_by_a_mandatory_extension_where_leases_are_offered() -> None:
    body = b'{"extension_mandatory": [{"openqci_lease": "%s"}]}' % IDS[0].upper().encode()
    assert key_request_from_body(body, PROFILE).lease_id == IDS[0]
    with pytest.raises(RequestRefused, match="supported"):
        key_request_from_body(body)
    for value in (b"1", b"null", b'"x"', b"{}"):
        with pytest.raises(RequestRefused, match="met"):
            key_request_from_body(b'{"extension_mandatory": [{"openqci_lease": %s}]}' % value, PROFILE)


class Leasing(RuleBasedStateMachine):
    """ALICE and BOB over any history: every key once per end and alike, no byte lost but rests (I1 to I5)."""

    @initialize(batches=st.lists(st.integers(40, 400), min_size=1, max_size=4))
    def begin(self, batches: list[int]) -> None:
        self.site = Site(*batches)
        self.keys: dict[str, bytes] = {}
        self.uncollected: dict[str, bytes] = {}
        self.leases: dict[str, list[int]] = {}  # size and keys left
        self.ends_s: dict[str, float] = {}
        self.number = 0

    def made(self, keys: dict[str, bytes]) -> None:
        assert not set(keys) & set(self.keys) and not set(keys.values()) & set(self.keys.values())
        assert all(key in self.site.stocked for key in keys.values())
        self.keys |= keys
        self.uncollected |= keys

    @rule(length=st.integers(40, 400))
    def stock(self, length: int) -> None:
        self.site.stock(length)

    @rule(number=st.integers(1, 5), size=st.sampled_from([8, 16, 32, 48]), ttl_s=st.integers(1, 100))
    def grant(self, number: int, size: int, ttl_s: int) -> None:
        if self.number == len(IDS):
            return
        lease_id = IDS[self.number]
        try:
            lease = self.site.grant(number, 8 * size, float(ttl_s), lease_id)
        except KeyUnavailable as shortage:
            assert shortage.available_bytes < number * size
            return
        except RequestRefused as refused:
            live = [each for each, end in self.ends_s.items() if end > self.site.now_s]
            assert refused.status == 503 and len(live) == PROFILE.leases_per_sae_max
            return
        self.number += 1
        self.leases[lease_id] = [size, lease.keys_left]
        self.ends_s[lease_id] = lease.expires_at_s

    @rule(number=st.integers(1, 4), data=st.data())
    def draw(self, number: int, data: st.DataObject) -> None:
        if not self.leases:
            return
        lease_id = data.draw(st.sampled_from(sorted(self.leases)))
        size, left = self.leases[lease_id]
        live = self.ends_s[lease_id] > self.site.now_s
        try:
            keys = self.site.enc(number, lease_id, 8 * size)
        except RequestRefused:
            assert number > left or not live, "what was granted can be drawn"
            return
        assert live and len(keys) == number <= left
        self.made(keys)
        self.leases[lease_id][1] -= number
        if left == number:
            del self.leases[lease_id], self.ends_s[lease_id]

    @rule(number=st.integers(1, 6), size=st.sampled_from([8, 16, 32, 48]))
    def enc(self, number: int, size: int) -> None:
        try:
            self.made(self.site.enc(number, "", 8 * size))
        except KeyUnavailable:
            return

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if not self.leases:
            return
        lease_id = data.draw(st.sampled_from(sorted(self.leases)))
        if self.ends_s[lease_id] <= self.site.now_s:
            return
        size, left = self.leases.pop(lease_id)
        del self.ends_s[lease_id]
        assert self.site.release(lease_id) == size * left

    @rule(seconds=st.integers(1, 80))
    def wait(self, seconds: int) -> None:
        self.site.now_s += seconds
        over = {each for each, end in self.ends_s.items() if end <= self.site.now_s}
        assert sorted(self.site.sweep()) == sorted(size * left for size, left in map(self.leases.pop, over))
        for each in over:
            del self.ends_s[each]

    @rule()
    def collect(self) -> None:
        if self.uncollected:
            self.site.dec(self.uncollected)
            self.uncollected = {}

    @invariant()
    def both_ends_hold_the_same(self) -> None:
        """What the master's KME has in stock or for leases lies at the slave's, byte by byte."""
        if not hasattr(self, "site"):
            return
        self.site.carry()
        ours, theirs = self.held(LISBON), self.held(WARSAW)
        for tag, (mask, key) in ours.items():
            there, copy = theirs.get(tag, (0, 0))
            assert not mask & ~there and key == copy & mask
        held, copied = (sum(mask.bit_count() for mask, _ in each.values()) // 8 for each in (ours, theirs))
        assert copied == held + sum(map(len, self.uncollected.values()))
        left = sum(size * left for size, left in self.leases.values())
        assert held == left + self.site.do(lambda tx: stock_bytes(KmeView(tx, LISBON), ALICE, BOB))

    def held(self, kme: KmeId) -> dict[int, tuple[int, int]]:
        """Return which bytes of each batch a KME has, and the bytes, as numbers; the reading is undone."""

        class Undone(Exception):
            pass

        found: dict[int, tuple[int, int]] = {}

        def look(transaction: Any) -> None:
            view = KmeView(transaction, kme)
            for name, _ in list(view.records(BATCH_KIND)):
                batch = batch_by_key(view, name)
                assert batch is not None
                for offset, length in view.ranges(batch.stream):
                    at, ones = 8 * (batch.base_bytes + offset), (1 << 8 * length) - 1
                    key = int.from_bytes(view.take(batch.stream, offset, length).reveal(), "little")
                    mask, keys = found.get(batch.batch_tag, (0, 0))
                    assert not mask & ones << at, "a byte lies in one place"
                    found[batch.batch_tag] = mask | ones << at, keys | key << at
            raise Undone

        with pytest.raises(Undone):
            self.site.do(look)
        return found


TestLeasing = Leasing.TestCase
TestLeasing.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_a_batch_that_is_leased_as_a_whole_leaves_no_record_of_its_own() -> None:
    site = Site(64)
    site.grant(2)
    assert site.do(lambda tx: batch_of(KmeView(tx, LISBON), 1, "master")) is None
    site.release()
    site.dec(site.enc(2))
