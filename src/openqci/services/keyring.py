"""The root keys of a node's store, wrapped under a key-encryption key, and how both are renewed.

``keyring.json`` in the state folder holds every root key that something in the store is still sealed under
(:mod:`openqci.crypto.sealing`), wrapped under one key-encryption key (KEK). The KEK is a file beside it, or
never leaves a PKCS#11 token. It is not in the database, so a copy of the database alone opens nothing.

**Crypto-erasure.** A renewal makes a new root key, seals all that is unspent anew under it, and then forgets
the old ones: the rest is wrapped under a new KEK and the old KEK is destroyed. From then on what was spent
before the renewal opens to nobody, whatever old copy of the database, its log or the keyring somebody kept,
unless they kept the old KEK too. A KEK in a token cannot be kept; one in a file can, by whoever copies the
folder, and by file systems and disks that do not overwrite in place.

The KEK alone is renewed at every start and clean stop of a node, which costs two small writes: from then on
no old copy of the keyring opens, and a copy of the whole folder opens nothing where the KEK is in a token.

Every step is whole before the next: a new KEK exists before anything is wrapped under it, the keyring with it
is on the disk before the old one goes. What a crash leaves over is destroyed when the store has been opened
with the keyring; not before, since an old keyring that was put in its place by mistake must cost nothing.
"""

import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openqci.core.errors import ConfigurationError, Fault, IntegrityError, OpenQCIError
from openqci.crypto.sealing import KEK_BYTES, NONCE_BYTES, Sealer
from openqci.services.data_directory import KEK, read_kek, write_durably

log = logging.getLogger(__name__)

KEYRING = "keyring.json"
KEYRING_VERSION = 1
KEK_ID_BYTES = 8
KEK_ID = re.compile(rf"[0-9a-f]{{{2 * KEK_ID_BYTES}}}")


class KeyringDestroyed(OpenQCIError):
    """The keys of the store were destroyed while it was open."""


class KekKeeper(Protocol):
    """Keeps key-encryption keys by ID. OSError or ConfigurationError if it cannot be reached."""

    @property
    def place(self) -> str | None:
        """Where other nodes may keep keys, too; None for a place of the node's own."""

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

    place = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self) -> str:
        """Make a key file."""
        kek_id = secrets.token_hex(KEK_ID_BYTES)
        write_durably(self._file(kek_id), secrets.token_bytes(KEK_BYTES))
        return kek_id

    def ids(self) -> list[str]:
        """Return the IDs of the files that are there."""
        return ids_among((file.name for file in self._folder.glob("kek-*")), "kek-")

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


TOKEN_TURN = threading.Lock()
"""Held by the thread that speaks with a token."""


