"""Does a payload in orbit do what its model says? Four tests of one recorded pass, one significance.

============  ==============================================================================================
test          the payload fails it when
============  ==============================================================================================
light         fewer bits were sifted than the model can explain
errors        more of them were wrong
elevation     the loss grows with range and air otherwise than in the model
steadiness    counts scatter more from interval to interval than counting and the allowed fading make them
============  ==============================================================================================

A model is never exact, so each test allows for how far it may be off (:class:`Tolerance`, assumed): what is
asked is whether counts **and** that together can explain the record. The chances of four tests are corrected
after Holm, so that a payload that meets its model fails any of them with at most the stated significance.

What a pass cannot show is told too: the smallest deficit of light that would have been found nine times in
ten. Sun and Moon stand where they stood; the Moon is taken to be far from the satellite in the sky.

References
----------
S. Holm, Scand. J. Statist. 6, 65 (1979).
"""

from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace
from scipy import stats

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.links.budget import SpaceLink, month_of
from openqci.links.ground import stations_of
from openqci.links.pass_keys import PulseSettings, counts_in_arrays, detected
from openqci.planning.recordings import RecordedPass
from openqci.space.ranges import Floats, check_range
from openqci.space.sun_moon import moon_elevation_deg, moon_phase_deg, sun_elevation_deg

SIGNIFICANCE = 0.01
POWER = 0.9
TESTS = ("light", "errors", "elevation", "steadiness")

DB_PER_NEPER = 10 / np.log(10)


@dataclass(frozen=True)
class Tolerance:
    """How far a model may be off, as standard deviations; every default is assumed.

    Attributes
    ----------
    light_db : float
        Of the loss as a whole: alignment, turbidity of the day, calibration.
    qber : float
    slope : float
        Of the loss against the model's loss, dB per dB.
    fading : float
        Of the counts of one interval, as a share.
    """

    light_db: float = 1.0
    qber: float = 0.003
    slope: float = 0.07
    fading: float = 0.1

    def __post_init__(self) -> None:
        check_range("light_db", self.light_db, 0.0, 20.0)
        check_range("qber", self.qber, 0.0, 0.5)
        check_range("slope", self.slope, 0.0, 1.0)
        check_range("fading", self.fading, 0.0, 1.0)


@dataclass(frozen=True)
class TestResult:
    """One test: what was seen, what the model says, and the chance of it if the payload meets its model.

    Attributes
    ----------
    name, unit : str
    seen, model, deviation : float
        The last one standard deviation, counts and tolerance together.
    chance, corrected_chance : float
        Before and after the correction for several tests.
    """

    __test__ = False  # not a test of pytest

    name: str
    unit: str
    seen: float
    model: float
    deviation: float
    chance: float
    corrected_chance: float

    def fails(self, significance: float) -> bool:
        return self.corrected_chance < significance


@dataclass(frozen=True)
class Validation:
    """The verdict on one pass.

    Attributes
    ----------
    recorded : RecordedPass
    expected_bits, expected_errors : ndarray, shape (T,)
        By the model.
    tests : tuple of TestResult
    significance : float
    found_deficit_db : float
        Of light, that this record would have shown with a chance of 0.9.
    """

    recorded: RecordedPass
    expected_bits: Floats
    expected_errors: Floats
    tests: tuple[TestResult, ...]
    significance: float
    found_deficit_db: float

    @property
    def meets_model(self) -> bool:
        return not any(each.fails(self.significance) for each in self.tests)


