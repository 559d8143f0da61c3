"""Two ends of a link over many blocks: handshake, outages at every word, lies, and what is left of key."""

import asyncio
import itertools
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from openqci.core.errors import ConfigurationError, KeyUnavailable
from openqci.core.identifiers import LinkId
from openqci.core.keys import SecretBytes
from openqci.distillation import (
    AUTHENTICATION_KEY_BYTES,
    AliceDistillation,
    BobDistillation,
    DistillationAborted,
    KeyDistilled,
)
from openqci.distillation.session import (
    HANDSHAKE_KEY_BYTES,
    AliceSession,
    BobSession,
    Hello,
    SessionEnded,
    Settlement,
    Standing,
    common_place,
)
from openqci.keystore.memory import MemoryKeyStore
from openqci.services import distillation_line
from openqci.services.link_stock import (
    PRESHARED_BYTES,
    LinkDirectory,
    StoredLinkStock,
)
from tests.distillation.make import SETTINGS, records

SLOTS = 10**9
LINK = LinkId("pt-lisboa--es-badajoz")
BLOCKS = [records(40_000, 0.0005, seed=number) for number in range(3)]
SPOILT = records(40_000, 0.2, seed=9)


@dataclass
class Link:
    """Both ends, their stores, and what happened at each."""

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(PRESHARED_BYTES))
    other_secret: bytes | None = None
    events: dict[str, list] = field(default_factory=lambda: {"alice": [], "bob": []})

    def __post_init__(self) -> None:
        self.stores = {"alice": MemoryKeyStore(), "bob": MemoryKeyStore()}
        self.stocks = {name: StoredLinkStock(store, LINK) for name, store in self.stores.items()}
        self.stocks["alice"].share(SecretBytes(self.secret))
        self.stocks["bob"].share(SecretBytes(self.other_secret or self.secret))

    def sessions(self, blocks: list, link: str = LINK, agree: Callable = lambda settings, slots: ()) -> tuple:
        # A line that lies can make Alice open a block that Bob does not begin; she has a record even so.
        alices, bobs = itertools.chain((a for a, _ in blocks), itertools.repeat(BLOCKS[0][0])), iter(blocks)
        alice = AliceSession(
            LINK,
            SETTINGS,
            SLOTS,
            self.stocks["alice"],
            lambda settings, name, key: AliceDistillation(
                next(alices), settings, name, key, secrets.token_bytes
            ),
        )
        bob = BobSession(
            link,
            SLOTS,
            agree,
            lambda: len(blocks),
            self.stocks["bob"],
            lambda settings, name, key: BobDistillation(
                next(bobs)[1], settings, name, key, secrets.token_bytes
            ),
        )
        return alice, bob

    def run(self, blocks: list, line: Callable | None = None, **options: object) -> tuple:
        """Run one session over a line that may change or lose words; return how each side ended."""
        alice, bob = self.sessions(blocks, **options)
        now_s, number = 0.0, 0
        alice.start(now_s)
        bob.start(now_s)
        ended: dict[str, SessionEnded] = {}
        for _ in range(20_000):
            moved = False
            for name, sender, receiver in (("bob", bob, alice), ("alice", alice, bob)):
                for word in sender.messages_to_send():
                    moved = True
                    for arriving in line(number, name, word) if line else (word,):
                        receiver.receive(arriving, now_s)
                    number += 1
            for name, session in (("alice", alice), ("bob", bob)):
                while (event := session.next_event()) is not None:
                    self.events[name].append(event)
                    if isinstance(event, SessionEnded):
                        ended[name] = event
            if moved:
                continue
            if len(ended) == 2:
                return ended["alice"], ended["bob"], number
            deadlines = [each.deadline_s() for each in (alice, bob) if each.deadline_s() is not None]
            now_s = max(now_s, min(deadlines))
            alice.advance(now_s)
            bob.advance(now_s)
        raise AssertionError("a session ends")

    def in_step(self) -> bool:
        """Whether both ends have the same key of every kind."""
        a, b = (self.stocks[name].stocks() for name in ("alice", "bob"))
        ranges = [self.stocks[name].distilled() for name in ("alice", "bob")]
        return a == b and ranges[0] == ranges[1]

    def keys(self, block: int) -> tuple[bytes, bytes]:
        return tuple(bytes(self.stocks[name].take_distilled(block).reveal()) for name in ("alice", "bob"))


