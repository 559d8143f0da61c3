"""Fibre kinds and spans: what a length of glass does to light, as data with its source.

``FibreSpan(fibre_kind("g652d-1550"), 50.0, connector_pairs=2).channel()`` is the ``FibreChannel`` of a
link. Loss is all that acts on a weak pulse by itself; delay, dispersion and backscatter are offered to
what needs them (:mod:`openqci.quantum.timing`, ``coexistence``). Noise of other channels and drift come
in as numbers: ``channel(background_photons_hz=..., misalignment_error=...)``.

Left out: polarisation-mode dispersion, loss that changes with temperature or age, connectors that
reflect. Read next :mod:`openqci.quantum.coexistence` and :mod:`openqci.quantum.drift`.
"""

from dataclasses import dataclass
from types import MappingProxyType

from openqci.core.errors import OutsideModel
from openqci.quantum.elements import LOSS_DB_MAX, FibreChannel, check_range

SPLICE_LOSS_DB = 0.02
CONNECTOR_PAIR_LOSS_DB = 0.25
"""Of one mated pair; both figures as an open DV/CV comparison study uses them."""

LENGTH_KM_MAX = 20_000.0


@dataclass(frozen=True)
class FibreKind:
    """A kind of fibre at one wavelength.

    Parameters
    ----------
    name : str
    wavelength_nm : float
        At which the other figures hold.
    attenuation_db_per_km : float
        Fibre alone, without splices.
    dispersion_ps_per_nm_km : float
        Chromatic dispersion, of either sign.
    delay_us_per_km : float
    rayleigh_loss_per_km : float
        Natural-unit fraction of the power scattered per km.
    rayleigh_capture : float
        Fraction of that which travels back in the fibre.
    nonlinearity_per_w_km : float
        gamma, for four-wave mixing.
    source : str
        Where the attenuation was read, and how far: "unverified" says from memory.
    drift : str
        What is known of the drift of polarisation and phase; numbers are given to
        :class:`openqci.quantum.drift.AngleDrift`.
    """

    name: str
    wavelength_nm: float
    attenuation_db_per_km: float
    dispersion_ps_per_nm_km: float
    delay_us_per_km: float = 4.9
    rayleigh_loss_per_km: float = 3.2e-2
    rayleigh_capture: float = 1.5e-3
    nonlinearity_per_w_km: float = 1.3
    source: str = ""
    drift: str = ""

    def __post_init__(self) -> None:
        check_range("wavelength_nm", self.wavelength_nm, 400.0, 2000.0)
        check_range("attenuation_db_per_km", self.attenuation_db_per_km, 0.0, 20.0)
        check_range("dispersion_ps_per_nm_km", self.dispersion_ps_per_nm_km, -1000.0, 1000.0)
        check_range("delay_us_per_km", self.delay_us_per_km, 3.3, 10.0)
        check_range("rayleigh_loss_per_km", self.rayleigh_loss_per_km, 0.0, 1.0)
        check_range("rayleigh_capture", self.rayleigh_capture, 0.0, 1.0)
        check_range("nonlinearity_per_w_km", self.nonlinearity_per_w_km, 0.0, 100.0)


def listed(*kinds: FibreKind) -> MappingProxyType[str, FibreKind]:
    return MappingProxyType({kind.name: kind for kind in kinds})


BURIED = "buried: polarisation turns within minutes to hours (unverified)"
AERIAL = "aerial: polarisation and phase turn within milliseconds to seconds in wind (unverified)"

FIBRE_KINDS = listed(
    FibreKind(
        "g652d-1550",
        1550.0,
        0.20,
        17.0,
        source="deployed G.652.D 0.19 to 0.21 dB/km, open DV/CV comparison study 2026",
        drift=BURIED,
    ),
    FibreKind(
        "g652d-1310",
        1310.0,
        0.33,
        0.0,
        source="O band of G.652.D, 0.32 to 0.35 dB/km, unverified",
        drift=BURIED,
    ),
    FibreKind(
        "g652d-aerial-1550",
        1550.0,
        0.20,
        17.0,
        source="the loss of the buried fibre; what differs is drift (arXiv:2608.18869)",
        drift=AERIAL,
    ),
    FibreKind(
        "g654-ull-1550",
        1550.0,
        0.160,
        20.0,
        source="ultra-low loss, 0.146 to 0.168 dB/km as measured in experiments (Korzh 2015: 0.160); "
        "dispersion unverified",
        drift=BURIED,
    ),
    FibreKind(
        "g654-submarine-1550",
        1550.0,
        0.157,
        20.5,
        source="0.157 dB/km as in the 1002 km twin-field record (arXiv:2303.15795); dispersion unverified",
        drift="sea bed: calm, hours (unverified)",
    ),
    FibreKind(
        "hollow-core-1550",
        1550.0,
        0.091,
        2.0,
        delay_us_per_km=3.4,
        # Light runs in air: both effects fall by orders of magnitude; the figures are bounds.
        rayleigh_loss_per_km=3.2e-5,
        nonlinearity_per_w_km=1.3e-3,
        source="anti-resonant, record of 0.091 dB/km, open DV/CV comparison study 2026; "
        "delay, backscatter and nonlinearity unverified",
        drift=BURIED,
    ),
)
"""By name. A deployed fibre is better described by its own measured attenuation than by its kind."""


