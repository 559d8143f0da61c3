"""The figures of a network that does not run, read from its store without starting anything."""

from pathlib import Path
from typing import Any

from openqci.cli.up.commission import hop_stocks, open_store
from openqci.cli.up.figures import decode_figures, hop_status, status_report
from openqci.cli.up.production import HOP_FIGURES, NETWORK
from openqci.network import load_scenario
from openqci.services.data_directory import DataDirectory
from openqci.twin.flights import flown, forecasts_of
from openqci.twin.hops import HopBook


def status_of_store(data_dir: Path) -> dict[str, Any]:
    """Return what ``openqci status --json`` prints for a network at rest."""
    directory = DataDirectory.open_existing(data_dir)
    network, flights = flown(load_scenario(directory.scenario))
    store = open_store(directory)
    try:
        figures = store.submit(lambda tx: decode_figures(tx.records(NETWORK, HOP_FIGURES))).result()
        stocks = store.submit(lambda tx: hop_stocks(tx, network)).result()
    finally:
        store.close()
    book = HopBook(network, forecasts_of(network, flights), figures, stocks)
    hops = [hop_status(line, book.state(link_id), 0.0) for link_id, line in book.lines.items()]
    totals = {
        "secret_bits_total": sum(hop["secret_bits_total"] for hop in hops),
        "stock_bits": sum(hop["stock_bits"] for hop in hops),
        "distilled_bps": 0.0,
        "possible_bps": book.possible_bps,
        "hops": len(hops),
        "hops_with_key": sum(hop["stock_bits"] > 0 for hop in hops),
        "hops_distilling": 0,
    }
    return status_report(network, hops, totals, running=False, ready=False, time_s=0.0)
