"""Models for experiments that send weak pulses through fibre."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace as replaced

from openqci.links.experiments.comparison import Comparison, Known, compared, not_above, not_below, within
from openqci.links.experiments.rows import Experiment
from openqci.links.profiles import profile
from openqci.links.protocols import LinkCase, LinkRate
from openqci.links.rate import link_rate
from openqci.proofs import DecoyCounts, proof
from openqci.proofs.asymptotic import AsymptoticLink, infinite_decoy_rate, plob_bound, vacuum_weak_rate
from openqci.proofs.bounds import binary_entropy
from openqci.quantum.clicks import background_probability

REACH_STEPS = 60
REACH_KM_MAX = 1000.0


def gllp_asymptotic(row: Experiment) -> list[Comparison]:
    """Compare reach and rates of Ma et al. 2005, in their own form of gain and error."""
    uses = ("alpha", "eta_bob", "e_det", "Y0", "f_ec", "q", "mu")
    mu = row.figure("mu")

    def link(length_km: float) -> AsymptoticLink:
        return AsymptoticLink(
            row.figure("eta_bob") * 10 ** (-row.figure("alpha") * length_km / 10),
            row.figure("Y0"),
            row.figure("e_det"),
            row.figure("f_ec"),
            row.figure("q"),
        )

    def found(metric: str, modelled: float, *, relative: float = 0.0, absolute: float = 0.0) -> Comparison:
        published = row.result(metric)
        return within(row, metric, modelled, published, relative=relative, absolute=absolute, uses=uses)

    weak = 0.05
    decoys = within(
        row,
        "max_km_vacuum_weak",
        reach_km(lambda km: vacuum_weak_rate(link(km), mu, weak)),
        row.result("max_km_vacuum_weak"),
        absolute=1.5,
        uses=uses,
        assumed={"weak_decoy": weak},
    )
    return [
        found(
            "max_km_infinite_decoy",
            reach_km(lambda km: infinite_decoy_rate(link(km), mu)),
            absolute=row.check.tol_abs,
        ),
        decoys,
        found("rate_0km", infinite_decoy_rate(link(0.0), mu), relative=0.01),
        found("rate_100km", infinite_decoy_rate(link(100.0), mu), relative=0.01),
    ]


def wcp_gain_qber(row: Experiment) -> list[Comparison]:
    """Compare the QBER of Gobby et al. 2004 at 122 km: background and visibility against weak signal."""
    uses = ("mu", "eta_bob", "Pe_per_clock")
    attenuation_db_per_km = sum(row.figures("alpha_fit_range")) / 2
    assumed = {"attenuation_db_per_km": attenuation_db_per_km}
    at_source, background = row.figure("mu") * row.figure("eta_bob"), row.figure("Pe_per_clock")
    near, far = (at_source * 10 ** (-attenuation_db_per_km * km / 10) for km in (101.0, 122.0))
    wrong = (1 - row.result("visibility_122km")) / 2
    qber = (background / 2 + wrong * far) / (background + far)
    ratio = (near + background) / (far + background)
    published = row.result("sifted_ratio_101_over_122")
    return [
        within(
            row,
            "qber_122km",
            qber,
            row.result("qber_122km"),
            absolute=row.check.tol_abs,
            uses=uses,
            assumed=assumed,
        ),
        within(row, "sifted_ratio_101_over_122", ratio, published, relative=0.06, uses=uses, assumed=assumed),
    ]


def gated_apd_background(row: Experiment) -> list[Comparison]:
    """Compare the background of a self-differencing detector, and two proofs as bounds on its key rate."""
    uses = ("p_dark_gate", "p_afterpulse", "counts_Z_50km", "clock", "session_s", "p_mu", "pX")
    pulses = row.figure("clock") * row.figure("session_s")
    key_share = (1 - row.figure("pX")) ** 2
    gain = row.figures("counts_Z_50km")[0] / (pulses * row.figures("p_mu")[0] * key_share)
    measured = row.result("Y0_measured")
    photons = np.array([-math.log1p(-gain) + 2 * math.log1p(-measured / 2)])
    each = background_probability(photons, np.ones(1), row.figure("p_dark_gate"), row.figure("p_afterpulse"))
    found = within(row, "Y0_measured", 1 - (1 - each) ** 2, measured, relative=row.check.relative, uses=uses)
    return [found, *t12_bounds(row)]


def t12_bounds(row: Experiment) -> list[Comparison]:
    """Put the published counts at 50 km through two proofs that are stricter than the vendor's."""
    z_counts, x_counts = row.figures("counts_Z_50km"), row.figures("counts_X_50km")
    z_error, x_error = row.result("qber_uZ_50km"), row.result("qber_uX_50km")
    pulses = row.figure("clock") * row.figure("session_s")
    background, x_share = row.result("Y0_measured"), row.figure("pX") ** 2
    z_share = (1 - row.figure("pX")) ** 2

    def errors(counts: Sequence[float], signal_error: float, share: float) -> list[float]:
        """Spread the errors: half of the background, and of the light the share that the signal shows."""
        dark = [background * pulses * share * p for p in row.figures("p_mu")]
        of_light = (signal_error * counts[0] - dark[0] / 2) / (counts[0] - dark[0])
        return [
            min(each, noise / 2 + of_light * max(0.0, each - noise))
            for each, noise in zip(counts, dark, strict=True)
        ]

    counts = DecoyCounts(
        z_counts,
        errors(z_counts, z_error, z_share),
        x_counts,
        errors(x_counts, x_error, x_share),
        row.figures("mu"),
        row.figures("p_mu"),
    )
    efficiency, epsilons = 1.10, (1e-10, 1e-15)
    leak_bits = efficiency * sum(z_counts) * binary_entropy(z_error)
    published = row.results_of("skr")[row.figures("km").index(50)]
    return [
        not_above(
            row,
            f"skr_50km under {proof_id}",
            proof(proof_id).secret_length_bits(counts, leak_bits, *epsilons).length_bits
            / row.figure("session_s"),
            published,
            uses=("counts_Z_50km", "counts_X_50km", "mu", "p_mu", "session_s", "clock", "pX"),
            assumed={
                "f_ec": efficiency,
                "epsilon_sec": epsilons[0],
                "decoy_qber": "half of the measured background, and of the light what the signal's shows",
            },
        )
        for proof_id in ("lim-2014", "lim-2014-chernoff", "lim-2014-chernoff-capped")
    ]