def test_three_blocks_give_the_same_keys_at_both_ends():
    link = Link()
    ended_a, ended_b, _ = link.run(BLOCKS)
    assert (ended_a, ended_b) == (SessionEnded("", Settlement()),) * 2
    assert link.in_step()
    assert [type(event) for event in link.events["bob"]] == [KeyDistilled] * 3 + [SessionEnded]
    keys = [link.keys(block) for block in (1, 2, 3)]
    assert all(a == b for a, b in keys) and len({a for a, _ in keys}) == 3
    with pytest.raises(KeyUnavailable):
        link.stocks["alice"].take_distilled(1)


def test_a_spoilt_block_costs_authentication_key_and_the_next_goes_on():
    link = Link()
    before = link.stocks["alice"].stocks()
    link.run([SPOILT, BLOCKS[0]])
    events = [type(event) for event in link.events["alice"]]
    assert events == [DistillationAborted, KeyDistilled, SessionEnded]
    after = link.stocks["alice"].stocks()
    assert link.in_step() and after.next_block == before.next_block + 2 and after.kept_blocks == (2,)


def test_distilled_key_fills_the_stocks_up_and_no_more():
    link = Link()
    start = link.stocks["alice"].stocks()
    link.run(BLOCKS)
    stocks = link.stocks["alice"].stocks()
    for before, after, unit in (
        (start.handshake, stocks.handshake, HANDSHAKE_KEY_BYTES),
        (start.authentication, stocks.authentication, AUTHENTICATION_KEY_BYTES),
    ):
        total = sum(length for *_, length in after)
        assert sum(length for *_, length in before) - unit <= total <= sum(length for *_, length in before)


@pytest.mark.parametrize("loses", ["all", "alice", "bob"])
def test_a_line_cut_at_any_word_leaves_nothing_that_only_one_end_has(loses):
    # From the word on nothing arrives of one end or of both; the next session settles whatever that left.
    words = Link().run(BLOCKS[:1])[2]
    for at in range(words):
        link = Link()

        def cut(number, name, word, at=at):
            return () if number >= at and loses in ("all", name) else (word,)

        link.run(BLOCKS[:1], cut)
        ended_a, ended_b, _ = link.run(BLOCKS[1:2])
        assert (ended_a.fault, ended_b.fault) == ("", ""), at
        assert link.in_step(), at
        kept = link.stocks["alice"].stocks().kept_blocks
        assert kept and all(a == b for a, b in map(link.keys, kept)), at


@examples(max_examples=150)
@given(st.data())
def test_no_lie_of_the_line_gives_keys_that_differ(data):
    link = Link()
    at = data.draw(st.integers(0, 60))
    kind = data.draw(st.sampled_from(["flip", "double", "drop", "old"]))
    place = data.draw(st.floats(0, 0.999))
    said: list[bytes] = []

    def lying(number, name, word):
        said.append(word)
        if number != at:
            return (word,)
        index = int(place * len(word))
        return {
            "flip": (word[:index] + bytes([word[index] ^ 1 << int(8 * place)]) + word[index + 1 :],),
            "double": (word, word),
            "drop": (),
            "old": (said[int(place * len(said))],),
        }[kind]

    link.run(BLOCKS[:2], lying)
    link.run(BLOCKS[2:])
    assert link.in_step()
    assert all(a == b for a, b in map(link.keys, link.stocks["alice"].stocks().kept_blocks))


