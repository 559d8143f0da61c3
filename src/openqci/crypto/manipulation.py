"""A one-time MAC that stays sound when its own key was tampered with, by adding what the forger chooses.

A key that was shared over several routes is put together of shares, and a node of one route can add a
difference of its choice to what arrives: to the key *and to the MAC key that came with it*. Poly1305 promises
nothing then. This tag does. Its key is (r, x, pad), 16 bytes each. With u = Poly1305's polynomial hash of the
message at the point r, a function of two blocks is taken at x and hidden by a one-time pad:

    tag = x^5 + x^3 + u x^2 + r x + pad        in GF(2^128)

The first four terms are the algebraic manipulation detection code of Cramer, Dodis, Fehr, Padró and Wichs
("Detection of algebraic manipulation with applications to robust secret sharing and fuzzy extractors",
EUROCRYPT 2008, theorem 2) for the blocks r, u, 1: whatever r and u became, whoever adds fixed differences to
x, pad and tag without knowing x is found out, but for a chance of 4 / 2^128. What would have to vanish is a
polynomial in x of degree at most 4 that is not zero, since (x + e)^5 - x^5 has the leading term e x^4. So r
and u are what they were, and a message that was changed has the same u at the same r with a chance of at
most 8 ceil(L / 16) / 2^106 (Bernstein 2005, theorem 3.3). The tag tells nothing about the message, or about
r and x, to whoever does not know pad.

GF(2^128) is polynomials modulo z^128 + z^7 + z^2 + z + 1; the first bit of a block stands for z^127.
"""

from collections.abc import Callable

from openqci.core.errors import invariant
from openqci.crypto.one_time import Buffer, one_time_mac

MANIPULATION_KEY_BYTES = 48
BLOCK_BYTES = 16
FIELD_BITS = 128
MASK = (1 << FIELD_BITS) - 1
SPREAD_MASK = int.from_bytes(b"\x01" * FIELD_BITS, "big")
LOWEST_BITS = bytes(b"01"[each & 1] for each in range(256))


def manipulation_tag(key: Buffer, *message: Buffer) -> bytes:
    """Return the 16-byte tag of a message under a 48-byte key that is used for this message alone.

    The message may come in parts, which are one behind the other; both ends know the length of each.
    """
    invariant(len(key) == MANIPULATION_KEY_BYTES, "a key of this MAC has 48 bytes")
    with memoryview(key) as whole, whole[:BLOCK_BYTES] as point:
        hashed = int.from_bytes(one_time_mac(bytes(point) + bytes(BLOCK_BYTES), *message), "big")
        r, x, pad = (int.from_bytes(whole[at : at + BLOCK_BYTES], "big") for at in (0, 16, 32))
    return (detection_code(r, hashed, x, product) ^ pad).to_bytes(BLOCK_BYTES, "big")


def detection_code(r: int, u: int, x: int, times: Callable[[int, int], int]) -> int:
    """Return x^5 + x^3 + u x^2 + r x in the field of characteristic 2 whose product is given."""
    square = times(x, x)
    return times(x, times(square, square) ^ square ^ times(u, x) ^ r)


def product(a: int, b: int) -> int:
    """Return the product of two elements of GF(2^128), in steps that do not depend on them.

    Bits set 8 apart do not carry into each other: 128 of them add up to less than 2^8. So one long product of
    integers holds all sums of the carry-less one, and their lowest bits are its bits.

    >>> product(1 << 127, 2) == (1 << 7) | (1 << 2) | (1 << 1) | 1
    True
    """
    sums = (spread(a) * spread(b)).to_bytes(2 * FIELD_BITS, "big")
    total = int(sums.translate(LOWEST_BITS), 2)
    for _ in range(2):
        high = total >> FIELD_BITS
        total = (total & MASK) ^ high ^ high << 1 ^ high << 2 ^ high << 7
    return total


def spread(element: int) -> int:
    """Return the bits of an element, 8 apart."""
    return int.from_bytes(f"{element:0128b}".encode(), "big") & SPREAD_MASK
