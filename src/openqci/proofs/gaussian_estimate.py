"""From disclosed quadratures to the channel that they show: the parameter estimation of GG02."""

import numpy as np
from numpy.typing import NDArray

from openqci.core.errors import OutsideModel
from openqci.proofs.gaussian import Detection, DetectorTrust, GaussianChannel

SYMBOLS_MIN = 100
TRANSMITTANCE_MIN = 1e-20


def estimated_channel(
    alice: NDArray[np.float64],
    bob: NDArray[np.float64],
    detector_efficiency: float,
    electronic_noise_snu: float,
    detection: Detection = "homodyne",
    detector_trust: DetectorTrust = "trusted",
) -> GaussianChannel:
    """Return the most likely channel behind paired quadratures, both of shape (m,).

    ``t = <a b>/<a^2>``, the noise ``s2 = <(b - t a)^2>``; then ``T = t^2/eta`` and
    ``xi = (s2 - 1 - v_el)/t^2``, for heterodyne of half the light. Estimates outside what is physical (T
    above 1, xi below 0) are set to its edge.

    Parameters
    ----------
    alice, bob : ndarray, shape (m,)
        What Alice sent and Bob measured in the same quadrature, square roots of SNU; m at least 100.
    detector_efficiency, electronic_noise_snu : float
        As calibrated.

    References
    ----------
    A. Leverrier, F. Grosshans, P. Grangier, PRA 81, 062343 (2010), section on parameter estimation.
    """
    if alice.shape != bob.shape or alice.ndim != 1 or len(alice) < SYMBOLS_MIN:
        raise OutsideModel("alice, bob", (alice.shape, bob.shape), f"two equal rows of {SYMBOLS_MIN} or more")
    if not (np.isfinite(alice).all() and np.isfinite(bob).all()):
        raise OutsideModel("alice, bob", "values that are not finite", "finite values")
    variance = float(np.mean(alice**2))
    amplitude = float(np.mean(alice * bob)) / variance
    noise = float(np.mean((bob - amplitude * alice) ** 2))
    share = 1.0 if detection == "homodyne" else 0.5
    passed = max(amplitude, 0.0) ** 2
    excess = (noise - 1 - electronic_noise_snu) / passed if passed > TRANSMITTANCE_MIN else np.inf
    return GaussianChannel(
        variance,
        min(1.0, max(TRANSMITTANCE_MIN, passed / (share * detector_efficiency))),
        min(1e6, max(0.0, excess)),
        detector_efficiency,
        electronic_noise_snu,
        detection,
        detector_trust,
    )
