"""From ``kme.toml`` and the domain's configuration to the borders of a node: partners, ways, TLS, agreements.

Who may speak as a partner: its certificate names its KME ID, is issued directly by an authority of the file
that its ``[[partner]]`` section names (so that one partner's authority cannot make another's certificate),
holds now, and is on none of its revocation lists.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cryptography import x509

from openqci.control.agreements import Agreement
from openqci.control.configuration import Border, DomainConfiguration, Reach
from openqci.core.identifiers import KmeId, SaeId
from openqci.delivery.etsi020_model import ACK_PATH
from openqci.delivery.etsi020_rules import Partner, Timing, Ways
from openqci.delivery.transfers import HERE, Neighbour, Side
from openqci.services.kme_config import AgreementSection, LoadedConfig, PartnerSection
from openqci.services.kme_config_faults import start_of_day_s
from openqci.services.pki import issued_by_one, kme_identity, read_certificates
from openqci.services.tls import TlsFiles, read_revocation_list

DAY_S = 86_400.0
TROUBLE_S = 60.0
"""How long a neighbour at which a key has failed comes last."""


def agreement_of(section: AgreementSection) -> Agreement:
    """Return a section as an agreement; its last day counts whole."""
    begins = start_of_day_s(section.valid_from) if section.valid_from is not None else None
    ends = start_of_day_s(section.valid_until) if section.valid_until is not None else None
    return Agreement(
        name=section.name,
        valid_from_s=begins or 0.0,
        valid_until_s=ends + DAY_S if ends is not None else 0.0,
        quota_bytes=section.quota_bytes,
        window_s=section.window_s,
        emergency=section.emergency,
        priority=section.priority,
        price_eur_per_mib=section.price_eur_per_mib,
    )


def agreements_of(loaded: LoadedConfig) -> tuple[Agreement, ...]:
    """Return all agreements of a node."""
    return tuple(map(agreement_of, loaded.config.agreement))


def partners_of(loaded: LoadedConfig) -> dict[KmeId, Partner]:
    """Return the partners of a node with what is agreed with each."""
    agreements = {each.name: each for each in agreements_of(loaded)}
    found = {}
    for section in loaded.config.partner:
        agreement = agreements.get(section.agreement or "", Agreement(name=section.agreement or ""))
        kme = KmeId(section.kme_id)
        found[kme] = Partner(
            kme,
            section.domain,
            tuple(section.callback_urls) or (section.url.rstrip("/") + ACK_PATH,),
            section.own_callback_url,
            agreement.terms(),
            section.draft,
            section.pending_max,
            section.targets_max,
        )
    return found


def timing_of(loaded: LoadedConfig) -> Timing:
    """Return how long things are tried, as ``[etsi020]`` and ``[demand]`` say."""
    section = loaded.config.etsi020
    if section is None:
        return Timing()
    return Timing(
        transfer_s_max=section.transfer_s_max,
        ack_wait_s=section.ack_wait_s,
        ack_s_max=section.ack_s_max,
        retry_s_max=section.retry_s_max,
        retry_s_min=min(Timing().retry_s_min, section.retry_s_max),
        keep_s=section.keep_s,
        collect_s=loaded.config.demand.collect_s,
    )


def ways_of(
    loaded: LoadedConfig,
    domain: Callable[[], DomainConfiguration | None] = lambda: None,
    *,
    inside: bool = False,
) -> Ways:
    """Return how this node finds the next neighbours on the way to an application.

    What ``kme.toml`` says comes first, then the domain's configuration as it is at that moment. ``inside``
    tells that keys can be carried to other KMEs of this network.
    """
    partners = {partner.kme_id: partner for partner in loaded.config.partner}

    def to_kme(kme: str) -> list[Neighbour]:
        if kme == loaded.kme_id:
            return [HERE]
        return [Neighbour(Side.KME, KmeId(kme))] if inside else []

    def by(name: str) -> list[Neighbour]:
        return [Neighbour(Side.PARTNER, KmeId(name))] if name in partners else to_kme(name)

    def ways(sae: SaeId) -> list[Neighbour] | None:
        home = loaded.kme_of(sae)
        if home is not None:
            return to_kme(home)
        remote = loaded.remote_of(sae)
        if remote is not None:
            return [neighbour for name in remote.via for neighbour in by(name)]
        configuration = domain()
        if configuration is None:
            return None
        home = configuration.kme_of(sae)
        if home is not None:
            return to_kme(home)
        reach = configuration.reach_of(sae)
        return [each for gate in gates(configuration, reach) for each in gate] if reach is not None else None

    def gates(configuration: DomainConfiguration, reach: Reach) -> Iterator[list[Neighbour]]:
        """Yield the neighbours towards another domain: own partners at borders, or KMEs that have some."""
        for border in _gates(configuration, reach):
            if border.kme_id != loaded.kme_id:
                yield to_kme(border.kme_id)
            elif border.partner_kme in partners:
                yield [Neighbour(Side.PARTNER, KmeId(border.partner_kme))]

    return ways


def _gates(configuration: DomainConfiguration, reach: Reach) -> list[Border]:
    """Return the borders that lead to another domain, the preferred one first."""
    at_gates = [border for gate in reach.borders for border in configuration.borders if border.kme_id == gate]
    if reach.via:
        at_gates = [border for border in at_gates if border.partner_domain in reach.via]
        return sorted(at_gates, key=lambda border: reach.via.index(border.partner_domain))
    # The domain itself, if it is right behind a border, before those that lead there.
    return sorted(at_gates, key=lambda border: border.partner_domain != reach.domain)


@dataclass(frozen=True)
class Remote:
    """Where an application of another network is, and whether its KME takes whole batches."""

    domain: str
    batches: bool = True


def remote_of(loaded: LoadedConfig, configuration: DomainConfiguration | None, sae: SaeId) -> Remote | None:
    """Return what ``kme.toml``, else the domain's configuration, says of an application elsewhere."""
    section = loaded.remote_of(sae)
    if section is not None:
        return Remote(section.domain, section.batches)
    if configuration is None or loaded.kme_of(sae) is not None:
        return None
    reach = configuration.reach_of(sae)
    return Remote(reach.domain) if reach is not None else None


