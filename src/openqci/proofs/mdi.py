"""MDI-QKD to secret bits, for endless blocks and single-photon pairs known exactly.

``mdi-asymptotic``: ``P11 Y11 [1 - h(e11)] - Q_Z f h(E_Z)`` with ``P11 = a b exp(-a - b)``
(H.-K. Lo, M. Curty, B. Qi, PRL 108, 130503 (2012)). There is no finite-key form here: that of M. Curty et
al., Nat. Commun. 5, 3732 (2014) has errors in print that were not checked against a corrected text. So MDI
rates serve curves and planning and never a key.
"""

from openqci.core.errors import OutsideModel
from openqci.proofs.bounds import binary_entropy

MDI_ASYMPTOTIC = "mdi-asymptotic"
REFERENCE = "H.-K. Lo, M. Curty, B. Qi, Phys. Rev. Lett. 108, 130503 (2012), arXiv:1109.1473"


def mdi_bits_per_pulse(
    single_pairs: float,
    single_x_error: float,
    z_gain: float,
    z_qber: float,
    error_correction_efficiency: float,
) -> float:
    """Return the key per pair of pulses in basis Z, not cut off at zero.

    Parameters
    ----------
    single_pairs : float
        P11 Y11: Bell results of single-photon pairs, per pair of pulses.
    single_x_error : float
        e11 in basis X, 0 to 1.
    z_gain, z_qber : float
        Of all Bell results in basis Z.
    error_correction_efficiency : float
        f, 1 or more.
    """
    for name, value in (
        ("single_pairs", single_pairs),
        ("single_x_error", single_x_error),
        ("z_gain", z_gain),
        ("z_qber", z_qber),
    ):
        if not 0 <= value <= 1:
            raise OutsideModel(name, value, "a number from 0 to 1")
    if not 1 <= error_correction_efficiency < float("inf"):
        raise OutsideModel("error_correction_efficiency", error_correction_efficiency, "1 or more")
    kept = single_pairs * (1 - binary_entropy(min(single_x_error, 0.5)))
    return kept - z_gain * error_correction_efficiency * binary_entropy(z_qber)
