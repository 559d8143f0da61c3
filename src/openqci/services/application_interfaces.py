"""The interfaces of a node at which applications fetch keys by requests: ETSI GS QKD 014 and SKIP.

They need the store, and somebody who hears of demand and of what was delivered: in a node of one process the
node itself, in a worker the line to its coordinator (:mod:`openqci.services.kme_worker`). Key streams
(ETSI GS QKD 004) are not here: their pace is kept in memory, so one process serves them all.
"""

import asyncio
import socket
from collections.abc import Mapping
from functools import partial
from typing import Any

from cryptography import x509

from openqci.core.errors import ConfigurationError
from openqci.core.identifiers import SaeId
from openqci.delivery.agreement import give_up_rest
from openqci.delivery.pair_stock import RestRule
from openqci.delivery.skip import SkipRules
from openqci.services.https import HttpsListener
from openqci.services.kme import Demand, KeyStore, KmeService, Observer
from openqci.services.kme_config import LoadedConfig, host_and_port
from openqci.services.kme_server import KMEEndpoint, KMEServer, bind_all
from openqci.services.pki import fingerprint, peer_identity, read_certificate
from openqci.services.psk_tls import PskContext, read_psk
from openqci.services.roles import Role
from openqci.services.skip_server import PskProtocol, SkipService, skip_application

SAE, SKIP, SKIP_PSK = "sae", "skip", "skip_psk"

INTERFACES_MAX = 3
"""So many listeners are here at most."""

Connections = dict[str, dict[str, Any]]
"""By the interface's name: how many are ``open``, and how many were ``closed`` by us, by reason."""

Sockets = Mapping[str, socket.socket]
"""Sockets that listen, by the interface's name in ``[listen]``."""


def interface_names(loaded: LoadedConfig) -> list[str]:
    """Return the names of the interfaces for applications that the configuration asks for."""
    return [name for name in (SAE, SKIP, SKIP_PSK) if getattr(loaded.config.listen, name) is not None]


def bind_interfaces(loaded: LoadedConfig) -> dict[str, socket.socket]:
    """Bind the addresses of the interfaces that the configuration asks for, or raise ConfigurationError.

    Several processes serve such a socket together: whoever is free accepts the next connection, and one that
    waits is lost with none of them.
    """
    bound: dict[str, socket.socket] = {}
    try:
        for name in interface_names(loaded):
            host, port = host_and_port(getattr(loaded.config.listen, name))
            (bound[name],) = bind_all(host, [port])
    except ConfigurationError:
        for each in bound.values():
            each.close()
        raise
    return bound


def rest_rule(loaded: LoadedConfig) -> RestRule:
    """Return what becomes of the rest of a batch that is too short for a key."""
    return RestRule(loaded.config.etsi014.profile().key_size_bits // 8, give_up_rest)


def mapped_roles(loaded: LoadedConfig, own: x509.Certificate) -> dict[str, tuple[Role, str]]:
    """Return who the configuration gives a role by certificate. The node's own may look."""
    mapped = {
        fingerprint(read_certificate(loaded.path(each.certificate))): (Role(each.role), each.name)
        for each in loaded.config.role
    }
    return {fingerprint(own): (Role.OPERATOR, loaded.kme_id), **mapped}


class ApplicationInterfaces:
    """The listeners for applications of one process; ``bound`` are the sockets of :func:`bind_interfaces`."""

    def __init__(
        self,
        loaded: LoadedConfig,
        store: KeyStore,
        service: KmeService,
        demand: Demand,
        observer: Observer,
        bound: Sockets,
    ) -> None:
        self._files = files = loaded.tls_files()
        others = mapped_roles(loaded, read_certificate(files.certificate))
        self._identity = partial(peer_identity, rule=loaded.config.etsi014.sae_id_from, others=others)
        self.sae_server = KMEServer(
            [
                KMEEndpoint(
                    loaded.kme_id, host_and_port(loaded.config.listen.sae)[1], files.certificate, files.key
                )
            ],
            service,
            files.authority,
            contexts=lambda _: files.server_context(),
            identity=self._identity,
            bound=[bound[SAE]],
        )
        rules = SkipRules(tuple(loaded.config.skip.remote_systems))
        skip = SkipService(
            loaded.kme_id,
            store,
            rules,
            on_demand=demand,
            observer=observer,
            rests=rest_rule(loaded),
            admission=service,
        )
        self._skip = self._skip_listener(loaded, skip, bound)
        self._skip_psk = self._skip_psk_listener(loaded, skip, bound)

    def _skip_listener(
        self, loaded: LoadedConfig, service: SkipService, bound: Sockets
    ) -> HttpsListener | None:
        """Return the listener of SKIP with certificates, if the configuration asks for one."""
        if loaded.config.listen.skip is None:
            return None
        address, context = host_and_port(loaded.config.listen.skip), self._files.server_context()
        return HttpsListener(
            skip_application(service), *address, context, identity=self._identity, bound=bound[SKIP]
        )

    def _skip_psk_listener(
        self, loaded: LoadedConfig, service: SkipService, bound: Sockets
    ) -> HttpsListener | None:
        """Return the listener of SKIP with pre-shared keys, if the configuration asks for one."""
        config = loaded.config
        if config.listen.skip_psk is None:
            return None
        holders = {sae.psk_identity: sae for sae in config.sae if sae.psk_identity is not None}
        psk = PskContext(
            {name: read_psk(loaded.path(sae.psk_file or "")) for name, sae in holders.items()},
            without_forward_secrecy=config.skip.without_forward_secrecy,
        )
        applications = {name: SaeId(sae.id) for name, sae in holders.items()}
        protocol = partial(PskProtocol, psk=psk, applications=applications)
        address = host_and_port(config.listen.skip_psk)
        return HttpsListener(
            skip_application(service), *address, psk.context, protocol, bound=bound[SKIP_PSK]
        )

    def connections(self) -> Connections:
        """Return how many are connected to each interface, and why how many were closed by us."""
        named = ((SAE, self.sae_server), (SKIP, self._skip), (SKIP_PSK, self._skip_psk))
        return {
            name: {"open": len(listener.crowd), "closed": dict(listener.crowd.closed)}
            for name, listener in named
            if listener is not None
        }

    async def start(self) -> None:
        """Serve; ConfigurationError if a file cannot be used."""
        for listener in self._listeners():
            await listener.start()

    async def reload(self) -> None:
        """Read certificates and revocation lists again, for new connections; cut those revoked now.

        Raises ConfigurationError, and goes on as before, if a file cannot be used.
        """
        context = self._files.server_context()
        await self.sae_server.reload(self._files.is_revoked)
        if self._skip is not None:
            await self._skip.reload(context, self._files.is_revoked)

    async def stop(self) -> None:
        """Listen no longer, let requests in hand end, close every connection."""
        await asyncio.gather(*(listener.stop() for listener in self._listeners()))

    def _listeners(self) -> list[HttpsListener | KMEServer]:
        return [each for each in (self._skip, self._skip_psk, self.sae_server) if each is not None]
