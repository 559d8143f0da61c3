"""Bob's clock against Alice's, from the tags of the synchronisation pulses alone.

A sync pulse comes every so many slots. Of its tags some are missing, some are of something else, and all are
a little early or late; in between, the clocks drift. Four steps, none of which knows a bit:

1. the period by Bob's clock is the median of the gaps between neighbouring tags;
2. in blocks of a few dozen tags, those that stand whole periods from each other are a party: the largest is
   taken for sync pulses, and the rest is spurious. A slow drift does not disturb this;
3. the parties are numbered by whole periods from block to block, the first by when the run is known to have
   begun;
4. the mean of every few tags, so many as come in ``KNOT_SPACING_PS``, is a knot, and the clock is linear
   between knots.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openqci.core.errors import ConfigurationError, Fault, OutsideModel
from openqci.distillation.recorded.recordings import RecordedTags
from openqci.distillation.recorded.timemap import Floats, TimeMap, Times, map_through

CLOCK_OFFSET_PPM_MAX = 200.0
"""Between two quartz clocks; what is further apart has lost its reference or is of another rate."""

WANDER_PPM_MAX = 10.0
"""By how much the rate of a clock may differ from its mean over the run."""

SPREAD_MAX = 0.02
"""Of the gaps between sync tags, in periods; the gaps of evenly spread tags have four times as much."""

SYNC_TAGS_MIN = 8
BLOCK_TAGS = 32

CANDIDATES = 12
"""Tags of a block, evenly over it, one of which leads its largest party; the last place may be empty."""

TAGS_PER_KNOT_MIN, TAGS_PER_KNOT_MAX = 4, 64

KNOT_SPACING_PS = 5e10
"""Wanted between knots: more tags in one mean are less jitter, a longer piece is more curvature left out."""

GAP_PERIODS_MAX = 10_000
"""Without a sync tag; ``WANDER_PPM_MAX`` then is a tenth of a period, and no period is lost count of."""

OUTLIER = 6.0
"""Standard deviations beyond which a tag is not of a sync pulse."""

BLOCKS_AT_ONCE = 256

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ClockFit:
    """The clock, and what was found of the sync pulses."""

    clock: TimeMap
    offset_ppm: float
    jitter_ps: float
    expected: int
    found: int
    spurious: int


def fit_clock(tags: RecordedTags, times_ps: Times) -> ClockFit:
    """Return the clock by the sync tags, ``times_ps`` of shape (n,), their delay taken off.

    Raises
    ------
    ConfigurationError
        Too few sync tags, none a period apart, or a gap over which periods cannot be counted.
    OutsideModel
        Clocks more than ``CLOCK_OFFSET_PPM_MAX`` apart.
    """
    nominal_ps = tags.sync.period_slots * tags.slot_ps
    period_ps, spread_ps = measured_period(times_ps, nominal_ps)
    offset_ppm = 1e6 * (period_ps / nominal_ps - 1)
    if abs(offset_ppm) > CLOCK_OFFSET_PPM_MAX:
        expected = f"{CLOCK_OFFSET_PPM_MAX:g} ppm at most, either way: check both clocks and clock_rate_hz"
        raise OutsideModel("clock offset in ppm", round(offset_ppm, 1), expected)
    places, numbers = number_tags(times_ps, period_ps, OUTLIER * spread_ps + 1)
    began_ps = tags.start_ps + round(tags.sync.first_slot * period_ps / tags.sync.period_slots)
    numbers += round((int(times_ps[places[0]]) - began_ps) / period_ps)
    sent = -(-(tags.pulses - tags.sync.first_slot) // tags.sync.period_slots)
    inside = (numbers >= 0) & (numbers < sent)
    places, numbers = places[inside], numbers[inside]
    refuse_few(places.size, "within the run")
    taken = times_ps[places]
    clock = clock_of(tags, taken, numbers, period_ps)
    residuals_ps = residuals(tags, clock, taken, numbers)
    near = np.abs(residuals_ps) <= OUTLIER * 1.4826 * float(np.median(np.abs(residuals_ps))) + 1
    clock = clock_of(tags, taken[near], numbers[near], period_ps)
    found = int(np.count_nonzero(near))
    return ClockFit(
        clock=clock,
        offset_ppm=1e6 * (mean_period(taken[near], numbers[near]) / nominal_ps - 1),
        jitter_ps=float(residuals(tags, clock, taken[near], numbers[near]).std()),
        expected=sent,
        found=found,
        spurious=times_ps.size - found,
    )


def measured_period(times_ps: Times, nominal_ps: float) -> tuple[float, float]:
    """Return the period of the sync tags by Bob's clock, and the spread of the gaps between them.

    A gap of up to three periods counts, per period, if it is within an eighth of the nominal one.
    """
    refuse_few(times_ps.size, "in the recording")
    gaps = np.diff(times_ps).astype(np.float64)
    periods = np.rint(gaps / nominal_ps)
    few = (periods >= 1) & (periods <= 3)
    each = gaps[few] / periods[few]
    each = each[np.abs(each - nominal_ps) <= nominal_ps / 8]
    refuse_few(each.size + 1, f"about {nominal_ps:g} ps apart")
    spread_ps = 0.0
    for _ in range(4):
        middle = float(np.median(each))
        spread_ps = 1.4826 * float(np.median(np.abs(each - middle)))
        each = each[np.abs(each - middle) <= OUTLIER * spread_ps + 1]
    if spread_ps > nominal_ps * SPREAD_MAX:
        raise no_sync(f"cannot be found: tags are not {nominal_ps:g} ps apart, nor anything near")
    return float(np.median(each)), spread_ps


def number_tags(times_ps: Times, period_ps: float, tolerance_ps: float) -> tuple[NDArray[np.intp], Times]:
    """Return which tags are of sync pulses, and their numbers counted from the first of these."""
    blocks = max(1, times_ps.size // BLOCK_TAGS)
    edges = np.linspace(0, times_ps.size, blocks + 1).astype(np.intp)
    width = int(np.diff(edges).max())
    places = edges[:-1, None] + np.arange(width)
    there = places < edges[1:, None]
    padded = times_ps[np.minimum(places, times_ps.size - 1)]
    leaders, parties = zip(
        *(
            largest_parties(padded[part], there[part], period_ps, tolerance_ps)
            for part in (slice(n, n + BLOCKS_AT_ONCE) for n in range(0, blocks, BLOCKS_AT_ONCE))
        ),
        strict=True,
    )
    leader, party = np.concatenate(leaders), np.concatenate(parties)
    # A block in which no three agree is one without sync pulses.
    real = np.flatnonzero(party.sum(axis=1) >= 3)
    refuse_few(int(party[real].sum()), "that stand whole periods apart")
    leading = padded[real, leader[real]]
    steps = np.diff(leading) / period_ps
    counted = np.rint(steps)
    if np.any(counted > GAP_PERIODS_MAX) or np.any(np.abs(steps - counted) > 0.25):
        worst = int(np.argmax(np.where(counted > GAP_PERIODS_MAX, counted, np.abs(steps - counted))))
        raise no_sync(
            f"is lost between {leading[worst]} and {leading[worst + 1]} ps: periods cannot be counted there"
        )
    numbers = np.concatenate([[0], np.cumsum(counted)])[:, None]
    numbers = (numbers + np.rint((padded[real] - leading[:, None]) / period_ps)).astype(np.int64)
    chosen_places, chosen = places[real][party[real]], numbers[party[real]]
    first = np.concatenate([[True], np.diff(chosen) > 0])
    return chosen_places[first], chosen[first] - chosen[0]


def largest_parties(
    times_ps: Times, there: Mask, period_ps: float, tolerance_ps: float
) -> tuple[NDArray[np.intp], Mask]:
    """Return, for each block, the tag that most others stand whole periods from, and which these are."""
    candidates = np.linspace(0, times_ps.shape[1] - 2, CANDIDATES).astype(np.intp)
    apart = (times_ps[:, None, :] - times_ps[:, candidates, None]).astype(np.float64)
    astray = np.abs(apart - np.rint(apart / period_ps) * period_ps)
    agree = astray <= tolerance_ps + 1e-6 * WANDER_PPM_MAX * np.abs(apart)
    agree &= there[:, None, :]
    best = np.argmax(agree.sum(axis=2), axis=1)
    return candidates[best], agree[np.arange(best.size), best]


def clock_of(tags: RecordedTags, times_ps: Times, numbers: Times, period_ps: float) -> TimeMap:
    """Return the clock through the means of sync tags that follow each other."""
    per_knot = min(max(int(KNOT_SPACING_PS / period_ps), TAGS_PER_KNOT_MIN), TAGS_PER_KNOT_MAX)
    groups = max(1, times_ps.size // per_knot)
    edges = np.linspace(0, times_ps.size, groups + 1).astype(np.intp)
    starts, sizes = edges[:-1], np.diff(edges)
    times_0, numbers_0 = times_ps[starts], numbers[starts]
    mean_times = np.add.reduceat((times_ps - np.repeat(times_0, sizes)).astype(np.float64), starts) / sizes
    mean_numbers = np.add.reduceat((numbers - np.repeat(numbers_0, sizes)).astype(np.float64), starts) / sizes
    if groups == 1:
        period_ps = mean_period(times_ps, numbers)
    rate = tags.sync.period_slots / period_ps
    whole = np.rint(mean_times)
    return map_through(
        times_0 + whole.astype(np.int64),
        tags.sync.first_slot + tags.sync.period_slots * numbers_0,
        tags.sync.period_slots * mean_numbers + (whole - mean_times) * rate,
        rate,
    )


def mean_period(times_ps: Times, numbers: Times) -> float:
    """Return the slope of the straight line through the tags, in ps per period."""
    times = (times_ps - times_ps[0]).astype(np.float64)
    counts = (numbers - numbers[0]).astype(np.float64)
    times -= times.mean()
    counts -= counts.mean()
    return float(np.dot(counts, times) / np.dot(counts, counts))


def residuals(tags: RecordedTags, clock: TimeMap, times_ps: Times, numbers: Times) -> Floats:
    """Return how much later than by the clock each sync tag came, in ps."""
    slots, fractions = clock(times_ps)
    sent = tags.sync.first_slot + tags.sync.period_slots * numbers
    return ((slots - sent).astype(np.float64) + fractions) * tags.slot_ps


def refuse_few(number: int, where: str) -> None:
    if number < SYNC_TAGS_MIN:
        raise no_sync(f"cannot be found: {number} sync tags {where}; expected at least {SYNC_TAGS_MIN}")


def no_sync(message: str) -> ConfigurationError:
    return ConfigurationError(Fault("tags", "sync_channel", f"the synchronisation {message}"))