class Troubles:
    """Remembers which neighbours a key has failed at lately: they come last until that is over."""

    def __init__(self, ways: Ways, now_s: Callable[[], float]) -> None:
        self._ways, self._now_s = ways, now_s
        self._until_s: dict[Neighbour, float] = {}

    def note(self, neighbour: Neighbour, *, failed: bool) -> None:
        """Note how a key has ended at a neighbour."""
        if failed:
            self._until_s[neighbour] = self._now_s() + TROUBLE_S
        else:
            self._until_s.pop(neighbour, None)

    def ways(self, sae: SaeId) -> list[Neighbour] | None:
        """Return the next neighbours on the way to an application, those in trouble last."""
        found, now_s = self._ways(sae), self._now_s()
        if found is None:
            return None
        return sorted(dict.fromkeys(found), key=lambda each: now_s < self._until_s.get(each, 0.0))


def border_files(loaded: LoadedConfig) -> TlsFiles:
    """Return the TLS files of the listener for partners: TLS 1.3, the authorities of all of them."""
    own = replace(loaded.tls_files(), revocation_lists=(), minimum_version="1.3")
    authorities = [loaded.path(partner.authority) for partner in loaded.config.partner]
    return replace(own, authority=authorities[0], more_authorities=tuple(authorities[1:]))


def partner_files(loaded: LoadedConfig, section: PartnerSection) -> TlsFiles:
    """Return the TLS files for calling a partner."""
    own = loaded.tls_files()
    lists = tuple(map(loaded.path, section.revocation_lists))
    return TlsFiles(own.certificate, own.key, loaded.path(section.authority), lists, "1.3")


@dataclass(frozen=True)
class _Known:
    kme: KmeId
    issuers: tuple[x509.Certificate, ...]
    lists: tuple[x509.CertificateRevocationList, ...]


class PartnerCertificates:
    """Tells which partner a certificate is of. :meth:`read` reads authorities and revocation lists again."""

    def __init__(self, loaded: LoadedConfig) -> None:
        self._loaded = loaded
        self._known: tuple[_Known, ...] = ()
        self.read()

    def read(self) -> None:
        """Read the files; ConfigurationError, and all stays as it was, if one cannot be used."""
        self._known = tuple(
            _Known(
                KmeId(section.kme_id),
                tuple(read_certificates(self._loaded.path(section.authority))),
                tuple(read_revocation_list(self._loaded.path(file)) for file in section.revocation_lists),
            )
            for section in self._loaded.config.partner
        )

    def partner_of(self, certificate_der: bytes) -> KmeId | None:
        """Return whose certificate this is, or None."""
        certificate = x509.load_der_x509_certificate(certificate_der)
        names = kme_identity(certificate_der)
        found = [
            known.kme
            for known in self._known
            if known.kme in names and issued_by_one(certificate, known.issuers) and _holds(certificate, known)
        ]
        return found[0] if len(found) == 1 else None

    def refuses(self, certificate_der: bytes) -> bool:
        """Tell whether a certificate is no partner's: its connection is closed."""
        return self.partner_of(certificate_der) is None


def _holds(certificate: x509.Certificate, known: _Known) -> bool:
    if datetime.now(UTC) > certificate.not_valid_after_utc:
        return False
    return not any(
        each.issuer == certificate.issuer
        and each.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
        for each in known.lists
    )
