"""The ML-KEM key pair of a KME, to which hybrid keys for its applications are encapsulated.

Its seed lies sealed in the store, as a key stream of its own, and so survives restarts: nodes that know the
public key may not hear of another for as long as their controller is away (invariant I8).
"""

from openqci.core.errors import IntegrityError
from openqci.core.identifiers import KmeId, StreamId
from openqci.core.keys import SecretBytes
from openqci.crypto.hybrid import KEM_SEED_BYTES, KemAlgorithm, KemPrivateKey
from openqci.keystore.ports import KmeView, StoreTransaction

ALGORITHM_KIND, NAME = "kem-key", "current"
STREAM = StreamId("kem/current")


def kem_key(transaction: StoreTransaction, kme: KmeId) -> KemPrivateKey:
    """Return the key pair of a KME, making one if it has none yet."""
    view = KmeView(transaction, kme)
    stored = view.record(ALGORITHM_KIND, NAME)
    if stored is None:
        made = KemPrivateKey.generate()
        with made.seed() as seed:
            view.append(STREAM, seed)
        view.put_record(ALGORITHM_KIND, NAME, made.public.algorithm.encode())
        return made
    ranges = view.ranges(STREAM)
    if [length for _, length in ranges] != [KEM_SEED_BYTES]:
        raise IntegrityError(f"the ML-KEM key of {kme} is not in its store")
    # Reading a stream spends it: the seed goes back in the same transaction, or stays where it was.
    with view.take(STREAM, ranges[0][0], KEM_SEED_BYTES) as seed:
        view.append(STREAM, seed)
        return KemPrivateKey(KemAlgorithm(stored.decode()), SecretBytes(seed.reveal()))
