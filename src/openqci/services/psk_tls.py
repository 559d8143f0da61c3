"""TLS with external pre-shared keys, for encryptors that have no certificates (SKIP, RFC 4279, RFC 8446).

Python's ``ssl`` knows no such keys before 3.13, and then tells no server which identity a connection has. So
this module sets OpenSSL's own callback on the context that ``ssl`` has made, through ``ctypes`` and the very
library that ``ssl`` is linked with. Where that context and its connections lie in memory is not documented by
CPython; every pointer is therefore checked by two properties before it is used, and a version that this was
not written for is refused (docs/decisions/0005-tls-psk-by-ctypes.md).

With TLS 1.3 the key exchange always has a Diffie-Hellman part; an external key is bound to SHA-256 there. Of
TLS 1.2 the suites with AES-256 and forward secrecy come first.
"""

import ctypes
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openqci.core.errors import ConfigurationError, Fault

SUITES = "DHE-PSK-AES256-GCM-SHA384:ECDHE-PSK-CHACHA20-POLY1305:ECDHE-PSK-AES256-CBC-SHA384"
SUITE_WITHOUT_FORWARD_SECRECY = "PSK-AES256-GCM-SHA384"
"""Suite 0x00A9, the only one of some routers. Who records traffic and learns the key later can read it."""

PSK_BYTES_MIN, PSK_BYTES_MAX = 16, 64
IDENTITY_BYTES_MAX = 128
CPYTHON_VERSIONS = ((3, 11), (3, 12))

_OBJECT_HEAD = ctypes.sizeof(ctypes.c_ssize_t) + ctypes.sizeof(ctypes.c_void_p)
_CONTEXT_POINTER_AT = _OBJECT_HEAD
_CONNECTION_POINTER_AT = _OBJECT_HEAD + ctypes.sizeof(ctypes.c_void_p)
_CTRL_SET_DH_AUTO = 118
_WAITING_MAX = 10_000
"""Identities kept until their connection asks for them: many times the handshakes that may be under way."""


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_uint, ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_ubyte), ctypes.c_uint
)


class PskContext:
    """A server's TLS rules with keys by identity; ``context`` goes where an ``SSLContext`` goes.

    Raises ConfigurationError on a Python that this was not written for. A connection with an identity that is
    not known, or with another key, fails in its handshake.
    """

    def __init__(self, keys: Mapping[str, bytes], *, without_forward_secrecy: bool = False) -> None:
        if sys.implementation.name != "cpython" or sys.version_info[:2] not in CPYTHON_VERSIONS:
            expected = " or ".join(f"{major}.{minor}" for major, minor in CPYTHON_VERSIONS)
            raise ConfigurationError(f"TLS with pre-shared keys needs CPython {expected}; use certificates")
        self._keys = {identity.encode(): key for identity, key in keys.items()}
        self._identities: dict[int, str] = {}
        self._library = _library()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        suites = f"{SUITES}:{SUITE_WITHOUT_FORWARD_SECRECY}" if without_forward_secrecy else SUITES
        self.context.set_ciphers(suites)
        self.context.num_tickets = 0
        self.context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        self._pointer = self._context_pointer()
        # DHE needs parameters; OpenSSL chooses them by the security level.
        self._library.SSL_CTX_ctrl(self._pointer, _CTRL_SET_DH_AUTO, 1, None)
        self._callback = _Callback(self._key_of)  # kept alive as long as the context
        self._library.SSL_CTX_set_psk_server_callback(self._pointer, self._callback)

    def identity_of(self, connection: ssl.SSLObject) -> str | None:
        """Return the identity with which a connection was made, once; None if it is not one of ours."""
        inner = getattr(connection, "_sslobj", None)
        if inner is None:
            return None
        pointer = ctypes.c_void_p.from_address(id(inner) + _CONNECTION_POINTER_AT).value
        if pointer is None or pointer not in self._identities:
            return None
        if self._library.SSL_get_SSL_CTX(pointer) != self._pointer:
            return None
        return self._identities.pop(pointer)

    def _key_of(self, connection: int, identity: bytes | None, room: Any, room_bytes: int) -> int:
        """Give OpenSSL the key of an identity: its length, or 0 if there is none."""
        key = self._keys.get(identity or b"")
        if key is None or len(key) > room_bytes:
            return 0
        self._identities.pop(connection, None)
        if len(self._identities) >= _WAITING_MAX:
            del self._identities[next(iter(self._identities))]  # of a handshake that never ended
        self._identities[connection] = (identity or b"").decode("utf-8", "replace")
        ctypes.memmove(room, key, len(key))
        return len(key)

    def _context_pointer(self) -> int:
        """Return OpenSSL's pointer of the context, after a look at two of its properties."""
        pointer = ctypes.c_void_p.from_address(id(self.context) + _CONTEXT_POINTER_AT).value
        for mode in (ssl.CERT_REQUIRED, ssl.CERT_NONE):
            self.context.verify_mode = mode
            expected = 0 if mode is ssl.CERT_NONE else 3
            if pointer is None or self._library.SSL_CTX_get_verify_mode(pointer) != expected:
                raise ConfigurationError("this Python keeps its TLS contexts elsewhere; use certificates")
        if self._library.SSL_CTX_get_options(pointer) & 0xFFFFFFFF != self.context.options & 0xFFFFFFFF:
            raise ConfigurationError("this Python keeps its TLS contexts elsewhere; use certificates")
        return int(pointer or 0)


def read_psk(file: Path) -> bytes:
    """Read a pre-shared key in hexadecimal from a file that its owner alone can read."""
    try:
        if file.stat().st_mode & 0o077:
            raise ConfigurationError(Fault(str(file), "", "can be read by others; expected mode 0600"))
        key = bytes.fromhex(file.read_text("ascii").strip())
    except OSError as error:
        raise ConfigurationError(Fault(str(file), "", f"cannot be read ({error.strerror})")) from None
    except ValueError:
        raise ConfigurationError(Fault(str(file), "", "is not a key in hexadecimal digits")) from None
    if not PSK_BYTES_MIN <= len(key) <= PSK_BYTES_MAX:
        raise ConfigurationError(
            Fault(str(file), "", f"has {len(key)} bytes; expected {PSK_BYTES_MIN} to {PSK_BYTES_MAX}")
        )
    return key


def _library() -> Any:
    """Return the libssl that Python's ``ssl`` is linked with, found through its own extension module."""
    import _ssl

    library = ctypes.CDLL(_ssl.__file__)
    library.SSL_CTX_set_psk_server_callback.argtypes = (ctypes.c_void_p, _Callback)
    library.SSL_CTX_set_psk_server_callback.restype = None
    library.SSL_CTX_get_verify_mode.argtypes = (ctypes.c_void_p,)
    library.SSL_CTX_get_options.argtypes = (ctypes.c_void_p,)
    library.SSL_CTX_get_options.restype = ctypes.c_uint64
    library.SSL_CTX_ctrl.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p)
    library.SSL_get_SSL_CTX.argtypes = (ctypes.c_void_p,)
    library.SSL_get_SSL_CTX.restype = ctypes.c_void_p
    return library
