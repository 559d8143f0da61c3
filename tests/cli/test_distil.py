"""``openqci distil`` as a user has it: a recording to key in one process, and between two over TCP."""

import contextlib
import json
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openqci.cli.distil.recordings import block_count, slots_of_block
from openqci.cli.main import main

OPENQCI = [sys.executable, "-m", "openqci"]


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """Two seconds of a short link: two files that every test reads."""
    folder = tmp_path_factory.mktemp("recording")
    command = ["link", "record", "--profile", "dv-metro", "--length-km", "10", "--detections", "600000"]
    files = ["--alice", str(folder / "a.npz"), "--bob", str(folder / "b.npz")]
    assert main([*command, "--seed", "1", *files]) == 0
    return folder


def of(folder: Path) -> list[str]:
    return ["--alice", str(folder / "a.npz"), "--bob", str(folder / "b.npz")]


def test_a_recording_becomes_key_with_every_bit_accounted(recording, tmp_path, capsys):
    capsys.readouterr()
    key, plot = tmp_path / "key", tmp_path / "plot.svg"
    assert main(["distil", "run", *of(recording), "--out", str(key), "--plot", str(plot), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (block,), totals, tags = told["blocks"], told["totals"], told["synchronisation"]
    assert block["detections"] == block["mismatched_bits"] + block["test_bits"] + block["sifted_bits"]
    assert block["sifted_bits"] == block["secret_bits"] + block["disclosed_bits"] + block["discarded_bits"]
    assert tags["detections"] == block["detections"] and tags["double_clicks"] == block["double_clicks"]
    assert totals["secret_bits"] == block["secret_bits"] == 8 * key.stat().st_size > 50_000
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert block["epsilon"] == pytest.approx(sum(block["epsilon_by_stage"].values()))
    assert set(block["epsilon_by_stage"]) > {"amplification", "estimation", "verification"}
    assert {"alice_sifting", "bob_reconciliation", "bob_amplification"} <= set(block["seconds"])
    assert abs(tags["clock_offset_ppm"] - 2.0) < 0.01
    assert "</svg>" in plot.read_text()
    assert key.read_bytes()[:16].hex() not in json.dumps(told)


def test_blocks_are_cut_by_slots_and_two_runs_share_no_key(recording, tmp_path, capsys):
    slots = str(round(json_of(recording, capsys)["totals"]["recorded_s"] * 1e9 / 2.5))
    keys = []
    for name in ("one", "two"):
        assert (
            main(["distil", "run", *of(recording), "--out", str(tmp_path / name), "--block-slots", slots])
            == 0
        )
        keys.append((tmp_path / name).read_bytes())
        said = capsys.readouterr().out
        assert "block 2:" in said and "block 3:" not in said and "2 of 2 blocks with key" in said
    assert keys[0] != keys[1]


def json_of(recording: Path, capsys, *more: str) -> dict:
    capsys.readouterr()
    main(["distil", "run", *of(recording), "--json", *more])
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (["--reconciliation", "ldpc-1"], {"reconciliation": "ldpc-1"}),
        (["--round-trip-ms", "500"], {"reconciliation": "ldpc-1"}),
        (["--accounting", "both-ends-v1"], {"accounting": "both-ends-v1"}),
        (["--proof", "wiesemann-2024"], {"proof_id": "wiesemann-2024"}),
        (["--secret-bits", "40000"], {"secret_bits_fixed": 40_000}),
    ],
)
def test_settings_are_those_that_were_asked_for(recording, capsys, options, changed):
    told = json_of(recording, capsys, *options)
    assert {name: told["settings"][name] for name in changed} == changed
    assert told["totals"]["secret_bits"] >= 40_000
    if "secret_bits_fixed" in changed:
        assert told["totals"]["secret_bits"] == 40_000 and told["blocks"][0]["length_rule"] == "fixed"


def test_no_key_is_a_negative_result_and_says_why(recording, capsys):
    assert main(["distil", "run", *of(recording), "--qber-max", "0.01"]) == 1
    assert "no key: peer aborted: QBER too high" in capsys.readouterr().out
    assert main(["distil", "run", *of(recording), "--block-slots", "1000000"]) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--alice", "{}/a.npz", "--bob", "{}/nothing.npz"], "nothing.npz: there is no such file"),
        (["--alice", "{}/b.npz", "--bob", "{}/a.npz"], "is this the file of the other end?"),
        (["--alice", "{}/a.npz", "--bob", "{}/cut.npz"], "is no whole NumPy .npz archive"),
        (["--alice", "{}/a.npz", "--bob", "{}/b.npz", "--proof", "none"], "unknown proof 'none'"),
        (["--alice", "{}/a.npz", "--bob", "{}/b.npz", "--epsilon-sec", "2"], "epsilon_sec: expected above 0"),
        (["--alice", "{}/a.npz", "--bob", "{}/b.npz", "--block-slots", "0"], "--block-slots 0; expected 1"),
        (
            ["--alice", "{}/a.npz", "--bob", "{}/b.npz", "--block-slots", "1"],
            "blocks; expected at most 10000",
        ),
        (
            ["--alice", "{}/a.npz", "--bob", "{}/b.npz", "--secret-bits", "7"],
            "secret_bits_fixed: expected a",
        ),
        (["--alice", "{}/a.npz", "--bob", "{}/b.npz", "--plot", "{}/x.txt"], "expected a name that ends in"),
        (["--alice", "{}/a.npz", "--bob", "{}/b.npz", "--round-trip-ms", "nan"], "--round-trip-ms nan"),
    ],
)
def test_bad_input_is_told_by_name(recording, capsys, options, said):
    (recording / "cut.npz").write_bytes((recording / "b.npz").read_bytes()[:5000])
    assert main(["distil", "run", *(each.format(recording) for each in options)]) == 2
    assert said in capsys.readouterr().err


