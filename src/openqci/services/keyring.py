"""The root keys of a node's store, wrapped under a key-encryption key, and how both are renewed.

``keyring.json`` in the state folder holds every root key that something in the store is still sealed under
(:mod:`openqci.crypto.sealing`), wrapped under one key-encryption key (KEK). The KEK is a file beside it, or
never leaves a PKCS#11 token. It is not in the database, so a copy of the database alone opens nothing.

**Crypto-erasure.** A renewal makes a new root key, seals all that is unspent anew under it, and then forgets
the old ones: the rest is wrapped under a new KEK and the old KEK is destroyed. From then on what was spent
before the renewal opens to nobody, whatever old copy of the database, its log or the keyring somebody kept,
unless they kept the old KEK too. A KEK in a token cannot be kept; one in a file can, by whoever copies the
folder, and by file systems and disks that do not overwrite in place.

Every step is whole before the next: a new KEK exists before anything is wrapped under it, the keyring with it
is on the disk before the old one goes. What a crash leaves over is destroyed at the next opening.
"""

import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openqci.core.errors import ConfigurationError, Fault, IntegrityError
from openqci.crypto.sealing import KEK_BYTES, NONCE_BYTES, Sealer
from openqci.services.data_directory import KEK, read_kek, write_durably

log = logging.getLogger(__name__)

KEYRING = "keyring.json"
KEYRING_VERSION = 1
KEK_ID_BYTES = 8


class KekKeeper(Protocol):
    """Keeps key-encryption keys by ID. OSError or ConfigurationError if it cannot be reached."""

    def make(self) -> str:
        """Make a new key and return its ID."""

    def ids(self) -> list[str]:
        """Return the IDs of all keys of this node."""

    def wrap(self, kek_id: str, root: bytes) -> bytes:
        """Encrypt a root key."""

    def unwrap(self, kek_id: str, wrapped: bytes) -> bytes:
        """Decrypt it; IntegrityError if it was changed or wrapped under another key."""

    def destroy(self, kek_id: str) -> None:
        """Destroy a key for good."""


class FileKeks:
    """Key-encryption keys in files of mode 0600, ``kek-ID``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self) -> str:
        """Make a key file."""
        kek_id = secrets.token_hex(KEK_ID_BYTES)
        write_durably(self._file(kek_id), secrets.token_bytes(KEK_BYTES))
        return kek_id

    def ids(self) -> list[str]:
        """Return the IDs of the files that are there."""
        return sorted(file.name.removeprefix("kek-") for file in self._folder.glob("kek-*"))

    def wrap(self, kek_id: str, root: bytes) -> bytes:
        """Encrypt with AES-256-GCM."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(read_kek(self._file(kek_id))).encrypt(nonce, root, kek_id.encode())

    def unwrap(self, kek_id: str, wrapped: bytes) -> bytes:
        """Decrypt with AES-256-GCM."""
        try:
            cipher = AESGCM(read_kek(self._file(kek_id)))
            return cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], kek_id.encode())
        except (InvalidTag, ValueError):
            raise IntegrityError(f"a root key does not open under the key-encryption key {kek_id}") from None

    def destroy(self, kek_id: str) -> None:
        """Overwrite and remove the file."""
        shred(self._file(kek_id))

    def _file(self, kek_id: str) -> Path:
        return self._folder / f"kek-{kek_id}"


