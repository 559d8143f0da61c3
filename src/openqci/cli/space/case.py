"""The options that describe a mission over stations for a time, and what they make."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from openqci.cli.link.files import why_unreadable
from openqci.core.errors import ConfigurationError
from openqci.links.ground import GroundStation, ground_station
from openqci.links.missions import Design, Mission, mission, mission_ids, read_mission
from openqci.links.survey import DAYS_MAX, warnings_of
from openqci.space.time_scales import DAY_S, utc_seconds, utc_text

DAYS = 7.0


@dataclass(frozen=True)
class Case:
    """A design over stations for a time."""

    mission: Mission
    design: Design
    ground: tuple[GroundStation, ...]
    start_utc_s: float
    stop_utc_s: float

    def facts(self) -> dict[str, object]:
        """Return what every JSON document of these commands begins with."""
        return {
            "mission": self.mission.mission_id,
            "design": self.design.design_id,
            "sites": [each.site_id for each in self.ground],
            "from": utc_text(self.start_utc_s),
            "days": (self.stop_utc_s - self.start_utc_s) / DAY_S,
            "elevation_min_deg": self.design.operation.elevation_min_deg,
            "assumed_share_of_figures": round(self.mission.assumed_share, 3),
        }

    def headline(self) -> str:
        """Return what every table of these commands begins with."""
        days = (self.stop_utc_s - self.start_utc_s) / DAY_S
        assumed, lowest = 100 * self.mission.assumed_share, self.design.operation.elevation_min_deg
        return (
            f"{self.design.name}, {days:g} days from {utc_text(self.start_utc_s)}, "
            f"above {lowest:g} deg; {assumed:.0f} % of its figures are assumed"
        )


def add_case_options(parser: argparse.ArgumentParser, days: float = DAYS) -> None:
    """Add what all verbs share."""
    parser.add_argument(
        "--mission",
        required=True,
        metavar="M",
        help=f"{', '.join(mission_ids())}, or a FILE.yaml; with :DESIGN for another than its first",
    )
    parser.add_argument(
        "--site",
        action="append",
        metavar="S",
        help="a ground station of the catalogue or of the mission; may be repeated (default: the mission's)",
    )
    parser.add_argument("--from", dest="start", required=True, metavar="T", help="UTC, as 2027-03-20")
    parser.add_argument(
        "--days",
        type=float,
        default=days,
        metavar="N",
        help=f"above 0, at most {DAYS_MAX:g} (default {days:g})",
    )
    parser.add_argument(
        "--elevation-min-deg", type=float, metavar="X", help="5 to 80 (default: the operation's)"
    )


def case_of(args: argparse.Namespace) -> Case:
    """Return the case that the options describe; warnings go to the standard error.

    Raises
    ------
    ConfigurationError
        For an unknown mission, design, station or time.
    """
    of, design = design_of(args.mission)
    lowest = args.elevation_min_deg
    if lowest is not None:
        if not 5 <= lowest <= 80:
            raise ConfigurationError(f"--elevation-min-deg {lowest:g}; expected 5 to 80")
        operation = msgspec.structs.replace(design.operation, elevation_min_deg=lowest)
        design = msgspec.structs.replace(design, operation=operation)
    sites = list(dict.fromkeys(args.site or design.sites))
    start = utc_seconds(args.start)
    if not 0 < args.days <= DAYS_MAX:
        raise ConfigurationError(f"--days {args.days:g}; expected above 0, at most {DAYS_MAX:g}")
    case = Case(
        of, design, tuple(ground_station(each, of) for each in sites), start, start + args.days * DAY_S
    )
    for warning in warnings_of(design, case.start_utc_s, case.stop_utc_s):
        print(f"openqci: warning: {warning}", file=sys.stderr)
    return case


def design_of(name: str) -> tuple[Mission, Design]:
    """Return a mission and one of its designs, as ``mission``, ``mission:design`` or ``FILE.yaml:design``."""
    mission_id, _, design_id = name.partition(":")
    if not mission_id.endswith((".yaml", ".yml")):
        found = mission(mission_id)
        return found, found.design(design_id)
    try:
        text = Path(mission_id).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{mission_id}: cannot be read: {why_unreadable(error)}") from error
    found = read_mission(text, mission_id)
    return found, found.design(design_id)
