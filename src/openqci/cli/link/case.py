"""The options that describe a link, and the case that they make."""

import argparse
from pathlib import Path

from openqci.cli.link.files import why_unreadable
from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.links import LinkCase, Profile, profile, profile_ids, protocol_ids, read_profiles

ATTENUATION_DB_PER_KM = 0.2
LENGTH_KM_MAX = 50_000.0
LOSS_DB_MAX = 200.0
DEFAULT_PROFILE, DEFAULT_COHERENT_PROFILE = "dv-metro", "cv-metro"


def add_case_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``rate`` and ``simulate`` share."""
    link = parser.add_argument_group("the link (give its length or its loss)")
    link.add_argument("--length-km", type=float, metavar="KM", help="fibre between the ends, 0 to 50000")
    link.add_argument(
        "--loss-db",
        type=float,
        metavar="DB",
        help="loss between the ends without the receiver, 0 to 200; stands before what the length would give",
    )
    link.add_argument(
        "--attenuation-db-per-km",
        type=float,
        metavar="X",
        help=f"of the fibre, 0 to 10 (default {ATTENUATION_DB_PER_KM})",
    )
    link.add_argument(
        "--background-photons-hz",
        type=float,
        default=0.0,
        metavar="HZ",
        help="other light in the filter, of classical channels or the sky, 0 to 1e9 (default 0)",
    )
    modules = parser.add_argument_group("the modules at its ends")
    modules.add_argument(
        "--profile",
        default="",
        metavar="ID",
        help=f"{', '.join(profile_ids())}; or FILE.yaml#ID, or FILE.yaml with one profile "
        f"(default {DEFAULT_PROFILE}, for gg02 {DEFAULT_COHERENT_PROFILE})",
    )
    modules.add_argument(
        "--protocol", default="", metavar="ID", help=f"{', '.join(protocol_ids())} (default: the profile's)"
    )
    modules.add_argument(
        "--optimise", action="store_true", help="choose the source's settings for this very link"
    )
    modules.add_argument(
        "--encoding",
        default="",
        metavar="NAME",
        help="phase, time-bin or polarisation, with generic optics (default: the profile's)",
    )
    modules.add_argument(
        "--drift-rad",
        type=float,
        metavar="RAD",
        help="rms angle of polarisation or phase that the modules do not follow, 0 to 1",
    )
    modules.add_argument(
        "--detector-trust",
        default="trusted",
        metavar="NAME",
        help="gg02 alone: trusted, calibrated or untrusted (default trusted)",
    )


def case_of(
    args: argparse.Namespace, *, length_km: float | None = None, loss_db: float | None = None
) -> LinkCase:
    """Return the case that the options describe, at this length or loss if one is given.

    Raises
    ------
    ConfigurationError, OutsideModel
        For options that contradict each other or lie outside their ranges.
    """
    length_km = args.length_km if length_km is None else length_km
    loss_db = args.loss_db if loss_db is None else loss_db
    if length_km is None and loss_db is None:
        raise ConfigurationError("which link? expected --length-km, --loss-db or --sweep")
    if length_km is not None and not 0 <= length_km <= LENGTH_KM_MAX:
        raise OutsideModel("length_km", length_km, f"a finite number from 0 to {LENGTH_KM_MAX:g}")
    return LinkCase(
        profile=profile_of(args.profile, args.protocol),
        loss_db=fibre_loss_db(args.attenuation_db_per_km, length_km, loss_db),
        length_km=length_km,
        protocol=args.protocol,
        proof=getattr(args, "proof", ""),
        block_sifted_bits=getattr(args, "block_bits", None),
        duration_s=getattr(args, "duration_s", None),
        optimise=args.optimise,
        encoding=args.encoding,
        drift_angle_rms_rad=args.drift_rad,
        background_photons_hz=args.background_photons_hz,
        detector_trust=args.detector_trust,
    )


def fibre_loss_db(attenuation: float | None, length_km: float | None, loss_db: float | None) -> float:
    """Return the loss that was given, or that of the fibre; an attenuation beside a loss is refused."""
    if attenuation is not None and not 0 <= attenuation <= 10:
        raise ConfigurationError(
            f"--attenuation-db-per-km = {attenuation!r}; expected a number from 0 to 10 dB/km"
        )
    if loss_db is None:
        per_km = ATTENUATION_DB_PER_KM if attenuation is None else attenuation
        fibre_db = per_km * (length_km or 0.0)
        if fibre_db > LOSS_DB_MAX:
            raise ConfigurationError(
                f"--length-km {length_km:g} at {per_km:g} dB/km loses {fibre_db:g} dB; "
                f"expected at most {LOSS_DB_MAX:g} dB"
            )
        return fibre_db
    if attenuation is not None:
        raise ConfigurationError(
            "--attenuation-db-per-km says nothing where the loss is given; expected it with a length alone"
        )
    return loss_db


def profile_of(name: str, protocol_id: str) -> Profile:
    """Return a profile by its id, or from a file as ``FILE.yaml#ID``."""
    if not name:
        name = DEFAULT_COHERENT_PROFILE if protocol_id.startswith("gg02") else DEFAULT_PROFILE
    file, _, profile_id = name.partition("#")
    if not file.endswith((".yaml", ".yml")):
        return profile(name)
    try:
        text = Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {why_unreadable(error)}") from error
    found = read_profiles(text, file)
    if not profile_id and len(found) == 1:
        return next(iter(found.values()))
    if profile_id not in found:
        problem = f"has no profile {profile_id!r}" if profile_id else f"holds {len(found)} profiles"
        raise ConfigurationError(f"{file} {problem}; expected {file}# and one of {', '.join(found)}")
    return found[profile_id]
