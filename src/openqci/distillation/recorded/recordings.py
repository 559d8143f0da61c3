"""What the two ends have recorded of a run: every pulse that Alice sent, every tag that Bob's tagger gave.

Both hold raw key, and neither shows it: their ``repr`` tells sizes. A recording is checked when it is made,
whether from a file or in memory, and every fault is told at once.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openqci.core.detections import Bits, EmissionRecord, Slots
from openqci.core.errors import ConfigurationError, Fault
from openqci.distillation.settings import INTENSITIES_MAX

PULSES_MAX = 10**15
"""Of one run: eleven days at 1 GHz."""

ENTRIES_MAX = 1 << 33
"""Pulses that one recording of a source tells of; packed, they take 4 GiB."""

RECORD_MAX = 1 << 28
"""Pulses of one :class:`EmissionRecord`, which takes eleven bytes for each: 3 GiB."""

TAGS_MAX = 1 << 30
"""Tags of one recording; they take 9 GiB."""

TIME_MAX_PS = 1 << 61
"""Of a tag, either way: 26 days. Sums and differences of two times stay inside 64 bits."""

DELAY_MAX_PS = 10**12
CLOCK_RATE_MAX_HZ = 1e12
DETECTORS_MAX = 64
CHUNK = 1 << 22


@dataclass(frozen=True)
class RecordedEmissions:
    """Alice's recording of a run: the basis, bit and intensity of each pulse, and what her source was set to.

    Parameters
    ----------
    clock_rate_hz : float
        Nominal rate of the pulses.
    pulses : int
        Sent in the run; slots are 0 to ``pulses - 1``.
    source_intensities, source_probabilities : tuple of float
        Mean photon numbers, strictly falling, and how often each is sent; indices point into them.
    z_basis_probability : float
        How often Alice prepares in the key basis.
    bases, bits : ndarray of uint8
        One entry per byte, shape (n,); or packed, shape (ceil(n / 8),), entry i in bit ``7 - i % 8`` of byte
        ``i // 8``, as ``numpy.packbits`` has it.
    intensities : ndarray of uint8
        Shape (n,); or packed, two rows (low and high binary digit) of shape (2, ceil(n / 8)).
    packed : bool
    slots : ndarray of int64, shape (n,), optional
        The pulses that are told of, strictly rising, where these are not all: of a simulated source. Not
        given, n is ``pulses``.

    Raises
    ------
    ConfigurationError
        Every field that is not as above.
    """

    clock_rate_hz: float
    pulses: int
    source_intensities: tuple[float, ...]
    source_probabilities: tuple[float, ...]
    z_basis_probability: float
    bases: Bits = field(repr=False)
    bits: Bits = field(repr=False)
    intensities: Bits = field(repr=False)
    packed: bool
    slots: Slots | None = field(repr=False, default=None)

    def __post_init__(self) -> None:
        refuse("emissions", self._faults())

    @property
    def entries(self) -> int:
        """Pulses that are told of."""
        return self.pulses if self.slots is None else self.slots.size

    def record(self, first_slot: int = 0, end_slot: int | None = None) -> EmissionRecord:
        """Return the record for a block: the pulses from ``first_slot`` to before ``end_slot``.

        Slots stay numbered since the start of the run. A recording of 10^9 pulses takes 0.5 GB packed and 11
        as one record: cut it where both ends agree, such as every 10^8 slots.

        Raises
        ------
        ConfigurationError
            If that is more than ``RECORD_MAX`` pulses.
        """
        first = min(max(first_slot, 0), self.pulses)
        end = self.pulses if end_slot is None else min(max(end_slot, first), self.pulses)
        slots = self.slots
        start, stop = first, end
        if slots is not None:
            start, stop = (int(place) for place in np.searchsorted(slots, [first, end]))
        if stop - start > RECORD_MAX:
            message = (
                f"{stop - start} pulses in one block; expected at most {RECORD_MAX}: distil shorter blocks"
            )
            raise ConfigurationError(Fault("emissions", "pulses", message))
        return EmissionRecord(
            slots=np.arange(start, stop, dtype=np.int64) if slots is None else slots[start:stop],
            bases=self._entries(self.bases, start, stop),
            bits=self._entries(self.bits, start, stop),
            intensities=self._intensities(start, stop),
            pulses=self.pulses,
        )

    def _intensities(self, start: int, stop: int) -> Bits:
        if not self.packed:
            return self.intensities[start:stop]
        low, high = (self._entries(plane, start, stop) for plane in self.intensities)
        return low | high << np.uint8(1)

    def _entries(self, stored: Bits, start: int, stop: int) -> Bits:
        if not self.packed:
            return stored[start:stop]
        whole = np.unpackbits(stored[start // 8 : -(-stop // 8)])
        return whole[start % 8 : start % 8 + stop - start]

    def _faults(self) -> Iterator[tuple[str, str]]:
        yield from faults_of_run(self.clock_rate_hz, self.pulses)
        yield from self._faults_of_source()
        yield from self._faults_of_slots()
        if self.entries > ENTRIES_MAX:
            yield "pulses", f"expected at most {ENTRIES_MAX} told of, got {self.entries}"
            return
        length = -(-self.entries // 8) if self.packed else self.entries
        rows = (2, length) if self.packed else (length,)
        for name, shape, above in (
            ("bases", (length,), 2),
            ("bits", (length,), 2),
            ("intensities", rows, len(self.source_intensities)),
        ):
            values = getattr(self, name)
            found = list(array_faults(name, values, np.uint8, shape))
            yield from found
            if not found and not self.packed and values.size and int(values.max()) >= above:
                yield name, f"expected values below {above}, got {int(values.max())}"
        if self.packed and len(self.source_intensities) < INTENSITIES_MAX:
            yield from self._faults_of_planes(rows)

    def _faults_of_planes(self, shape: tuple[int, ...]) -> Iterator[tuple[str, str]]:
        """Two binary digits can name four intensities: none may be beyond those of the source."""
        planes = self.intensities
        if planes.shape != shape or planes.dtype != np.uint8:
            return
        number = len(self.source_intensities)
        for start in range(0, planes.shape[1], CHUNK):
            low, high = planes[:, start : start + CHUNK]
            beyond = high if number == 2 else low & high
            if np.any(beyond):
                yield "intensities", f"expected values below {number}, the intensities of the source"
                return

    def _faults_of_source(self) -> Iterator[tuple[str, str]]:
        intensities, probabilities = self.source_intensities, self.source_probabilities
        falling = all(a > b >= 0 for a, b in itertools.pairwise(intensities))
        if not (2 <= len(intensities) <= INTENSITIES_MAX and falling and math.isfinite(intensities[0])):
            yield "source_intensities", f"expected 2 to {INTENSITIES_MAX}, falling, got {intensities}"
        if len(probabilities) != len(intensities):
            yield "source_probabilities", f"expected {len(intensities)}, one for each intensity"
        elif not (all(p > 0 for p in probabilities) and abs(math.fsum(probabilities) - 1) < 1e-6):
            yield "source_probabilities", f"expected numbers above 0 that sum to 1, got {probabilities}"
        if not 0 < self.z_basis_probability < 1:
            yield "z_basis_probability", f"expected above 0 and below 1, got {self.z_basis_probability}"

    def _faults_of_slots(self) -> Iterator[tuple[str, str]]:
        slots = self.slots
        if slots is None:
            return
        found = list(array_faults("slots", slots, np.int64, (slots.size,)))
        yield from found
        if found or not slots.size:
            return
        if slots[0] < 0 or slots[-1] >= self.pulses:
            yield "slots", f"expected 0 to {self.pulses - 1}, got {slots[0]} to {slots[-1]}"
        falling = first_step_below(slots, 1)
        if falling is not None:
            yield "slots", f"expected rising numbers; entry {falling} is not above the one before"


@dataclass(frozen=True)
class DetectorChannel:
    """What a click on one channel of the tagger means: basis (0 = Z, 1 = X), bit, and its delay.

    ``delay_ps`` is what cables and electronics of this channel add; it is taken off its times.
    """

    number: int
    basis: int
    bit: int
    delay_ps: int = 0


@dataclass(frozen=True)
class SyncChannel:
    """The channel of the synchronisation pulses: one in slot ``first_slot`` and every ``period_slots`` on."""

    number: int
    period_slots: int
    first_slot: int = 0
    delay_ps: int = 0


@dataclass(frozen=True)
class RecordedTags:
    """Bob's recording of a run: times and channels as his time tagger gave them, and what these mean.

    Parameters
    ----------
    clock_rate_hz : float
        Nominal rate of Alice's pulses.
    pulses : int
        Sent in the run, as Alice has announced.
    start_ps : int
        When the middle of slot 0 arrived by the tagger's clock, right to within half a period of the sync
        pulses: from a trigger or network time. It numbers the sync pulses; finer it need not be.
    times_ps : ndarray of int64, shape (n,)
        Not falling.
    channels : ndarray of uint8, shape (n,)
    detectors : tuple of DetectorChannel
        At least one for each bit of each basis. An active receiver tells its basis by the channel.
    sync : SyncChannel
    gate_width_ps : int
        A click counts within half of this about the middle of its slot; at most one slot.
    dead_time_ps : int
        Of a detector after a click, the longest of all.

    Raises
    ------
    ConfigurationError
        Every field that is not as above.
    """

    clock_rate_hz: float
    pulses: int
    start_ps: int
    times_ps: NDArray[np.int64] = field(repr=False)
    channels: Bits = field(repr=False)
    detectors: tuple[DetectorChannel, ...]
    sync: SyncChannel
    gate_width_ps: int
    dead_time_ps: int = 0

    def __post_init__(self) -> None:
        refuse("tags", self._faults())

    @property
    def slot_ps(self) -> float:
        """From one slot to the next, nominally."""
        return 1e12 / self.clock_rate_hz

    def _faults(self) -> Iterator[tuple[str, str]]:
        broken = list(faults_of_run(self.clock_rate_hz, self.pulses))
        yield from broken
        yield from self._faults_of_channels()
        if abs(self.start_ps) > TIME_MAX_PS:
            yield "start_ps", f"expected at most {TIME_MAX_PS} either way, got {self.start_ps}"
        if not broken and not 1 <= self.gate_width_ps <= math.ceil(self.slot_ps):
            yield "gate_width_ps", f"expected 1 to {self.slot_ps:g}, one slot, got {self.gate_width_ps}"
        if not 0 <= self.dead_time_ps <= DELAY_MAX_PS:
            yield "dead_time_ps", f"expected 0 to {DELAY_MAX_PS}, got {self.dead_time_ps}"
        yield from self._faults_of_tags()

    def _faults_of_channels(self) -> Iterator[tuple[str, str]]:
        numbers = [detector.number for detector in self.detectors]
        if not 4 <= len(numbers) <= DETECTORS_MAX:
            yield "detector_channels", f"expected 4 to {DETECTORS_MAX}, got {len(numbers)}"
        if len({*numbers, self.sync.number}) != len(numbers) + 1:
            yield "detector_channels", "expected each number once, and none that is the sync channel"
        if any(not 0 <= number < 256 for number in [*numbers, self.sync.number]):
            yield "detector_channels", "expected numbers from 0 to 255"
        if {(each.basis, each.bit) for each in self.detectors} != {(0, 0), (0, 1), (1, 0), (1, 1)}:
            yield "detector_bases", "expected basis 0 and 1, bit 0 and 1, and a channel for each of the four"
        delays_ps = [self.sync.delay_ps, *(each.delay_ps for each in self.detectors)]
        if any(abs(delay_ps) > DELAY_MAX_PS for delay_ps in delays_ps):
            yield "detector_delays_ps", f"expected at most {DELAY_MAX_PS} either way"
        if not 1 <= self.sync.period_slots <= PULSES_MAX:
            yield "sync_period_slots", f"expected 1 to {PULSES_MAX}, got {self.sync.period_slots}"
        if not 0 <= self.sync.first_slot < max(self.pulses, 1):
            yield "sync_first_slot", f"expected 0 to before {self.pulses}, got {self.sync.first_slot}"

    def _faults_of_tags(self) -> Iterator[tuple[str, str]]:
        times, channels = self.times_ps, self.channels
        found = [
            *array_faults("times_ps", times, np.int64, (times.size,)),
            *array_faults("channels", channels, np.uint8, (times.size,)),
        ]
        yield from found
        if found or not times.size:
            return
        if times.size > TAGS_MAX:
            yield "times_ps", f"expected at most {TAGS_MAX} tags, got {times.size}"
        if max(-int(times.min()), int(times.max())) > TIME_MAX_PS:
            yield "times_ps", f"expected at most {TIME_MAX_PS} either way"
        falling = first_step_below(times, 0)
        if falling is not None:
            yield "times_ps", f"expected times that do not run backwards; tag {falling} is before the last"
        known = np.zeros(256, dtype=bool)
        known[[self.sync.number % 256, *(each.number % 256 for each in self.detectors)]] = True
        for start in range(0, channels.size, CHUNK):
            strange = np.flatnonzero(~known[channels[start : start + CHUNK]])
            if strange.size:
                number = channels[start + strange[0]]
                yield "channels", f"tag {start + strange[0]} is on channel {number}, of which nothing is told"
                return


def check_same_run(emissions: RecordedEmissions, tags: RecordedTags) -> None:
    """Raise ConfigurationError unless both tell of a run of so many pulses at this rate.

    Both figures are public: two machines compare them over their line.
    """
    faults = [
        Fault("tags", name, f"expected {ours}, as in the emissions; got {theirs}")
        for name, ours, theirs in (
            ("pulses", emissions.pulses, tags.pulses),
            ("clock_rate_hz", emissions.clock_rate_hz, tags.clock_rate_hz),
        )
        if ours != theirs
    ]
    if faults:
        raise ConfigurationError(*faults)


def faults_of_run(clock_rate_hz: float, pulses: int) -> Iterator[tuple[str, str]]:
    if not 1 <= clock_rate_hz <= CLOCK_RATE_MAX_HZ:
        yield "clock_rate_hz", f"expected 1 to {CLOCK_RATE_MAX_HZ:g}, got {clock_rate_hz}"
    if not 1 <= pulses <= PULSES_MAX:
        yield "pulses", f"expected 1 to {PULSES_MAX}, got {pulses}"


def array_faults(
    name: str, values: NDArray[np.generic], kind: type, shape: tuple[int, ...]
) -> Iterator[tuple[str, str]]:
    if values.dtype != kind:
        yield name, f"expected {np.dtype(kind)}, got {values.dtype}"
    elif values.shape != shape:
        yield name, f"expected shape {shape}, got {values.shape}"


def first_step_below(values: NDArray[np.int64], step: int) -> int | None:
    """Return the first place whose value is not at least ``step`` above the one before; None if all are."""
    for start in range(0, values.size - 1, CHUNK):
        part = values[start : start + CHUNK + 1]
        below = np.flatnonzero(part[1:] < part[:-1] + step)
        if below.size:
            return start + int(below[0]) + 1
    return None


def refuse(what: str, faults: Iterator[tuple[str, str]]) -> None:
    found = [Fault(what, name, message) for name, message in faults]
    if found:
        raise ConfigurationError(*found)
