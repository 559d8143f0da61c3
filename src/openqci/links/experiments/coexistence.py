"""Models for links that share their fibre with data: Raman scattering, mixing and leaking light."""

from dataclasses import dataclass

from msgspec.structs import replace as replaced

from openqci.core.errors import ConfigurationError
from openqci.links.experiments.comparison import Comparison, Known, compared
from openqci.links.experiments.rows import Experiment
from openqci.links.profiles import profile
from openqci.links.protocols import LinkCase
from openqci.links.protocols.case import BACKGROUND_PHOTONS_HZ_MAX, LOSS_DB_MAX
from openqci.links.rate import link_rate
from openqci.quantum.coexistence import (
    ClassicalChannel,
    Direction,
    QuantumFilter,
    bandwidth_nm,
    coexistence_noise,
    dbm_of_watts,
    watts_of_dbm,
)
from openqci.quantum.fibre import FibreSpan, fibre_kind

PROFILE = "dv-metro"
PROOF = "rusca-2018-chernoff"
BLOCK_SIFTED_BITS = 1e7
SENSITIVITY_DBM, MARGIN_DB = -32.0, 2.0
"""Of a receiver of 100 Gbit/s in two polarisations behind an amplifier."""

GIGABITS_PER_CHANNEL = 100.0
SPACING_NM = 0.4


@dataclass(frozen=True)
class Shared:
    """A fibre that is shared, as far as it must be assumed."""

    length_km: float
    fibre: str
    quantum_nm: float
    filter_nm: float
    isolation_db: float
    classical_db_per_km: float | None = None
    raman_scale: float = 1.0

    def rate_bps(self, channels: list[ClassicalChannel]) -> float:
        """Return the secret rate beside these channels."""
        span = FibreSpan(fibre_kind(self.fibre), self.length_km)
        quantum = QuantumFilter(self.quantum_nm, self.filter_nm, self.isolation_db)
        noise = coexistence_noise(channels, span, quantum, self.classical_db_per_km)
        background_hz = noise.total_hz + (self.raman_scale - 1) * noise.raman_hz
        module = profile(PROFILE)
        far = replaced(module, operation=replaced(module.operation, loss_db_max=LOSS_DB_MAX))
        case = LinkCase(
            far,
            span.loss_db,
            self.length_km,
            proof=PROOF,
            block_sifted_bits=BLOCK_SIFTED_BITS,
            background_photons_hz=min(background_hz, BACKGROUND_PHOTONS_HZ_MAX),
        )
        return link_rate(case).secret_key_rate_bps


def raman_coexistence(row: Experiment) -> list[Comparison]:
    """Compare a link beside terabits of data: which direction is worse, or that there is key at a length."""
    return directions(row) if "launch_dBm" in row.inputs else reaches(row)


