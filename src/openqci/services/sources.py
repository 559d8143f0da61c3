"""From a link's section of ``kme.toml`` to its source of key."""

import ssl

from openqci.core.errors import ConfigurationError, Fault
from openqci.keystore.supply import KeySource, Source
from openqci.services.kme_config import (
    LinkSection,
    LoadedConfig,
    Source004Section,
    Source014Section,
    SourcePushSection,
    SourceSection,
    host_and_port,
)
from openqci.services.source_004 import Source004, Source004Settings
from openqci.services.source_014 import Source014, Source014Settings
from openqci.services.source_push import (
    HttpsModuleLine,
    KeyStore,
    PushRoom,
    SourcePush,
    SourcePushSettings,
)
from openqci.services.tls import TlsFiles


def make_source(loaded: LoadedConfig, link: LinkSection, store: KeyStore) -> Source:
    """Return the source of a link; ConfigurationError if its files cannot be used.

    What a module pushes is kept in ``store``.
    """
    for section in link.sources.values():
        # A file that cannot be used is told at the start, not at the first request.
        module_tls(loaded, section)
        if isinstance(section, Source014Section):
            return _source_014(loaded, section)
        if isinstance(section, Source004Section):
            return _source_004(loaded, section)
        return _source_push(loaded, section, PushRoom(store, loaded.kme_id, link.id))
    raise ConfigurationError(Fault(str(loaded.file), f"link {link.id}", "has no source"))


def module_tls(loaded: LoadedConfig, section: SourceSection) -> ssl.SSLContext:
    """Return the TLS rules towards a module; read anew at every connection, so that files may change."""
    certificate, key, authority = (
        loaded.path(name) for name in (section.certificate, section.key, section.authority)
    )
    return TlsFiles(certificate, key, authority).client_context()


def _source_014(loaded: LoadedConfig, section: Source014Section) -> KeySource:
    settings = Source014Settings(
        url=section.url.rstrip("/"),
        peer_sae_id=section.peer_sae_id,
        kme_id=section.kme_id,
        report=section.report(),
    )
    return Source014(settings, lambda: module_tls(loaded, section))


def _source_004(loaded: LoadedConfig, section: Source004Section) -> KeySource:
    host, port = host_and_port(section.address)
    settings = Source004Settings(
        host=host,
        port=port,
        source=section.source,
        destination=section.destination,
        chunk_bytes=section.chunk_bytes,
        server_name=section.server_name,
        report=section.report(),
    )
    return Source004(settings, lambda: module_tls(loaded, section))


def _source_push(loaded: LoadedConfig, section: SourcePushSection, room: PushRoom) -> Source:
    settings = SourcePushSettings(
        module=section.module,
        url=section.url,
        source=section.source,
        destination=section.destination,
        chunk_bytes=section.chunk_bytes,
        server_name=section.server_name,
        report=section.report(),
    )
    line = HttpsModuleLine(settings, lambda: module_tls(loaded, section))
    return SourcePush(settings, line, room)