def test_a_key_taken_of_a_block_in_doubt_is_told():
    link = Link()
    words = link.run(BLOCKS[:1])[2]
    link = Link()

    def without_the_last_confirmation(number, name, word):
        return () if name == "alice" and number >= words - 2 else (word,)

    link.run(BLOCKS[:1], without_the_last_confirmation)
    assert isinstance(link.events["alice"][0], KeyDistilled)
    assert link.events["bob"][0].peer_may_have_key
    link.stocks["alice"].take_distilled(1)
    ended_a, ended_b, _ = link.run(BLOCKS[1:2])
    assert ended_a.settlement.taken_blocks == (1,) and ended_b.settlement.taken_blocks == ()
    assert link.in_step()


def test_another_secret_is_noticed_and_costs_one_handshake():
    link = Link(other_secret=secrets.token_bytes(PRESHARED_BYTES))
    before = link.stocks["alice"].stocks()
    ended_a, ended_b, _ = link.run(BLOCKS)
    assert "another secret" in ended_a.fault and "refused" in ended_b.fault
    after = link.stocks["alice"].stocks()
    assert sum(each[2] for each in before.handshake) - HANDSHAKE_KEY_BYTES == sum(
        each[2] for each in after.handshake
    )
    assert before.authentication == after.authentication


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"link": "fr-paris--de-berlin"}, "the peer wants 'fr-paris--de-berlin'"),
        ({"agree": lambda settings, slots: ["epsilon_sec 1e-09, at most 1e-12 wanted"]}, "epsilon_sec 1e-09"),
    ],
)
def test_a_peer_that_does_not_fit_is_refused_before_any_key_is_spent(options, said):
    link = Link()
    before = [link.stocks[name].stocks() for name in ("alice", "bob")]
    ended_a, ended_b, _ = link.run(BLOCKS, **options)
    assert said in ended_a.fault and said in ended_b.fault
    assert before == [link.stocks[name].stocks() for name in ("alice", "bob")]


def test_settings_that_cannot_be_end_the_session():
    link = Link()

    def forged(number, name, word):
        at = word.find(msgspec.msgpack.encode(SETTINGS.qber_max))
        return (word[:at] + msgspec.msgpack.encode(0.6) + word[at + 9 :],) if at > 0 else (word,)

    _, ended, _ = link.run(BLOCKS, forged)
    assert "qber_max: expected above 0 and below 0.5" in ended.fault


def test_two_alices_do_not_talk():
    link = Link()
    alice, other = link.sessions([])[0], link.sessions([])[0]
    alice.start(0.0)
    other.start(0.0)
    hello = msgspec.msgpack.encode(Hello("OpenQCI distillation session v1", LINK, "alice->bob", (), 1, None))
    alice.receive(hello, 0.0)
    ended = alice.next_event()
    assert isinstance(ended, SessionEnded) and "both ends say that they are alice" in ended.fault


@pytest.mark.parametrize(
    "word", [b"", b"\xc1", msgspec.msgpack.encode(["nothing"]), msgspec.msgpack.encode(Standing(b"", b""))]
)
def test_words_that_cannot_be_read_or_cannot_come_end_the_session(word):
    alice = Link().sessions([])[0]
    alice.start(0.0)
    alice.receive(word, 0.0)
    assert alice.ended and alice.next_event().fault


def test_without_authentication_key_both_ends_still_say_so():
    link = Link()
    for name in ("alice", "bob"):
        while True:
            try:
                link.stocks[name].open_block()
            except KeyUnavailable:
                break
    ended_a, ended_b, _ = link.run(BLOCKS)
    assert "no authentication key is left" in ended_b.fault and "no authentication key" in ended_a.fault


def test_a_common_place_is_one_that_both_have():
    assert common_place([(0, 0, 64), (3, 64, 640)], [(0, 32, 64), (3, 0, 200)], 64) == (3, 64)
    with pytest.raises(KeyUnavailable, match="share a new secret"):
        common_place([(0, 0, 64)], [(1, 0, 64)], 64)