def ideal_detectors(row: Experiment) -> list[Comparison]:
    """Compare record rates with one-decoy key without dead time or saturation, which must be more."""
    clock_rate_hz = row.figure("clock")
    assumed: Known = {"profile": "dv-snspd without dead time, at the experiment's clock"}
    if "loss_dB" in row.inputs:
        losses_db, used = row.figures("loss_dB"), ["clock", "loss_dB"]
        published = row.results_of("skr")
    else:
        losses_db, used = [2.2], ["clock", "eta_det"]
        published = [row.result("skr_10km")]
        assumed["loss_db"] = 2.2
    efficiency = row.inputs.get("eta_det", 0.8)
    if "eta_det" not in row.inputs:
        assumed["detector_efficiency"] = efficiency
    return [
        not_below(
            row,
            f"skr at {loss_db:g} dB",
            one_decoy_rate_bps(clock_rate_hz, float(efficiency), loss_db),
            rate_bps,
            slack=row.check.relative,
            uses=used,
            assumed=assumed | {"receiver_loss_db": 1.0, "block_sifted_bits": 1e7},
        )
        for loss_db, rate_bps in zip(losses_db, published, strict=True)
    ]


def one_decoy_rate_bps(clock_rate_hz: float, detector_efficiency: float, loss_db: float) -> float:
    """Return the rate of nanowires without dead time under the one-decoy proof, settings optimised."""
    nanowires = profile("dv-snspd")
    optics = LinkCase(nanowires, loss_db).photon_receiver()
    detector = replaced(optics.detector, efficiency=detector_efficiency, dead_time_s=0.0)
    ideal = replaced(
        nanowires,
        clock_rate_hz=clock_rate_hz,
        photon_receiver=replaced(optics, optics_loss_db=1.0, detector=detector),
    )
    case = LinkCase(ideal, loss_db, block_sifted_bits=1e7, optimise=True)
    return link_rate(case).secret_key_rate_bps


