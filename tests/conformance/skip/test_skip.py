"""SKIP (draft-cisco-skip-02), statement by statement, against the real server over real TLS."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from openqci.core.errors import ConfigurationError
from openqci.delivery.skip import SkipRules
from openqci.services.psk_tls import read_psk
from tests.conformance.skip.make import ALICE, BOB, EVE, PSKS, WARSAW, Answer, Providers

_, ALICE_KEY = PSKS["router-alice"]
_, BOB_KEY = PSKS["router-bob"]


@pytest.fixture(scope="module")
def providers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Providers]:
    running = Providers(tmp_path_factory.mktemp("skip"))
    yield running
    running.close()


def new_key(providers: Providers, **query: object) -> dict[str, str]:
    providers.stock(1 if "size" not in query else 4)
    answer = providers.ask(ALICE, "/key", remoteSystemID=BOB, **query)
    assert answer.status == 200, answer.body
    return dict(answer.json)


def assert_error(answer: Answer, status: int) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert isinstance(answer.json["message"], str)


def test_skip_01_the_five_shapes(providers: Providers) -> None:
    said = providers.ask(ALICE, "/capabilities").json
    assert said == {
        "entropy": True,
        "key": True,
        "algorithm": "QKD",
        "localSystemID": ALICE,
        "remoteSystemID": [BOB, EVE],
    }
    key = new_key(providers)
    assert set(key) == {"keyId", "key"} and re.fullmatch("[0-9a-f]{64}", key["key"])
    fetched = providers.ask(BOB, f"/key/{key['keyId']}", remoteSystemID=ALICE)
    assert fetched.json == key
    random = providers.ask(ALICE, "/entropy", minentropy=128).json
    assert random["minentropy"] == 128 and re.fullmatch("[0-9a-f]{32}", random["randomStr"])
    assert providers.ask(ALICE, "/entropy").json["minentropy"] == 256
    assert_error(providers.ask(ALICE, "/key"), 400)


def test_skip_02_patterns_of_remote_systems(tmp_path: Path) -> None:
    running = Providers(tmp_path, SkipRules(("b*b", "KP_*_LOC2")))
    try:
        assert running.ask(ALICE, "/capabilities").json["remoteSystemID"] == ["b*b", "KP_*_LOC2"]
        running.stock(1)
        assert running.ask(ALICE, "/key", remoteSystemID=BOB).status == 200
        assert_error(running.ask(ALICE, "/key", remoteSystemID=EVE), 400)
    finally:
        running.close()


@pytest.mark.parametrize("remote", ["nobody", "", ALICE, "b*"])
def test_skip_03_an_unknown_remote_system_gets_400(providers: Providers, remote: str) -> None:
    assert_error(providers.ask(ALICE, "/key", remoteSystemID=remote), 400)


def test_skip_04_a_key_is_fetched_once(providers: Providers) -> None:
    key = new_key(providers)
    path = f"/key/{key['keyId'].upper()}"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: providers.ask(BOB, path, remoteSystemID=ALICE), range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [400] * 7
    assert next(answer for answer in answers if answer.status == 200).json["key"] == key["key"]


def test_skip_05_a_third_system_is_refused_and_consumes_nothing(providers: Providers) -> None:
    key = new_key(providers)
    path = f"/key/{key['keyId']}"
    assert_error(providers.ask(EVE, path, remoteSystemID=ALICE), 400)
    assert_error(providers.ask(ALICE, path, remoteSystemID=BOB), 400)
    assert_error(providers.ask(BOB, path, remoteSystemID=EVE), 400)
    assert_error(providers.ask(BOB, path), 400)
    assert providers.ask(BOB, path, remoteSystemID=ALICE).json == key


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "PATCH"])
@pytest.mark.parametrize("path", ["/capabilities", "/key", "/entropy"])
def test_skip_06_only_get_is_allowed(providers: Providers, method: str, path: str) -> None:
    answer = providers.ask(ALICE, path, method)
    assert answer.status == 405
    if method != "HEAD":
        assert_error(answer, 405)


@pytest.mark.parametrize("path", ["/", "/keys", "/key/", "/key/a/b", "/api/v1/keys/bob/status"])
def test_skip_01_unknown_paths_get_404(providers: Providers, path: str) -> None:
    assert_error(providers.ask(ALICE, path), 404)


@pytest.mark.parametrize("bits", [128, 192, 256, 512])
def test_skip_07_sizes(providers: Providers, bits: int) -> None:
    key = new_key(providers, size=bits)
    assert len(key["key"]) == bits // 4
    assert providers.ask(BOB, f"/key/{key['keyId']}", remoteSystemID=ALICE).json == key


@pytest.mark.parametrize("bits", ["0", "7", "100", "-8", "1e3", "", "2048", "x"])
def test_skip_07_bad_sizes_get_400(providers: Providers, bits: str) -> None:
    assert_error(providers.ask(ALICE, "/key", remoteSystemID=BOB, size=bits), 400)
    assert_error(providers.ask(ALICE, "/entropy", minentropy=bits if bits != "2048" else "99999"), 400)


@pytest.mark.parametrize("key_id", ["x", "0" * 31, "0" * 33, "g" * 32, "0" * 32])
def test_skip_01_malformed_and_unknown_key_ids_get_400(providers: Providers, key_id: str) -> None:
    assert_error(providers.ask(BOB, f"/key/{key_id}", remoteSystemID=ALICE), 400)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_skip_08_an_unknown_identity_or_key_fails_in_the_handshake(
    providers: Providers, version: str
) -> None:
    for identity, key in (("router-x", ALICE_KEY), ("router-alice", BOB_KEY), ("", ALICE_KEY)):
        out, _ = providers.ask_by_psk(identity, key, "/capabilities", version)
        assert "HTTP/1.1" not in out
    out, _ = providers.ask_by_psk("router-alice", ALICE_KEY, "/capabilities", version)
    assert "HTTP/1.1 200" in out and f'"localSystemID":"{ALICE}"' in out


def test_skip_08_a_key_by_psk_at_both_ends(providers: Providers) -> None:
    providers.stock(1)
    out, _ = providers.ask_by_psk("router-alice", ALICE_KEY, f"/key?remoteSystemID={BOB}", "-tls1_3")
    found = re.search(r'\{"keyId".*\}', out)
    assert found is not None
    key = json.loads(found[0])
    path = f"/key/{key['keyId']}?remoteSystemID={ALICE}"
    out, _ = providers.ask_by_psk("router-bob", BOB_KEY, path, "-tls1_2", kme=WARSAW)
    assert found[0] in out
    out, _ = providers.ask_by_psk("router-alice", ALICE_KEY, "/capabilities", "-tls1_3", kme=WARSAW)
    assert "HTTP/1.1 401" in out, "a system of another site is not served here"


@pytest.mark.parametrize(
    ("options", "suite"),
    [
        (("-tls1_3",), "TLS_CHACHA20_POLY1305_SHA256"),
        (("-tls1_2",), "DHE-PSK-AES256-GCM-SHA384"),
        (
            ("-tls1_2", "-cipher", "PSK-AES256-GCM-SHA384:DHE-PSK-AES256-GCM-SHA384"),
            "DHE-PSK-AES256-GCM-SHA384",
        ),
        (("-tls1_2", "-cipher", "PSK-AES256-GCM-SHA384"), "PSK-AES256-GCM-SHA384"),
    ],
)
def test_skip_09_forward_secrecy_comes_first(
    providers: Providers, options: tuple[str, ...], suite: str
) -> None:
    out, _ = providers.ask_by_psk("router-alice", ALICE_KEY, "/capabilities", *options)
    assert re.search(rf"Cipher\s*(is|:)\s*{suite}", out), out[:2000]


def test_skip_10_a_key_id_tells_nothing_of_the_key(providers: Providers) -> None:
    """The ID names a place in a batch, hidden under a seed that is no key."""
    keys = [new_key(providers) for _ in range(20)]
    for key in keys:
        digits = {key["keyId"][at : at + 8] for at in range(0, 32, 8)}
        assert not any(part in key["key"] for part in digits)
    assert len({key["keyId"] for key in keys}) == 20


def test_skip_11_the_peer_has_the_key_before_the_initiator_gets_it(providers: Providers) -> None:
    for _ in range(10):
        key = new_key(providers)
        assert providers.ask(BOB, f"/key/{key['keyId']}", remoteSystemID=ALICE).json == key
    # What has no stock at both ends is refused: there is no key that one end alone would have.
    assert_error(providers.ask(ALICE, "/key", remoteSystemID=EVE), 503)


def test_a_pre_shared_key_is_read_from_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "psk"
    file.write_text("00" * 32 + "\n")
    file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="can be read by others"):
        read_psk(file)
    file.chmod(0o600)
    assert read_psk(file) == bytes(32)
    for text, expected in (("00" * 8, "expected 16 to 64"), ("zz", "hexadecimal")):
        file.write_text(text)
        with pytest.raises(ConfigurationError, match=expected):
            read_psk(file)
