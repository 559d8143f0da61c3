"""Where satellites are, when stations see them, and the way of a photon down, as pure functions over arrays.

From elements or a design to passes:

=================  ==========================================================================================
module             answers
=================  ==========================================================================================
``elements``       what published elements (TLE, OMM) say, and how old they are
``orbits``         where satellites are: SGP4, and orbits as designed (sun-synchronous, Walker, geostationary)
``frames``         what stations see of them: elevation, azimuth, range, range rate
``sun_moon``       Sun, twilight, Moon, and the shadow of the Earth
``tracks``         the same positions, a hundred times cheaper
``pass_finding``   rise, culmination and set of all passes
``pass_samples``   a pass in steps of time, with Sun, Moon and sunlight on the satellite
=================  ==========================================================================================

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
``weather``        clouds over stations, sampled and to be expected
=================  ==========================================================================================

>>> import numpy as np
>>> seen = circular_pass(altitude_km=500.0, elevation_min_deg=20.0, step_s=60.0)
>>> beam, telescope = GaussianBeam.of_waist(0.036, wavelength_nm=1550.0), Telescope(0.8)
>>> through = collected_fraction(beam, telescope, seen.slant_ranges_km)
>>> through *= clear_sky_transmittance(seen.elevations_deg, 1550.0)
>>> loss_db(through).round(1).tolist()
[29.7, 26.9, 23.7, 21.9, 23.7, 26.9, 29.7]

Times are ``utc_s``, seconds since 1970 (``time_scales``). What a pass yields in key is
:mod:`openqci.links.passes`. Not here: contact plans, and anything of detectors. Every quantity
outside the range in which its model holds raises :class:`~openqci.core.errors.OutsideModel`. Read
``geometry`` first, then ``orbits``.
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
from openqci.space.elements import MeanElements, age_warning, read_elements
from openqci.space.fading import (
    STEADY,
    Fading,
    gamma_gamma_fading,
    log_normal_fading,
    pointing_fading,
)
from openqci.space.frames import Stations, Topocentric, earth_fixed, topocentric
from openqci.space.geometry import StationPass, circular_pass, pass_duration_s, slant_range_km
from openqci.space.orbits import (
    ElementOrbit,
    ModelOrbit,
    Orbit,
    circular,
    geostationary,
    sun_synchronous,
    walker,
)
from openqci.space.pass_finding import Passes, find_passes, joined
from openqci.space.pass_samples import Almanac, PassSamples, sample_passes
from openqci.space.pointing import jitter_exponent
from openqci.space.sky import CreditRule, radiance_of_magnitude, single_mode_sky_photons_hz, sky_photons_hz
from openqci.space.sun_moon import (
    is_sunlit,
    moon_elevation_deg,
    moon_illuminated_fraction,
    sun_elevation_deg,
    twilight,
)
from openqci.space.time_scales import utc_seconds, utc_text
from openqci.space.tracks import Track, track_of
from openqci.space.turbulence import (
    TurbulenceProfile,
    fried_parameter_m,
    hufnagel_valley,
    rytov_variance,
    single_mode_coupling,
)

__all__ = [
    "STEADY",
    "Almanac",
    "Beam",
    "CreditRule",
    "ElementOrbit",
    "Fading",
    "GaussianBeam",
    "MeanElements",
    "ModelOrbit",
    "Orbit",
    "PassSamples",
    "Passes",
    "StationPass",
    "Stations",
    "Telescope",
    "Topocentric",
    "Track",
    "TruncatedBeam",
    "TurbulenceProfile",
    "UniformDisc",
    "age_warning",
    "airmass",
    "circular",
    "circular_pass",
    "clear_sky_transmittance",
    "collected_fraction",
    "earth_fixed",
    "find_passes",
    "fried_parameter_m",
    "gamma_gamma_fading",
    "geostationary",
    "hazy_sky_transmittance",
    "hufnagel_valley",
    "is_sunlit",
    "jitter_exponent",
    "joined",
    "log_normal_fading",
    "loss_db",
    "moon_elevation_deg",
    "moon_illuminated_fraction",
    "pass_duration_s",
    "pointing_fading",
    "radiance_of_magnitude",
    "read_elements",
    "rytov_variance",
    "sample_passes",
    "single_mode_coupling",
    "single_mode_sky_photons_hz",
    "sky_photons_hz",
    "slant_range_km",
    "sun_elevation_deg",
    "sun_synchronous",
    "topocentric",
    "track_of",
    "twilight",
    "utc_seconds",
    "utc_text",
    "walker",
]
