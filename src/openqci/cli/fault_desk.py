"""Where orders for faults are left, and how the running network is asked what it says."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from openqci.cli.status import running_status
from openqci.core.errors import ConfigurationError, Fault

if TYPE_CHECKING:
    from openqci.cli.up.fault_orders import Answer, Wish


def running_report(data_dir: Path) -> dict[str, Any]:
    """Return the status of the running network; ConfigurationError if it rests."""
    report = running_status(data_dir)
    if report is None:
        raise ConfigurationError(
            Fault(str(data_dir), "", "this network does not run; faults are for a running one (`openqci up`)")
        )
    return report


def ask_network(data_dir: Path, wish: "Wish") -> "Answer":
    """Have the running network do something; ConfigurationError if it refuses or rests."""
    import asyncio

    from openqci.cli.up.commission import open_store
    from openqci.cli.up.fault_orders import ask
    from openqci.services.data_directory import DataDirectory

    running_report(data_dir)
    store = open_store(DataDirectory.open_existing(data_dir))
    try:
        return asyncio.run(ask(store, wish))
    finally:
        store.close()
