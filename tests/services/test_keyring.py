"""Root keys and key-encryption keys: renewal, crypto-erasure, and stops between any two steps."""

import secrets
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from openqci.core.errors import ConfigurationError, IntegrityError
from openqci.core.keys import SecretBytes
from openqci.crypto.sealing import Sealer
from openqci.keystore.ledger import RESEAL_SEGMENTS, SEGMENT_BYTES
from openqci.keystore.memory import MemoryKeyStore
from openqci.services import keyring as module
from openqci.services.keyring import (
    FileKeks,
    KekKeeper,
    Keyring,
    KeyringDestroyed,
    Pkcs11Keks,
    destroy_keyring,
)
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


def test_a_process_beside_learns_and_forgets_root_keys(made: Made) -> None:
    """It opens what is sealed under a new key before anybody seals so, and loses the old one at the end."""
    keyring = Keyring.make(*made)
    beside = Keyring.open(*made)
    keyring.make_root()
    assert keyring.sealer.current == 1
    beside.learn()
    assert roots_of(beside) == roots_of(keyring) and beside.sealer.current == 1
    keyring.use_newest()
    beside.use_newest()
    assert beside.sealer.current == keyring.sealer.current == 2
    keyring.end_renewal()
    assert set(roots_of(beside)) == {1, 2}
    beside.forget_old()
    assert roots_of(beside) == roots_of(keyring) and set(roots_of(beside)) == {2}
    with pytest.raises(IntegrityError, match="only a root key that is known"):
        beside.sealer.use(1)


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


def renew_all(keyring: Keyring) -> None:
    keyring.begin_renewal()
    keyring.end_renewal()


@pytest.mark.parametrize("steps", range(7))
@pytest.mark.parametrize("what", [renew_all, Keyring.renew_kek])
def test_a_stop_between_any_two_steps_of_a_renewal_loses_nothing(
    made: Made, steps: int, what: Callable[[Keyring], None], monkeypatch: pytest.MonkeyPatch
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
            what(keyring)
            ended = True
        except Stop:
            pass
    again = Keyring.open(folder, keeper)
    again.sweep()
    # Every root key that something may be sealed under still opens; nothing is left over.
    assert again.numbers in ((1,), (1, 2), (2,)) and len(keeper.ids()) == 1
    assert roots_of(again).items() <= roots_of(keyring).items() or again.numbers[-1] == 2
    if ended and what is renew_all:
        assert again.numbers == (2,)
    again.end_renewal() if len(again.numbers) > 1 else again.begin_renewal()
    assert Keyring.open(folder, keeper).numbers


def test_the_key_encryption_key_alone_is_renewed_and_old_keyrings_are_dead(made: Made) -> None:
    folder, keeper = made
    keyring = Keyring.make(folder, keeper)
    keyring.begin_renewal()
    before, old, keks = roots_of(keyring), (folder / "keyring.json").read_bytes(), keeper.ids()
    keyring.renew_kek()
    assert roots_of(Keyring.open(folder, keeper)) == before and len(keeper.ids()) == 1
    assert keeper.ids() != keks
    present = (folder / "keyring.json").read_bytes()
    (folder / "keyring.json").write_bytes(old)
    with pytest.raises(ConfigurationError):
        Keyring.open(folder, keeper)
    # An old keyring that lay there by mistake has cost nothing.
    (folder / "keyring.json").write_bytes(present)
    assert roots_of(Keyring.open(folder, keeper)) == before


def test_what_a_token_did_not_wrap_does_not_open(made: Made) -> None:
    _, keeper = made
    kek_id, other = keeper.make(), keeper.make()
    wrapped = keeper.wrap(kek_id, bytes(range(32)))
    changed = wrapped[:-1] + bytes([wrapped[-1] ^ 1])
    assert keeper.unwrap(kek_id, wrapped) == bytes(range(32))
    for name, text in ((kek_id, changed), (kek_id, wrapped[:-8]), (kek_id, b""), (other, wrapped)):
        with pytest.raises(IntegrityError, match="does not open"):
            keeper.unwrap(name, text)


def test_nodes_with_names_that_begin_alike_share_a_token_and_leave_each_other_alone(tmp_path: Path) -> None:
    library, pin_file = softhsm()
    name = f"kme-{secrets.token_hex(4)}"
    names = [name, f"{name}-a", f"{name}-a-0123456789abcdef"]
    made = []
    for node in names:
        folder = tmp_path / node
        folder.mkdir()
        made.append((folder, Pkcs11Keks(library, TOKEN, pin_file, node)))
    keyrings = [Keyring.make(*each) for each in made]
    for keyring, (_, keeper) in zip(keyrings, made, strict=True):
        keyring.sweep()
        assert len(keeper.ids()) == 1
    destroy_keyring(*made[0])
    for each in made[1:]:
        Keyring.open(*each)


def test_a_token_bears_several_threads() -> None:
    library, pin_file = softhsm()
    keeper = Pkcs11Keks(library, TOKEN, pin_file, f"kme-{secrets.token_hex(4)}")
    kek_id = keeper.make()
    with ThreadPoolExecutor(4) as threads:
        seen = list(threads.map(lambda _: keeper.ids(), range(40)))
    assert seen == [[kek_id]] * 40


@pytest.mark.parametrize("verb", ["begin_renewal", "end_renewal", "renew_kek", "sweep"])
def test_a_keyring_that_was_destroyed_brings_nothing_back(made: Made, verb: str) -> None:
    folder, keeper = made
    keyring = Keyring.make(folder, keeper)
    keyring.begin_renewal()
    keyring.destroy()
    with pytest.raises(KeyringDestroyed):
        getattr(keyring, verb)()
    assert keeper.ids() == [] and not (folder / "keyring.json").exists()


def test_a_renewal_under_way_does_not_outlive_a_zeroisation(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new key-encryption key is made after the officer's word has seen which there are."""
    folder, keeper = made
    keyring = Keyring.make(folder, keeper)
    keyring.begin_renewal()
    seen, ids = threading.Event(), type(keeper).ids

    def slow_ids(self: Any) -> list[str]:
        found: list[str] = ids(self)
        seen.set()
        time.sleep(0.2)
        return found

    with ThreadPoolExecutor(1) as thread, monkeypatch.context() as patch:
        patch.setattr(type(keeper), "ids", slow_ids)
        destroyed = thread.submit(keyring.destroy)
        assert seen.wait(10)
        with pytest.raises(KeyringDestroyed):
            keyring.end_renewal()
        destroyed.result()
    assert keeper.ids() == [] and not (folder / "keyring.json").exists()


def test_a_token_that_does_not_answer_leaves_no_keyring(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, keeper = made
    Keyring.make(folder, keeper)

    def gone(self: Any) -> list[str]:
        raise ConfigurationError("token x: cannot be used")

    monkeypatch.setattr(type(keeper), "ids", gone)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        destroy_keyring(folder, keeper)
    assert not (folder / "keyring.json").exists()


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
    assert keyring.numbers == (0,)
    store = SqliteKeyStore.open(tmp_path / "s", keyring.sealer)
    keyring = Keyring.open(tmp_path, FileKeks(tmp_path))  # a stop came before the old key was removed
    keyring.sweep()
    assert not (tmp_path / "kek").exists()
    store.close()
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
