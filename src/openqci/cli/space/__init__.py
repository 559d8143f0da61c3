"""``openqci space``: passes of satellites over ground stations, what a link loses, and the keys of passes."""

import argparse

from openqci.cli.space import budget, keys, passes


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci space`` with its verbs."""
    parser = subparsers.add_parser("space", help="satellite passes, link budgets and keys per pass")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    passes.add_parser(verbs)
    budget.add_parser(verbs)
    keys.add_parser(verbs)
