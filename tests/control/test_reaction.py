"""What happens when a link is lost, a stock dies, or somebody listens: rule by rule, and whatever comes."""

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from openqci.control.reaction import (
    BATCHES_MAX,
    DESTROY,
    DYING_S,
    EAVESDROPPING,
    LINK_LOST,
    QBER_BOUND,
    REFUSALS_MAX,
    RELEASE,
    STOCK_DYING,
    Batch,
    BatchRelayed,
    BlockKept,
    BlockRefused,
    ClearAlarm,
    CloseLink,
    DestroyBatch,
    DestroyLink,
    Effect,
    HoldBatch,
    HoldLink,
    LinkBack,
    LinkLost,
    OpenLink,
    RaiseAlarm,
    Reaction,
    ReleaseBatch,
    ReleaseLink,
    Reroute,
    RouteTaken,
    Ruling,
    Seen,
    StockSeen,
    Suspicion,
)
from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import LinkId, SiteId

AB, BC, CD = LinkId("a--b"), LinkId("b--c"), LinkId("c--d")
HIGH = "QBER 13.0 % is above 11.0 %"


def batch(number: int) -> Batch:
    return Batch(number, SiteId("a"), SiteId("c"), f"m{number}", f"s{number}")


def refused(link: LinkId = AB, qber: float | None = 0.13, now_s: float = 100.0) -> BlockRefused:
    return BlockRefused(link, qber, HIGH if qber and qber > QBER_BOUND else "too few detections", now_s)


def after(reaction: Reaction, *seen: Seen) -> list[Effect]:
    """Return the effects of the last of what is seen."""
    for each in seen[:-1]:
        reaction.receive(each)
    return reaction.receive(seen[-1])


def kinds(effects: Iterable[Effect]) -> list[type]:
    return [type(each) for each in effects]


def test_above_the_bound_the_link_is_closed_held_gone_round_and_told() -> None:
    reaction = Reaction()
    effects = after(
        reaction, RouteTaken("f", (AB, BC)), RouteTaken("g", (BC,)), BlockKept(AB, 0.02, 1.0), refused()
    )
    assert kinds(effects) == [CloseLink, HoldLink, Reroute, RaiseAlarm]
    assert effects[2] == Reroute("f", AB)
    alarm = effects[3].alarm  # type: ignore[union-attr]
    assert (alarm.code, alarm.severity, alarm.link_id, alarm.reason) == (EAVESDROPPING, "critical", AB, HIGH)
    assert reaction.suspicion(AB) == Suspicion(AB, HIGH, 100.0, 1.0)


def test_what_was_relayed_since_the_last_good_block_is_held_and_its_pairs_are_named() -> None:
    reaction = Reaction()
    effects = after(
        reaction,
        BatchRelayed(batch(1), (AB, BC), 10.0),
        BlockKept(AB, 0.02, 20.0),
        BatchRelayed(batch(2), (AB, BC), 30.0),
        BatchRelayed(batch(3), (BC,), 31.0),
        BatchRelayed(batch(4), (CD, AB), 32.0),
        refused(),
    )
    assert [each.batch for each in effects if isinstance(each, HoldBatch)] == [batch(2), batch(4)]
    assert effects[-1].alarm.reason == (  # type: ignore[union-attr]
        f"{HIGH}; 2 batches relayed over it since its last good block held, of m2 and s2, m4 and s4"
    )


def test_a_batch_under_way_when_the_alarm_comes_is_held_when_it_arrives() -> None:
    reaction = Reaction()
    assert after(reaction, refused(), BatchRelayed(batch(1), (BC, AB), 101.0)) == [HoldBatch(batch(1))]
    assert reaction.suspicions()[0].batches == (batch(1),)


