"""What ``openqci control`` and ``openqci orchestrator`` have in common: two daemons that hold no key."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from openqci.services.operator_client import NamedClient
    from openqci.services.tls import TlsFiles

READY_LINE = "ready"


class KeylessDaemon(Protocol):
    """A daemon: started, then run until ``stop`` is set, then closed, also after a start that failed."""

    stop: asyncio.Event

    async def start(self) -> None: ...

    async def run(self) -> None: ...

    async def close(self) -> None: ...


Daemon = TypeVar("Daemon", bound=KeylessDaemon)


def add_config(parser: argparse.ArgumentParser, file: str) -> None:
    """Add the option that names the daemon's configuration; by default ``file`` in the current folder."""
    parser.add_argument("--config", metavar="FILE", type=Path, default=Path(file), help=f"its {file}")


def add_caller(parser: argparse.ArgumentParser, file: str) -> None:
    """Add the options of a command that calls a running daemon."""
    add_config(parser, file)
    parser.add_argument("--certificate", metavar="FILE", type=Path, required=True, help="the caller's")
    parser.add_argument("--key", metavar="FILE", type=Path, required=True, help="the key of --certificate")


def add_run(parser: argparse.ArgumentParser, file: str) -> None:
    """Add the options of the command that runs a daemon."""
    add_config(parser, file)
    parser.add_argument("--verbose", action="store_true", help="log what goes well, too")


def run_daemon(
    make: Callable[[], Daemon],
    verbose: bool,
    reload: Callable[[Daemon], Coroutine[None, None, None]] | None = None,
) -> int:
    """Run a daemon until SIGTERM or Ctrl-C; SIGHUP has it ``reload``, if it can."""
    import uvloop

    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    return uvloop.run(_serve(make, reload))


async def _serve(
    make: Callable[[], Daemon], reload: Callable[[Daemon], Coroutine[None, None, None]] | None
) -> int:
    daemon = make()
    reloads: set[asyncio.Task[None]] = set()
    try:
        await daemon.start()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, daemon.stop.set)
        if reload is not None:
            again = reload
            loop.add_signal_handler(signal.SIGHUP, lambda: reloads.add(loop.create_task(again(daemon))))
        print(READY_LINE, flush=True)
        await daemon.run()
    finally:
        await daemon.close()
    return 0


def named_client(args: argparse.Namespace, files: "TlsFiles", name: str, listen: str) -> "NamedClient":
    """Return who calls the daemon of that name, with the certificate that the command line names."""
    from openqci.services.kme_config import host_and_port
    from openqci.services.operator_client import NamedClient

    own = replace(files, certificate=args.certificate, key=args.key)
    host, port = host_and_port(listen)
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return NamedClient(own.client_context(), name, host, port)
