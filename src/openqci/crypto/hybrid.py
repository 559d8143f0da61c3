"""ML-KEM beside quantum key: the encapsulation, and the combiner that loses nothing of either.

``K = Kq xor XOF(ss, context)``: Kq is key that came over quantum links, ss the secret of an ML-KEM-768 or
ML-KEM-1024 encapsulation (FIPS 203) to the other KME's public key, XOF is SHAKE256 (FIPS 202). Why not a hash
of both, as ETSI TS 103 744 and NIST SP 800-56C have it for two computational secrets: a hash of Kq would make
the whole of K rest on that hash. Here Kq stays a one-time pad of whatever ss gives, so that K is uniform to
whoever does not know Kq, with unlimited computing power; and whoever knows Kq has to tell XOF(ss, context)
from random. The sketch of both proofs is in ``docs/explanation/hybrid-keys.md``.

The context binds algorithm, KEM key, ciphertext, batch, both KMEs and both SAEs in their roles, and the
length. So a ciphertext that is moved to another batch, another pair or turned round gives other bytes
(Giacon, Heuer and Poettering, "KEM Combiners", PKC 2018, show what a combiner without the ciphertexts loses;
arXiv:2509.12478 and arXiv:2608.07626 what key IDs and roles that are not bound cost QKD protocols).

A mask is made for one batch and used once: a second key under the same mask would show the XOR of the two
quantum parts. :func:`hybridise` therefore takes the secret away with it, and each encapsulation is a new one.

>>> private = KemPrivateKey.generate(KemAlgorithm.ML_KEM_768)
>>> ciphertext, secret = encapsulate(private.public)
>>> len(ciphertext), len(secret), private.decapsulate(ciphertext).reveal() == secret.reveal()
(1088, 32, True)
"""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)

from openqci.core.errors import PeerMisbehaved, invariant
from openqci.core.keys import SecretBytes
from openqci.crypto.one_time import one_time_pad

LABEL = b"openqci hybrid v1"
KEM_SEED_BYTES = 64
"""A private key in the form of FIPS 203, 7.1: the seeds d and z, from which all else follows."""

KEM_SECRET_BYTES = 32
KEM_KEY_ID_BYTES = 32
MASK_BYTES_MAX = 256 * 1024
"""Longest mask: more than any batch of key needs."""

__all__ = [
    "KEM_KEY_ID_BYTES",
    "KEM_SEED_BYTES",
    "HybridContext",
    "KemAlgorithm",
    "KemPrivateKey",
    "KemPublicKey",
    "encapsulate",
    "hybridise",
    "kem_key_id",
]


class KemAlgorithm(StrEnum):
    """The parameter sets of FIPS 203 that are offered: categories 3 and 5."""

    ML_KEM_768 = "ML-KEM-768"
    ML_KEM_1024 = "ML-KEM-1024"

    @property
    def public_bytes(self) -> int:
        """Length of an encapsulation key."""
        return 1184 if self is KemAlgorithm.ML_KEM_768 else 1568

    @property
    def ciphertext_bytes(self) -> int:
        return 1088 if self is KemAlgorithm.ML_KEM_768 else 1568


_PUBLIC: dict[KemAlgorithm, type[MLKEM768PublicKey] | type[MLKEM1024PublicKey]] = {
    KemAlgorithm.ML_KEM_768: MLKEM768PublicKey,
    KemAlgorithm.ML_KEM_1024: MLKEM1024PublicKey,
}
_PRIVATE: dict[KemAlgorithm, type[MLKEM768PrivateKey] | type[MLKEM1024PrivateKey]] = {
    KemAlgorithm.ML_KEM_768: MLKEM768PrivateKey,
    KemAlgorithm.ML_KEM_1024: MLKEM1024PrivateKey,
}


@dataclass(frozen=True)
class KemPublicKey:
    """A KME's encapsulation key, as others know it. Who vouches for it is the directory's business."""

    algorithm: KemAlgorithm
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != self.algorithm.public_bytes:
            raise PeerMisbehaved(
                f"an encapsulation key of {self.algorithm} has {self.algorithm.public_bytes} bytes, "
                f"not {len(self.key)}"
            )

    @property
    def key_id(self) -> bytes:
        """Name of the key: a hash of algorithm and key."""
        return kem_key_id(self.algorithm, self.key)


def kem_key_id(algorithm: KemAlgorithm, public: bytes) -> bytes:
    """Return the SHA-256 hash by which a KEM key is named in orders and contexts."""
    return hashlib.sha256(framed(LABEL + b" key", algorithm.encode(), public)).digest()


