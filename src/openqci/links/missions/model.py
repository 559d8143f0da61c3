"""What a mission holds. Ranges are those of ``mission.schema.json``, which every file is checked against."""

import msgspec
import numpy as np

from openqci.core.errors import ConfigurationError
from openqci.quantum import DecoySource, Receiver
from openqci.space.diffraction import Beam, GaussianBeam, Telescope, TruncatedBeam
from openqci.space.elements import read_elements
from openqci.space.orbits import (
    ElementOrbit,
    Orbit,
    circular,
    geostationary,
    sun_synchronous,
    walker,
)
from openqci.space.sky import CreditRule

ASSUMED = "assumed"


class Provenance(msgspec.Struct, frozen=True):
    """Where one figure of a mission comes from; ``path`` as in its file, ``payloads[0].jitter_urad``."""

    path: str
    value: object
    source: str
    confidence: str
    note: str = ""


class OrbitDesign(msgspec.Struct, frozen=True, rename={"orbit_id": "id"}):
    """Where the satellites of a mission fly: published elements, or a design."""

    orbit_id: str
    kind: str
    lines: tuple[str, ...] = ()
    elements_source: str = ""
    altitude_km: float | None = None
    inclination_deg: float | None = None
    local_time_h: float | None = None
    plane_spacing_h: float = 0.0
    raan_deg: float = 0.0
    longitude_deg: float | None = None
    satellites: int = 1
    planes: int = 1
    phasing: int = 0

    def orbits(self, name: str, epoch_utc_s: float) -> list[Orbit]:
        """Return the orbit of each satellite; a design is as drawn at the epoch, elements are of their own.

        One satellite has the name of the mission, more have plane and place too, as ``name-2-1``.
        """
        if self.kind == "elements":
            text = "\n".join((name, *self.lines))
            return [ElementOrbit(each) for each in read_elements(text, self.orbit_id)]
        if self.kind == "geostationary":
            return [geostationary(name, longitude_deg=self.longitude_deg or 0.0, epoch_utc_s=epoch_utc_s)]
        if self.kind == "sun-synchronous":
            return self._sun_synchronous(name, epoch_utc_s)
        altitude_km, inclination_deg = self.altitude_km or 0.0, self.inclination_deg or 0.0
        if self.kind == "circular":
            return [
                circular(
                    name,
                    altitude_km=altitude_km,
                    inclination_deg=inclination_deg,
                    raan_deg=self.raan_deg,
                    epoch_utc_s=epoch_utc_s,
                )
            ]
        return list(
            walker(
                name,
                altitude_km=altitude_km,
                inclination_deg=inclination_deg,
                satellites=self.satellites,
                planes=self.planes,
                phasing=self.phasing,
                raan_deg=self.raan_deg,
                kind="star" if self.kind == "walker-star" else "delta",
                epoch_utc_s=epoch_utc_s,
            )
        )

    def _sun_synchronous(self, name: str, epoch_utc_s: float) -> list[Orbit]:
        in_plane = self.satellites // self.planes
        return [
            sun_synchronous(
                name if self.satellites == 1 else f"{name}-{plane + 1}-{place + 1}",
                altitude_km=self.altitude_km or 0.0,
                local_time_h=((self.local_time_h or 0.0) + plane * self.plane_spacing_h) % 24.0,
                epoch_utc_s=epoch_utc_s,
                anomaly_deg=(360.0 * (place / in_plane + self.phasing * plane / self.satellites)) % 360.0,
            )
            for plane in range(self.planes)
            for place in range(in_plane)
        ]


class Payload(msgspec.Struct, frozen=True, rename={"payload_id": "id"}):
    """What flies: telescope, beam, pointing and source."""

    payload_id: str
    protocol: str
    encoding: str
    wavelength_nm: float
    jitter_urad: float
    optics_loss_db: float
    z_basis_probability: float
    misalignment_error: float
    aperture_diameter_m: float | None = None
    obscuration_ratio: float = 0.0
    waist_m: float | None = None
    full_angle_1e2_urad: float | None = None
    full_width_half_maximum_urad: float | None = None
    clock_rate_hz: float = 0.0
    intensities: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()
    brightness_hz: float = 0.0
    window_s: float = 0.0
    sunlit_magnitude_1000_km: float | None = None
    mass_kg: float | None = None
    power_w: float | None = None

    def beam(self) -> Beam:
        """Return the beam, its convention by its name."""
        if self.full_angle_1e2_urad is not None:
            return GaussianBeam.of_full_angle_1e2(self.full_angle_1e2_urad)
        if self.full_width_half_maximum_urad is not None:
            return GaussianBeam.of_full_width_half_maximum(self.full_width_half_maximum_urad)
        if self.waist_m is None:
            wanted = "expected a waist or a divergence"
            raise ConfigurationError(f"payload {self.payload_id} has no beam; {wanted}")
        if self.aperture_diameter_m is None:
            return GaussianBeam.of_waist(self.waist_m, self.wavelength_nm)
        return TruncatedBeam(
            self.waist_m, self.aperture_diameter_m, self.wavelength_nm, self.obscuration_ratio
        )

    def source(self) -> DecoySource:
        """Return the decoy-state source; one setting for whole passes, as a satellite must have."""
        return DecoySource(self.clock_rate_hz, self.intensities, self.probabilities, self.z_basis_probability)