class Pkcs11Keks:
    """Key-encryption keys that never leave a PKCS#11 token: AES-256, sensitive, not extractable.

    Root keys are wrapped with AES Key Wrap (RFC 3394; CKM_AES_KEY_WRAP). The token's objects are named
    ``LABEL-ID``; the PIN is in a file that its owner alone can read.
    """

    def __init__(self, module: Path, token: str, pin_file: Path, label: str) -> None:
        self._module, self._token, self._pin_file, self._label = module, token, pin_file, label
        self.place = f"token {token}"

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
            return ids_among((each.label for each in objects), f"{self._label}-")

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
            key = self._key(session, kek_id)
            try:
                opened = key.unwrap_key(
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
            # What tokens answer to bytes that they did not wrap; SoftHSM2 has the most general of them.
            except (
                pkcs11.WrappedKeyInvalid,
                pkcs11.WrappedKeyLenRange,
                pkcs11.EncryptedDataInvalid,
                pkcs11.EncryptedDataLenRange,
                pkcs11.GeneralError,
            ):
                raise IntegrityError(
                    f"a root key does not open under the key-encryption key {kek_id}"
                ) from None
            return bytes(opened[Attribute.VALUE])

        root: bytes = self._with_session(work)
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
        """Run a work in a session of its own; the PIN is read for it and not kept.

        One at a time: a login and its end are the process's and not the session's (PKCS#11, 5.6), and not
        every maker's library bears two threads.
        """
        try:
            import pkcs11
        except ImportError:
            raise ConfigurationError(
                "a key-encryption key in a token needs python-pkcs11: pip install 'openqci[hsm]'"
            ) from None
        place = f"token {self._token}"
        try:
            with TOKEN_TURN:
                token = pkcs11.lib(str(self._module)).get_token(token_label=self._token)
                with token.open(rw=True, user_pin=read_pin(self._pin_file)) as session:
                    return work(session)
        except pkcs11.NoSuchToken:
            raise ConfigurationError(Fault(place, "", f"is not in {self._module}")) from None
        except (pkcs11.PinIncorrect, pkcs11.PinLocked, pkcs11.PinInvalid, pkcs11.PinLenRange):
            raise ConfigurationError(Fault(place, "", f"refuses the PIN of {self._pin_file}")) from None
        except (pkcs11.PKCS11Error, RuntimeError) as error:
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
        self._turn = threading.Lock()
        self._destroyed = False
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
        """Open a node's keyring. When the store has been opened with it, :meth:`sweep`.

        Raises ConfigurationError if it is gone or damaged, IntegrityError if it does not open.
        """
        file = folder / KEYRING
        if not file.exists() and (folder / KEK).exists():
            # A folder of before there were keyrings: its key becomes root key 0, which the next renewal ends.
            return cls._first(folder, keeper, 0, read_kek(folder / KEK))
        return cls(folder, keeper, read_keyring(file))

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
        self.make_root()
        self.use_newest()

    def make_root(self) -> None:
        """Make a new root key, which opens from now on; nothing is sealed under it yet."""
        with self._turn:
            self._check_alive()
            root, number = secrets.token_bytes(KEK_BYTES), self.numbers[-1] + 1
            kek_id = self._content.kek_id
            new = WrappedRoot(number, time.time(), self._keeper.wrap(kek_id, root))
            self._write(kek_id, (*self._content.roots, new))
            self._roots[number] = root
            self.sealer.add(number, root)

    def use_newest(self) -> None:
        """Seal under the newest root key from now on. All processes that share the store have it by now."""
        self.sealer.use(self.numbers[-1])

    # In a process that shares the store of another, which renews the keys

    def learn(self) -> None:
        """Read the keyring again, and open what is sealed under a root key that is new in it, too."""
        with self._turn:
            self._content = read_keyring(self._file)
            for each in self._content.roots:
                if each.number not in self._roots:
                    root = self._keeper.unwrap(self._content.kek_id, each.wrapped)
                    self._roots[each.number] = root
                    self.sealer.add(each.number, root)

    def forget_old(self) -> None:
        """Read the keyring again, and forget the root keys that are no longer in it."""
        with self._turn:
            self._content = read_keyring(self._file)
            self._drop_all_but(self.numbers)

    # In the process that renews

    def end_renewal(self) -> None:
        """Forget all root keys but the one in use, and renew the key-encryption key.

        Call it when nothing in the store is sealed under the old ones any more.
        """
        last = self._content.roots[-1]
        with self._turn:
            self._renew_kek((last,))
            self._drop_all_but((last.number,))
            self._sweep()

    def renew_kek(self) -> None:
        """Renew the key-encryption key alone: no old copy of the keyring opens any more."""
        with self._turn:
            self._renew_kek(self._content.roots)
            self._sweep()

    def sweep(self) -> None:
        """Destroy key-encryption keys that a stop left over. Only when the store opens with this keyring."""
        with self._turn:
            self._sweep()

    def destroy(self) -> None:
        """Destroy the key-encryption key, and the keyring: nothing in the store, or a copy, opens again.

        A renewal that is under way in another thread ends or fails; it brings no key back.
        """
        with self._turn:
            self._destroyed = True
            destroy_keyring(self._file.parent, self._keeper)

    def _renew_kek(self, roots: Iterable[WrappedRoot]) -> None:
        self._check_alive()
        kek_id = self._keeper.make()
        self._write(
            kek_id,
            tuple(
                msgspec.structs.replace(root, wrapped=self._keeper.wrap(kek_id, self._roots[root.number]))
                for root in roots
            ),
        )

    def _drop_all_but(self, numbers: tuple[int, ...]) -> None:
        for number in [each for each in self._roots if each not in numbers]:
            self.sealer.drop(number)
            del self._roots[number]

    def _sweep(self) -> None:
        self._check_alive()
        for kek_id in self._keeper.ids():
            if kek_id != self._content.kek_id:
                self._keeper.destroy(kek_id)
        if (self._file.parent / KEK).exists():
            shred(self._file.parent / KEK)  # of a folder of before there were keyrings

    def _check_alive(self) -> None:
        if self._destroyed:
            raise KeyringDestroyed("the keys of the store are destroyed")

    def _write(self, kek_id: str, roots: tuple[WrappedRoot, ...]) -> None:
        content = KeyringFile(KEYRING_VERSION, kek_id, roots)
        write_durably(self._file, msgspec.json.encode(content))
        self._content = content


def read_keyring(file: Path) -> KeyringFile:
    """Read a keyring's file; ConfigurationError if it is gone, damaged or of another version."""
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
    return content


def destroy_keyring(folder: Path, keeper: KekKeeper) -> None:
    """Destroy every key-encryption key of a node, then its keyring, opened or not.

    The keyring goes even if the token does not answer, and what that raised is raised then: the root keys are
    gone with it from this folder, but an old copy of it opens until the token's key is destroyed, too.
    """
    try:
        for kek_id in keeper.ids():
            keeper.destroy(kek_id)
    finally:
        for name in (KEK, KEYRING):
            if (folder / name).exists():
                shred(folder / name)


def ids_among(names: Iterable[str], prefix: str) -> list[str]:
    """Return the key IDs in names that are a prefix and an ID, and nothing else.

    Nodes whose names begin alike may share a token: the key of ``kme-a`` is none of ``kme``.

    >>> ids_among(["kme-0123456789abcdef", "kme-a-0123456789abcdef", "kme-copy"], "kme-")
    ['0123456789abcdef']
    """
    ids = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return sorted(kek_id for kek_id in ids if KEK_ID.fullmatch(kek_id))


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
