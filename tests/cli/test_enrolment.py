"""Enrolment with something in its way: a moved folder, another's folder, another enrolment, a power loss."""

import json
from pathlib import Path

import pytest

from openqci.cli.sae import enrol
from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import SaeId, SiteId
from openqci.delivery import SaeRecord
from openqci.services.pki import CertificateAuthority, IssuedCertificate
from tests.cli.test_sae_and_key import Network, network, openqci
from tests.delivery.make import LISBON

__all__ = ["network"]


def test_a_folder_that_was_moved_is_still_the_application_s(
    network: Network, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A data directory may be moved: the scenario's own applications are found in it again."""
    arguments = ("sae", "enrol", "--site", "lisbon", "--id", "mover", "--out")
    assert openqci(network, *arguments, tmp_path / "here") == 0
    certificate = (tmp_path / "here" / "cert.pem").read_bytes()
    (tmp_path / "here").rename(tmp_path / "there")
    assert openqci(network, *arguments, tmp_path / "there") == 0
    assert (tmp_path / "there" / "cert.pem").read_bytes() == certificate
    capsys.readouterr()
    assert openqci(network, "sae", "list", "--json") == 0
    rows = {row["sae_id"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["mover"]["credentials_dir"] == str(tmp_path / "there")


def test_another_application_s_credentials_are_not_overwritten(
    network: Network, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert openqci(network, "sae", "enrol", "--site", "lisbon", "--id", "owner", "--out", tmp_path) == 0
    key = (tmp_path / "key.pem").read_bytes()
    assert openqci(network, "sae", "enrol", "--site", "lisbon", "--id", "intruder", "--out", tmp_path) == 2
    assert "holds the credentials of SAE 'owner'" in capsys.readouterr().err
    assert (tmp_path / "key.pem").read_bytes() == key


def test_of_two_enrolments_at_once_one_is_told(network: Network, tmp_path: Path) -> None:
    """Else the first would be told that it is enrolled, and its certificate would open nothing."""
    sae_id, site, kme = SaeId("twice"), SiteId("lisbon"), LISBON
    authority = CertificateAuthority.open(network.directory.pki_dir)
    other = network.open_store()
    first: list[SaeRecord] = []

    class Slow(CertificateAuthority):
        def issue_sae(self, sae_id: SaeId) -> IssuedCertificate:
            first.append(enrol(other, authority, sae_id, site, kme, tmp_path / "first"))
            return super().issue_sae(sae_id)

    try:
        with pytest.raises(ConfigurationError, match="just been enrolled"):
            enrol(network.store, Slow.open(network.directory.pki_dir), sae_id, site, kme, tmp_path / "second")
        assert enrol(other, authority, sae_id, site, kme, tmp_path / "first") == first[0]
    finally:
        other.close()


def test_credentials_that_a_power_loss_emptied_are_issued_again(network: Network, tmp_path: Path) -> None:
    arguments = ("sae", "enrol", "--site", "lisbon", "--id", "emptied", "--out", tmp_path)
    assert openqci(network, *arguments) == 0
    (tmp_path / "cert.pem").write_bytes(b"")
    assert openqci(network, *arguments) == 0
    assert (tmp_path / "cert.pem").read_bytes().startswith(b"-----BEGIN CERTIFICATE")
