"""The ML-KEM keys of all KMEs of a live network, and where each finds the public ones of others.

One process holds all nodes, so their key pairs stay in memory once they were read; the seeds lie sealed in
each KME's own rooms. In a real network a node knows its own pair alone, and the others' public keys from its
controller's signed configuration.
"""

from collections.abc import Iterable
from functools import partial

from openqci.core.identifiers import KmeId, SiteId, kme_of_site
from openqci.crypto.hybrid import KemPrivateKey, KemPublicKey
from openqci.delivery.end_to_end import KemKeys
from openqci.keystore.ports import StoreTransaction
from openqci.services.kem_keys import kem_key
from openqci.services.sqlite_store import SqliteKeyStore


class KemRing:
    """Key pairs by KME; :meth:`know` reads them, making what is not there yet."""

    def __init__(self, store: SqliteKeyStore) -> None:
        self._store = store
        self._keys: dict[KmeId, KemPrivateKey] = {}

    async def know(self, sites: Iterable[SiteId]) -> None:
        """Have the key pairs of these sites' KMEs at hand from now on."""
        new = [kme for kme in map(kme_of_site, sites) if kme not in self._keys]
        if new:
            self._keys |= await self._store.run(partial(_read, kmes=new))

    def public_key(self, name: str) -> KemPublicKey | None:
        """Return the encapsulation key of a site's KME, or None if it is not known."""
        key = self._keys.get(kme_of_site(SiteId(name)))
        return key.public if key else None

    def own(self, kme: KmeId) -> KemKeys:
        """Return what a KME finds its own private key with."""
        return partial(_if_named, self._keys.get(kme))


def _read(transaction: StoreTransaction, kmes: list[KmeId]) -> dict[KmeId, KemPrivateKey]:
    return {kme: kem_key(transaction, kme) for kme in kmes}


def _if_named(key: KemPrivateKey | None, key_id: bytes) -> KemPrivateKey | None:
    return key if key is not None and key.public.key_id == key_id else None
