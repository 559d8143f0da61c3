"""Payloads side by side: aperture, pointing, rate, wavelength against mass, power and key per day and site.

A candidate is the payload of a design with another telescope, another jitter, another rate of its source or
another wavelength. Its beam is as wide in its telescope as lets most light onto the axis. Each candidate gets
the setting of its source that gives most key over the passes looked at, and each is flown over the same
passes, so that nothing but the payload differs. What it weighs and draws is a model with four terms
(``payload_model.yaml``), most of whose figures are assumed.

>>> model = payload_model()
>>> round(model.mass_kg(0.085, 1.5, 625e6), 1)
22.7
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import msgspec
import numpy as np
from msgspec.structs import replace

from openqci.core.errors import ConfigurationError
from openqci.links.budget import SpaceLink
from openqci.links.clouds import cloud_climate
from openqci.links.ground import GroundStation
from openqci.links.missions.model import Design, Payload
from openqci.links.pass_keys import PulseSettings, block_of_passes, credited
from openqci.links.pass_settings import Sampled, highest, moments_of_passes
from openqci.links.survey import SatelliteTask, check_survey, seen_of_satellite
from openqci.network.catalogue.climate import Figure
from openqci.space.pass_finding import Indices, Passes
from openqci.space.pass_samples import STEP_S, Almanac, PassSamples
from openqci.space.ranges import Floats, check_range
from openqci.space.time_scales import DAY_S
from openqci.space.weather import months_of

WAIST_OVER_RADIUS = 0.89
"""Of the beam in its telescope: most light on the axis."""

APERTURES_M = (0.06, 0.085, 0.12, 0.16)
JITTERS_URAD = (1.0, 2.0, 4.0)
CLOCK_RATES_HZ = (1e8, 6.25e8, 1e9)

CANDIDATES_MAX = 500
SETTINGS_BLOCKS = 12
"""For which the setting of a candidate is sought."""


class MassModel(msgspec.Struct, frozen=True):
    base_kg: Figure
    telescope_kg: Figure
    telescope_exponent: Figure
    pointing_kg: Figure
    clock_kg: Figure


class PowerModel(msgspec.Struct, frozen=True):
    base_w: Figure
    telescope_w: Figure
    pointing_w: Figure
    clock_w: Figure


class PayloadModel(msgspec.Struct, frozen=True):
    """What payloads weigh and draw; every figure has its source, or is assumed."""

    version: int
    mass: MassModel
    power: PowerModel

    def mass_kg(self, aperture_m: float, jitter_urad: float, clock_rate_hz: float) -> float:
        """Return the mass of a payload without its satellite."""
        telescope = self.mass.telescope_kg.value * float(
            (aperture_m / 0.1) ** self.mass.telescope_exponent.value
        )
        clock = self.mass.clock_kg.value * clock_rate_hz / 1e9
        return self.mass.base_kg.value + telescope + self.mass.pointing_kg.value / jitter_urad + clock

    def power_w(self, aperture_m: float, jitter_urad: float, clock_rate_hz: float) -> float:
        """Return the power of a payload while it holds a link."""
        telescope = self.power.telescope_w.value * float((aperture_m / 0.1) ** 2)
        clock = self.power.clock_w.value * clock_rate_hz / 1e9
        return self.power.base_w.value + telescope + self.power.pointing_w.value / jitter_urad + clock

    @property
    def assumed_share(self) -> float:
        """Which part of the figures is assumed, 0 to 1."""
        figures = [getattr(part, name) for part in (self.mass, self.power) for name in part.__struct_fields__]
        return float(np.mean([each.source == "assumed" for each in figures]))


@cache
def payload_model() -> PayloadModel:
    """Return the model of mass and power."""
    text = files("openqci.planning").joinpath("payload_model.yaml").read_text("utf-8")
    return msgspec.yaml.decode(text, type=PayloadModel)


@dataclass(frozen=True)
class Grid:
    """Which payloads are looked at: every combination."""

    apertures_m: Sequence[float] = APERTURES_M
    jitters_urad: Sequence[float] = JITTERS_URAD
    clock_rates_hz: Sequence[float] = CLOCK_RATES_HZ
    wavelengths_nm: Sequence[float] = ()

    def __post_init__(self) -> None:
        check_range("aperture_m", self.apertures_m, 0.01, 1.0)
        check_range("jitter_urad", self.jitters_urad, 0.05, 100.0)
        check_range("clock_rate_hz", self.clock_rates_hz, 1e6, 1e11)
        check_range("candidates", self.size, 1, CANDIDATES_MAX)

    @property
    def size(self) -> int:
        shape = self.apertures_m, self.jitters_urad, self.clock_rates_hz, self.wavelengths_nm or (0.0,)
        return int(np.prod([len(each) for each in shape]))

    def payloads(self, of: Payload) -> Iterator[Payload]:
        """Yield the payloads, made from one."""
        for wavelength_nm in self.wavelengths_nm or (of.wavelength_nm,):
            for aperture_m in self.apertures_m:
                for jitter_urad in self.jitters_urad:
                    for clock_rate_hz in self.clock_rates_hz:
                        yield replace(
                            of,
                            wavelength_nm=wavelength_nm,
                            aperture_diameter_m=aperture_m,
                            waist_m=WAIST_OVER_RADIUS * aperture_m / 2,
                            full_angle_1e2_urad=None,
                            full_width_half_maximum_urad=None,
                            jitter_urad=jitter_urad,
                            clock_rate_hz=clock_rate_hz,
                        )


@dataclass(frozen=True)
class Candidate:
    """One payload, and what it gives.

    Attributes
    ----------
    payload : Payload
    mass_kg, power_w : float
        By the model.
    settings : PulseSettings
        The best for the passes looked at.
    bits_per_day : ndarray, shape (S,)
        Key of each site under a clear sky.
    bits_per_day_clouds : ndarray, shape (S,)
        The same times the chance of one.
    """

    payload: Payload
    mass_kg: float
    power_w: float
    settings: PulseSettings
    bits_per_day: Floats
    bits_per_day_clouds: Floats


def explored(
    design: Design, ground: Sequence[GroundStation], start_utc_s: float, stop_utc_s: float, grid: Grid
) -> list[Candidate]:
    """Return candidates in the order of their mass.

    Raises
    ------
    ConfigurationError
        For a design with entangled pairs, or stations without a cloud climate.
    OutsideModel
        For a payload outside its range or its model.
    """
    if design.entangled:
        raise ConfigurationError(f"{design.name} sends entangled pairs; expected a decoy-state design")
    flights = flights_of(design, ground, start_utc_s, stop_utc_s)
    station, middle = usable_passes(flights, design)
    clear = 1 - cloud_climate(ground).probability_by_month[station, months_of(middle)]
    model, days = payload_model(), (stop_utc_s - start_utc_s) / DAY_S
    found = []
    for payload in grid.payloads(design.payload):
        links = [SpaceLink(replace(design, payload=payload), station) for station in ground]
        settings, bits = keys_of(flights, links)
        size = payload.aperture_diameter_m or 0.0, payload.jitter_urad, payload.clock_rate_hz
        per_day, clouded = (
            np.bincount(station, each / days, len(ground)).astype(np.float64) for each in (bits, bits * clear)
        )
        found.append(
            Candidate(payload, model.mass_kg(*size), model.power_w(*size), settings, per_day, clouded)
        )
    return sorted(found, key=lambda each: each.mass_kg)


def flights_of(
    design: Design, ground: Sequence[GroundStation], start_utc_s: float, stop_utc_s: float
) -> list[tuple[Passes, PassSamples]]:
    """Return the passes of each satellite and their samples, which no payload changes."""
    almanac = Almanac.of(start_utc_s, stop_utc_s)
    return [
        seen_of_satellite(
            SatelliteTask(design, orbit, tuple(ground), start_utc_s, stop_utc_s, STEP_S, None, None), almanac
        )
        for orbit in check_survey(design, ground, start_utc_s, stop_utc_s)
    ]


def usable_passes(flights: Sequence[tuple[Passes, PassSamples]], design: Design) -> tuple[Indices, Floats]:
    """Return station and middle of the passes that are blocks, in the order of the blocks."""
    stations, middles = [], []
    for passes, seen in flights:
        chosen = np.flatnonzero(credited(seen, design.operation) & (seen.weights_s > 0))
        usable = np.bincount(seen.owner[chosen], minlength=len(passes)) > 0
        block, blocks = block_of_passes(passes, usable, 1)
        place = np.full(blocks, -1)
        place[block[block >= 0]] = np.flatnonzero(block >= 0)
        stations.append(passes.station[place])
        middles.append(((passes.rise_utc_s + passes.set_utc_s) / 2)[place])
    return np.concatenate(stations).astype(np.int64), np.concatenate(middles)


def keys_of(
    flights: Sequence[tuple[Passes, PassSamples]], links: Sequence[SpaceLink]
) -> tuple[PulseSettings, Floats]:
    """Return the best setting for passes, and the key of each pass with it."""
    as_set = PulseSettings.of(links[0])
    sample = sample_of(flights, links)
    if not sample.blocks:
        return as_set, np.zeros(0)
    settings = highest(sample.thinned(SETTINGS_BLOCKS), as_set, starts=1)
    return settings, np.maximum(0.0, np.floor(sample.unclipped_bits(settings)))


def sample_of(flights: Sequence[tuple[Passes, PassSamples]], links: Sequence[SpaceLink]) -> Sampled:
    """Return all passes as blocks of their own."""
    moments, number = [], 0
    for passes, seen in flights:
        found, blocks = moments_of_passes(passes, seen, links, 1)
        found[3] += number
        number += blocks
        moments.append(found)
    efficiency, dark, weights_s, block = (np.concatenate(each) for each in zip(*moments, strict=True))
    whole = Sampled(links[0], efficiency, dark, weights_s, block.astype(np.int64), number)
    return whole.only(np.arange(number))


def front(candidates: Sequence[Candidate]) -> list[bool]:
    """Return which candidates are worth a look: none that is lighter gives as much, with clouds."""
    best, found = -1.0, []
    for each in candidates:
        bits = float(each.bits_per_day_clouds.sum())
        found.append(bits > best)
        best = max(best, bits)
    return found
