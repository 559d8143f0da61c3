"""Arithmetic in GF(2^128) on vectors of four elements, by the processor's carry-less multiplication.

An element is two 64-bit words, low half first, of a polynomial over GF(2) modulo
``x^128 + x^7 + x^2 + x + 1``; a vector is eight words. What the processor has is used: one instruction for
four products (VPCLMULQDQ with AVX-512), for two (with AVX2), or for one (PCLMULQDQ; PMULL on ARM). Where it
has none :func:`carryless_available` says so, and nothing here may be compiled: the code would not run.

Twiddle factors come as four words, ``t`` and ``t x^64``, so that a product takes four multiplications and one
for its reduction. Every function here is an intrinsic: LLVM code that a kernel contains.
"""

import platform
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped_cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

cgutils: Any = untyped_cgutils

WORD = ir.IntType(64)
LANE = ir.VectorType(WORD, 2)
"""One element."""

VECTOR = ir.VectorType(WORD, 8)
"""Four elements."""

INDEX = ir.IntType(32)
REDUCTION = 0x87
"""x^128 modulo the field's polynomial."""

LOW_LOW, HIGH_LOW, LOW_HIGH, HIGH_HIGH = 0x00, 0x01, 0x10, 0x11
"""Which half of the first and of the second factor a carry-less multiplication takes."""


def processor_features() -> frozenset[str]:
    """Return the instruction sets that kernels are compiled for, by LLVM's names."""
    codegen: Any = cpu_target.target_context.codegen()
    return frozenset(each[1:] for each in codegen._tm_features.split(",") if each.startswith("+"))


FEATURES = processor_features()
X86 = platform.machine().lower() in ("x86_64", "amd64")
ARM = platform.machine().lower() in ("aarch64", "arm64")


def carryless_available() -> bool:
    """Return whether the processor multiplies without carries."""
    return (X86 and "pclmul" in FEATURES) or (ARM and "aes" in FEATURES)


def lanes_at_once() -> int:
    """Return how many of the four products of a vector one instruction gives."""
    if not X86 or "vpclmulqdq" not in FEATURES:
        return 1
    return 4 if "avx512f" in FEATURES else 2


def shuffled(builder: ir.IRBuilder, first: Any, second: Any, order: Sequence[int]) -> Any:
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(INDEX, len(order)), list(order)))


def carryless(builder: ir.IRBuilder, a: Any, b: Any, halves: int) -> Any:
    """Return the products of the chosen halves, lane by lane: 127 bits each."""
    at_once = lanes_at_once()
    parts = []
    for start in range(0, 8, 2 * at_once):
        words = list(range(start, start + 2 * at_once))
        x, y = (shuffled(builder, each, each, words) for each in (a, b))
        parts.append(_product_of_part(builder, x, y, halves, at_once))
    while len(parts) > 1:
        parts = [
            shuffled(builder, low, high, range(2 * low.type.count))
            for low, high in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def _product_of_part(builder: ir.IRBuilder, x: Any, y: Any, halves: int, at_once: int) -> Any:
    if X86:
        name = "llvm.x86.pclmulqdq" + {1: "", 2: ".256", 4: ".512"}[at_once]
        byte = ir.IntType(8)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(x.type, [x.type, x.type, byte]), name
        )
        return builder.call(function, [x, y, ir.Constant(byte, halves)])
    wide = ir.VectorType(ir.IntType(8), 16)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(wide, [WORD, WORD]), "llvm.aarch64.neon.pmull64"
    )
    u = builder.extract_element(x, ir.Constant(INDEX, halves & 1))
    v = builder.extract_element(y, ir.Constant(INDEX, halves >> 4))
    return builder.bitcast(builder.call(function, [u, v]), LANE)


def xor(builder: ir.IRBuilder, *values: Any) -> Any:
    total = values[0]
    for each in values[1:]:
        total = builder.xor(total, each)
    return total


def low_to_high(builder: ir.IRBuilder, vector: Any) -> Any:
    """Return each lane times x^64, cut off at 128 bits."""
    zero = ir.Constant(VECTOR, [0] * 8)
    return shuffled(builder, vector, zero, [8, 0, 10, 2, 12, 4, 14, 6])