def fibre_kind(name: str) -> FibreKind:
    """Return a kind of ``FIBRE_KINDS``; an unknown name raises OutsideModel and lists them."""
    if name not in FIBRE_KINDS:
        raise OutsideModel("fibre_kind", name, f"one of {', '.join(FIBRE_KINDS)}")
    return FIBRE_KINDS[name]


@dataclass(frozen=True)
class FibreSpan:
    """A length of fibre with its splices and connectors.

    Parameters
    ----------
    kind : FibreKind
    length_km : float
        0 to 20 000 km, as long as the loss stays below 200 dB.
    splices, connector_pairs : int
        How many, each with its loss below.
    extra_loss_db : float
        Everything else between the devices: filters, multiplexers, switches.
    splice_loss_db, connector_pair_loss_db : float
        Of one.
    """

    kind: FibreKind
    length_km: float
    splices: int = 0
    connector_pairs: int = 0
    extra_loss_db: float = 0.0
    splice_loss_db: float = SPLICE_LOSS_DB
    connector_pair_loss_db: float = CONNECTOR_PAIR_LOSS_DB

    def __post_init__(self) -> None:
        check_range("length_km", self.length_km, 0.0, LENGTH_KM_MAX)
        check_range("splices", self.splices, 0, 100_000)
        check_range("connector_pairs", self.connector_pairs, 0, 10_000)
        check_range("extra_loss_db", self.extra_loss_db, 0.0, LOSS_DB_MAX)
        check_range("splice_loss_db", self.splice_loss_db, 0.0, 10.0)
        check_range("connector_pair_loss_db", self.connector_pair_loss_db, 0.0, 10.0)
        check_range("loss_db", self.loss_db, 0.0, LOSS_DB_MAX)

    @property
    def fibre_loss_db(self) -> float:
        """Loss of the glass alone."""
        return self.kind.attenuation_db_per_km * self.length_km

    @property
    def loss_db(self) -> float:
        """Loss from end to end, with splices, connectors and what else there is."""
        joints_db = self.splices * self.splice_loss_db + self.connector_pairs * self.connector_pair_loss_db
        return self.fibre_loss_db + joints_db + self.extra_loss_db

    @property
    def delay_s(self) -> float:
        """How long light takes from end to end."""
        return self.kind.delay_us_per_km * self.length_km * 1e-6

    def dispersion_broadening_s(self, spectral_width_nm: float) -> float:
        """Return the width ``|D| L dlambda`` that chromatic dispersion adds to a pulse, in seconds.

        Parameters
        ----------
        spectral_width_nm : float
            Of the pulse, measured as the width that is wanted (full width at half maximum gives the same).

        Examples
        --------
        >>> span = FibreSpan(fibre_kind("g652d-1550"), 100.0)
        >>> round(span.dispersion_broadening_s(0.1) * 1e12, 6)
        170.0
        """
        check_range("spectral_width_nm", spectral_width_nm, 0.0, 100.0)
        return abs(self.kind.dispersion_ps_per_nm_km) * self.length_km * spectral_width_nm * 1e-12

    def channel(self, *, background_photons_hz: float = 0.0, misalignment_error: float = 0.0) -> FibreChannel:
        """Return the channel of a link over this span.

        Parameters
        ----------
        background_photons_hz : float
            Photons per second at the far end inside the receiver's filter
            (:func:`openqci.quantum.coexistence.coexistence_noise`).
        misalignment_error : float
            What the fibre turns to the wrong detector (:mod:`openqci.quantum.drift`).
        """
        return FibreChannel(self.loss_db, background_photons_hz, misalignment_error)
