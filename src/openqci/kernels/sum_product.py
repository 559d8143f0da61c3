"""Layered sum-product decoding of syndromes in small integers: 64 checks side by side, four table look-ups.

The arithmetic is defined in :mod:`openqci.kernels.phi_tables`, and every route gives
the same integers: what a decoder decides does not depend on the machine. A check adds phi of its messages in
fixed point, takes each off again and looks the inverse up; phi has 128 entries of 16 bits, its inverse two
tables of 128 bytes, one fine and one coarse. Look-ups decide the speed:

=========  ======================================================================================
route      a look-up in 128 bytes
=========  ======================================================================================
VBMI       one ``vpermi2b`` on 64 lanes (x86 with AVX-512 VBMI)
AVX2       two to eight ``vpshufb`` on 32 lanes (x86 with AVX2)
ANY        32 loads; what any processor has
=========  ======================================================================================

``best_route()`` says which one this processor takes. All code is written on vectors of LLVM; a route only
names its width and how it narrows and looks up.

Layout. Posteriors of a column are a block of 16-bit lanes, a guard of 64 before them and copies of the first
64 behind, so that any 64 lanes in a circle are one unaligned load; a store near an end is made twice.
Messages are bytes in the order in which two 16-bit vectors narrow on this route.

What bounds it: about 50 vector instructions for 64 edges, four of them look-ups and seven of them stores.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox

from openqci.kernels.compiling import kernel
from openqci.kernels.phi_tables import FAR, FAR_SHIFT, NEAR, PHI, TABLE_SIZE

GUARD = 64
"""Lanes before and behind the posteriors of a column; at least the lanes of any route."""

SCRATCH_LANES = 128
"""Lanes of scratch memory for each edge of a check; enough for any route."""

I1, I8, I16, I32 = ir.IntType(1), ir.IntType(8), ir.IntType(16), ir.IntType(32)


class Route:
    """A way to look up many bytes at once; passed to kernels, which are compiled for each."""

    def __init__(self, name: str, lanes: int) -> None:
        self.name, self.lanes = name, lanes


VBMI, AVX2, ANY = Route("vbmi", 64), Route("avx2", 32), Route("any", 32)


def routes() -> tuple[Route, ...]:
    """Return the routes that this processor can take, best first."""
    features = set(cpu_target.target_context.codegen().magic_tuple()[2].split(","))
    found = [ANY]
    if "+avx2" in features:
        found.insert(0, AVX2)
    if {"+avx512vbmi", "+avx512bw"} <= features:
        found.insert(0, VBMI)
    return tuple(found)


def best_route() -> Route:
    return routes()[0]


# Numba's view of routes and vectors.


class RouteType(types.Type):
    """A route as an argument of kernels: nothing at run time, all at compile time."""

    def __init__(self, name: str, lanes: int) -> None:
        self.route, self.lanes = name, lanes
        super().__init__(name=f"Route({name}, {lanes})")


class VectorType(types.Type):
    """``lanes`` signed integers of ``bits`` bits, narrowed on ``route``."""

    def __init__(self, route: str, lanes: int, bits: int) -> None:
        self.route, self.lanes, self.bits = route, lanes, bits
        super().__init__(name=f"Vector({route}, {lanes}, {bits})")


register_model(RouteType)(models.OpaqueModel)


@register_model(VectorType)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, of: VectorType) -> None:
        primitive: Any = super().__init__
        primitive(manager, of, ir.VectorType(ir.IntType(of.bits), of.lanes))


@typeof_impl.register(Route)
def _typeof_route(route: Route, context: Any) -> RouteType:
    return RouteType(route.name, route.lanes)


def _unbox_route(route_type: RouteType, value: Any, context: Any) -> Any:
    native: Any = NativeValue
    return native(context.context.get_dummy_value())


_unboxed: Any = unbox
_unboxed(RouteType)(_unbox_route)


def _bytes_of(route: Any) -> VectorType:
    return VectorType(route.route, route.lanes, 8)


def _words_of(route: Any) -> VectorType:
    """Half as many lanes of 16 bits: two of these narrow to one vector of bytes."""
    return VectorType(route.route, route.lanes // 2, 16)


# Loads and stores: unaligned, anywhere in a contiguous array.


def _place(context: Any, builder: ir.IRBuilder, array_type: Any, array: Any, offset: Any, vector: Any) -> Any:
    view = context.make_array(array_type)(context, builder, array)
    return builder.bitcast(builder.gep(view.data, [offset]), vector.as_pointer())


def _load(result_of: Callable[[Any], VectorType]) -> Any:
    def typing(typing_context: Any, route: Any, array: Any, offset: Any) -> Any:
        def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            vector = context.get_value_type(signature.return_type)
            place = _place(context, builder, array, arguments[1], arguments[2], vector)
            return builder.load(place, align=1)

        return result_of(route)(route, array, types.int64), code

    return intrinsic(typing)


load_bytes = _load(_bytes_of)
"""(route, int8 array, offset): ``route.lanes`` bytes."""

load_words = _load(_words_of)
"""(route, int16 array, offset): half as many 16-bit lanes."""


def _store(typing_context: Any, array: Any, offset: Any, vector: Any) -> Any:
    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, array, arguments[0], arguments[1], arguments[2].type)
        builder.store(arguments[2], place, align=1)
        return context.get_dummy_value()

    return types.none(array, types.int64, vector), code


store: Any = intrinsic(_store)


# Arithmetic.


def _binary(build: Callable[[ir.IRBuilder, Any, Any], Any]) -> Any:
    def typing(typing_context: Any, left: Any, right: Any) -> Any:
        def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            return build(builder, *arguments)

        return left(left, right), code

    return intrinsic(typing)


def _call(builder: ir.IRBuilder, name: str, *arguments: Any, result: Any = None) -> Any:
    result = result or arguments[0].type
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    module = builder.module
    function = module.globals.get(name) or ir.Function(module, kind, name)
    return builder.call(function, arguments)


def _suffix(vector: Any) -> str:
    return f"v{vector.count}i{vector.element.width}"


def _filled(vector: Any, value: int) -> Any:
    return ir.Constant(vector, [value] * vector.count)


plus = _binary(lambda builder, left, right: builder.add(left, right))
minus = _binary(lambda builder, left, right: builder.sub(left, right))
differing = _binary(lambda builder, left, right: builder.xor(left, right))
plus_saturating = _binary(
    lambda builder, left, right: _call(builder, f"llvm.sadd.sat.{_suffix(left.type)}", left, right)
)
larger = _binary(
    lambda builder, left, right: builder.select(builder.icmp_signed(">", left, right), left, right)
)
negated_where = _binary(
    lambda builder, left, right: builder.select(
        builder.icmp_signed("<", right, _filled(right.type, 0)), builder.neg(left), left
    )
)
"""The left lanes, negated where the right ones are negative."""


def _magnitude(typing_context: Any, vector: Any) -> Any:
    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        (value,) = arguments
        least = _filled(value.type, -127)
        value = builder.select(builder.icmp_signed(">", value, least), value, least)
        return _call(builder, f"llvm.abs.{_suffix(value.type)}", value, ir.Constant(I1, 0))

    return vector(vector), code


magnitude: Any = intrinsic(_magnitude)
"""Return 0 to 127: -128 counts as -127."""


def _coarse(typing_context: Any, vector: Any) -> Any:
    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.ashr(arguments[0], _filled(arguments[0].type, FAR_SHIFT))

    return vector(vector), code


coarse: Any = intrinsic(_coarse)
"""Return lanes shifted right by FAR_SHIFT, sign kept."""


NARROWING = {"vbmi": "llvm.x86.avx512.packsswb.512", "avx2": "llvm.x86.avx2.packsswb"}


def _narrowed(typing_context: Any, low: Any, high: Any) -> Any:
    """Return both halves as bytes, cut off at -128 and 127, in this route's order."""
    result = VectorType(low.route, 2 * low.lanes, 8)

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        vector = context.get_value_type(result)
        if low.route in NARROWING:
            return _call(builder, NARROWING[low.route], *arguments, result=vector)
        halves = []
        for half in arguments:
            for name, limit in (("smin", 127), ("smax", -128)):
                half = _call(builder, f"llvm.{name}.{_suffix(half.type)}", half, _filled(half.type, limit))
            halves.append(builder.trunc(half, ir.VectorType(I8, low.lanes)))
        return builder.shuffle_vector(*halves, _indices(range(2 * low.lanes)))

    return result(low, high), code


