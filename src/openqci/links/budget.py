"""What a design loses on the way down, term by term in dB, over all samples of all passes at once.

=============  ==========================================================================================
term           what it is
=============  ==========================================================================================
diffraction    what the telescope catches of the emitted beam: divergence, truncation, obscuration
pointing       jitter of the transmitter: the loss of the mean transmittance, not the mean of the loss
turbulence     widening of the beam by the air; next to nothing on the way down
atmosphere     clear air by wavelength, elevation, site altitude and the month's turbidity
coupling       into a single-mode fibre behind adaptive optics; none for detectors behind a field stop
optics         transmitter, receiver, and what tracking loses at low elevations
detector       efficiency
=============  ==========================================================================================

The background is in photons per second at the receiver's input: night sky, Moon, twilight or day, towns, and
the satellite itself in sunlight.

>>> from openqci.links.missions import mission
>>> from openqci.links.ground import ground_station
>>> link = SpaceLink(mission("eagle-1").design(), ground_station("ogs-oberpfaffenhofen"))
>>> overhead = link.at(elevations_deg=[90.0, 20.0], ranges_km=[500.0, 1193.0])
>>> for name, loss in overhead.terms().items():
...     print(f"{name:<15}{loss[0]:5.1f}{loss[1]:6.1f}")
diffraction_db  24.7  32.2
pointing_db      0.2   0.2
turbulence_db    0.0   0.0
atmosphere_db    0.2   0.7
coupling_db      3.5   4.7
optics_db        3.0   3.0
detector_db      1.0   1.0

Left out: clouds, correlations of fading in time, straylight inside the telescope. Read
:mod:`openqci.links.pass_keys` next.
"""

from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openqci.core.errors import OutsideModel
from openqci.links.ground import GroundStation
from openqci.links.missions.model import Design, Payload
from openqci.space.atmosphere import (
    aerosol_depth_550,
    clear_sky_transmittance,
    turbid_sky_transmittance,
)
from openqci.space.diffraction import (
    Beam,
    GaussianBeam,
    Telescope,
    TruncatedBeam,
    UniformDisc,
    collected_fraction,
    loss_db,
)
from openqci.space.pass_finding import Indices
from openqci.space.pass_samples import PassSamples
from openqci.space.pointing import jitter_exponent, mean_loss_db
from openqci.space.ranges import Floats, check_range
from openqci.space.sky import single_mode_sky_photons_hz, sky_photons_hz
from openqci.space.sky_light import (
    TOWNS,
    moon_radiance,
    sky_radiance,
    sun_radiance,
    sunlit_satellite_photons_hz,
)
from openqci.space.turbulence import (
    TurbulenceProfile,
    downlink_spread,
    fibre_coupling,
    fried_parameter_m,
    hufnagel_valley,
)

LOW_ELEVATION_DEG = 5.0
"""To which the theory of turbulence is used here, knowingly below the 30 deg to which it is stated."""

RANGE_NODES = 200
ELEVATION_NODES = 171
"""Of tables in range and elevation, between which straight lines are drawn; half a degree apart."""

MONTHS = 12

NIGHT_SUN_ELEVATION_DEG = -18.0
"""Below this the Sun lights no sky."""


@dataclass(frozen=True)
class Budget:
    """Losses in dB and background, arrays of one shape.

    Attributes
    ----------
    diffraction_db, pointing_db, turbulence_db, atmosphere_db, coupling_db, optics_db, detector_db : ndarray
        Positive for what is lost.
    background_photons_hz : ndarray
        At the receiver's input, inside its filter and its field or mode, before its optics.
    """

    diffraction_db: Floats
    pointing_db: Floats
    turbulence_db: Floats
    atmosphere_db: Floats
    coupling_db: Floats
    optics_db: Floats
    detector_db: Floats
    background_photons_hz: Floats

    def terms(self) -> dict[str, Floats]:
        """Return the losses by name, in the order of the light's way."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name.endswith("_db")}

    @property
    def total_db(self) -> Floats:
        """From the transmitter's output to counted photons, detector included."""
        total: Floats = np.sum(list(self.terms().values()), axis=0)
        return total

    @property
    def channel_db(self) -> Floats:
        """The same without the detector."""
        return self.total_db - self.detector_db


