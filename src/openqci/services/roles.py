"""Who may do what at a node: roles, read from certificates alone (invariant I6).

A certificate names its holder by a URI, ``urn:openqci:<role>:<ID>``, in its subject alternative names, once.
Certificates of other authorities, which know no such URIs, are given a role by the node's configuration,
which names them by the SHA-256 of their DER form. Nobody has two roles: an application's certificate does
not open the peer or operator interface, nor the reverse.
"""

from enum import StrEnum
from urllib.parse import unquote

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from openqci.core.errors import RequestRefused

URN_PREFIX = "urn:openqci:"


class Role(StrEnum):
    """The roles of a node. The value is the word in the URI."""

    SAE = "sae"
    KME = "kme"
    QKD_MODULE = "module"
    OPERATOR = "operator"
    SECURITY_OFFICER = "security-officer"
    AUDITOR = "auditor"
    CONTROLLER = "controller"
    ORCHESTRATOR = "orchestrator"


MAY_LOOK = frozenset({Role.OPERATOR, Role.SECURITY_OFFICER, Role.AUDITOR})
"""Who may read status, metrics and alarms."""

SERVERS = frozenset({Role.CONTROLLER, Role.ORCHESTRATOR})
"""Who is called by others, beside KMEs: their certificates name hosts."""

MAY_RUN = frozenset({Role.OPERATOR})
MAY_DESTROY = frozenset({Role.SECURITY_OFFICER})
MAY_AUDIT = frozenset({Role.AUDITOR, Role.SECURITY_OFFICER})


class Holder(msgspec.Struct, frozen=True):
    """Who holds a certificate."""

    role: Role
    name: str
    certificate_sha256: str


def holder_of(certificate_der: bytes, mapped: dict[str, tuple[Role, str]] | None = None) -> Holder | None:
    """Return who a verified certificate names, or None if it names nobody or several.

    ``mapped`` gives role and name by the certificate's SHA-256 in hex, and comes first.
    """
    certificate = x509.load_der_x509_certificate(certificate_der)
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
    if mapped and fingerprint in mapped:
        return Holder(*mapped[fingerprint], fingerprint)
    named = {found for uri in _uris(certificate) if (found := parse_role_uri(uri)) is not None}
    if len(named) != 1:
        return None
    ((role, name),) = named
    return Holder(role, name, fingerprint)


def allowed(
    certificate_der: bytes | None, roles: frozenset[Role], mapped: dict[str, tuple[Role, str]] | None = None
) -> Holder:
    """Return who calls, if that one has one of the roles; else RequestRefused, which says what it has."""
    holder = holder_of(certificate_der, mapped) if certificate_der else None
    if holder is not None and holder.role in roles:
        return holder
    wanted = " or ".join(sorted(role.value for role in roles))
    has = f"is of {holder.role.value} {holder.name}" if holder is not None else NAMES_NOBODY
    raise RequestRefused(401, f"this needs a certificate with the role {wanted}; that of the caller {has}")


NAMES_NOBODY = "names nobody: expected one URI urn:openqci:ROLE:NAME among its alternative names"


def parse_role_uri(uri: str) -> tuple[Role, str] | None:
    """Return role and name of a URI of ours, or None.

    >>> parse_role_uri("urn:openqci:operator:ana")
    (<Role.OPERATOR: 'operator'>, 'ana')
    >>> parse_role_uri("urn:example:operator:ana")
    """
    if not uri.startswith(URN_PREFIX):
        return None
    word, separator, name = uri.removeprefix(URN_PREFIX).partition(":")
    if not separator or not name or word not in Role._value2member_map_:
        return None
    return Role(word), unquote(name)


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)
