"""How long each stage of a block takes at one end, measured around the six verbs."""

import time
from collections import defaultdict

from openqci.distillation import DistillationAborted, KeyDistilled
from openqci.distillation.end import BlockEnd, State

STAGES = {
    State.NEW: "sifting",
    State.LISTENING: "sifting",
    State.ANNOUNCED: "sifting",
    State.SIFTED: "estimation",
    State.TESTED: "reconciliation",
    State.RECONCILING: "reconciliation",
    State.CORRECTED: "verification",
    State.VERIFYING: "amplification",
    State.VERIFIED: "amplification",
    State.PENDING: "confirmation",
    State.IN_DOUBT: "confirmation",
}
"""What an end does with a message that reaches it in a state.

Alice answers the end of error correction (verification) while she is reconciling; that is the little that
stands under the wrong name.
"""


class Stopwatch:
    """An end of a block that keeps the time of what it does; otherwise the end itself."""

    def __init__(self, end: BlockEnd) -> None:
        self._end = end
        self.seconds: dict[str, float] = defaultdict(float)

    @property
    def state(self) -> State:
        return self._end.state

    def start(self, now_s: float) -> None:
        began = time.perf_counter()
        self._end.start(now_s)
        self.seconds["sifting"] += time.perf_counter() - began

    def messages_to_send(self) -> list[bytes]:
        return self._end.messages_to_send()

    def receive(self, data: bytes, now_s: float) -> None:
        stage, began = STAGES.get(self._end.state, "afterwards"), time.perf_counter()
        self._end.receive(data, now_s)
        self.seconds[stage] += time.perf_counter() - began

    def next_event(self) -> KeyDistilled | DistillationAborted | None:
        return self._end.next_event()

    def deadline_s(self) -> float | None:
        return self._end.deadline_s()

    def advance(self, now_s: float) -> None:
        self._end.advance(now_s)

    def abort(self, detail: str) -> None:
        self._end.abort(detail)
