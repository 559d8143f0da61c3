"""What ``openqci link simulate`` draws is what ``openqci link rate`` says, for every protocol.

Both start from the same :class:`LinkCase`. The rate is read from the closed form, the arrays from the
drawing, and each test is told how often it may fail by chance: every z-test and every chi-square test here
has a false-alarm probability of FALSE_ALARM, so that all of them together, some 150, raise one in about
seventy thousand choices of seeds. A drawing with a wrong misalignment is found out, for every protocol.
"""

import dataclasses
import math

import numpy as np
import pytest
from msgspec.structs import replace as replaced
from scipy.stats import chi2, norm

from openqci.core.errors import ConfigurationError
from openqci.links import LinkCase, link_detections, link_rate, profile, protocol, protocol_ids
from openqci.quantum import expected_statistics, mdi_statistics, twin_field_statistics

DETECTIONS = 40_000
FALSE_ALARM = 1e-7
SIGMAS = float(norm.isf(FALSE_ALARM / 2))

PHOTONS = [each for each in protocol_ids() if not each.startswith("gg02")]
QUADRATURES = [each for each in protocol_ids() if each.startswith("gg02")]

SETTINGS = [
    {"loss_db": 0.5},
    {"loss_db": 10.0, "drift_angle_rms_rad": 0.12},
    {"loss_db": 20.0, "encoding": "polarisation"},
    {"loss_db": 15.0, "optimise": True},
    {"loss_db": 30.0, "dark": 3e-6},
    {"loss_db": 12.0, "background_photons_hz": 2e6},
]


def case_of(protocol_id: str, *, dark: float | None = None, **changes: object) -> LinkCase:
    """Return a case on nanowires (or quadratures) with noise that shows."""
    found = profile("cv-metro" if protocol_id.startswith("gg02") else "dv-snspd")
    found = replaced(found, operation=replaced(found.operation, loss_db_max=200.0))
    if dark is not None:
        receiver = found.photon_receiver
        detector = replaced(receiver.detector, dark_count_probability=dark)
        found = replaced(found, photon_receiver=replaced(receiver, detector=detector))
    # The drawing takes the settings of the first proof; with another proof the best ones would differ.
    return LinkCase(found, protocol=protocol_id, proof=protocol(protocol_id).proof_ids[0], **changes)


def errors_and_trials(protocol_id: str, drawn: dict) -> tuple[int, int]:
    """Return errors among the key-basis bits of a drawing, and how many there are."""
    if protocol_id == "mdi":
        key = drawn["basis"] == 0
    elif protocol_id == "sns-tf":
        key = drawn["window"] == 0
    else:
        key = drawn["alice_basis"] == drawn["bob_basis"]
        if protocol_id.startswith("bb84"):
            key &= drawn["alice_basis"] == 0
    return int(np.count_nonzero((drawn["alice_bit"] != drawn["bob_bit"])[key])), int(np.count_nonzero(key))


def z_of(count: float, trials: float, probability: float) -> float:
    """Return by how many standard deviations a count is off, at least one count being one."""
    return (count - trials * probability) / max(1.0, math.sqrt(trials * probability * (1 - probability)))


def error_zs(protocol_id: str, case: LinkCase, drawn: dict) -> list[float]:
    """Return the deviation of the errors in the key basis, and in the test basis where a rate tells them."""
    found = link_rate(case)
    zs = [z_of(*errors_and_trials(protocol_id, drawn), found.qber)]
    if protocol_id in ("mdi", "sns-tf"):
        test = drawn["basis" if protocol_id == "mdi" else "window"] == 1
        wrong = np.count_nonzero((drawn["alice_bit"] != drawn["bob_bit"])[test])
        zs.append(z_of(wrong, np.count_nonzero(test), found.observed["x_qber"]))
    return zs


