"""The satellites of a network: which nodes and hops they are, when they pass, when the radio reaches them.

:func:`flown` puts the satellites of a scenario into its network. A satellite is a node with a KME on board,
in a domain of its mission; between it and each ground station there is a hop, which ends, as any hop between
two domains, at a border node in the station. Key is made in passes only (:mod:`openqci.twin.pass_block`).

:class:`Flight` answers, for one satellite, what is to come. Its passes are those of
:mod:`openqci.links.survey`, judged in closed form: a pass without expected key is not one. One telescope in
orbit looks at one station at a time: :func:`next_to_serve` chooses. Radio contact is assumed with any of the
mission's stations, day and night and through cloud, from 5 degrees up.

Left out: time to turn from one station to the next; eclipses of the radio; fuel, power and health.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import DomainId, LinkId, SiteId
from openqci.links import LinkForecast, forecast
from openqci.links.budget import SpaceLink
from openqci.links.ground import GroundStation, catalogue_stations, stations_of
from openqci.links.missions import Design, mission
from openqci.links.pass_detections import SAMPLE_STEP_S
from openqci.links.pass_keys import tracked
from openqci.links.survey import SatelliteTask, Survey, gathered, of_satellite
from openqci.network import (
    Device,
    Hop,
    MissionUse,
    Network,
    Site,
    border_nodes,
    network_digest,
)
from openqci.space import Orbit, PassSamples, find_passes, sample_passes, track_of, utc_seconds
from openqci.space.frames import geodetic_point
from openqci.space.orbits import check_distinct
from openqci.space.pass_samples import STEP_S
from openqci.space.time_scales import DAY_S
from openqci.twin.hops import SATELLITE
from openqci.twin.pass_block import pass_settings
from openqci.twin.skies import Skies, clear

Cloudy = Callable[[str, float], bool]
"""Whether the sky over a station is cloudy at a moment of the network's time."""

COMPILED = False
"""Some passes a day are found as fast without the kernels, which the serving process need not load then."""

RADIO_ELEVATION_MIN_DEG = 5.0
HORIZON_S = 2 * DAY_S
"""How far passes are looked for at a time; a station of Europe has one or two a night."""

MARGIN_S = 1800.0
"""Longer than any pass in low orbit: what begins within a horizon ends within this after it."""

HEIGHT_KM_MAX = 1500.0
"""Up to which a pass from horizon to horizon is shorter than :data:`MARGIN_S`."""

FORECAST_DAYS = 10.0
TRACK_STEP_S, TRACK_POINTS = 60.0, 96
"""Once around the Earth in low orbit."""


@dataclass(frozen=True)
class PlannedPass:
    """One pass with key, from when the satellite is tracked; seconds of the network's time."""

    link_id: LinkId
    station: SiteId
    begins_s: float
    ends_s: float
    expected_bits: float


