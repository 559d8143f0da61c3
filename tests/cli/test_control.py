"""``openqci control sign`` and ``show``: what one signs, the other reads, and nothing else."""

import json
from pathlib import Path

import pytest

from openqci.cli.main import main
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.roles import Role

DOMAIN = """
domain: AT
version: 3
nodes:
  - {kme_id: kme-a, saes: [bank.a]}
  - {kme_id: kme-b, saes: [bank.b]}
links:
  - {link_id: a--b, a: kme-a, b: kme-b, rate_bps: 10000}
"""


@pytest.fixture
def controller(tmp_path: Path) -> Path:
    authority = CertificateAuthority.open_or_create(tmp_path / "ca")
    folder = tmp_path / "controller"
    write_credentials(folder, authority.issue_holder(Role.OPERATOR, "controller"), authority)
    return folder


def test_a_signed_configuration_is_shown(
    tmp_path: Path, controller: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "domain.yaml").write_text(DOMAIN)
    file, signed = str(tmp_path / "domain.yaml"), str(tmp_path / "domain.json")
    assert main(["control", "sign", file, "--key", str(controller / "key.pem"), "--out", signed]) == 0
    assert "domain AT, version 3" in capsys.readouterr().out
    assert main(["control", "show", signed, "--signer", str(controller / "cert.pem")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [node["kme_id"] for node in shown["nodes"]] == ["kme-a", "kme-b"]
    assert shown["issued_s"] > 1.7e9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "neither YAML nor JSON"),
        ("- a", "expected a mapping"),
        ("domain: AT", "missing required field `version`"),
        (DOMAIN.replace("b: kme-b,", "b: kme-z,"), "kme-z"),
    ],
)
def test_what_is_no_configuration_is_not_signed(
    tmp_path: Path, controller: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (tmp_path / "domain.yaml").write_text(text)
    signed = tmp_path / "domain.json"
    words = ["control", "sign", str(tmp_path / "domain.yaml"), "--key", str(controller / "key.pem")]
    assert main([*words, "--out", str(signed)]) == 2
    assert said in capsys.readouterr().err
    assert not signed.exists()


def test_a_file_that_nobody_signed_is_not_shown(
    tmp_path: Path, controller: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "domain.json").write_text("{}")
    words = [str(tmp_path / "domain.json"), "--signer", str(controller / "cert.pem")]
    assert main(["control", "show", *words]) == 2
    assert "cannot be read" in capsys.readouterr().err
