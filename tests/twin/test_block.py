"""One real block of each device: equal keys, an account that balances, a length near the forecast.

What a photon seed fixes: emissions and detections, so the sifted bits, the error rate and the counts. What it
does not fix: the key. Permutations, verification keys and the Toeplitz seed come from the operating system,
so two blocks of the same photons give two keys that have nothing in common.
"""

import msgspec
import numpy as np
import pytest

from openqci.core.identifiers import LinkId
from openqci.distillation import AUTHENTICATION_KEY_BYTES
from openqci.links import forecast, quantum_link
from openqci.network import Hop, Network, load_scenario
from openqci.quantum import exchange
from openqci.twin.block import (
    BlockOrder,
    BlockOutcome,
    distil_block,
    distillation_settings,
    photon_generator,
)

METRO, EUROPE = load_scenario("metro"), load_scenario("eu27")
KEY = bytes(index % 251 for index in range(AUTHENTICATION_KEY_BYTES))
DEVICES = [
    pytest.param(network, device_id, id=f"{network.name}-{device_id}")
    for network in (METRO, EUROPE)
    for device_id in sorted({hop.device for hop in network.hops.values()})
]


def order(network: Network, hop: Hop, *, seed: int = 1, key_a: bytes = KEY, key_b: bytes = KEY) -> BlockOrder:
    device = network.devices[hop.device]
    detections = forecast(device, hop).block_detections
    return BlockOrder(hop, device, 3, detections, seed, key_a, key_b)


def hop_of(network: Network, device_id: str) -> Hop:
    """Return the hop of a device with the median loss: neither the easiest nor the hardest."""
    hops = sorted((hop.loss_db, hop.link_id) for hop in network.hops.values() if hop.device == device_id)
    return network.hops[hops[len(hops) // 2][1]]


@pytest.fixture(scope="module")
def blocks() -> list[BlockOutcome]:
    """Two blocks of the same photons."""
    one = order(METRO, next(iter(METRO.hops.values())), seed=7)
    return [distil_block(one), distil_block(one)]


@pytest.mark.parametrize(("network", "device_id"), DEVICES)
def test_a_block_gives_both_ends_the_same_key_of_the_forecast_length(
    network: Network, device_id: str
) -> None:
    hop = hop_of(network, device_id)
    expected = forecast(network.devices[device_id], hop)
    block = distil_block(order(network, hop))
    assert block.aborted == "" and block.key_a == block.key_b
    assert 8 * len(block.key_a) == pytest.approx(expected.block_secret_bits, rel=0.15)
    assert block.duration_s == pytest.approx(expected.block_duration_s, rel=0.05)
    assert block.report is not None and block.report.qber == pytest.approx(expected.qber, rel=0.1)


def test_the_account_of_a_block_balances(blocks: list[BlockOutcome]) -> None:
    for block in blocks:
        report = block.report
        assert report is not None and report.balances()
        assert report.secret_bits // 8 * 8 == 8 * len(block.key_a)
        assert (report.link_id, report.number, report.detections) == (block.link_id, 3, block.detections)
        assert report.authentication_bytes_used <= AUTHENTICATION_KEY_BYTES
        unpaid = report.leak_bits["bob_questions"] if report.accounting == "alice-parities-v1" else 0
        assert sum(report.leak_bits.values()) - unpaid == report.disclosed_bits
        assert block.epsilon == report.epsilon > METRO.devices["dv-metro"].epsilon_sec


def test_the_same_seed_gives_the_same_photons_and_another_seed_others() -> None:
    hop = next(iter(METRO.hops.values()))
    link = quantum_link(METRO.devices[hop.device], hop)
    one, again, other = (exchange(link, 5000, photon_generator(seed)) for seed in (7, 7, 8))
    for record in ("emissions", "detections"):
        for name in ("slots", "bases", "bits"):
            first, second, third = (
                getattr(getattr(photons, record), name) for photons in (one, again, other)
            )
            assert np.array_equal(first, second) and not np.array_equal(first, third)
    assert one.duration_s == again.duration_s


def test_every_bit_of_a_seed_counts() -> None:
    drawn = {int(photon_generator(seed).integers(1 << 62)) for seed in (0, 1, 1 << 64, 1 << 128, 1 << 255)}
    assert len(drawn) == 5


def test_the_same_photons_give_the_same_counts_and_quite_another_key(blocks: list[BlockOutcome]) -> None:
    one, again = (block.report for block in blocks)
    assert one is not None and again is not None
    for name in ("sifted_bits", "z_counts", "x_counts", "x_errors", "z_errors", "qber", "test_qber"):
        assert getattr(one, name) == getattr(again, name), name
    assert blocks[0].duration_s == blocks[1].duration_s
    length = min(len(block.key_a) for block in blocks)
    bits = [np.unpackbits(np.frombuffer(block.key_a[:length], np.uint8)) for block in blocks]
    differing = float(np.mean(bits[0] != bits[1]))
    assert differing == pytest.approx(0.5, abs=0.02), "6 sigma at 88 kbit are 0.01"


ABORT_KEY_BYTES = 32
"""The last place of each direction authenticates an abort alone; a block that goes well never uses it."""


@pytest.mark.parametrize(
    "place",
    [
        0,
        AUTHENTICATION_KEY_BYTES // 2 - ABORT_KEY_BYTES - 1,
        AUTHENTICATION_KEY_BYTES // 2,
        AUTHENTICATION_KEY_BYTES - ABORT_KEY_BYTES - 1,
    ],
)
def test_a_wrong_authentication_key_aborts_and_leaves_no_key(place: int) -> None:
    wrong = bytearray(KEY)
    wrong[place] ^= 1
    block = distil_block(order(METRO, next(iter(METRO.hops.values())), key_b=bytes(wrong)))
    assert block.aborted and block.key_a == block.key_b == b"" and block.epsilon == 0.0


def test_a_line_too_noisy_for_key_aborts() -> None:
    hop = next(iter(METRO.hops.values()))
    noisy = msgspec.structs.replace(METRO.devices[hop.device], misalignment_error=0.12)
    block = distil_block(msgspec.structs.replace(order(METRO, hop), device=noisy))
    assert "QBER" in block.aborted and block.key_a == block.key_b == b""
    assert block.report is not None and block.report.secret_bits == 0


def test_a_block_shows_no_key(blocks: list[BlockOutcome]) -> None:
    shown = f"{blocks[0]!r} {blocks[0]} {blocks[0].report!r} {order(METRO, hop_of(METRO, 'dv-metro'))!r}"
    for secret in (blocks[0].key_a[:8], KEY[:8]):
        assert repr(secret)[2:-1] not in shown and secret.hex() not in shown


def test_order_and_outcome_pass_between_processes(blocks: list[BlockOutcome]) -> None:
    """They are what a worker gets and gives; the network's shell pickles or encodes them."""
    one = order(METRO, METRO.hops[LinkId(blocks[0].link_id)])
    for message in (one, blocks[0]):
        body = msgspec.msgpack.encode(message)
        assert msgspec.msgpack.decode(body, type=type(message)) == message


@pytest.mark.parametrize(
    ("length_km", "method"), [(0.0, "cascade-2"), (150.0, "cascade-2"), (2000.0, "ldpc-1")]
)
def test_the_link_chooses_error_correction_by_its_latency(length_km: float, method: str) -> None:
    assert distillation_settings(METRO.devices["dv-metro"], length_km).reconciliation == method
