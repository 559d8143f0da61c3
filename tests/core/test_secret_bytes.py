"""A buffer of secret bytes never shows itself, is cut without a rest, and is gone once wiped."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import IntegrityError
from openqci.core.identifiers import KeyId
from openqci.core.keys import DeliveredKey, RelayedKey, SecretBytes, SecretKey, wiped
from openqci.core.provenance import Provenance

SECRET = b"a secret that nobody may read"

PROVENANCE = Provenance(
    route=("a", "b"),
    links=("a--b",),
    hops=1,
    protocols=("decoy-state BB84",),
    proofs=("rusca-2018",),
    epsilon=1e-9,
    form="hop-by-hop one-time pad",
    simulated=True,
    made_at_s=0.0,
)


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format, ascii])
def test_it_shows_its_length_and_nothing_else(show) -> None:
    assert show(SecretBytes(SECRET)) == f"SecretBytes({len(SECRET)} bytes)"


@pytest.mark.parametrize(
    "holder",
    [
        SecretKey(SecretBytes(SECRET), "rusca-2018", 1e-9),
        RelayedKey("0" * 32, SecretBytes(SECRET), PROVENANCE),
        DeliveredKey(KeyId("00000000-0000-8000-8000-000000000000"), SecretBytes(SECRET)),
    ],
)
def test_no_stage_of_a_key_shows_it(holder: object) -> None:
    assert "SecretBytes(29 bytes)" in repr(holder)
    assert "secret that" not in repr(holder)


def test_it_is_not_compared_hashed_pickled_or_copied() -> None:
    secret = SecretBytes(SECRET)
    with pytest.raises(TypeError, match="constant time"):
        assert secret == SecretBytes(SECRET)
    with pytest.raises(TypeError, match="unhashable"):
        hash(secret)
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            leave(secret)


def test_it_is_a_copy_of_what_it_was_made_from() -> None:
    source = bytearray(SECRET)
    secret = SecretBytes(memoryview(source))
    source[:] = bytes(len(source))
    assert secret.reveal() == SECRET


def test_wiping_overwrites_the_buffer_that_was_revealed() -> None:
    secret = SecretBytes(SECRET)
    revealed = secret.reveal()
    secret.wipe()
    assert revealed == bytes(len(SECRET))
    assert len(secret) == 0
    secret.wipe()


@given(secret=st.binary(max_size=64), data=st.data())
def test_what_is_taken_and_what_is_left_are_the_whole(secret: bytes, data) -> None:
    held = SecretBytes(secret)
    before = held.reveal()
    length = data.draw(st.integers(0, len(secret)))
    taken = held.take(length)
    assert bytes(taken.reveal()) + bytes(held.reveal()) == secret
    assert before == bytes(len(secret)), "the bytes that were cut apart are not left in the old buffer"


@pytest.mark.parametrize("length", [-1, 4])
def test_no_more_is_taken_than_there_is(length: int) -> None:
    secret = SecretBytes(b"abc")
    with pytest.raises(IntegrityError, match="no more is taken"):
        secret.take(length)
    assert secret.reveal() == b"abc"


def test_a_block_wipes_however_it_ends() -> None:
    first, second, third = (SecretBytes(SECRET) for _ in range(3))
    with first:
        assert len(first) == len(SECRET)
    with pytest.raises(ZeroDivisionError), wiped(second, third):
        raise ZeroDivisionError
    assert [len(secret) for secret in (first, second, third)] == [0, 0, 0]
