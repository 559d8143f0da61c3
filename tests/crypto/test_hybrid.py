"""ML-KEM against published vectors, and the combiner: bound to everything it names, no mask used twice."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqci.core.errors import IntegrityError, PeerMisbehaved
from openqci.core.keys import SecretBytes
from openqci.crypto.hybrid import (
    HybridContext,
    KemAlgorithm,
    KemPrivateKey,
    KemPublicKey,
    encapsulate,
    framed,
    hybridise,
    kem_key_id,
    mask,
)

FOLDER = Path(__file__).parent
PUBLISHED = json.loads((FOLDER / "mlkem_vectors.json").read_text())["vectors"]
OURS = json.loads((FOLDER / "end_to_end_vectors.json").read_text())["hybrid"]
ALGORITHMS = list(KemAlgorithm)


def private_key(vector: dict[str, Any]) -> KemPrivateKey:
    seed = SecretBytes(bytes.fromhex(vector.get("seed") or vector["d"] + vector["z"]))
    return KemPrivateKey(KemAlgorithm(vector["algorithm"]), seed)


def context_of(vector: dict[str, Any]) -> HybridContext:
    names = ("origin_kme", "target_kme", "master_sae", "slave_sae")
    key_id, ciphertext, batch_id = (
        bytes.fromhex(vector[n]) for n in ("kem_key_id", "ciphertext", "batch_id")
    )
    algorithm = KemAlgorithm(vector["algorithm"])
    return HybridContext(algorithm, key_id, ciphertext, batch_id, *(vector[name] for name in names))


CONTEXT = context_of(OURS[0])


def secret(byte: int = 7) -> SecretBytes:
    return SecretBytes(bytes([byte]) * 32)


@pytest.mark.parametrize("vector", PUBLISHED, ids=lambda each: f"{each['algorithm']} {each['count']}")
def test_published_vectors_of_key_generation_and_decapsulation(vector: dict[str, Any]) -> None:
    key = private_key(vector)
    assert hashlib.sha256(key.public.key).hexdigest() == vector["pk_sha256"]
    assert key.decapsulate(bytes.fromhex(vector["ct"])).reveal().hex() == vector["ss"]
    assert key.decapsulate(bytes.fromhex(vector["ct_n"])).reveal().hex() == vector["ss_n"]


@pytest.mark.parametrize("vector", OURS, ids=lambda each: f"{len(each['key']) // 2} bytes")
def test_vectors_of_the_combiner(vector: dict[str, Any]) -> None:
    context = context_of(vector)
    ss = private_key(vector).decapsulate(context.ciphertext)
    key = hybridise(SecretBytes(bytes.fromhex(vector["quantum"])), ss, context)
    assert key.reveal().hex() == vector["key"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_both_ends_come_to_the_same_secret_and_a_new_one_each_time(algorithm: KemAlgorithm) -> None:
    key = KemPrivateKey.generate(algorithm)
    sent = [encapsulate(key.public) for _ in range(3)]
    assert [bytes(key.decapsulate(ct).reveal()) for ct, _ in sent] == [bytes(ss.reveal()) for _, ss in sent]
    assert len({bytes(ss.reveal()) for _, ss in sent}) == len({ct for ct, _ in sent}) == 3
    assert {len(ct) for ct, _ in sent} == {algorithm.ciphertext_bytes}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_private_key_comes_back_from_its_seed(algorithm: KemAlgorithm) -> None:
    key = KemPrivateKey.generate(algorithm)
    again = KemPrivateKey(algorithm, key.seed())
    assert again.public == key.public and again.public.key_id == key.public.key_id
    assert key.public != KemPrivateKey.generate(algorithm).public


def test_a_ciphertext_that_was_changed_gives_another_secret() -> None:
    key = KemPrivateKey.generate()
    ciphertext, ss = encapsulate(key.public)
    for place in (0, 500, 1087):
        changed = bytearray(ciphertext)
        changed[place] ^= 1
        assert key.decapsulate(bytes(changed)).reveal() != ss.reveal()


@pytest.mark.parametrize("length", [0, 1087, 1089, 1568])
def test_what_is_no_ciphertext(length: int) -> None:
    with pytest.raises(PeerMisbehaved, match="1088 bytes"):
        KemPrivateKey.generate().decapsulate(bytes(length))


def test_what_is_no_public_key() -> None:
    with pytest.raises(PeerMisbehaved, match="1184 bytes"):
        KemPublicKey(KemAlgorithm.ML_KEM_768, bytes(1183))
    # Coefficients of 4095 are above the modulus 3329 (FIPS 203, 7.2).
    with pytest.raises(PeerMisbehaved, match="no key of ML-KEM-768"):
        encapsulate(KemPublicKey(KemAlgorithm.ML_KEM_768, b"\xff" * 1184))


def test_the_name_of_a_key_depends_on_algorithm_and_key() -> None:
    names = {kem_key_id(algorithm, bytes([byte])) for algorithm in ALGORITHMS for byte in (0, 1)}
    assert len(names) == 4 and {len(name) for name in names} == {32}


CHANGES: list[dict[str, Any]] = [
    {"algorithm": KemAlgorithm.ML_KEM_1024},
    {"kem_key_id": bytes(32)},
    {"ciphertext": CONTEXT.ciphertext[:-1] + b"\x00"},
    {"batch_id": b"other"},
    {"origin_kme": CONTEXT.target_kme, "target_kme": CONTEXT.origin_kme},
    {"master_sae": CONTEXT.slave_sae, "slave_sae": CONTEXT.master_sae},
    {"origin_kme": CONTEXT.master_sae, "master_sae": CONTEXT.origin_kme},
    {"origin_kme": CONTEXT.origin_kme + "x"},
    {"origin_kme": "", "target_kme": CONTEXT.origin_kme + CONTEXT.target_kme},
    {"slave_sae": ""},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: " ".join(change))
def test_another_context_gives_unrelated_bytes(change: dict[str, Any]) -> None:
    """HYB: order, roles, names, key and ciphertext are bound; swapped roles are another context."""
    one = mask(secret(), CONTEXT, 64)
    two = mask(secret(), dataclasses.replace(CONTEXT, **change), 64)
    assert sum(a != b for a, b in zip(one, two, strict=True)) > 50


def test_another_length_is_another_mask_and_no_longer_one_of_the_same() -> None:
    assert mask(secret(), CONTEXT, 64)[:32] != mask(secret(), CONTEXT, 32)


def test_another_secret_gives_unrelated_bytes() -> None:
    one, two = mask(secret(1), CONTEXT, 64), mask(secret(2), CONTEXT, 64)
    assert sum(a != b for a, b in zip(one, two, strict=True)) > 50


@given(st.lists(st.binary(max_size=12), max_size=5), st.lists(st.binary(max_size=12), max_size=5))
def test_no_two_lists_of_parts_look_alike(one: list[bytes], two: list[bytes]) -> None:
    assert (framed(*one) == framed(*two)) == (one == two)


@settings(max_examples=30)
@given(st.binary(min_size=1, max_size=300), st.binary(min_size=32, max_size=32))
def test_for_a_given_secret_the_key_is_the_quantum_key_moved_by_one_constant(
    quantum: bytes, ss: bytes
) -> None:
    """So it is uniform if the quantum key is, whatever is known of the secret; and the other way round."""
    key = hybridise(SecretBytes(quantum), SecretBytes(ss), CONTEXT)
    zero = hybridise(SecretBytes(bytes(len(quantum))), SecretBytes(ss), CONTEXT)
    assert bytes(a ^ b for a, b in zip(key.reveal(), quantum, strict=True)) == bytes(zero.reveal())


def test_both_parts_are_wiped_so_that_no_mask_serves_twice() -> None:
    quantum, ss = SecretBytes(b"quantum key"), secret()
    hybridise(quantum, ss, CONTEXT)
    assert len(quantum) == len(ss) == 0
    with pytest.raises(IntegrityError):
        hybridise(SecretBytes(b"quantum key"), ss, CONTEXT)


def test_secrets_do_not_show_themselves() -> None:
    key = KemPrivateKey.generate()
    assert key.seed().reveal().hex() not in repr(key) + repr(key.public) + repr(CONTEXT)
