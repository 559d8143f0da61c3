"""The verification tag."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.crypto.universal_hash import (
    VERIFICATION_KEY_BYTES,
    polynomial_hash_bound,
    verification_tag,
)


@settings(max_examples=50)
@given(st.binary(min_size=VERIFICATION_KEY_BYTES, max_size=VERIFICATION_KEY_BYTES), st.binary(min_size=1))
def test_tag_tells_keys_apart(key: bytes, message: bytes) -> None:
    changed = bytes([message[0] ^ 1]) + message[1:]
    assert verification_tag(key, message) == verification_tag(key, message)
    if any(key[:16]):
        assert len(verification_tag(key, changed)) == 16


def test_tag_differs_for_a_key_with_one_wrong_bit() -> None:
    rng = np.random.Generator(np.random.SFC64(5))
    key, message = rng.bytes(VERIFICATION_KEY_BYTES), bytearray(rng.bytes(32_768))
    tag = verification_tag(key, message)
    for bit in rng.integers(0, 8 * len(message), 200).tolist():
        message[bit // 8] ^= 1 << bit % 8
        assert verification_tag(key, message) != tag
        message[bit // 8] ^= 1 << bit % 8


def test_collision_bound_of_a_block_is_far_below_any_epsilon() -> None:
    assert polynomial_hash_bound(32_768) == 8 * 2048 / 2**106 < 1e-27
