"""``openqci distil preshare | init | serve | connect | take``: two machines, one link."""

import argparse
import asyncio
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from openqci.cli.distil.options import (
    add_block_option,
    add_settings_options,
    address,
    differences,
    settings_of,
)
from openqci.cli.distil.outcome import BlockOutcome, document, tell
from openqci.cli.distil.recordings import checked_block_slots, detected, slots_of_block
from openqci.cli.distil.stopwatch import Stopwatch
from openqci.cli.link.files import why_unreadable, written_whole
from openqci.core.detections import DetectionRecord
from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import LinkId
from openqci.core.keys import SecretBytes
from openqci.distillation import (
    AliceDistillation,
    BlockName,
    BobDistillation,
    DistillationAborted,
    DistillationSettings,
)
from openqci.distillation.end import BlockEnd
from openqci.distillation.recorded import read_emissions
from openqci.distillation.recorded.recordings import RECORD_MAX
from openqci.distillation.session import AliceSession, BobSession, SessionEnded, SessionEvent
from openqci.services.distillation_line import answer, call
from openqci.services.link_stock import PRESHARED_BYTES, LinkDirectory


def add_parsers(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    preshare = verbs.add_parser(
        "preshare", help="make the first secret of a link, to be carried to both ends"
    )
    preshare.add_argument("--out", type=Path, required=True, metavar="FILE", help="written with mode 600")
    preshare.set_defaults(run=run_preshare)

    init = verbs.add_parser("init", help="make the folder of one end from the first secret")
    add_folder_option(init)
    init.add_argument("--link", required=True, metavar="ID", help="the link's name, the same at both ends")
    init.add_argument("--end", required=True, choices=("alice", "bob"), help="which end this is")
    init.add_argument("--preshared", type=Path, required=True, metavar="FILE", help="destroy it afterwards")
    init.set_defaults(run=run_init)

    serve = verbs.add_parser("serve", help="Alice: wait for Bob and distil what he detected")
    add_folder_option(serve)
    serve.add_argument("--alice", type=Path, required=True, metavar="FILE", help="her emissions, .npz")
    serve.add_argument(
        "--listen", type=address, default=("127.0.0.1", 7700), metavar="HOST:PORT", help="(127.0.0.1:7700)"
    )
    serve.add_argument("--once", action="store_true", help="end after one session")
    serve.add_argument("--json", action="store_true", help="print one JSON document at the end of a session")
    add_block_option(serve)
    add_settings_options(serve)
    serve.set_defaults(run=run_serve)

    connect = verbs.add_parser("connect", help="Bob: call Alice and distil")
    add_folder_option(connect)
    connect.add_argument("--bob", type=Path, required=True, metavar="FILE", help="his time tags, .npz")
    connect.add_argument("--to", type=address, required=True, metavar="HOST:PORT", help="where Alice listens")
    connect.add_argument("--json", action="store_true", help="print one JSON document")
    add_block_option(connect)
    add_settings_options(connect)
    connect.set_defaults(run=run_connect)

    take = verbs.add_parser("take", help="take the key of a block out of the folder of one end")
    add_folder_option(take)
    take.add_argument("--block", type=int, metavar="N", help="its number; without it, list the blocks")
    take.add_argument("--out", type=Path, metavar="FILE", help="written with mode 600")
    take.set_defaults(run=run_take)


def add_folder_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="the folder of this end")


def run_preshare(args: argparse.Namespace) -> int:
    """Write a fresh secret; never over a file that is there."""
    if args.out.exists():
        raise ConfigurationError(f"{args.out}: is there already; expected a new file")
    with written_whole(args.out, mode=0o600) as file:
        file.write(secrets.token_bytes(PRESHARED_BYTES))
    print(f"{args.out}: {PRESHARED_BYTES} bytes; carry it to both ends, and destroy it after `distil init`")
    return 0


