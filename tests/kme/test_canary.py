"""Known keys go through two real nodes; afterwards nothing but the applications has them (invariant I5).

They come from modules that run dry, are agreed, and are delivered over ETSI GS QKD 014 and SKIP. Then nothing
new comes: what was left behind is not overwritten by chance. docs/explanation/security-model.md, "Keys in
memory", promises what is tested here, and no more.
"""

import base64
import json
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests.kme.canaries import CanaryModules
from tests.kme.core import PIECE_BYTES, Haystack, finds, needles, writable
from tests.kme.make import keys_in_time, openqci
from tests.kme.torture import TwoSites
from tests.system.make import free_port_base

KEYS, SKIP_KEYS = 192, 3
EMPTY_S = 6.0
"""A node whose modules are dry makes no more key of what it has after this time."""

WIPED_WITHIN_S = 2.0
"""After the last answer: a wipe is in the turn of the loop that sends it."""

MAC_KEY_PIECES_MAX = 64
"""Pieces of 8 bytes of spent one-time MAC keys that OpenSSL may leave in a node's memory."""


SEED, SEED_NEAR_BYTES = b"id_seed", 40
"""A seed stands behind this word, in the records of batches and in what nodes tell each other of them."""


@dataclass
class Told:
    """What applications and operators were told."""

    keys: list[bytes] = field(default_factory=list)
    key_ids: list[str] = field(default_factory=list)
    documents: list[bytes] = field(default_factory=list)


