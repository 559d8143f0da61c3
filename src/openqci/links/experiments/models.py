"""Which model answers for which row."""

from collections.abc import Callable

from openqci.core.errors import ConfigurationError
from openqci.links.experiments import coexistence, continuous, decoy, detection, downlinks, fibre, stations
from openqci.links.experiments.comparison import Comparison
from openqci.links.experiments.rows import Experiment

NOT_COMPARED = ("none", "schema")

_MODELS: dict[str, Callable[[Experiment], list[Comparison]]] = {
    "gllp_asymptotic": fibre.gllp_asymptotic,
    "wcp_gain_qber": fibre.wcp_gain_qber,
    "gated_apd_background": fibre.gated_apd_background,
    "rusca2018_one_decoy_no_saturation": fibre.ideal_detectors,
    "rusca2018_one_decoy": fibre.ideal_detectors,
    "device_profile": fibre.device_profile,
    "bb84_single_photon": fibre.single_photon_source,
    "plob": fibre.repeaterless_bound,
    "lim2014_two_decoy": decoy.lim2014_two_decoy,
    "freerunning_apd_deadtime_qber": detection.freerunning_apd_deadtime_qber,
    "click_qber": detection.click_qber,
    "raman_coexistence": coexistence.raman_coexistence,
    "gg02_homodyne_trusted": continuous.gg02_homodyne_trusted,
    "gg02_finite_leverrier": continuous.gg02_finite_leverrier,
    "gg02_homodyne_trusted_wang_noise": continuous.gg02_homodyne_trusted_wang_noise,
    "tf_vs_plob": stations.tf_vs_plob,
    "bbm92_rate_from_pairs": stations.bbm92_rate_from_pairs,
    "pass_integrated_lim2014": downlinks.pass_integrated_lim2014,
    "pass_integrated": downlinks.pass_integrated,
}


def compare(row: Experiment) -> list[Comparison]:
    """Return the comparisons of a row; none for a row that asks for none.

    Raises
    ------
    ConfigurationError
        For a model that does not exist, or inputs that it needs and the row has not.
    """
    if row.check.kind in NOT_COMPARED:
        return []
    if row.check.model not in _MODELS:
        raise ConfigurationError(
            f"{row.experiment_id}: unknown model {row.check.model!r}; expected one of {', '.join(_MODELS)}"
        )
    return _MODELS[row.check.model](row)


def model_names() -> tuple[str, ...]:
    """Return the names of all models."""
    return tuple(_MODELS)
