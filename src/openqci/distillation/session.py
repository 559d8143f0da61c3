"""A session of the two ends of a link: who speaks, what key both still have, then one block after another.

A block needs names, settings and authentication key on which both ends agree; after an outage they may not.
So a session begins with an authenticated handshake::

    Bob    Hello      link, end, handshake key that is left; how many slots a block should have
    Alice  Hello      the same, and the settings of all blocks
    Bob    Standing   what key of this link is left at this end; a tag under handshake key that both have
    Alice  Standing   the same
    Bob    Carried    datagrams of block n, as of ``messages``, either way
    Bob    Done       no more detections

What one end has and the other has not is of no use and is destroyed by the end that has it: key of a block
that Bob could not confirm, and authentication key that one end spent before it stopped. Then both open the
same block with the same authentication key. Key that an application took in the meantime, of a block that is
struck, is told (:class:`Settlement`): it has no counterpart.

The handshake takes 64 bytes of a stock of its own, which blocks cannot spend, so that a link that has run
out of authentication key can still say so. Both stocks are filled up from every distilled key. Hello, Carried
and Done are not authenticated: who forges them can end a session or make it waste a block's authentication
key, as one who cuts the line can. What travels in Carried is authenticated by the block itself.

Sans-IO like a block: the same six verbs. The key stays behind :class:`LinkStock`, whose verbs are durable
when they return: it is asked to spend before key is used, and to keep before the peer is told.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import msgspec

from openqci.core.errors import ConfigurationError, KeyUnavailable, PeerMisbehaved, invariant
from openqci.core.keys import SecretBytes, SecretKey
from openqci.crypto import ONE_TIME_MAC_KEY_BYTES, TAG_BYTES, equal, one_time_mac
from openqci.distillation.channel import Direction
from openqci.distillation.end import FINISHED, BlockEnd
from openqci.distillation.events import DistillationAborted, KeyDistilled
from openqci.distillation.settings import BlockName, DistillationSettings

SESSION_VERSION = "OpenQCI distillation session v1"
BLOCKS_COMPARED = 256
"""More blocks than one session leaves in doubt, which is one."""

HANDSHAKE_KEY_BYTES = 2 * ONE_TIME_MAC_KEY_BYTES
STANDING_TEXT = b"OpenQCI distillation standing v1"
PATIENCE_S = 60.0
"""How long an end waits for the next word between blocks."""

Range = tuple[int, int, int]
"""Key that is there: number of its block (0 for a pre-shared secret), offset and length in bytes."""


class Stocks(msgspec.Struct, frozen=True, array_like=True):
    """The key of a link that one end has left, and the number of the block that it would open next."""

    next_block: int
    handshake: tuple[Range, ...]
    authentication: tuple[Range, ...]
    kept_blocks: tuple[int, ...]
    """Blocks that left a key here, of the last BLOCKS_COMPARED before the next."""


class Settlement(msgspec.Struct, frozen=True):
    """What one end had and the other had not.

    ``struck_blocks`` left a key here and none there. ``taken_blocks`` are those of them whose key an
    application has taken: it must not be used.
    """

    destroyed_bytes: int = 0
    struck_blocks: tuple[int, ...] = ()
    taken_blocks: tuple[int, ...] = ()


class LinkStock(Protocol):
    """One end's key of the link. What a verb does is durable when it returns."""

    def stocks(self) -> Stocks:
        """Return what is left."""

    def take_handshake(self, block: int, offset_bytes: int) -> SecretBytes:
        """Spend HANDSHAKE_KEY_BYTES at a place; KeyUnavailable if they are not there."""

    def settle(self, theirs: Stocks) -> Settlement:
        """Destroy what the other end has not, and go on from the higher block number."""

    def open_block(self) -> tuple[BlockName, SecretBytes]:
        """Spend the authentication key of the next block, return both; KeyUnavailable if there is none."""

    def keep(self, number: int, key: SecretKey) -> None:
        """Store a distilled key, part of it as handshake and authentication key, as the other end does."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    version: str
    link_id: str
    end: str
    handshake: tuple[Range, ...]
    block_slots: int
    settings: DistillationSettings | None


class Standing(msgspec.Struct, frozen=True, array_like=True, tag="standing"):
    body: bytes
    tag: bytes


class Carried(msgspec.Struct, frozen=True, array_like=True, tag="block"):
    number: int
    datagram: bytes


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    blocks: int


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag="refusal"):
    detail: str


AnyWord = Hello | Standing | Carried | Done | Refusal
_decoder = msgspec.msgpack.Decoder(AnyWord)
_stocks_decoder = msgspec.msgpack.Decoder(Stocks)
REFUSAL_CHARACTERS_MAX = 500


class SessionEnded(msgspec.Struct, frozen=True):
    """No more is said. ``fault`` is empty after a session that ran to its end."""

    fault: str
    settlement: Settlement


SessionEvent = KeyDistilled | DistillationAborted | SessionEnded

EndMaker = Callable[[DistillationSettings, BlockName, SecretBytes], BlockEnd]


def common_place(mine: Sequence[Range], theirs: Sequence[Range], length_bytes: int) -> tuple[int, int]:
    """Return block and offset of the first run of so many bytes that both have.

    Raises KeyUnavailable if there is none.

    >>> common_place([(0, 64, 640)], [(0, 0, 128), (0, 192, 64)], 64)
    (0, 64)
    """
    for block, offset, length in mine:
        for other, start, there in theirs:
            first, end = max(offset, start), min(offset + length, start + there)
            if block == other and end - first >= length_bytes:
                return block, first
    available = sum(length for *_, length in mine)
    raise KeyUnavailable(
        "no handshake key that both ends have; share a new secret",
        wanted_bytes=length_bytes,
        available_bytes=available,
    )


class LinkSession:
    """What both ends of a session have in common; see :class:`AliceSession` and :class:`BobSession`."""

    says: ClassVar[Direction]

    def __init__(self, link_id: str, block_slots: int, stock: LinkStock, make_end: EndMaker) -> None:
        self._link_id = link_id
        self._block_slots = block_slots
        self._stock = stock
        self._make_end = make_end
        self._settings: DistillationSettings | None = None
        self._hellos: list[bytes] = []
        self._theirs: tuple[Range, ...] = ()
        self._handshake_key: SecretBytes | None = None
        self._agreed = False
        self._number = 0
        self._end: BlockEnd | None = None
        self._ended = False
        self._settlement = Settlement()
        self._outbox: deque[bytes] = deque()
        self._events: deque[SessionEvent] = deque()
        self._deadline_s: float | None = None

    # The six verbs.

    def start(self, now_s: float) -> None:
        """Begin; call once."""
        self._deadline_s = now_s + PATIENCE_S
        self._guarded(lambda: self._begin(now_s))

    def messages_to_send(self) -> list[bytes]:
        """Return the words that are to go to the peer, in this order, and forget them."""
        words = list(self._outbox)
        self._outbox.clear()
        return words

    def receive(self, data: bytes, now_s: float) -> None:
        """Take one word of the peer. A bad one ends the session; it never raises for what a peer did."""
        if not self._ended:
            self._deadline_s = now_s + PATIENCE_S
            self._guarded(lambda: self._take(data, now_s))

    def next_event(self) -> SessionEvent | None:
        """Return the next event: one for each block, and SessionEnded as the last."""
        return self._events.popleft() if self._events else None

    def deadline_s(self) -> float | None:
        """Return when :meth:`advance` wants to be called; None when nothing is waited for."""
        if self._ended:
            return None
        block = self._end.deadline_s() if self._end else None
        return self._deadline_s if block is None else block

    def advance(self, now_s: float) -> None:
        """Let time pass."""
        if self._ended:
            return
        if self._end is not None and self._end.state not in FINISHED:
            self._end.advance(now_s)
            self._guarded(lambda: self._pass_on(now_s))
        elif self._deadline_s is not None and now_s >= self._deadline_s:
            self._finish(f"the peer said nothing for {PATIENCE_S:g} s")

    # Also for the shell.

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def agreed(self) -> bool:
        """Whether the peer has shown that it has the link's key; until then it may be anybody."""
        return self._agreed

    @property
    def block_slots(self) -> int:
        """Slots of a block: what this end wants at most, then what both agreed on."""
        return self._block_slots

    def stop(self, fault: str) -> None:
        """End from this side, as when the line is gone; a block under way leaves no key."""
        if not self._ended:
            if self._end is not None and self._end.state not in FINISHED:
                self._end.abort(fault)
                self._collect()
            self._finish(fault)

    # For the subclasses.

    def _begin(self, now_s: float) -> None:
        raise NotImplementedError

    def _take_word(self, word: AnyWord, now_s: float) -> None:
        raise NotImplementedError

    def _pass_on(self, now_s: float) -> None:
        raise NotImplementedError

    def _take(self, data: bytes, now_s: float) -> None:
        try:
            word = _decoder.decode(data)
        except (msgspec.DecodeError, msgspec.ValidationError, ValueError, ConfigurationError) as error:
            raise PeerMisbehaved(f"not a word of a session: {error}") from error
        if isinstance(word, Refusal):
            self._finish(f"the peer refused: {word.detail[:REFUSAL_CHARACTERS_MAX]}")
            return
        if isinstance(word, Hello):
            self._hear(word, data)
        elif isinstance(word, Carried) and word.number == self._number and self._end is not None:
            self._end.receive(word.datagram, now_s)
            self._pass_on(now_s)
            return
        self._take_word(word, now_s)

    def _hear(self, hello: Hello, data: bytes) -> None:
        if hello.version != SESSION_VERSION:
            raise PeerMisbehaved(f"{SESSION_VERSION!r} expected, {hello.version[:50]!r} came")
        if hello.link_id != self._link_id:
            raise PeerMisbehaved(f"this is link {self._link_id!r}, the peer wants {hello.link_id[:80]!r}")
        if hello.end != self.says.other.value:
            raise PeerMisbehaved(f"both ends say that they are {self.says.value.split('-')[0]}")
        self._theirs = hello.handshake
        self._hellos.append(data)

    def _say(self, word: AnyWord) -> bytes:
        data = msgspec.msgpack.encode(word)
        self._outbox.append(data)
        return data

    def _greet(self) -> None:
        left = self._stock.stocks().handshake
        hello = Hello(
            SESSION_VERSION, self._link_id, self.says.value, left, self._block_slots, self._settings
        )
        self._hellos.append(self._say(hello))

    def _spend_handshake(self) -> None:
        place = common_place(self._stock.stocks().handshake, self._theirs, HANDSHAKE_KEY_BYTES)
        self._handshake_key = self._stock.take_handshake(*place)

    def _tag(self, says: Direction, body: bytes) -> bytes:
        """Return the tag of a standing; it covers what both ends said before."""
        key = self._handshake_key
        invariant(key is not None, "a standing is tagged with handshake key")
        assert key is not None
        half = ONE_TIME_MAC_KEY_BYTES if says is Direction.BOB_TO_ALICE else 0
        heard = hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in self._hellos)).digest()
        text = STANDING_TEXT + says.value.encode() + heard + body
        return one_time_mac(key.reveal()[half : half + ONE_TIME_MAC_KEY_BYTES], text)

    def _settle(self, word: Standing) -> None:
        if len(word.tag) != TAG_BYTES or not equal(word.tag, self._tag(self.says.other, word.body)):
            raise PeerMisbehaved("the standing's tag does not fit: another secret, or a forger")
        try:
            theirs = _stocks_decoder.decode(word.body)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise PeerMisbehaved(f"a standing cannot be read: {error}") from error
        self._settlement = self._stock.settle(theirs)
        self._agreed = True

    def _forget_handshake(self) -> None:
        if self._handshake_key is not None:
            self._handshake_key.wipe()
            self._handshake_key = None

    def _open_block(self, now_s: float) -> None:
        assert self._settings is not None
        name, key = self._stock.open_block()
        self._number = name.number
        self._end = self._make_end(self._settings, name, key)
        key.wipe()
        self._end.start(now_s)

    def _collect(self) -> None:
        """Take the block's event if it is over: a key is stored before anything more is said."""
        assert self._end is not None
        event = self._end.next_event()
        if isinstance(event, KeyDistilled):
            self._stock.keep(self._number, event.key)
        if event is not None:
            self._events.append(event)
        for datagram in self._end.messages_to_send():
            self._say(Carried(self._number, datagram))
        if isinstance(event, DistillationAborted) and event.peer_may_have_key:
            self._finish("the last block is in doubt; the next session settles it")

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (PeerMisbehaved, KeyUnavailable) as error:
            if self._end is not None and self._end.state not in FINISHED:
                self._end.abort(str(error))
                self._collect()
            if not self._ended:
                self._say(Refusal(str(error)[:REFUSAL_CHARACTERS_MAX]))
                self._finish(str(error))

    def _finish(self, fault: str) -> None:
        self._ended = True
        self._forget_handshake()
        self._events.append(SessionEnded(fault, self._settlement))


