"""Sum-product decoding: every route of this processor, and NumPy, decide alike to the bit."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from openqci.distillation.reconciliation.ldpc.compiled import CompiledDecoder
from openqci.distillation.reconciliation.ldpc.ladder import COLUMNS, code
from openqci.distillation.reconciliation.ldpc.portable import PortableDecoder
from openqci.kernels import phi_tables, sum_product

Words = np.ndarray
ITERATIONS_MAX = 40


def sparse(lift: int, qber: float, seed: int) -> Words:
    """Return errors at this rate, as a frame."""
    rng = np.random.Generator(np.random.SFC64(seed))
    bits = (rng.random((COLUMNS, lift)) < qber).astype(np.uint8)
    return np.packbits(bits, axis=1, bitorder="little").view("<u8")


def prior(qber: float) -> int:
    return round(phi_tables.LLR_UNITS_PER_NAT * np.log((1 - qber) / qber))


def nothing_known(lift: int) -> Words:
    return np.zeros((COLUMNS, lift // 64), np.uint64)


# Tables


def test_the_tables_are_phi_and_its_inverse() -> None:
    """phi(phi(x)) is x: the tables give back a lone message, to within a step, where its phi is resolved."""
    magnitudes = np.arange(8, 56)
    sums = phi_tables.PHI[magnitudes].astype(int)
    near = phi_tables.NEAR[np.minimum(sums, 127)]
    far = phi_tables.FAR[np.minimum(sums >> phi_tables.FAR_SHIFT, 127)]
    assert np.abs(np.maximum(near, far) - magnitudes).max() <= 2
    exact = -np.log(np.tanh(magnitudes / 16)) * phi_tables.PHI_UNITS
    assert np.abs(phi_tables.PHI[magnitudes] - exact).max() <= 0.5
    assert np.all(np.diff(phi_tables.PHI.astype(int)) <= 0)
    assert phi_tables.NEAR[0] == phi_tables.MESSAGE_MAX > phi_tables.NEAR[1]


def test_no_sum_leaves_sixteen_bits() -> None:
    """A posterior is at most what is known beforehand and 20 messages, with their signs."""
    assert phi_tables.KNOWN + 20 * phi_tables.MESSAGE_MAX + 127 <= 32767
    assert phi_tables.KNOWN - 20 * phi_tables.MESSAGE_MAX - 127 > 127
    rest = phi_tables.SUM_MAX - phi_tables.PHI_MAX
    assert phi_tables.FAR[min(rest >> phi_tables.FAR_SHIFT, 127)] == 0, "a saturated sum means nothing known"


# Syndromes


@pytest.mark.parametrize(("rows", "lift"), [(15, 128), (37, 256), (140, 128), (28, 1024)])
def test_syndromes_are_sums_of_the_bits_that_the_table_names(rows: int, lift: int) -> None:
    of, frame = code(rows), sparse(lift, 0.5, rows)
    compiled, portable = CompiledDecoder(of, lift).syndrome(frame), PortableDecoder(of, lift).syndrome(frame)
    bits = np.unpackbits(frame.view(np.uint8), axis=1, bitorder="little")
    for one, other in zip(compiled, portable, strict=True):
        assert np.array_equal(one, other)
    whole = np.unpackbits(compiled[0].view(np.uint8), axis=1, bitorder="little")
    for row, check in ((0, 0), (rows - 1, lift - 1), (rows // 2, 77)):
        edges = range(of.starts[row], of.starts[row + 1])
        expected = sum(int(bits[of.columns[e], (check + of.shifts[e]) % lift]) for e in edges) % 2
        assert whole[row, check] == expected


# Decoding

CASES = [(37, 128, 0.017, 0), (21, 256, 0.010, 19), (66, 128, 0.040, 57), (140, 128, 0.09, 0)]


@pytest.mark.parametrize(("rows", "lift", "qber", "split_words"), CASES)
def test_all_routes_and_numpy_decide_alike(rows: int, lift: int, qber: float, split_words: int) -> None:
    """Posteriors, messages and decisions are equal after every number of iterations."""
    of, errors = code(rows), sparse(lift, qber, rows)
    portable = PortableDecoder(of, lift)
    whole, front = portable.syndrome(errors)
    known = nothing_known(lift)
    for iterations_max in (1, 3, ITERATIONS_MAX):
        request = whole, front, split_words, prior(qber), known, iterations_max
        expected = portable.errors(*request)
        for route in sum_product.routes():
            compiled = CompiledDecoder(of, lift, route)
            found = compiled.errors(*request)
            assert (found is None) is (expected is None), route.name
            inner = compiled._posteriors[: -sum_product.GUARD].reshape(COLUMNS, -1)
            inner = inner[:, sum_product.GUARD : -sum_product.GUARD]
            assert np.array_equal(inner, portable._posteriors), (route.name, iterations_max)
    assert found is not None and np.array_equal(found, errors)


def test_known_bits_are_never_errors() -> None:
    """Half of a frame is known to be right: the rest is found from as many checks as the rest asks for."""
    lift, qber = 256, 0.03
    known = nothing_known(lift)
    known[:, ::2] = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
    errors = sparse(lift, qber, 1) & ~known
    decoders = [CompiledDecoder(code(37), lift), PortableDecoder(code(37), lift)]
    whole, front = decoders[0].syndrome(errors)
    for decoder in decoders:
        found = decoder.errors(whole, front, 0, prior(qber), known, ITERATIONS_MAX)
        assert found is not None and np.array_equal(found, errors)


@pytest.mark.parametrize("decoder", [CompiledDecoder, PortableDecoder])
def test_only_errors_that_explain_every_check_are_given(decoder: type) -> None:
    """A syndrome that no few errors have is not explained away; neither is one wrong check in a half."""
    one, lift = decoder(code(37), 128), 128
    errors = sparse(lift, 0.012, 3)
    whole, front = one.syndrome(errors)
    known = nothing_known(lift)
    noise = np.frombuffer(np.random.Generator(np.random.SFC64(2)).bytes(whole.nbytes), np.uint64)
    assert one.errors(noise.reshape(whole.shape), front, 0, 35, known, 5) is None
    found = one.errors(whole, front, 8, 35, known, ITERATIONS_MAX)
    assert found is not None and np.array_equal(found, errors)
    front[1, 1] ^= np.uint64(1)
    wrong = one.errors(whole, front, 8, 35, known, ITERATIONS_MAX)
    if wrong is not None:
        explained = one.syndrome(wrong)
        assert np.array_equal(explained[0], whole) and explained[1][1, 1] == front[1, 1]
    front[1, 1] ^= np.uint64(1)
    front[20, 0] ^= np.uint64(1)
    assert np.array_equal(one.errors(whole, front, 8, 35, known, ITERATIONS_MAX), errors), "beyond the split"


def test_wiping_forgets_the_errors() -> None:
    for decoder in (CompiledDecoder(code(37), 128), PortableDecoder(code(37), 128)):
        decoder.errors(*decoder.syndrome(sparse(128, 0.01, 1)), 0, 35, nothing_known(128), 5)
        assert decoder._posteriors.any() and decoder._messages.any()
        decoder.wipe()
        assert not decoder._posteriors.any() and not decoder._messages.any()


# Processors


def test_the_best_route_comes_first_and_any_is_always_there() -> None:
    names = [route.name for route in sum_product.routes()]
    assert names[-1] == "any" and sum_product.best_route().name == names[0]
    assert all(route.lanes <= sum_product.GUARD for route in sum_product.routes())


SCRIPT = """
from openqci.kernels import sum_product
print(*[route.name for route in sum_product.routes()])
"""


@pytest.mark.parametrize(
    ("features", "expected"),
    [("", "any"), ("+avx,+avx2", "avx2 any"), ("+avx,+avx2,+avx512f,+avx512bw,+avx512vbmi", "vbmi avx2 any")],
)
def test_a_processor_is_given_no_instruction_that_it_lacks(
    features: str, expected: str, tmp_path: Path
) -> None:
    """The route follows the features that code is compiled for, not the machine of the build."""
    environment = os.environ | {
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == expected, done.stderr