def high_to_low(builder: ir.IRBuilder, vector: Any) -> Any:
    """Return the high half of each lane."""
    zero = ir.Constant(VECTOR, [0] * 8)
    return shuffled(builder, vector, zero, [1, 9, 3, 11, 5, 13, 7, 15])


def reduction() -> Any:
    return ir.Constant(VECTOR, [REDUCTION, 0] * 4)


def times_twiddle(builder: ir.IRBuilder, a: Any, twiddle: tuple[Any, Any]) -> Any:
    """Return a t for t and t x^64, reduced."""
    t, shifted = twiddle
    low = xor(builder, carryless(builder, a, t, LOW_LOW), carryless(builder, a, shifted, HIGH_LOW))
    high = xor(builder, carryless(builder, a, t, LOW_HIGH), carryless(builder, a, shifted, HIGH_HIGH))
    over = carryless(builder, high, reduction(), HIGH_LOW)
    return xor(builder, low, low_to_high(builder, high), over)


def reduced(builder: ir.IRBuilder, low: Any, middle: Any, high: Any) -> Any:
    """Return ``low + middle x^64 + high x^128`` modulo the field's polynomial."""
    low = xor(builder, low, low_to_high(builder, middle))
    high = xor(builder, high, high_to_low(builder, middle))
    over = carryless(builder, high, reduction(), HIGH_LOW)
    high = xor(builder, high, high_to_low(builder, over))
    low = xor(builder, low, low_to_high(builder, over))
    return xor(builder, low, carryless(builder, high, reduction(), LOW_LOW))


class Words:
    """A contiguous array of words, as intrinsics see it."""

    def __init__(self, context: Any, builder: ir.IRBuilder, kind: Any, value: Any) -> None:
        self.builder = builder
        self.start = context.make_array(kind)(context, builder, value).data

    def vector(self, index: Any) -> Any:
        return self.builder.load(self.place(index, VECTOR), align=8)

    def put(self, index: Any, vector: Any) -> None:
        self.builder.store(vector, self.place(index, VECTOR), align=8)

    def everywhere(self, index: Any) -> Any:
        """Return one element in all four lanes."""
        lane = self.builder.load(self.place(index, LANE), align=8)
        return shuffled(self.builder, lane, lane, [0, 1] * 4)

    def place(self, index: Any, kind: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(self.start, [index]), kind.as_pointer())


def constant(value: int) -> Any:
    return ir.Constant(WORD, value)


def loop(builder: ir.IRBuilder, count: Any) -> Any:
    return cgutils.for_range(builder, count, intp=WORD)


def _intrinsic(arrays: int, body: Callable[..., None], arguments: int = 4) -> Any:
    """Return an intrinsic of two or four arguments, first arrays of words, then numbers; it gives nothing."""
    kinds = [types.Array(types.uint64, 1, "C")] * arrays + [types.int64] * (arguments - arrays)

    def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        words = [
            Words(context, builder, kind, value)
            for kind, value in zip(kinds[:arrays], values[:arrays], strict=True)
        ]
        body(builder, *words, *values[arrays:])
        return context.get_dummy_value()

    def of_two(typing_context: Any, first: Any, second: Any) -> Any:
        return types.void(*kinds), code

    def of_four(typing_context: Any, first: Any, second: Any, third: Any, fourth: Any) -> Any:
        return types.void(*kinds), code

    return intrinsic(of_two if arguments == 2 else of_four)


def _forward(builder: ir.IRBuilder, a: Any, b: Any, twiddle: tuple[Any, Any]) -> tuple[Any, Any]:
    upper = xor(builder, a, times_twiddle(builder, b, twiddle))
    return upper, xor(builder, upper, b)


def _backward(builder: ir.IRBuilder, a: Any, b: Any, twiddle: tuple[Any, Any]) -> tuple[Any, Any]:
    lower = xor(builder, a, b)
    return xor(builder, a, times_twiddle(builder, lower, twiddle)), lower


