"""The Monte Carlo of a link whose light changes while it runs, as that of a satellite during a pass.

Time is cut into stretches in which the link stays as it is. In each, detections are drawn as
:mod:`openqci.quantum.exchange` draws them, but for a number of pulses instead of a number of detections; a
detector that is dead at the end of one stretch is still dead at the beginning of the next. What a stretch
yields on average is :func:`openqci.quantum.expected_statistics` of its link.

>>> from openqci.quantum.elements import FibreChannel, Receiver
>>> source = DecoySource(1e9, (0.5, 0.1), (0.7, 0.3), z_basis_probability=0.9)
>>> links = [QuantumLink(source, FibreChannel(loss_db), Receiver(1.0, 0.8, 1e-7)) for loss_db in (30.0, 40.0)]
>>> seen = exchange_of_stretches([Stretch(link, 10**7) for link in links], np.random.default_rng(1))
>>> slots = seen.detections.slots
>>> int((slots < 10**7).sum()), int((slots >= 10**7).sum())
(2453, 220)

Left out: how fast light fades within a stretch. Fading enters as stretches of their own, as many as its
distribution has nodes.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from openqci.core.detections import Bits, Slots
from openqci.core.errors import OutsideModel
from openqci.quantum.elements import DecoySource
from openqci.quantum.exchange import (
    PULSES_MAX,
    Exchange,
    detections_of,
    draw_kinds,
    draw_slots,
    emissions_of,
)
from openqci.quantum.link import QuantumLink, class_probabilities

MARGIN = 4.0
"""Standard deviations beyond the mean that are drawn at once; more are drawn if they were too few."""


@dataclass(frozen=True)
class Stretch:
    """A link, and for how many pulses it stays as it is."""

    link: QuantumLink
    pulses: int


def exchange_of_stretches(stretches: Iterable[Stretch], rng: np.random.Generator) -> Exchange:
    """Run a link through stretches, one after another.

    Parameters
    ----------
    stretches : iterable of Stretch
        All with one source and one dead time.
    rng : numpy.random.Generator
        SFC64 or PCG64DXSM. Equal states give equal records, byte for byte.

    Returns
    -------
    Exchange
        Slots count from the first pulse of the first stretch; pauses between stretches have none.

    Raises
    ------
    OutsideModel
        If sources or dead times differ, the dead time is paralysable, or there are too many pulses.
    """
    every = tuple(stretches)
    check_stretches(every)
    slots: list[Slots] = [np.empty(0, dtype=np.int64)]
    kinds: list[Bits] = [np.empty(0, dtype=np.uint8)]
    first = pulses = 0
    for stretch in every:
        table = class_probabilities(stretch.link).ravel()
        stop = pulses + stretch.pulses
        found = slots_until(float(table.sum()), stretch.link.dead_slots, max(first, pulses), stop, rng)
        pulses = stop
        if len(found):
            first = int(found[-1]) + stretch.link.dead_slots + 1
            slots.append(found)
            kinds.append(draw_kinds(table, len(found), rng))
    all_slots, all_kinds = np.concatenate(slots), np.concatenate(kinds)
    clock_rate_hz = every[0].link.source.clock_rate_hz if every else math.inf
    return Exchange(
        emissions_of(all_slots, all_kinds, pulses),
        detections_of(all_slots, all_kinds),
        duration_s=pulses / clock_rate_hz,
    )


def check_stretches(stretches: Sequence[Stretch]) -> None:
    """Refuse stretches that no single source and receiver could have made."""
    sources: set[DecoySource] = {each.link.source for each in stretches}
    if len(sources) > 1:
        raise OutsideModel("source", f"{len(sources)} different ones", "one for all stretches")
    dead = {(each.link.dead_slots, each.link.receiver.dead_time_model) for each in stretches}
    if len(dead) > 1:
        raise OutsideModel("dead_time_s", f"{len(dead)} different ones", "one for all stretches")
    if any(model == "paralysable" for _, model in dead):
        raise OutsideModel("dead_time_model", "paralysable", "nonparalysable for light that changes")
    pulses = sum(each.pulses for each in stretches)
    if pulses > PULSES_MAX or any(each.pulses < 0 for each in stretches):
        raise OutsideModel("pulses", pulses, f"zero or more per stretch, {PULSES_MAX:g} at most in all")


def slots_until(
    click_probability: float, dead_slots: int, first: int, stop: int, rng: np.random.Generator
) -> Slots:
    """Return the slots of all clicks from ``first``, where the detector is live, to before ``stop``."""
    parts: list[Slots] = [np.empty(0, dtype=np.int64)]
    while first < stop and click_probability > 0:
        expected = (stop - first) / (1 / click_probability + dead_slots)
        drawn = draw_slots(
            click_probability, dead_slots, math.ceil(expected + MARGIN * math.sqrt(expected)) + 1, rng
        )
        drawn += first
        parts.append(drawn[: np.searchsorted(drawn, stop)])
        first = int(drawn[-1]) + dead_slots + 1
    return np.concatenate(parts)
