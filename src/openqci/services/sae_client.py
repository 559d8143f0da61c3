"""The application's side of ETSI GS QKD 014: asks a KME over mutual TLS, standard library only.

Example::

    with SAEClient(url, folder / "cert.pem", folder / "key.pem", folder / "ca.pem") as sae:
        answer = sae.enc_keys("warsaw-app", number=2)
        answer.status, answer.key_ids, answer.keys
"""

import json
import ssl
import time
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPSConnection, IncompleteRead
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

from openqci.core.errors import ConfigurationError, Fault, PeerMisbehaved
from openqci.delivery.etsi014_model import PROVENANCE_EXTENSION

TIMEOUT_S = 15.0
"""Above the time for which a KME waits for stock before it refuses."""

IDLE_S_MAX = 30.0
"""A connection idle for longer is made anew: the server may be closing it, and a key request that meets a
closing connection cannot simply be repeated, since it may have spent keys."""

ANSWER_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class Answer:
    """A KME's answer. The key bytes stay out of ``repr``."""

    status: int
    body: dict[str, Any] = field(repr=False)
    retry_after_s: float | None = None

    @property
    def key_ids(self) -> list[str]:
        return [entry["key_ID"] for entry in self.body.get("keys", [])]

    @property
    def keys(self) -> list[bytes]:
        return [b64decode(entry["key"], validate=True) for entry in self.body.get("keys", [])]

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """What the KME says of each key's making; empty if it was not asked or does not say."""
        shared = self.body.get("key_container_extension", {})
        own = [entry.get("key_extension", shared) for entry in self.body.get("keys", [])]
        return [entry[PROVENANCE_EXTENSION] for entry in own if PROVENANCE_EXTENSION in entry]

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))


class SAEClient:
    """One SAE at its own KME, over one connection that is kept open.

    The KME's certificate is checked against the authority and the URL's host and, if ``kme_id`` is given,
    must name that KME (ETSI GS QKD 014 V1.1.1, 5.1). No request is ever repeated on its own.

    Raises ConfigurationError if the credentials cannot be used, OSError or http.client.HTTPException if the
    KME cannot be reached, PeerMisbehaved if what answers is another KME.
    """

    def __init__(
        self, url: str, certificate: Path, key: Path, authority: Path, *, kme_id: str | None = None
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_verify_locations(_existing(authority))
            context.load_cert_chain(_existing(certificate), _existing(key))
        except ssl.SSLError as error:
            raise ConfigurationError(
                Fault(str(certificate), "", f"cannot be used with {key} and {authority} ({error.reason})")
            ) from None
        parts = urlsplit(url)
        self._connection = HTTPSConnection(
            parts.hostname or "", parts.port, context=context, timeout=TIMEOUT_S
        )
        self._kme_id = kme_id
        self._used_s = 0.0

    def status(self, slave: str) -> Answer:
        """Get status, as master."""
        return self._request("GET", slave, "status", None)

    def enc_keys(
        self,
        slave: str,
        number: int = 1,
        size: int | None = None,
        *,
        provenance: bool = False,
        mandatory: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Get key, as master; ``size`` in bits, ``mandatory`` what the keys shall be like."""
        body: dict[str, Any] = {"number": number}
        if size is not None:
            body["size"] = size
        if provenance:
            body["extension_optional"] = [{PROVENANCE_EXTENSION: True}]
        if mandatory:
            body["extension_mandatory"] = [{name: value} for name, value in mandatory.items()]
        return self._request("POST", slave, "enc_keys", body)

    def dec_keys(self, master: str, key_ids: Sequence[str], *, provenance: bool = False) -> Answer:
        """Get key with key IDs, as slave."""
        body: dict[str, Any] = {"key_IDs": [{"key_ID": key_id} for key_id in key_ids]}
        if provenance:
            body["key_IDs_extension"] = {PROVENANCE_EXTENSION: True}
        return self._request("POST", master, "dec_keys", body)

    def close(self) -> None:
        """Close the connection; the next request would open another."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, method: str, peer: str, verb: str, document: dict[str, Any] | None) -> Answer:
        body = None if document is None else json.dumps(document)
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            self._connect()
            self._connection.request(method, f"/api/v1/keys/{quote(peer, safe='')}/{verb}", body, headers)
            answer = self._connection.getresponse()
            content = answer.read(ANSWER_BYTES_MAX)
            # A read with a limit says nothing of an answer that was cut off, which may have held keys.
            if len(content) < int(answer.headers.get("Content-Length", "0")):
                raise IncompleteRead(b"", len(content))
        except (OSError, HTTPException):
            self._connection.close()
            raise
        self._used_s = time.monotonic()
        retry_after = answer.headers.get("Retry-After", "")
        return Answer(
            answer.status, _document(content), float(retry_after) if retry_after.isdigit() else None
        )

    def _connect(self) -> None:
        """Open a connection unless a fresh one is there, and see who answers before anything is asked."""
        if self._connection.sock is not None and time.monotonic() - self._used_s > IDLE_S_MAX:
            self._connection.close()
        if self._connection.sock is not None:
            return
        self._connection.connect()
        socket: object = self._connection.sock
        certificate = (socket.getpeercert() if isinstance(socket, ssl.SSLSocket) else None) or {}
        expected = ("URI", f"urn:openqci:kme:{self._kme_id}")
        if self._kme_id is not None and expected not in certificate.get("subjectAltName", ()):
            self._connection.close()
            raise PeerMisbehaved(
                f"expected KME {self._kme_id} at {self._connection.host}:{self._connection.port}, "
                "the certificate there names another"
            )


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content or b"{}")
    except ValueError:
        # What came may hold keys, so the message does not quote it.
        raise HTTPException("the KME's answer is not JSON") from None
    if not isinstance(document, dict):
        raise HTTPException("the KME's answer is not a JSON object")
    return document


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise ConfigurationError(
            Fault(str(file), "", "is not there; enrol the SAE again or name the right folder")
        )
    return file
