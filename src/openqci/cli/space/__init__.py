"""``openqci space``: passes of satellites, what a link loses, keys of passes, and which contacts to serve."""

import argparse

from openqci.cli.space import budget, design, keys, passes, plan, validate, year


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci space`` with its verbs."""
    parser = subparsers.add_parser(
        "space", help="satellites: passes, link budgets, keys per pass, contact plans"
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    passes.add_parser(verbs)
    budget.add_parser(verbs)
    keys.add_parser(verbs)
    plan.add_parser(verbs)
    year.add_parser(verbs)
    design.add_parser(verbs)
    validate.add_parser(verbs)
