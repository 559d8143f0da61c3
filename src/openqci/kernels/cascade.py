"""Cascade over many frames at once, in machine code: both ends' inner loops.

The definition (orders, passes, questions) is in :mod:`openqci.distillation.reconciliation`, ``frames`` and
``cascade``; here is how it is done fast. Every frame keeps for each block pass four rows of bits: this end's
key in that order, which prefix parities of Alice are known, what they are, and where a known piece begins
that holds an odd number of errors. A correction flips one bit in each order and one mark in each pass, so
nothing is ever summed again; a search halves a piece by the parity of at most a few words.

One call of :func:`advance` takes the answers of a round for all frames and writes the questions of the next.
What bounds it is the latency of scattered reads in level-2 cache: three to five a bit disclosed.
"""

from typing import Any

import numpy as np

from openqci.kernels.compiling import kernel
from openqci.kernels.words import (
    masked_parity_between,
    parity_between,
    prefix_parity,
    transpose_tile,
    turned,
    zeros_above,
    zeros_below,
)

SUBSETS = 16
"""Subsets in a batch: one bit each of a 16-bit number."""

OPEN = 0
"""Count of positions that opens a pass."""

# Stages of a frame; NEXT means that nothing of it is under way.
STAGE_NEXT, STAGE_OPENING, STAGE_SEARCHING, STAGE_DONE, STAGE_BROKEN = 0, 1, 2, 3, 4

# Columns of the integers that a frame carries from round to round.
STAGE, PASSES, BATCHES, CURRENT, SEARCHES, DISCLOSED, FLAGS, CORRECTED, COLUMNS = 0, 1, 2, 3, 4, 5, 6, 7, 8


@kernel
def permute(key: Any, take: Any, turns: Any, scratch: Any, target: Any) -> None:
    """Write a frame in the order of one pass: turn and shuffle words, transpose tiles, shuffle, turn.

    ``key``, ``scratch`` and ``target`` have shape (w,), ``take`` and ``turns`` (2, w).
    """
    for index in range(key.size):
        scratch[index] = turned(key[take[0, index]], turns[0, index])
    for start in range(0, key.size, 64):
        transpose_tile(scratch[start : start + 64])
    for index in range(key.size):
        target[index] = turned(scratch[take[1, index]], turns[1, index])


@kernel
def place_in_pass(position: int, place: Any, turns: Any) -> Any:
    """Return where a pass puts a bit of the key; ``place`` (2, w) is the inverse of ``take``."""
    word = place[0, position >> 6]
    bit = (position + turns[0, word]) & 63
    word, bit = (word & ~63) | bit, word & 63
    word = place[1, word]
    return (word << 6) | ((bit + turns[1, word]) & 63)


@kernel
def place_in_key(position: int, take: Any, turns: Any) -> Any:
    """Return which bit of the key a pass has at a position."""
    word = position >> 6
    bit = (position - turns[1, word]) & 63
    word = take[1, word]
    word, bit = (word & ~63) | bit, word & 63
    return (take[0, word] << 6) | ((bit - turns[0, word]) & 63)


@kernel
def write_orders(keys: Any, take: Any, turns: Any, scratch: Any, prefixes: Any) -> None:
    """Alice: write the prefix parities of every frame in every block pass.

    ``keys`` (frames, w); ``take``, ``turns`` (passes, 2, w), the first pass unused; ``prefixes``
    (frames, passes, w).
    """
    ordered = np.empty_like(scratch)
    for frame in range(keys.shape[0]):
        prefix_parity(keys[frame], prefixes[frame, 0])
        for index in range(1, prefixes.shape[1]):
            permute(keys[frame], take[index], turns[index], scratch, ordered)
            prefix_parity(ordered, prefixes[frame, index])
    ordered[:] = 0


@kernel
def bit_of(row: Any, position: int) -> Any:
    return (row[position >> 6] >> np.uint64(position & 63)) & np.uint64(1)


@kernel
def flip(row: Any, position: int) -> None:
    row[position >> 6] ^= np.uint64(1) << np.uint64(position & 63)


@kernel
def put(bits: Any, count: int, bit: Any) -> None:
    bits[count >> 3] |= np.uint8(bit << np.uint64(count & 7))


