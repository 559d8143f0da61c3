"""Which model answers for which row."""

from collections.abc import Callable

from openqci.core.errors import ConfigurationError
from openqci.links.experiments import fibre
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
