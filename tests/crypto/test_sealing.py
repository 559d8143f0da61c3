"""Sealing: what is moved, changed or under another key does not open; published derivation is used."""

import pytest

from openqci.core.errors import IntegrityError
from openqci.core.identifiers import KmeId, StreamId
from openqci.core.keys import SecretBytes
from openqci.crypto import sealing
from openqci.crypto.sealing import NONCE_BYTES, SEAL_TAG_BYTES, Sealer, place

KEK = bytes(range(32))
KME, STREAM = KmeId("kme-pt-lisbon"), StreamId("link/a--b/a")
SECRET = b"sixteen bytes..!"


@pytest.fixture
def sealed() -> bytes:
    return Sealer(KEK).seal(KME, STREAM, 7, SecretBytes(SECRET))


def test_what_was_sealed_opens_under_the_same_kek(sealed: bytes) -> None:
    assert Sealer(KEK).open(KME, STREAM, 7, 16, sealed).reveal() == SECRET
    assert len(sealed) == NONCE_BYTES + 16 + SEAL_TAG_BYTES
    assert SECRET not in sealed


def test_no_two_seals_are_alike(sealed: bytes) -> None:
    assert Sealer(KEK).seal(KME, STREAM, 7, SecretBytes(SECRET)) != sealed


@pytest.mark.parametrize(
    ("kme", "stream", "start", "length"),
    [
        (KmeId("kme-pt-porto"), STREAM, 7, 16),
        (KME, StreamId("link/a--b/b"), 7, 16),
        (KME, STREAM, 8, 16),
        (KME, STREAM, 7, 15),
        (KME, STREAM, 7, 17),
        (KME, STREAM, 7, -28),
    ],
)
def test_moved_bytes_do_not_open(
    sealed: bytes, kme: KmeId, stream: StreamId, start: int, length: int
) -> None:
    with pytest.raises(IntegrityError, match="does not open"):
        Sealer(KEK).open(kme, stream, start, length, sealed)


def test_a_change_of_any_byte_is_seen(sealed: bytes) -> None:
    sealer = Sealer(KEK)
    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1
        with pytest.raises(IntegrityError):
            sealer.open(KME, STREAM, 7, 16, bytes(changed))


@pytest.mark.parametrize("length", [0, 5, 27, 28, 43])
def test_a_cut_seal_does_not_open(sealed: bytes, length: int) -> None:
    with pytest.raises(IntegrityError):
        Sealer(KEK).open(KME, STREAM, 7, 16, sealed[:length])


def test_another_kek_does_not_open(sealed: bytes) -> None:
    with pytest.raises(IntegrityError, match="another key-encryption key") as refused:
        Sealer(bytes(32)).open(KME, STREAM, 7, 16, sealed)
    assert SECRET.hex() not in str(refused.value)


def test_no_two_places_share_an_encoding() -> None:
    names = ["a", "a1", "1", "1:a", "a\n1", "", ":"]
    encoded = {
        place(KmeId(kme), StreamId(stream), start, length)
        for kme in names
        for stream in names
        for start in (0, 1, 11)
        for length in (0, 1, 11)
    }
    assert len(encoded) == len(names) ** 2 * 9


def test_a_kek_has_32_bytes() -> None:
    with pytest.raises(IntegrityError):
        Sealer(bytes(16))


def test_no_key_seals_beyond_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "SEALS_PER_KEY_MAX", 2)
    sealer = Sealer(KEK)
    for _ in range(2):
        sealer.seal(KME, STREAM, 0, SecretBytes(SECRET))
    with pytest.raises(IntegrityError, match="800-38D"):
        sealer.seal(KME, STREAM, 0, SecretBytes(SECRET))
    sealer.seal(KmeId("kme-pt-porto"), STREAM, 0, SecretBytes(SECRET))


def test_processes_with_one_key_share_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "SEALS_PER_KEY_MAX", 6)
    sealers = [Sealer(KEK) for _ in range(3)]
    seals = 0
    for sealer in sealers:
        sealer.share_between(3)
        with pytest.raises(IntegrityError, match="800-38D"):
            while True:
                sealer.seal(KME, STREAM, 0, SecretBytes(SECRET))
                seals += 1
    assert seals == 6
