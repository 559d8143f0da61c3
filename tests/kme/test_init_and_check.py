"""A new node by questions and by options; a check that names what is wrong: file, name, authority, date."""

import json
import os
import pty
import select
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from openqci.services.kme_config_file import load_config
from tests.kme.make import OPENQCI, openqci

INIT = (
    "kme",
    "init",
    "n",
    "--kme-id",
    "kme-a",
    "--authority",
    "pki",
    "--host",
    "localhost",
    "--sae",
    "app-a",
)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    openqci(tmp_path, "pki", "create", "pki")
    openqci(tmp_path, *INIT)
    return tmp_path


def check(folder: Path, expect: int = 0) -> list[dict[str, Any]]:
    done = openqci(folder, "kme", "check", "--offline", "--json", "--config", "n/kme.toml", expect=expect)
    return list(json.loads(done.stdout))


def fault(folder: Path) -> str:
    return " ".join(result["fault"] for result in check(folder, expect=1) if not result["good"])


def test_a_new_node_is_good(node: Path) -> None:
    assert all(result["good"] for result in check(node))
    assert (node / "n" / "tls" / "key.pem").stat().st_mode & 0o077 == 0
    assert (node / "n" / "state").stat().st_mode & 0o077 == 0


def test_nothing_that_is_there_is_overwritten(node: Path) -> None:
    done = openqci(node, *INIT, expect=2)
    assert "is there already" in done.stderr


def test_without_a_terminal_what_is_missing_is_named(tmp_path: Path) -> None:
    done = openqci(tmp_path, "kme", "init", "n", expect=2)
    assert "--kme-id is missing" in done.stderr
    done = openqci(tmp_path, "kme", "init", "n", "--kme-id", "a", "--peer", "b", expect=2)
    assert "--peer-url is missing" in done.stderr and "--module-sae is missing" in done.stderr
    assert not (tmp_path / "n" / "kme.toml").exists()


def test_on_a_terminal_it_asks(tmp_path: Path) -> None:
    openqci(tmp_path, "pki", "create", "pki")
    answers = {
        "KME ID of this node": "kme-a",
        "name or address": "",
        "IDs of its applications": "app-a, app-c",
        "KME ID of the node at the other end": "kme-b",
        "address of that node's peer interface": "https://b.example:8444",
        "IDs of the applications there": "app-b",
        "ID of the link": "a-b",
        "address of this end's QKD module": "https://localhost:9500",
        "SAE ID of the other node": "kme-b",
        "folder with cert.pem": "",
    }
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        [OPENQCI, "kme", "init", "n", "--authority", "pki"],
        cwd=tmp_path,
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
    )
    os.close(other_end)
    said, left = "", dict(answers)
    deadline_s = time.monotonic() + 30
    while left and time.monotonic() < deadline_s:
        if select.select([terminal], [], [], 0.2)[0]:
            said += os.read(terminal, 4096).decode()
        question = next(iter(left))
        if question in said and said.rstrip().endswith(":"):
            os.write(terminal, f"{left.pop(question)}\n".encode())
            said = ""
    assert process.wait(30) == 0, said
    os.close(terminal)
    config = load_config(tmp_path / "n" / "kme.toml").config
    assert [sae.id for sae in config.sae] == ["app-a", "app-c"]
    assert config.peer[0].saes == ["app-b"] and config.link[0].id == "a-b"
    assert config.link[0].etsi014 is not None and config.link[0].etsi014.certificate == "module/cert.pem"


def test_a_certificate_of_another_node_is_named(node: Path) -> None:
    openqci(node, "pki", "issue", "pki", "--role", "kme", "--name", "kme-x", "--out", "x")
    for name in ("cert.pem", "key.pem"):
        (node / "n" / "tls" / name).write_bytes((node / "x" / name).read_bytes())
    said = fault(node)
    assert "names kme-x" in said and "expected kme-a" in said


def test_a_certificate_of_another_role_is_named(node: Path) -> None:
    openqci(node, "pki", "issue", "pki", "--role", "sae", "--name", "kme-a", "--out", "x")
    for name in ("cert.pem", "key.pem"):
        (node / "n" / "tls" / name).write_bytes((node / "x" / name).read_bytes())
    assert "names no KME; expected kme-a" in fault(node)


def test_another_authority_is_named(node: Path) -> None:
    openqci(node, "pki", "create", "other")
    (node / "n" / "tls" / "ca.pem").write_bytes((node / "other" / "ca.pem").read_bytes())
    said = fault(node)
    assert "is issued by CN=OpenQCI test authority" in said and "which is not in" in said


def test_a_key_of_another_certificate_is_named(node: Path) -> None:
    openqci(node, "pki", "issue", "pki", "--role", "kme", "--name", "kme-x", "--out", "x")
    (node / "n" / "tls" / "key.pem").write_bytes((node / "x" / "key.pem").read_bytes())
    assert "is not the key of" in fault(node)


def test_a_key_that_others_can_read_is_named(node: Path) -> None:
    (node / "n" / "tls" / "key.pem").chmod(0o644)
    assert "can be read by others; expected mode 0600" in fault(node)


@pytest.mark.parametrize(
    ("begins", "ends", "expected"), [(-20, -10, "ended at"), (10, 20, "holds only from")]
)
def test_a_certificate_out_of_its_time_is_named(node: Path, begins: int, ends: int, expected: str) -> None:
    tls = node / "n" / "tls"
    good = x509.load_pem_x509_certificate((tls / "cert.pem").read_bytes())
    signer = serialization.load_pem_private_key((node / "pki" / "ca-key.pem").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(good.subject)
        .issuer_name(good.issuer)
        .public_key(good.public_key())  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begins))
        .not_valid_after(now + timedelta(days=ends))
        .sign(signer, hashes.SHA256())
    )
    (tls / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    assert expected in fault(node)


def test_a_missing_state_folder_and_a_foreign_one_are_named(node: Path) -> None:
    state = node / "n" / "state"
    (state / "node.json").write_text((state / "node.json").read_text().replace("kme-a", "kme-z"))
    assert "is 'kme-z'" in fault(node)
    (state / "node.json").unlink()
    assert "is no state folder of a node" in fault(node)


def test_an_old_revocation_list_is_named(node: Path) -> None:
    openqci(node, "pki", "revoke", "pki")
    config = node / "n" / "kme.toml"
    config.write_text(
        config.read_text().replace("[listen]", 'revocation_lists = ["../pki/crl.pem"]\n\n[listen]')
    )
    assert all(result["good"] for result in check(node))
    (node / "pki" / "crl.pem").write_text("no list")
    assert "is no revocation list" in fault(node)
