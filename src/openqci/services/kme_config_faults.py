"""What contradicts itself in a ``kme.toml`` that fits the schema: all of it at once, each with its place.

A check yields pairs of a place and what is wrong there with what was expected; the file's name is added at
the end.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from openqci.core.errors import ConfigurationError, Fault
from openqci.core.identifiers import KmeId, SaeId
from openqci.delivery.admission import too_much_reserved
from openqci.delivery.directory import parse_sae_id
from openqci.services.kme_config import KmeConfig, LinkSection, LoadedConfig, PairSection

SOURCE_KINDS = "[link.etsi014], [link.etsi004] and [link.etsi004_push]"

Found = Iterator[tuple[str, str]]


def consistency_faults(loaded: LoadedConfig) -> list[Fault]:
    """Return what contradicts itself in a configuration that fits the schema."""
    config = loaded.config
    checks = (
        _border_faults(loaded),
        _names_that_occur_twice(config),
        _sae_faults(config),
        _link_faults(config),
        _key_encryption_faults(config),
        _store_faults(config),
        _interface_faults(config),
        _pair_faults(loaded),
        _over_committed_links(loaded),
    )
    return [Fault(str(loaded.file), place, message) for found in checks for place, message in found]


def _names_that_occur_twice(config: KmeConfig) -> Found:
    saes = [sae.id for sae in config.sae]
    saes += [sae for peer in config.peer for sae in peer.saes]
    saes += [sae for remote in config.remote for sae in remote.saes]
    kmes = [config.node.kme_id]
    kmes += [peer.kme_id for peer in config.peer]
    kmes += [partner.kme_id for partner in config.partner]
    pushes = [link.etsi004_push for link in config.link if link.etsi004_push is not None]
    yield from _repeated("sae", saes)
    yield from _repeated("peer", kmes)
    yield from _repeated("link", [link.id for link in config.link])
    yield from _repeated("link.etsi004_push.module", [push.module for push in pushes])


def _repeated(place: str, names: list[str], expected: str = "each ID once") -> Found:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield place, f"{name!r} occurs more than once; expected {expected}"


def _sae_faults(config: KmeConfig) -> Found:
    for number, sae in enumerate(config.sae):
        yield from _bad_sae_id(f"sae[{number}].id", sae.id)
        if (sae.psk_identity is None) != (sae.psk_file is None):
            yield f"sae[{number}]", "psk_identity and psk_file belong together"
        if sae.psk_identity is not None and sae.certificate_sha256 is not None:
            yield f"sae[{number}]", "has a pre-shared key and a pinned certificate; expected one of them"


def _bad_sae_id(place: str, text: str) -> Found:
    try:
        parse_sae_id(text)
    except ConfigurationError as error:
        yield place, str(error)


def _link_faults(config: KmeConfig) -> Found:
    peers = sorted({peer.kme_id for peer in config.peer})
    for number, link in enumerate(config.link):
        if link.peer not in peers:
            yield f"link[{number}].peer", f"{link.peer!r} is no [[peer]]; expected one of {peers}"
        if link.low_bytes > link.high_bytes:
            yield f"link[{number}].low_bytes", "is above high_bytes"
        yield from _source_faults(config, f"link[{number}]", link)


def _source_faults(config: KmeConfig, place: str, link: LinkSection) -> Found:
    if len(link.sources) != 1:
        what = "several sources" if link.sources else "no source"
        yield place, f"has {what}; expected one of {SOURCE_KINDS}"
    if link.etsi004_push is not None and config.listen.module is None:
        yield "listen.module", f"is missing; expected the address to which link {link.id!r} is pushed"
    for kind, source in link.sources.items():
        if source.simulated and config.node.mode == "production":
            yield (
                f"{place}.{kind}.simulated",
                'a production node refuses simulated sources; use mode = "laboratory" to try things out',
            )


def _key_encryption_faults(config: KmeConfig) -> Found:
    if config.kek.kind != "pkcs11":
        return
    for name in ("module", "token", "pin_file"):
        if getattr(config.kek, name) is None:
            expected = "a key-encryption key in a token needs module, token and pin_file"
            yield f"kek.{name}", f"is missing; {expected}"


def _store_faults(config: KmeConfig) -> Found:
    if config.node.workers > 1 and config.store.kind != "postgresql":
        yield (
            "node.workers",
            f"is {config.node.workers}, and the store is SQLite, which one process serves; expected 1, or "
            '[store] kind = "postgresql"',
        )
    if config.store.kind == "postgresql" and config.store.url_file is None:
        yield "store.url_file", "is missing; expected a file with the address of the PostgreSQL database"


def _interface_faults(config: KmeConfig) -> Found:
    if config.etsi004.ttl_s_default > config.etsi004.ttl_s_max:
        yield "etsi004.ttl_s_default", "is above ttl_s_max"
    sizes = config.etsi014
    if not sizes.key_size_bits_min <= sizes.key_size_bits <= sizes.key_size_bits_max:
        yield "etsi014.key_size_bits", "is not between key_size_bits_min and key_size_bits_max"


def _pair_faults(loaded: LoadedConfig) -> Found:
    local = {sae.id for sae in loaded.config.sae}
    for number, pair in enumerate(loaded.config.pair):
        if pair.master not in local:
            yield f"pair[{number}].master", f"{pair.master!r} is not served here; expected a [[sae]]"
        if pair.low_keys > pair.high_keys:
            yield f"pair[{number}].low_keys", "is above high_keys"
        yield from _slave_faults(loaded, f"pair[{number}]", pair)


def _slave_faults(loaded: LoadedConfig, place: str, pair: PairSection) -> Found:
    homes = [loaded.kme_of(SaeId(slave)) for slave in pair.slaves]
    remotes = [loaded.remote_of(SaeId(slave)) for slave in pair.slaves]
    for slave, kme, remote in zip(pair.slaves, homes, remotes, strict=True):
        if remote is None and (kme is None or kme == loaded.kme_id or not loaded.links_to(kme)):
            yield f"{place}.slaves", f"{slave!r} is at no [[peer]] with a [[link]], and in no [[remote]]"
    if len({remote.domain if remote is not None else "" for remote in remotes}) > 1:
        yield f"{place}.slaves", "are served in several networks; expected one pair for each"
    if pair.reserved_bps and not all(kme is not None and loaded.links_to(kme) for kme in homes):
        yield f"{place}.reserved_bps", "needs a [[link]] to the KME of each slave"


def _over_committed_links(loaded: LoadedConfig) -> Found:
    for number, link in enumerate(loaded.config.link):
        said = _over_committed(loaded, link)
        if said is not None:
            yield f"link[{number}].rate_bps", said


def _over_committed(loaded: LoadedConfig, link: LinkSection) -> str | None:
    """Say by how much pairs and streams reserve more of a link than this end can count on.

    What a link brings is split between its two ends, neither of which knows what the other reserves.
    """
    reserved_bps = loaded.reserved_bps(link)
    if link.rate_bps is None or not reserved_bps:
        return None
    streams = loaded.config.listen.etsi004 is not None and loaded.links_to(KmeId(link.peer))[0] == link
    if streams:
        reserved_bps += loaded.config.etsi004.reserved_bps_max
    beside = " with [etsi004] reserved_bps_max" if streams else ""
    said = too_much_reserved(reserved_bps, link.rate_bps / 2, "this end's half of the link's rate")
    return f"is over-committed: by [[pair]] reserved_bps{beside} {said}" if said is not None else None


def _border_faults(loaded: LoadedConfig) -> Found:
    """What a configuration says of borders and other networks."""
    config = loaded.config
    if config.etsi020 is None and (config.partner or config.remote):
        yield "etsi020", "is missing; expected a section with the domain of this node"
    if config.partner and config.listen.etsi020 is None:
        yield "listen.etsi020", "is missing; expected the address at which partners call"
    yield from _repeated("agreement", [each.name for each in config.agreement], "each once")
    yield from _repeated("remote", [each.domain for each in config.remote], "each once")
    yield from _partner_faults(config)
    yield from _agreement_faults(config)
    yield from _remote_faults(config)


def _partner_faults(config: KmeConfig) -> Found:
    agreements = {each.name for each in config.agreement}
    for number, partner in enumerate(config.partner):
        place = f"partner[{number}]"
        if partner.agreement is not None and partner.agreement not in agreements:
            yield f"{place}.agreement", f"{partner.agreement!r} is no [[agreement]]"
        if config.etsi020 is not None and partner.domain == config.etsi020.domain:
            yield f"{place}.domain", "is this node's own; partners are of other networks"
        if partner.draft and partner.targets_max > 1:
            yield f"{place}.targets_max", "is above 1; drafts acknowledge each target by itself"


def _agreement_faults(config: KmeConfig) -> Found:
    for number, agreement in enumerate(config.agreement):
        for name in ("valid_from", "valid_until"):
            if (day := getattr(agreement, name)) is not None and start_of_day_s(day) is None:
                yield f"agreement[{number}].{name}", f"{day!r} is no day; expected one as in 2026-12-31"


def _remote_faults(config: KmeConfig) -> Found:
    neighbours = {partner.kme_id for partner in config.partner} | {peer.kme_id for peer in config.peer}
    for number, remote in enumerate(config.remote):
        unknown = [name for name in remote.via if name not in neighbours and config.domain is None]
        if unknown:
            yield f"remote[{number}].via", f"{', '.join(unknown)}: no [[partner]] and no [[peer]]"
        for sae in remote.saes:
            yield from _bad_sae_id(f"remote[{number}].saes", sae)


def start_of_day_s(day: str) -> float | None:
    """Return when a day begins, in UTC, or None if there is no such day.

    >>> start_of_day_s("1970-01-02"), start_of_day_s("2026-02-30")
    (86400.0, None)
    """
    try:
        return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