@kernel
def price(
    frames: Any, passes: Any, counts: Any, positions: Any, opening_bits: Any, frame_bits: int, passes_max: int
) -> Any:
    """Return how many bits a question asks for; -1 to -3 for a frame or pass, position or batch there is not.

    ``opening_bits`` (f, p) tells how many parities open a block pass of each frame.
    """
    bits = positions.size
    for entry in range(frames.size):
        frame, index = frames[entry], passes[entry]
        if frame >= opening_bits.shape[0] or index >= passes_max:
            return -1
        if counts[entry] != OPEN:
            continue
        if index < opening_bits.shape[1]:
            bits += opening_bits[frame, index]
        elif (index - opening_bits.shape[1]) % SUBSETS:
            return -3
        else:
            bits += SUBSETS
    for position in positions:
        if position >= frame_bits:
            return -2
    return bits


@kernel
def answer(
    keys: Any,
    prefixes: Any,
    masks: Any,
    block_bits: Any,
    frame_bits: Any,
    frames: Any,
    passes: Any,
    counts: Any,
    positions: Any,
    parities: Any,
) -> Any:
    """Alice: write the parities that a question asks for, bit by bit, and return how many.

    ``positions`` m - 1 ask for the parity of the first m bits. ``parities`` is zero and long enough.
    """
    block_passes = prefixes.shape[1]
    written = 0
    asked = 0
    for entry in range(frames.size):
        frame, index, count = frames[entry], passes[entry], counts[entry]
        length = frame_bits[frame]
        if index < block_passes:
            row = prefixes[frame, index]
            if count == OPEN:
                last = length if index == 0 else (keys.shape[1] << 6) - 1
                end = block_bits[index]
                while end < last:
                    put(parities, written, bit_of(row, end - 1))
                    written += 1
                    end += block_bits[index]
                if index == 0:
                    put(parities, written, bit_of(row, length - 1))
                    written += 1
            for _ in range(count):
                put(parities, written, bit_of(row, positions[asked]))
                written += 1
                asked += 1
        else:
            subset = index - block_passes
            if count == OPEN:
                for each in range(SUBSETS):
                    mask = masks[subset + each]
                    put(parities, written, masked_parity_between(keys[frame], mask, 0, length))
                    written += 1
            for _ in range(count):
                end = int(positions[asked]) + 1
                put(parities, written, masked_parity_between(keys[frame], masks[subset], 0, end))
                written += 1
                asked += 1
    return written


@kernel
def piece_begin(known: Any, position: int) -> Any:
    """Return where the known piece begins that holds a position: behind the last known end before it."""
    if position == 0:
        return 0
    index = (position - 1) >> 6
    word = known[index] & (~np.uint64(0) >> np.uint64(63 - ((position - 1) & 63)))
    while word == 0:
        if index == 0:
            return 0
        index -= 1
        word = known[index]
    return (index << 6) + 64 - int(zeros_above(word))


@kernel
def piece_end(known: Any, begin: int) -> Any:
    """Return where the known piece ends that begins here; the end of the frame is always known."""
    index = begin >> 6
    word = known[index] & (~np.uint64(0) << np.uint64(begin & 63))
    while word == 0:
        index += 1
        word = known[index]
    return (index << 6) + int(zeros_below(word)) + 1


@kernel
def mark_end(known: Any, alice: Any, end: int, parity: Any) -> None:
    """Note Alice's parity of the first ``end`` bits of a pass."""
    bit = np.uint64((end - 1) & 63)
    index = (end - 1) >> 6
    known[index] |= np.uint64(1) << bit
    alice[index] |= np.uint64(parity) << bit


@kernel
def correct(
    position: int, frame_state: Any, orders: Any, known: Any, odd: Any, odd_counts: Any, corrected: Any,
    place: Any, turns: Any, membership: Any,
) -> None:  # fmt: skip
    """Flip one bit of the key in all orders, and the parity of the piece around it in every pass."""
    if bit_of(corrected, position):
        frame_state[STAGE] = STAGE_BROKEN
        return
    flip(corrected, position)
    frame_state[CORRECTED] += 1
    for index in range(frame_state[PASSES]):
        at = position
        if index > 0:
            at = place_in_pass(position, place[index], turns[index])
        flip(orders[index], at)
        begin = piece_begin(known[index], at)
        flip(odd[index], begin)
        odd_counts[index] += 2 * int(bit_of(odd[index], begin)) - 1
    if frame_state[BATCHES]:
        frame_state[FLAGS] ^= int(membership[position])


