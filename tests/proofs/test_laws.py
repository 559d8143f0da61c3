"""Laws of every proof over drawn links, and the modelling traps that are about proofs, by name."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.links import KeyBlock, optimise_decoy
from openqci.links.experiments import shipped_experiments
from openqci.proofs import DecoyCounts, proof, proof_ids
from openqci.proofs.asymptotic import AsymptoticLink, infinite_decoy_rates, plob_bounds
from openqci.proofs.bounds import binary_entropy
from openqci.proofs.counts import CountArrays, KeyLength
from openqci.quantum.decoy_statistics import DecoyPlant, decoy_statistics

every_proof = pytest.mark.parametrize("proof_id", proof_ids())
factors = st.floats(0.05, 1.0)


@dataclasses.dataclass(frozen=True)
class Link:
    """A plant, the settings of its source and how many pulses were sent."""

    plant: DecoyPlant
    intensities: tuple[float, ...]
    probabilities: tuple[float, ...]
    z_basis_probability: float
    pulses: float

    def counts(self) -> DecoyCounts:
        """Return the expected counts of the block."""
        mu, p = np.array(self.intensities), np.array(self.probabilities)
        seen = decoy_statistics(self.plant, mu, p, np.array(self.z_basis_probability))
        parts = (seen.z_gains, seen.z_error_gains, seen.x_gains, seen.x_error_gains)
        return DecoyCounts(*((self.pulses * part).ravel() for part in parts), mu, p)

    def key(self, proof_id: str, epsilon_sec: float = 1e-10, epsilon_cor: float = 1e-15) -> KeyLength:
        """Return the key, error correction disclosing 1.16 n h(E)."""
        counts = self.counts()
        leak_bits = 1.16 * shannon_bits(counts)
        return proof(proof_id).secret_length_bits(counts, leak_bits, epsilon_sec, epsilon_cor)

    def with_plant(self, **changes: float) -> "Link":
        """Return the same source on another plant."""
        return dataclasses.replace(self, plant=dataclasses.replace(self.plant, **changes))


def shannon_bits(counts):
    bits = sum(counts.z_counts)
    return bits * binary_entropy(sum(counts.z_errors) / bits)


def drawn_link(data, proof_id):
    """Draw a link that has a source for the proof: near or far, clean or noisy, a second or a day."""
    decoy_share, two = data.draw(st.floats(0.05, 0.6)), proof(proof_id).intensities == 3
    signal = data.draw(st.floats(0.05, 1.0))
    intensities = (signal, signal * decoy_share, *([signal * 1e-3] if two else []))
    weights = np.array([data.draw(st.floats(0.05, 1.0)) for _ in intensities])
    plant = DecoyPlant(
        efficiency=10 ** -data.draw(st.floats(0.0, 5.0)),
        dark_count_probability=10 ** -data.draw(st.floats(4.5, 9.0)),
        misalignment_error=data.draw(st.floats(0.0, 0.06)),
        afterpulse_probability=data.draw(st.sampled_from([0.0, 0.03])),
    )
    probabilities = tuple((weights / weights.sum()).tolist())
    z, pulses = data.draw(st.floats(0.3, 0.95)), 10 ** data.draw(st.floats(7.0, 14.0))
    return Link(plant, intensities, probabilities, z, pulses)


@every_proof
@given(data=st.data(), factor=factors)
def test_more_loss_never_gives_more_key(proof_id, data, factor):
    near = drawn_link(data, proof_id)
    far = near.with_plant(efficiency=near.plant.efficiency * factor)
    assert far.key(proof_id).length_bits <= near.key(proof_id).length_bits


@every_proof
@given(data=st.data(), worse=st.floats(1.0, 30.0))
def test_more_background_never_gives_more_key(proof_id, data, worse):
    dark = drawn_link(data, proof_id)
    bright = dark.with_plant(dark_count_probability=dark.plant.dark_count_probability * worse)
    # A dark count is a vacuum event, which is a secret bit of itself: it may pay for the errors it brings.
    room = bright.key(proof_id).vacuum_bits - dark.key(proof_id).vacuum_bits
    assert bright.key(proof_id).length_bits <= dark.key(proof_id).length_bits + max(0.0, room) + 1


@every_proof
@given(data=st.data(), stricter=st.floats(-12.0, 0.0), field=st.sampled_from(["epsilon_sec", "epsilon_cor"]))
def test_a_stricter_epsilon_never_gives_more_key(proof_id, data, stricter, field):
    link, epsilon = drawn_link(data, proof_id), 10 ** -data.draw(st.floats(2.0, 12.0))
    strict, lax = (link.key(proof_id, **{field: each}) for each in (epsilon * 10**stricter, epsilon))
    assert strict.unclipped_bits <= lax.unclipped_bits + 1e-6
    assert strict.length_bits <= lax.length_bits


@every_proof
@given(data=st.data(), times=st.floats(1.0, 1e4))
def test_a_larger_block_never_gives_less_key_per_pulse(proof_id, data, times):
    small = drawn_link(data, proof_id)
    large = dataclasses.replace(small, pulses=times * small.pulses)
    per_pulse, before = (each.key(proof_id).unclipped_bits / each.pulses for each in (large, small))
    assert per_pulse >= before - 1e-9 * abs(before)


@every_proof
@given(data=st.data())
def test_never_above_the_repeaterless_bound(proof_id, data):
    link = drawn_link(data, proof_id)
    bound = plob_bounds(-10 * math.log10(link.plant.efficiency))
    assert link.key(proof_id).length_bits <= link.pulses * bound


@every_proof
def test_the_best_of_ideal_links_stays_below_the_repeaterless_bound(proof_id):
    loss_db = np.concatenate([[0.01, 0.1, 0.5], np.arange(1.0, 71.0, 2.0)])
    ideal = DecoyPlant(10 ** (-loss_db / 10), dark_count_probability=0.0, misalignment_error=0.0)
    best = optimise_decoy(ideal, KeyBlock(pulses=1e20, error_correction_efficiency=1.0), proof_id)
    ratio = best.bits_per_pulse / plob_bounds(loss_db)
    assert (ratio < 1).all()
    # 1/e of the pulses with one photon at most, against 1/ln 2 bits per photon: not far below either.
    assert 0.15 < ratio[10] < math.log(2) / math.e + 0.02


@every_proof
@given(data=st.data())
def test_an_array_of_blocks_is_its_blocks(proof_id, data):
    links = [drawn_link(data, proof_id) for _ in range(3)]
    blocks = [link.counts() for link in links]
    columns = [np.array([getattr(block, name) for block in blocks]) for name in COLUMNS]
    leak_bits = 1.16 * np.array([shannon_bits(block) for block in blocks])
    together = proof(proof_id).secret_lengths(CountArrays(*columns), leak_bits, 1e-10, 1e-15)
    for row, link in enumerate(links):
        alone = link.key(proof_id)
        assert together.length_bits[row] == pytest.approx(alone.length_bits, rel=1e-12, abs=1)
        assert together.phase_error[row] == pytest.approx(alone.phase_error, rel=1e-9)
        reason = "" if together.length_bits[row] else str(together.limited_by[row])
        assert reason == alone.limited_by


COLUMNS = ("z_counts", "z_errors", "x_counts", "x_errors", "intensities", "probabilities")


@pytest.mark.parametrize(
    ("pulses", "ratio"), [(1e8, 1.76), (1e9, 1.55), (1e10, 1.43), (1e11, 1.35), (1e12, 1.28)]
)
def test_a_tail_for_each_count_over_one_for_the_total(pulses, ratio):
    # Physics sheet, 1.5: 20 dB, detector 0.5, each proof with its own best settings.
    plant = DecoyPlant(0.5e-2, 5e-7, 0.01, form="lim-2014")
    chernoff, hoeffding = (
        float(optimise_decoy(plant, KeyBlock(pulses=pulses), each).length_bits[0])
        for each in ("lim-2014-chernoff", "lim-2014")
    )
    assert chernoff / hoeffding == pytest.approx(ratio, abs=0.02)


# Traps of the physics sheet, section 5


def usual(loss_db, pulses):
    """The settings of the golden values of the physics sheet, 1.3."""
    plant = DecoyPlant(0.5 * 10 ** (-loss_db / 10), 5e-7, 0.01, form="lim-2014")
    return Link(plant, (0.6, 0.2, 2e-4), (0.6, 0.3, 0.1), 0.8, pulses)


@pytest.mark.parametrize(
    ("pulses", "loss_db", "length_bits"),
    [(1e9, 20, 89_189), (1e11, 30, 3_792_376), (1e12, 35, 11_936_811)],
)
def test_trap_01_an_endless_block_promises_more_than_the_block_that_there_is(pulses, loss_db, length_bits):
    link = usual(loss_db, pulses)
    assert link.key("lim-2014").length_bits == length_bits
    endless = dataclasses.replace(link, pulses=1e22).key("lim-2014").length_bits / 1e22 * pulses
    known = infinite_decoy_rates(AsymptoticLink(link.plant.efficiency, 1e-6, 0.01, 1.16, 1.0), 0.6)
    assert length_bits < 0.85 * endless < float(known.bits_per_pulse) * pulses


def test_trap_01_a_pass_of_40_db_has_half_a_kilobit_and_not_a_hundred():
    # 200 s at 100 MHz. The best signal of an endless block is quoted here, as many plans do.
    pulses, plant = 2e10, DecoyPlant(0.5e-4, 5e-7, 0.01, form="lim-2014")
    finite = optimise_decoy(plant, KeyBlock(pulses=pulses), "lim-2014-chernoff").length_bits[0]
    assert finite >= 529
    endless = infinite_decoy_rates(AsymptoticLink(0.5e-4, 1e-6, 0.01, 1.16, 1.0), np.linspace(0.2, 1.0, 81))
    quoted = float(endless.bits_per_pulse.max()) * pulses
    assert quoted > 100_000
    assert finite < 0.05 * quoted
    # Fixed settings have no key at all; that is not the end of the link.
    assert usual(40, pulses).key("lim-2014-chernoff").length_bits == 0


PASS_DB = (44.0, 42.0, 40.0, 38.0, 37.0, 37.0, 38.0, 40.0, 42.0, 44.0)
"""Ten parts of a pass; the receiver is in it."""


@every_proof
def test_trap_02_splitting_a_pass_in_ten_loses_key(proof_id):
    two = proof(proof_id).intensities == 3
    intensities, probabilities = ((0.6, 0.2, 2e-4), (0.6, 0.3, 0.1)) if two else ((0.5, 0.15), (0.6, 0.4))
    parts = [
        Link(DecoyPlant(10 ** (-loss_db / 10), 5e-7, 0.01), intensities, probabilities, 0.8, 5e10)
        for loss_db in PASS_DB
    ]
    blocks = [part.counts() for part in parts]
    summed = DecoyCounts(
        *(np.sum([getattr(block, name) for block in blocks], axis=0) for name in COLUMNS[:4]),
        intensities,
        probabilities,
    )
    whole = proof(proof_id).secret_length_bits(summed, 1.16 * shannon_bits(summed), 1e-10, 1e-15)
    apart = [part.key(proof_id) for part in parts]
    assert whole.length_bits > 0
    # A bound for each part has ten times the deviations; the outer parts give nothing any more.
    assert sum(each.length_bits for each in apart) < 0.8 * whole.length_bits
    assert apart[0].length_bits == 0
    # Ten bounds have also ten chances to fail, so that the epsilon of the sum is ten times larger.
    assert sum(each.epsilon for each in apart) == pytest.approx(10 * whole.epsilon)


def t12_block():
    """The published counts of T12 at 50 km and what error correction disclosed, from the experiment table."""
    row = next(each for each in shipped_experiments() if each.experiment_id == "lucamarini2013_t12")
    z, x = (np.array(row.figures(name)) for name in ("counts_Z_50km", "counts_X_50km"))
    mu, p = row.figures("mu"), row.figures("p_mu")
    pulses, x_share = row.figure("clock") * row.figure("session_s"), row.figure("pX")
    # Errors are published for the signal alone: half of the background and a share of the light are wrong.
    background = row.result("Y0_measured")

    def wrong(counts, share, signal_error):
        gains = counts / (pulses * share**2 * np.array(p))
        of_light = (signal_error * gains[0] - background / 2) / (gains[0] - background)
        return counts * (background / 2 + of_light * np.maximum(gains - background, 0)) / gains

    z_wrong = wrong(z, 1 - x_share, row.result("qber_uZ_50km"))
    x_wrong = wrong(x, x_share, row.result("qber_uX_50km"))
    leak_bits = 1.1 * z.sum() * binary_entropy(row.result("qber_uZ_50km"))
    published_bps = row.results_of("skr")[row.figures("km").index(50)]
    return DecoyCounts(z, z_wrong, x, x_wrong, mu, p), leak_bits, row.figure("session_s"), published_bps


def test_trap_03_t12_is_bounded_by_sums_not_rare_decoys():
    """One pulse in a hundred is a decoy: the deviation of the total drowns it, its own does not."""
    counts, leak_bits, session_s, published_bps = t12_block()
    deviation = math.sqrt(sum(counts.x_counts) / 2 * math.log(21 / 1e-10))
    assert deviation > counts.x_counts[2]
    lim, chernoff = (
        proof(each).secret_length_bits(counts, leak_bits, 1e-10, 1e-15)
        for each in ("lim-2014", "lim-2014-chernoff")
    )
    assert lim.length_bits == 0 and lim.limited_by
    # Physics sheet, 0.2: 0.12 to 0.18 Mbit/s; the vendor's own proof certified 1.09 Mbit/s.
    assert 0.1e6 < chernoff.length_bits / session_s < 0.2e6 < published_bps


def test_trap_03_frequent_decoys_are_no_trouble():
    """The same link and time with a third of its pulses as decoys: the deviation of the total is harmless."""
    plant = DecoyPlant(4.7e-3 * 2.6, 2.1e-5, 0.03, afterpulse_probability=0.0525)
    rare = Link(plant, (0.425, 0.044, 0.001), (0.98828125, 0.0078125, 0.00390625), 0.9375, 1.2e12)
    frequent = dataclasses.replace(rare, probabilities=(0.6, 0.2, 0.2), z_basis_probability=0.8)
    assert rare.key("lim-2014").length_bits == 0
    assert frequent.key("lim-2014").length_bits > 1e7