def expected_counts(recorded: RecordedPass, link: SpaceLink) -> tuple[Floats, Floats]:
    """Return sifted bits and errors of each interval by the model, shapes (T,).

    Raises
    ------
    OutsideModel
        For a moment that the model does not hold for.
    """
    station, utc_s = stations_of([link.ground]), recorded.utc_s
    budget = link.at(
        np.array(recorded.elevation_deg),
        np.array(recorded.range_km),
        month=month_of(utc_s),
        sun_elevations_deg=sun_elevation_deg(station, utc_s)[0],
        moon_elevations_deg=moon_elevation_deg(station, utc_s)[0],
        moon_phases_deg=moon_phase_deg(utc_s),
        sunlit=np.array(recorded.sunlit or [False] * len(utc_s)),
    )
    efficiency, dark = detected(link, 10 ** (-budget.total_db / 10), budget.background_photons_hz)
    weights_s = np.full(len(utc_s), recorded.interval_s)
    settings = settings_of(recorded, link)
    counts, errors = counts_in_arrays(
        link, settings, efficiency, dark, weights_s, np.arange(len(utc_s)), len(utc_s)
    )
    return np.asarray(counts.sum(axis=(1, 2))), np.asarray(errors.sum(axis=(1, 2)))


def settings_of(recorded: RecordedPass, link: SpaceLink) -> PulseSettings:
    """Return what the source was set to."""
    if recorded.settings is None:
        return PulseSettings.of(link)
    payload = replace(
        link.design.payload,
        intensities=recorded.settings.intensities,
        probabilities=recorded.settings.probabilities,
        z_basis_probability=recorded.settings.z_basis_probability,
    )
    source = payload.source()  # which checks them
    return PulseSettings(
        np.array(source.intensities), np.array(source.probabilities), source.z_basis_probability
    )


def validated(
    recorded: RecordedPass,
    link: SpaceLink,
    significance: float = SIGNIFICANCE,
    tolerance: Tolerance | None = None,
) -> Validation:
    """Return the verdict on a recorded pass.

    Raises
    ------
    ConfigurationError
        For a design with entangled pairs, or a record without any sifted bit.
    OutsideModel
        For a significance that is none, or a moment that the model does not hold for.
    """
    if link.design.entangled:
        raise ConfigurationError(f"{link.design.name} sends entangled pairs; expected a decoy-state design")
    if not 0 < significance < 0.5:
        raise OutsideModel("significance", significance, "above 0 and below 0.5")
    if not sum(recorded.sifted_bits):
        raise ConfigurationError("a record without any sifted bit; expected the counts of a pass")
    allowed = tolerance or Tolerance()
    bits, errors = expected_counts(recorded, link)
    seen, wrong = np.array(recorded.sifted_bits, float), np.array(recorded.errors, float)
    found = (
        light(seen, bits, allowed),
        wrongness(seen, wrong, bits, errors, allowed),
        with_elevation(seen, bits, allowed),
        steadiness(seen, bits, allowed),
    )
    deficit_db = (stats.norm.isf(significance / len(found)) + stats.norm.ppf(POWER)) * found[0].deviation
    return Validation(recorded, bits, errors, corrected(found), significance, float(deficit_db))


def light(seen: Floats, expected: Floats, allowed: Tolerance) -> TestResult:
    """Ask whether there was as much light as in the model; more of it is no fault."""
    ratio_db = float(DB_PER_NEPER * np.log(seen.sum() / expected.sum()))
    counting_db = DB_PER_NEPER / np.sqrt(expected.sum())
    deviation = float(np.hypot(counting_db, allowed.light_db))
    return TestResult(
        "light", "dB", ratio_db, 0.0, deviation, float(stats.norm.cdf(ratio_db / deviation)), 1.0
    )


def wrongness(
    seen: Floats, wrong: Floats, expected: Floats, expected_errors: Floats, allowed: Tolerance
) -> TestResult:
    """Ask whether as few bits were wrong as in the model; fewer are no fault."""
    model, measured = float(expected_errors.sum() / expected.sum()), float(wrong.sum() / seen.sum())
    deviation = float(np.hypot(np.sqrt(model * (1 - model) / seen.sum()), allowed.qber))
    chance = float(stats.norm.sf((measured - model) / deviation))
    return TestResult("errors", "QBER", measured, model, deviation, chance, 1.0)


