"""One-time pad and one-time MAC: published vectors, algebra, and misuse that is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import IntegrityError
from openqci.crypto import ONE_TIME_MAC_KEY_BYTES, TAG_BYTES, equal, one_time_mac, one_time_pad

# RFC 8439, 2.5.2, and appendix A.3: vectors 1 (all zeros), 7 to 9 (reduction modulo 2^130 - 5), 10 and 11.
POLY1305_VECTORS = {
    "2.5.2": (
        "85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b",
        b"Cryptographic Forum Research Group".hex(),
        "a8061dc1305136c6c22b8baf0c0127a9",
    ),
    "A.3 #1": ("00" * 32, "00" * 64, "00" * 16),
    "A.3 #7": ("02" + "00" * 31, "ff" * 16, "03" + "00" * 15),
    "A.3 #8": ("02" + "00" * 15 + "ff" * 16, "02" + "00" * 15, "03" + "00" * 15),
    "A.3 #9": ("01" + "00" * 31, "ff" * 16 + "f0" + "ff" * 15 + "11" + "00" * 15, "05" + "00" * 15),
    "A.3 #10": ("01" + "00" * 31, "ff" * 16 + "fb" + "fe" * 15 + "01" * 16, "00" * 16),
    "A.3 #11": ("02" + "00" * 31, "fd" + "ff" * 15, "fa" + "ff" * 15),
}


@pytest.mark.parametrize("name", POLY1305_VECTORS)
def test_published_vectors_of_poly1305(name: str) -> None:
    key, message, tag = (bytes.fromhex(text) for text in POLY1305_VECTORS[name])
    assert one_time_mac(key, message) == tag


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_the_tag_is_the_polynomial_of_its_definition(key: bytes, message: bytes) -> None:
    """RFC 8439, 2.5 in integer arithmetic: an implementation that shares nothing with OpenSSL's."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    s = int.from_bytes(key[16:], "little")
    value = 0
    for start in range(0, len(message), 16):
        value = (value + int.from_bytes(message[start : start + 16] + b"\x01", "little")) * r % (2**130 - 5)
    assert one_time_mac(key, message) == ((value + s) % 2**128).to_bytes(16, "little")


def test_every_kind_of_buffer_gives_the_same_tag() -> None:
    key, message = bytes(range(32)), b"hop 3 of 72"
    tag = one_time_mac(key, message)
    assert len(tag) == TAG_BYTES
    assert tag == one_time_mac(bytearray(key), bytearray(message))
    assert tag == one_time_mac(memoryview(key), memoryview(message))


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_mac_key_of_another_length_is_refused(length: int) -> None:
    assert ONE_TIME_MAC_KEY_BYTES == 32
    with pytest.raises(IntegrityError, match="32 bytes"):
        one_time_mac(bytes(length), b"message")


@given(st.binary(max_size=200), st.data())
def test_the_pad_taken_away_again_leaves_the_message(message: bytes, data) -> None:
    pad = data.draw(st.binary(min_size=len(message), max_size=len(message)))
    mixed = one_time_pad(message, pad)
    assert mixed == bytes(a ^ b for a, b in zip(message, pad, strict=True))
    assert one_time_pad(mixed, pad) == message


@pytest.mark.parametrize(("message", "pad"), [(b"ab", b"a"), (b"a", b"ab"), (b"", b"a")])
def test_a_pad_of_another_length_is_refused(message: bytes, pad: bytes) -> None:
    with pytest.raises(IntegrityError, match="exactly as long"):
        one_time_pad(message, pad)


def test_leading_and_trailing_zeros_are_kept() -> None:
    assert one_time_pad(b"\x00\x01\x00", b"\x00\x01\x00") == bytes(3)
    assert one_time_pad(b"", b"") == b""


def test_equal_compares_bytes_of_any_buffer() -> None:
    assert equal(b"abc", bytearray(b"abc"))
    assert not equal(b"abc", b"abd")
    assert not equal(b"abc", b"abcd")