@dataclass(frozen=True)
class Flight:
    """One satellite: its node, its orbit, and the stations that it serves.

    Attributes
    ----------
    satellite : SiteId
    design : Design
    orbit : Orbit
    ground : tuple of GroundStation
    links : dict
        The hop to each station, by the station's id.
    start_utc_s : float
        Of the network's second zero.
    store_bits : int
    """

    satellite: SiteId
    design: Design
    orbit: Orbit
    ground: tuple[GroundStation, ...]
    links: Mapping[SiteId, LinkId]
    start_utc_s: float
    store_bits: int
    _known: dict[float, list[PlannedPass]] = field(default_factory=dict, repr=False, compare=False)

    def passes(self, from_s: float) -> list[PlannedPass]:
        """Return the passes with key that begin at or after a moment, in order, for a horizon or more."""
        first = HORIZON_S * (from_s // HORIZON_S)
        known = [*self._within(first), *self._within(first + HORIZON_S)]
        return [each for each in known if each.begins_s >= from_s]

    def _within(self, first_s: float) -> list[PlannedPass]:
        """Return the passes that begin within one horizon; each is looked for once."""
        if first_s not in self._known:
            for old in [each for each in self._known if each < first_s - HORIZON_S]:
                self._known.pop(old, None)
            found = survey_of(self, first_s, first_s + HORIZON_S + MARGIN_S)
            self._known[first_s] = [
                each for each in planned(self, found) if first_s <= each.begins_s < first_s + HORIZON_S
            ]
        return self._known[first_s]

    def contacts(self, from_s: float, stop_s: float) -> list[tuple[float, float]]:
        """Return when the radio reaches the satellite, as (begin, end) in order, without overlaps."""
        start, stop = self.start_utc_s + from_s, self.start_utc_s + stop_s
        track, stations = track_of(self.orbit, start, stop), stations_of(self.ground)
        seen = find_passes(track, stations, RADIO_ELEVATION_MIN_DEG, compiled=COMPILED)
        return merged(
            (rise - self.start_utc_s, end - self.start_utc_s)
            for rise, end in zip(seen.rise_utc_s.tolist(), seen.set_utc_s.tolist(), strict=True)
        )

    def seen(self, planned_pass: PlannedPass) -> tuple[GroundStation, PassSamples]:
        """Return the station of a pass and what is seen from there, for its detections."""
        (ground,) = (each for each in self.ground if each.site_id == planned_pass.station)
        begin, end = (self.start_utc_s + each for each in (planned_pass.begins_s, planned_pass.ends_s))
        track = track_of(self.orbit, begin - MARGIN_S, end + MARGIN_S)
        stations = stations_of([ground])
        lowest = self.design.operation.elevation_min_deg
        passes = find_passes(track, stations, lowest, compiled=COMPILED)
        (index,) = np.flatnonzero((passes.rise_utc_s < end) & (passes.set_utc_s > begin))
        part = tracked(passes.part(slice(index, index + 1)), self.design.operation.acquisition_s)
        return ground, sample_passes(track, stations, part, SAMPLE_STEP_S, compiled=COMPILED)

    def place(self, now_s: float) -> tuple[float, float, float]:
        """Return latitude and longitude in degrees of the point below the satellite, and its height in km."""
        utc_s = self.start_utc_s + now_s
        position, _ = track_of(self.orbit, utc_s, utc_s + 60.0).at(utc_s)
        latitude, longitude, height = geodetic_point(position)
        return float(latitude), float(longitude), float(height)

    def track(self, now_s: float) -> list[tuple[float, float]]:
        """Return longitude and latitude in degrees of points below the satellite, a minute apart, to come."""
        moments = self.start_utc_s + now_s + TRACK_STEP_S * np.arange(TRACK_POINTS)
        position, _ = track_of(self.orbit, float(moments[0]), float(moments[-1])).at(moments)
        latitudes, longitudes, _ = geodetic_point(position)
        return list(zip(longitudes.round(2).tolist(), latitudes.round(2).tolist(), strict=True))


def survey_of(flight: Flight, from_s: float, stop_s: float) -> Survey:
    """Return all passes of a satellite over its stations for a time, and their keys in closed form."""
    start, stop = flight.start_utc_s + from_s, flight.start_utc_s + stop_s
    task = SatelliteTask(flight.design, flight.orbit, flight.ground, start, stop, STEP_S, None, COMPILED)
    return gathered(flight.design, start, stop, [of_satellite(task)], 1)


def planned(flight: Flight, found: Survey) -> list[PlannedPass]:
    """Return the whole passes of a survey that have key, in the order of time."""
    passes = found.passes
    late = tracked(passes, flight.design.operation.acquisition_s).rise_utc_s - flight.start_utc_s
    ends = passes.set_utc_s - flight.start_utc_s
    useful = np.flatnonzero((found.key_bits > 0) & passes.whole)
    stations = [SiteId(passes.stations[number]) for number in passes.station]
    return sorted(
        (
            PlannedPass(
                flight.links[stations[index]],
                stations[index],
                float(late[index]),
                float(ends[index]),
                float(found.key_bits[index]),
            )
            for index in useful.tolist()
        ),
        key=lambda each: (each.begins_s, each.station),
    )


def next_to_serve(
    ahead: Sequence[PlannedPass], stock_bits: Mapping[LinkId, int], free_bits: int
) -> PlannedPass | None:
    """Return the pass that a satellite takes next, None if there is none for which it has room.

    Of passes that overlap, the one whose link has least in stock for what the pass would bring; of equals the
    best. What ends before that one begins is taken besides. ``free_bits`` are what the store on board can
    still take.
    """

    def plenty(each: PlannedPass) -> tuple[float, float]:
        return stock_bits[each.link_id] / each.expected_bits, -each.expected_bits

    fitting = [each for each in ahead if each.expected_bits <= free_bits]
    if not fitting:
        return None
    favourite = fitting[0]
    # One that overlaps with the favourite, though not with the first, may need it more.
    while plenty(best := min(overlapping(fitting, favourite), key=plenty)) < plenty(favourite):
        favourite = best
    before = [each for each in fitting if each.ends_s < favourite.begins_s]
    return next_to_serve(before, stock_bits, free_bits) or favourite


def overlapping(ahead: Sequence[PlannedPass], one: PlannedPass) -> list[PlannedPass]:
    """Return the passes that one satellite cannot serve beside this one, itself among them."""
    return [each for each in ahead if each.begins_s <= one.ends_s and each.ends_s >= one.begins_s]


def merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return spans of time in order, those that touch as one.

    >>> merged([(5.0, 9.0), (0.0, 2.0), (8.0, 11.0)])
    [(0.0, 2.0), (5.0, 11.0)]
    """
    kept: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if kept and begin <= kept[-1][1]:
            kept[-1] = (kept[-1][0], max(kept[-1][1], end))
        else:
            kept.append((begin, end))
    return kept


# The network with its satellites


def flown(network: Network) -> tuple[Network, tuple[Flight, ...]]:
    """Return a network with the satellites of its space segment as nodes, and their flights.

    Raises
    ------
    ConfigurationError
        For an unknown mission, or a design whose key the distillation cannot make.
    """
    if network.space is None:
        return network, ()
    start_utc_s = utc_seconds(network.space.start_utc)
    flights: list[Flight] = []
    whole = network
    for use in network.space.missions:
        of_use = flights_of(network, use, start_utc_s)
        whole = with_flights(whole, use, of_use)
        flights += of_use
    check_distinct([each.orbit for each in flights])
    return whole, tuple(flights)


def sky_of(network: Network, flights: Iterable[Flight]) -> Cloudy:
    """Return what says whether a station is cloudy at a moment: drawn clouds, or clear skies."""
    space = network.space
    if space is None or space.cloud_seed is None:
        return clear
    ground = {each.site_id: each for flight in flights for each in flight.ground}
    return Skies(tuple(ground.values()), utc_seconds(space.start_utc), space.cloud_seed).cloudy


def flights_of(network: Network, use: MissionUse, start_utc_s: float) -> list[Flight]:
    """Return the satellites of a mission, each with a hop to every station."""
    mission_id, _, design_id = use.mission.partition(":")
    design = mission(mission_id).design(design_id)
    pass_settings(design)  # refuses what cannot be distilled
    if design.operation.passes_per_block != 1:
        raise ConfigurationError(f"{design.name}: a live satellite makes one block per pass, not of several")
    ground = tuple(station_at(network.sites[each]) for each in use.stations)
    flights = [
        Flight(
            satellite=SiteId(orbit.name),
            design=design,
            orbit=orbit,
            ground=ground,
            links={station: LinkId(f"{orbit.name}--{station}") for station in use.stations},
            start_utc_s=start_utc_s,
            store_bits=use.store_bits,
        )
        for orbit in design.orbits(start_utc_s)
    ]
    height_km = flights[0].place(0.0)[2]
    if height_km > HEIGHT_KM_MAX:
        raise ConfigurationError(
            f"{design.name} flies at {height_km:.0f} km; expected {HEIGHT_KM_MAX:.0f} at most, "
            "where passes last minutes"
        )
    return flights


def station_at(site: Site) -> GroundStation:
    """Return the ground station at a site: the catalogue's, or one of which only the place is known."""
    known = catalogue_stations().get(site.site_id)
    return known or GroundStation(site.site_id, site.name, site.country, site.lat, site.lon, 0.0)


def with_flights(network: Network, use: MissionUse, flights: Sequence[Flight]) -> Network:
    """Return a network with satellites as sites and their hops, which end at border nodes of the mission."""
    device = device_of(use, flights[0].design)
    satellites = {each.satellite: satellite_site(each) for each in flights}
    hops = [hop for each in flights for hop in hops_of(each, device.device_id)]
    ended, nodes, borders = border_nodes(network.sites | satellites, hops)
    sites = network.sites | satellites | {node.site_id: node for node in nodes}
    all_hops = network.hops | {hop.link_id: hop for hop in ended}
    return msgspec.structs.replace(
        network,
        sites=sites,
        hops=all_hops,
        devices=network.devices | {device.device_id: device},
        borders=(*network.borders, *borders),
        digest=network_digest(network.name, sites.values(), all_hops.values()),
    )


def satellite_site(flight: Flight) -> Site:
    """Return the node on board, at the point below it when the network is commissioned."""
    latitude, longitude, _ = flight.place(0.0)
    return Site(
        site_id=flight.satellite,
        name=flight.orbit.name,
        kind=SATELLITE,
        country="EU",
        domain=DomainId(flight.design.mission_id),
        lat=round(latitude, 5),
        lon=round(longitude, 5),
        source=f"mission {flight.design.name}",
    )


def hops_of(flight: Flight, device_id: str) -> list[Hop]:
    """Return the hops of a satellite to its stations, with length and loss as straight overhead."""
    _, _, height_km = flight.place(0.0)
    return [
        Hop(
            link_id=flight.links[SiteId(ground.site_id)],
            a=flight.satellite,
            b=SiteId(ground.site_id),
            length_km=round(height_km, 1),
            loss_db=round(float(SpaceLink(flight.design, ground).at(90.0, height_km).channel_db), 1),
            device=device_id,
            link_type=SATELLITE,
            parent_link=flight.links[SiteId(ground.site_id)],
        )
        for ground in flight.ground
    ]


def device_of(use: MissionUse, design: Design) -> Device:
    """Return the pair of modules in orbit and on the ground as the network describes devices.

    For people to read: passes are made from the design itself. Of three intensities the first two are told.
    """
    payload, station, operation = design.payload, design.station, design.operation
    return Device(
        device_id=use.mission,
        clock_rate_hz=payload.clock_rate_hz,
        signal_intensity=payload.intensities[0],
        decoy_intensity=payload.intensities[1],
        signal_probability=payload.probabilities[0],
        z_basis_probability=payload.z_basis_probability,
        receiver_loss_db=station.optics_loss_db,
        detector_efficiency=station.detector_efficiency,
        dark_count_probability=station.dark_count_probability,
        dead_time_s=station.dead_time_s,
        afterpulse_probability=station.afterpulse_probability,
        misalignment_error=payload.misalignment_error,
        block_sifted_bits=1,
        epsilon_sec=operation.epsilon_sec,
        epsilon_cor=operation.epsilon_cor,
        reference=f"mission {design.name}",
    )


def forecasts_of(network: Network, flights: Iterable[Flight]) -> dict[LinkId, LinkForecast]:
    """Return the forecast of every hop of a network, in its order: of fibre, and of satellites."""
    by_pass = pass_forecasts(flights)
    return {
        link: by_pass[link] if link in by_pass else forecast(network.devices[hop.device], hop)
        for link, hop in network.hops.items()
    }


def pass_forecasts(flights: Iterable[Flight]) -> dict[LinkId, LinkForecast]:
    """Return what the hops of satellites bring on average over the first days; nothing waits for clouds."""
    forecasts: dict[LinkId, LinkForecast] = {}
    for flight in flights:
        found = survey_of(flight, 0.0, FORECAST_DAYS * DAY_S)
        for number, ground in enumerate(flight.ground):
            forecasts[flight.links[SiteId(ground.site_id)]] = mean_forecast(found, number)
    return forecasts


def mean_forecast(found: Survey, station: int) -> LinkForecast:
    """Return the forecast of one station: the rate over all time, and the mean of the passes with key."""
    own = (found.passes.station == station) & (found.key_bits > 0)
    passes = int(own.sum())
    if not passes:
        return LinkForecast(0.0, 0.0, 0.0, 1, 1.0, 0)
    duration_s = float(found.yields.durations_s[own].mean())
    sifted = float(found.yields.sifted_bits[own].mean())
    return LinkForecast(
        secret_key_rate_bps=float(found.key_bits[own].sum()) / (found.days * DAY_S),
        qber=float(found.keys.qber[found.block[own]].mean()),
        detection_rate_hz=sifted / duration_s,
        block_detections=round(sifted),
        block_duration_s=duration_s,
        block_secret_bits=round(float(found.key_bits[own].mean())),
    )