class AliceSession(LinkSession):
    """Alice's side: she waits for Bob, states the settings, and opens the blocks that he begins.

    Parameters
    ----------
    link_id : str
    settings : DistillationSettings
    block_slots : int
        The most slots of a block; Bob may wish for fewer, and blocks have the same number of slots each.
    stock : LinkStock
    make_end : callable
        Makes her end of a block from settings, name and authentication key.
    """

    says: ClassVar[Direction] = Direction.ALICE_TO_BOB

    def __init__(
        self,
        link_id: str,
        settings: DistillationSettings,
        block_slots: int,
        stock: LinkStock,
        make_end: EndMaker,
    ) -> None:
        super().__init__(link_id, block_slots, stock, make_end)
        self._settings = settings

    def _begin(self, now_s: float) -> None:
        """She waits."""

    def _take_word(self, word: AnyWord, now_s: float) -> None:
        if isinstance(word, Hello) and len(self._hellos) == 1:
            self._block_slots = max(1, min(self._block_slots, word.block_slots))
            self._greet()
        elif isinstance(word, Standing) and len(self._hellos) == 2 and not self._agreed:
            mine = self._stock.stocks()
            self._spend_handshake()
            body = msgspec.msgpack.encode(mine)
            self._settle(word)
            self._say(Standing(body, self._tag(self.says, body)))
            self._forget_handshake()
        elif isinstance(word, Carried) and self._agreed:
            self._next_block(word, now_s)
        elif isinstance(word, Done) and self._agreed:
            self._finish("")
        else:
            raise PeerMisbehaved(f"{type(word).__name__} cannot come now")

    def _next_block(self, word: Carried, now_s: float) -> None:
        if self._end is not None and self._end.state not in FINISHED:
            self._end.abort("Bob has gone on to another block")
            self._collect()
        self._open_block(now_s)
        if word.number != self._number:
            raise PeerMisbehaved(f"block {self._number} expected, {word.number} came")
        assert self._end is not None
        self._end.receive(word.datagram, now_s)
        self._pass_on(now_s)

    def _pass_on(self, now_s: float) -> None:
        self._collect()


