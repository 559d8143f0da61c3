"""A node's state folder: its store, its keyring, its audit log, and how far the store had come.

::

    STATE/              0700
      node.json         format version, KME ID, when it was made
      keyring.json      root keys of the store, wrapped; kek-ID beside it, unless that key is in a token
      store.sqlite      key and records, unless they are in PostgreSQL
      anchor.json       which store this is, and how far it had come: an older copy of it is refused
      audit/            the audit log
      lock              held by the process that runs the node, and by its workers
"""

import os
import secrets
import time
from contextlib import ExitStack

import msgspec

from openqci.core.errors import ConfigurationError, Fault
from openqci.core.identifiers import KmeId
from openqci.delivery.peers import OwnStore
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.services.data_directory import lock_directory, unusable_named, write_durably
from openqci.services.keyring import FileKeks, KekKeeper, Keyring, Pkcs11Keks, destroy_keyring
from openqci.services.kme_config import LoadedConfig
from openqci.services.postgres_store import PostgresKeyStore, erase, read_url
from openqci.services.sqlite_store import SqliteKeyStore

NODE_FILE, STORE_FILE, AUDIT, ANCHOR = "node.json", "store.sqlite", "audit", "anchor.json"
STATE_VERSION = 1
IDENTITY_KIND = "store-identity"
ORPHANS_END_S_MAX = 5.0
"""How long a start waits for the workers of a node that was killed; they end with it."""


class Anchor(msgspec.Struct, frozen=True):
    """What ``anchor.json`` says: which store is here, and how far it had come at least."""

    store_id: str
    count: int


class NodeDescription(msgspec.Struct, frozen=True):
    """What ``node.json`` in the state folder says."""

    format_version: int
    kme_id: str
    made_at_s: float


