"""``openqci distil``: recorded detections to secret bits, in one process or between two machines."""

import argparse

from openqci.cli.distil import line, run


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci distil`` with its verbs."""
    parser = subparsers.add_parser("distil", help="distil recorded detections into secret key")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    run.add_parser(verbs)
    line.add_parsers(verbs)