def _four_levels(way: Callable[..., tuple[Any, Any]]) -> Callable[..., None]:
    """Return the body of a pass: sixteen vectors at a time through four levels of butterflies.

    ``twiddles`` are 15 of four words: one for the widest level, then two, four, eight.
    """

    def body(builder: ir.IRBuilder, x: Words, twiddles: Words, start: Any, stride: Any) -> None:
        factors = [
            (twiddles.everywhere(constant(4 * each)), twiddles.everywhere(constant(4 * each + 2)))
            for each in range(15)
        ]
        levels = [0, 1, 2, 3] if way is _forward else [3, 2, 1, 0]
        with loop(builder, builder.lshr(stride, constant(3))) as here:
            first = builder.add(start, builder.shl(here.index, constant(3)))
            places = [builder.add(first, builder.mul(constant(row), stride)) for row in range(16)]
            rows = [x.vector(place) for place in places]
            for level in levels:
                half = 8 >> level
                for block in range(1 << level):
                    for row in range(2 * half * block, 2 * half * block + half):
                        rows[row], rows[row + half] = way(
                            builder, rows[row], rows[row + half], factors[(1 << level) - 1 + block]
                        )
            for place, row in zip(places, rows, strict=True):
                x.put(place, row)

    return body


def _transposed(builder: ir.IRBuilder, rows: list[Any]) -> list[Any]:
    """Return four vectors of four lanes with rows and lanes exchanged."""
    low = [shuffled(builder, rows[i], rows[i + 1], [0, 1, 8, 9, 4, 5, 12, 13]) for i in (0, 2)]
    high = [shuffled(builder, rows[i], rows[i + 1], [2, 3, 10, 11, 6, 7, 14, 15]) for i in (0, 2)]
    even = [0, 1, 2, 3, 8, 9, 10, 11]
    odd = [4, 5, 6, 7, 12, 13, 14, 15]
    return [
        shuffled(builder, low[0], low[1], even),
        shuffled(builder, high[0], high[1], even),
        shuffled(builder, low[0], low[1], odd),
        shuffled(builder, high[0], high[1], odd),
    ]


def _last_levels(way: Callable[..., tuple[Any, Any]]) -> Callable[..., None]:
    """Return the body of the narrowest four levels, on blocks of sixteen elements.

    ``bases`` are eight elements a block: the first twiddle of each level, t and t x^64 of the widest first;
    ``steps`` are vectors that lead from there to the others: of the second widest level, per lane of the
    third, per lane and half of the fourth. Spectra keep the lanes' order; nobody else reads them.
    """

    def body(builder: ir.IRBuilder, x: Words, bases: Words, steps: Words, start: Any) -> None:
        def factor(level: int, step: int | None = None) -> tuple[Any, Any]:
            pair = []
            for part in (0, 1):
                base = bases.everywhere(constant(4 * level + 2 * part))
                if step is not None:
                    base = xor(builder, base, steps.vector(constant(16 * step + 8 * part)))
                pair.append(base)
            return pair[0], pair[1]

        places = [builder.add(start, constant(8 * row)) for row in range(4)]
        rows = [x.vector(place) for place in places]
        third, fourth = [(0, 2), (1, 3)], [(0, 1), (2, 3)]
        levels = [
            (third, [factor(0)] * 2),
            (fourth, [factor(1), factor(1, 0)]),
            (third, [factor(2, 1)] * 2),
            (fourth, [factor(3, 2), factor(3, 3)]),
        ]
        if way is _backward:
            levels.reverse()
        for number, (pairs, factors) in enumerate(levels):
            if number == 2:
                rows = _transposed(builder, rows)
            for (i, j), chosen in zip(pairs, factors, strict=True):
                rows[i], rows[j] = way(builder, rows[i], rows[j], chosen)
        for place, row in zip(places, rows, strict=True):
            x.put(place, row)

    return body


