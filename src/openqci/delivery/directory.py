"""Which secure application entity (SAE) is enrolled at which KME, and with which certificate."""

import re

import msgspec

from openqci.core.errors import ConfigurationError, Fault
from openqci.core.identifiers import KmeId, SaeId, SiteId
from openqci.keystore.ports import StoreTransaction

DIRECTORY = KmeId("*")
"""The rooms of the store that all KMEs of a data directory share; they hold documents, never key."""

SAE = "sae"

SAE_ID_FORM = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]{1,64}")
"""1 to 64 characters that RFC 3986 allows in a URI: an ID valid for ETSI GS QKD 020 too."""


class SaeRecord(msgspec.Struct, frozen=True):
    """An enrolled SAE. ``credentials_dir`` is where enrolment put its certificate, for ``openqci key``."""

    sae_id: SaeId
    site_id: SiteId
    kme_id: KmeId
    certificate_sha256: str
    credentials_dir: str
    enrolled_at_s: float


def check_sae_id(text: str) -> SaeId:
    """Return the ID, or raise ConfigurationError that says which IDs are allowed."""
    if not SAE_ID_FORM.fullmatch(text):
        raise ConfigurationError(
            Fault(
                "--id",
                "",
                f"{text!r} is no SAE ID: expected 1 to 64 of A-Z a-z 0-9 -._~:/?#[]@!$&'()*+,;=%",
            )
        )
    return SaeId(text)


def enrol(transaction: StoreTransaction, record: SaeRecord) -> None:
    """Write an SAE into the directory. Raises ConfigurationError if the ID is enrolled already."""
    existing = enrolled_sae(transaction, record.sae_id)
    if existing is not None:
        raise ConfigurationError(
            Fault(
                "--id",
                "",
                f"SAE {record.sae_id!r} is enrolled already, at site {existing.site_id!r}; choose another ID",
            )
        )
    transaction.put_record(DIRECTORY, SAE, record.sae_id, msgspec.json.encode(record))


def enrolled_sae(transaction: StoreTransaction, sae_id: str) -> SaeRecord | None:
    """Return the SAE's record, or None."""
    body = transaction.record(DIRECTORY, SAE, sae_id)
    return None if body is None else msgspec.json.decode(body, type=SaeRecord)


def enrolled_saes(transaction: StoreTransaction) -> list[SaeRecord]:
    """Return all enrolled SAEs, in order of ID."""
    return [msgspec.json.decode(body, type=SaeRecord) for _, body in transaction.records(DIRECTORY, SAE)]