@kernel
def take_opened_pass(
    index: int, length: int, size: int, order: Any, known: Any, alice: Any, odd: Any, odd_counts: Any,
    total: Any, parities: Any, read: int, scratch: Any,
) -> Any:  # fmt: skip
    """Take Alice's parities at the block ends of a pass, mark odd blocks; return how far was read."""
    prefix_parity(order, scratch)
    begin = 0
    before = np.uint64(0)
    while begin < length:
        end = min(begin + size, length)
        if end == length and index > 0:
            parity = total
        else:
            parity = np.uint64((parities[read >> 3] >> np.uint8(read & 7)) & np.uint8(1))
            read += 1
        mark_end(known, alice, end, parity)
        differs = parity ^ bit_of(scratch, end - 1)
        if differs != before:
            flip(odd, begin)
            odd_counts[index] += 1
        before = differs
        begin = end
    return read


@kernel
def collect_odd(
    odd: Any, known: Any, alice: Any, odd_counts: Any, index: int, begins: Any, ends: Any, parities: Any
) -> Any:
    """Take the odd pieces of a pass as searches, as many as there is room for; return how many."""
    found = 0
    for word_index in range(odd.size):
        word = odd[word_index]
        while word != 0 and found < begins.size:
            begin = (word_index << 6) + int(zeros_below(word))
            word &= word - np.uint64(1)
            begins[found] = begin
            ends[found] = piece_end(known, begin)
            parities[found] = 0 if begin == 0 else bit_of(alice, begin - 1)
            found += 1
        odd[word_index] = word
        if found == begins.size:
            break
    odd_counts[index] -= found
    return found


