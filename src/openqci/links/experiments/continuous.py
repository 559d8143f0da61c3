"""Models for experiments with Gaussian-modulated coherent states."""

import numpy as np

from openqci.links.experiments.comparison import Comparison, compared, not_below, within
from openqci.links.experiments.detection import check_lengths
from openqci.links.experiments.fibre import reach_km
from openqci.links.experiments.rows import Experiment
from openqci.proofs.gaussian import GaussianBlock, GaussianChannel, gaussian_proof
from openqci.quantum.gg02 import excess_noise_snu

DB_PER_KM = 0.2


def gg02_homodyne_trusted(row: Experiment) -> list[Comparison]:
    """Compare asymptotic keys of homodyne detection with trusted noise: one point, or a table of lengths."""
    return table_of_lengths(row) if "loss_dB" in row.inputs else one_point(row)


def one_point(row: Experiment) -> list[Comparison]:
    """Compare information of both kinds and the key of one link (Lodewyck et al. 2007)."""
    channel = GaussianChannel(
        row.figure("V_A"), row.figure("T"), row.figure("xi"), row.figure("eta"), row.figure("v_el")
    )
    beta = row.figure("beta")
    figures = {
        "I_AB": float(channel.mutual_information_bits()),
        "chi_BE": float(channel.holevo_bits()),
        "K": float(channel.asymptotic_bits(beta)),
    }
    uses = ("V_A", "T", "xi", "eta", "v_el", "beta")
    return [
        within(row, name, modelled, row.result(name), relative=row.check.relative, uses=uses)
        for name, modelled in figures.items()
    ]


def table_of_lengths(row: Experiment) -> list[Comparison]:
    """Compare endless blocks with published finite ones, which give less, by ratios known from before."""
    names = ("V_A", "xi", "xi_worst", "v_el", "beta", "fer", "loss_dB", "km")
    columns = {name: np.array(row.figures(name)) for name in names}
    published = np.array(row.results_of("skr_finite"))
    check_lengths(row, *(column.tolist() for column in columns.values()), published.tolist())
    symbols_hz = row.figure("clock") * (1 - row.figure("overhead"))
    uses = ("clock", "overhead", "eta", "loss_dB", "V_A", "v_el", "beta", "fer")
    found = []
    for noise, expected in (("xi", row.check.expect), ("xi_worst", row.check.expect_worst_xi)):
        channel = GaussianChannel(
            columns["V_A"],
            10 ** (-columns["loss_dB"] / 10),
            columns[noise],
            row.figure("eta"),
            columns["v_el"],
        )
        rate_bps = symbols_hz * (1 - columns["fer"]) * channel.asymptotic_bits(columns["beta"])
        for place, length_km in enumerate(columns["km"].tolist()):
            rate, finite = float(rate_bps[place]), float(published[place])
            at = f"at {length_km:g} km with {noise}"
            found.append(not_below(row, f"skr {at}", rate, finite, uses=(*uses, noise)))
            if expected:
                found.append(
                    within(
                        row,
                        f"asymptotic over published {at}",
                        rate / finite,
                        expected[place],
                        relative=row.check.relative,
                        uses=(*uses, noise),
                    )
                )
    return found


def gg02_finite_leverrier(row: Experiment) -> list[Comparison]:
    """Check where a finite block has key: none from a million symbols at 25 km, some from ten million."""
    fibre_km, places = 25.0, row.inputs.get("channel", [])
    noise_at_bob = row.figures("xi_bob")
    check_lengths(row, noise_at_bob, list(range(len(places))))
    noise = noise_at_bob[places.index("25km_att")] if "25km_att" in places else min(noise_at_bob)
    efficiency, electronic, modulation = 0.7, 0.1, 5.0
    transmittance = 10 ** (-DB_PER_KM * fibre_km / 10)
    channel = GaussianChannel(
        modulation, transmittance, noise / (efficiency * transmittance), efficiency, electronic, "heterodyne"
    )
    symbols = (row.figure("frame"), 1e7, 1e8)
    block = GaussianBlock(channel, np.array(symbols), 0.5, row.figure("beta"))
    epsilon = row.figure("eps")
    bits = gaussian_proof("gg02-leverrier-2010").secret_length(block, epsilon, epsilon).length_bits
    return [
        compared(
            row,
            f"key of {count:g} symbols at 25 km",
            float(length),
            0.0,
            "no key" if count <= 1e6 else "some key",
            (length > 0) == (count > 1e6),
            ("beta", "eps", "frame", "xi_bob"),
            {
                "proof": "gg02-leverrier-2010",
                "detector_efficiency": efficiency,
                "electronic_noise_snu": electronic,
                "modulation_variance_snu": modulation,
                "estimation_fraction": 0.5,
                "attenuation_db_per_km": DB_PER_KM,
            },
        )
        for count, length in zip(symbols, bits.tolist(), strict=True)
    ]


def gg02_homodyne_trusted_wang_noise(row: Experiment) -> list[Comparison]:
    """Compare the reach where excess noise grows as the signal fades (noise of preparation and of phase)."""
    efficiency, electronic, beta = 0.6, 0.1, 0.95
    at_source, at_receiver = 0.005, 0.0005
    modulation = np.geomspace(0.3, 40.0, 200)

    def bits(length_km: float) -> float:
        transmittance = 10 ** (-DB_PER_KM * length_km / 10)
        noise = excess_noise_snu(at_source, at_receiver, efficiency * transmittance)
        channel = GaussianChannel(modulation, transmittance, noise, efficiency, electronic)
        return float(channel.asymptotic_bits(beta).max())

    metric = "model_reach_km"
    return [
        within(
            row,
            metric,
            reach_km(bits),
            row.result(metric),
            relative=row.check.relative,
            uses=("reach_km",),
            assumed={
                "excess_noise_at_source_snu": at_source,
                "excess_noise_at_receiver_snu": at_receiver,
                "detector_efficiency": efficiency,
                "electronic_noise_snu": electronic,
                "reconciliation_efficiency": beta,
                "modulation_variance_snu": "the best of 0.3 to 40 at each length",
                "attenuation_db_per_km": DB_PER_KM,
            },
        )
    ]
