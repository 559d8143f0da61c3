"""Eve measures and sends again: intercept-resend, bright pulses that make both detectors click, and noise.

Her measurements are perfect unless said; she may replace the line by one without loss. Left out: optimal
(Breidbart) bases and coherent attacks, which the proof covers. Read next ``photon_number``.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from openqci.links.attacks.assessment import (
    Attack,
    Block,
    expected_counts,
    finite_key,
    leak_bits,
    proof_of,
    selected,
)
from openqci.links.attacks.statistics import (
    LinkStatistics,
    check_active,
    known,
    matching,
    mixture,
    relit_table,
    table_of_means,
)
from openqci.proofs import DecoyCounts
from openqci.proofs.bounds import binary_entropy
from openqci.quantum import Exchange, QuantumLink, exchange
from openqci.quantum.elements import Floats, check_range, transmittance
from openqci.quantum.interception import intercepted
from openqci.quantum.link import choice_probabilities


@dataclass(frozen=True)
class InterceptResend(Attack):
    """Eve measures a fraction of the pulses in a random basis and resends what she found.

    ``E = E0 + p (1/4 - E0/2)``: with the right basis (half the time) she changes nothing, with the wrong one
    Bob's bit is random. Gains stay; so do double clicks but for pulses measured in another basis.

    Parameters
    ----------
    fraction : float
        Of pulses, 0 to 1.
    """

    fraction: float = 1.0

    attack_id: ClassVar[str] = "intercept-resend"
    description: ClassVar[str] = "measure pulses in a random basis and resend the result"
    reference: ClassVar[str] = "C. H. Bennett et al., J. Cryptology 5, 3 (1992)"
    countermeasure: ClassVar[str] = "the error rate of the test basis, in the proof"
    answered_by: ClassVar[tuple[str, ...]] = ("error rate", "double clicks")

    def __post_init__(self) -> None:
        check_range("fraction", self.fraction, 0.0, 1.0)

    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        right = known(statistics.views / 2)
        wrong = uniform_bits(statistics.views[:, :, :, :, ::-1], statistics.link) / 2
        attacked = replace(statistics, views=np.concatenate([right, wrong]))
        return mixture(statistics, attacked, self.fraction)

    def draw(self, link: QuantumLink, detections: int, rng: np.random.Generator) -> Exchange:
        """Return honest detections of which Eve has spoiled those that she measured in the wrong basis."""
        return self.transform_records(exchange(link, detections, rng), rng)

    def transform_records(self, honest: Exchange, rng: np.random.Generator) -> Exchange:
        """Return the records with Bob's bit random where Eve used another basis than Alice."""
        return intercepted(honest, self.fraction, rng)

    def believed_per_pulse(
        self, seen: LinkStatistics, honest: LinkStatistics, block: Block, defended: bool
    ) -> float:
        """Return the key; undefended, errors are not looked at and those of the honest link are assumed."""
        if defended:
            return finite_key(seen, block).length_bits / block.pulses
        counts, calm = expected_counts(seen, block), expected_counts(honest, block)
        assumed = DecoyCounts(
            z_counts=counts.z_counts,
            z_errors=rescaled_errors(counts.z_counts, calm.z_counts, calm.z_errors),
            x_counts=counts.x_counts,
            x_errors=rescaled_errors(counts.x_counts, calm.x_counts, calm.x_errors),
            intensities=counts.intensities,
            probabilities=counts.probabilities,
        )
        length = proof_of(seen.link).secret_length_bits(
            assumed, leak_bits(assumed, block), block.epsilon_sec, block.epsilon_cor
        )
        return length.length_bits / block.pulses


@dataclass(frozen=True)
class DoubleClick(Attack):
    """Eve resends pulses so bright that another basis than hers makes both detectors click.

    If Bob discards double clicks, only those pulses are left in which he used her basis, and she has the key
    without an error. With a random bit for each double click, as BB84 demands, half of those bits are wrong.
    She resends as many pulses as keep the gain of the signal for a Bob who discards, which doubles it for
    one who does not.

    Parameters
    ----------
    fraction : float
        Of the time, 0 to 1.
    """

    fraction: float = 1.0

    attack_id: ClassVar[str] = "double-click"
    description: ClassVar[str] = "resend bright pulses: wrong bases give double clicks, to be discarded"
    reference: ClassVar[str] = "N. Lütkenhaus, Phys. Rev. A 59, 3301 (1999)"
    countermeasure: ClassVar[str] = "a random bit for every double click, and an alarm on their rate"
    answered_by: ClassVar[tuple[str, ...]] = ("double clicks",)

    def __post_init__(self) -> None:
        check_range("fraction", self.fraction, 0.0, 1.0)

    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        link = statistics.link
        check_active(link)
        error = link.receiver.misalignment_error
        silent = (1 - link.background) ** 2
        mean = link.source.mean_photons()
        wanted = float(statistics.gains[0])
        tap = matching(lambda x: 1 - silent * math.exp(-x * mean[0]), min(2 * wanted, 1.0), 1.0)
        resent = -np.expm1(-tap * mean)
        choices = choice_probabilities(link)
        sees = resent_bits(error)  # Eve's basis, her bit, Bob's basis, Alice's basis, Alice's bit
        views = np.zeros((5, *statistics.views.shape[1:]))
        for eve in (0, 1):
            for bit in (0, 1):
                view = views[2 * eve + bit]
                weight = (resent[:, None, None, None] * choices[..., None] * sees[eve, bit]) / 4
                view[:, 0, eve, :, bit, :] = weight[:, eve]
                view[:, 1, 1 - eve] = weight[:, 1 - eve, :, None, :] / 2
        quiet = table_of_means(np.zeros((1, 2, 2, 2, 2)), link)
        views[4] = quiet * (1 - resent)[:, None, None, None, None, None]
        return mixture(statistics, replace(statistics, views=views), self.fraction)

    def processed(self, seen: LinkStatistics, defended: bool) -> LinkStatistics:
        """Return what Bob keeps; undefended, he discards double clicks."""
        return seen if defended else without_double_clicks(seen)