narrowed: Any = intrinsic(_narrowed)


def _indices(lanes: Any) -> Any:
    lanes = list(lanes)
    return ir.Constant(ir.VectorType(I32, len(lanes)), lanes)


def _half_order(route: str, lanes: int, high: bool) -> list[int]:
    """Return which bytes of a narrowed vector are the low or the high half, in order."""
    if route not in NARROWING:
        return list(range(lanes // 2 * high, lanes // 2 * (1 + high)))
    return [16 * part + 8 * high + lane for part in range(lanes // 16) for lane in range(8)]


def _interleaved(builder: ir.IRBuilder, below: Any, above: Any, order: list[int]) -> Any:
    """Return 16-bit lanes of the given bytes, ``below`` low and ``above`` high."""
    count = below.type.count
    pairs = [lane for byte in order for lane in (byte, byte + count)]
    mixed = builder.shuffle_vector(below, above, _indices(pairs))
    return builder.bitcast(mixed, ir.VectorType(I16, count // 2))


def _widened(high: bool) -> Any:
    def typing(typing_context: Any, vector: Any) -> Any:
        result = VectorType(vector.route, vector.lanes // 2, 16)

        def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            order = _half_order(vector.route, vector.lanes, high)
            lanes = _interleaved(builder, arguments[0], arguments[0], order)
            return builder.ashr(lanes, _filled(lanes.type, 8))

        return result(vector), code

    return intrinsic(typing)


widened_low = _widened(False)
"""The half of a vector of bytes that was ``low`` when it was narrowed, as 16-bit lanes."""
widened_high = _widened(True)


def _joined(high: bool) -> Any:
    def typing(typing_context: Any, below: Any, above: Any) -> Any:
        result = VectorType(below.route, below.lanes // 2, 16)

        def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            order = _half_order(below.route, below.lanes, high)
            return _interleaved(builder, arguments[0], arguments[1], order)

        return result(below, above), code

    return intrinsic(typing)


joined_low = _joined(False)
"""16-bit lanes of the low half, from their low and their high bytes."""
joined_high = _joined(True)


def _negative_lanes(typing_context: Any, vector: Any) -> Any:
    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        (value,) = arguments
        signs = builder.icmp_signed("<", value, _filled(value.type, 0))
        bits = builder.bitcast(signs, ir.IntType(value.type.count))
        return builder.zext(bits, ir.IntType(64))

    return types.uint64(vector), code


negative_lanes: Any = intrinsic(_negative_lanes)
"""Return one bit for each 16-bit lane, set where it is negative, lowest lane first."""


# Look-ups.


def _looked_up_vbmi(builder: ir.IRBuilder, table: bytes, index: Any) -> Any:
    halves = [ir.Constant(index.type, list(table[start : start + 64])) for start in (0, 64)]
    return _call(builder, "llvm.x86.avx512.vpermi2var.qi.512", halves[0], index, halves[1])


def _looked_up_avx2(builder: ir.IRBuilder, table: bytes, index: Any) -> Any:
    """Sixteen entries at a time: ``vpshufb`` gives 0 where the index has its high bit set.

    Sixteen zeros need no look-up, which spares every third.
    """
    found = None
    for start in (start for start in range(0, TABLE_SIZE, 16) if any(table[start : start + 16])):
        shifted = builder.xor(index, _filled(index.type, start))
        only_here = _call(builder, "llvm.uadd.sat.v32i8", shifted, _filled(index.type, 0x70))
        part = ir.Constant(index.type, 2 * list(table[start : start + 16]))
        taken = _call(builder, "llvm.x86.avx2.pshuf.b", part, only_here)
        found = taken if found is None else builder.or_(found, taken)
    return found


def _looked_up_any(builder: ir.IRBuilder, table: bytes, index: Any) -> Any:
    name = f"openqci.table.{table.hex()}"
    constant = builder.module.globals.get(name)
    if constant is None:
        constant = ir.GlobalVariable(builder.module, ir.ArrayType(I8, TABLE_SIZE), name)
        constant.linkage, constant.global_constant = "internal", True
        constant.initializer = ir.Constant(constant.type.pointee, list(table))
    found = ir.Constant(index.type, ir.Undefined)
    for lane in range(index.type.count):
        at = builder.zext(builder.extract_element(index, ir.Constant(I32, lane)), ir.IntType(64))
        entry = builder.load(builder.gep(constant, [ir.Constant(ir.IntType(64), 0), at]))
        found = builder.insert_element(found, entry, ir.Constant(I32, lane))
    return found


_LOOK_UPS = {"vbmi": _looked_up_vbmi, "avx2": _looked_up_avx2, "any": _looked_up_any}


def _look_up(table: bytes) -> Any:
    def typing(typing_context: Any, index: Any) -> Any:
        def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            return _LOOK_UPS[index.route](builder, table, arguments[0])

        return index(index), code

    return intrinsic(typing)


phi_below = _look_up((PHI & 0xFF).astype(np.uint8).tobytes())
phi_above = _look_up((PHI >> 8).astype(np.uint8).tobytes())
near = _look_up(NEAR.tobytes())
far = _look_up(FAR.tobytes())


def _lanes_of(typing_context: Any, route: Any) -> Any:
    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return ir.Constant(ir.IntType(64), route.lanes)

    return types.int64(route), code


def _no_words(typing_context: Any, route: Any) -> Any:
    result = _words_of(route)

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return _filled(context.get_value_type(result), 0)

    return result(route), code


lanes_of: Any = intrinsic(_lanes_of)
"""Bytes that a route takes at once."""

no_words: Any = intrinsic(_no_words)
"""(route): zeros, half as many 16-bit lanes."""


# Decoding.


@kernel
def update_check(
    route: Any, posteriors: Any, messages: Any, blocks: Any, shifts: Any, lanes: int, lane: int, first: int,
    last: int, sign: Any, scratch: Any,
) -> None:  # fmt: skip
    """Update one check on ``lanes_of(route)`` lanes side by side, over edges ``first`` to ``last - 1``.

    ``sign`` are bytes, negative where the syndrome bit is set; ``scratch`` int16, SCRATCH_LANES an edge.
    """
    width = lanes_of(route)
    half = width >> 1
    low_sum = no_words(route)
    high_sum = no_words(route)
    for edge in range(first, last):
        at = shifts[edge] + lane
        if at >= lanes:
            at -= lanes
        at += blocks[edge]
        old = load_bytes(route, messages, edge * lanes + lane)
        low = minus(load_words(route, posteriors, at), widened_low(old))
        high = minus(load_words(route, posteriors, at + half), widened_high(old))
        message = narrowed(low, high)
        sign = differing(sign, message)
        index = magnitude(message)
        below = phi_below(index)
        above = phi_above(index)
        low_phi = joined_low(below, above)
        high_phi = joined_high(below, above)
        low_sum = plus_saturating(low_sum, low_phi)
        high_sum = plus_saturating(high_sum, high_phi)
        kept = (edge - first) * 4 * half
        store(scratch, kept, low)
        store(scratch, kept + half, high)
        store(scratch, kept + width, low_phi)
        store(scratch, kept + width + half, high_phi)
    for edge in range(first, last):
        at = shifts[edge] + lane
        if at >= lanes:
            at -= lanes
        block = blocks[edge]
        kept = (edge - first) * 4 * half
        low = load_words(route, scratch, kept)
        high = load_words(route, scratch, kept + half)
        low_rest = minus(low_sum, load_words(route, scratch, kept + width))
        high_rest = minus(high_sum, load_words(route, scratch, kept + width + half))
        fine = near(narrowed(low_rest, high_rest))
        rough = far(narrowed(coarse(low_rest), coarse(high_rest)))
        message = negated_where(larger(fine, rough), differing(sign, narrowed(low, high)))
        store(messages, edge * lanes + lane, message)
        low = plus(low, widened_low(message))
        high = plus(high, widened_high(message))
        store(posteriors, block + at, low)
        store(posteriors, block + at + half, high)
        if at < GUARD:
            store(posteriors, block + at + lanes, low)
            store(posteriors, block + at + lanes + half, high)
        if at > lanes - width:
            store(posteriors, block + at - lanes, low)
            store(posteriors, block + at - lanes + half, high)


@kernel
def spread_signs(words: Any, signs: Any) -> None:
    """Write 0 or -1 for each bit of words; shapes (w,) and (64 w,), int16."""
    for index in range(signs.size):
        signs[index] = -np.int16((words[index >> 6] >> np.uint64(index & 63)) & np.uint64(1))


@kernel
def decide(route: Any, posteriors: Any, lanes: int, errors: Any) -> None:
    """Write one bit for each lane of each column, set where an error is likelier than not; (columns, w)."""
    half = lanes_of(route) >> 1
    for column in range(errors.shape[0]):
        start = GUARD + column * (lanes + 2 * GUARD)
        for word in range(errors.shape[1]):
            bits = np.uint64(0)
            for part in range(0, 64, half):
                negative = negative_lanes(load_words(route, posteriors, start + (word << 6) + part))
                bits |= negative << np.uint64(part)
            errors[column, word] = bits


@kernel
def check_word(key: Any, columns: Any, shifts: Any, first: int, last: int, word: int) -> Any:
    """Return 64 checks of a row: the sum of words of the columns, each turned by its shift."""
    words = key.shape[1]
    total = np.uint64(0)
    for edge in range(first, last):
        shift = shifts[edge]
        at = word + (shift >> 6)
        if at >= words:
            at -= words
        after = at + 1
        if after == words:
            after = 0
        column = columns[edge]
        turn = np.uint64(shift & 63)
        total ^= (key[column, at] >> turn) | ((key[column, after] << np.uint64(1)) << (np.uint64(63) - turn))
    return total


@kernel
def write_syndrome(
    key: Any, columns: Any, shifts: Any, starts: Any, middles: Any, whole: Any, half: Any
) -> None:
    """Write the checks of all rows and of their first halves; ``key`` (columns, w), the others (rows, w)."""
    for row in range(whole.shape[0]):
        for word in range(whole.shape[1]):
            front = check_word(key, columns, shifts, starts[row], middles[row], word)
            half[row, word] = front
            whole[row, word] = front ^ check_word(key, columns, shifts, middles[row], starts[row + 1], word)


@kernel
def agrees(
    errors: Any, columns: Any, shifts: Any, starts: Any, middles: Any, split: Any, whole: Any, half: Any
) -> Any:
    """Return whether errors explain every check that was disclosed; ends at the first that they do not."""
    for row in range(whole.shape[0]):
        for word in range(whole.shape[1]):
            front = check_word(errors, columns, shifts, starts[row], middles[row], word)
            if (word << 6) < split[row] and front != half[row, word]:
                return False
            back = check_word(errors, columns, shifts, middles[row], starts[row + 1], word)
            if front ^ back != whole[row, word]:
                return False
    return True


@kernel
def decode(
    route: Any, posteriors: Any, messages: Any, columns: Any, blocks: Any, shifts: Any, starts: Any,
    middles: Any, split: Any, whole: Any, half: Any, whole_signs: Any, half_signs: Any, lanes: int,
    iterations_max: int, scratch: Any, errors: Any,
) -> Any:  # fmt: skip
    """Decode one frame; return the iterations it took, or 0 if they were not enough.

    Parameters
    ----------
    posteriors : (columns * (lanes + 2 * GUARD) + GUARD,), int16
        What is known beforehand, with guards; changed.
    messages : (edges * lanes,), int8
        Zero; changed.
    columns, blocks, shifts : (edges,), int64
        Of each edge, row by row: its column, where that begins in posteriors, its shift below ``lanes``.
    starts, middles, split : (rows + 1,), (rows,), (rows,), int64
        Where a row begins and where its second half; on how many of its lanes the first half is disclosed.
    whole, half : (rows, lanes / 64), uint64
        Syndrome of each row, and of its first half.
    whole_signs, half_signs : (rows * lanes,), int16
        The same, 0 or -1 for each.
    errors : (columns, lanes / 64), uint64
        Result.
    """
    width = lanes_of(route)
    for iteration in range(iterations_max):
        for row in range(whole.shape[0]):
            for lane in range(0, lanes, width):
                at = row * lanes + lane
                low = load_words(route, whole_signs, at)
                high = load_words(route, whole_signs, at + (width >> 1))
                sign = narrowed(low, high)
                first, last = starts[row], starts[row + 1]
                if lane < split[row]:
                    low = load_words(route, half_signs, at)
                    high = load_words(route, half_signs, at + (width >> 1))
                    front = narrowed(low, high)
                    middle = middles[row]
                    update_check(
                        route,
                        posteriors,
                        messages,
                        blocks,
                        shifts,
                        lanes,
                        lane,
                        first,
                        middle,
                        front,
                        scratch,
                    )
                    sign = differing(sign, front)
                    first = middle
                update_check(
                    route, posteriors, messages, blocks, shifts, lanes, lane, first, last, sign, scratch
                )
        decide(route, posteriors, lanes, errors)
        if agrees(errors, columns, shifts, starts, middles, split, whole, half):
            return iteration + 1
    return 0