class BobSession(LinkSession):
    """Bob's side: he calls, accepts the settings, and begins a block as long as he has detections.

    Parameters
    ----------
    link_id : str
    block_slots : int
        How many slots a block should have at most.
    agree : callable
        Takes Alice's settings and the slots of a block; returns what he does not accept, one line each.
    blocks : callable
        Returns, once he has agreed, how many blocks he has.
    stock, make_end
        As for :class:`AliceSession`.
    """

    says: ClassVar[Direction] = Direction.BOB_TO_ALICE

    def __init__(
        self,
        link_id: str,
        block_slots: int,
        agree: Callable[[DistillationSettings, int], Sequence[str]],
        blocks: Callable[[], int],
        stock: LinkStock,
        make_end: EndMaker,
    ) -> None:
        super().__init__(link_id, block_slots, stock, make_end)
        self._agree = agree
        self._blocks = blocks
        self._begun = 0

    def _begin(self, now_s: float) -> None:
        self._greet()

    def _take_word(self, word: AnyWord, now_s: float) -> None:
        if isinstance(word, Hello) and len(self._hellos) == 2 and word.settings is not None:
            faults = list(self._agree(word.settings, word.block_slots))
            if not 1 <= word.block_slots <= self._block_slots:
                faults.append(f"blocks of {word.block_slots} slots, 1 to {self._block_slots} wanted")
            self._block_slots = word.block_slots
            if faults:
                raise PeerMisbehaved("the settings do not fit: " + "; ".join(faults))
            self._settings = word.settings
            mine = self._stock.stocks()
            self._spend_handshake()
            body = msgspec.msgpack.encode(mine)
            self._say(Standing(body, self._tag(self.says, body)))
        elif isinstance(word, Standing) and self._handshake_key is not None:
            self._settle(word)
            self._forget_handshake()
            self._go_on(now_s)
        elif isinstance(word, Carried) and word.number < self._number:
            pass  # a last word of a block that is over at this end
        else:
            raise PeerMisbehaved(f"{type(word).__name__} cannot come now")

    def _go_on(self, now_s: float) -> None:
        """Begin blocks until one is under way, or say that there are no more."""
        while not self._ended and (self._end is None or self._end.state in FINISHED):
            if self._begun == self._blocks():
                self._say(Done(self._begun))
                self._finish("")
                return
            self._begun += 1
            self._open_block(now_s)
            self._collect()

    def _pass_on(self, now_s: float) -> None:
        self._collect()
        self._go_on(now_s)
