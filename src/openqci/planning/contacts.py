"""Which passes could give key: one row for each, with what it gives under a clear sky and how likely that is.

A pass is a possible contact when its key, as one block of its own, is not zero. Blocks of several passes are
not planned: half a block gives nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.links.ground import GroundStation, stations_of
from openqci.links.missions.model import Design
from openqci.links.survey import Survey, never_seen
from openqci.space.pass_finding import Indices, find_passes
from openqci.space.ranges import Floats
from openqci.space.tracks import track_of
from openqci.space.weather import CloudClimate

RADIO_ELEVATION_MIN_DEG = 10.0


@dataclass(frozen=True)
class RadioContacts:
    """When satellites can be emptied by radio; arrays of shape (R,), in the order of time."""

    satellite: Indices
    start_utc_s: Floats
    stop_utc_s: Floats

    @classmethod
    def none(cls) -> "RadioContacts":
        return cls(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class Contacts:
    """N possible contacts; every array has shape (N,).

    Attributes
    ----------
    satellites, stations : tuple of str
    states : tuple of str
        Of each station, the state or territory that its key is for.
    satellite, station : ndarray of int
    start_utc_s, stop_utc_s : ndarray
        While the link is held.
    key_bits : ndarray
        Under a clear sky.
    clear_chance : ndarray
    stored_bits : ndarray
        What the link leaves in the satellite's store until its key is made.
    radio : RadioContacts
        By which stores are emptied; without any, they are only filled.
    """

    satellites: tuple[str, ...]
    stations: tuple[str, ...]
    states: tuple[str, ...]
    satellite: Indices
    station: Indices
    start_utc_s: Floats
    stop_utc_s: Floats
    key_bits: Floats
    clear_chance: Floats
    stored_bits: Floats
    radio: RadioContacts = field(default_factory=RadioContacts.none)

    def __post_init__(self) -> None:
        if len(self.states) != len(self.stations):
            raise OutsideModel("states", len(self.states), f"one for each of {len(self.stations)} stations")
        if not (self.stop_utc_s > self.start_utc_s).all():
            raise OutsideModel("stop_utc_s", "a contact", "that ends after it begins")

    def __len__(self) -> int:
        return len(self.start_utc_s)

    @classmethod
    def of(
        cls,
        *,
        satellite: ArrayLike,
        station: ArrayLike,
        start_utc_s: ArrayLike,
        stop_utc_s: ArrayLike,
        key_bits: ArrayLike,
        clear_chance: ArrayLike,
        states: Sequence[str],
        stored_bits: ArrayLike = 0.0,
        radio: RadioContacts | None = None,
    ) -> "Contacts":
        """Return contacts of satellites and stations that are named by number."""
        begin = np.asarray(start_utc_s, dtype=np.float64)
        flyers = np.asarray(satellite, dtype=np.int64)
        number = int(flyers.max(initial=-1)) + 1
        return cls(
            tuple(f"satellite-{each + 1}" for each in range(number)),
            tuple(f"station-{each + 1}" for each in range(len(states))),
            tuple(states),
            flyers,
            np.asarray(station, dtype=np.int64),
            begin,
            np.asarray(stop_utc_s, dtype=np.float64),
            np.asarray(key_bits, dtype=np.float64),
            np.broadcast_to(np.asarray(clear_chance, dtype=np.float64), begin.shape),
            np.broadcast_to(np.asarray(stored_bits, dtype=np.float64), begin.shape),
            radio or RadioContacts.none(),
        )

    @property
    def durations_s(self) -> Floats:
        return self.stop_utc_s - self.start_utc_s

    @property
    def expected_bits(self) -> Floats:
        """Key under a clear sky, times the chance of one."""
        return self.key_bits * self.clear_chance

    @property
    def state_names(self) -> tuple[str, ...]:
        """The states that have a station, in order."""
        return tuple(sorted(set(self.states)))

    @property
    def state(self) -> Indices:
        """Whose each contact is, a place in ``state_names``."""
        place = {name: number for number, name in enumerate(self.state_names)}
        of_station = np.array([place[name] for name in self.states], dtype=np.int64)
        return of_station[self.station] if len(self) else np.zeros(0, np.int64)

    def part(self, chosen: "Indices | NDArray[np.bool_]") -> "Contacts":
        """Return some of the contacts, by places or by a mask."""
        return replace(
            self,
            satellite=self.satellite[chosen],
            station=self.station[chosen],
            start_utc_s=self.start_utc_s[chosen],
            stop_utc_s=self.stop_utc_s[chosen],
            key_bits=self.key_bits[chosen],
            clear_chance=self.clear_chance[chosen],
            stored_bits=self.stored_bits[chosen],
        )


def contacts_of(
    found: Survey,
    ground: Sequence[GroundStation],
    climate: CloudClimate,
    record_bits_per_sifted_bit: float,
    radio: RadioContacts | None = None,
) -> Contacts:
    """Return the possible contacts of a survey whose blocks are single passes.

    Parameters
    ----------
    found : Survey
    ground : sequence of GroundStation
        Those of the survey, in its order.
    climate : CloudClimate
        Of the same stations.
    record_bits_per_sifted_bit : float
        See :class:`openqci.planning.limits.Limits`.
    radio : RadioContacts, optional

    Raises
    ------
    ConfigurationError
        For a survey with blocks of several passes.
    """
    used = found.block[found.block >= 0]
    if len(np.unique(used)) != len(used):
        raise ConfigurationError("blocks of several passes; expected a survey with passes_per_block=1")
    chosen = np.flatnonzero(found.key_bits > 0)
    chosen = chosen[np.argsort(found.passes.rise_utc_s[chosen], kind="stable")]
    passes = found.passes.part(chosen)
    middle = (passes.rise_utc_s + passes.set_utc_s) / 2
    return Contacts(
        passes.satellites,
        passes.stations,
        # A place of a mission belongs to no state that the catalogue knows: it stands for itself.
        tuple(each.country or each.site_id for each in ground),
        passes.satellite,
        passes.station,
        passes.rise_utc_s,
        passes.set_utc_s,
        found.key_bits[chosen],
        1 - climate.chance(passes.station, middle),
        found.yields.sifted_bits[chosen] * record_bits_per_sifted_bit,
        radio or RadioContacts.none(),
    )


def radio_contacts(
    design: Design, ground: Sequence[GroundStation], start_utc_s: float, stop_utc_s: float
) -> RadioContacts:
    """Return when stores can be emptied over radio stations: by day and night, in any weather.

    Two stations in view at once count once.
    """
    stations = stations_of(ground)
    columns = []
    for number, orbit in enumerate(design.orbits(start_utc_s)):
        passes = find_passes(
            track_of(orbit, start_utc_s, stop_utc_s), stations, RADIO_ELEVATION_MIN_DEG
        ).in_order_of_time()
        columns.append((np.full(len(passes), number), *apart(passes.rise_utc_s, passes.set_utc_s)))
    satellite, start, stop = (np.concatenate(each) for each in zip(*columns, strict=True))
    order = np.argsort(start, kind="stable")
    return RadioContacts(satellite[order].astype(np.int64), start[order], stop[order])


def apart(start: Floats, stop: Floats) -> tuple[Floats, Floats]:
    """Return intervals in the order of their start, each begun only when all before it have ended."""
    ended = np.maximum.accumulate(np.concatenate([[-np.inf], stop[:-1]])) if len(stop) else stop
    return np.minimum(np.maximum(start, ended), np.maximum(stop, ended)), np.maximum(stop, ended)


def without_contact(found: Survey) -> dict[str, str]:
    """Return, for each station without any possible contact, why it has none."""
    never = set(never_seen(found.passes))
    lowest = found.design.operation.elevation_min_deg
    reasons = {}
    for place, name in enumerate(found.passes.stations):
        rows = found.passes.station == place
        if name in never:
            reasons[name] = f"never sees a satellite above {lowest:g} deg"
        elif not (found.yields.durations_s[rows] > 0).any():
            reasons[name] = "no pass may be credited: never dark enough while a satellite is up"
        elif not (found.key_bits[rows] > 0).any():
            reasons[name] = "no pass gives key: too much loss or other light for one pass as a block"
    return reasons
