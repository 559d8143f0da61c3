"""Make the test vectors of the distillation's wire format: one whole block between two ends.

Everything random in it is drawn from SHAKE-128 and given in the file: photons, detections, the authentication
key and what the operating system would have given. So another implementation can play either end.

    python tools/make_distillation_vectors.py > docs/reference/distillation-v1.json
"""

import base64
import hashlib
import json
import secrets
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from openqci.core.detections import DetectionRecord, EmissionRecord
from openqci.core.identifiers import LinkId
from openqci.core.keys import SecretBytes
from openqci.distillation import (
    AUTHENTICATION_KEY_BYTES,
    AliceDistillation,
    BlockName,
    BobDistillation,
    Direction,
    DistillationSettings,
    KeyDistilled,
    converse,
)
from openqci.distillation.messages import decode_body, decode_envelope

DOMAIN = b"OpenQCI distillation vectors v1 "
DETECTIONS = 20_000
ERRORS_IN_65536 = 320

SETTINGS = DistillationSettings(
    proof_id="rusca-2018-chernoff",
    intensities=(0.4, 0.1),
    intensity_probabilities=(0.3, 0.7),
    epsilon_sec=1e-6,
    epsilon_cor=1e-15,
)
BLOCK = BlockName(LinkId("a--b"), 7)


def drawn(purpose: str, length_bytes: int) -> bytes:
    return hashlib.shake_128(DOMAIN + purpose.encode()).digest(length_bytes)


def below(purpose: str, limit: int, count: int = DETECTIONS) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return ``count`` bits, 1 where a number of 16 bits (little-endian) is below the limit."""
    return (np.frombuffer(drawn(purpose, 2 * count), dtype="<u2") < limit).astype(np.uint8)


def photons() -> tuple[EmissionRecord, DetectionRecord]:
    """Return both records: slots 1 to 256 apart, three quarters of the bases Z, half of the light decoy."""
    gaps = np.frombuffer(drawn("gaps", DETECTIONS), dtype=np.uint8).astype(np.int64) + 1
    slots = np.cumsum(gaps)
    alice_bases, bob_bases = below("alice bases", 1 << 14), below("bob bases", 1 << 14)
    bits, intensities = below("bits", 1 << 15), below("intensities", 1 << 15)
    errors, other = below("errors", ERRORS_IN_65536), below("other basis", 1 << 15)
    bob_bits = np.where(alice_bases == bob_bases, bits ^ errors, other).astype(np.uint8)
    emissions = EmissionRecord(slots, alice_bases, bits, intensities, int(slots[-1]) + 1)
    return emissions, DetectionRecord(slots, bob_bases, bob_bits, 0)


class Drawing:
    """What an end asks of the operating system, kept in the order in which it was asked."""

    def __init__(self, end: str) -> None:
        self.end, self.given = end, list[bytes]()

    def __call__(self, length_bytes: int) -> bytes:
        self.given.append(drawn(f"{self.end} entropy {len(self.given)}", length_bytes))
        return self.given[-1]


def play(
    alice_entropy: Callable[[int], bytes] = secrets.token_bytes,
    bob_entropy: Callable[[int], bytes] = secrets.token_bytes,
) -> tuple[list[tuple[str, bytes]], KeyDistilled]:
    """Return every message with its direction, and how Alice ended."""
    emissions, detections = photons()
    key = drawn("authentication key", AUTHENTICATION_KEY_BYTES)
    said: list[tuple[str, bytes]] = []

    def line(direction: Direction, message: bytes) -> Iterable[bytes]:
        said.append((direction.value, message))
        return (message,)

    alice = AliceDistillation(emissions, SETTINGS, BLOCK, SecretBytes(key), alice_entropy)
    bob = BobDistillation(detections, SETTINGS, BLOCK, SecretBytes(key), bob_entropy)
    at_alice, at_bob = converse(alice, bob, line=line)
    assert isinstance(at_alice, KeyDistilled) and isinstance(at_bob, KeyDistilled)
    assert at_alice.key.key.reveal() == at_bob.key.key.reveal()
    return said, at_alice


def vectors() -> dict[str, object]:
    alice_entropy, bob_entropy = Drawing("alice"), Drawing("bob")
    said, ending = play(alice_entropy, bob_entropy)
    emissions, detections = photons()

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    def bits(array: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
        return text(np.packbits(array).tobytes())

    return {
        "format": "OpenQCI distillation v1, test vectors 1",
        "binary": "base64; arrays of bits as numpy.packbits packs them",
        "link_id": BLOCK.link_id,
        "block": BLOCK.number,
        "settings": {
            "proof_id": SETTINGS.proof_id,
            "intensities": SETTINGS.intensities,
            "intensity_probabilities": SETTINGS.intensity_probabilities,
            "epsilon_sec": SETTINGS.epsilon_sec,
            "epsilon_cor": SETTINGS.epsilon_cor,
            "qber_max": SETTINGS.qber_max,
            "accounting": SETTINGS.accounting,
        },
        "authentication_key": text(drawn("authentication key", AUTHENTICATION_KEY_BYTES)),
        "detections": DETECTIONS,
        "slot_gaps": text((np.diff(emissions.slots, prepend=0) - 1).astype(np.uint8).tobytes()),
        "alice": {
            "bases": bits(emissions.bases),
            "bits": bits(emissions.bits),
            "intensities": bits(emissions.intensities),
            "entropy": [text(each) for each in alice_entropy.given],
        },
        "bob": {
            "bases": bits(detections.bases),
            "bits": bits(detections.bits),
            "entropy": [text(each) for each in bob_entropy.given],
        },
        "messages": [
            {
                "from": direction.split("-")[0],
                "is": type(decode_body(decode_envelope(message).body)).__name__,
                "datagram": text(message),
            }
            for direction, message in said
        ],
        "report": {
            "sifted_bits": ending.report.sifted_bits,
            "test_bits": ending.report.test_bits,
            "leak_bits": ending.report.leak_bits,
            "secret_bits": ending.report.secret_bits,
        },
        "key": text(bytes(ending.key.key.reveal())),
    }


if __name__ == "__main__":
    json.dump(vectors(), sys.stdout, indent=1)
    print()
