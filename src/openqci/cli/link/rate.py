"""``openqci link rate``: gain, QBER, key per pulse, per second and per block of a link, or of a sweep."""

import argparse
import json
import math
from pathlib import Path

import msgspec
import numpy as np

from openqci.cli.link.case import add_case_options, case_of
from openqci.cli.link.plotting import Curve, check_name, plot_rates
from openqci.core.errors import ConfigurationError
from openqci.links import LinkRate, link_rate, protocol, protocol_ids

GOOD, NO_KEY = 0, 1
SWEEP_POINTS_MAX = 10_000
SWEEPABLE = ("length-km", "loss-db")

DESCRIPTION = """\
How much secret key a QKD link yields: gain, QBER, key per pulse, per second and per block. The
figures rest on a profile (which modules), a protocol (what they do) and a proof (what may be
kept); rates under different proofs do not compare. Ends with 0 when there is key, 1 when there
is none, 2 for options that are wrong."""

EXAMPLES = """\
examples:
  openqci link rate --length-km 50
  openqci link rate --protocol bb84-decoy2 --length-km 50 --proof chernoff --block-bits 1e7 --optimise
  openqci link rate --sweep length-km=0:90:5 --plot rates.svg"""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "rate",
        help="what a link yields, in closed form, under a named proof",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_case_options(parser)
    key = parser.add_argument_group("the key that may be kept")
    key.add_argument("--proof", default="", metavar="ID", help=proofs_told())
    block = key.add_mutually_exclusive_group()
    block.add_argument(
        "--block-bits",
        type=float,
        metavar="N",
        help="key-basis bits (gg02: symbols) of one block, 1 to 1e18, as 1e7 (default: the profile's)",
    )
    block.add_argument(
        "--duration-s",
        type=float,
        metavar="S",
        help="instead: one block of everything that comes in this time, 1e-6 to 1e10",
    )
    shown = parser.add_argument_group("what is shown")
    shown.add_argument(
        "--sweep",
        metavar="NAME=START:STOP:STEP",
        help="a table over length-km or loss-db, both ends included, as length-km=0:200:5",
    )
    shown.add_argument("--plot", metavar="FILE", type=Path, help="draw the sweep (.svg, .png or .pdf)")
    shown.add_argument("--json", action="store_true", help="print the result as one JSON document")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the rate, or the table of a sweep; 1 when a single link has no key."""
    if args.sweep is None:
        if args.plot is not None:
            raise ConfigurationError("--plot draws a sweep; expected --sweep too")
        found = link_rate(case_of(args))
        print(json.dumps(facts(found), indent=2) if args.json else as_text(found))
        return GOOD if found.secret_key_rate_per_pulse > 0 else NO_KEY
    name, values = sweep_of(args.sweep)
    refuse_beside_sweep(args)
    if args.plot is not None:
        check_name(args.plot)
    cases = [case_of(args, **{name: value}) for value in values]
    rates = [link_rate(case) for case in cases]
    if args.plot is not None:
        axis = "length_km" if name == "length_km" else "loss_db"
        label = f"{rates[0].protocol}, {rates[0].profile}, {rates[0].proof}"
        plot_rates(args.plot, axis, [Curve(label, tuple(rates))])
    print(json.dumps([facts(each) for each in rates], indent=2) if args.json else as_table(rates))
    return GOOD


def sweep_of(text: str) -> tuple[str, list[float]]:
    """Return the name of the argument and its values, both ends included.

    >>> sweep_of("length-km=0:10:5")
    ('length_km', [0.0, 5.0, 10.0])
    """
    name, _, span = text.partition("=")
    try:
        start, stop, step = (float(part) for part in span.split(":"))
    except ValueError as error:
        raise ConfigurationError(f"--sweep {text}; expected NAME=START:STOP:STEP") from error
    if name not in SWEEPABLE:
        raise ConfigurationError(f"--sweep {name}; expected one of {', '.join(SWEEPABLE)}")
    if not (stop >= start and 0 < step < math.inf and math.isfinite(stop - start)):
        raise ConfigurationError(
            f"--sweep {text}; expected finite numbers, START not above STOP and a STEP above zero"
        )
    points = (stop - start) / step * (1 + 1e-12) + 1
    if not points < SWEEP_POINTS_MAX + 1:
        raise ConfigurationError(
            f"--sweep {text} has {points:.6g} points; expected at most {SWEEP_POINTS_MAX}"
        )
    return name.replace("-", "_"), [float(value) for value in start + step * np.arange(math.floor(points))]


def refuse_beside_sweep(args: argparse.Namespace) -> None:
    """Refuse a length or loss that the sweep would override, or hold against it."""
    for name in SWEEPABLE:
        if getattr(args, name.replace("-", "_")) is not None:
            raise ConfigurationError(f"--{name} beside --sweep; expected one of them")


def proofs_told() -> str:
    """Return, for the help, which short names there are for the proofs of each protocol."""
    told: dict[str, list[str]] = {}
    for protocol_id in protocol_ids():
        told.setdefault(", ".join(protocol(protocol_id).short_names), []).append(protocol_id)
    each = "; ".join(f"{' and '.join(protocols)}: {names}" for names, protocols in told.items())
    return f"by id or short name. {each}; or measured (default: the profile's, or the first)"


def facts(found: LinkRate) -> dict[str, object]:
    """Return the result for JSON, in which there is no infinity."""
    plain: dict[str, object] = msgspec.to_builtins(found)
    if math.isinf(found.repeaterless_bound_per_pulse):
        plain["repeaterless_bound_per_pulse"] = None
    return plain


def as_text(found: LinkRate) -> str:
    """Return the result for a reader."""
    length = "" if found.length_km is None else f"{found.length_km:g} km, "
    lines = [
        f"{found.protocol} on {found.profile}, {length}{found.loss_db:g} dB",
        f"  proof                 {found.proof}: {found.reference}",
    ]
    if found.gain is not None:
        lines.append(f"  gain                  {found.gain:.4g} per pulse")
    if found.qber is not None:
        lines.append(f"  QBER                  {100 * found.qber:.3g} %")
    if found.sifted_rate_hz is not None:
        lines.append(f"  sifted                {found.sifted_rate_hz:.4g} /s")
    what = "symbols" if found.protocol.startswith("gg02") else "sifted"
    if found.block_sifted_bits is not None and found.block_duration_s is not None:
        lines.append(
            f"  block                 {found.block_sifted_bits:.6g} {what} in {found.block_duration_s:.4g} s"
        )
    if found.secret_length_bits is not None:
        lines.append(f"  secret length         {found.secret_length_bits} bits per block")
    if found.zero_because:
        lines.append(f"  no key                {found.zero_because}")
    lines += [
        f"  secret rate           {found.secret_key_rate_per_pulse:.4g} per pulse",
        f"                        {found.secret_key_rate_bps:.4g} bit/s while it runs",
        f"                        {found.delivered_rate_bps:.4g} bit/s delivered, with the profile's pauses",
        f"  repeaterless bound    {found.repeaterless_bound_per_pulse:.4g} per pulse",
    ]
    if found.epsilon_sec is not None:
        lines.append(
            f"  epsilon               {found.epsilon_sec:g} secrecy, {found.epsilon_cor:g} correctness"
        )
    lines += [f"  {name:<21} {value:.4g}" for name, value in found.observed.items()]
    lines += [f"  {name:<21} {setting_text(value)}" for name, value in found.settings.items()]
    return "\n".join(lines)


def as_table(rates: list[LinkRate]) -> str:
    """Return a sweep as a table, one line per point."""
    first = rates[0]
    lines = [
        f"{first.protocol} on {first.profile}, proof {first.proof}",
        f"{'km':>9}{'dB':>9}{'QBER %':>9}{'per pulse':>13}{'bit/s':>13}{'delivered':>13}  no key because",
    ]
    for each in rates:
        length = "" if each.length_km is None else f"{each.length_km:g}"
        qber = "" if each.qber is None else f"{100 * each.qber:.3g}"
        lines.append(
            f"{length:>9}{each.loss_db:>9.4g}{qber:>9}{each.secret_key_rate_per_pulse:>13.4g}"
            f"{each.secret_key_rate_bps:>13.4g}{each.delivered_rate_bps:>13.4g}  {each.zero_because}".rstrip()
        )
    return "\n".join(lines)


def setting_text(value: float | str | tuple[float, ...]) -> str:
    if isinstance(value, str):
        return value
    return ", ".join(f"{each:.6g}" for each in value) if isinstance(value, tuple) else f"{value:.6g}"