def drawn_of(protocol_id: str, case: LinkCase, seed: int) -> dict:
    """Return a drawing; a coincidence of the continuous source takes many time tags, so that fewer do."""
    return link_detections(case, DETECTIONS // 4 if protocol_id == "bbm92-cw" else DETECTIONS, seed)


@pytest.mark.parametrize("seed", range(len(SETTINGS)), ids=lambda n: str(sorted(SETTINGS[n].items())))
@pytest.mark.parametrize("protocol_id", PHOTONS)
def test_errors_are_as_rare_as_the_rate_says(protocol_id, seed):
    case = case_of(protocol_id, **SETTINGS[seed])
    zs = error_zs(protocol_id, case, drawn_of(protocol_id, case, seed))
    assert max(np.abs(zs)) < SIGMAS


@pytest.mark.parametrize("protocol_id", PHOTONS)
def test_a_wrong_misalignment_is_found_out(protocol_id):
    """A drift that the rate does not know of, 8 % of error (SNS: 4 %): the drawing no longer agrees."""
    case = case_of(protocol_id, loss_db=10.0)
    turned = dataclasses.replace(case, drift_angle_rms_rad=0.3)
    assert max(np.abs(error_zs(protocol_id, case, drawn_of(protocol_id, turned, 1)))) > SIGMAS


def off_by(protocol_id: str, case: LinkCase, drawn: dict) -> float:
    """Return by how many deviations the rate of a drawing is off, from the time of its last detection.

    The time of n detections has a relative deviation of ``1/sqrt(n)``; dead time only makes it less.
    """
    count = len(drawn["alice_bit"])
    if "alice_time_s" in drawn:
        duration_s = float(drawn["alice_time_s"].max())
    else:
        duration_s = (int(drawn["slot"][-1]) + 1) / case.profile.clock_rate_hz
    return (count / duration_s / expected_per_second(protocol_id, case) - 1) * math.sqrt(count)


def expected_per_second(protocol_id: str, case: LinkCase) -> float:
    """Return what the closed form says of the same detections.

    Dead time is drawn for BB84 and the continuous source; for the others the gain is compared. SNS draws both
    kinds of windows and MDI both bases, evenly.
    """
    found, clock_rate_hz = link_rate(case), case.profile.clock_rate_hz
    if protocol_id.startswith("bb84"):
        return found.observed["detection_rate_hz"]
    if protocol_id == "bbm92":
        return found.gain * clock_rate_hz
    if protocol_id == "bbm92-cw":
        return found.observed["coincidence_rate_hz"]
    link = protocol(protocol_id).link(case)
    if protocol_id == "mdi":
        return clock_rate_hz * (found.gain + mdi_statistics(link).x_gain) / 2
    share = link.z_window_probability
    return clock_rate_hz * (share * found.gain + (1 - share) * twin_field_statistics(link).x_gain)


@pytest.mark.parametrize("seed", range(len(SETTINGS)), ids=lambda n: str(sorted(SETTINGS[n].items())))
@pytest.mark.parametrize("protocol_id", PHOTONS)
def test_detections_come_as_often_as_the_rate_says(protocol_id, seed):
    case = case_of(protocol_id, **SETTINGS[seed])
    if protocol_id == "bbm92-cw":
        case = with_dead_time(case, 0.0)
    assert abs(off_by(protocol_id, case, drawn_of(protocol_id, case, 100 + seed))) < SIGMAS


@pytest.mark.parametrize("loss_db", [0.5, 5.0, 10.0])
def test_dead_time_of_both_ends_is_never_taken_for_less_than_it_is(loss_db):
    """A pair silences both ends at once, which the closed form takes for independent: it says too little.

    By no more than the share of time after a pair, so that the rate is on the safe side.
    """
    case = with_dead_time(case_of("bbm92-cw", loss_db=loss_db), 3e-8)
    drawn = drawn_of("bbm92-cw", case, 5)
    more = off_by("bbm92-cw", case, drawn)
    after_pairs = 3e-8 * link_rate(case).settings["brightness_hz"] * link_rate(case).gain * 1.5
    assert -SIGMAS < more < SIGMAS + after_pairs * math.sqrt(len(drawn["alice_bit"]))


def with_dead_time(case: LinkCase, dead_time_s: float) -> LinkCase:
    receiver = case.profile.photon_receiver
    detector = replaced(receiver.detector, dead_time_s=dead_time_s)
    receiver = replaced(receiver, detector=detector)
    return dataclasses.replace(case, profile=replaced(case.profile, photon_receiver=receiver))


@pytest.mark.parametrize("protocol_id", PHOTONS)
def test_half_a_decibel_of_loss_is_found_out(protocol_id):
    case = case_of(protocol_id, loss_db=10.0)
    more = dataclasses.replace(case, loss_db=10.5)
    assert abs(off_by(protocol_id, case, drawn_of(protocol_id, more, 3))) > SIGMAS


@pytest.mark.parametrize("protocol_id", ["bb84-decoy1", "bb84-decoy2"])
@pytest.mark.parametrize("seed", range(len(SETTINGS)), ids=lambda n: str(sorted(SETTINGS[n].items())))
def test_intensities_and_bases_are_sifted_as_the_proof_expects(protocol_id, seed):
    """Chi-square of the counts per basis and intensity against those that the proof was given."""
    case = case_of(protocol_id, **SETTINGS[seed])
    chosen = protocol(protocol_id)
    expected = expected_statistics(chosen.quantum_link(case, chosen.pulses(case, case.proof)))
    drawn = link_detections(case, DETECTIONS, 200 + seed)
    same = drawn["alice_basis"] == drawn["bob_basis"]
    kinds = drawn["alice_intensity"][same].astype(int) + 3 * drawn["alice_basis"][same]
    seen = np.bincount(kinds, minlength=6).reshape(2, 3)[:, : expected.detection_fractions.shape[1]]
    likely = DETECTIONS * expected.detection_fractions
    seen = np.append(seen.ravel(), DETECTIONS - seen.sum())
    likely = np.append(likely.ravel(), DETECTIONS - likely.sum())
    rare = likely < 10
    seen, likely = (np.append(each[~rare], each[rare].sum()) for each in (seen, likely))
    statistic = float(np.sum((seen - likely) ** 2 / np.maximum(likely, 1.0)))
    assert statistic < chi2.isf(FALSE_ALARM, len(seen) - 1)


@pytest.mark.parametrize("loss_db", [0.0, 5.0, 12.0])
@pytest.mark.parametrize("protocol_id", QUADRATURES)
def test_quadratures_have_the_signal_to_noise_of_the_rate(protocol_id, loss_db):
    """Alice's variance, and how much of Bob's she explains: ``r^2 = SNR/(1 + SNR)``, by Fisher's z."""
    case = case_of(protocol_id, loss_db=loss_db)
    drawn, found = link_detections(case, DETECTIONS, 7), link_rate(case)
    alice, bob = paired(drawn)
    variance = found.settings["modulation_variance_snu"]
    assert abs(np.mean(alice**2) / variance - 1) < SIGMAS * math.sqrt(2 / alice.size)
    assert abs(fisher_z(alice, bob, found.observed["signal_to_noise"])) < SIGMAS
    # The unit is the shot noise: the variance of Bob's values given Alice's, not the ratio alone.
    noise = 1 + found.settings["electronic_noise_snu"] + excess_at_photocurrent(case, found)
    left = bob - np.mean(alice * bob) / np.mean(alice**2) * alice
    assert abs(np.mean(left**2) / noise - 1) < SIGMAS * math.sqrt(2 / alice.size)


def excess_at_photocurrent(case: LinkCase, found) -> float:
    share = 1.0 if case.protocol_id == "gg02-homodyne" else 0.5
    return (
        share
        * found.settings["detector_efficiency"]
        * case.transmittance
        * found.observed["excess_noise_snu"]
    )


@pytest.mark.parametrize("protocol_id", QUADRATURES)
def test_a_wrong_loss_of_quadratures_is_found_out(protocol_id):
    case = case_of(protocol_id, loss_db=5.0)
    alice, bob = paired(link_detections(dataclasses.replace(case, loss_db=5.5), DETECTIONS, 7))
    assert abs(fisher_z(alice, bob, link_rate(case).observed["signal_to_noise"])) > SIGMAS


def paired(drawn: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return Alice's quadratures and Bob's values that belong together, flat."""
    if drawn["bob_quadratures"].ndim == 2:
        return drawn["alice_quadratures"].ravel(), drawn["bob_quadratures"].ravel()
    rows = np.arange(len(drawn["bob_measured"]))
    return drawn["alice_quadratures"][rows, drawn["bob_measured"]], drawn["bob_quadratures"]


def fisher_z(alice: np.ndarray, bob: np.ndarray, signal_to_noise: float) -> float:
    """Return by how many deviations the correlation is off what a signal-to-noise ratio makes it."""
    known = math.sqrt(signal_to_noise / (1 + signal_to_noise))
    found = float(np.corrcoef(alice, bob)[0, 1])
    return (math.atanh(found) - math.atanh(known)) * math.sqrt(alice.size - 3)


def test_every_protocol_is_held_against_its_drawing():
    assert set(PHOTONS) | set(QUADRATURES) == set(protocol_ids())
    with pytest.raises(ConfigurationError, match="encoding 'polarisation'"):
        link_detections(case_of("gg02-homodyne", loss_db=5.0, encoding="polarisation"), 10, 1)