class StateFolder:
    """A node's state folder, locked: one process runs it, alone or with the workers that it has started."""

    def __init__(self, loaded: LoadedConfig, lock: int) -> None:
        self.path, self._loaded, self._lock = loaded.state_dir, loaded, lock
        self.keyring: Keyring | None = None

    @classmethod
    def make(cls, loaded: LoadedConfig, *, replace_token_keys: bool = False) -> None:
        """Make the folder of a new node, with its key-encryption key and an empty store.

        Raises ConfigurationError if there is a node already, or if the token holds keys of a node of this
        name, unless they are to be destroyed.
        """
        path, kme_id = loaded.state_dir, loaded.kme_id
        with unusable_named(path):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.chmod(0o700)
            if (path / NODE_FILE).exists():
                raise ConfigurationError(Fault(str(path), "", "is the state folder of a node already"))
            lock = lock_directory(path)
            try:
                folder = cls(loaded, lock)
                keeper = folder.keeper()
                if keeper.place is not None and not replace_token_keys and keeper.ids():
                    raise ConfigurationError(
                        Fault(
                            keeper.place,
                            kme_id,
                            "has a key-encryption key of a node of this name; if that node is no more, "
                            "--replace-token-keys destroys it",
                        )
                    )
                # What a start that was cut off left: no store is there yet that it could open.
                destroy_keyring(path, keeper)
                folder.keyring = Keyring.make(path, keeper)
                store = folder.open_store()
                try:
                    # From here on a store without its anchor is one whose anchor was lost.
                    folder.set_anchor(store.submit(counted_on).result())
                finally:
                    store.close()
                # The description comes last: it says that the folder is whole.
                description = NodeDescription(STATE_VERSION, kme_id, time.time())
                write_durably(path / NODE_FILE, msgspec.json.format(msgspec.json.encode(description)))
            finally:
                os.close(lock)

    @classmethod
    def open(cls, loaded: LoadedConfig) -> "StateFolder":
        """Lock the folder of a node; ConfigurationError if it is none, another's, or in use."""
        path, kme_id = loaded.state_dir, loaded.kme_id
        file = path / NODE_FILE
        with unusable_named(path):
            if not file.exists():
                raise ConfigurationError(
                    Fault(str(path), "", "is no state folder of a node; make one with `openqci kme init`")
                )
            try:
                description = msgspec.json.decode(file.read_bytes(), type=NodeDescription)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ConfigurationError(Fault(str(file), "", f"is damaged ({error})")) from None
            if (description.format_version, description.kme_id) != (STATE_VERSION, kme_id):
                raise ConfigurationError(
                    Fault(
                        str(file),
                        "kme_id",
                        f"is {description.kme_id!r} (version {description.format_version}), expected "
                        f"{kme_id!r} (version {STATE_VERSION})",
                    )
                )
            return cls(loaded, lock_directory(path, ORPHANS_END_S_MAX))

    @property
    def lock(self) -> int:
        """The open lock: a process that inherits it holds the folder, too."""
        return self._lock

    def open_store(self) -> "SqliteKeyStore | PostgresKeyStore":
        """Open the node's store."""
        if self.keyring is None:
            self.keyring = Keyring.open(self.path, self.keeper())
        self.keyring.sealer.share_between(self._loaded.processes)
        store = self._store(self.keyring)
        try:
            self.keyring.sweep()
        except BaseException:
            store.close()
            raise
        return store

    def share_store(self, root_key: int) -> "SqliteKeyStore | PostgresKeyStore":
        """Open the store beside the process that runs the node, and seal under the root key that it uses.

        The keys are that one's to renew and to sweep.
        """
        self.keyring = Keyring.open(self.path, self.keeper())
        self.keyring.sealer.use(root_key)
        self.keyring.sealer.share_between(self._loaded.processes)
        return self._store(self.keyring)

    def _store(self, keyring: Keyring) -> "SqliteKeyStore | PostgresKeyStore":
        database = self._database()
        if database is None:
            return SqliteKeyStore.open(self.path / STORE_FILE, keyring.sealer)
        return PostgresKeyStore.open(database[0], keyring.sealer, database[1])

    def keeper(self) -> KekKeeper:
        """Return what keeps the node's key-encryption key."""
        kek = self._loaded.config.kek
        if kek.kind == "pkcs11" and kek.module and kek.token and kek.pin_file:
            pin_file = self._loaded.path(kek.pin_file)
            return Pkcs11Keks(self._loaded.path(kek.module), kek.token, pin_file, self._loaded.kme_id)
        return FileKeks(self.path)

    def check_anchor(self, identity: dict[str, str]) -> None:
        """Refuse a store that is older than what this folder remembers: spent key would live again (I1).

        ``identity`` is what the store says of itself. Without an anchor only a store that has never run is
        let through: of any other nobody can tell how old it is. Raises ConfigurationError.
        """
        file = self.path / ANCHOR
        if not file.exists():
            if not identity:
                return
            raise ConfigurationError(
                Fault(
                    str(file),
                    "",
                    "is missing, though the key store beside it has been in use: nobody can tell whether "
                    "that is an old copy, in which spent key would live again. If the file was left behind "
                    "when the folder was moved, bring it here; else zeroise the node (`openqci kme zeroise`) "
                    "and make it anew (`openqci kme init --again`): its peers fill its stocks again",
                )
            )
        try:
            anchor = msgspec.json.decode(file.read_bytes(), type=Anchor)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(Fault(str(file), "", f"is damaged ({error})")) from None
        if identity.get("store_id") == anchor.store_id and int(identity.get("count", "0")) >= anchor.count:
            return
        raise ConfigurationError(
            Fault(
                str(self.path),
                "",
                "holds an older copy of its key store, or another one: key that was spent since would live "
                "again. Zeroise the node (`openqci kme zeroise`) and make it anew (`openqci kme init "
                "--again`); there is no other way to go on safely",
            )
        )

    def set_anchor(self, identity: dict[str, str]) -> None:
        """Remember how far the store has come, when it is durable there."""
        anchor = Anchor(identity["store_id"], int(identity["count"]))
        write_durably(self.path / ANCHOR, msgspec.json.encode(anchor))

    def _database(self) -> tuple[str, str] | None:
        """Return address and schema of the PostgreSQL store, or None for SQLite."""
        store = self._loaded.config.store
        if store.kind != "postgresql" or store.url_file is None:
            return None
        return read_url(self._loaded.path(store.url_file)), store.schema_name

    def destroy_kek(self) -> None:
        """Destroy the key-encryption key: nothing in the store, or a copy of it, opens again."""
        if self.keyring is not None:
            self.keyring.destroy()
        else:
            destroy_keyring(self.path, self.keeper())

    def zeroise(self) -> None:
        """Remove key-encryption key, store and description: what stays is the audit log, and the lock.

        If the token or the database does not answer, everything else goes before that is raised.
        """
        with ExitStack() as last_of_all_first:
            last_of_all_first.callback(self._remove_files)
            last_of_all_first.callback(self._erase_database)
            self.destroy_kek()

    def _erase_database(self) -> None:
        database = self._database()
        if database is not None:
            erase(*database)

    def _remove_files(self) -> None:
        for name in (STORE_FILE, f"{STORE_FILE}-wal", f"{STORE_FILE}-shm", ANCHOR, NODE_FILE):
            (self.path / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let another process run the node."""
        os.close(self._lock)


def store_identity(transaction: StoreTransaction) -> dict[str, str]:
    """Return what a store says of itself: ``store_id``, ``generation``, ``count``; empty for a new one."""
    body = KmeView(transaction, KmeId("*")).record(IDENTITY_KIND, "own")
    return msgspec.json.decode(body, type=dict[str, str]) if body is not None else {}


def opened_for_running(transaction: StoreTransaction) -> OwnStore:
    """Return which store this is, counting this opening: peers notice a store that goes back."""
    known = store_identity(transaction)
    own = OwnStore(known.get("store_id") or secrets.token_hex(16), int(known.get("generation", "0")) + 1)
    known |= {"store_id": own.store_id, "generation": str(own.generation)}
    KmeView(transaction, KmeId("*")).put_record(IDENTITY_KIND, "own", msgspec.json.encode(known))
    return own


def counted_on(transaction: StoreTransaction) -> dict[str, str]:
    """Count the store on by one and return its identity: an earlier copy of it has a lower count."""
    known = {"store_id": secrets.token_hex(16), **store_identity(transaction)}
    known["count"] = str(int(known.get("count", "0")) + 1)
    KmeView(transaction, KmeId("*")).put_record(IDENTITY_KIND, "own", msgspec.json.encode(known))
    return known
