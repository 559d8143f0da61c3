"""The client of an application, when its KME dies in the middle of an answer."""

import socket
import threading
from http.client import IncompleteRead
from pathlib import Path

import pytest

from openqci.core.identifiers import KmeId, SaeId
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.sae_client import SAEClient
from openqci.services.tls import TlsFiles


@pytest.mark.parametrize("sent", [b"", b'{"keys":[{"key_ID":"a"'])
def test_an_answer_that_was_cut_off_is_no_answer(tmp_path: Path, sent: bytes) -> None:
    authority = CertificateAuthority.open_or_create(tmp_path / "pki")
    pem = authority.issue_kmes([KmeId("kme")])[KmeId("kme")]
    write_credentials(tmp_path / "app", authority.issue_sae(SaeId("app")), authority)
    listener = socket.create_server(("127.0.0.1", 0))

    def die_while_answering() -> None:
        connection, _ = listener.accept()
        tls = TlsFiles(pem, pem, authority.certificate_file).server_context()
        with tls.wrap_socket(connection, server_side=True) as server:
            server.recv(65536)
            server.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n" + sent)

    thread = threading.Thread(target=die_while_answering)
    thread.start()
    files = [tmp_path / "app" / name for name in ("cert.pem", "key.pem", "ca.pem")]
    with SAEClient(f"https://127.0.0.1:{listener.getsockname()[1]}", *files) as client:
        with pytest.raises((IncompleteRead, OSError)) as caught:
            client.enc_keys("other", 1)
        assert "key_ID" not in str(caught.value)
    thread.join()
    listener.close()