def test_the_last_block_takes_what_is_left():
    assert [slots_of_block(1000, 300, number) for number in range(4)] == [
        (0, 300),
        (300, 600),
        (600, 1000),
        (1000, 1000),
    ]
    assert block_count(10, 300) == 1


@pytest.fixture
def link(tmp_path, capsys) -> Path:
    """Folders of both ends of a link."""
    secret = tmp_path / "secret"
    assert main(["distil", "preshare", "--out", str(secret)]) == 0
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    for end in ("alice", "bob"):
        folder = ["--data-dir", str(tmp_path / end), "--link", "lab", "--end", end]
        assert main(["distil", "init", *folder, "--preshared", str(secret)]) == 0
    assert main(["distil", "preshare", "--out", str(secret)]) == 2  # never over another
    return tmp_path


@contextlib.contextmanager
def serving(link: Path, recording: Path, *options: str):
    """Alice in a process of her own; yields where she listens."""
    command = ["distil", "serve", "--data-dir", str(link / "alice"), "--alice", str(recording / "a.npz")]
    process = subprocess.Popen(
        [*OPENQCI, *command, "--listen", "127.0.0.1:0", *options], stderr=subprocess.PIPE, text=True
    )
    try:
        first = process.stderr.readline()
        yield re.fullmatch(r"listening on (\S+)\n", first)[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 130
    assert not (link / "alice" / "store.sqlite-wal").exists()  # closed in order


def connect(link: Path, recording: Path, to: str) -> list[str]:
    return [
        "distil",
        "connect",
        "--data-dir",
        str(link / "bob"),
        "--bob",
        str(recording / "b.npz"),
        "--to",
        to,
    ]


def take(link: Path, end: str) -> list[str]:
    return ["distil", "take", "--data-dir", str(link / end)]


def taken(link: Path, block: int) -> tuple[bytes, bytes]:
    keys = []
    for end in ("alice", "bob"):
        out = link / f"{end}-{block}"
        assert (
            main(["distil", "take", "--data-dir", str(link / end), "--block", str(block), "--out", str(out)])
            == 0
        )
        keys.append(out.read_bytes())
    return keys[0], keys[1]


def test_two_processes_distil_over_tcp(link, recording, capsys):
    with serving(link, recording) as where:
        assert main(connect(link, recording, where)) == 0
        assert main(connect(link, recording, where)) == 0
    for block in (1, 2):
        at_alice, at_bob = taken(link, block)
        assert at_alice == at_bob and len(at_alice) > 5_000
    capsys.readouterr()
    assert main(take(link, "bob")) == 0
    assert capsys.readouterr().out == ""
    assert (
        main(["distil", "take", "--data-dir", str(link / "bob"), "--block", "1", "--out", str(link / "x")])
        == 1
    )


def test_kill_9_at_any_moment_leaves_both_ends_in_step(link, recording):
    # Bob dies at six moments of a session; then one whole session, and every block left is equal.
    command = [*OPENQCI, *connect(link, recording, "{}"), "--block-slots", "20000000"]
    with serving(link, recording) as where:
        for number in range(6):
            process = subprocess.Popen(
                [word.format(where) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(0.8 + 0.25 * number)
            process.kill()
            process.wait()
        deadline = time.monotonic() + 120
        while main(connect(link, recording, where)) != 0:
            assert time.monotonic() < deadline
            time.sleep(1.0)
    listed = []
    for end in ("alice", "bob"):
        listed.append(subprocess.check_output([*OPENQCI, *take(link, end)], text=True))
    assert listed[0] == listed[1] and "block" in listed[0]
    for block in {int(number) for number in re.findall(r"block (\d+)", listed[0])}:
        at_alice, at_bob = taken(link, block)
        assert at_alice == at_bob


def test_other_settings_or_the_wrong_end_are_refused(link, recording, capsys):
    with serving(link, recording, "--proof", "wiesemann-2024") as where:
        assert main(connect(link, recording, where)) == 1
        assert "proof_id 'wiesemann-2024', here 'rusca-2018'" in capsys.readouterr().err
    wrong = ["distil", "connect", "--data-dir", str(link / "alice"), "--bob", str(recording / "b.npz")]
    assert main([*wrong, "--to", "127.0.0.1:1"]) == 2
    assert "is alice; expected bob" in capsys.readouterr().err


def test_an_address_is_host_and_port(link, recording, capsys):
    for bad in ("7700", "host:", "host:99999", "host:x"):
        with pytest.raises(SystemExit):
            main(connect(link, recording, bad))
        assert "expected HOST:PORT" in capsys.readouterr().err
