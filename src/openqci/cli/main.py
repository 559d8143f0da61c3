"""The ``openqci`` command: reads the command line, runs one command, turns errors into one clear line.

Exit codes: 0 good, 1 a negative result, 2 bad usage or input. Each command lives in a module of its own
that is imported only when it is asked for, so that a small command starts fast.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from openqci import __version__
from openqci.core.errors import ConfigurationError, OpenQCIError, OutsideModel

COMMANDS = {
    "up": "run a whole network on this machine, live",
    "status": "show every hop, domain and total of a network",
    "route": "show the routes between two sites, and why not others",
    "admission": "show who of a scenario's demand gets how much key",
    "alarm": "show alarms of a network, and lift a suspicion",
    "fault": "break a running network on purpose, and mend it",
    "key": "fetch one key at both ends through ETSI GS QKD 014",
    "sae": "enrol secure application entities (SAEs)",
    "kme": "set up, run and look after a key management entity",
    "audit": "verify and read the audit log of a node",
    "control": "run the controller of a domain",
    "orchestrator": "ways over domains, from what the domains offer",
    "federation": "accounts of what crossed the borders of a network",
    "pki": "a small certificate authority for tests",
    "scenario": "check and list scenarios",
    "link": "rates, detections and published experiments of QKD links",
    "space": "satellite passes, link budgets and keys per pass",
    "distil": "distil recorded detections into secret key",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parsed = command_line(arguments).parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = parsed.run
    try:
        return run(parsed)
    except ConfigurationError as error:
        for fault in error.faults:
            print(f"openqci: {fault}", file=sys.stderr)
        return 2
    except OutsideModel as error:
        print(f"openqci: {error}", file=sys.stderr)
        return 2
    except OpenQCIError as error:
        print(f"openqci: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output went away (``openqci status | head``): not an error of ours. What is
        # still buffered must not raise again when the interpreter flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def command_line(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser; only the command named in ``arguments`` is loaded in full."""
    parser = argparse.ArgumentParser(
        prog="openqci", description="The EuroQCI as software, from the photon to the application key."
    )
    parser.add_argument("--version", action="version", version=f"openqci {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    for name, purpose in COMMANDS.items():
        if name == wanted:
            import_module(f"openqci.cli.{name}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=purpose)
    return parser


if __name__ == "__main__":
    sys.exit(main())