def directions(row: Experiment) -> list[Comparison]:
    """Check two signs of Mao et al. 2018: data against the key is not worse, and the filter is needed.

    Raman light of data against the key is never less than of data along it, so that data along the key can
    only be the worse where its own light leaks through the filters. Whether it does hangs on two figures
    that were not read, the isolation and the Raman coefficient 35 THz away: both are fitted to the sign, and
    the row shows no more than that the sign is possible.
    """
    launch_dbm, length_km = row.figure("launch_dBm"), row.figure("km")
    filter_nm = bandwidth_nm(row.figure("filter_GHz"), QUANTUM_O_BAND_NM)

    def rate(direction: Direction, width_nm: float, isolation_db: float) -> float:
        data = [ClassicalChannel(DATA_NM, direction, launch_dbm)]
        shared = Shared(
            length_km, "g652d-1310", QUANTUM_O_BAND_NM, width_nm, isolation_db, DATA_DB_PER_KM, RAMAN_SCALE
        )
        return shared.rate_bps(data)

    with_key, against_key = (rate(each, filter_nm, ISOLATION_O_BAND_DB) for each in ("co", "counter"))
    bare = max(rate(each, OPEN_FILTER_NM, OPEN_ISOLATION_DB) for each in ("co", "counter"))
    uses = ("km", "launch_dBm", "filter_GHz")
    assumed: Known = {
        "quantum_wavelength_nm": QUANTUM_O_BAND_NM,
        "data_wavelength_nm": DATA_NM,
        "data_db_per_km": DATA_DB_PER_KM,
        "fibre": "g652d-1310",
        "profile": f"{PROFILE} without its limit of loss",
        "proof": PROOF,
    }
    fitted: Known = {"isolation_db": ISOLATION_O_BAND_DB, "raman_over_our_table": RAMAN_SCALE}
    co, counter = row.result("skr_copropagation"), row.result("skr_counterpropagation")
    return [
        compared(
            row,
            "key with data against it over key with data along it",
            against_key / with_key if with_key else float("inf"),
            counter / co,
            "both 1 or more, with key in both directions",
            with_key > 0 and against_key >= with_key and counter >= co,
            uses,
            assumed,
            fitted,
        ),
        compared(
            row,
            "key without the narrow filter",
            bare,
            0.0,
            "no key",
            bare == 0,
            uses,
            {**assumed, "isolation_db": OPEN_ISOLATION_DB, "filter_nm": OPEN_FILTER_NM},
            {"raman_over_our_table": RAMAN_SCALE},
        ),
    ]


QUANTUM_O_BAND_NM, DATA_NM = 1310.0, 1550.0
DATA_DB_PER_KM = 0.2
ISOLATION_O_BAND_DB, RAMAN_SCALE = 117.0, 0.1
OPEN_FILTER_NM, OPEN_ISOLATION_DB = 40.0, 60.0


def reaches(row: Experiment) -> list[Comparison]:
    """Check that there is key at the lengths at which a link worked beside data in the same band."""
    found = []
    quantum_nm = float(row.inputs.get("lambda_q_nm", 1550.0))
    for metric, gigabits in lengths_and_data(row).items():
        length_km = row.result(metric)
        span = FibreSpan(fibre_kind("g652d-1550"), length_km)
        number = round(gigabits / GIGABITS_PER_CHANNEL)
        launch_dbm = SENSITIVITY_DBM + span.loss_db + MARGIN_DB
        together_dbm = float(dbm_of_watts(number * watts_of_dbm(launch_dbm)))
        data = [ClassicalChannel(quantum_nm + 10.0, "co", together_dbm)]
        shared = Shared(length_km, "g652d-1550", quantum_nm, FILTER_NM, ISOLATION_DB)
        rate = shared.rate_bps(data)
        assumed: Known = {
            "channels": float(number),
            "launch_dbm_each": launch_dbm,
            "filter_nm": FILTER_NM,
            "isolation_db": ISOLATION_DB,
            "data_from_the_key_nm": 10.0,
            "fibre": "g652d-1550",
            "profile": f"{PROFILE} without its limit of loss",
            "proof": PROOF,
        }
        told = ("lambda_q_nm", "data_Gbps") if metric == "works_km" else ("lambda_q_nm",)
        uses = [name for name in told if name in row.inputs]
        if "lambda_q_nm" not in row.inputs:
            assumed["quantum_wavelength_nm"] = quantum_nm
        if "data_Gbps" not in uses:
            assumed["data_Gbps"] = gigabits
        found.append(
            compared(
                row, f"secret bits per second at {metric}", rate, 0.0, "some key", rate > 0, uses, assumed
            )
        )
    return found


FILTER_NM, ISOLATION_DB = 0.1, 110.0


def lengths_and_data(row: Experiment) -> dict[str, float]:
    """Return which result tells a length, and with how many Gbit/s of data."""
    found = {"works_km": 1000.0, "works_10Tbps_km": 10_000.0}
    if "data_Gbps" in row.inputs:
        found["works_km"] = row.figure("data_Gbps")
    found = {metric: gigabits for metric, gigabits in found.items() if metric in row.results}
    if not found:
        raise ConfigurationError(
            f"{row.experiment_id}: results.works_km: expected a length in km, found none"
        )
    return found
