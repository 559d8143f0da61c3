"""What ``kme.toml`` says: the configuration of one key management entity, checked before anything is opened.

The structures here are the schema (published as ``docs/reference/kme-config.schema.json``): every key with a
quantity has its unit in its name, unknown keys are refused, and all faults are named at once, each with file,
place and what was expected there. Paths are relative to the file's folder.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from openqci.core.identifiers import KmeId, SaeId
from openqci.delivery.agreement import range_bytes
from openqci.delivery.etsi004 import StreamLimits
from openqci.delivery.etsi014_model import Profile
from openqci.delivery.supply import BATCH_KEY_BYTES_MIN, PairDemand
from openqci.keystore.supply import SourceReport
from openqci.services.tls import TlsFiles

CONFIG_VERSION = 1
WORKERS_MAX = 64
"""Each worker has a connection to PostgreSQL, which takes 100 unless it is told otherwise."""

Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""KME and link IDs: what may stand in a stream's name, a URL and a file name."""

SaeText = Annotated[str, Meta(min_length=1, max_length=64)]
PathText = Annotated[str, Meta(min_length=1)]
Address = Annotated[str, Meta(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$")]
Url = Annotated[str, Meta(pattern=r"^https://[^\s]+$")]
Day = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
Seconds = Annotated[float, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
KeySize = Annotated[int, Meta(ge=64, le=65536, multiple_of=8)]
Count = Annotated[int, Meta(ge=0)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file."""


class NodeSection(Section, frozen=True, kw_only=True):
    """``[node]``: who this KME is, where it keeps its state, and what it may be used for.

    A ``production`` node refuses key of simulated sources (invariant I7); a ``laboratory`` node takes it and
    says so in the provenance of every key. With several ``workers``, so many processes beside the first serve
    the applications (ETSI GS QKD 014 and SKIP); that takes a store in PostgreSQL.
    """

    kme_id: Name
    state_dir: PathText
    mode: Literal["production", "laboratory"] = "production"
    workers: Annotated[int, Meta(ge=1, le=WORKERS_MAX)] = 1


class TlsSection(Section, frozen=True, kw_only=True):
    """``[tls]``: this KME's certificate and key, whom it trusts, and revocation lists (all PEM)."""

    certificate: PathText
    key: PathText
    authority: PathText
    revocation_lists: list[PathText] = []
    minimum_version: Literal["1.2", "1.3"] = "1.2"


class ListenSection(Section, frozen=True, kw_only=True):
    """``[listen]``: where each interface is served; an interface without an address is not served."""

    sae: Address
    peer: Address
    operator: Address = "127.0.0.1:9443"
    skip: Address | None = None
    skip_psk: Address | None = None
    etsi004: Address | None = None
    module: Address | None = None
    etsi020: Address | None = None
    etsi015: Address | None = None


class StoreSection(Section, frozen=True, kw_only=True):
    """``[store]``: SQLite in the state folder, or a schema of the PostgreSQL database in ``url_file``.

    The address is in a file of its own (mode 0600), because it holds a password.
    """

    kind: Literal["sqlite", "postgresql"] = "sqlite"
    url_file: PathText | None = None
    schema_name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,62}$")] = "openqci"


class KekSection(Section, frozen=True, kw_only=True):
    """``[kek]``: where the key-encryption key of the store is, and how often it is renewed, with root keys.

    ``pkcs11`` keeps it in a token: ``module`` is the maker's library, ``token`` the token's label. 0 hours
    means that keys are renewed by ``openqci kme renew`` alone.
    """

    kind: Literal["file", "pkcs11"] = "file"
    module: PathText | None = None
    token: Annotated[str, Meta(min_length=1, max_length=32)] | None = None
    pin_file: PathText | None = None
    renew_every_h: Annotated[float, Meta(ge=0)] = 24.0


class Etsi014Section(Section, frozen=True, kw_only=True):
    """``[etsi014]``: what ETSI GS QKD 014 leaves to a KME, and switches for applications made for another.

    ``sae_id_from`` says where a certificate names its SAE: ``uri`` (else the common name), ``dns`` or ``cn``.
    Without ``leases_per_sae_max`` no leases are offered.
    """

    key_size_bits: KeySize = 256
    key_size_bits_min: KeySize = 64
    key_size_bits_max: KeySize = 4096
    keys_per_request_max: Annotated[int, Meta(ge=1, le=1024)] = 128
    additional_slaves_max: Annotated[int, Meta(ge=0, le=15)] = 15
    sae_id_from: Literal["uri", "dns", "cn"] = "uri"
    unknown_key_status: Literal[400, 404] = 400
    insufficient_status: Literal[503, 400, 404] = 503
    optional_unhandled: Literal["ignore", "refuse"] = "ignore"
    strict: bool = False
    leases_per_sae_max: Annotated[int, Meta(ge=0, le=256)] = 16
    lease_keys_max: Annotated[int, Meta(ge=1, le=16_384)] = 1024
    lease_ttl_s_max: Annotated[int, Meta(ge=1, le=86_400)] = 900

    def profile(self) -> Profile:
        """Return it for the delivery."""
        members = msgspec.structs.asdict(self)
        return Profile(**{name: members[name] for name in Profile.__struct_fields__})


class SkipSection(Section, frozen=True, kw_only=True):
    """``[skip]``: the key provider interface for encryptors.

    ``without_forward_secrecy`` also offers the TLS suite 0x00A9, the only one of some routers.
    """

    remote_systems: list[str] = []
    without_forward_secrecy: bool = False


class Etsi004Section(Section, frozen=True, kw_only=True):
    """``[etsi004]``: what key streams are granted. Sizes in bytes, as in ETSI GS QKD 004.

    ``reserved_bps_max`` is what all streams to one peer together may ask for as ``Min_bps``.
    """

    chunk_bytes_max: Annotated[int, Meta(ge=32, le=16384)] = 16_384
    ttl_s_default: Positive = 3_600
    ttl_s_max: Positive = 86_400
    timeout_ms_max: Annotated[int, Meta(ge=1, le=600_000)] = 60_000
    reserved_bps_max: Count = 10_000
    streams_per_sae_max: Positive = 64

    def limits(self) -> StreamLimits:
        """Return it for the delivery."""
        return StreamLimits(**msgspec.structs.asdict(self))


class Etsi015Section(Section, frozen=True, kw_only=True):
    """``[etsi015]``: what controllers of software-defined networks are told (ETSI GS QKD 015).

    ``location`` is that of the secure area, as ``qkdn_location_id``. ``teraflow`` answers callers that do not
    ask for YANG data in the form that TeraFlowSDN's driver reads.
    """

    location: str = ""
    teraflow: bool = False


class SaeSection(Section, frozen=True, kw_only=True):
    """``[[sae]]``: an application that is served here. ``certificate_sha256`` pins its certificate."""

    id: SaeText
    certificate_sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None = None
    priority: Annotated[int, Meta(ge=0, le=7)] = 3
    quota_bps: Positive | None = None
    quota_burst_bytes: Positive | None = None
    psk_identity: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    psk_file: PathText | None = None


class PeerSection(Section, frozen=True, kw_only=True):
    """``[[peer]]``: another KME that links lead to, and the applications that are served there."""

    kme_id: Name
    url: Url
    saes: list[SaeText] = []


class SourceSection(Section, frozen=True, kw_only=True):
    """What every kind of source has: files for the module (PEM), and what its operator knows of its key."""

    certificate: PathText
    key: PathText
    authority: PathText
    protocol: str = "unknown"
    proof: str = "stated by the module's maker"
    epsilon: Annotated[float, Meta(gt=0, le=1)] = 1e-9
    simulated: bool = False

    def report(self) -> SourceReport:
        """Return what is known of its key before the module itself has said anything."""
        return SourceReport(self.protocol, self.proof, self.epsilon, self.simulated)


class Source014Section(SourceSection, frozen=True, kw_only=True):
    """``[link.etsi014]``: the QKD module's KME, of which this node is an SAE (ETSI GS QKD 014)."""

    url: Url
    peer_sae_id: SaeText
    kme_id: str | None = None


class Source004Section(SourceSection, frozen=True, kw_only=True):
    """``[link.etsi004]``: the QKD module's key stream server, of which this node is an application.

    ``source``, ``destination`` and ``chunk_bytes`` are the same at both ends of the link.
    """

    address: Address
    source: Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"^[!-~]+$")]
    destination: Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"^[!-~]+$")]
    chunk_bytes: Annotated[int, Meta(ge=8, le=65536)] = 1024
    server_name: str | None = None