class KemPrivateKey:
    """A KME's decapsulation key. ``repr`` shows which; the seed is for the keyring alone."""

    def __init__(self, algorithm: KemAlgorithm, seed: SecretBytes) -> None:
        invariant(len(seed) == KEM_SEED_BYTES, "a private key of ML-KEM is a seed of 64 bytes")
        self._key = _PRIVATE[algorithm].from_seed_bytes(seed.reveal())
        self.public = KemPublicKey(algorithm, self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, algorithm: KemAlgorithm = KemAlgorithm.ML_KEM_768) -> "KemPrivateKey":
        """Make a new key pair from the operating system's random numbers."""
        with SecretBytes(_PRIVATE[algorithm].generate().private_bytes_raw()) as seed:
            return cls(algorithm, seed)

    def __repr__(self) -> str:
        return f"KemPrivateKey({self.public.algorithm}, {self.public.key_id.hex()[:16]})"

    def seed(self) -> SecretBytes:
        """Return the seed, for sealing."""
        return SecretBytes(self._key.private_bytes_raw())

    def decapsulate(self, ciphertext: bytes) -> SecretBytes:
        """Return the secret of a ciphertext; PeerMisbehaved if it has not the length of one.

        A ciphertext that was changed gives other, unpredictable bytes (implicit rejection, FIPS 203, 6.3):
        the confirmation of the key that they went into is what finds that out.
        """
        expected = self.public.algorithm.ciphertext_bytes
        if len(ciphertext) != expected:
            raise PeerMisbehaved(
                f"a ciphertext of {self.public.algorithm} has {expected} bytes, not {len(ciphertext)}"
            )
        return SecretBytes(self._key.decapsulate(ciphertext))


def encapsulate(public: KemPublicKey) -> tuple[bytes, SecretBytes]:
    """Return a ciphertext for the holder of the private key, and the secret that both have then.

    PeerMisbehaved if the key fails the modulus check of FIPS 203, 7.2.
    """
    try:
        secret, ciphertext = _PUBLIC[public.algorithm].from_public_bytes(public.key).encapsulate()
    except ValueError:
        raise PeerMisbehaved(f"key {public.key_id.hex()[:16]} is no key of {public.algorithm}") from None
    return ciphertext, SecretBytes(secret)


@dataclass(frozen=True)
class HybridContext:
    """What a mask is for: the same words at both ends, or there is no common key."""

    algorithm: KemAlgorithm
    kem_key_id: bytes
    ciphertext: bytes = field(repr=False)
    batch_id: bytes
    origin_kme: str
    target_kme: str
    master_sae: str
    slave_sae: str

    def encoded(self, length_bytes: int) -> bytes:
        """Return the one encoding of the context of a mask of this length."""
        return framed(
            self.algorithm.encode(),
            self.kem_key_id,
            self.ciphertext,
            self.batch_id,
            *(b"origin", self.origin_kme.encode(), b"target", self.target_kme.encode()),
            *(b"master", self.master_sae.encode(), b"slave", self.slave_sae.encode()),
            length_bytes.to_bytes(8, "big"),
        )


def hybridise(quantum: SecretBytes, secret: SecretBytes, context: HybridContext) -> SecretBytes:
    """Return quantum key under the mask of an encapsulated secret; both are wiped and serve no more.

    Every byte of the quantum key is masked by a byte of its own: nothing of the mask is used twice, or for
    anything else.
    """
    invariant(len(secret) == KEM_SECRET_BYTES, "a secret of ML-KEM has 32 bytes")
    invariant(0 < len(quantum) <= MASK_BYTES_MAX, "a mask has a sensible length")
    with quantum, secret, SecretBytes(mask(secret, context, len(quantum))) as pad:
        return SecretBytes(one_time_pad(quantum.reveal(), pad.reveal()))


def mask(secret: SecretBytes, context: HybridContext, length_bytes: int) -> bytes:
    """Return ``length_bytes`` of SHAKE256 over label, secret and context, each framed by its length.

    A sponge with the secret in front is a pseudorandom function of what follows (Andreeva, Daemen, Mennink
    and Van Assche, "Security of keyed sponge constructions using a modular proof approach", FSE 2015).
    """
    text = SecretBytes(framed(LABEL, secret.reveal()) + context.encoded(length_bytes))
    with text:
        return hashlib.shake_256(text.reveal()).digest(length_bytes)


def framed(*parts: bytes | bytearray) -> bytes:
    """Return parts one behind the other, each behind its length in eight bytes: no two lists look alike."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
