"""Twin-field QKD (sending or not sending) to secret bits, for endless blocks. For curves, not for keys.

``sns-asymptotic``: ``p_Z {2 s (1 - s) mu exp(-mu) Y1 [1 - h(e1)] - Q_Z f h(E_Z)}`` per window, s the sending
probability (X.-B. Wang, Z.-W. Yu, X.-L. Hu, PRA 98, 062323 (2018), as remembered and not checked against
the paper). Single photons are taken as known exactly. What this form does not have, and published records
do: pairing of bits, which removes most of the bit errors; the finite-key terms; the time that is lost to
keeping phases. So it says where a twin field beats a direct link, and no more.
"""

from openqci.core.errors import OutsideModel
from openqci.proofs.bounds import binary_entropy

SNS_ASYMPTOTIC = "sns-asymptotic"
REFERENCE = "X.-B. Wang, Z.-W. Yu, X.-L. Hu, Phys. Rev. A 98, 062323 (2018), arXiv:1805.09222 (from memory)"


def sns_bits_per_window(
    single_clicks: float,
    single_phase_error: float,
    z_gain: float,
    z_qber: float,
    error_correction_efficiency: float,
) -> float:
    """Return the key per Z window, not cut off at zero.

    Parameters
    ----------
    single_clicks : float
        Chance per Z window that one end alone sent exactly one photon and one detector clicked.
    single_phase_error : float
        e1 of these, 0 to 1.
    z_gain, z_qber : float
        Of all Z windows.
    error_correction_efficiency : float
        f, 1 or more.
    """
    for name, value in (
        ("single_clicks", single_clicks),
        ("single_phase_error", single_phase_error),
        ("z_gain", z_gain),
        ("z_qber", z_qber),
    ):
        if not 0 <= value <= 1:
            raise OutsideModel(name, value, "a number from 0 to 1")
    if not 1 <= error_correction_efficiency < float("inf"):
        raise OutsideModel("error_correction_efficiency", error_correction_efficiency, "1 or more")
    kept = single_clicks * (1 - binary_entropy(min(single_phase_error, 0.5)))
    return kept - z_gain * error_correction_efficiency * binary_entropy(z_qber)
