"""The outcome of holding a model against a published figure, with all inputs apart by how they are known."""

from collections.abc import Mapping, Sequence

import msgspec

from openqci.links.experiments.rows import Experiment

Known = dict[str, float | str | list[float]]


class Comparison(msgspec.Struct, frozen=True):
    """One figure of one experiment against a model.

    Attributes
    ----------
    kind : str
        ``reproduce``, ``upper``, ``bound`` or ``inequality``.
    published, modelled : float
        In the units of the table; for an inequality the two sides of ``must``.
    must : str
        What has to hold, in words.
    agrees : bool
    pinned, remembered, assumed, fitted : dict
        The inputs used, apart: as published; in the table but from memory; chosen by the model's author; and
        tuned to this very experiment. A model that fits much explains little.
    """

    experiment: str
    reference: str
    kind: str
    model: str
    metric: str
    published: float
    modelled: float
    must: str
    agrees: bool
    pinned: Known
    remembered: Known
    assumed: Known
    fitted: Known


def within(
    row: Experiment,
    metric: str,
    modelled: float,
    published: float,
    *,
    relative: float = 0.0,
    absolute: float = 0.0,
    uses: Sequence[str],
    assumed: Mapping[str, float | str | list[float]] | None = None,
    fitted: Mapping[str, float | str | list[float]] | None = None,
) -> Comparison:
    """Compare a row of kind ``reproduce``: the model lands within a tolerance around the published figure."""
    allowed = absolute or relative * abs(published)
    words = f"within {absolute:g}" if absolute else f"within {100 * relative:g} %"
    return compared(
        row, metric, modelled, published, words, abs(modelled - published) <= allowed, uses, assumed, fitted
    )


def not_below(
    row: Experiment,
    metric: str,
    modelled: float,
    published: float,
    *,
    slack: float = 0.0,
    uses: Sequence[str],
    assumed: Mapping[str, float | str | list[float]] | None = None,
) -> Comparison:
    """Compare a row of kind ``upper``: a model that leaves losses out may not lie below the measurement."""
    words = "not below" if not slack else f"not below by more than {100 * slack:g} %"
    return compared(
        row, metric, modelled, published, words, modelled >= published * (1 - slack), uses, assumed, None
    )


def not_above(
    row: Experiment,
    metric: str,
    modelled: float,
    published: float,
    *,
    uses: Sequence[str],
    assumed: Mapping[str, float | str | list[float]] | None = None,
) -> Comparison:
    """Compare a row of kind ``bound``: a stricter proof may not exceed what was published."""
    return compared(row, metric, modelled, published, "not above", modelled <= published, uses, assumed, None)


def compared(
    row: Experiment,
    metric: str,
    modelled: float,
    published: float,
    must: str,
    agrees: bool,
    uses: Sequence[str],
    assumed: Mapping[str, float | str | list[float]] | None = None,
    fitted: Mapping[str, float | str | list[float]] | None = None,
) -> Comparison:
    """Return a comparison; ``uses`` names the inputs of the row that the model took."""
    used = {name: row.inputs[name] for name in uses}
    return Comparison(
        experiment=row.experiment_id,
        reference=row.reference,
        kind=row.check.kind,
        model=row.check.model,
        metric=metric,
        published=published,
        modelled=modelled,
        must=must,
        agrees=bool(agrees),
        pinned={name: value for name, value in used.items() if name not in row.memory},
        remembered={name: value for name, value in used.items() if name in row.memory},
        assumed=dict(assumed or {}),
        fitted=dict(fitted or {}),
    )
