"""Recordings as ``openqci distil`` uses them: synchronised, and cut into blocks of equally many slots."""

import math
import secrets
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from openqci.core.detections import DetectionRecord
from openqci.core.errors import ConfigurationError
from openqci.distillation.recorded import RecordedTags, detections_of, read_tags

BLOCK_DETECTIONS = 4_194_304
"""What a block is cut to unless its slots are given."""

BLOCKS_MAX = 10_000


@dataclass(frozen=True)
class Detected:
    """Bob's recording, synchronised."""

    tags: RecordedTags
    record: DetectionRecord
    synchronisation: dict[str, Any]

    def slots_wanted(self, block_slots: int | None) -> int:
        """Return how many slots a block should have: as asked, or so many that it has BLOCK_DETECTIONS."""
        if block_slots is not None:
            return block_slots
        blocks = max(1, round(self.record.slots.size / BLOCK_DETECTIONS))
        return math.ceil(self.tags.pulses / blocks)

    def blocks(self, block_slots: int) -> list[DetectionRecord]:
        """Return the detections of each block of so many slots; the double clicks are told with the first.

        ConfigurationError for more than BLOCKS_MAX.
        """
        number = block_count(self.tags.pulses, block_slots)
        if number > BLOCKS_MAX:
            raise ConfigurationError(
                f"--block-slots {block_slots} gives {number} blocks; expected at most {BLOCKS_MAX}"
            )
        return cut(self.record, self.tags.pulses, block_slots)

    def span_s(self, block_slots: int, number: int) -> tuple[float, float]:
        """Return when block ``number``, counted from 0, begins and ends, since the start of the run."""
        last = number + 1 == block_count(self.tags.pulses, block_slots)
        end = self.tags.pulses if last else (number + 1) * block_slots
        return number * block_slots / self.tags.clock_rate_hz, end / self.tags.clock_rate_hz


def detected(path: Path) -> Detected:
    """Read Bob's tags and find their slots."""
    tags = read_tags(path)
    record, report = detections_of(tags, secrets.token_bytes)
    return Detected(tags, record, msgspec.to_builtins(report))


def block_count(pulses: int, block_slots: int) -> int:
    """Return how many blocks a run has: what is left at its end joins the last."""
    return max(1, pulses // block_slots)


def cut(record: DetectionRecord, pulses: int, block_slots: int) -> list[DetectionRecord]:
    count = block_count(pulses, block_slots)
    edges = np.searchsorted(record.slots, [number * block_slots for number in range(1, count)])
    places = [0, *edges.tolist(), record.slots.size]
    return [
        DetectionRecord(
            record.slots[start:stop],
            record.bases[start:stop],
            record.bits[start:stop],
            record.double_clicks if number == 0 else 0,
        )
        for number, (start, stop) in enumerate(pairwise(places))
    ]


def slots_of_block(pulses: int, block_slots: int, number: int) -> tuple[int, int]:
    """Return first slot and end of a block; of one that the run has not, an empty range."""
    count = block_count(pulses, block_slots)
    if number >= count:
        return pulses, pulses
    return number * block_slots, pulses if number + 1 == count else (number + 1) * block_slots


def checked_block_slots(value: int | None) -> int | None:
    """Return ``--block-slots``; ConfigurationError below 1."""
    if value is not None and value < 1:
        raise ConfigurationError(f"--block-slots {value}; expected 1 or more")
    return value