class CanarySites(TwoSites):
    """Two nodes that serve SKIP, too, with an operator."""

    def __init__(self, folder: Path, port_base: int) -> None:
        super().__init__(folder, port_base)
        openqci(folder, "pki", "issue", "pki", "--role", "operator", "--name", "op", "--out", "op")
        for end in "ab":
            config = folder / end / "kme.toml"
            listen = f'[listen]\nskip = "127.0.0.1:{self.port(end, 3)}"'
            text = config.read_text().replace("[listen]", listen, 1)
            config.write_text(text + '[log]\nlevel = "info"\n')

    def port(self, end: str, number: int) -> int:
        return self.base + (0 if end == "a" else 10) + number

    def ask(self, end: str, number: int, folder: str, path: str) -> tuple[int, bytes]:
        """Ask an interface with the certificate in a folder."""
        tls = ssl.create_default_context(cafile=str(self.folder / "pki" / "ca.pem"))
        tls.load_cert_chain(self.folder / folder / "cert.pem", self.folder / folder / "key.pem")
        port = self.port(end, number)
        with closing(HTTPSConnection("localhost", port, context=tls, timeout=30)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def pid(self, end: str) -> int:
        process = self.kmes[end].process
        assert process is not None
        return process.pid


@pytest.fixture(scope="module")
def modules_and_sites(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[CanaryModules, CanarySites]]:
    folder = tmp_path_factory.mktemp("canary")
    sites = CanarySites(folder, free_port_base(40, 19400))
    with CanaryModules(folder / "m", (sites.base + 20, sites.base + 21), KEYS) as modules:
        try:
            for process in sites.kmes.values():
                process.start()
            yield modules, sites
        finally:
            for process in sites.kmes.values():
                process.kill()


@pytest.fixture(scope="module")
def sites(modules_and_sites: tuple[CanaryModules, CanarySites]) -> CanarySites:
    return modules_and_sites[1]


@pytest.fixture(scope="module")
def modules(modules_and_sites: tuple[CanaryModules, CanarySites]) -> CanaryModules:
    return modules_and_sites[0]


@pytest.fixture(scope="module")
def told(modules: CanaryModules, sites: CanarySites) -> Told:
    """Deliver all that the modules' key becomes, in every form; provoke errors; then wait a moment."""
    told = Told()
    deliver_over_skip(sites, told)
    deliver_over_014(sites, told)
    assert modules.dry
    with closing(sites.client("b")) as slave:
        for key_ids in (told.key_ids[:3], ["no ID"], told.key_ids * 2):
            refused = slave.dec_keys("app-a", key_ids)
            assert refused.status == 400
            told.documents.append(json.dumps(refused.body).encode())
    for end in "ab":
        for path in ("/status", "/metrics"):
            status, document = sites.ask(end, 2, "op", path)
            assert status == 200
            told.documents.append(document)
    time.sleep(WIPED_WITHIN_S)
    return told


def deliver_over_014(sites: CanarySites, told: Told) -> None:
    with closing(sites.client("a")) as master, closing(sites.client("b")) as slave:
        number = 1
        while (answer := keys_in_time(master, "app-b", number, EMPTY_S)).status == 200:
            assert slave.dec_keys("app-a", answer.key_ids).keys == answer.keys
            told.keys += answer.keys
            told.key_ids += answer.key_ids
            number = number % 40 + 1
        assert answer.status == 503


def deliver_over_skip(sites: CanarySites, told: Told) -> None:
    give_up_s = time.monotonic() + 30
    while len(told.keys) < SKIP_KEYS and time.monotonic() < give_up_s:
        status, document = sites.ask("a", 3, "app-a", "/key?remoteSystemID=app-b")
        if status == 200:
            key = json.loads(document)
            path = f"/key/{key['keyId']}?remoteSystemID=app-a"
            assert sites.ask("b", 3, "app-b", path) == (200, document)
            told.keys.append(bytes.fromhex(key["key"]))
    assert len(told.keys) == SKIP_KEYS


def test_what_is_looked_for_is_what_the_modules_gave(told: Told, modules: CanaryModules) -> None:
    given = needles(modules.keys.values())
    assert len(told.keys) > KEYS // 2
    for key in told.keys:  # between neighbours the delivered key is link key
        assert all(key[at : at + PIECE_BYTES] in given for at in range(0, len(key), PIECE_BYTES))


def test_the_search_finds_what_is_there(told: Told, sites: CanarySites) -> None:
    """In the same memory: the name of a node as its certificate has it. And every form of a key."""
    for end in "ab":
        assert finds(sites.pid(end), Haystack({b"urn:openqci:kme:kme-%b" % end.encode(): "name"}))
    key = told.keys[0]
    for text, form in (
        (b"12345" + key[:15], "raw"),
        (b"1" + key.hex().encode(), "hex"),
        (b"1" + key.hex().upper().encode(), "hex"),
        *((base64.b64encode(bytes(shift) + key + b"1"), "base64") for shift in range(5)),
    ):
        assert set(Haystack(needles([key])).count(text)) == {form}


def test_no_delivered_key_is_left_in_memory(told: Told, sites: CanarySites) -> None:
    haystack = Haystack(needles(told.keys))
    assert {end: dict(finds(sites.pid(end), haystack)) for end in "ab"} == {"a": {}, "b": {}}


def test_no_delivered_key_is_left_in_a_file(told: Told, sites: CanarySites) -> None:
    haystack = Haystack(needles(told.keys))
    files = [file for end in "ab" for file in (sites.folder / end).rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert {"store.sqlite", "store.sqlite-wal"} <= names and any(
        file.parent.name == "audit" for file in files
    )
    for file in (*files, *(process.log for process in sites.kmes.values())):
        assert not haystack.count(file.read_bytes()), file


def test_no_delivered_key_is_in_what_is_told(told: Told) -> None:
    haystack = Haystack(needles(told.keys))
    for document in told.documents:
        assert document and not haystack.count(document)


def test_what_else_is_left_of_link_key(told: Told, modules: CanaryModules, sites: CanarySites) -> None:
    """Beside the seeds of key IDs, which are no secret: some of the one-time MAC keys that were spent."""
    haystack = Haystack(needles(modules.keys.values()))
    for end in "ab":
        found = [
            (piece, SEED in content[max(0, at - SEED_NEAR_BYTES) : at])
            for _, content in writable(sites.pid(end))
            for at, piece in haystack.places(content)
        ]
        seeds = {piece for piece, is_seed in found if is_seed}
        left = Counter(haystack.form(piece) for piece, _ in found if piece not in seeds)
        assert left["hex"] == 0
        assert left.total() <= MAC_KEY_PIECES_MAX, left