@pytest.fixture
def directories(tmp_path):
    secret = secrets.token_bytes(PRESHARED_BYTES)
    made = [LinkDirectory.make(tmp_path / end, LINK, end, SecretBytes(secret)) for end in ("alice", "bob")]
    yield made
    for each in made:
        each.close()


def test_over_tcp_with_stores_on_disk(directories, tmp_path):
    alice_at, bob_at = directories
    link = Link()
    link.stocks = {"alice": alice_at.stock, "bob": bob_at.stock}
    alice, bob = link.sessions(BLOCKS)
    heard: dict[str, list] = {"alice": [], "bob": []}

    async def both() -> tuple:
        where: asyncio.Future = asyncio.get_running_loop().create_future()
        answering = asyncio.create_task(
            distillation_line.answer(
                "127.0.0.1",
                0,
                lambda: alice,
                heard["alice"].append,
                once=True,
                listening=lambda host, port: where.set_result((host, port)),
            )
        )
        host, port = await where
        at_bob = await distillation_line.call(host, port, lambda: bob, heard["bob"].append)
        return await answering, at_bob

    ended = asyncio.run(both())
    assert ended == (SessionEnded("", Settlement()),) * 2
    assert link.in_step() and [type(each) for each in heard["alice"]] == [KeyDistilled] * 3 + [SessionEnded]
    for each in directories:
        each.close()
    again = [LinkDirectory.open(tmp_path / end, end) for end in ("alice", "bob")]
    keys = [bytes(each.stock.take_distilled(2).reveal()) for each in again]
    assert keys[0] == keys[1]
    with pytest.raises(ConfigurationError, match="is in use"):
        LinkDirectory.open(tmp_path / "alice")
    directories[:] = again


def test_a_peer_that_vanishes_ends_the_session_without_a_key(directories):
    link = Link()
    link.stocks = {"alice": directories[0].stock, "bob": directories[1].stock}
    alice, _ = link.sessions(BLOCKS)
    heard: list = []

    async def vanish() -> SessionEnded | None:
        where: asyncio.Future = asyncio.get_running_loop().create_future()
        answering = asyncio.create_task(
            distillation_line.answer(
                "127.0.0.1",
                0,
                lambda: alice,
                heard.append,
                once=True,
                listening=lambda host, port: where.set_result((host, port)),
            )
        )
        _, writer = await asyncio.open_connection(*await where)
        writer.write((1 << 31).to_bytes(4, "big"))
        writer.close()
        return await answering

    ended = asyncio.run(vanish())
    assert ended is not None and "2147483648 bytes announced" in ended.fault


def test_nobody_there_is_said():
    with socket.socket() as bound:  # bound and not listening: whoever calls is refused
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ConfigurationError, match="cannot be reached"):
            asyncio.run(distillation_line.call("127.0.0.1", bound.getsockname()[1], lambda: None, print))


def test_folders_say_what_is_wrong(tmp_path, directories):
    secret = SecretBytes(bytes(PRESHARED_BYTES))
    with pytest.raises(ConfigurationError, match="expected 22528"):
        LinkDirectory.make(tmp_path / "new", LINK, "alice", SecretBytes(b"short"))
    with pytest.raises(ConfigurationError, match="is the folder of a link already"):
        LinkDirectory.make(tmp_path / "alice", LINK, "alice", secret)
    with pytest.raises(ConfigurationError, match="is no folder of a link"):
        LinkDirectory.open(tmp_path / "nothing")
    with pytest.raises(ConfigurationError, match="is bob; expected alice"):
        LinkDirectory.open(tmp_path / "bob", "alice")
    (tmp_path / "bob" / "link.json").write_text("{")
    with pytest.raises(ConfigurationError, match="is damaged"):
        LinkDirectory.open(tmp_path / "bob")
