"""Secret sharing over disjoint routes: key of which fewer than all, or fewer than k, shares tell nothing.

*All of n*: the key is the XOR of n shares. Any n - 1 of them are independent of it.

*k of n* (Shamir, "How to share a secret", CACM 22 (1979) 612): byte by byte, share i is the value at i of a
polynomial of degree below k over GF(2^8), the key its value at 0. The usual order is turned round: nobody
draws a key and coefficients; the first k shares are given uniform strings (link key of k routes), and *they*
say which polynomial it is. Value at 0, and shares k + 1 to n, are computed. Since a polynomial of degree
below k is one to one with its values at any k different points, uniform values at 1 to k give uniform values
at any k points; so 0 together with any k - 1 shares is uniform, which says that the key is uniform and
independent of any k - 1 shares. No assumption on computing power enters.

GF(2^8) is that of AES: polynomials modulo z^8 + z^4 + z^3 + z + 1. Multiplication by a constant is a table
of 256 bytes, applied to a whole string at once.

>>> first = {1: SecretBytes(b"one"), 2: SecretBytes(b"two")}
>>> third = value_at(3, first)
>>> value_at(0, first).reveal() == value_at(0, {1: first[1], 3: third}).reveal()
True
"""

from collections.abc import Mapping, Sequence
from functools import cache, reduce

from openqci.core.errors import invariant
from openqci.core.keys import SecretBytes
from openqci.crypto.one_time import one_time_pad

SHARES_MAX = 16
"""More routes without a common node than any network of ours has."""

REDUCTION = 0x11B

__all__ = ["SHARES_MAX", "further_shares", "joined", "value_at"]


def joined(shares: Mapping[int, SecretBytes], threshold: int, count: int) -> SecretBytes:
    """Return the key of which ``shares`` are exactly as many as are needed, by number from 1 on.

    ``threshold`` of ``count`` shares: the XOR of all where all are needed, else the polynomial's value at 0.
    """
    check_scheme(threshold, count)
    invariant(len(shares) == threshold, "a key is joined of exactly as many shares as it needs")
    invariant(all(1 <= number <= count for number in shares), "shares are numbered from 1")
    if threshold == count:
        return xor_of(list(shares.values()))
    return value_at(0, shares)


def further_shares(first: Sequence[SecretBytes], count: int) -> list[SecretBytes]:
    """Return shares k + 1 to ``count`` that belong to the first k, which are given."""
    check_scheme(len(first), count)
    given = {number + 1: share for number, share in enumerate(first)}
    return [value_at(number, given) for number in range(len(first) + 1, count + 1)]


def xor_of(shares: Sequence[SecretBytes]) -> SecretBytes:
    """Return the XOR of strings of one length."""
    total = SecretBytes(shares[0].reveal())
    for share in shares[1:]:
        with total as before:
            total = SecretBytes(one_time_pad(before.reveal(), share.reveal()))
    return total


def value_at(place: int, values: Mapping[int, SecretBytes]) -> SecretBytes:
    """Return the value at ``place`` of the polynomial of lowest degree with these values (Lagrange)."""
    invariant(len({len(value) for value in values.values()}) == 1, "shares of one key have one length")
    parts = []
    for at, value in values.items():
        table = multiplication_table(lagrange_weight(place, at, list(values)))
        parts.append(SecretBytes(value.reveal().translate(table)))
    try:
        return xor_of(parts)
    finally:
        for part in parts:
            part.wipe()


def lagrange_weight(place: int, at: int, points: Sequence[int]) -> int:
    """Return what the value at ``at`` counts for at ``place``: the product of (place - j) / (at - j)."""
    others = [each for each in points if each != at]
    over = reduce(multiply, (place ^ other for other in others), 1)
    under = reduce(multiply, (at ^ other for other in others), 1)
    return multiply(over, inverse(under))


def multiply(a: int, b: int) -> int:
    """Return the product of two elements of GF(2^8); both are public (numbers of shares).

    >>> hex(multiply(0x57, 0x83))  # FIPS 197, 4.2
    '0xc1'
    """
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a & 0x100:
            a ^= REDUCTION
        b >>= 1
    return product


def inverse(a: int) -> int:
    """Return 1 / a = a^254.

    >>> multiply(0x53, inverse(0x53))
    1
    """
    invariant(a != 0, "no two shares have one number")
    return reduce(multiply, [a] * 254, 1)


@cache
def multiplication_table(constant: int) -> bytes:
    """Return the products of a constant with every byte."""
    return bytes(multiply(constant, each) for each in range(256))


def check_scheme(threshold: int, count: int) -> None:
    """Assert that a key can be shared so."""
    invariant(1 <= threshold <= count <= SHARES_MAX, f"1 to {SHARES_MAX} shares, some or all needed")
