"""What the verbs that plan contacts have in common: their options, and the problem those describe."""

import argparse
from dataclasses import dataclass

import numpy as np

from openqci.cli.space.case import Case, add_case_options, case_of
from openqci.core.errors import ConfigurationError
from openqci.links.clouds import cloud_climate, with_cloud_probability
from openqci.links.ground import GroundStation, catalogue_stations, ground_station
from openqci.links.pass_settings import best_settings
from openqci.links.survey import Survey, survey
from openqci.network import load_scenario
from openqci.planning.contacts import Contacts, contacts_of, radio_contacts, without_contact
from openqci.planning.demand import StateDemand, state_demands
from openqci.planning.limits import Limits
from openqci.planning.problem import FAIRNESS, PlanProblem
from openqci.space.time_scales import DAY_S
from openqci.space.weather import CloudClimate, sample_clouds

RADIO_SITES = ("ogs-redu", "ogs-kourou", "ogs-santamaria", "ogs-kangerlussuaq")
"""Where stores are emptied: places of the catalogue that have radio stations; that these serve is assumed."""

RESERVE_DAYS = 365.0
"""Of demand, beyond which more stock is worth nothing to a state."""

SCENARIOS_MAX = 64


@dataclass(frozen=True)
class PlanCase:
    """A mission over stations for a time, with clouds and demand."""

    case: Case
    ground: tuple[GroundStation, ...]
    found: Survey
    climate: CloudClimate
    contacts: Contacts
    limits: Limits
    demands: dict[str, StateDemand]
    fairness: str

    def problem(
        self, clear: "np.ndarray[tuple[int, int], np.dtype[np.float64]] | None" = None
    ) -> PlanProblem:
        """Return what is to be planned."""
        return PlanProblem(
            self.contacts,
            self.limits,
            self.fairness,
            weights={state: each.weight for state, each in self.demands.items()},
            wanted_bits={
                state: each.bits_per_day * (self.found.days + RESERVE_DAYS)
                for state, each in self.demands.items()
            },
            clear=clear,
        )

    def drawn(self, scenarios: int, seed: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
        """Return under which contacts the sky is clear, in so many weathers, shape (K, N)."""
        start, hours = self.case.start_utc_s, int(np.ceil(self.found.days * 24)) + 1
        middle = (self.contacts.start_utc_s + self.contacts.stop_utc_s) / 2
        weathers = [
            sample_clouds(self.climate, start, hours, np.random.default_rng([seed, number]))
            for number in range(scenarios)
        ]
        rows = [~each.at(self.contacts.station, middle) for each in weathers]
        return np.array(rows, dtype=np.float64).reshape(scenarios, len(self.contacts))


def add_plan_options(parser: argparse.ArgumentParser, days: float) -> None:
    """Add what the verbs that plan share."""
    add_case_options(parser, days)
    parser.add_argument(
        "--scenario",
        metavar="S",
        help="a scenario whose flows are the demand, and whose ground stations serve (default: none, and the "
        "mission's stations)",
    )
    parser.add_argument(
        "--fairness", choices=FAIRNESS, default=FAIRNESS[0], help=f"between states (default {FAIRNESS[0]})"
    )
    parser.add_argument("--optimise", action="store_true", help="with the best setting of the source")
    parser.add_argument(
        "--cloud-probability",
        type=float,
        metavar="P",
        help="of stations that the catalogue has no climate of, 0 to 1",
    )
    default = Limits()
    for name, what in (
        ("slew_s", "seconds between two links of a satellite"),
        ("link_s_per_day", "seconds of links of a satellite in a day"),
        ("store_bits", "bits on board until a radio contact"),
        ("radio_bps", "bits per second of a radio contact"),
    ):
        option, value = f"--{name.replace('_', '-')}", getattr(default, name)
        parser.add_argument(
            option, type=float, default=value, metavar="X", help=f"{what} (default {value:g})"
        )


def plan_case_of(args: argparse.Namespace) -> PlanCase:
    """Return what the options describe.

    Raises
    ------
    ConfigurationError
        For an unknown mission, station or scenario, or a design that cannot be planned; or if no pass gives
        key over any station, with the reason for each.
    """
    case = case_of(args)
    if case.design.entangled:
        raise ConfigurationError(f"{case.design.name} sends entangled pairs; expected a decoy-state design")
    ground, demands = stations_and_demand(case, args)
    limits = Limits(
        slew_s=args.slew_s,
        link_s_per_day=args.link_s_per_day,
        store_bits=args.store_bits,
        radio_bps=args.radio_bps,
    )
    climate = cloud_climate(ground)
    times = case.start_utc_s, case.stop_utc_s
    settings = best_settings(case.design, ground, *times, passes_per_block=1) if args.optimise else None
    found = survey(case.design, ground, *times, settings=settings, passes_per_block=1)
    radio = radio_contacts(case.design, [ground_station(each) for each in RADIO_SITES], *times)
    contacts = contacts_of(found, ground, climate, limits.record_bits_per_sifted_bit, radio)
    if not len(contacts):
        reasons = "; ".join(f"{name} {why}" for name, why in without_contact(found).items())
        raise ConfigurationError(f"no feasible contact of {case.design.name} in this time: {reasons}")
    return PlanCase(case, ground, found, climate, contacts, limits, demands, args.fairness)


def stations_and_demand(
    case: Case, args: argparse.Namespace
) -> tuple[tuple[GroundStation, ...], dict[str, StateDemand]]:
    """Return the stations that serve, and the demand of each state."""
    ground, demands = case.ground, {}
    if args.scenario is not None:
        network = load_scenario(args.scenario, whole_demand=True)
        demands = state_demands(network)
        known = catalogue_stations()
        here = tuple(known[site] for site in network.sites if site in known and site.startswith("ogs-"))
        if not args.site and not here:
            raise ConfigurationError(
                f"scenario {network.name} has no ground station; expected one, or --site beside it"
            )
        ground = ground if args.site else here
    if args.cloud_probability is not None:
        if not 0 <= args.cloud_probability <= 1:
            raise ConfigurationError(f"--cloud-probability {args.cloud_probability:g}; expected 0 to 1")
        ground = tuple(with_cloud_probability(ground, args.cloud_probability))
    return ground, demands


def days_of(bits: float, demand: StateDemand | None) -> float | None:
    """Return how many days of a state's demand so much key is; None where it asks for nothing."""
    if demand is None or demand.bits_per_day <= 0:
        return None
    return bits / (demand.total_bits_per_s * DAY_S)