def _sums_of_products(builder: ir.IRBuilder, a: Words, b: Words, sums: Words, places: Words) -> None:
    """Sum over spectra the products of elements; one reduction for each sum.

    ``places``: where the first spectrum of ``a`` starts and how far on the next one is, the same of ``b``,
    where the sums go, how many spectra, and how many vectors of each.
    """
    a_start, a_step, b_start, b_step, out, pieces, vectors = (
        builder.load(builder.gep(places.start, [constant(each)])) for each in range(7)
    )
    zero = ir.Constant(VECTOR, [0] * 8)
    with loop(builder, vectors) as here:
        offset = builder.shl(here.index, constant(3))
        low, middle, high = (cgutils.alloca_once_value(builder, zero) for _ in range(3))
        for each in (low, middle, high):
            builder.store(zero, each)
        with loop(builder, pieces) as piece:
            x = a.vector(builder.add(builder.add(a_start, offset), builder.mul(a_step, piece.index)))
            y = b.vector(builder.add(builder.add(b_start, offset), builder.mul(b_step, piece.index)))
            crossed = [carryless(builder, x, y, halves) for halves in (HIGH_LOW, LOW_HIGH)]
            for each, value in (
                (low, carryless(builder, x, y, LOW_LOW)),
                (middle, xor(builder, *crossed)),
                (high, carryless(builder, x, y, HIGH_HIGH)),
            ):
                builder.store(xor(builder, builder.load(each), value), each)
        totals = [builder.load(each) for each in (low, middle, high)]
        sums.put(builder.add(out, offset), reduced(builder, *totals))


def _xor_run(builder: ir.IRBuilder, x: Words, target: Any, source: Any, count: Any) -> None:
    """Add one run of words to another; they do not overlap."""

    def add(offset: Any, kind: Any) -> None:
        here, there = (x.place(builder.add(each, offset), kind) for each in (target, source))
        total = builder.xor(builder.load(here, align=8), builder.load(there, align=8))
        builder.store(total, here, align=8)

    with loop(builder, builder.lshr(count, constant(3))) as step:
        add(builder.shl(step.index, constant(3)), VECTOR)
    for width in (4, 2, 1):
        with builder.if_then(cgutils.is_not_null(builder, builder.and_(count, constant(width)))):
            done = builder.and_(count, constant(-2 * width))
            add(done, ir.VectorType(WORD, width))


def _small(width: int, back: bool) -> Callable[..., None]:
    """Return the body that rewrites 16 coefficients of ``width`` words, or undoes it, in registers."""
    # Half a block and the shift: division by s_2 squared and by s_2, then by s_1 of what it is in s_2 and of
    # its coefficients. First what lands in the upper half, then what lands below.
    runs = []
    for half, shift in ((8, 2), (4, 1), (8, 4), (2, 1)):
        pairs = [(half, 2 * half - shift, shift), (shift, half, half - shift)]
        runs += [(half, each) for each in pairs]
    if back:
        runs.reverse()

    def body(builder: ir.IRBuilder, x: Words, start: Any) -> None:
        count = 16 * width
        kind = ir.VectorType(WORD, count)
        place = x.place(start, kind)
        value = builder.load(place, align=8)
        for half, (target, source, length) in runs:
            order = [count] * count  # a zero
            for block in range(0, 16, 2 * half):
                for each in range(width * length):
                    order[width * (block + target) + each] = width * (block + source) + each
            value = builder.xor(value, shuffled(builder, value, ir.Constant(kind, [0] * count), order))
        builder.store(value, place, align=8)

    return body


forward_levels = _intrinsic(2, _four_levels(_forward))
"""``forward_levels(x, twiddles, start, stride)``: four levels of a block of 16 strides; words as unit."""

backward_levels = _intrinsic(2, _four_levels(_backward))
"""The inverse of :data:`forward_levels`."""

forward_last = _intrinsic(3, _last_levels(_forward))
"""``forward_last(x, bases, steps, start)``: the last four levels of one block of 16 elements."""

backward_last = _intrinsic(3, _last_levels(_backward))
"""The inverse of :data:`forward_last`."""

sums_of_products = _intrinsic(4, _sums_of_products)
"""``sums_of_products(a, b, sums, places)``; see its body for the seven places."""

xor_run = _intrinsic(1, _xor_run)
"""``xor_run(x, target, source, count)``: add words to others that they do not overlap."""

rewrite_16, rewrite_16_back = (_intrinsic(1, _small(1, back), 2) for back in (False, True))
"""``rewrite_16(x, start)``: rewrite 16 coefficients of one word each; see ``binary_product.rewrite``."""

rewrite_16_wide, rewrite_16_wide_back = (_intrinsic(1, _small(2, back), 2) for back in (False, True))
"""The same of coefficients of two words."""