def fitted(seen: Floats, expected: Floats) -> tuple[float, float, float]:
    """Return offset and slope of the counts' logarithm over that of the model, and what the slope is sure to.

    Poisson regression: ``ln mean = ln expected + offset + slope (ln expected - its mean)``.
    """
    logs = np.log(expected)
    centred = logs - float(np.average(logs, weights=expected))
    offset, slope = float(np.log(seen.sum() / expected.sum())), 0.0
    for _ in range(30):
        mean = np.exp(logs + offset + slope * centred)
        design = np.column_stack([np.ones_like(centred), centred])
        information = design.T @ (design * mean[:, None])
        step = np.linalg.solve(information, design.T @ (seen - mean))
        offset, slope = offset + float(step[0]), slope + float(step[1])
        if np.abs(step).max() < 1e-12:
            break
    return offset, slope, float(np.sqrt(np.linalg.inv(information)[1, 1]))


def with_elevation(seen: Floats, expected: Floats, allowed: Tolerance) -> TestResult:
    """Ask whether the loss moves through the pass as in the model, either way."""
    _, slope, counting = fitted(seen, expected)
    logs = np.log(expected)
    # Fading of the intervals makes the slope less sure than counting alone does.
    spread = np.sqrt(np.average((logs - np.average(logs, weights=expected)) ** 2, weights=expected))
    effective = expected.sum() ** 2 / (expected**2).sum()
    fading = allowed.fading / (max(float(spread), 1e-9) * np.sqrt(effective))
    deviation = float(np.sqrt(counting**2 + allowed.slope**2 + fading**2))
    chance = float(2 * stats.norm.sf(abs(slope) / deviation))
    return TestResult("elevation", "dB per dB", slope, 0.0, deviation, chance, 1.0)


def steadiness(seen: Floats, expected: Floats, allowed: Tolerance) -> TestResult:
    """Ask whether counts scatter no more than they may, once light and slope are taken as they are."""
    offset, slope, _ = fitted(seen, expected)
    logs = np.log(expected)
    mean = np.exp(logs + offset + slope * (logs - float(np.average(logs, weights=expected))))
    scatter = float(((seen - mean) ** 2 / (mean + (allowed.fading * mean) ** 2)).sum())
    freedom = len(seen) - 2
    deviation = float(np.sqrt(2 / freedom))
    chance = float(stats.chi2.sf(scatter, freedom))
    return TestResult("steadiness", "chi2 per interval", scatter / freedom, 1.0, deviation, chance, 1.0)


def corrected(tests: tuple[TestResult, ...]) -> tuple[TestResult, ...]:
    """Return tests with their chances corrected after Holm."""
    order = np.argsort([each.chance for each in tests], kind="stable")
    found, worst = list(tests), 0.0
    for rank, place in enumerate(order.tolist()):
        each = tests[place]
        worst = max(worst, min(1.0, (len(tests) - rank) * each.chance))
        found[place] = TestResult(
            each.name, each.unit, each.seen, each.model, each.deviation, each.chance, worst
        )
    return tuple(found)


# Drawn records


def drawn_record(
    recorded: RecordedPass,
    link: SpaceLink,
    rng: np.random.Generator,
    *,
    deficit_db: float = 0.0,
    more_errors: float = 0.0,
    fading: float = 0.0,
) -> RecordedPass:
    """Return a record of the same pass with counts drawn from the model, or from one that falls short.

    Parameters
    ----------
    recorded : RecordedPass
        Whose times and places are taken.
    link : SpaceLink
    rng : Generator
    deficit_db : float
        Of light.
    more_errors : float
        Added to the error rate.
    fading : float
        Standard deviation of the logarithm of each interval's light, beside counting.
    """
    bits, errors = expected_counts(recorded, link)
    factor = 10 ** (-deficit_db / 10) * np.exp(rng.normal(-(fading**2) / 2, fading, len(bits)))
    seen = rng.poisson(bits * factor)
    wrong = rng.binomial(seen, np.clip(errors / bits + more_errors, 0.0, 1.0))
    return replace(recorded, simulated=True, sifted_bits=tuple(seen.tolist()), errors=tuple(wrong.tolist()))
