"""Who the applications (SAEs) are: at which KME each is enrolled, and with which certificate.

The directory is shared by all KMEs of a network and holds no secret: records of kind ``sae`` in rooms of
their own. It does not issue certificates; see ``openqci.services.pki``.
"""

import re
from collections.abc import Iterator

import msgspec

from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import KmeId, SaeId, SiteId
from openqci.keystore.ports import KmeView, StoreTransaction

DIRECTORY_ROOMS = KmeId("*")
SAE_KIND = "sae"
SAE_ID_CHARACTERS_MAX = 64

# RFC 3986, 2: unreserved, reserved, and percent-encoded octets.
_SAE_ID = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+", re.ASCII)


class PeerIdentity(msgspec.Struct, frozen=True):
    """What a verified client certificate says: the SAE ID in it and the SHA-256 of its DER form, in hex."""

    sae_id: SaeId
    certificate_sha256: str


class SaeRecord(msgspec.Struct, frozen=True):
    """One enrolled application. ``credentials_dir`` is where its certificate was written.

    Without a ``certificate_sha256`` any certificate of the authority that names the application will do.
    """

    sae_id: SaeId
    site_id: SiteId
    kme_id: KmeId
    certificate_sha256: str
    credentials_dir: str
    enrolled_at_s: float


class SaeDirectory:
    """The applications of a network, inside one transaction."""

    def __init__(self, transaction: StoreTransaction) -> None:
        self._rooms = KmeView(transaction, DIRECTORY_ROOMS)

    def sae(self, sae_id: SaeId) -> SaeRecord | None:
        """Return an application, or None."""
        body = self._rooms.record(SAE_KIND, sae_id)
        return msgspec.json.decode(body, type=SaeRecord) if body is not None else None

    def saes(self) -> Iterator[SaeRecord]:
        """Return all applications in order of their IDs."""
        for _, body in self._rooms.records(SAE_KIND):
            yield msgspec.json.decode(body, type=SaeRecord)

    def enrol(self, record: SaeRecord) -> None:
        """Enter an application; a new certificate of the same one replaces the old.

        Raises ConfigurationError if the ID belongs to an application of another site: an SAE ID is unique
        in the whole network (ETSI GS QKD 014 V1.1.1, 5.1), or keys would go to the wrong one.
        """
        known = self.sae(record.sae_id)
        if known is not None and known.site_id != record.site_id:
            raise ConfigurationError(
                f"SAE {record.sae_id!r} is already enrolled at {known.site_id}; choose another --id"
            )
        self._rooms.put_record(SAE_KIND, record.sae_id, msgspec.json.encode(record))

    def remove(self, sae_id: SaeId) -> bool:
        """Shut an application out: from now on its requests get 401. Tell whether it was enrolled."""
        return self._rooms.drop_record(SAE_KIND, sae_id)


def parse_sae_id(text: str) -> SaeId:
    """Return a well-formed SAE ID (the rule of ETSI GS QKD 020, so that an ID is valid in both).

    Raises ConfigurationError for anything but 1 to 64 characters that a URI may have.
    """
    if len(text) > SAE_ID_CHARACTERS_MAX or not _SAE_ID.fullmatch(text):
        raise ConfigurationError(
            f"SAE ID {text[:80]!r} is not valid; expected 1 to 64 of the characters of a URI (RFC 3986): "
            "letters, digits and -._~:/?#[]@!$&'()*+,;= or %XX"
        )
    return SaeId(text)
