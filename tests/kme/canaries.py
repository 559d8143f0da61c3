"""A pair of QKD modules behind ETSI GS QKD 014 whose keys are known beforehand, and run dry.

Once they are dry nothing new comes that could overwrite, by chance, what a node has left behind.
"""

import base64
import hashlib
import json
import ssl
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

KEY_BYTES = 32
KEYS_PER_REQUEST_MAX = 64


class CanaryModules:
    """Both ends of a link, in threads of this process; ``keys`` is all that they ever give, in order."""

    def __init__(self, folder: Path, ports: tuple[int, int], count: int) -> None:
        self.keys = {
            str(UUID(bytes=hashlib.sha256(b"name %d" % number).digest()[:16], version=4)): hashlib.sha256(
                b"canary %d" % number
            ).digest()
            for number in range(count)
        }
        self._unsold = list(self.keys)
        self._lock = threading.Lock()
        self._servers = []
        for end, port in zip("ab", ports, strict=True):
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "pki" / "ca.pem"))
            tls.load_cert_chain(folder / f"module-{end}" / "cert.pem", folder / f"module-{end}" / "key.pem")
            tls.verify_mode = ssl.CERT_REQUIRED
            server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            self._servers.append(server)

    def __enter__(self) -> "CanaryModules":
        self._running = ExitStack()
        for server in self._servers:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            self._running.callback(server.server_close)
            self._running.callback(server.shutdown)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @property
    def dry(self) -> bool:
        """Tell whether all was given."""
        return not self._unsold

    def answer(self, method: str, body: bytes) -> tuple[int, object]:
        """Answer a request."""
        with self._lock:
            if method == "status":
                return 200, self._status()
            if method == "enc_keys":
                number = min(json.loads(body)["number"], len(self._unsold))
                names, self._unsold = self._unsold[:number], self._unsold[number:]
            else:
                names = [each["key_ID"] for each in json.loads(body)["key_IDs"]]
        if not names:
            return 503, {"message": "no key"}
        return 200, {
            "keys": [{"key_ID": name, "key": base64.b64encode(self.keys[name]).decode()} for name in names]
        }

    def _status(self) -> object:
        return {
            "key_size": 8 * KEY_BYTES,
            "stored_key_count": len(self._unsold),
            "max_key_count": len(self.keys),
            "max_key_per_request": KEYS_PER_REQUEST_MAX,
            "max_key_size": 8 * KEY_BYTES,
            "min_key_size": 8 * KEY_BYTES,
            "max_SAE_ID_count": 0,
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        modules = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                status, document = modules.answer(self.path.rsplit("/", 1)[1], self.rfile.read(length))
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler
