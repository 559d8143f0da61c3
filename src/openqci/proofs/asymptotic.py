"""Key rates for blocks without end: for curves, sanity checks and upper bounds; never for a key.

Rates are bits per emitted pulse. Every function takes a link whose figures may be arrays; the ones in the
plural answer with arrays, under an id of their own, and say what took the key where there is none.

>>> gys = AsymptoticLink(0.045 * 10 ** (-0.021 * np.array([0.0, 100.0, 150.0])), 1.7e-6, 0.033, 1.22)
>>> rates = infinite_decoy_rates(gys, 0.48)
>>> rates.proof_id, rates.bits_per_pulse.round(7).tolist()
('infinite-decoy-asymptotic', [0.0025546, 1.72e-05, 0.0])

**Two forms of a click.** ``ma-2005`` adds background to light, as published curves do, and so counts "dark
count and photon" twice (about 1e-8 of a pulse on the GYS link); ``joined`` does not, and is for new work.

Left out: everything finite, dead time, afterpulses. Read :mod:`openqci.proofs.two_decoy` for what a block
with an end gives.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.core.errors import OutsideModel
from openqci.proofs.bounds import checked, entropies
from openqci.proofs.counts import LEAK, PHASE_ERROR, Floats

NO_DECOY = "gllp-asymptotic"
INFINITE_DECOY = "infinite-decoy-asymptotic"
WEAK_DECOY = "weak-decoy-asymptotic"

NO_SINGLE_PHOTONS = "single photons: at this loss none can be told from pulses of several"

ClickForm = Literal["ma-2005", "joined"]


@dataclass(frozen=True)
class AsymptoticLink:
    """A link in the terms of Ma et al. 2005; figures are numbers or arrays, which broadcast to a shape S.

    Parameters
    ----------
    transmittance : array_like
        Source to click: channel, receiver and detector, 0 to 1.
    background : array_like
        Y0, click probability of an empty pulse, both detectors, 0 to 1.
    misalignment_error : array_like
        Chance that a photon hits the wrong detector, 0 to 0.5.
    error_correction_efficiency : array_like
        f, 1 or more.
    sifting : array_like
        q, fraction of pulses in which the bases match, 0 to 1.
    form : {"ma-2005", "joined"}
        Whether background is added to light or joined with it.

    Raises
    ------
    OutsideModel
        Names the figure and its range.
    """

    transmittance: ArrayLike
    background: ArrayLike
    misalignment_error: ArrayLike
    error_correction_efficiency: ArrayLike
    sifting: ArrayLike = 0.5
    form: ClickForm = "ma-2005"

    def __post_init__(self) -> None:
        checked("transmittance", self.transmittance, 0.0, 1.0)
        checked("background", self.background, 0.0, 1.0)
        checked("misalignment_error", self.misalignment_error, 0.0, 0.5)
        checked("error_correction_efficiency", self.error_correction_efficiency, 1.0, 100.0)
        checked("sifting", self.sifting, 0.0, 1.0)
        if self.form not in get_args(ClickForm):
            raise OutsideModel("form", self.form, f"one of {', '.join(get_args(ClickForm))}")

    def gain(self, intensity: ArrayLike) -> Floats:
        """Return Q = Y0 + 1 - exp(-eta mu), eq. (10); joined, ``1 - (1 - Y0) exp(-eta mu)``."""
        lit = -np.expm1(-np.multiply(self.transmittance, intensity))
        return self.alone(lit) + lit

    def error_gain(self, intensity: ArrayLike) -> Floats:
        """Return E Q = Y0/2 + e_d (1 - exp(-eta mu)), eq. (11); joined, Y0/2 of empty arrivals alone."""
        lit = -np.expm1(-np.multiply(self.transmittance, intensity))
        return self.alone(lit) / 2 + np.multiply(self.misalignment_error, lit)

    def single_photon(self) -> tuple[Floats, Floats]:
        """Return Y1 and e1: the chance that a single photon is seen, and its error rate."""
        arrives = np.asarray(self.transmittance, dtype=np.float64)
        seen = self.alone(arrives) + arrives
        errors = self.alone(arrives) / 2 + np.multiply(self.misalignment_error, arrives)
        return seen, errors / np.where(seen > 0, seen, 1.0)

    def alone(self, lit: Floats) -> Floats:
        """Return the chance of background that counts besides light that is seen with chance ``lit``."""
        background = np.asarray(self.background, dtype=np.float64)
        return background if self.form == "ma-2005" else background * (1 - lit)


@dataclass(frozen=True)
class AsymptoticRates:
    """Rates of a block without end, arrays of shape S, with the id of the argument that they rest on.

    ``single_photon_gain`` is Q1 and ``single_photon_error`` e1, known or bounded; ``spent`` what error
    correction discloses, all per emitted pulse before sifting.
    """

    proof_id: str
    unclipped_bits_per_pulse: Floats
    single_photon_gain: Floats
    single_photon_error: Floats
    spent: Floats

    @property
    def bits_per_pulse(self) -> Floats:
        """The rate, zero or more."""
        return np.maximum(0.0, self.unclipped_bits_per_pulse)

    @property
    def limited_by(self) -> NDArray[np.str_]:
        """Which term took the key where there is none; empty where there is one."""
        return np.select(
            [
                self.unclipped_bits_per_pulse > 0,
                self.single_photon_gain <= 0,
                self.single_photon_gain <= self.spent,
            ],
            ["", NO_SINGLE_PHOTONS, LEAK],
            PHASE_ERROR,
        )


def infinite_decoy_rates(link: AsymptoticLink, mu: ArrayLike) -> AsymptoticRates:
    """Return the key rates when single-photon yield and error are known exactly.

    References
    ----------
    X. Ma, B. Qi, Y. Zhao, H.-K. Lo, PRA 72, 012326 (2005), quant-ph/0503005, eq. (1) with Y1 = Y0 + eta.
    """
    signal = checked("mu", mu, 0.0, 10.0)
    yielded, error = link.single_photon()
    return gllp_rates(link, signal, yielded * signal * np.exp(-signal), error, INFINITE_DECOY)


def weak_decoy_rates(
    link: AsymptoticLink, mu: ArrayLike, nu: ArrayLike, faintest: ArrayLike = 0.0
) -> AsymptoticRates:
    """Return the key rates with two decoys; the faintest may be vacuum.

    References
    ----------
    X. Ma et al. 2005, eqs (18), (21) and (25); with a vacuum decoy (34), (35) and (37).

    Raises
    ------
    OutsideModel
        Unless ``nu > faintest`` and ``mu > nu + faintest``.
    """
    signal, weak = checked("mu", mu, 0.0, 10.0), checked("nu", nu, 0.0, 10.0)
    faint = checked("faintest", faintest, 0.0, 10.0)
    if not ((weak > faint) & (signal > weak + faint)).all():
        raise OutsideModel("nu", (mu, nu, faintest), "intensities with nu > faintest and mu > nu + faintest")
    gains = [link.gain(k) * np.exp(k) for k in (signal, weak, faint)]
    vacuum = np.maximum(0.0, (weak * gains[2] - faint * gains[1]) / (weak - faint))
    multi = (weak**2 - faint**2) / signal**2 * (gains[0] - vacuum)
    divisor = signal * (weak - faint) - weak**2 + faint**2
    yielded = np.clip(signal / divisor * (gains[1] - gains[2] - multi), 0.0, 1.0)
    wrong = (link.error_gain(weak) * np.exp(weak) - link.error_gain(faint) * np.exp(faint)) / (weak - faint)
    error = np.where(yielded > 0, wrong / np.where(yielded > 0, yielded, 1.0), 0.5)
    single = yielded * signal * np.exp(-signal)
    return gllp_rates(link, signal, single, np.clip(error, 0.0, 0.5), WEAK_DECOY)


def no_decoy_rates(link: AsymptoticLink, mu: ArrayLike) -> AsymptoticRates:
    """Return the key rates without decoys: every pulse of several photons is taken as known to Eve.

    ``Q1 >= Q - P(n >= 2)`` and ``e1 <= E Q / Q1``: nothing at all beyond some 16 dB at mu = 0.05, where Eve
    can block single photons and split the others.

    References
    ----------
    D. Gottesman, H.-K. Lo, N. Lütkenhaus, J. Preskill, QIC 4, 325 (2004), quant-ph/0212066.
    """
    dim = checked("mu", mu, 0.0, 10.0)
    multi = -np.expm1(-dim) - dim * np.exp(-dim)
    single = np.maximum(0.0, link.gain(dim) - multi)
    error = np.where(single > 0, link.error_gain(dim) / np.where(single > 0, single, 1.0), 0.5)
    return gllp_rates(link, dim, single, np.minimum(error, 0.5), NO_DECOY)


def gllp_rates(
    link: AsymptoticLink,
    mu: ArrayLike,
    single_photon_gain: Floats,
    single_photon_error: Floats,
    proof_id: str,
) -> AsymptoticRates:
    """Return q {Q1 [1 - h(e1)] - f Q h(E)} (D. Gottesman et al., QIC 4, 325 (2004)), not cut off at zero."""
    gain = link.gain(mu)
    qber = link.error_gain(mu) / np.where(gain > 0, gain, 1.0)
    spent = np.multiply(link.error_correction_efficiency, gain) * entropies(np.minimum(qber, 0.5))
    kept = single_photon_gain * (1 - entropies(single_photon_error)) - spent
    return AsymptoticRates(
        proof_id=proof_id,
        unclipped_bits_per_pulse=np.multiply(link.sifting, kept),
        single_photon_gain=single_photon_gain,
        single_photon_error=single_photon_error,
        spent=spent,
    )


def plob_bounds(loss_db: ArrayLike) -> Floats:
    """Return the repeaterless bound -log2(1 - eta) in bits per mode; infinite where there is no loss.

    References
    ----------
    S. Pirandola, R. Laurenza, C. Ottaviani, L. Banchi, Nat. Commun. 8, 15043 (2017).
    """
    loss = np.asarray(loss_db, dtype=np.float64)
    # 1 - eta from the loss itself: exact for a loss near nothing as for one near everything.
    lost = np.maximum(0.0, -np.expm1(-loss * (math.log(10) / 10)))
    far = -np.log1p(-np.minimum(10 ** (-loss / 10), 0.5)) / math.log(2)
    near = -np.log(np.where(lost > 0, lost, 1.0)) / math.log(2)
    return np.where(lost > 0, np.where(lost > 0.5, far, near), math.inf)


def infinite_decoy_rate(link: AsymptoticLink, mu: float) -> float:
    """Return the rate of one link, zero or more; see :func:`infinite_decoy_rates`."""
    return float(infinite_decoy_rates(link, mu).bits_per_pulse)


def vacuum_weak_rate(link: AsymptoticLink, mu: float, nu: float) -> float:
    """Return the rate of one link with a weak decoy nu and a vacuum decoy; see :func:`weak_decoy_rates`."""
    return float(weak_decoy_rates(link, mu, nu).bits_per_pulse)


def plob_bound(loss_db: float) -> float:
    """Return the repeaterless bound of one loss; see :func:`plob_bounds`."""
    return float(plob_bounds(loss_db))
