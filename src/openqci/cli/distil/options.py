"""Options that all verbs of ``openqci distil`` share: what both ends agree on before a block."""

import argparse
from collections.abc import Sequence

import msgspec

from openqci.core.errors import ConfigurationError
from openqci.distillation import DistillationSettings
from openqci.distillation.reconciliation import RECONCILIATION_METHODS, reconciliation_for
from openqci.proofs import proof_ids

PROOF_OF_INTENSITIES = {2: "rusca-2018", 3: "lim-2014"}


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    """Add what decides about a block's key."""
    agreed = parser.add_argument_group("what both ends agree on")
    agreed.add_argument(
        "--proof",
        default="",
        metavar="ID",
        help=f"one of {', '.join(proof_ids())} (default: rusca-2018 for two intensities, lim-2014 for three)",
    )
    agreed.add_argument("--epsilon-sec", type=float, default=1e-9, metavar="E", help="secrecy (default 1e-9)")
    agreed.add_argument(
        "--epsilon-cor", type=float, default=1e-15, metavar="E", help="correctness (default 1e-15)"
    )
    agreed.add_argument(
        "--qber-max", type=float, default=0.08, metavar="Q", help="no key from a block above (default 0.08)"
    )
    agreed.add_argument(
        "--accounting",
        choices=("alice-parities-v1", "both-ends-v1"),
        default="alice-parities-v1",
        help="how disclosed bits are charged (default alice-parities-v1)",
    )
    agreed.add_argument(
        "--secret-bits",
        type=int,
        metavar="N",
        help="a fixed length: so many bits of each block, or none; a multiple of 8",
    )
    agreed.add_argument(
        "--reconciliation",
        choices=(*RECONCILIATION_METHODS, "auto"),
        default="auto",
        help="error correction; auto chooses by --round-trip-ms (default auto)",
    )
    agreed.add_argument(
        "--round-trip-ms", type=float, default=1.0, metavar="MS", help="of the classical channel (default 1)"
    )


def settings_of(
    args: argparse.Namespace, intensities: Sequence[float], probabilities: Sequence[float]
) -> DistillationSettings:
    """Return the settings for a source.

    Raises
    ------
    ConfigurationError
        Names the option and what it takes.
    """
    if not 0 <= args.round_trip_ms < 1e6:
        raise ConfigurationError(f"--round-trip-ms {args.round_trip_ms:g}; expected 0 to 1e6")
    method = args.reconciliation
    if method == "auto":
        method = reconciliation_for(args.round_trip_ms / 1000, args.qber_max / 2)
    proof_id = args.proof or PROOF_OF_INTENSITIES.get(len(intensities), "")
    if not proof_id:
        raise ConfigurationError(f"--proof: there is none for {len(intensities)} intensities")
    return DistillationSettings(
        proof_id=proof_id,
        intensities=tuple(intensities),
        intensity_probabilities=tuple(probabilities),
        epsilon_sec=args.epsilon_sec,
        epsilon_cor=args.epsilon_cor,
        qber_max=args.qber_max,
        accounting=args.accounting,
        reconciliation=method,
        secret_bits_fixed=args.secret_bits,
    )


def differences(mine: DistillationSettings, theirs: DistillationSettings) -> list[str]:
    """Return in which settings two ends differ, one line each."""
    return [
        f"{name} {getattr(theirs, name)!r}, here {getattr(mine, name)!r}"
        for name in msgspec.structs.asdict(mine)
        if getattr(mine, name) != getattr(theirs, name)
    ]


def add_block_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--block-slots",
        type=int,
        metavar="N",
        help="slots of one block, what is left joining the last (default: some 4 million detections)",
    )


def address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r}; expected HOST:PORT, such as 127.0.0.1:7700")
    return host.strip("[]"), int(port)