@dataclass(frozen=True)
class SpaceLink:
    """A design over one station.

    Parameters
    ----------
    design : Design
    ground : GroundStation
    turbulence : TurbulenceProfile
        Above the station; HV5/7 when not given.
    """

    design: Design
    ground: GroundStation
    turbulence: TurbulenceProfile = field(default_factory=hufnagel_valley)

    def at(
        self,
        elevations_deg: ArrayLike,
        ranges_km: ArrayLike,
        *,
        month: ArrayLike = 6,
        sun_elevations_deg: ArrayLike = -40.0,
        moon_elevations_deg: ArrayLike = -90.0,
        moon_phases_deg: ArrayLike = 180.0,
        moon_separations_deg: ArrayLike = 90.0,
        sunlit: ArrayLike = False,
    ) -> Budget:
        """Return the budget of moments, arguments of shape S or broadcast to it.

        Parameters
        ----------
        elevations_deg, ranges_km : array_like
        month : array_like of int
            1 to 12, whose turbidity the air has.
        sun_elevations_deg, moon_elevations_deg, moon_phases_deg, moon_separations_deg : array_like
            See :func:`openqci.space.sky_light.sky_radiance`.
        sunlit : array_like of bool
            Whether the satellite is in sunlight.
        """
        elevation, distance = np.broadcast_arrays(
            check_range("elevation_deg", elevations_deg, LOW_ELEVATION_DEG, 90.0),
            check_range("range_km", ranges_km, 50.0, 1e5),
        )
        losses = self.losses(elevation, distance, np.asarray(month))
        background = self.background_photons_hz(
            elevation,
            distance,
            sun_elevations_deg,
            moon_elevations_deg,
            moon_phases_deg,
            moon_separations_deg,
            sunlit,
            losses.atmosphere_db,
        )
        return replace(losses, background_photons_hz=background)

    def of_samples(self, seen: PassSamples) -> Budget:
        """Return the budget of all samples of passes over this station, shape (N,)."""
        return self.at(
            seen.elevations_deg,
            seen.ranges_km,
            month=month_of(seen.utc_s),
            sun_elevations_deg=seen.sun_elevations_deg,
            moon_elevations_deg=seen.moon_elevations_deg,
            moon_phases_deg=seen.moon_phases_deg,
            moon_separations_deg=seen.moon_separations_deg,
            sunlit=seen.sunlit,
        )

    def light(self, seen: PassSamples, chosen: Indices) -> tuple[Floats, Floats]:
        """Return what is left of the light, detector included, and the background, of some samples.

        The same as :meth:`of_samples` in a quarter of the time: all that depends on elevation is one table.
        """
        elevation, distance = seen.elevations_deg[chosen], seen.ranges_km[chosen]
        place = (elevation - LOW_ELEVATION_DEG) * ((ELEVATION_NODES - 1) / (90.0 - LOW_ELEVATION_DEG))
        node = np.clip(place.astype(np.int64), 0, ELEVATION_NODES - 2)
        # A pass is within one month, or all but.
        first = seen.offsets[:-1][seen.offsets[:-1] < len(seen)]
        months = np.zeros(seen.passes, dtype=np.int64)
        months[: len(first)] = month_of(seen.utc_s[first]) - 1
        row = months[seen.owner[chosen]]
        along = place - node
        lost_db = self.diffraction_db(distance) + float(mean_loss_db(self.jitter_exponent))
        lost_db += between(self.elevation_tables_db, row, node, along)
        background = self.sky_photons_hz(seen, chosen, elevation)
        lit = np.flatnonzero(seen.sunlit[chosen])
        if len(lit) and self.design.payload.sunlit_magnitude_1000_km is not None:
            way_db = between(self.air_and_fibre_tables_db, row[lit], node[lit], along[lit])
            background[lit] += self.shining_photons_hz(distance[lit]) * 10 ** (-way_db / 10)
        return 10 ** (-lost_db / 10), background

    def sky_photons_hz(self, seen: PassSamples, chosen: Indices, elevation_deg: Floats) -> Floats:
        """Return photons per second of the sky at the receiver's input, of some samples."""
        wavelength_nm = self.design.payload.wavelength_nm
        radiance = np.full(
            len(chosen), float(sky_radiance(wavelength_nm, -90.0, town_ratio=TOWNS[self.ground.sky]))
        )
        sun = seen.sun_elevations_deg[chosen]
        bright = np.flatnonzero(sun > NIGHT_SUN_ELEVATION_DEG)
        radiance[bright] += sun_radiance(wavelength_nm, sun[bright])
        up = np.flatnonzero(seen.moon_elevations_deg[chosen] > 0)
        radiance[up] += moon_radiance(
            wavelength_nm,
            seen.moon_elevations_deg[chosen[up]],
            seen.moon_phases_deg[chosen[up]],
            seen.moon_separations_deg[chosen[up]],
            elevation_deg[up],
        )
        return radiance * self.photons_per_radiance_hz

    def losses(self, elevation_deg: Floats, distance_km: Floats, month: NDArray[np.generic]) -> Budget:
        """Return the losses, without background."""
        zeros = np.zeros(elevation_deg.shape)
        payload, station = self.design.payload, self.design.station
        low = station.low_elevation_loss_db * np.maximum(45.0 - elevation_deg, 0.0) / (45.0 - 20.0)
        return Budget(
            diffraction_db=self.diffraction_db(distance_km),
            pointing_db=zeros + float(mean_loss_db(self.jitter_exponent)),
            turbulence_db=np.interp(elevation_deg, self.elevations_deg, self.turbulence_table_db),
            atmosphere_db=self.atmosphere_db(elevation_deg, month),
            coupling_db=np.interp(elevation_deg, self.elevations_deg, self.coupling_table_db),
            optics_db=payload.optics_loss_db + station.optics_loss_db + low,
            detector_db=zeros + float(loss_db(station.detector_efficiency)),
            background_photons_hz=zeros,
        )

    # Tables, because a beam cut by an aperture costs a millisecond per distance and a year has 1e8 samples

    @cached_property
    def beam(self) -> Beam:
        return self.design.payload.beam()

    @cached_property
    def jitter_exponent(self) -> float:
        """The ratio of divergence and jitter; of a beam that is not Gaussian, that of the one like it."""
        return float(jitter_exponent(gaussian_like(self.beam), self.design.payload.jitter_urad))

    @property
    def diffraction_table(self) -> tuple[Floats, Floats]:
        """Logarithm of the distance, and the loss in dB."""
        station = self.design.station
        return diffraction_table(self.design.payload, station.aperture_diameter_m, station.obscuration_ratio)

    def diffraction_db(self, distance_km: Floats) -> Floats:
        """Return the loss by diffraction; nearly a straight line in the logarithm of the distance."""
        logarithms, losses_db = self.diffraction_table
        nearest_km = float(np.exp(logarithms[0]))
        if distance_km.size and distance_km.min() < nearest_km:
            check_range("range_km", distance_km, nearest_km, 1e5)
        return np.interp(np.log(distance_km), logarithms, losses_db)

    @cached_property
    def elevations_deg(self) -> Floats:
        return np.linspace(LOW_ELEVATION_DEG, 90.0, ELEVATION_NODES)

    @cached_property
    def turbulence_table_db(self) -> Floats:
        """Loss by widening over elevation, of a satellite at 500 km: higher ones lose even less."""
        diameter_m = self.design.payload.aperture_diameter_m or 0.1
        spread = downlink_spread(
            self.turbulence,
            self.design.payload.wavelength_nm,
            self.elevations_deg,
            diameter_m,
            500.0,
            elevation_min_deg=LOW_ELEVATION_DEG,
        )
        widened: Floats = 10 * np.log10(spread)
        return widened

    @cached_property
    def coupling_table_db(self) -> Floats:
        """Loss by coupling into a fibre over elevation."""
        station = self.design.station
        if station.reception == "field":
            return np.zeros(ELEVATION_NODES)
        seeing_m = fried_parameter_m(
            self.turbulence,
            self.design.payload.wavelength_nm,
            self.elevations_deg,
            elevation_min_deg=LOW_ELEVATION_DEG,
        )
        coupled = fibre_coupling(station.aperture_diameter_m / seeing_m, station.adaptive_modes or 1)
        return loss_db(coupled) + station.adaptive_loss_db

    @cached_property
    def atmosphere_tables_db(self) -> Floats:
        """Loss in the air over elevation, one row per month."""
        wavelength_nm, altitude_km = self.design.payload.wavelength_nm, self.altitude_km
        if not self.ground.turbidity_by_month:
            clear = loss_db(clear_sky_transmittance(self.elevations_deg, wavelength_nm, altitude_km))
            return np.broadcast_to(clear, (MONTHS, ELEVATION_NODES))
        haze = aerosol_depth_550(self.ground.turbidity_by_month, altitude_km)
        through = turbid_sky_transmittance(self.elevations_deg, wavelength_nm, haze[:, None], altitude_km)
        return loss_db(through)

    @cached_property
    def air_and_fibre_tables_db(self) -> Floats:
        """Loss in the air and by coupling over elevation, one row per month: the way of other light."""
        return self.atmosphere_tables_db + self.coupling_table_db

    @cached_property
    def elevation_tables_db(self) -> Floats:
        """All that depends on elevation, and what depends on nothing, one row per month."""
        fixed = self.losses(self.elevations_deg, np.full(ELEVATION_NODES, 1000.0), np.array(1))
        tables: Floats = (
            self.air_and_fibre_tables_db + fixed.turbulence_db + fixed.optics_db + fixed.detector_db
        )
        return tables

    @cached_property
    def photons_per_radiance_hz(self) -> float:
        """Photons per second at the receiver's input of a sky of 1 W/(m2 sr nm)."""
        payload, station = self.design.payload, self.design.station
        if station.reception == "single-mode":
            return float(single_mode_sky_photons_hz(1.0, payload.wavelength_nm, station.filter_nm))
        return float(
            sky_photons_hz(
                1.0,
                payload.wavelength_nm,
                field_of_view_urad=station.field_of_view_urad or 0.0,
                aperture_area_m2=station.telescope().area_m2,
                filter_nm=station.filter_nm,
            )
        )

    def shining_photons_hz(self, distance_km: Floats) -> Floats:
        """Return photons per second of a satellite in sunlight at the telescope, before the air."""
        payload, station = self.design.payload, self.design.station
        return sunlit_satellite_photons_hz(
            payload.sunlit_magnitude_1000_km or 0.0,
            distance_km,
            payload.wavelength_nm,
            aperture_area_m2=station.telescope().area_m2,
            filter_nm=station.filter_nm,
        )

    @property
    def altitude_km(self) -> float:
        return max(0.0, self.ground.altitude_m / 1000)

    def atmosphere_db(self, elevation_deg: Floats, month: NDArray[np.generic]) -> Floats:
        """Return the loss in the air of each month."""
        months = np.broadcast_to(month, elevation_deg.shape)
        losses = np.empty(elevation_deg.shape)
        for each in np.unique(months):
            if each != int(check_range("month", each, 1, MONTHS)):
                raise OutsideModel("month", each, "a whole number")
            chosen = months == each
            table = self.atmosphere_tables_db[int(each) - 1]
            losses[chosen] = np.interp(elevation_deg[chosen], self.elevations_deg, table)
        return losses

    # Background

    def background_photons_hz(
        self,
        elevation_deg: Floats,
        distance_km: Floats,
        sun_elevation_deg: ArrayLike,
        moon_elevation_deg: ArrayLike,
        moon_phase_deg: ArrayLike,
        moon_separation_deg: ArrayLike,
        sunlit: ArrayLike,
        atmosphere_db: Floats,
    ) -> Floats:
        """Return photons per second of other light at the receiver's input."""
        payload = self.design.payload
        radiance = sky_radiance(
            payload.wavelength_nm,
            sun_elevation_deg,
            moon_elevation_deg,
            moon_phase_deg,
            moon_separation_deg,
            elevation_deg,
            TOWNS[self.ground.sky],
        )
        background = np.broadcast_to(radiance * self.photons_per_radiance_hz, elevation_deg.shape)
        lit = np.broadcast_to(np.asarray(sunlit, dtype=np.bool_), elevation_deg.shape)
        if payload.sunlit_magnitude_1000_km is None or not lit.any():
            return background
        # It comes the way of the signal: through the same air, into the same fibre.
        way_db = atmosphere_db + np.interp(elevation_deg, self.elevations_deg, self.coupling_table_db)
        return background + lit * self.shining_photons_hz(distance_km) * 10 ** (-way_db / 10)


