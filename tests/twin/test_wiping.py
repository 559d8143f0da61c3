"""What a worker's memory still holds when a block has ended."""

import msgspec
import pytest

from openqci.core.keys import SecretBytes, SecretKey
from openqci.distillation import AbortReason, DistillationAborted, KeyDistilled
from openqci.quantum import Exchange, QuantumLink, exchange
from openqci.twin import block
from openqci.twin.block import distil_block, outcome
from tests.twin.test_block import KEY, METRO, order

HOP = next(iter(METRO.hops.values()))


@pytest.mark.parametrize("key_b", [KEY, bytes(len(KEY))], ids=["good", "aborted"])
def test_the_raw_bits_of_both_ends_are_wiped(monkeypatch: pytest.MonkeyPatch, key_b: bytes) -> None:
    photons: list[Exchange] = []

    def kept(link: QuantumLink, *arguments: object) -> Exchange:
        photons.append(exchange(link, *arguments))  # type: ignore[arg-type]
        assert photons[0].emissions.bits.any() and photons[0].detections.bits.any()
        return photons[0]

    monkeypatch.setattr(block, "exchange", kept)
    made = distil_block(order(METRO, HOP, key_b=key_b))
    assert bool(made.aborted) == (key_b != KEY)
    assert not photons[0].emissions.bits.any() and not photons[0].detections.bits.any()


def test_a_key_that_only_one_end_has_is_wiped() -> None:
    made = distil_block(order(METRO, HOP))
    assert made.report is not None
    at_a = KeyDistilled(SecretKey(SecretBytes(b"secret"), "rusca-2018", 1e-9), made.report)
    at_b = DistillationAborted(AbortReason.UNCONFIRMED, "silence", made.report, peer_may_have_key=True)
    none = outcome(order(METRO, HOP), 1.0, at_a, at_b)
    assert (none.key_a, none.key_b) == (b"", b"") and "silence" in none.aborted
    assert len(at_a.key.key) == 0
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(none), type=type(none)) == none
