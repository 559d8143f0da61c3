"""``openqci link`` as a user runs it: figures, sweeps, files, and one clear line for every bad input."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from openqci.cli.main import main
from openqci.links import LinkCase, link_rate, profile, protocol_ids


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """Run ``openqci link`` and return what it prints."""
    assert main(["link", *words]) == code
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run ``openqci link`` with bad input and return its one line of error."""
    assert main(["link", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    return printed.err


def test_a_rate_says_what_it_rests_on(capsys):
    text = told(capsys, "rate", "--protocol", "bb84-decoy2", "--length-km", "50", "--block-bits", "1e7")
    for word in ("dv-metro", "lim-2014", "gain", "QBER", "per pulse", "bit/s", "secret length", "epsilon"):
        assert word in text


def test_json_is_the_result_of_the_python_door(capsys):
    found = json.loads(told(capsys, "rate", "--loss-db", "10", "--json"))
    known = link_rate(LinkCase(profile("dv-metro"), loss_db=10.0))
    assert found["secret_length_bits"] == known.secret_length_bits > 0
    assert found["secret_key_rate_bps"] == known.secret_key_rate_bps
    assert found["settings"]["intensities"] == [0.33, 0.095]


@pytest.mark.parametrize("protocol_id", protocol_ids())
def test_every_protocol_answers_and_draws(capsys, tmp_path, protocol_id):
    found = json.loads(told(capsys, "rate", "--protocol", protocol_id, "--loss-db", "5", "--json"))
    assert found["protocol"] == protocol_id
    assert found["secret_key_rate_bps"] > 0
    assert found["secret_key_rate_per_pulse"] < found["repeaterless_bound_per_pulse"]
    out = tmp_path / "drawn.npz"
    words = ["--protocol", protocol_id, "--loss-db", "5", "--detections", "500", "--seed", "1"]
    told(capsys, "simulate", *words, "--out", str(out))
    with np.load(out) as arrays:
        about = json.loads(str(arrays["about"]))
        assert about["protocol"] == protocol_id and about["simulated"] is True and about["seed"] == 1
        assert all(len(arrays[name]) == 500 for name in arrays.files if name != "about")


def test_the_same_seed_draws_the_same_and_another_does_not(capsys, tmp_path):
    drawn = []
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        out = tmp_path / f"{name}.npz"
        told(capsys, "simulate", "--loss-db", "5", "--detections", "100", "--seed", seed, "--out", str(out))
        with np.load(out) as arrays:
            drawn.append(arrays["slot"].tolist())
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_sweep_is_a_table_and_falls(capsys):
    rates = json.loads(told(capsys, "rate", "--sweep", "length-km=0:60:20", "--json"))
    assert [each["length_km"] for each in rates] == [0, 20, 40, 60]
    falling = [each["secret_key_rate_bps"] for each in rates]
    assert falling == sorted(falling, reverse=True)
    assert len(told(capsys, "rate", "--sweep", "loss-db=0:9:3").splitlines()) == 2 + 4


def test_a_link_without_key_says_why_and_ends_with_1(capsys):
    text = told(capsys, "rate", "--loss-db", "25", code=1)
    assert "no key                modules of dv-metro do not start above 18 dB" in text
    small = told(capsys, "rate", "--loss-db", "10", "--block-bits", "100", "--json", code=1)
    assert json.loads(small)["zero_because"] != ""


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_a_sweep_is_drawn(capsys, tmp_path, suffix):
    file = tmp_path / f"rates{suffix}"
    told(capsys, "rate", "--sweep", "length-km=0:80:20", "--plot", str(file))
    assert file.stat().st_size > 5_000


def test_a_profile_of_ones_own(capsys, tmp_path):
    file = tmp_path / "mine.yaml"
    own = Path("src/openqci/links/profiles/profiles.yaml").read_text().replace("id: dv-metro", "id: mine")
    file.write_text(own)
    found = json.loads(told(capsys, "rate", "--profile", f"{file}#mine", "--loss-db", "10", "--json"))
    assert found["profile"] == "mine"
    said = refused(capsys, "rate", "--profile", str(file), "--loss-db", "10")
    assert f"holds 8 profiles; expected {file}# and one of mine, dv-long" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--length-km", "-5"), "length_km = -5.0 is outside the model; expected a finite number from 0 to"),
        (("--loss-db", "nan"), "loss_db = nan is outside the model"),
        (
            ("--loss-db", "201"),
            "loss_db = 201.0 is outside the model; expected a finite number from 0 to 200",
        ),
        (("--length-km", "2000"), "--length-km 2000 at 0.2 dB/km loses 400 dB; expected at most 200 dB"),
        (("--loss-db", "5", "--block-bits", "0"), "block_sifted_bits = 0.0 is outside the model; expected"),
        (("--loss-db", "5", "--duration-s", "-1"), "duration_s = -1.0 is outside the model; expected"),
        (("--loss-db", "5", "--profile", "dv-mterò"), "unknown profile 'dv-mterò'; expected one of dv-metro"),
        (
            ("--loss-db", "5", "--proof", "magic"),
            "no proof 'magic' for protocol bb84-decoy1; expected one of",
        ),
        (("--loss-db", "5", "--protocol", "e91"), "unknown protocol 'e91'; expected one of bb84-decoy1"),
        (("--loss-db", "5", "--encoding", "smoke"), "encoding 'smoke'; expected one of phase, time-bin"),
        (
            ("--loss-db", "5", "--background-photons-hz", "nan"),
            "background_photons_hz = nan is outside the model",
        ),
        (("--loss-db", "5", "--drift-rad", "3"), "drift_angle_rms_rad = 3.0 is outside the model; expected"),
        (
            ("--loss-db", "5", "--protocol", "gg02-homodyne", "--profile", "dv-metro"),
            "measures quadratures and profile dv-metro does not; expected a profile with",
        ),
        (
            ("--loss-db", "5", "--protocol", "bbm92", "--profile", "cv-metro"),
            "counts photons and profile cv-metro does not; expected a profile with a photon_receiver",
        ),
        ((), "which link? expected --length-km, --loss-db or --sweep"),
        (("--length-km", "5", "--attenuation-db-per-km", "-1"), "--attenuation-db-per-km = -1.0; expected"),
        (("--sweep", "length-km=0:5"), "--sweep length-km=0:5; expected NAME=START:STOP:STEP"),
        (("--sweep", "colour=0:5:1"), "--sweep colour; expected one of length-km, loss-db"),
        (("--sweep", "loss-db=0:5:0"), "START not above STOP and a STEP above zero"),
        (("--sweep", "loss-db=0:5:1e-9"), "points; expected at most 10000"),
        (("--loss-db", "5", "--plot", "x.svg"), "--plot draws a sweep; expected --sweep too"),
        (("--sweep", "loss-db=0:5:1", "--plot", "x.gif"), "x.gif: expected a name that ends in .svg"),
        (("--sweep", "loss-db=0:5:1", "--plot", "no/such/x.svg"), "no/such/x.svg: cannot be written"),
        (("--loss-db", "5", "--profile", "no.yaml"), "no.yaml: cannot be read: No such file or directory"),
        (("--sweep", "loss-db=0:1:1e-320"), "has inf points; expected at most 10000"),
        (("--sweep", "loss-db=0:1e300:1"), "has 1e+300 points; expected at most 10000"),
        (("--sweep", "length-km=0:1:inf"), "expected finite numbers, START not above STOP and a STEP"),
        (("--sweep", "length-km=0:1:nan"), "expected finite numbers, START not above STOP and a STEP"),
        (
            ("--sweep", "length-km=0:50:10", "--loss-db", "7"),
            "--loss-db beside --sweep; expected one of them",
        ),
        (
            ("--sweep", "loss-db=0:5:1", "--length-km", "7"),
            "--length-km beside --sweep; expected one of them",
        ),
        (("--loss-db", "5", "--attenuation-db-per-km", "0.3"), "--attenuation-db-per-km says nothing where"),
        (
            ("--loss-db", "5", "--protocol", "mdi", "--block-bits", "1"),
            "block_sifted_bits: proof mdi-asymptotic",
        ),
        (("--loss-db", "5", "--detector-trust", "maybe"), "detector_trust 'maybe'; expected one of trusted"),
        (("--loss-db", "5", "--detector-trust", "untrusted"), "detector_trust: protocol bb84-decoy1 counts"),
        (("--loss-db", "5", "--proof", "lim2014"), "(lim2014 is for bb84-decoy2)"),
        (
            ("--loss-db", "5", "--profile", "field-aerial-2026", "--optimise"),
            "optimise: a measured rate is what it was; expected no such setting",
        ),
    ],
)
def test_bad_input_is_one_line_that_names_field_and_range(capsys, words, said):
    assert said in refused(capsys, "rate", *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--seed", "-1", "--out", "x.npz"), "seed = -1 is outside the model; expected zero or more"),
        (("--seed", "1", "--out", "x.txt"), "expected a name that ends in .npz"),
        (("--seed", "1", "--out", "x.npz", "--detections", "0"), "detections = 0 is outside the model"),
        (("--seed", "1", "--out", "no/such/x.npz"), "no/such/x.npz: cannot be written"),
    ],
)
def test_bad_input_of_a_drawing(capsys, words, said):
    assert said in refused(capsys, "simulate", "--loss-db", "5", *words)