class StationDesign(msgspec.Struct, frozen=True, rename={"station_id": "id"}):
    """What stands on the ground: telescope, field or fibre, filter, detectors."""

    station_id: str
    aperture_diameter_m: float
    optics_loss_db: float
    reception: str
    filter_nm: float
    detector_efficiency: float
    dark_count_probability: float
    gate_width_s: float
    dead_time_s: float
    afterpulse_probability: float
    obscuration_ratio: float = 0.0
    low_elevation_loss_db: float = 0.0
    field_of_view_urad: float | None = None
    adaptive_modes: int | None = None
    adaptive_loss_db: float = 0.0
    jitter_fwhm_s: float = 0.0

    def telescope(self) -> Telescope:
        return Telescope(self.aperture_diameter_m, self.obscuration_ratio)

    def receiver(self, payload: Payload) -> Receiver:
        """Return the receiver, its optics as its loss."""
        return Receiver(
            loss_db=self.optics_loss_db,
            detector_efficiency=self.detector_efficiency,
            dark_count_probability=self.dark_count_probability,
            dead_time_s=self.dead_time_s,
            afterpulse_probability=self.afterpulse_probability,
            misalignment_error=payload.misalignment_error,
            z_basis_probability=payload.z_basis_probability,
            gate_width_s=self.gate_width_s,
        )


class Operation(msgspec.Struct, frozen=True, rename={"operation_id": "id"}):
    """When key counts, and under which proof it is kept."""

    operation_id: str
    elevation_min_deg: float
    sun_elevation_max_deg: float
    eclipse_needed: bool
    moon_separation_min_deg: float
    acquisition_s: float
    proof: str
    key_bases: str
    epsilon_sec: float
    epsilon_cor: float
    error_correction_efficiency: float
    authentication_bits: int
    passes_per_block: int

    def rule(self) -> CreditRule:
        return CreditRule(self.sun_elevation_max_deg, self.eclipse_needed)


class Place(msgspec.Struct, frozen=True, rename={"place_id": "id"}):
    """A ground station that the catalogue does not have."""

    place_id: str
    name: str
    latitude_deg: float
    longitude_deg: float
    altitude_m: float


class Design(msgspec.Struct, frozen=True):
    """One way to fly a mission: an orbit, a payload, a kind of station and an operation."""

    mission_id: str
    design_id: str
    title: str
    orbit: OrbitDesign
    payload: Payload
    station: StationDesign
    operation: Operation
    sites: tuple[str, ...]

    @property
    def name(self) -> str:
        """As the commands take it, ``mission:design``."""
        return f"{self.mission_id}:{self.design_id}"

    @property
    def entangled(self) -> bool:
        """Whether pairs go down to two stations at once."""
        return self.payload.protocol == "bbm92-cw"

    def orbits(self, epoch_utc_s: float) -> list[Orbit]:
        """Return the orbits of its satellites."""
        return self.orbit.orbits(self.mission_id, epoch_utc_s)


class Mission(msgspec.Struct, frozen=True):
    """A mission: its designs, the first of which is the default, and where every figure comes from."""

    mission_id: str
    title: str
    status: str
    designs: tuple[Design, ...]
    places: dict[str, Place]
    sources: dict[str, str]
    provenance: tuple[Provenance, ...]

    def design(self, design_id: str = "") -> Design:
        """Return a design, the first without an id; ConfigurationError names those that there are."""
        if not design_id:
            return self.designs[0]
        for each in self.designs:
            if each.design_id == design_id:
                return each
        known = ", ".join(each.design_id for each in self.designs)
        raise ConfigurationError(
            f"mission {self.mission_id} has no design {design_id!r}; expected one of {known}"
        )

    @property
    def assumed_share(self) -> float:
        """Which part of its figures is assumed, 0 to 1."""
        return float(np.mean([each.source == ASSUMED for each in self.provenance]))
