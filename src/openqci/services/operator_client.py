"""The operator's side of a node's operator interface: status, metrics and the last resort."""

import json
import ssl
from dataclasses import replace
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

from openqci.core.errors import OpenQCIError
from openqci.services.kme_config import LoadedConfig, host_and_port

TIMEOUT_S = 10.0
RENEWAL_S_MAX = 3600.0
ANSWER_BYTES_MAX = 16 << 20


class NodeUnreachable(OpenQCIError):
    """Nothing answers at the operator interface: the node rests, or its address is another."""


class NamedClient:
    """One holder of a certificate at an interface whose certificate must bear a name, whatever its host."""

    def __init__(self, context: ssl.SSLContext, name: str, host: str, port: int) -> None:
        self._context, self._name, self._host, self._port = context, name, host, port

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON document at a path."""
        document: dict[str, Any] = json.loads(self.request("GET", path, None))
        return document

    def request(self, method: str, path: str, body: bytes | None, timeout_s: float = TIMEOUT_S) -> bytes:
        """Return the body of an answer 200 or 503; OpenQCIError with the reason for any other."""
        connection = _NamedConnection(self._host, self._port, self._context, self._name, timeout_s)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            content = answer.read(ANSWER_BYTES_MAX)
        except (OSError, HTTPException) as error:
            raise NodeUnreachable(
                f"no answer from {self._name} at {self._host}:{self._port} ({error}); does it run?"
            ) from None
        finally:
            connection.close()
        if answer.status not in (200, 503):
            raise OpenQCIError(f"{self._name} refused {path} ({answer.status}): {_message(content)}")
        return content


class OperatorClient(NamedClient):
    """One holder of a certificate at a node's operator interface.

    The node's certificate is checked against the authority and must name the node's KME ID.
    """

    def __init__(
        self, loaded: LoadedConfig, certificate: Path | None = None, key: Path | None = None
    ) -> None:
        files = loaded.tls_files()
        own = replace(files, certificate=certificate or files.certificate, key=key or files.key)
        address = host_and_port(loaded.config.listen.operator)
        super().__init__(own.client_context(), loaded.kme_id, *address)

    def zeroise(self) -> None:
        """Have the node destroy all its key and stop; needs a security officer's certificate."""
        self.request("POST", "/zeroise", b"zeroise")

    def renew(self) -> int:
        """Have the node renew its keys; return the new root key's number. Needs a security officer."""
        document = json.loads(self.request("POST", "/renew", b"", RENEWAL_S_MAX))
        return int(document["root_key"])


class _NamedConnection(HTTPSConnection):
    """Connects to an address and expects the certificate of a name."""

    def __init__(
        self, host: str, port: int, context: ssl.SSLContext, server_name: str, timeout_s: float
    ) -> None:
        super().__init__(host, port, context=context, timeout=timeout_s)
        self._tls, self._server_name = context, server_name

    def connect(self) -> None:
        super(HTTPSConnection, self).connect()
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"
