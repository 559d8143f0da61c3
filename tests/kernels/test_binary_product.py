"""Transforms over GF(2^128): against evaluation term by term, and on lesser processors."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.kernels import carryless
from openqci.kernels.binary_product import (
    FIELD_POLYNOMIAL,
    cantor_basis,
    element,
    field_product,
    field_square,
    middle_product,
    pieces_of,
    rewrite,
    rewrite_back,
    rewriting_steps,
    transform,
    transform_back,
    twiddle_bases,
    twiddle_steps,
)

elements = st.integers(0, 2**128 - 1)

LESSER_PROCESSORS = [
    ("haswell", "+sse4.2,+avx2,+pclmul", "True 1"),
    ("znver3", "+sse4.2,+avx2,+pclmul,+vpclmulqdq", "True 2"),
    ("nocona", "+sse2", "False 1"),
]

ON_OTHER_PROCESSORS = """
import numpy as np
from openqci.crypto.toeplitz import compiled_hash, compiled_route_available, portable_hash
from openqci.kernels.carryless import lanes_at_once
print(compiled_route_available(), lanes_at_once())
if compiled_route_available():
    rng = np.random.default_rng(1)
    for n, length in ((3_001, 1_000), (300_007, 130_001)):
        key, seed = (rng.integers(0, 256, -(-bits // 8), dtype=np.uint8) for bits in (n, n - 1))
        assert (compiled_hash(key, n, seed, length) == portable_hash(key, n, seed, length)).all()
"""


@given(elements, elements, elements)
def test_the_field_is_one(a, b, c):
    assert field_product(a, b ^ c) == field_product(a, b) ^ field_product(a, c)
    assert field_product(a, field_product(b, c)) == field_product(field_product(a, b), c)
    assert field_square(a) == field_product(a, a)
    assert field_product(1 << 127, 2) == FIELD_POLYNOMIAL ^ 1 << 128


def test_each_element_of_the_basis_gives_the_one_before():
    basis = cantor_basis()
    assert basis[0] == 1 and len(set(basis)) == 128
    assert all(field_square(high) ^ high == low for low, high in itertools.pairwise(basis))


@pytest.mark.parametrize("log_length", [4, 8, 12])
def test_the_transform_gives_the_values_at_all_points(log_length):
    rng = np.random.Generator(np.random.SFC64(1))
    x = rng.integers(0, 2**64, 2 << log_length, dtype=np.uint64)
    coefficients = [int(low) | int(high) << 64 for low, high in x.reshape(-1, 2)]
    values, tables = x.copy(), (twiddle_bases(), *twiddle_steps())
    rewrite(values, 0, log_length, rewriting_steps(log_length), 2)
    transform(values, 0, log_length, *tables)
    found = {int(low) | int(high) << 64 for low, high in values.reshape(-1, 2)}
    for point in range(0, 1 << log_length, 1 + (1 << log_length >> 4)):
        value = 0
        for each in reversed(coefficients):
            value = field_product(value, element(point)) ^ each
        assert value in found
    transform_back(values, 0, log_length, *tables)
    rewrite_back(values, 0, log_length, rewriting_steps(log_length), 2)
    assert (values == x).all()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32))
def test_the_middle_of_a_product(tail_bits, length, number):
    rng = np.random.Generator(np.random.SFC64(number))
    seed, tail = (rng.integers(0, 2, bits, dtype=np.uint8) for bits in (tail_bits + length - 1, tail_bits))
    rows = [
        np.frombuffer(np.packbits(np.pad(each, (0, -each.size % 64)), bitorder="little"), np.uint64)
        for each in (seed, tail)
    ]
    found = np.unpackbits(middle_product(*rows, tail_bits, length).view(np.uint8), bitorder="little")
    whole = np.convolve(seed.astype(int), tail.astype(int)) % 2
    assert found[:length].tolist() == whole[tail_bits - 1 :][:length].tolist()


@pytest.mark.parametrize("bits", [1, 10**3, 10**5, 10**6, 10**7, 1 << 26])
def test_pieces_cover_the_key(bits):
    log_length, p, q = pieces_of(bits, bits)
    assert p == q >= 1
    assert 8 <= log_length <= 16 and p <= 40


@pytest.mark.parametrize(
    ("processor", "features", "said"),
    [case for case in LESSER_PROCESSORS if set(case[1].replace("+", "").split(",")) <= carryless.FEATURES],
)
def test_lesser_processors_give_the_same_bits_or_say_that_they_cannot(processor, features, said, tmp_path):
    environment = os.environ | {
        "NUMBA_CPU_NAME": processor,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    command = [sys.executable, "-c", ON_OTHER_PROCESSORS]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == said