@lru_cache(maxsize=64)
def diffraction_table(
    payload: Payload, aperture_diameter_m: float, obscuration_ratio: float
) -> tuple[Floats, Floats]:
    """Return logarithms of distances, and the loss in dB there; all stations of a design share it."""
    beam, telescope = payload.beam(), Telescope(aperture_diameter_m, obscuration_ratio)
    distances_km = np.geomspace(50.0, 1e5, RANGE_NODES)
    nearest = beam.far_field_km if isinstance(beam, TruncatedBeam) else 0.0
    distances_km = distances_km[distances_km > nearest]
    caught = collected_fraction(beam, telescope, distances_km)
    # Intensities are those behind the telescope, which has cut the beam already.
    sent = beam.emitted_fraction if isinstance(beam, TruncatedBeam) else 1.0
    return np.log(distances_km), loss_db(caught / sent)


def gaussian_like(beam: Beam) -> GaussianBeam:
    """Return the Gaussian beam with the same intensity on the axis."""
    if isinstance(beam, GaussianBeam):
        return beam
    if isinstance(beam, TruncatedBeam | UniformDisc):
        return beam.gaussian_of_equal_axis()
    raise OutsideModel("beam", type(beam).__name__, "a Gaussian or truncated beam, or an even disc")


def between(tables: Floats, row: Indices, node: Indices, along: Floats) -> Floats:
    """Return values of tables, one per row, a part of a step after nodes."""
    here: Floats = tables[row, node]
    return here + along * (tables[row, node + 1] - here)


def month_of(utc_s: Floats) -> NDArray[np.int64]:
    """Return the month of moments, 1 to 12."""
    months = np.asarray(utc_s).astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
    return months % MONTHS + 1
