"""Recorded passes for tests, drawn from the model; also what the shipped example was made with."""

import json

import msgspec
import numpy as np

from openqci.links.budget import SpaceLink
from openqci.links.ground import ground_station
from openqci.links.missions import mission
from openqci.links.survey import SatelliteTask, seen_of_satellite
from openqci.planning.recordings import RecordedPass
from openqci.planning.validation import drawn_record
from openqci.space import utc_seconds, utc_text

DESIGN = mission("microsat-pilot").design("class-23kg")
SITE = "ogs-helmos"
LINK = SpaceLink(DESIGN, ground_station(SITE))
INTERVAL_S = 5.0
SEED = 2027


def empty_record() -> RecordedPass:
    """Return a good night pass over Greece with nothing counted yet."""
    start = utc_seconds("2027-03-20")
    orbit, ground = DESIGN.orbits(start)[0], (LINK.ground,)
    task = SatelliteTask(DESIGN, orbit, ground, start, start + 2 * 86_400.0, INTERVAL_S, None, None)
    passes, seen = seen_of_satellite(task)
    dark = [place for place in range(len(passes)) if (seen.one(place).sun_elevations_deg < -12).all()]
    one = seen.one(max(dark, key=lambda place: passes.culminations_deg[place]))
    return RecordedPass(
        version=1,
        simulated=True,
        note="Drawn from the model of the mission by the seed 2027. No satellite made it.",
        mission=DESIGN.name,
        site=SITE,
        interval_s=INTERVAL_S,
        utc=tuple(utc_text(float(np.round(each))) for each in one.utc_s),
        elevation_deg=tuple(float(each) for each in one.elevations_deg.round(3)),
        range_km=tuple(float(each) for each in one.ranges_km.round(3)),
        sifted_bits=(0,) * len(one),
        errors=(0,) * len(one),
    )


def example() -> RecordedPass:
    """Return the shipped example."""
    return drawn_record(empty_record(), LINK, np.random.default_rng(SEED), deficit_db=0.3, fading=0.05)


def as_json(recorded: RecordedPass) -> str:
    content = {
        name: value for name, value in msgspec.to_builtins(recorded).items() if value not in ((), None, [])
    }
    return json.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    print(as_json(example()), end="")