class Pkcs11Keks:
    """Key-encryption keys that never leave a PKCS#11 token: AES-256, sensitive, not extractable.

    Root keys are wrapped with AES Key Wrap (RFC 3394; CKM_AES_KEY_WRAP). The token's objects are named
    ``LABEL-ID``; the PIN is in a file that its owner alone can read.
    """

    def __init__(self, module: Path, token: str, pin_file: Path, label: str) -> None:
        self._module, self._token, self._pin_file, self._label = module, token, pin_file, label

    def make(self) -> str:
        """Generate a key in the token."""
        import pkcs11
        from pkcs11 import Attribute

        kek_id = secrets.token_hex(KEK_ID_BYTES)
        template = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.TOKEN: True}
        self._with_session(
            lambda session: session.generate_key(
                pkcs11.KeyType.AES,
                8 * KEK_BYTES,
                label=f"{self._label}-{kek_id}",
                store=True,
                capabilities=pkcs11.MechanismFlag.WRAP | pkcs11.MechanismFlag.UNWRAP,
                template=template,
            )
        )
        return kek_id

    def ids(self) -> list[str]:
        """Return the IDs of this node's keys in the token."""
        import pkcs11
        from pkcs11 import Attribute

        def found(session: Any) -> list[str]:
            objects = session.get_objects({Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY})
            prefix = f"{self._label}-"
            return sorted(
                each.label.removeprefix(prefix) for each in objects if each.label.startswith(prefix)
            )

        names: list[str] = self._with_session(found)
        return names

    def wrap(self, kek_id: str, root: bytes) -> bytes:
        """Wrap with AES Key Wrap, inside the token."""
        import pkcs11
        from pkcs11 import Attribute

        def work(session: Any) -> bytes:
            carried = session.create_object(
                {
                    Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
                    Attribute.KEY_TYPE: pkcs11.KeyType.AES,
                    Attribute.VALUE: root,
                    Attribute.TOKEN: False,
                    Attribute.EXTRACTABLE: True,
                    Attribute.SENSITIVE: False,
                }
            )
            return bytes(
                self._key(session, kek_id).wrap_key(carried, mechanism=pkcs11.Mechanism.AES_KEY_WRAP)
            )

        wrapped: bytes = self._with_session(work)
        return wrapped

    def unwrap(self, kek_id: str, wrapped: bytes) -> bytes:
        """Unwrap with AES Key Wrap, inside the token."""
        import pkcs11
        from pkcs11 import Attribute

        def work(session: Any) -> bytes:
            opened = self._key(session, kek_id).unwrap_key(
                pkcs11.ObjectClass.SECRET_KEY,
                pkcs11.KeyType.AES,
                wrapped,
                mechanism=pkcs11.Mechanism.AES_KEY_WRAP,
                template={
                    Attribute.TOKEN: False,
                    Attribute.EXTRACTABLE: True,
                    Attribute.SENSITIVE: False,
                },
            )
            return bytes(opened[Attribute.VALUE])

        try:
            root: bytes = self._with_session(work)
        except pkcs11.PKCS11Error:
            raise IntegrityError(f"a root key does not open under the key-encryption key {kek_id}") from None
        return root

    def destroy(self, kek_id: str) -> None:
        """Destroy the token's object."""
        self._with_session(lambda session: self._key(session, kek_id).destroy())

    def _key(self, session: Any, kek_id: str) -> Any:
        import pkcs11

        try:
            return session.get_key(
                object_class=pkcs11.ObjectClass.SECRET_KEY, label=f"{self._label}-{kek_id}"
            )
        except pkcs11.NoSuchKey:
            raise ConfigurationError(
                Fault(f"token {self._token}", self._label, f"has no key {kek_id}: nothing in the store opens")
            ) from None

    def _with_session(self, work: Callable[[Any], Any]) -> Any:
        """Run a work in a session of its own; the PIN is read for it and not kept."""
        try:
            import pkcs11
        except ImportError:
            raise ConfigurationError(
                "a key-encryption key in a token needs python-pkcs11: pip install 'openqci[hsm]'"
            ) from None
        place = f"token {self._token}"
        try:
            token = pkcs11.lib(str(self._module)).get_token(token_label=self._token)
            with token.open(rw=True, user_pin=read_pin(self._pin_file)) as session:
                return work(session)
        except pkcs11.NoSuchToken:
            raise ConfigurationError(Fault(place, "", f"is not in {self._module}")) from None
        except (pkcs11.PinIncorrect, pkcs11.PinLocked, pkcs11.PinInvalid, pkcs11.PinLenRange):
            raise ConfigurationError(Fault(place, "", f"refuses the PIN of {self._pin_file}")) from None
        except (pkcs11.TokenNotPresent, pkcs11.GeneralError, pkcs11.DeviceError, RuntimeError) as error:
            raise ConfigurationError(
                Fault(place, "", f"cannot be used ({type(error).__name__} from {self._module})")
            ) from None


class WrappedRoot(msgspec.Struct, frozen=True):
    """One root key in the keyring's file."""

    number: int
    made_at_s: float
    wrapped: bytes


class KeyringFile(msgspec.Struct, frozen=True):
    """What ``keyring.json`` says. The last root key is the one in use."""

    format_version: int
    kek_id: str
    roots: tuple[WrappedRoot, ...]


