"""A node over its life: an old copy is refused, keys are renewed, a backup brings no key back."""

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from openqci.core.errors import ConfigurationError
from openqci.delivery.etsi004_model import QoS, Status
from openqci.services.backup import restore_backup, write_backup
from openqci.services.keyring import Pkcs11Keks
from openqci.services.kme_config_file import load_config
from openqci.services.pki import write_credentials
from openqci.services.roles import Role
from openqci.services.state_folder import StateFolder, store_identity
from tests.conformance.etsi004.make import ALICE, BOB, A, B, StreamSites, opened_by_both
from tests.kme.make import openqci
from tests.services.softhsm import TOKEN, softhsm

QUALITY = QoS(chunk_bytes=32, timeout_ms=20_000, ttl_s=600)


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[StreamSites]:
    running = StreamSites(tmp_path, 19400)
    running.wait_until_met()
    yield running
    running.close()


def test_an_older_copy_of_a_store_is_refused_before_it_serves_anybody(sites: StreamSites) -> None:
    state = sites.folder / B / "state"
    sites.stop(B)
    shutil.copy(state / "store.sqlite", sites.folder / "copy")
    sites.start(B)
    sites.stop(B)
    shutil.copy(sites.folder / "copy", state / "store.sqlite")
    with pytest.raises(ConfigurationError, match="older copy of its key store"):
        sites.start(B)


def test_a_copy_of_a_running_store_is_refused_after_a_clean_stop(sites: StreamSites) -> None:
    state = sites.folder / B / "state"
    copied = sites.folder / "copied"
    copied.mkdir()
    for file in state.glob("store.sqlite*"):
        shutil.copy(file, copied / file.name)
    sites.stop(B)
    for file in state.glob("store.sqlite*"):
        file.unlink()
    for file in copied.iterdir():
        shutil.copy(file, state / file.name)
    with pytest.raises(ConfigurationError, match="older copy of its key store"):
        sites.start(B)


def test_another_store_in_its_place_is_refused(sites: StreamSites) -> None:
    sites.stop(B)
    (sites.folder / B / "state" / "store.sqlite").unlink()
    with pytest.raises(ConfigurationError, match="another one"):
        sites.start(B)


def test_a_store_without_its_anchor_is_refused(sites: StreamSites) -> None:
    sites.stop(B)
    anchor = sites.folder / B / "state" / "anchor.json"
    kept = anchor.read_bytes()
    anchor.unlink()
    with pytest.raises(ConfigurationError, match=r"anchor\.json: is missing.*kme zeroise.*init --again"):
        sites.start(B)
    checked = openqci(sites.folder, "kme", "check", "--offline", "--config", sites.configs[B], expect=1)
    assert "FAULT state folder" in checked.stdout and "anchor.json" in checked.stdout
    anchor.write_bytes(kept)
    sites.start(B)


def test_the_way_on_from_a_lost_anchor(sites: StreamSites) -> None:
    alice, bob = sites.client(ALICE), sites.client(BOB)
    opened_by_both(alice, bob, QUALITY)
    sites.hang_up()
    sites.stop(B)
    (sites.folder / B / "state" / "anchor.json").unlink()
    again = ("kme", "init", sites.configs[B].parent, "--again")
    assert "is the state folder of a node already" in openqci(sites.folder, *again, expect=2).stderr
    openqci(sites.folder, "kme", "zeroise", "--config", sites.configs[B], "--yes")
    openqci(sites.folder, *again)
    sites.start(B)
    sites.wait_until_met()
    alice, bob = sites.client(ALICE), sites.client(BOB)
    ksid = opened_by_both(alice, bob, QUALITY)
    assert alice.get(ksid, 0).key == bob.get(ksid, 0).key


def test_a_new_node_has_an_anchor_and_a_store_that_never_ran_needs_none(tmp_path: Path) -> None:
    words = ("kme", "init", "node", "--kme-id", "kme-n", "--host", "localhost", "--sae", "app", "--peer", "")
    openqci(tmp_path, *words)
    loaded = load_config(tmp_path / "node" / "kme.toml")
    folder = StateFolder.open(loaded)
    try:
        store = folder.open_store()
        identity = store.submit(store_identity).result()
        store.close()
        folder.check_anchor(identity)
        (folder.path / "anchor.json").unlink()
        with pytest.raises(ConfigurationError, match="is missing"):
            folder.check_anchor(identity)
        folder.check_anchor({})  # as a node that was made before anchors were, and never ran
    finally:
        folder.close()


def test_keys_are_renewed_while_the_node_serves(sites: StreamSites) -> None:
    alice, bob = sites.client(ALICE), sites.client(BOB)
    ksid = opened_by_both(alice, bob, QUALITY)
    assert alice.get(ksid, 0).key == bob.get(ksid, 0).key
    state = sites.folder / A / "state"
    before = {file.name for file in state.glob("kek-*")}
    assert [sites.on_loop(sites.apps[kme].renew()) for kme in (A, B)] == [2, 2]
    after = {file.name for file in state.glob("kek-*")}
    assert len(after) == 1 and not before & after
    assert [alice.get(ksid, index).key for index in range(1, 20)] == [
        bob.get(ksid, index).key for index in range(1, 20)
    ]
    sites.hang_up()
    sites.stop(A)
    sites.start(A)
    sites.wait_until_met()
    alice = sites.client(ALICE)
    assert alice.get(ksid, 20).status is Status.SUCCESS


