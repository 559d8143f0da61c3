"""Writes tests/crypto/end_to_end_vectors.json: the hybrid combiner, key sharing and the confirmation's tag.

Everything is computed here from the definitions that stand in the file, in plain Python, without a line of
OpenQCI: two independent ways to the same bytes. ML-KEM comes in by published secrets and ciphertexts
(tests/crypto/mlkem_vectors.json).

    python tools/make_end_to_end_vectors.py
"""

import hashlib
import json
from functools import reduce
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "tests" / "crypto"
P1305 = (1 << 130) - 5
CLAMP = 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF

DEFINITIONS = {
    "hybrid": "key = quantum xor SHAKE256(F('openqci hybrid v1') F(ss) F(algorithm) F(kem_key_id) "
    "F(ciphertext) F(batch_id) F('origin') F(origin_kme) F('target') F(target_kme) F('master') "
    "F(master_sae) F('slave') F(slave_sae) F(length in 8 bytes)); F(x) = length of x in 8 bytes, then x; "
    "numbers are big-endian, text is UTF-8; kem_key_id = SHA-256(F('openqci hybrid v1 key') F(algorithm) "
    "F(public key))",
    "sharing": "byte by byte over GF(2^8) modulo z^8 + z^4 + z^3 + z + 1: share i is the value at i of the "
    "polynomial of degree below threshold through the first shares, key its value at 0; if threshold = "
    "count the key is the XOR of all shares",
    "tag": "key = r | x | pad, 16 bytes each; u = Poly1305 with r and s = 0 of the message, its 16 bytes "
    "read big-endian as r, x and pad are; tag = x^5 + x^3 + u x^2 + r x + pad over GF(2^128) modulo "
    "z^128 + z^7 + z^2 + z + 1, the first bit of a block standing for z^127",
}


def stream(name: str, length_bytes: int) -> bytes:
    return hashlib.shake_128(name.encode()).digest(length_bytes)


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def product(a: int, b: int, modulus: int) -> int:
    """Multiply two binary polynomials modulo a third: carry-less product first, then division."""
    long = reduce(lambda total, bit: total ^ (a << bit if b >> bit & 1 else 0), range(b.bit_length()), 0)
    while long.bit_length() >= modulus.bit_length():
        long ^= modulus << (long.bit_length() - modulus.bit_length())
    return long


def hybrid(published: dict[str, Any], number: int, length_bytes: int) -> dict[str, Any]:
    names = {
        "origin_kme": "kme-pt-lisbon",
        "target_kme": "kme-pl-warsaw",
        "master_sae": "ministry-lisbon",
        "slave_sae": "embassy-żoliborz",
    }
    batch_id, quantum = stream(f"batch {number}", 5), stream(f"quantum {number}", length_bytes)
    key_id = stream(f"kem key {number}", 32)
    parts = [
        b"openqci hybrid v1",
        bytes.fromhex(published["ss"]),
        published["algorithm"].encode(),
        key_id,
        bytes.fromhex(published["ct"]),
        batch_id,
    ]
    for role, name in names.items():
        parts += [role.partition("_")[0].encode(), name.encode()]
    parts.append(length_bytes.to_bytes(8, "big"))
    text = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return {
        "algorithm": published["algorithm"],
        "seed": published["d"] + published["z"],
        "ciphertext": published["ct"],
        "kem_key_id": key_id.hex(),
        "batch_id": batch_id.hex(),
        **names,
        "quantum": quantum.hex(),
        "key": xor(quantum, hashlib.shake_256(text).digest(length_bytes)).hex(),
    }


def sharing(threshold: int, count: int, length_bytes: int) -> dict[str, Any]:
    """Solve for the polynomial's coefficients byte by byte (Gauss), then evaluate it."""
    first = [stream(f"share {threshold} {count} {number}", length_bytes) for number in range(threshold)]
    columns = [coefficients([share[at] for share in first]) for at in range(length_bytes)]
    shares = [bytes(value(column, number) for column in columns) for number in range(1, count + 1)]
    key = reduce(xor, shares) if threshold == count else bytes(column[0] for column in columns)
    return {
        "threshold": threshold,
        "count": count,
        "shares": [share.hex() for share in shares],
        "key": key.hex(),
    }


def times(a: int, b: int) -> int:
    return product(a, b, 0x11B)


def value(column: list[int], place: int) -> int:
    return reduce(lambda total, coefficient: times(total, place) ^ coefficient, reversed(column), 0)


def coefficients(values: list[int]) -> list[int]:
    size = len(values)
    rows = []
    for number in range(1, size + 1):
        powers = [reduce(times, [number] * power, 1) for power in range(size)]
        rows.append([*powers, values[number - 1]])
    for at in range(size):
        pivot = next(row for row in rows[at:] if row[at])
        rows.remove(pivot)
        inverse = next(each for each in range(256) if times(each, pivot[at]) == 1)
        pivot = [times(inverse, each) for each in pivot]
        rows = [[a ^ times(row[at], b) for a, b in zip(row, pivot, strict=True)] for row in rows]
        rows.insert(at, pivot)
    return [row[-1] for row in rows]


def tag(number: int, length_bytes: int) -> dict[str, Any]:
    key, message = stream(f"tag key {number}", 48), stream(f"message {number}", length_bytes)
    point = int.from_bytes(key[:16], "little") & CLAMP
    total = 0
    for at in range(0, length_bytes, 16):
        block = message[at : at + 16] + b"\x01"
        total = (total + int.from_bytes(block, "little")) * point % P1305
    u = int.from_bytes((total % (1 << 128)).to_bytes(16, "little"), "big")
    r, x, pad = (int.from_bytes(key[at : at + 16], "big") for at in (0, 16, 32))

    def power(exponent: int) -> int:
        return reduce(lambda a, b: product(a, b, (1 << 128) | 0x87), [x] * exponent)

    terms = [power(5), power(3), product(u, power(2), (1 << 128) | 0x87), product(r, x, (1 << 128) | 0x87)]
    return {
        "key": key.hex(),
        "message": message.hex(),
        "tag": (reduce(lambda a, b: a ^ b, terms) ^ pad).to_bytes(16, "big").hex(),
    }


if __name__ == "__main__":
    published = json.loads((FOLDER / "mlkem_vectors.json").read_text())["vectors"]
    document = {
        "title": "End-to-end keys of OpenQCI: hybrid combiner, sharing, tag of the confirmation",
        "definitions": DEFINITIONS,
        "source": "tools/make_end_to_end_vectors.py, in plain Python; inputs are SHAKE128 of their names",
        "licence": "Apache-2.0",
        "hybrid": [hybrid(one, n, (112, 33, 1, 4096)[n]) for n, one in enumerate(published)],
        "sharing": [sharing(*scheme, 24) for scheme in ((1, 1), (2, 2), (2, 3), (3, 5), (4, 4), (5, 7))],
        "tag": [tag(number, length) for number, length in enumerate((0, 1, 16, 17, 112, 1000))],
    }
    (FOLDER / "end_to_end_vectors.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