class SourcePushSection(SourceSection, frozen=True, kw_only=True):
    """``[link.etsi004_push]``: a QKD module that pushes its key to this node's ``[listen] module``.

    ``module`` is its name in the certificate that it pushes with (role ``module``). ``source``,
    ``destination`` and ``chunk_bytes`` are the same at both ends of the link.
    """

    module: SaeText
    url: Url
    source: Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"^[!-~]+$")]
    destination: Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"^[!-~]+$")]
    chunk_bytes: Annotated[int, Meta(ge=1, le=65536)] = 32
    server_name: str | None = None


AnySource = Source014Section | Source004Section | SourcePushSection


class LinkSection(Section, frozen=True, kw_only=True):
    """``[[link]]``: one QKD link to a peer. The end that ``leads`` draws key and names it to the other.

    ``rate_bps`` is the secret key rate that the link can be counted on to bring, for both ends together.
    """

    id: Name
    peer: Name
    leads: bool
    etsi014: Source014Section | None = None
    etsi004: Source004Section | None = None
    etsi004_push: SourcePushSection | None = None
    low_bytes: Positive = 256 * 1024
    high_bytes: Positive = 2 * 1024 * 1024
    rate_bps: Positive | None = None

    @property
    def sources(self) -> dict[str, AnySource]:
        """The sources that the section names, by kind; a sound one has exactly one."""
        named = {"etsi014": self.etsi014, "etsi004": self.etsi004, "etsi004_push": self.etsi004_push}
        return {kind: source for kind, source in named.items() if source is not None}