@dataclass(frozen=True)
class Installation:
    """What is assumed of a commercial link whose inside was not published."""

    profile_id: str
    loss_db: float
    proof: str = ""
    detector_changes: tuple[tuple[str, float], ...] = ()
    misalignment_error: float | None = None


INSTALLATIONS = {
    "nordhausen2026_sundhausen_erfurt": Installation("dv-long", 17.0),
    "nordhausen2026_jena_erfurt": Installation("dv-long", 21.0),
    # Proofs of vendors are not known: an endless block is the one that no proof of theirs can beat.
    "reactor2025": Installation("dv-metro", 0.2 * 54 + 1.0, "asymptotic"),
    "linkoping_stockholm2026": Installation("dv-snspd", 0.2 * 303 / 2),
    "clavis_xgr_rio2026": Installation(
        "dv-metro",
        8.0,
        detector_changes=(("efficiency", 0.15), ("afterpulse_probability", 0.0), ("dead_time_s", 1e-5)),
        misalignment_error=0.005,
    ),
    "maqan2026": Installation("dv-metro", 7.5, "asymptotic"),
}
"""Losses stand here as far as they follow from published lengths; each figure is told as assumed."""


def device_profile(row: Experiment) -> list[Comparison]:
    """Compare rate or QBER of a deployed system with a generic profile at its loss."""
    metrics = [row.check.metric] if isinstance(row.check.metric, str) else row.check.metric
    assumed = INSTALLATIONS.get(row.experiment_id)
    if assumed is None:
        name, loss_db = str(row.inputs.get("profile", "dv-metro")), row.figure("loss_db")
        assumed = Installation(name, loss_db)
    found = link_rate(case_of(assumed))
    told: Known = {
        "profile": assumed.profile_id,
        "proof": found.proof,
        "loss_db": assumed.loss_db,
        **dict(assumed.detector_changes),
    }
    if assumed.misalignment_error is not None:
        told["misalignment_error"] = assumed.misalignment_error
    return [compared_with_profile(row, metric, found, told) for metric in metrics]


def compared_with_profile(row: Experiment, metric: str, found: LinkRate, assumed: Known) -> Comparison:
    published = row.result(metric)
    uses = [
        name for name in ("km", "km_total", "loss_dB_min", "loss_dB_first", "loss_db") if name in row.inputs
    ]
    if metric.startswith("qber"):
        return within(
            row,
            metric,
            float("nan") if found.qber is None else found.qber,
            published,
            absolute=row.check.tol_abs,
            uses=uses,
            assumed=assumed,
        )
    slack = row.check.relative
    return not_below(
        row, metric, found.secret_key_rate_bps, published, slack=slack, uses=uses, assumed=assumed
    )


def case_of(installation: Installation) -> LinkCase:
    base = profile(installation.profile_id)
    optics = LinkCase(base, installation.loss_db).photon_receiver()
    detector = replaced(optics.detector, **dict(installation.detector_changes))
    optics = replaced(optics, detector=detector)
    if installation.misalignment_error is not None:
        optics = replaced(optics, misalignment_error=installation.misalignment_error)
    return LinkCase(replaced(base, photon_receiver=optics), installation.loss_db, proof=installation.proof)


def single_photon_source(row: Experiment) -> list[Comparison]:
    """Compare a single-photon BB84 link with its raw rate under perfect detection, which must be more."""
    ceiling = row.figure("eta_source") * 10 ** (-row.figure("loss_dB") / 10)
    return [
        not_below(row, "skr_per_pulse", ceiling, row.result("skr_per_pulse"), uses=("eta_source", "loss_dB"))
    ]


def repeaterless_bound(row: Experiment) -> list[Comparison]:
    """Compare a twin-field rate with the bound of a link without a station in the middle: it lies above."""
    rate, bound = row.result("skr_per_pulse_asymptotic"), plob_bound(row.figure("loss_dB"))
    return [
        compared(
            row,
            "skr_per_pulse_asymptotic",
            bound,
            rate,
            "published above the model: a station in the middle beats PLOB",
            rate > bound,
            ("loss_dB",),
        )
    ]


def reach_km(rate: Callable[[float], float]) -> float:
    """Return the length at which a falling rate becomes zero, by bisection from 0 km."""
    low, high = 0.0, REACH_KM_MAX
    for _ in range(REACH_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if rate(middle) > 0 else (low, middle)
    return low
