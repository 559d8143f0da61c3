"""``openqci link``: what a QKD link yields, its detections, and the model against published experiments."""

import argparse

from openqci.cli.link import experiments, plotting, rate, record, simulate


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci link`` with its verbs."""
    parser = subparsers.add_parser("link", help="rates, detections and published experiments of QKD links")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    rate.add_parser(verbs)
    simulate.add_parser(verbs)
    record.add_parser(verbs)
    plotting.add_parser(verbs)
    experiments.add_parser(verbs)