def test_a_good_block_under_suspicion_lifts_nothing() -> None:
    reaction = Reaction()
    assert after(reaction, refused(), BlockKept(AB, 0.01, 200.0)) == []
    assert reaction.suspicion(AB) is not None
    assert after(reaction, refused(now_s=300.0)) == []


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (RELEASE, [ReleaseBatch(batch(1)), ReleaseLink(AB), OpenLink(AB)]),
        (DESTROY, [DestroyBatch(batch(1)), DestroyLink(AB), OpenLink(AB)]),
    ],
)
def test_the_security_officer_rules(verdict: str, expected: list[Effect]) -> None:
    reaction = Reaction()
    effects = after(
        reaction,
        BatchRelayed(batch(1), (AB,), 1.0),
        refused(),
        Ruling(AB, "Ada", verdict, 900.0),
    )
    assert effects == [*expected, ClearAlarm(EAVESDROPPING, AB, f"Ada ruled: {verdict}")]
    assert reaction.suspicions() == []
    assert kinds(after(reaction, refused(now_s=901.0)))[0] is CloseLink


def test_a_batch_that_two_suspicions_hold_is_released_with_the_second_and_destroyed_with_either() -> None:
    def both() -> Reaction:
        reaction = Reaction()
        after(reaction, BatchRelayed(batch(1), (AB, BC), 1.0), refused(AB), refused(BC))
        return reaction

    reaction = both()
    assert ReleaseBatch(batch(1)) not in after(reaction, Ruling(AB, "Ada", RELEASE, 2.0))
    assert ReleaseBatch(batch(1)) in after(reaction, Ruling(BC, "Ada", RELEASE, 3.0))
    reaction = both()
    assert DestroyBatch(batch(1)) in after(reaction, Ruling(AB, "Ada", DESTROY, 2.0))
    assert ReleaseBatch(batch(1)) not in after(reaction, Ruling(BC, "Ada", RELEASE, 3.0))


@pytest.mark.parametrize(
    ("ruling", "said"),
    [
        (Ruling(BC, "Ada", RELEASE, 1.0), "under no suspicion"),
        (Ruling(AB, "Ada", "maybe", 1.0), "expected release or"),
    ],
)
def test_a_ruling_that_means_nothing_is_refused_and_changes_nothing(ruling: Ruling, said: str) -> None:
    reaction = Reaction()
    reaction.receive(refused())
    with pytest.raises(ConfigurationError, match=said):
        reaction.receive(ruling)
    assert len(reaction.suspicions()) == 1


def test_suspicions_survive_a_restart() -> None:
    before = Reaction()
    after(before, BatchRelayed(batch(1), (AB,), 1.0), refused())
    kept = msgspec.json.decode(msgspec.json.encode(before.suspicions()), type=list[Suspicion])
    reaction = Reaction(kept)
    assert reaction.receive(refused(now_s=200.0)) == []
    assert after(reaction, Ruling(AB, "Ada", RELEASE, 300.0))[0] == ReleaseBatch(batch(1))


def test_blocks_that_fail_for_other_reasons_are_no_eavesdropper_but_a_lost_link() -> None:
    reaction = Reaction()
    for _ in range(REFUSALS_MAX - 1):
        assert reaction.receive(refused(qber=0.02)) == []
    effects = reaction.receive(refused(qber=None))
    assert kinds(effects) == [RaiseAlarm] and effects[0].alarm.code == LINK_LOST  # type: ignore[union-attr]
    assert reaction.receive(refused(qber=None)) == []
    assert after(reaction, BlockKept(AB, 0.02, 9.0)) == [ClearAlarm(LINK_LOST, AB, "a block gave key again")]


def test_a_lost_link_whose_ends_are_in_touch_goes_on_with_what_it_has() -> None:
    reaction = Reaction()
    effects = after(reaction, RouteTaken("f", (AB,)), LinkLost(AB, "fibre cut", 1.0))
    assert kinds(effects) == [RaiseAlarm]
    assert reaction.receive(LinkLost(AB, "fibre cut", 2.0)) == []
    assert kinds(reaction.receive(LinkLost(AB, "node stopped", 3.0, reaches_peer=False))) == [
        CloseLink,
        Reroute,
        RaiseAlarm,
    ]
    assert kinds(reaction.receive(LinkBack(AB, 4.0))) == [OpenLink, ClearAlarm]


