"""Key rates for blocks without end: for curves, sanity checks and upper bounds; never for a key.

Rates are bits per emitted pulse. The Ma form of gain and error (background added to, not joined with, light)
is kept because published curves use it; it counts "dark count and photon" twice.
"""

import math
from dataclasses import dataclass

from openqci.proofs.bounds import binary_entropy


@dataclass(frozen=True)
class AsymptoticLink:
    """A link in the terms of Ma et al. 2005.

    Parameters
    ----------
    transmittance : float
        Source to click: channel, receiver and detector.
    background : float
        Y0, click probability of an empty pulse, both detectors.
    misalignment_error : float
        Chance that a photon hits the wrong detector.
    error_correction_efficiency : float
        f, 1 or more.
    sifting : float
        q, fraction of pulses in which the bases match.
    """

    transmittance: float
    background: float
    misalignment_error: float
    error_correction_efficiency: float
    sifting: float = 0.5

    def gain(self, intensity: float) -> float:
        """Return Q = Y0 + 1 - exp(-eta mu), eq. (10)."""
        return self.background - math.expm1(-self.transmittance * intensity)

    def error_gain(self, intensity: float) -> float:
        """Return E Q = Y0/2 + e_d (1 - exp(-eta mu)), eq. (11)."""
        return self.background / 2 - self.misalignment_error * math.expm1(-self.transmittance * intensity)


def infinite_decoy_rate(link: AsymptoticLink, mu: float) -> float:
    """Return the key rate when single-photon yield and error are known exactly.

    References
    ----------
    X. Ma, B. Qi, Y. Zhao, H.-K. Lo, PRA 72, 012326 (2005), quant-ph/0503005, eq. (1) with Y1 = Y0 + eta.
    """
    y1 = link.background + link.transmittance
    e1 = (link.background / 2 + link.misalignment_error * link.transmittance) / y1
    return gllp_rate(link, mu, y1, e1)


def vacuum_weak_rate(link: AsymptoticLink, mu: float, nu: float) -> float:
    """Return the key rate with a weak decoy nu and a vacuum decoy, eqs (34) and (35) of Ma et al. 2005."""
    vacuum = link.background
    nu_gain = link.gain(nu) * math.exp(nu)
    multi = (nu / mu) ** 2 * link.gain(mu) * math.exp(mu)
    y1 = mu / (mu * nu - nu**2) * (nu_gain - multi - (mu**2 - nu**2) / mu**2 * vacuum)
    if y1 <= 0:
        return 0.0
    e1 = (link.error_gain(nu) * math.exp(nu) - vacuum / 2) / (y1 * nu)
    return gllp_rate(link, mu, y1, min(max(e1, 0.0), 0.5))


def gllp_rate(link: AsymptoticLink, mu: float, y1: float, e1: float) -> float:
    """Return q {Q1 [1 - h(e1)] - f Q h(E)}, never below zero (D. Gottesman et al., QIC 4, 325 (2004))."""
    gain = link.gain(mu)
    single = y1 * mu * math.exp(-mu) * (1 - binary_entropy(e1))
    spent = link.error_correction_efficiency * gain * binary_entropy(link.error_gain(mu) / gain)
    return max(0.0, link.sifting * (single - spent))


def plob_bound(loss_db: float) -> float:
    """Return the repeaterless bound -log2(1 - eta) in bits per mode.

    References
    ----------
    S. Pirandola, R. Laurenza, C. Ottaviani, L. Banchi, Nat. Commun. 8, 15043 (2017).
    """
    if loss_db <= 0:
        return math.inf
    return -math.log1p(-(10 ** (-loss_db / 10))) / math.log(2)
