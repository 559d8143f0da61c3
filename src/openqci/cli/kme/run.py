"""``openqci kme run``: one key management entity, until a signal."""

import argparse
import asyncio
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openqci.services.kme_config import LoadedConfig

READY_LINE = "ready"
log = logging.getLogger(__name__)


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register ``openqci kme run``."""
    parser = verbs.add_parser("run", help="run a node until SIGTERM or Ctrl-C")
    parser.add_argument("--config", metavar="FILE", type=Path, default=Path("kme.toml"), help="its kme.toml")
    parser.add_argument(
        "--verbose", action="store_true", help="log what goes well, too, whatever [log] level says"
    )
    parser.set_defaults(run=run_node)


def run_node(args: argparse.Namespace) -> int:
    """Run the node that the configuration describes."""
    import uvloop

    from openqci.services import logs
    from openqci.services.kme_config_file import load_config

    loaded = load_config(args.config)
    section = loaded.config.log
    logs.configure(section.format, "info" if args.verbose else section.level, loaded.kme_id)
    return uvloop.run(serve(loaded))


async def serve(loaded: "LoadedConfig") -> int:
    """Serve until SIGTERM, SIGINT or zeroisation; return the exit code."""
    from openqci.services.kme_app import KmeApp
    from openqci.services.kme_server import keep_what_is_there
    from openqci.services.sources import make_source

    app = KmeApp(loaded, make_source)
    reloads: set[asyncio.Task[None]] = set()
    try:
        await app.start()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, app.stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: reloads.add(loop.create_task(app.reload())))
        keep_what_is_there()
        print(READY_LINE, flush=True)
        log.info(READY_LINE)
        await app.run()
    finally:
        await app.close()
    return 0
