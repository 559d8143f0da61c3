"""Models for links with something in the middle: a twin-field station, or a source of entangled pairs."""

from msgspec.structs import replace as replaced

from openqci.links.experiments.comparison import Comparison, compared, within
from openqci.links.experiments.rows import Experiment
from openqci.links.profiles import profile
from openqci.links.protocols import LinkCase
from openqci.links.protocols.case import LOSS_DB_MAX
from openqci.links.rate import link_rate
from openqci.proofs.asymptotic import plob_bound
from openqci.proofs.bounds import binary_entropy
from openqci.quantum.encodings import misalignment_of_visibility

ULTRA_LOW_LOSS_DB_PER_KM = 0.16
SNS_PROFILE = "dv-snspd"
DARK_COUNT_PROBABILITY = 1e-10
"""Of a nanowire at about one dark count a second, in a gate of 100 ps."""


def tf_vs_plob(row: Experiment) -> list[Comparison]:
    """Compare a twin-field link with the bound of a link without a station, at the published length."""
    length_km = row.figure("km_asymptotic")
    loss_db = ULTRA_LOW_LOSS_DB_PER_KM * length_km
    nanowires = profile(SNS_PROFILE)
    optics = LinkCase(nanowires, loss_db).photon_receiver()
    detector = replaced(optics.detector, dark_count_probability=DARK_COUNT_PROBABILITY)
    best = replaced(
        nanowires,
        photon_receiver=replaced(optics, detector=detector),
        operation=replaced(nanowires.operation, loss_db_max=LOSS_DB_MAX),
    )
    case = LinkCase(best, loss_db, protocol="sns-tf", optimise=True)
    rate, bound = link_rate(case).secret_key_rate_per_pulse, plob_bound(loss_db)
    return [
        compared(
            row,
            f"secret bits per pulse at {length_km:g} km",
            rate,
            bound,
            "model above the bound: a station in the middle beats PLOB",
            rate > bound,
            ("km_asymptotic",),
            {
                "protocol": "sns-tf, asymptotic, without pairing of bits",
                "profile": f"{SNS_PROFILE} without its limit of loss",
                "dark_count_probability": DARK_COUNT_PROBABILITY,
                "attenuation_db_per_km": ULTRA_LOW_LOSS_DB_PER_KM,
            },
        )
    ]


def bbm92_rate_from_pairs(row: Experiment) -> list[Comparison]:
    """Compare the key of pairs that were counted, from their visibility (Neumann et al. 2022)."""
    wrong = misalignment_of_visibility(row.figure("visibility"))
    sifted_hz = row.figure("pair_rate_detected") / 2
    efficiency = 1.0
    rate_bps = sifted_hz * (1 - (1 + efficiency) * binary_entropy(wrong))
    metric = "skr_asymptotic"
    return [
        within(
            row,
            metric,
            rate_bps,
            row.result(metric),
            relative=row.check.relative,
            uses=("visibility", "pair_rate_detected"),
            assumed={"sifting": 0.5, "f_ec": efficiency, "errors": "(1 - visibility) / 2 in both bases"},
        )
    ]
