"""A node's backup: its configuration, credentials, audit log and what it knows of its peers, and no key.

A store that is put back would bring spent key back to life (invariant I1); so a backup holds nothing of it
that is sealed, and a restore makes a store of its own, with a new identity and new keys. At the first hello
the peers see a new store, and both ends destroy what they held in common with the lost one. What the node
remembers of its peers' stores comes back with it, so that an old copy of *theirs* is still noticed.

The archive holds private keys of certificates: it has mode 0600 and belongs where those belong.
"""

import io
import os
import tarfile
import time
from pathlib import Path
from typing import Any

import msgspec

from openqci import __version__
from openqci.core.errors import ConfigurationError, Fault
from openqci.core.identifiers import KmeId
from openqci.delivery.peers import PEER_KIND, PeerState
from openqci.keystore.ports import KmeView, StoreTransaction
from openqci.services.data_directory import unusable_named
from openqci.services.kme_config import LoadedConfig
from openqci.services.kme_config_file import load_config
from openqci.services.state_folder import AUDIT, StateFolder

BACKUP_VERSION = 1
MANIFEST, CONFIG = "backup.json", "kme.toml"
MEMBER_BYTES_MAX = 1 << 30


class Manifest(msgspec.Struct, frozen=True):
    """What ``backup.json`` in the archive says."""

    format_version: int
    openqci_version: str
    kme_id: str
    made_at_s: float
    peers: dict[str, PeerState]


def write_backup(loaded: LoadedConfig, out: Path) -> tuple[list[str], list[Path]]:
    """Write the archive of a node that rests; return the names in it, and files that were left out.

    Left out are files that the configuration names and that lie outside its folder. Raises ConfigurationError
    if the node runs, or the archive is there already.
    """
    home = loaded.file.parent
    files, left_out = {CONFIG: loaded.file}, []
    for path in _named_files(loaded):
        name = _name_in(home, path)
        if name is None:
            left_out.append(path)
        else:
            files[name] = path
    folder = StateFolder.open(loaded)
    try:
        store = folder.open_store()
        try:
            peers = store.submit(lambda tx: _peers(tx, loaded)).result()
        finally:
            store.close()
        log = folder.path / AUDIT
        files |= {f"{AUDIT}/{file.name}": file for file in sorted(log.glob("*")) if file.is_file()}
        manifest = Manifest(BACKUP_VERSION, __version__, loaded.kme_id, time.time(), peers)
        with unusable_named(out.parent):
            _write(out, manifest, files)
    finally:
        folder.close()
    return [MANIFEST, *files], left_out


def restore_backup(archive: Path, into: Path, *, replace_token_keys: bool = False) -> Path:
    """Make a node in a folder that is not there yet; return its configuration.

    Raises ConfigurationError if the archive is none, or the folder is there.
    """
    if into.exists():
        raise ConfigurationError(Fault(str(into), "", "is there already; expected a folder to be made"))
    try:
        with tarfile.open(archive, "r:gz") as tar:
            manifest = _manifest(archive, tar)
            members = [member for member in tar.getmembers() if member.name != MANIFEST]
            for member in members:
                if not member.isfile() or member.size > MEMBER_BYTES_MAX:
                    raise ConfigurationError(Fault(str(archive), member.name, "is no plain file of a backup"))
            into.mkdir(mode=0o700, parents=True)
            tar.extractall(into, members, filter="data")
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ConfigurationError(Fault(str(archive), "", f"cannot be restored ({error})")) from None
    loaded = load_config(into / CONFIG)
    if loaded.kme_id != manifest.kme_id:
        raise ConfigurationError(
            Fault(str(archive), "kme_id", f"is {loaded.kme_id!r} in kme.toml, {manifest.kme_id!r} beside it")
        )
    StateFolder.make(loaded, replace_token_keys=replace_token_keys)
    _put_back(loaded, manifest, into)
    return loaded.file


def _put_back(loaded: LoadedConfig, manifest: Manifest, into: Path) -> None:
    folder = StateFolder.open(loaded)
    try:
        store = folder.open_store()
        try:
            store.submit(lambda tx: _remember(tx, loaded, manifest)).result()
        finally:
            store.close()
        saved = into / AUDIT
        if saved.exists() and saved != folder.path / AUDIT:
            saved.rename(folder.path / AUDIT)
    finally:
        folder.close()


def _peers(transaction: StoreTransaction, loaded: LoadedConfig) -> dict[str, PeerState]:
    records = KmeView(transaction, loaded.kme_id).records(PEER_KIND)
    return {peer: msgspec.json.decode(body, type=PeerState) for peer, body in records}


def _remember(transaction: StoreTransaction, loaded: LoadedConfig, manifest: Manifest) -> None:
    view = KmeView(transaction, KmeId(loaded.kme_id))
    for peer, state in manifest.peers.items():
        view.put_record(PEER_KIND, peer, msgspec.json.encode(state))


def _named_files(loaded: LoadedConfig) -> list[Path]:
    """Return the files that a configuration names: certificates, keys, lists, addresses, PINs."""
    found: list[str] = []

    def look(value: Any) -> None:
        if isinstance(value, dict):
            for name, each in value.items():
                if name in FILE_SETTINGS and each is not None:
                    found.extend([each] if isinstance(each, str) else each)
                else:
                    look(each)
        elif isinstance(value, list | tuple):
            for each in value:
                look(each)

    look(msgspec.to_builtins(loaded.config))
    return [loaded.path(text) for text in dict.fromkeys(found)]


FILE_SETTINGS = frozenset(
    {"certificate", "key", "authority", "revocation_lists", "url_file", "psk_file", "pin_file"}
)
"""Settings of ``kme.toml`` whose value is a file, or several, that a node cannot do without."""


def _name_in(home: Path, path: Path) -> str | None:
    """Return a file's name in the archive, or None for one that is not in the node's folder."""
    try:
        return str(Path(os.path.normpath(path)).relative_to(home))
    except ValueError:
        return None


def _write(out: Path, manifest: Manifest, files: dict[str, Path]) -> None:
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as tar:
        document = msgspec.json.format(msgspec.json.encode(manifest))
        member = tarfile.TarInfo(MANIFEST)
        member.size, member.mode, member.mtime = len(document), 0o600, int(manifest.made_at_s)
        tar.addfile(member, io.BytesIO(document))
        for name, path in files.items():
            tar.add(path.resolve(), arcname=name, recursive=False)


def _manifest(archive: Path, tar: tarfile.TarFile) -> Manifest:
    try:
        stream = tar.extractfile(MANIFEST)
        manifest = msgspec.json.decode(stream.read() if stream is not None else b"", type=Manifest)
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            Fault(str(archive), MANIFEST, f"is no manifest of a backup ({error})")
        ) from None
    if manifest.format_version != BACKUP_VERSION:
        raise ConfigurationError(
            Fault(str(archive), MANIFEST, f"has version {manifest.format_version}, expected {BACKUP_VERSION}")
        )
    return manifest
