"""From a link's section of ``kme.toml`` to its source of key."""

import ssl

from openqci.core.errors import ConfigurationError, Fault
from openqci.keystore.supply import KeySource, SourceReport
from openqci.services.kme_config import LinkSection, LoadedConfig, Source014Section
from openqci.services.source_014 import Source014, Source014Settings
from openqci.services.tls import TlsFiles


def make_source(loaded: LoadedConfig, link: LinkSection) -> KeySource:
    """Return the source of a link; ConfigurationError if its files cannot be used."""
    if link.etsi014 is None:
        raise ConfigurationError(Fault(str(loaded.file), f"link {link.id}", "has no source"))
    section = link.etsi014
    settings = Source014Settings(
        url=section.url.rstrip("/"),
        peer_sae_id=section.peer_sae_id,
        kme_id=section.kme_id,
        report=SourceReport(section.protocol, section.proof, section.epsilon, section.simulated),
    )
    module_tls(loaded, section)  # a file that cannot be used is told at the start, not at the first request
    return Source014(settings, lambda: module_tls(loaded, section))


def module_tls(loaded: LoadedConfig, section: Source014Section) -> ssl.SSLContext:
    """Return the TLS rules towards a module; read anew at every connection, so that files may change."""
    certificate, key, authority = (
        loaded.path(name) for name in (section.certificate, section.key, section.authority)
    )
    return TlsFiles(certificate, key, authority).client_context()
