"""Two ends talking in memory, for the twin and for tests: the line between them, and a clock that jumps."""

from collections.abc import Callable, Iterable

from openqci.core.errors import invariant
from openqci.distillation.channel import Direction
from openqci.distillation.end import BlockEnd
from openqci.distillation.events import DistillationAborted, KeyDistilled

Line = Callable[[Direction, bytes], Iterable[bytes]]
"""What the line does with a message: returns what arrives in its place, nothing, or several."""

TURNS_MAX = 50_000

Ending = KeyDistilled | DistillationAborted


def perfect_line(direction: Direction, message: bytes) -> Iterable[bytes]:
    """Deliver every message once, unchanged."""
    return (message,)


def converse(
    alice: BlockEnd, bob: BlockEnd, now_s: float = 0.0, line: Line = perfect_line
) -> tuple[Ending, Ending]:
    """Run both ends to their end over a line and return how each ended, Alice first.

    Whenever nobody has anything to say, the clock jumps to the next deadline; so it always comes to an end.
    """
    alice.start(now_s)
    bob.start(now_s)
    endings: list[Ending | None] = [None, None]
    for _ in range(TURNS_MAX):
        to_alice = _deliver(Direction.BOB_TO_ALICE, bob, alice, line, now_s)
        spoke = _deliver(Direction.ALICE_TO_BOB, alice, bob, line, now_s) | to_alice
        endings = [end.next_event() or known for end, known in zip((alice, bob), endings, strict=True)]
        if spoke:
            continue
        deadlines = [end.deadline_s() for end in (alice, bob)]
        waiting = [deadline for deadline in deadlines if deadline is not None]
        if not waiting:
            break
        now_s = max(now_s, min(waiting))
        alice.advance(now_s)
        bob.advance(now_s)
    first, second = endings
    invariant(first is not None and second is not None, "a conversation ends with one event at each end")
    assert first is not None and second is not None
    return first, second


def _deliver(direction: Direction, sender: BlockEnd, receiver: BlockEnd, line: Line, now_s: float) -> bool:
    """Carry all that the sender has to say; return whether there was anything."""
    messages = sender.messages_to_send()
    for message in messages:
        for arriving in line(direction, message):
            receiver.receive(arriving, now_s)
    return bool(messages)
