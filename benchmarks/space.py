"""Satellites: a year of passes, with geometry, Sun and Moon in steps of 10 s, and their keys.

Keys are those of the one setting that is best for all passes; finding it is told apart. Then a contact plan:
ten satellites in two planes over the same stations for thirty days, fair between states, with its bound.

One hundred satellites by SGP4 over the 51 ground stations of the catalogue, two worker processes. Beside it,
in the same run: what SGP4 alone would take for every step of every satellite (its array interface, timed on
a part), and Skyfield's ``find_events`` for one satellite and one station. Ratios are of processor times,
which a busy machine changes less than the clock on the wall.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from _measure import machine
from msgspec.structs import replace
from skyfield.api import EarthSatellite, load, wgs84

from openqci.cli.space.planning import RADIO_SITES
from openqci.links.clouds import cloud_climate
from openqci.links.ground import GroundStation, catalogue_stations, ground_station
from openqci.links.missions import mission
from openqci.links.missions.model import OrbitDesign
from openqci.links.pass_keys import PulseSettings
from openqci.links.pass_settings import best_settings
from openqci.links.survey import SatelliteTask, gathered, seen_of_satellite, survey, yields_of_stations
from openqci.network import load_scenario
from openqci.planning import Limits, PlanProblem, best_plan, contacts_of, state_demands
from openqci.planning.contacts import radio_contacts
from openqci.space.elements import checksum, read_elements
from openqci.space.orbits import ElementOrbit
from openqci.space.time_scales import DAY_S, julian_day, utc_seconds

START = utc_seconds("2027-01-01")
STEP_S, ELEVATION_MIN_DEG = 10.0, 20.0
RAW_CALLS = 200_000
WORKERS = 2


def elements(number: int, satellites: int) -> tuple[str, str]:
    """Return two lines of a satellite of a sun-synchronous fleet at 500 km, ten planes."""
    raan, anomaly = 36.0 * (number % 10), 360.0 * number / satellites
    first = f"1 {90000 + number}U 27001A   27001.00000000  .00000000  00000-0  00000-0 0  999"
    second = f"2 {90000 + number}  97.4020 {raan:8.4f} 0005000   0.0000 {anomaly:8.4f} 15.21936719    0"
    return tuple(line + checksum(line.ljust(68)) for line in (first, second))  # type: ignore[return-value]


def work(task: SatelliteTask) -> tuple[object, object, int, float, float, float, float]:
    """Return passes and yields of one satellite, its samples, and seconds of work for passes and for keys."""
    began, began_cpu = time.perf_counter(), time.process_time()
    passes, seen = seen_of_satellite(task)
    between, between_cpu = time.perf_counter(), time.process_time()
    yields = yields_of_stations(task, passes, seen)
    ended, ended_cpu = time.perf_counter(), time.process_time()
    return (
        passes,
        yields,
        len(seen),
        between - began,
        ended - between,
        between_cpu - began_cpu,
        ended_cpu - between_cpu,
    )


def ground_stations() -> tuple[GroundStation, ...]:
    return tuple(each for name, each in catalogue_stations().items() if name.startswith("ogs-"))


def tasks(satellites: int, days: float, settings: PulseSettings | None = None) -> Iterator[SatelliteTask]:
    ground = ground_stations()
    design = mission("eagle-1").design()
    for number in range(satellites):
        lines = elements(number, satellites)
        orbit = ElementOrbit(read_elements("\n".join(lines), "fleet")[0])
        flown = replace(design, orbit=OrbitDesign(f"fleet-{number}", "elements", lines, "assumed"))
        yield SatelliteTask(flown, orbit, ground, START, START + days * DAY_S, STEP_S, settings, None)


def raw_sgp4_s() -> float:
    """Return the seconds that one call of SGP4 takes in its array interface."""
    orbit = ElementOrbit(read_elements("\n".join(elements(0, 100)), "fleet")[0])
    moments = julian_day(START + STEP_S * np.arange(RAW_CALLS))
    times = []
    for _ in range(3):
        began = time.process_time()
        orbit.record.sgp4_array(*moments)
        times.append(time.process_time() - began)
    return min(times) / RAW_CALLS


def skyfield_s(days: float) -> tuple[float, int]:
    """Return the seconds of ``find_events`` for one satellite and station, and its culminations."""
    scale = load.timescale(builtin=True)
    satellite = EarthSatellite(*elements(0, 100), ts=scale)
    site = wgs84.latlon(48.0848, 11.278, elevation_m=590)
    began = time.process_time()
    _, events = satellite.find_events(
        site, scale.utc(2027, 1, 1), scale.utc(2027, 1, 1 + days), altitude_degrees=ELEVATION_MIN_DEG
    )
    return time.process_time() - began, int((events == 1).sum())


def planned() -> dict[str, float]:
    """Return what planning thirty days of ten satellites takes, and how far from its bound it is."""
    ground = ground_stations()
    design = mission("constellation-first").design("sso-12")
    design = replace(design, orbit=replace(design.orbit, satellites=10, planes=2))
    times = START, START + 30 * DAY_S
    found = survey(design, ground, *times, passes_per_block=1)
    radio = radio_contacts(design, [ground_station(each) for each in RADIO_SITES], *times)
    demands = state_demands(load_scenario("eu27", whole_demand=True))
    limits = Limits()
    contacts = contacts_of(found, ground, cloud_climate(ground), limits.record_bits_per_sifted_bit, radio)
    weights = {state: each.weight for state, each in demands.items()}
    began, began_cpu = time.perf_counter(), time.process_time()
    plan = best_plan(PlanProblem(contacts, limits, weights=weights))
    return {
        "possible contacts of ten satellites in thirty days": float(len(contacts)),
        "contacts served": float(len(plan.served)),
        "plan, s": time.perf_counter() - began,
        "processor time of the plan, s": time.process_time() - began_cpu,
        "gap of the plan to its bound, per cent": 100 * plan.gap,
    }


def main() -> None:
    """Measure and print a table, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON document with the machine's facts")
    parser.add_argument("--satellites", type=int, default=100, help="default 100")
    parser.add_argument("--days", type=float, default=365.0, help="default 365")
    args = parser.parse_args()
    began_cpu = time.process_time()
    settings = best_settings(mission("eagle-1").design(), ground_stations(), START, START + args.days * DAY_S)
    settings_s = time.process_time() - began_cpu
    jobs = list(tasks(args.satellites, args.days, settings))
    with ProcessPoolExecutor(WORKERS) as executor:
        # Kernels are loaded before the clock starts, as after the first call of any session.
        list(executor.map(work, itertools.islice(tasks(4, 1.0), 4)))
        began = time.perf_counter()
        found = list(executor.map(work, jobs))
        wall_s = time.perf_counter() - began
    passes_s, keys_s, passes_cpu_s, keys_cpu_s = (sum(float(each[k]) for each in found) for k in (3, 4, 5, 6))
    began = time.perf_counter()
    year = gathered(jobs[0].design, START, START + args.days * DAY_S, [(each[0], each[1]) for each in found])  # type: ignore[misc]
    bounds_s = time.perf_counter() - began
    share = passes_s / (passes_s + keys_s)
    raw_s = raw_sgp4_s() * args.satellites * args.days * DAY_S / STEP_S
    plan = planned()
    theirs_s, culminations = skyfield_s(args.days)
    here = len(jobs) * len(jobs[0].ground)
    figures = {
        "passes": float(len(year.passes)),
        "samples of 10 s and less": float(sum(each[2] for each in found)),
        "passes with geometry, Sun and Moon, s": wall_s * share,
        "keys of all passes beyond that, s": wall_s * (1 - share) + bounds_s,
        "processor time of passes, s": passes_cpu_s,
        "processor time of keys, s": keys_cpu_s + bounds_s,
        "processor time of the best settings, s": settings_s,
        "passes with key": float((year.key_bits > 0).sum()),
        "processor time of SGP4 alone, every step of every satellite, s": raw_s,
        "ratio of processor times: SGP4 alone over our passes": raw_s / passes_cpu_s,
        "processor time of find_events, one satellite and station, s": theirs_s,
        "Skyfield's culminations there": float(culminations),
        "ratio of processor times: find_events over ours, each pair": theirs_s * here / passes_cpu_s,
        **plan,
    }
    if args.json:
        json.dump({"benchmark": "space", "machine": machine(), "figures": figures}, sys.stdout, indent=2)
        print()
        return
    conditions = ", ".join(f"{name} {value}" for name, value in machine().items())
    print(
        f"space: {args.satellites} satellites, {len(jobs[0].ground)} stations, {args.days:g} days; "
        + conditions
    )
    for name, value in figures.items():
        print(f"  {name:62}{value:16,.4g}" if abs(value) < 1e5 else f"  {name:62}{value:16,.0f}")


if __name__ == "__main__":
    main()
