"""The authority after an accident: nothing that was certified is silently certified by somebody else."""

from pathlib import Path

import pytest

from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import KmeId
from openqci.services.pki import CertificateAuthority

KME = KmeId("kme-lisbon")


def test_an_authority_that_lost_its_certificate_is_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    """A new authority would overwrite the old one's key, and every enrolled application would be shut out."""
    CertificateAuthority.open_or_create(tmp_path).issue_kmes([KME])
    key = (tmp_path / "ca-key.pem").read_bytes()
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(ConfigurationError, match=r"ca\.pem: cannot be read"):
        CertificateAuthority.open_or_create(tmp_path)
    assert (tmp_path / "ca-key.pem").read_bytes() == key


def test_a_start_that_was_cut_off_between_the_two_files_begins_again(tmp_path: Path) -> None:
    CertificateAuthority.open_or_create(tmp_path)
    (tmp_path / "ca.pem").unlink()
    CertificateAuthority.open_or_create(tmp_path)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_kme_file_that_is_not_whole_is_issued_anew(tmp_path: Path, kept: float) -> None:
    authority = CertificateAuthority.open_or_create(tmp_path)
    file = authority.issue_kmes([KME])[KME]
    content = file.read_bytes()
    assert authority.issue_kmes([KME])[KME].read_bytes() == content
    file.write_bytes(content[: int(kept * len(content))])
    assert len(authority.issue_kmes([KME])[KME].read_bytes()) > 0.9 * len(content)
    assert file.read_bytes() != content