class Keyring:
    """The root keys of a store, opened. Make one with :meth:`make`, open it with :meth:`open`."""

    def __init__(self, folder: Path, keeper: KekKeeper, content: KeyringFile) -> None:
        self._file, self._keeper, self._content = folder / KEYRING, keeper, content
        roots = {each.number: keeper.unwrap(content.kek_id, each.wrapped) for each in content.roots}
        first, *others = content.roots
        self.sealer = Sealer(roots[first.number], first.number)
        for each in others:
            self.sealer.add(each.number, roots[each.number])
        self.sealer.use(content.roots[-1].number)
        self._roots = roots

    @classmethod
    def make(cls, folder: Path, keeper: KekKeeper) -> Self:
        """Make the keyring of a new store, with its first root key."""
        return cls._first(folder, keeper, 1, secrets.token_bytes(KEK_BYTES))

    @classmethod
    def open(cls, folder: Path, keeper: KekKeeper) -> Self:
        """Open a node's keyring and destroy key-encryption keys that are not its own any more.

        Raises ConfigurationError if it is gone or damaged, IntegrityError if it does not open.
        """
        file = folder / KEYRING
        if not file.exists() and (folder / KEK).exists():
            # A folder of before there were keyrings: its key becomes root key 0, which the next renewal ends.
            keyring = cls._first(folder, keeper, 0, read_kek(folder / KEK))
            shred(folder / KEK)
            return keyring
        try:
            content = msgspec.json.decode(file.read_bytes(), type=KeyringFile)
        except OSError as error:
            raise ConfigurationError(
                Fault(
                    str(file),
                    "",
                    f"cannot be read ({error.strerror}); nothing in the store opens without it: put it "
                    "back, or make the node anew",
                )
            ) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(Fault(str(file), "", f"is damaged ({error})")) from None
        if content.format_version != KEYRING_VERSION or not content.roots:
            raise ConfigurationError(
                Fault(str(file), "format_version", f"is {content.format_version}, expected {KEYRING_VERSION}")
            )
        for kek_id in keeper.ids():
            if kek_id != content.kek_id:
                log.info("a key-encryption key that a stop left over is destroyed")
                keeper.destroy(kek_id)
        return cls(folder, keeper, content)

    @classmethod
    def _first(cls, folder: Path, keeper: KekKeeper, number: int, root: bytes) -> Self:
        kek_id = keeper.make()
        wrapped = WrappedRoot(number, time.time(), keeper.wrap(kek_id, root))
        content = KeyringFile(KEYRING_VERSION, kek_id, (wrapped,))
        write_durably(folder / KEYRING, msgspec.json.encode(content))
        return cls(folder, keeper, content)

    @property
    def made_at_s(self) -> float:
        """When the root key in use was made."""
        return self._content.roots[-1].made_at_s

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the root keys, the one in use last."""
        return tuple(each.number for each in self._content.roots)

    def begin_renewal(self) -> None:
        """Make a new root key and seal under it from now on; the old ones still open."""
        root, number = secrets.token_bytes(KEK_BYTES), self.numbers[-1] + 1
        kek_id = self._content.kek_id
        new = WrappedRoot(number, time.time(), self._keeper.wrap(kek_id, root))
        self._write(kek_id, (*self._content.roots, new))
        self._roots[number] = root
        self.sealer.add(number, root)
        self.sealer.use(number)

    def end_renewal(self) -> None:
        """Forget all root keys but the one in use, and renew the key-encryption key.

        Call it when nothing in the store is sealed under the old ones any more.
        """
        old_kek, last = self._content.kek_id, self._content.roots[-1]
        kek_id = self._keeper.make()
        wrapped = self._keeper.wrap(kek_id, self._roots[last.number])
        self._write(kek_id, (msgspec.structs.replace(last, wrapped=wrapped),))
        self._keeper.destroy(old_kek)
        for number in [each for each in self._roots if each != last.number]:
            self.sealer.drop(number)
            del self._roots[number]

    def destroy(self) -> None:
        """Destroy the key-encryption key, and the keyring: nothing in the store, or a copy, opens again."""
        destroy_keyring(self._file.parent, self._keeper)

    def _write(self, kek_id: str, roots: tuple[WrappedRoot, ...]) -> None:
        content = KeyringFile(KEYRING_VERSION, kek_id, roots)
        write_durably(self._file, msgspec.json.encode(content))
        self._content = content


def destroy_keyring(folder: Path, keeper: KekKeeper) -> None:
    """Destroy every key-encryption key of a node, then its keyring, opened or not."""
    for kek_id in keeper.ids():
        keeper.destroy(kek_id)
    for name in (KEK, KEYRING):
        if (folder / name).exists():
            shred(folder / name)


def read_pin(file: Path) -> str:
    """Read a token's PIN from a file that its owner alone can read."""
    try:
        if file.stat().st_mode & 0o077:
            raise ConfigurationError(Fault(str(file), "", "can be read by others; expected mode 0600"))
        return file.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigurationError(Fault(str(file), "", f"cannot be read ({error.strerror})")) from None


def shred(file: Path) -> None:
    """Overwrite a small file with random bytes and remove it."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, secrets.token_bytes(max(1, os.fstat(descriptor).st_size)))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    file.unlink()
