"""The way of a photon from a satellite's telescope down to a receiver on the ground, as pure functions.

A downlink is a product of a few transmittances, each a function over arrays of elevation or range:

=================  ==========================================================================================
module             answers
=================  ==========================================================================================
``geometry``       how far, how high, for how long: one pass of a circular orbit
``diffraction``    what a telescope catches of a beam; every divergence says its convention
``atmosphere``     what clear or hazy air lets through
``pointing``       what jitter costs, as a distribution
``turbulence``     seeing, scintillation, coupling into a single-mode fibre behind adaptive optics
``fading``         a distribution as nodes and weights, to average a gain over
``sky``            photons of the sky, and when key may be credited
=================  ==========================================================================================

>>> import numpy as np
>>> seen = circular_pass(altitude_km=500.0, elevation_min_deg=20.0, step_s=60.0)
>>> beam, telescope = GaussianBeam.of_waist(0.036, wavelength_nm=1550.0), Telescope(0.8)
>>> through = collected_fraction(beam, telescope, seen.slant_ranges_km)
>>> through *= clear_sky_transmittance(seen.elevations_deg, 1550.0)
>>> loss_db(through).round(1).tolist()
[29.7, 26.9, 23.7, 21.9, 23.7, 26.9, 29.7]

What such a pass yields in key is :mod:`openqci.links.passes`. Not here: orbits from elements and real time,
weather, contact plans, and anything of detectors. Every quantity outside the range in which its model holds
raises :class:`~openqci.core.errors.OutsideModel`. Read ``geometry`` first.
"""

from openqci.space.atmosphere import airmass, clear_sky_transmittance, hazy_sky_transmittance
from openqci.space.diffraction import (
    Beam,
    GaussianBeam,
    Telescope,
    TruncatedBeam,
    UniformDisc,
    collected_fraction,
    loss_db,
)
from openqci.space.fading import (
    STEADY,
    Fading,
    gamma_gamma_fading,
    log_normal_fading,
    pointing_fading,
)
from openqci.space.geometry import StationPass, circular_pass, pass_duration_s, slant_range_km
from openqci.space.pointing import jitter_exponent
from openqci.space.sky import CreditRule, radiance_of_magnitude, single_mode_sky_photons_hz, sky_photons_hz
from openqci.space.turbulence import (
    TurbulenceProfile,
    fried_parameter_m,
    hufnagel_valley,
    rytov_variance,
    single_mode_coupling,
)

__all__ = [
    "STEADY",
    "Beam",
    "CreditRule",
    "Fading",
    "GaussianBeam",
    "StationPass",
    "Telescope",
    "TruncatedBeam",
    "TurbulenceProfile",
    "UniformDisc",
    "airmass",
    "circular_pass",
    "clear_sky_transmittance",
    "collected_fraction",
    "fried_parameter_m",
    "gamma_gamma_fading",
    "hazy_sky_transmittance",
    "hufnagel_valley",
    "jitter_exponent",
    "log_normal_fading",
    "loss_db",
    "pass_duration_s",
    "pointing_fading",
    "radiance_of_magnitude",
    "rytov_variance",
    "single_mode_coupling",
    "single_mode_sky_photons_hz",
    "sky_photons_hz",
    "slant_range_km",
]