@pytest.mark.parametrize("text", ["", "\xff", "{a: [b", "- 1", "version: 1\nprofiles: []\n"])
def test_a_broken_file_of_profiles_is_named_with_its_fault(capsys, tmp_path, text):
    file = tmp_path / "mine.yaml"
    file.write_bytes(text.encode("latin-1"))
    assert str(file) in refused(capsys, "rate", "--loss-db", "5", "--profile", str(file))


def test_an_unwritten_file_leaves_nothing_and_an_old_one_stays(capsys, tmp_path, monkeypatch):
    file = tmp_path / "drawn.npz"
    words = ("simulate", "--loss-db", "5", "--detections", "10", "--seed", "1", "--out", str(file))
    told(capsys, *words)
    before = file.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(np, "savez_compressed", full)
        assert "cannot be written: No space left" in refused(capsys, *words)
    assert file.read_bytes() == before and os.listdir(tmp_path) == ["drawn.npz"]
    with monkeypatch.context() as disk:
        disk.setattr("matplotlib.figure.Figure.savefig", full)
        svg = str(tmp_path / "x.svg")
        assert "cannot be written" in refused(capsys, "rate", "--sweep", "loss-db=0:5:5", "--plot", svg)
    assert os.listdir(tmp_path) == ["drawn.npz"]
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask()
    link = tmp_path / "link.npz"
    link.symlink_to(file)
    told(capsys, *words[:-3], "2", "--out", str(link))
    assert link.is_symlink() and file.read_bytes() != before


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_plot_is_refused_before_it_is_computed(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("openqci.cli.link.plotting.curve", lambda *_: pytest.fail("computed"))
    for file in ("x.gif", str(tmp_path), str(tmp_path / "no" / "x.svg")):
        assert file in refused(capsys, "plot", "--out", file)


@pytest.mark.parametrize("protocol_id", protocol_ids())
@pytest.mark.parametrize("loss_db", ["0", "1e-300", "60", "200"])
def test_json_knows_neither_nan_nor_infinity(capsys, protocol_id, loss_db):
    assert main(["link", "rate", "--protocol", protocol_id, "--loss-db", loss_db, "--json"]) in (0, 1)

    def never(word: str) -> None:
        pytest.fail(f"{word} is not JSON")

    json.loads(capsys.readouterr().out, parse_constant=never)


def test_the_help_tells_a_newcomer_profiles_proofs_and_examples(capsys):
    with pytest.raises(SystemExit):
        main(["link", "rate", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for word in ("dv-metro, dv-long", "lim2014, chernoff", "openqci link rate --length-km 50", "default 0.2"):
        assert word in text


@pytest.mark.parametrize("name", ["lim2014", "lim-2014", "chernoff", "lim-2014-chernoff"])
def test_proofs_are_known_as_people_call_them(capsys, name):
    words = ["rate", "--protocol", "bb84-decoy2", "--length-km", "20", "--proof", name, "--json"]
    found = json.loads(told(capsys, *words))
    assert found["proof"] == ("lim-2014-chernoff" if "chernoff" in name else "lim-2014")


def test_names_and_figures_are_apart(capsys):
    for protocol_id in protocol_ids():
        for line in told(capsys, "rate", "--protocol", protocol_id, "--loss-db", "5").splitlines()[1:]:
            assert len(line.split()) > 1, line


def test_the_plot_of_all_protocols(capsys, tmp_path):
    file = tmp_path / "all.svg"
    told(capsys, "plot", "--out", str(file), "--length-km-max", "300")
    drawn = file.read_text()
    assert all(protocol_id in drawn for protocol_id in protocol_ids()) and "PLOB" in drawn


def test_a_table_of_experiments_of_ones_own(capsys, tmp_path):
    file = tmp_path / "table.yaml"
    file.write_text(
        """
schema_version: 1
sources: {}
rows:
  - {id: mine, ref: a paper, source: mine, mark: R, protocol: tf, inputs: {loss_dB: 100.0},
     results: {skr_per_pulse_asymptotic: 1.0e-12}, test: {kind: inequality, model: plob}}
"""
    )
    found = json.loads(told(capsys, "compare-experiments", "--file", str(file), "--json", code=1))
    assert found["disagreeing"] == 1 and found["compared"][0]["experiment"] == "mine"
    assert "DISAGREES" in told(capsys, "compare-experiments", "--file", str(file), code=1)
    file.write_text(file.read_text().replace("loss_dB: 100.0", "loss: 100.0"))
    assert "mine: inputs.loss_dB: expected a number, found None" in refused(
        capsys, "compare-experiments", "--file", str(file)
    )
    file.write_text(file.read_text().replace("model: plob", "model: guess"))
    assert "unknown model 'guess'; expected one of" in refused(
        capsys, "compare-experiments", "--file", str(file)
    )
    file.write_text("schema_version: 1\nsources: {}\nrows: []\n")
    assert "rows: expected a list with at least 1 entries" in refused(
        capsys, "compare-experiments", "--file", str(file)
    )
