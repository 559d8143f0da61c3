"""``openqci kme``: set up, run and look after a key management entity (KME)."""

import argparse

from openqci.cli.kme import backup, check, init, modules, run, status


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci kme`` with its verbs."""
    parser = subparsers.add_parser("kme", help="set up, run and look after a key management entity")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    init.add_parser(verbs)
    check.add_parser(verbs)
    run.add_parser(verbs)
    status.add_parsers(verbs)
    backup.add_parsers(verbs)
    modules.add_parser(verbs)
