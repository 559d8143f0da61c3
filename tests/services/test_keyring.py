"""Root keys and key-encryption keys: renewal, crypto-erasure, and stops between any two steps."""

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openqci.core.errors import ConfigurationError, IntegrityError
from openqci.core.keys import SecretBytes
from openqci.crypto.sealing import Sealer
from openqci.keystore.ledger import RESEAL_SEGMENTS, SEGMENT_BYTES
from openqci.keystore.memory import MemoryKeyStore
from openqci.services import keyring as module
from openqci.services.keyring import FileKeks, KekKeeper, Keyring, Pkcs11Keks, destroy_keyring
from openqci.services.postgres_store import PostgresKeyStore
from openqci.services.sqlite_store import SqliteKeyStore
from tests.keystore.make import LINK, LISBON
from tests.keystore.postgres import new_schema, server_url
from tests.services.softhsm import TOKEN, softhsm

Made = tuple[Path, KekKeeper]


@pytest.fixture(params=["file", "pkcs11"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    """Return a folder and a keeper of key-encryption keys."""
    if request.param == "file":
        return tmp_path, FileKeks(tmp_path)
    library, pin_file = softhsm()
    return tmp_path, Pkcs11Keks(library, TOKEN, pin_file, f"kme-{secrets.token_hex(4)}")


def roots_of(keyring: Keyring) -> dict[int, bytes]:
    return dict(keyring._roots)


def test_a_keyring_opens_again(made: Made) -> None:
    keyring = Keyring.make(*made)
    again = Keyring.open(*made)
    assert again.numbers == (1,) and roots_of(again) == roots_of(keyring)
    assert len(made[1].ids()) == 1


def test_a_renewal_leaves_one_new_root_key_and_one_new_kek(made: Made) -> None:
    keyring = Keyring.make(*made)
    before, (kek,) = roots_of(keyring), made[1].ids()
    keyring.begin_renewal()
    assert keyring.numbers == (1, 2) and roots_of(Keyring.open(*made)) == roots_of(keyring)
    keyring.end_renewal()
    again = Keyring.open(*made)
    assert again.numbers == (2,) and again.sealer.current == 2
    assert before[1] not in roots_of(again).values()
    assert made[1].ids() != [kek] and len(made[1].ids()) == 1


def test_an_old_keyring_does_not_open_after_a_renewal(made: Made) -> None:
    folder, keeper = made
    keyring = Keyring.make(folder, keeper)
    old = (folder / "keyring.json").read_bytes()
    keyring.begin_renewal()
    keyring.end_renewal()
    (folder / "keyring.json").write_bytes(old)
    with pytest.raises((ConfigurationError, IntegrityError)):
        Keyring.open(folder, keeper)


class Stop(Exception):
    """The process ends here."""


@pytest.mark.parametrize("steps", range(7))
def test_a_stop_between_any_two_steps_of_a_renewal_loses_nothing(
    made: Made, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, keeper = made
    keyring = Keyring.make(folder, keeper)
    left = [steps]

    def stopping(act: Callable[..., Any]) -> Callable[..., Any]:
        def stopped(*args: Any) -> Any:
            if not left[0]:
                raise Stop
            left[0] -= 1
            return act(*args)

        return stopped

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_durably", stopping(module.write_durably))
        for verb in ("make", "wrap", "destroy"):
            patch.setattr(type(keeper), verb, stopping(getattr(type(keeper), verb)))
        ended = False
        try:
            keyring.begin_renewal()
            keyring.end_renewal()
            ended = True
        except Stop:
            pass
    again = Keyring.open(folder, keeper)
    # Every root key that something may be sealed under still opens; nothing is left over.
    assert again.numbers in ((1,), (1, 2), (2,)) and len(keeper.ids()) == 1
    assert roots_of(again).items() <= roots_of(keyring).items() or again.numbers[-1] == 2
    if ended:
        assert again.numbers == (2,)
    again.end_renewal() if len(again.numbers) > 1 else again.begin_renewal()
    assert Keyring.open(folder, keeper).numbers


def test_destroyed_keys_open_nothing(made: Made) -> None:
    folder, keeper = made
    Keyring.make(folder, keeper)
    destroy_keyring(folder, keeper)
    assert keeper.ids() == []
    with pytest.raises(ConfigurationError, match="nothing in the store opens"):
        Keyring.open(folder, keeper)


def test_a_folder_with_one_key_becomes_a_keyring(tmp_path: Path) -> None:
    kek = secrets.token_bytes(32)
    (tmp_path / "kek").write_bytes(kek)
    (tmp_path / "kek").chmod(0o600)
    store = SqliteKeyStore.open(tmp_path / "s", kek)
    store.submit(lambda tx: tx.append(LISBON, LINK, SecretBytes(b"x" * 5000))).result()
    store.close()
    keyring = Keyring.open(tmp_path, FileKeks(tmp_path))
    assert keyring.numbers == (0,) and not (tmp_path / "kek").exists()
    store = SqliteKeyStore.open(tmp_path / "s", keyring.sealer)
    renew(store, keyring)
    assert store.submit(lambda tx: tx.take(LISBON, LINK, 0, 5000)).result().reveal() == b"x" * 5000
    store.close()


def test_a_wrong_pin_is_told_without_the_pin(tmp_path: Path) -> None:
    library, _ = softhsm()
    wrong = tmp_path / "pin"
    wrong.write_text("0000wrong")
    wrong.chmod(0o600)
    with pytest.raises(ConfigurationError, match="refuses the PIN") as error:
        Pkcs11Keks(library, TOKEN, wrong, "x").ids()
    assert "0000wrong" not in str(error.value)
    wrong.chmod(0o644)
    with pytest.raises(ConfigurationError, match="mode 0600"):
        Pkcs11Keks(library, TOKEN, wrong, "x").ids()
    with pytest.raises(ConfigurationError, match="no-such-token"):
        Pkcs11Keks(library, "no-such-token", softhsm()[1], "x").ids()


def renew(store: Any, keyring: Keyring) -> int:
    """Do what a node does; return how many steps it took."""
    keyring.begin_renewal()
    place: tuple[int, int] | None = (0, -1)
    steps = 0
    while place is not None:
        place = store.submit(lambda tx, place=place: tx.reseal(*place)).result()
        steps += 1
    keyring.end_renewal()
    return steps


def open_store(kind: str, folder: Path, schema: str, sealer: Sealer) -> Any:
    if kind == "sqlite":
        return SqliteKeyStore.open(folder / "store.sqlite", sealer)
    if kind == "postgresql":
        return PostgresKeyStore.open(server_url(), sealer, schema)
    return MemoryKeyStore(sealer)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql"])
def test_what_is_unspent_outlives_a_renewal_and_nothing_else_does(tmp_path: Path, kind: str) -> None:
    keyring, schema = Keyring.make(tmp_path, FileKeks(tmp_path)), new_schema()
    store = open_store(kind, tmp_path, schema, keyring.sealer)
    key = secrets.token_bytes(SEGMENT_BYTES * (RESEAL_SEGMENTS + 20))
    store.submit(lambda tx: tx.append(LISBON, LINK, SecretBytes(key))).result()
    store.submit(lambda tx: tx.append(LISBON, "other", SecretBytes(key[:100]))).result()
    store.submit(lambda tx: tx.take(LISBON, LINK, 1000, 5000)).result()
    old = roots_of(keyring)[1]
    assert renew(store, keyring) == 2
    if kind != "memory":
        store.close()
        keyring = Keyring.open(tmp_path, FileKeks(tmp_path))
        store = open_store(kind, tmp_path, schema, keyring.sealer)
    assert keyring.numbers == (2,) and old not in roots_of(keyring).values()
    assert bytes(store.submit(lambda tx: tx.take(LISBON, LINK, 0, 1000)).result().reveal()) == key[:1000]
    rest = len(key) - 6000
    assert bytes(store.submit(lambda tx: tx.take(LISBON, LINK, 6000, rest)).result().reveal()) == key[6000:]
    store.close()


def test_a_copy_of_the_database_from_before_a_renewal_does_not_open(tmp_path: Path) -> None:
    """The backup that cannot resurrect a spent key: database and keyring are put back, and open nothing."""
    keyring = Keyring.make(tmp_path, FileKeks(tmp_path))
    store = SqliteKeyStore.open(tmp_path / "store.sqlite", keyring.sealer)
    store.submit(lambda tx: tx.append(LISBON, LINK, SecretBytes(b"spent later" * 300))).result()
    store.close()
    shutil.copy(tmp_path / "store.sqlite", tmp_path / "copy")
    shutil.copy(tmp_path / "keyring.json", tmp_path / "keyring-copy")
    store = SqliteKeyStore.open(tmp_path / "store.sqlite", keyring.sealer)
    store.submit(lambda tx: tx.take(LISBON, LINK, 0, 3300)).result()
    renew(store, keyring)
    store.close()
    with pytest.raises(ConfigurationError, match="another key-encryption key"):
        SqliteKeyStore.open(tmp_path / "copy", keyring.sealer)
    shutil.copy(tmp_path / "keyring-copy", tmp_path / "keyring.json")
    with pytest.raises((ConfigurationError, IntegrityError)):
        Keyring.open(tmp_path, FileKeks(tmp_path))
