"""Looks for secrets in the memory of a process of ours, as a core dump or a debugger would show it."""

import base64
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

PIECE_BYTES = 8
"""So much of a key is a find. The pieces of a key lie side by side, so that every run of 15 bytes of it holds
one, wherever it was cut off; that 8 other bytes are the same by chance will not happen."""

BASE64_CHARACTERS, HEX_CHARACTERS = 12, 16
READ_BYTES = 1 << 24
OVERLAP_BYTES = 64


def needles(keys: Iterable[bytes]) -> dict[bytes, str]:
    """Return the pieces of keys in every form in which they are looked for, and the form's name.

    Base64 in all three places that a byte can have in it: a source gives many keys as one text.
    """
    found: dict[bytes, str] = {}
    for key in keys:
        for at in range(0, len(key) - PIECE_BYTES + 1, PIECE_BYTES):
            found[key[at : at + PIECE_BYTES]] = "raw"
        for digits in (key.hex().encode(), key.hex().upper().encode()):
            for at in range(0, len(digits) - HEX_CHARACTERS + 1, HEX_CHARACTERS):
                found[digits[at : at + HEX_CHARACTERS]] = "hex"
        for shift in range(3):
            # The first four characters hold bits of what stands before; the last ones of what follows.
            text = base64.b64encode(bytes(shift) + key)[4 if shift else 0 : -4]
            for at in range(0, len(text) - BASE64_CHARACTERS + 1, BASE64_CHARACTERS):
                found[text[at : at + BASE64_CHARACTERS]] = "base64"
    return found


class Haystack:
    """Looks through large memory for many needles at once."""

    def __init__(self, pieces: Mapping[bytes, str]) -> None:
        self._pieces = pieces
        self._lengths = sorted({len(piece) for piece in pieces})
        self._front, self._next = (np.zeros(1 << 16, bool) for _ in range(2))
        for piece in pieces:
            self._front[int.from_bytes(piece[:2], "little")] = True
            self._next[int.from_bytes(piece[2:4], "little")] = True

    def form(self, piece: bytes) -> str:
        """Return the form of a piece."""
        return self._pieces[piece]

    def places(self, content: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield where a piece lies, and the piece. Two tables leave few places to look at."""
        if len(content) < PIECE_BYTES:
            return
        for odd in range(2):
            words = np.frombuffer(content, "<u2", (len(content) - odd) // 2, odd)
            places = np.flatnonzero(self._front[words[:-1]])
            places = places[self._next[words[places + 1]]]
            for at in (2 * places + odd).tolist():
                for length in self._lengths:
                    if (piece := content[at : at + length]) in self._pieces:
                        yield at, piece

    def count(self, content: bytes) -> Counter[str]:
        """Return how many pieces are in it, by form."""
        return Counter(self._pieces[piece] for _, piece in self.places(content))


def writable(pid: int) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the memory that a process may write, in parts that overlap by a secret."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)", line)
            assert found is not None
            start, end = int(found[1], 16), int(found[2], 16)
            if "w" not in found[3] or "r" not in found[3]:
                continue
            for at in range(start, end, READ_BYTES):
                memory.seek(at)
                yield found[4] or "anonymous", memory.read(min(READ_BYTES + OVERLAP_BYTES, end - at))


def finds(pid: int, haystack: Haystack) -> Counter[tuple[str, str]]:
    """Return how many pieces are in the memory of a process, by (form, part of memory)."""
    found: Counter[tuple[str, str]] = Counter()
    for part, content in writable(pid):
        for form, count in haystack.count(content).items():
            found[form, part] += count
    return found