class PairSection(Section, frozen=True, kw_only=True):
    """``[[pair]]``: a stock to keep filled, of a master here and slaves elsewhere, in keys of 256 bits.

    ``reserved_bps`` of key are guaranteed to it, before what a link has is shared.
    """

    master: SaeText
    slaves: Annotated[list[SaeText], Meta(min_length=1, max_length=16)]
    low_keys: Positive = 1_000
    high_keys: Positive = 4_000
    ttl_s: Seconds = 86_400.0
    reserved_bps: Count = 0


class BorderSection(Section, frozen=True, kw_only=True):
    """``[etsi020]``: this KME at the borders of its network, ``domain``.

    ``synchronous`` also answers requests without a callback URL. A key that is on its way for longer than
    ``transfer_s_max`` is given up and voided; so is one whose acknowledgement nobody takes for ``ack_s_max``.
    """

    domain: Name
    synchronous: bool = False
    transfer_s_max: Annotated[float, Meta(ge=1)] = 300.0
    ack_wait_s: Annotated[float, Meta(ge=0.1)] = 30.0
    ack_s_max: Annotated[float, Meta(ge=1)] = 600.0
    retry_s_max: Annotated[float, Meta(ge=0.1)] = 60.0
    keep_s: Annotated[float, Meta(ge=1)] = 86_400.0


class PartnerSection(Section, frozen=True, kw_only=True):
    """``[[partner]]``: a KME of another network in the same site, spoken with by ETSI GS QKD 020.

    ``authority`` signs its certificates, and no other's. ``url`` is everything before ``/kmapi``;
    acknowledgements go to ``callback_urls`` alone. ``own_callback_url`` is where it sends its own to us.
    """

    kme_id: Name
    domain: Name
    url: Url
    authority: PathText
    own_callback_url: Url
    callback_urls: list[Url] = []
    revocation_lists: list[PathText] = []
    server_name: str | None = None
    draft: bool = False
    agreement: SaeText | None = None
    pending_max: Positive = 4_096
    targets_max: Annotated[int, Meta(ge=1, le=64)] = 16


class AgreementSection(Section, frozen=True, kw_only=True):
    """``[[agreement]]``: what is agreed with a partner about the keys that it sends through this network.

    Days are as in ``2026-12-31``, the first of validity and the last; none means no end. ``quota_bytes``
    may come in each window.
    """

    name: SaeText
    valid_from: Day | None = None
    valid_until: Day | None = None
    quota_bytes: Positive | None = None
    window_s: Annotated[float, Meta(ge=1)] = 86_400.0
    emergency: bool = False
    priority: Annotated[int, Meta(ge=0, le=7)] = 3
    price_eur_per_mib: Annotated[float, Meta(ge=0)] = 0.0


class RemoteSection(Section, frozen=True, kw_only=True):
    """``[[remote]]``: applications of another network, and the neighbours by way of whom they are reached.

    ``via`` names partners here, or KMEs of this network that have some, the preferred one first. With
    ``batches`` the KME there takes whole batches of key, as OpenQCI's do; else each key is sent by itself.
    """

    domain: Name
    saes: Annotated[list[SaeText], Meta(min_length=1)]
    via: Annotated[list[Name], Meta(min_length=1)]
    kme_id: Name | None = None
    batches: bool = True


class RoleSection(Section, frozen=True, kw_only=True):
    """``[[role]]``: the role of a certificate that does not say so itself (see ``openqci pki issue``)."""

    certificate: PathText
    role: Literal["operator", "security-officer", "auditor", "module", "controller"]
    name: SaeText


class DomainSection(Section, frozen=True, kw_only=True):
    """``[domain]``: the controller whose signed configuration this node goes by.

    ``signer`` is its certificate (PEM). ``configuration`` is a signed document in a file, read at the start
    and on SIGHUP; ``controller`` is where the node reports and asks for later ones.
    """

    signer: PathText
    configuration: PathText | None = None
    controller: Url | None = None


class LogSection(Section, frozen=True, kw_only=True):
    """``[log]``: lines of text, or one JSON object a line; and the least urgent level that is written."""

    format: Literal["text", "json"] = "text"
    level: Literal["error", "warning", "info"] = "warning"


