"""A message for the holder of an ML-KEM key: what bridges a hop that has no one-time pad.

Encapsulate, derive a key for AES-256-GCM from secret and context, encrypt once: the usual hybrid encryption
of Cramer and Shoup (SIAM J. Comput. 33 (2003) 167, section 7), secure against chosen ciphertexts if ML-KEM is
and AES-GCM is for one message. The key is new for each message, so the nonce may be constant. Its secrecy is
computational, and it says nothing of who has sent it: that is for the connection to tell.
"""

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openqci.core.errors import PeerMisbehaved
from openqci.core.keys import SecretBytes
from openqci.crypto.hybrid import KEM_KEY_ID_BYTES, KemPrivateKey, KemPublicKey, encapsulate, framed

LABEL = b"openqci bridge v1"
NONCE = bytes(12)
GCM_TAG_BYTES = 16


def sealed_bytes(public: KemPublicKey, payload_bytes: int) -> int:
    """Return how long a sealed message is."""
    return KEM_KEY_ID_BYTES + public.algorithm.ciphertext_bytes + payload_bytes + GCM_TAG_BYTES


def seal_for(public: KemPublicKey, context: bytes, payload: SecretBytes) -> bytes:
    """Return name of the key, KEM ciphertext and AES-256-GCM ciphertext; the context is authenticated."""
    ciphertext, secret = encapsulate(public)
    with secret:
        return public.key_id + ciphertext + _cipher(secret, context).encrypt(NONCE, payload.reveal(), None)


def key_id_of(sealed: bytes) -> bytes:
    """Return the name of the key that a message is for."""
    return sealed[:KEM_KEY_ID_BYTES]


def open_sealed(private: KemPrivateKey, context: bytes, sealed: bytes) -> SecretBytes:
    """Return the payload; PeerMisbehaved if message or context were changed, or it is for another key."""
    body = KEM_KEY_ID_BYTES + private.public.algorithm.ciphertext_bytes
    if key_id_of(sealed) != private.public.key_id or len(sealed) < body + GCM_TAG_BYTES:
        raise PeerMisbehaved("a sealed payload is short, or for another key")
    with private.decapsulate(sealed[KEM_KEY_ID_BYTES:body]) as secret:
        opened = SecretBytes(bytes(len(sealed) - body - GCM_TAG_BYTES))
        try:
            _cipher(secret, context).decrypt_into(NONCE, sealed[body:], None, opened.reveal())
        except InvalidTag:
            raise PeerMisbehaved("a sealed payload does not open: it or its context was changed") from None
    return opened


def _cipher(secret: SecretBytes, context: bytes) -> AESGCM:
    with SecretBytes(framed(LABEL, secret.reveal(), context)) as text:
        return AESGCM(hashlib.shake_256(text.reveal()).digest(32))
