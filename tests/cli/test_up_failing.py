"""``openqci up`` when a part of it fails, and ``openqci status`` where the environment names a proxy."""

import asyncio
import json
import threading
from argparse import Namespace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from openqci.cli.status import running_status
from openqci.cli.up.live import LiveNetwork, serve
from openqci.services.data_directory import DataDirectory
from tests.system.make import free_port_base


def test_a_network_that_stops_because_a_part_failed_says_so_by_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: LiveNetwork) -> None:
        await asyncio.sleep(0.05)
        raise RuntimeError("a bug")

    monkeypatch.setattr(LiveNetwork, "_watch_directory", broken)
    arguments = Namespace(
        scenario="metro",
        data_dir=tmp_path / "data",
        port_base=free_port_base(12, 26000),
        speed=1.0,
        seed=None,
        workers=1,
        ready_file=None,
        until_ready=False,
        no_load=True,
        whole_demand=False,
        policy="both",
    )
    assert asyncio.run(asyncio.wait_for(serve(arguments), 30)) == 1
    assert "a part of the network failed" in caplog.text


def test_the_console_is_asked_directly_whatever_proxy_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = DataDirectory.open_or_create(tmp_path / "data", "tiny", "digest")
    body = json.dumps({"data_dir": str(directory.path.resolve())}).encode()

    class Console(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Console) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/"
        directory.kmes_file.write_text(json.dumps({"console_url": url}))
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9/")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        try:
            assert running_status(directory.path) is not None
        finally:
            server.shutdown()
            thread.join()
    directory.close()