def test_a_link_that_comes_back_under_suspicion_stays_closed_until_the_ruling() -> None:
    reaction = Reaction()
    after(reaction, refused(), LinkLost(AB, "node stopped", 101.0, reaches_peer=False))
    assert OpenLink not in kinds(reaction.receive(LinkBack(AB, 102.0)))
    assert OpenLink(AB) in reaction.receive(Ruling(AB, "Ada", RELEASE, 103.0))
    again = Reaction()
    after(again, refused(), LinkLost(AB, "node stopped", 101.0, reaches_peer=False))
    assert OpenLink(AB) not in again.receive(Ruling(AB, "Ada", RELEASE, 103.0))
    assert OpenLink(AB) in again.receive(LinkBack(AB, 104.0))


def test_a_stock_that_falls_and_is_not_refilled_is_left_before_it_is_empty() -> None:
    reaction = Reaction()
    after(reaction, RouteTaken("f", (AB,)), LinkLost(AB, "fibre cut", 0.0))
    told = [
        reaction.receive(StockSeen(AB, SiteId("a"), 10_000 - 100 * second, float(second)))
        for second in range(60)
    ]
    first = next(number for number, effects in enumerate(told) if effects)
    assert kinds(told[first]) == [Reroute, RaiseAlarm] and not any(told[first + 1 :])
    assert told[first][1].alarm.code == STOCK_DYING  # type: ignore[union-attr]
    assert (10_000 - 100 * first) / 100 <= DYING_S < (10_000 - 100 * (first - 1)) / 100
    assert kinds(reaction.receive(BlockKept(AB, 0.02, 61.0))) == [ClearAlarm, ClearAlarm]


def test_a_falling_stock_of_a_link_that_makes_key_is_business_as_usual() -> None:
    reaction = Reaction()
    for second in range(60):
        assert reaction.receive(StockSeen(AB, SiteId("a"), 1000 - 10 * second, float(second))) == []


def test_an_empty_stock_that_is_not_refilled_is_dead_whether_it_falls_or_not() -> None:
    reaction = Reaction()
    reaction.receive(LinkLost(AB, "fibre cut", 0.0))
    assert kinds(reaction.receive(StockSeen(AB, SiteId("a"), 0, 1.0))) == [RaiseAlarm]


def test_what_is_remembered_of_a_link_is_bounded() -> None:
    reaction = Reaction()
    for number in range(BATCHES_MAX + 5):
        reaction.receive(BatchRelayed(batch(number), (AB,), float(number)))
    held = [each for each in reaction.receive(refused()) if isinstance(each, HoldBatch)]
    assert len(held) == BATCHES_MAX and held[-1].batch == batch(BATCHES_MAX + 4)


def test_a_flow_without_links_is_forgotten() -> None:
    reaction = Reaction()
    effects = after(reaction, RouteTaken("f", (AB,)), RouteTaken("f", ()), refused())
    assert Reroute("f", AB) not in effects