def run_init(args: argparse.Namespace) -> int:
    """Make a folder."""
    try:
        secret = SecretBytes(args.preshared.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{args.preshared}: cannot be read: {why_unreadable(error)}") from error
    with secret, LinkDirectory.make(args.data_dir, LinkId(args.link), args.end, secret):
        print(f"{args.data_dir}: {args.end} of link {args.link}; destroy {args.preshared} now")
    return 0


class Account:
    """What one end hears of its blocks in one session."""

    def __init__(self, span_s: Callable[[int], tuple[float, float]]) -> None:
        self.outcomes: list[BlockOutcome] = []
        self.watches: list[Stopwatch] = []
        self._span_s = span_s

    def watch(self, end: BlockEnd) -> Stopwatch:
        """Return an end of the next block with a stopwatch around it."""
        self.watches.append(Stopwatch(end))
        return self.watches[-1]

    def hear(self, event: SessionEvent) -> None:
        """Take down how a block ended. Its key is in the folder already."""
        if isinstance(event, SessionEnded):
            return
        aborted = f"{event.reason}: {event.detail}" if isinstance(event, DistillationAborted) else ""
        number = len(self.outcomes)
        self.outcomes.append(
            BlockOutcome(event.report, aborted, *self._span_s(number), self.watches[number].seconds)
        )


@contextmanager
def terminated_in_order() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C: a session under way is stopped, and the store is closed."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_serve(args: argparse.Namespace) -> int:
    """Answer one session after another; a session begins with the first slots of the recording."""
    most_slots = min(checked_block_slots(args.block_slots) or RECORD_MAX, RECORD_MAX)
    emissions = read_emissions(args.alice)
    settings = settings_of(args, emissions.source_intensities, emissions.source_probabilities)
    with terminated_in_order(), LinkDirectory.open(args.data_dir, "alice") as folder:
        sessions: list[tuple[AliceSession, Account]] = []

        def session() -> AliceSession:
            def slots(number: int) -> tuple[int, int]:
                return slots_of_block(emissions.pulses, made.block_slots, number)

            def span_s(number: int) -> tuple[float, float]:
                first, end = slots(number)
                return first / emissions.clock_rate_hz, end / emissions.clock_rate_hz

            def make_end(agreed: DistillationSettings, name: BlockName, key: SecretBytes) -> Stopwatch:
                sent = emissions.record(*slots(len(account.watches)))
                return account.watch(AliceDistillation(sent, agreed, name, key, secrets.token_bytes))

            account = Account(span_s)
            made = AliceSession(folder.description.link_id, settings, most_slots, folder.stock, make_end)
            sessions[:] = [(made, account)]
            return made

        def report(event: SessionEvent) -> None:
            _, account = sessions[0]
            account.hear(event)
            if isinstance(event, SessionEnded):
                say(args.json, event, account, settings, {})

        def listening(host: str, port: int) -> None:
            print(f"listening on {host}:{port}", file=sys.stderr, flush=True)

        host, port = args.listen
        asyncio.run(answer(host, port, session, report, once=args.once, listening=listening))
    outcomes = sessions[0][1].outcomes if sessions else []
    return 0 if any(each.report.secret_bits for each in outcomes) else 1


def run_connect(args: argparse.Namespace) -> int:
    """Call once; 0 when there is key, 1 when there is none."""
    wanted = checked_block_slots(args.block_slots)
    with terminated_in_order(), LinkDirectory.open(args.data_dir, "bob") as folder:
        at_bob = detected(args.bob)
        blocks: list[DetectionRecord] = []
        agreed: list[DistillationSettings] = []

        def agree(theirs: DistillationSettings, block_slots: int) -> list[str]:
            agreed.append(theirs)
            try:
                blocks[:] = at_bob.blocks(max(1, block_slots))
                mine = settings_of(args, theirs.intensities, theirs.intensity_probabilities)
            except ConfigurationError as error:
                return [str(error)]
            return differences(mine, theirs)

        def make_end(settings: DistillationSettings, name: BlockName, key: SecretBytes) -> Stopwatch:
            part = blocks[len(account.watches)]
            return account.watch(BobDistillation(part, settings, name, key, secrets.token_bytes))

        session = BobSession(
            folder.description.link_id,
            at_bob.slots_wanted(wanted),
            agree,
            lambda: len(blocks),
            folder.stock,
            make_end,
        )
        account = Account(lambda number: at_bob.span_s(session.block_slots, number))
        host, port = args.to
        ended = asyncio.run(call(host, port, lambda: session, account.hear))
        say(args.json, ended, account, agreed[0] if agreed else None, at_bob.synchronisation)
    return 0 if any(each.report.secret_bits for each in account.outcomes) else 1


def say(
    as_json: bool,
    ended: SessionEnded,
    account: Account,
    settings: DistillationSettings | None,
    synchronisation: Mapping[str, object],
) -> None:
    """Tell how a session went; what is wrong goes to standard error."""
    settlement = ended.settlement
    told = document(
        settings,
        account.outcomes,
        fault=ended.fault,
        settlement={
            "destroyed_bytes": settlement.destroyed_bytes,
            "struck_blocks": list(settlement.struck_blocks),
            "taken_blocks": list(settlement.taken_blocks),
        },
        synchronisation=synchronisation,
    )
    tell(as_json, told, account.outcomes)
    if ended.fault:
        print(f"openqci: the session ended early: {ended.fault}", file=sys.stderr)
    for block in settlement.taken_blocks:
        print(
            f"openqci: block {block} was struck, and its key had been taken: do not use it", file=sys.stderr
        )


def run_take(args: argparse.Namespace) -> int:
    """Spend the key of one block into a file, or list what there is."""
    with LinkDirectory.open(args.data_dir) as folder:
        if args.block is None:
            for block, length, claim in folder.stock.distilled():
                print(f"block {block}: {length} bytes, {claim.proof_id}, epsilon {claim.epsilon:.3g}")
            return 0
        if args.out is None:
            raise ConfigurationError("--out: expected a file for the key")
        if args.out.exists():
            raise ConfigurationError(f"{args.out}: is there already; expected a new file")
        with written_whole(args.out, mode=0o600) as file, folder.stock.take_distilled(args.block) as key:
            file.write(key.reveal())
            print(f"{args.out}: {len(key)} bytes of block {args.block}")
    return 0