class DemandSection(Section, frozen=True, kw_only=True):
    """``[demand]``: stocks of pairs that no ``[[pair]]`` names, kept while somebody asks for their keys."""

    low_keys: Positive = 64
    high_keys: Positive = 512
    ttl_s: Seconds = 3_600.0
    collect_s: Seconds = 300.0
    forget_after_s: Seconds = 3_600.0
    pairs_max: Positive = 5_000


class KmeConfig(Section, frozen=True, kw_only=True):
    """The whole file."""

    version: Literal[1]
    node: NodeSection
    tls: TlsSection
    listen: ListenSection
    store: StoreSection = StoreSection()
    kek: KekSection = KekSection()
    demand: DemandSection = DemandSection()
    log: LogSection = LogSection()
    etsi014: Etsi014Section = Etsi014Section()
    skip: SkipSection = SkipSection()
    etsi004: Etsi004Section = Etsi004Section()
    etsi015: Etsi015Section = Etsi015Section()
    sae: list[SaeSection] = []
    peer: list[PeerSection] = []
    link: list[LinkSection] = []
    pair: list[PairSection] = []
    role: list[RoleSection] = []
    domain: DomainSection | None = None
    etsi020: BorderSection | None = None
    partner: list[PartnerSection] = []
    agreement: list[AgreementSection] = []
    remote: list[RemoteSection] = []


@dataclass(frozen=True)
class LoadedConfig:
    """A checked configuration and the folder against which its paths are read."""

    file: Path
    config: KmeConfig

    @property
    def kme_id(self) -> KmeId:
        return KmeId(self.config.node.kme_id)

    @property
    def key_bytes(self) -> int:
        """The size of a key for which nobody asks another size."""
        return self.config.etsi014.key_size_bits // 8

    def path(self, text: str) -> Path:
        """Return a path of the file as an absolute one."""
        return (self.file.parent / text).absolute()

    @property
    def processes(self) -> int:
        """How many processes run the node and share its store."""
        workers = self.config.node.workers
        return 1 + workers if workers > 1 else 1

    @property
    def state_dir(self) -> Path:
        return self.path(self.config.node.state_dir)

    def tls_files(self) -> TlsFiles:
        """Return the files of ``[tls]``."""
        tls = self.config.tls
        return TlsFiles(
            self.path(tls.certificate),
            self.path(tls.key),
            self.path(tls.authority),
            tuple(map(self.path, tls.revocation_lists)),
            tls.minimum_version,
        )

    def kme_of(self, sae: SaeId) -> KmeId | None:
        """Return the KME at which an application is served, or None if no section names it."""
        if any(each.id == sae for each in self.config.sae):
            return self.kme_id
        return next((KmeId(peer.kme_id) for peer in self.config.peer if sae in peer.saes), None)

    def remote_of(self, sae: SaeId) -> RemoteSection | None:
        """Return what is said of an application of another network, or None."""
        return next((each for each in self.config.remote if sae in each.saes), None)

    def links_to(self, peer: KmeId) -> list[LinkSection]:
        """Return the links to a peer."""
        return [link for link in self.config.link if link.peer == peer]

    def reserved_bps(self, link: LinkSection) -> float:
        """Return what pairs reserve of a link, with what their batches spend beside the key."""
        legs = [
            pair.reserved_bps
            for pair in self.config.pair
            for slave in pair.slaves
            if (kme := self.kme_of(SaeId(slave))) is not None and self.links_to(kme)[:1] == [link]
        ]
        return sum(legs) * range_bytes(BATCH_KEY_BYTES_MIN) / BATCH_KEY_BYTES_MIN

    def demand_of(
        self, master: SaeId, slaves: tuple[SaeId, ...], low_keys: int, high_keys: int, ttl_s: float
    ) -> PairDemand | None:
        """Return the demand of a master here and its slaves; None if some slave is at no linked peer."""
        legs: list[tuple[SaeId, KmeId, str]] = []
        for slave in slaves:
            kme = self.kme_of(slave)
            links = self.links_to(kme) if kme is not None else []
            if kme is None or not links:
                return None
            legs.append((slave, kme, links[0].id))
        collect_s = min(self.config.demand.collect_s, ttl_s / 2)
        return PairDemand(
            master,
            tuple(legs),
            low_keys * 32,
            high_keys * 32,
            next((sae.priority for sae in self.config.sae if sae.id == master), 0),
            key_bytes=self.key_bytes,
            ttl_s=ttl_s,
            collect_s=collect_s,
        )


def host_and_port(address: str) -> tuple[str, int]:
    """Split an address of the file.

    >>> host_and_port("127.0.0.1:8443"), host_and_port("[::1]:0")
    (('127.0.0.1', 8443), ('::1', 0))
    """
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