class Shell(RuleBasedStateMachine):
    """Does what the core says, as a shell would, and checks what must hold whatever comes."""

    links = st.sampled_from([AB, BC, CD])

    def __init__(self) -> None:
        super().__init__()
        self.reaction = Reaction()
        self.now_s = 0.0
        self.closed: set[LinkId] = set()
        self.held: set[LinkId] = set()
        self.destroyed: set[int] = set()
        self.held_batches: set[int] = set()
        self.since_good: dict[LinkId, set[int]] = {AB: set(), BC: set(), CD: set()}
        self.alarms: set[tuple[str, LinkId]] = set()
        self.batches = 0

    def see(self, seen: Seen) -> None:
        for effect in self.reaction.receive(seen):
            self.do(effect)

    def do(self, effect: Effect) -> None:
        match effect:
            case CloseLink(link_id=link):
                assert link not in self.closed, "closed once"
                self.closed.add(link)
            case OpenLink(link_id=link):
                self.closed.remove(link)
            case HoldLink(link_id=link):
                self.held.add(link)
            case ReleaseLink(link_id=link) | DestroyLink(link_id=link):
                self.held.remove(link)
            case HoldBatch(batch=each):
                self.held_batches.add(each.batch_tag)
            case ReleaseBatch(batch=each):
                assert each.batch_tag not in self.destroyed
                self.held_batches.remove(each.batch_tag)
            case DestroyBatch(batch=each):
                self.held_batches.discard(each.batch_tag)
                self.destroyed.add(each.batch_tag)
            case RaiseAlarm(alarm=alarm):
                self.alarms.add((alarm.code, alarm.link_id))
            case ClearAlarm(code=code, link_id=link):
                self.alarms.remove((code, link))

    @rule(link=links, qber=st.sampled_from([0.02, 0.05]))
    def good_block(self, link: LinkId, qber: float) -> None:
        self.now_s += 1
        self.see(BlockKept(link, qber, self.now_s))
        if link not in self.held:
            self.since_good[link].clear()

    @rule(link=links, qber=st.sampled_from([None, 0.05, QBER_BOUND, 0.12, 0.5]))
    def bad_block(self, link: LinkId, qber: float | None) -> None:
        self.see(refused(link, qber, self.now_s))
        if qber is not None and qber > QBER_BOUND:
            assert link in self.held and link in self.closed
            assert self.since_good[link] <= self.held_batches | self.destroyed

    @rule(link=links, reaches_peer=st.booleans(), reason=st.sampled_from(["cut", "stopped"]))
    def lost(self, link: LinkId, reaches_peer: bool, reason: str) -> None:
        self.see(LinkLost(link, reason, self.now_s, reaches_peer))
        assert reaches_peer or link in self.closed

    @rule(link=links)
    def back(self, link: LinkId) -> None:
        self.see(LinkBack(link, self.now_s))

    @rule(route=st.lists(links, min_size=1, max_size=3, unique=True))
    def relayed(self, route: list[LinkId]) -> None:
        self.batches += 1
        under_suspicion = bool(set(route) & self.held)
        self.see(BatchRelayed(batch(self.batches), tuple(route), self.now_s))
        for link in route:
            self.since_good[link].add(self.batches)
        assert (self.batches in self.held_batches) == under_suspicion

    @rule(link=links, stock=st.integers(0, 3000))
    def stock(self, link: LinkId, stock: int) -> None:
        self.now_s += 1
        self.see(StockSeen(link, SiteId("a"), stock, self.now_s))

    @rule(link=links, verdict=st.sampled_from([RELEASE, DESTROY]))
    def ruled(self, link: LinkId, verdict: str) -> None:
        if self.reaction.suspicion(link) is None:
            with pytest.raises(ConfigurationError):
                self.reaction.receive(Ruling(link, "Ada", verdict, self.now_s))
            return
        self.see(Ruling(link, "Ada", verdict, self.now_s))
        self.since_good[link].clear()

    @rule()
    def restarted(self) -> None:
        """What is held is known after a restart; lost links are found lost again by who looks at them."""
        kept = self.reaction.suspicions()
        self.reaction = Reaction(kept)
        self.closed = {each.link_id for each in kept}
        self.alarms = {(EAVESDROPPING, each.link_id) for each in kept}
        self.since_good = {link: set() for link in self.since_good}

    @invariant()
    def what_is_held_is_closed_and_has_an_alarm(self) -> None:
        suspected = {each.link_id for each in self.reaction.suspicions()}
        assert self.held == suspected <= self.closed
        assert {link for code, link in self.alarms if code == EAVESDROPPING} == suspected

    @invariant()
    def a_batch_is_held_while_a_suspicion_names_it_and_no_longer(self) -> None:
        named = {each.batch_tag for held in self.reaction.suspicions() for each in held.batches}
        assert self.held_batches == named


TestWhateverComes = Shell.TestCase


@given(qber=st.floats(0, 1))
def test_the_bound_is_the_bound(qber: float) -> None:
    reaction = Reaction(qber_bound=0.08)
    suspected = any(isinstance(each, HoldLink) for each in reaction.receive(refused(qber=qber)))
    assert suspected == (qber > 0.08)
