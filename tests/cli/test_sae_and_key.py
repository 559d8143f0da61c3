"""``openqci sae``, ``key`` and ``pki`` beside a running network: what they do and how they refuse."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from openqci.cli.main import main
from openqci.core.identifiers import KmeId, SaeId
from openqci.services.data_directory import DataDirectory
from openqci.services.pki import CertificateAuthority
from openqci.services.sqlite_store import SqliteKeyStore
from tests.conformance.etsi014.make import RunningKmes
from tests.delivery.make import LISBON, WARSAW, key_bytes, stock_pair


class Network(RunningKmes):
    """Two KMEs on a real data directory."""

    def __init__(self, folder: Path) -> None:
        self.directory = DataDirectory.open_or_create(folder, "tiny", "digest")
        CertificateAuthority.open_or_create(self.directory.pki_dir)
        super().__init__(folder)
        kmes = [
            {"kme_id": kme, "site_id": kme.removeprefix("kme-"), "domain": "XX", "url": self.url(kme)}
            for kme in (LISBON, WARSAW)
        ]
        self.directory.kmes_file.write_text(json.dumps({"ca": "", "console_url": "", "kmes": kmes}))

    def open_store(self) -> SqliteKeyStore:
        return SqliteKeyStore.open(self.directory.store_path, self.directory.kek())


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    running = Network(tmp_path_factory.mktemp("data") / "net")
    for sae_id, site in (("north", "lisbon"), ("south", "warsaw")):
        out = running.folder / "out" / sae_id
        assert openqci(running, "sae", "enrol", "--site", site, "--id", sae_id, "--out", out) == 0
    yield running
    running.close()
    running.directory.close()


def openqci(network: Network, command: str, *arguments: object) -> int:
    words = [command]
    rest = list(map(str, arguments))
    if command in ("sae", "pki"):
        words.append(rest.pop(0))
    return main([*words, "--data-dir", str(network.folder), *rest])


def stock(network: Network, keys: int) -> bytes:
    key = key_bytes(32 * keys)
    master, slave = SaeId("north"), SaeId("south")
    network.store.submit(lambda tx: stock_pair(tx, key, master=master, slave=slave)).result()
    return key


def test_a_key_at_both_ends(network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    stock(network, 2)
    assert openqci(network, "key", "--from", "north", "--to", "south", "--number", 2, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["equal"] is True and len(report["key_ids"]) == 2 and "keys" not in report
    assert report["route"] == ["lisbon", "madrid", "warsaw"] and report["hops"] == 2
    assert report["epsilon"] == 2e-10 and report["simulated"] is True and report["size_bits"] == 256
    assert set(report["timings"]) == {"enc_ms", "dec_ms", "total_ms", "waited_s"}


def test_the_key_itself_only_when_asked(network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    key = stock(network, 2)
    arguments = ("key", "--from", "north", "--to", "south", "--size", 128)
    assert openqci(network, *arguments, "--show-key", "--json") == 0
    shown = base64.b64decode(json.loads(capsys.readouterr().out)["keys"][0])
    assert shown == key[:16]
    assert openqci(network, *arguments) == 0
    text = capsys.readouterr().out
    assert "equal at both ends" in text and "lisbon > madrid > warsaw" in text
    assert base64.b64encode(key[16:32]).decode() not in text


def test_no_key_in_time_is_a_negative_result(network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    assert openqci(network, "key", "--from", "south", "--to", "north", "--timeout", 0.1) == 1
    assert "insufficient key material" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "nobody", "--to", "south"), "'nobody' is not enrolled"),
        (("--from", "north", "--to", "north"), "caller's own"),
        (("--from", "north", "--to", "south", "--size", "255"), "multiple of 8"),
        (("--from", "north", "--to", "south", "--number", "0"), "number shall be"),
    ],
)
def test_a_bad_key_request_is_one_line(
    network: Network, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert openqci(network, "key", *arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("site", "sae_id", "said"),
    [
        ("lisbn", "new", "did you mean lisbon?"),
        ("atlantis", "new", "is not in this network"),
        ("lisbon", "", "expected 1 to 64"),
        ("lisbon", "x" * 65, "expected 1 to 64"),
        ("lisbon", "café", "RFC 3986"),
        ("lisbon", "a%2", "RFC 3986"),
        ("warsaw", "north", "already enrolled at lisbon"),
        ("lisbon", "north", "already enrolled at lisbon"),
    ],
)
def test_a_bad_enrolment_is_one_line(
    network: Network, capsys: pytest.CaptureFixture[str], tmp_path: Path, site: str, sae_id: str, said: str
) -> None:
    assert openqci(network, "sae", "enrol", "--site", site, "--id", sae_id, "--out", tmp_path / "new") == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_an_out_folder_that_cannot_be_written(
    network: Network, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "x"
    assert openqci(network, "sae", "enrol", "--site", "lisbon", "--id", "new", "--out", out) == 2
    assert "choose another --out" in capsys.readouterr().err


def test_the_same_enrolment_again_changes_nothing_and_mends(network: Network) -> None:
    out = network.folder / "out" / "again"
    arguments = ("sae", "enrol", "--site", "lisbon", "--id", "again", "--out", out)
    assert openqci(network, *arguments) == 0
    first = (out / "cert.pem").read_bytes()
    assert openqci(network, *arguments) == 0
    assert (out / "cert.pem").read_bytes() == first
    (out / "key.pem").unlink()
    assert openqci(network, *arguments) == 0
    assert (out / "key.pem").exists() and (out / "cert.pem").read_bytes() != first


def test_lists_and_the_authority(network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    assert openqci(network, "sae", "list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"north", "south"} <= {row["sae_id"] for row in rows}
    assert all(KmeId(row["kme_id"]) in (LISBON, WARSAW) for row in rows)
    assert openqci(network, "pki", "show", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kme_certificates"] == 2 and report["sae_certificates"] == len(rows)
    assert report["days_left"] > 3600 and "OpenQCI" in report["subject"]
    assert openqci(network, "pki", "show") == 0


def test_a_network_that_never_ran_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--site", "lisbon", "--id", "x", "--out", str(tmp_path / "x")]
    assert main(["sae", "enrol", "--data-dir", str(tmp_path), *arguments]) == 2
    assert "openqci up" in capsys.readouterr().err