@dataclass(frozen=True)
class DenialOfService(Attack):
    """Loss or light is put on the line: no key is learned, perhaps none is made.

    Parameters
    ----------
    extra_loss_db : float
        0 to 200.
    noise_photons : float
        Mean unpolarised photons per gate at Bob's input, 0 to 10.
    """

    extra_loss_db: float = 20.0
    noise_photons: float = 0.0

    attack_id: ClassVar[str] = "denial-of-service"
    description: ClassVar[str] = "loss or light on the line"
    reference: ClassVar[str] = "none needed"
    countermeasure: ClassVar[str] = "not a matter of security: stored key and another route"

    def __post_init__(self) -> None:
        check_range("extra_loss_db", self.extra_loss_db, 0.0, 200.0)
        check_range("noise_photons", self.noise_photons, 0.0, 10.0)

    def transform(self, statistics: LinkStatistics) -> LinkStatistics:
        link = statistics.link
        if self.extra_loss_db == 0 and self.noise_photons == 0:
            return statistics
        scales = np.full(len(statistics.gains), transmittance(self.extra_loss_db))
        table = relit_table(link, scales, self.noise_photons)
        return replace(statistics, views=table[None])

    def transform_records(self, honest: Exchange, rng: np.random.Generator) -> Exchange:
        """Return the records with detections lost at random; exact for weak light and without background.

        Noise is not added here: :meth:`draw` draws it from the table.
        """
        return selected(honest, rng.random(len(honest.detections.slots)) < transmittance(self.extra_loss_db))


def error_after_intercept_resend(error_rate: float, fraction: float) -> float:
    """Return ``E = E0 + p (1/4 - E0/2)``.

    >>> error_after_intercept_resend(0.0, 1.0)
    0.25
    """
    check_range("error_rate", error_rate, 0.0, 0.5)
    check_range("fraction", fraction, 0.0, 1.0)
    return error_rate + fraction * (0.25 - error_rate / 2)


def one_way_error_limit(bases: int = 2) -> float:
    """Return the error rate at which one-way key from single photons ends, without any overhead.

    Two bases (BB84): ``1 = 2 h(e)``, 11.003 %. Three bases (six-state): ``1 = h(3e/2) + (3e/2) log2 3``,
    12.62 % (P. Shor, J. Preskill, PRL 85, 441 (2000); H.-K. Lo, QIC 1, 81 (2001)).

    >>> round(one_way_error_limit(2), 5), round(one_way_error_limit(3), 4)
    (0.11003, 0.1262)
    """
    check_range("bases", bases, 2, 3)

    def spent(error: float) -> float:
        if bases == 2:
            return 2 * binary_entropy(error)
        return binary_entropy(1.5 * error) + 1.5 * error * math.log2(3)

    return matching(spent, 1.0, 0.3)


def fraction_at_error_limit(error_rate: float, bases: int = 2) -> float:
    """Return the intercepted fraction at which the error rate reaches the one-way limit, 0 to 1."""
    check_range("error_rate", error_rate, 0.0, 0.25)
    room = one_way_error_limit(bases) - error_rate
    return min(1.0, max(0.0, room / (0.25 - error_rate / 2)))


def uniform_bits(views: Floats, link: QuantumLink) -> Floats:
    """Return detections seen in Alice's other basis (axis 4 reversed), with bits that say nothing.

    Eve sends in the basis that Alice did not use: how often one or both detectors click follows Eve's basis,
    how often the bases are chosen follows Alice.
    """
    alice = np.array([link.source.z_basis_probability, 1 - link.source.z_basis_probability])
    per_choice = views.sum(axis=(-2, -1)) / alice[::-1] * alice
    return np.broadcast_to(per_choice[..., None, None] / 4, views.shape)


def resent_bits(error: float) -> Floats:
    """Return P(Eve's bit | her basis, Alice's basis and bit), shape (2, 2, 1, 2, 2).

    Axes: Eve's basis, Eve's bit, one for Bob's basis, Alice's basis, Alice's bit.
    """
    chance = np.full((2, 2, 1, 2, 2), 0.5)
    for basis in (0, 1):
        chance[basis, :, 0, basis] = [[1 - error, error], [error, 1 - error]]
    return chance


def without_double_clicks(statistics: LinkStatistics) -> LinkStatistics:
    """Return what is left when double clicks are discarded, as they must not be."""
    views = statistics.views.copy()
    views[:, :, 1] = 0.0
    return replace(statistics, views=views)


def rescaled_errors(counts: object, calm_counts: object, calm_errors: object) -> list[float]:
    """Return the errors that so many detections of the honest link would have."""
    now = np.asarray(counts, dtype=np.float64)
    rate = np.asarray(calm_errors, dtype=np.float64) / np.maximum(
        np.asarray(calm_counts, dtype=np.float64), 1e-300
    )
    return [float(each) for each in now * rate]