def test_the_security_officer_renews_the_keys(sites: StreamSites) -> None:
    for role, name in ((Role.SECURITY_OFFICER, "ana"), (Role.OPERATOR, "oleg")):
        write_credentials(sites.folder / name, sites.authority.issue_holder(role, name), sites.authority)
    words = ("kme", "renew", "--config", sites.configs[A], "--certificate")
    ana, oleg = (sites.folder / name for name in ("ana", "oleg"))
    done = openqci(sites.folder, *words, ana / "cert.pem", "--key", ana / "key.pem")
    assert "root key 2 is in use" in done.stdout
    done = openqci(sites.folder, *words, oleg / "cert.pem", "--key", oleg / "key.pem", expect=1)
    assert "needs a certificate with the role security-officer" in done.stderr


def test_a_node_with_its_key_encryption_key_in_a_token(tmp_path: Path) -> None:
    module, pin_file = softhsm()
    openqci(
        tmp_path,
        *(
            "kme",
            "init",
            "node",
            "--kme-id",
            "kme-token",
            "--host",
            "localhost",
            "--sae",
            "app",
            "--peer",
            "",
        ),
        *("--pkcs11-module", module, "--pkcs11-token", TOKEN, "--pkcs11-pin-file", pin_file),
    )
    loaded = load_config(tmp_path / "node" / "kme.toml")
    keks = Pkcs11Keks(module, TOKEN, pin_file, "kme-token")
    assert len(keks.ids()) == 1 and not list((tmp_path / "node" / "state").glob("kek*"))
    folder = StateFolder.open(loaded)
    folder.open_store().close()
    folder.close()
    (kek,) = keks.ids()
    again = ("kme", "init", "again", "--kme-id", "kme-token", "--host", "localhost", "--sae", "app")
    token = ("--pkcs11-module", module, "--pkcs11-token", TOKEN, "--pkcs11-pin-file", pin_file)
    refused = openqci(tmp_path, *again, *token, expect=2)
    assert "--replace-token-keys destroys it" in refused.stderr and keks.ids() == [kek]
    openqci(tmp_path, "kme", "zeroise", "--config", "node/kme.toml", "--yes")
    assert keks.ids() == []
    openqci(tmp_path, *again, *token)
    (kek,) = keks.ids()
    shutil.rmtree(tmp_path / "again")
    openqci(tmp_path, *again, *token, "--replace-token-keys")
    assert len(keks.ids()) == 1 and keks.ids() != [kek]
    openqci(tmp_path, "kme", "zeroise", "--config", "again/kme.toml", "--yes")


def test_a_backup_holds_no_key_and_its_restore_brings_none_back(sites: StreamSites) -> None:
    alice, bob = sites.client(ALICE), sites.client(BOB)
    ksid = opened_by_both(alice, bob, QUALITY)
    first = alice.get(ksid, 0).key
    sites.hang_up()
    config = sites.configs[A]
    archive = sites.folder / "a.backup.tar.gz"
    assert (
        "is in use by process"
        in openqci(sites.folder, "kme", "backup", "--config", config, "--out", archive, expect=2).stderr
    )
    sites.stop(A)
    done = openqci(sites.folder, "kme", "backup", "--config", config, "--out", archive)
    assert "no key of the store" in done.stdout and archive.stat().st_mode & 0o077 == 0
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
    assert {"kme.toml", "cert.pem", "key.pem", "ca.pem", "backup.json"} <= names
    assert not any(part in name for name in names for part in ("store", "kek", "keyring", "anchor"))
    shutil.rmtree(config.parent)
    openqci(sites.folder, "kme", "restore", archive, "--into", config.parent)
    sites.start(A)
    sites.wait_until_met()
    # Both ends have destroyed what they held in common: the old stream is gone, and its key with it.
    alice, bob = sites.client(ALICE), sites.client(BOB)
    assert alice.get(ksid, 0).status is Status.NO_CONNECTION
    assert bob.get(ksid, 0).status is Status.NO_CONNECTION
    ksid = opened_by_both(alice, bob, QUALITY)
    again = alice.get(ksid, 0)
    assert again.key == bob.get(ksid, 0).key != first


def test_what_is_no_backup_is_refused(sites: StreamSites, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"no archive")
    with pytest.raises(ConfigurationError, match="cannot be restored"):
        restore_backup(wrong, tmp_path / "new")
    with pytest.raises(ConfigurationError, match="is there already"):
        restore_backup(wrong, tmp_path)
    sites.stop(A)
    write_backup(load_config(sites.configs[A]), tmp_path / "one.tar.gz")
    with pytest.raises(ConfigurationError, match="exists"):
        write_backup(load_config(sites.configs[A]), tmp_path / "one.tar.gz")
    evil = tmp_path / "evil.tar.gz"
    with tarfile.open(tmp_path / "one.tar.gz") as old, tarfile.open(evil, "w:gz") as new:
        for member in old.getmembers():
            content = old.extractfile(member)
            if member.name == "kme.toml":
                member.name = "../outside"
            new.addfile(member, content)
    with pytest.raises(ConfigurationError, match="cannot be restored"):
        restore_backup(evil, tmp_path / "new")
    assert not (tmp_path / "outside").exists()
