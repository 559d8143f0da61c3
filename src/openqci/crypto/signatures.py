"""Signatures over documents that are not secret: who said this, and is it what was said.

ECDSA over P-256 with SHA-256 (FIPS 186-5), the keys that certificates have already. A signature covers a
label beside the text, so that no document is taken for one of another kind.
"""

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from openqci.core.errors import ConfigurationError

HASH = hashes.SHA256()


class SigningKey:
    """The private key of one who signs; it never shows itself."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def from_pem(cls, pem: bytes, place: str) -> "SigningKey":
        """Read an unencrypted PEM key; ConfigurationError, naming ``place``, if it is none on P-256."""
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            raise ConfigurationError(f"{place}: is no unencrypted private key in PEM form") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ConfigurationError(f"{place}: expected a key on the curve P-256 (ECDSA)")
        return cls(key)

    def sign(self, label: str, text: bytes) -> bytes:
        """Return the signature (DER) over a labelled text."""
        return self._key.sign(_covered(label, text), ec.ECDSA(HASH))


class VerifyingKey:
    """The public key of one who signs, out of a certificate that the reader trusts."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key

    @classmethod
    def from_certificate_pem(cls, pem: bytes, place: str) -> "VerifyingKey":
        """Read a PEM certificate's key; ConfigurationError, naming ``place``, if it has none on P-256."""
        try:
            key = x509.load_pem_x509_certificate(pem).public_key()
        except ValueError:
            raise ConfigurationError(f"{place}: is no certificate in PEM form") from None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ConfigurationError(f"{place}: expected a certificate with a key on the curve P-256 (ECDSA)")
        return cls(key)

    def is_genuine(self, label: str, text: bytes, signature: bytes) -> bool:
        """Tell whether a signature over a labelled text was made with the key's private half."""
        try:
            self._key.verify(signature, _covered(label, text), ec.ECDSA(HASH))
        except InvalidSignature:
            return False
        return True


def _covered(label: str, text: bytes) -> bytes:
    # The label has no zero byte, so where it ends is certain.
    return label.encode() + b"\0" + text
