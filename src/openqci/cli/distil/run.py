"""``openqci distil run``: distil one recording with both ends in this process."""

import argparse
import secrets
from pathlib import Path

from openqci.cli.distil.options import add_block_option, add_settings_options, settings_of
from openqci.cli.distil.outcome import BlockOutcome, document, tell
from openqci.cli.distil.recordings import checked_block_slots, detected, slots_of_block
from openqci.cli.distil.stopwatch import Stopwatch
from openqci.cli.link.files import written_whole
from openqci.cli.link.plotting import check_name, empty_figure
from openqci.core.detections import DetectionRecord, EmissionRecord
from openqci.core.errors import invariant
from openqci.core.identifiers import LinkId
from openqci.core.keys import SecretBytes
from openqci.crypto import equal
from openqci.distillation import (
    AUTHENTICATION_KEY_BYTES,
    AliceDistillation,
    BlockName,
    BlockReport,
    BobDistillation,
    DistillationAborted,
    DistillationSettings,
    KeyDistilled,
    converse,
)
from openqci.distillation.recorded import check_same_run, read_emissions
from openqci.distillation.recorded.recordings import RECORD_MAX

LINK = LinkId("recording")

DESCRIPTION = """\
Distils a recording: Alice's emissions and Bob's time tags become secret bits. Both ends run here and
speak through messages alone, each authenticated with key that is drawn for the block. For two machines
see `openqci distil serve` and `openqci distil connect`. Ends with 0 when there is key, 1 when there is
none, 2 for wrong input."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "run",
        help="distil a recording, both ends in this process",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--alice", type=Path, required=True, metavar="FILE", help="her emissions, .npz")
    parser.add_argument("--bob", type=Path, required=True, metavar="FILE", help="his time tags, .npz")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the key here, mode 600")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw QBER and yield over time")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_block_option(parser)
    add_settings_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read, distil block after block, tell."""
    if args.plot is not None:
        check_name(args.plot)
        empty_figure()  # a missing Matplotlib is known before the work
    wanted = checked_block_slots(args.block_slots)
    emissions = read_emissions(args.alice)
    settings = settings_of(args, emissions.source_intensities, emissions.source_probabilities)
    at_bob = detected(args.bob)
    check_same_run(emissions, at_bob.tags)
    block_slots = min(at_bob.slots_wanted(wanted), RECORD_MAX)
    outcomes, keys = [], []
    for number, part in enumerate(at_bob.blocks(block_slots)):
        sent = emissions.record(*slots_of_block(emissions.pulses, block_slots, number))
        report, aborted, seconds, key = distil_block(sent, part, settings, number + 1)
        sent.bits[:] = part.bits[:] = 0
        outcomes.append(BlockOutcome(report, aborted, *at_bob.span_s(block_slots, number), seconds))
        keys.append(key)
    if args.out is not None:
        with written_whole(args.out, mode=0o600) as file:
            for key in keys:
                file.write(key.reveal())
    for key in keys:
        key.wipe()
    told = document(settings, outcomes, synchronisation=at_bob.synchronisation)
    tell(args.json, told, outcomes)
    if args.plot is not None:
        from openqci.cli.distil.plotting import plot_outcomes

        plot_outcomes(args.plot, outcomes, settings.qber_max)
    return 0 if told["totals"]["secret_bits"] else 1


def distil_block(
    sent: EmissionRecord, part: DetectionRecord, settings: DistillationSettings, number: int
) -> tuple[BlockReport, str, dict[str, float], SecretBytes]:
    """Let both ends distil one block.

    Returns
    -------
    tuple
        Bob's report, why it was aborted (empty if it was not), the seconds of each stage at either end, and
        the key, empty if there is none.
    """
    name = BlockName(LINK, number)
    shared = secrets.token_bytes(AUTHENTICATION_KEY_BYTES)
    alice = Stopwatch(AliceDistillation(sent, settings, name, SecretBytes(shared), secrets.token_bytes))
    bob = Stopwatch(BobDistillation(part, settings, name, SecretBytes(shared), secrets.token_bytes))
    at_alice, at_bob = converse(alice, bob)
    seconds = {f"alice_{stage}": taken for stage, taken in alice.seconds.items()}
    seconds |= {f"bob_{stage}": taken for stage, taken in bob.seconds.items()}
    aborted, key = "", SecretBytes(b"")
    if isinstance(at_alice, KeyDistilled) and isinstance(at_bob, KeyDistilled):
        key = at_bob.key.key
        invariant(equal(key.reveal(), at_alice.key.key.reveal()), "both ends of a block have the same key")
        at_alice.key.key.wipe()
    elif isinstance(at_bob, DistillationAborted):
        aborted = f"{at_bob.reason}: {at_bob.detail}"
    return at_bob.report, aborted, seconds, key