@kernel
def advance(
    lengths: Any,
    block_bits: Any,
    take: Any,
    place: Any,
    turns: Any,
    masks: Any,
    memberships: Any,
    orders: Any,
    known: Any,
    alice: Any,
    odd: Any,
    odd_counts: Any,
    corrected: Any,
    begins: Any,
    ends: Any,
    before: Any,
    state: Any,
    scratch: Any,
    parities: Any,
    out_frames: Any,
    out_passes: Any,
    out_counts: Any,
    out_positions: Any,
    totals: Any,
) -> None:
    """Bob: take the answers of a round in the order in which they were asked, and ask the next.

    Shapes, with f frames of w words, p block passes, s searches and b batches at hand: ``lengths`` (f,),
    ``block_bits`` (p,), ``take``, ``place``, ``turns`` (p, 2, w), ``masks`` (16 b, w), ``memberships``
    (b, 64 w), ``orders``, ``known``, ``alice``, ``odd`` (f, p, w), ``odd_counts`` (f, p), ``corrected``
    (f, w), ``begins``, ``ends``, ``before`` (f, s), ``state`` (f, 8), ``scratch`` (2, w). ``totals`` takes
    the numbers of entries, positions and parities of the question, then of frames for which no further batch
    is at hand and of frames whose parities contradict each other.
    """
    block_passes = block_bits.size
    frame_bits = orders.shape[2] << 6
    read = 0
    entries = 0
    asked = 0
    expected = 0
    waiting = 0
    broken = 0
    for frame in range(lengths.size):
        mine = state[frame]
        stage = mine[STAGE]
        if stage >= STAGE_DONE:
            continue
        length = lengths[frame]
        membership = memberships[max(0, mine[BATCHES] - 1)]
        current = mine[CURRENT]
        if stage == STAGE_OPENING:
            if current < block_passes:
                span = length if current == 0 else frame_bits
                total = np.uint64(0)
                if current > 0:
                    total = bit_of(alice[frame, 0], length - 1)
                read = take_opened_pass(
                    current, span, block_bits[current], orders[frame, current], known[frame, current],
                    alice[frame, current], odd[frame, current], odd_counts[frame], total, parities, read,
                    scratch[0],
                )  # fmt: skip
            else:
                flags = 0
                for each in range(SUBSETS):
                    parity = np.uint64((parities[read >> 3] >> np.uint8(read & 7)) & np.uint8(1))
                    read += 1
                    mask = masks[current - block_passes + each]
                    parity ^= masked_parity_between(orders[frame, 0], mask, 0, length)
                    flags |= int(parity) << each
                mine[FLAGS] = flags
                if flags == 0:
                    mine[STAGE] = STAGE_DONE
                    continue
            mine[STAGE] = STAGE_NEXT
        elif stage == STAGE_SEARCHING:
            open_searches = 0
            for search in range(mine[SEARCHES]):
                begin, end = int(begins[frame, search]), int(ends[frame, search])
                parity_before = np.uint64(before[frame, search])
                middle = (begin + end) >> 1
                parity = np.uint64((parities[read >> 3] >> np.uint8(read & 7)) & np.uint8(1))
                read += 1
                if current < block_passes:
                    own = parity_between(orders[frame, current], begin, middle)
                    mark_end(known[frame, current], alice[frame, current], middle, parity)
                else:
                    own = masked_parity_between(
                        orders[frame, 0], masks[current - block_passes], begin, middle
                    )
                if own ^ parity ^ parity_before:
                    end = middle
                else:
                    begin = middle
                    parity_before = parity
                if end - begin > 1:
                    begins[frame, open_searches] = begin
                    ends[frame, open_searches] = end
                    before[frame, open_searches] = parity_before
                    open_searches += 1
                    continue
                position = begin
                if current < block_passes:
                    flip(odd[frame, current], begin)
                    odd_counts[frame, current] += 1
                    if current > 0:
                        position = place_in_key(begin, take[current], turns[current])
                elif bit_of(masks[current - block_passes], begin) == 0:
                    mine[STAGE] = STAGE_BROKEN
                    break
                correct(
                    position, mine, orders[frame], known[frame], odd[frame], odd_counts[frame],
                    corrected[frame], place, turns, membership,
                )  # fmt: skip
            mine[SEARCHES] = open_searches
            if mine[STAGE] == STAGE_BROKEN:
                broken += 1
                break
            if open_searches == 0:
                mine[STAGE] = STAGE_NEXT
        while mine[STAGE] == STAGE_NEXT:
            chosen = -1
            for index in range(mine[PASSES]):
                if odd_counts[frame, index] > 0:
                    chosen = index
                    break
            if chosen >= 0:
                found = collect_odd(
                    odd[frame, chosen], known[frame, chosen], alice[frame, chosen], odd_counts[frame], chosen,
                    begins[frame], ends[frame], before[frame],
                )  # fmt: skip
                open_searches = 0
                for search in range(found):
                    begin = int(begins[frame, search])
                    if ends[frame, search] - begin > 1:
                        begins[frame, open_searches] = begin
                        ends[frame, open_searches] = ends[frame, search]
                        before[frame, open_searches] = before[frame, search]
                        open_searches += 1
                        continue
                    flip(odd[frame, chosen], begin)
                    odd_counts[frame, chosen] += 1
                    position = begin
                    if chosen > 0:
                        position = place_in_key(begin, take[chosen], turns[chosen])
                    correct(
                        position, mine, orders[frame], known[frame], odd[frame], odd_counts[frame],
                        corrected[frame], place, turns, membership,
                    )  # fmt: skip
                mine[CURRENT] = chosen
                mine[SEARCHES] = open_searches
                if open_searches and mine[STAGE] == STAGE_NEXT:
                    mine[STAGE] = STAGE_SEARCHING
            elif mine[FLAGS] != 0:
                subset = int(zeros_below(np.uint64(mine[FLAGS])))
                mine[CURRENT] = block_passes + (mine[BATCHES] - 1) * SUBSETS + subset
                begins[frame, 0] = 0
                ends[frame, 0] = length
                before[frame, 0] = 0
                mine[SEARCHES] = 1
                mine[STAGE] = STAGE_SEARCHING
            elif mine[PASSES] < block_passes:
                index = mine[PASSES]
                if index > 0:
                    permute(orders[frame, 0], take[index], turns[index], scratch[0], orders[frame, index])
                mine[PASSES] = index + 1
                mine[CURRENT] = index
                mine[STAGE] = STAGE_OPENING
            elif mine[BATCHES] * SUBSETS < masks.shape[0]:
                mine[CURRENT] = block_passes + mine[BATCHES] * SUBSETS
                mine[BATCHES] += 1
                mine[STAGE] = STAGE_OPENING
            else:
                break
        if mine[STAGE] == STAGE_BROKEN:
            broken += 1
            break
        if mine[STAGE] == STAGE_NEXT:
            waiting += 1
            continue
        bits = SUBSETS
        count = OPEN
        current = mine[CURRENT]
        if mine[STAGE] == STAGE_SEARCHING:
            count = mine[SEARCHES]
            bits = count
            for search in range(count):
                middle = (int(begins[frame, search]) + int(ends[frame, search])) >> 1
                out_positions[asked] = middle - 1
                asked += 1
        elif current < block_passes:
            span = length if current == 0 else frame_bits
            bits = (span + block_bits[current] - 1) // block_bits[current]
            if current > 0:
                bits -= 1
        mine[DISCLOSED] += bits
        expected += bits
        out_frames[entries] = frame
        out_passes[entries] = current
        out_counts[entries] = count
        entries += 1
    totals[0] = entries
    totals[1] = asked
    totals[2] = expected
    totals[3] = waiting
    totals[4] = broken
