"""A data directory: made once, opened by one, refused in one clear line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openqci.core.errors import ConfigurationError
from openqci.services import data_directory
from openqci.services.data_directory import DataDirectory


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The path of a directory that was made for the scenario ``metro`` and closed."""
    DataDirectory.open_or_create(tmp_path / "net", "metro", "digest").close()
    return tmp_path / "net"


def refusal(path: Path, scenario: str = "metro", digest: str = "digest") -> str:
    """Return the one line with which opening is refused."""
    with pytest.raises(ConfigurationError) as refused:
        DataDirectory.open_or_create(path, scenario, digest)
    text = str(refused.value)
    assert "\n" not in text and text.startswith(str(path))
    return text


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_directory_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "net"
    directory = DataDirectory.open_or_create(path, "metro", "digest")
    assert mode(path) == 0o700
    assert {entry.name: mode(entry) for entry in path.iterdir()} == {
        "kek": 0o600,
        "lock": 0o600,
        "openqci.json": 0o600,
    }
    assert len(directory.kek()) == 32 and directory.scenario == "metro"
    directory.close()


def test_an_empty_directory_of_wider_mode_is_narrowed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    DataDirectory.open_or_create(tmp_path, "metro", "digest").close()
    assert mode(tmp_path) == 0o700


def test_a_second_start_finds_the_same_key(made: Path) -> None:
    kek = DataDirectory.open_existing(made).kek()
    again = DataDirectory.open_or_create(made, "metro", "digest")
    assert again.kek() == kek
    again.close()


def test_no_two_directories_have_one_key(tmp_path: Path) -> None:
    keks = set()
    for name in ("a", "b"):
        directory = DataDirectory.open_or_create(tmp_path / name, "metro", "digest")
        keks.add(directory.kek())
        directory.close()
    assert len(keks) == 2


def test_the_description_can_be_read_by_people(made: Path) -> None:
    described = json.loads((made / "openqci.json").read_text())
    assert described.keys() == {"format_version", "scenario", "scenario_digest", "made_at_s"}


# Who may open it


def test_a_second_process_is_refused_and_told_the_first(made: Path) -> None:
    directory = DataDirectory.open_or_create(made, "metro", "digest")
    assert f"in use by process {os.getpid()};" in refusal(made)
    assert DataDirectory.open_existing(made).scenario == "metro"
    directory.close()
    directory.close()
    DataDirectory.open_or_create(made, "metro", "digest").close()


HOLD = """
import sys, time
from pathlib import Path
from openqci.services.data_directory import DataDirectory
directory = DataDirectory.open_or_create(Path(sys.argv[1]), "metro", "digest")
print("held", flush=True)
time.sleep(60)
"""


def test_the_lock_goes_with_a_killed_process(made: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, made], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        assert f"in use by process {holder.pid};" in refusal(made)
        holder.send_signal(signal.SIGKILL)
    DataDirectory.open_or_create(made, "metro", "digest").close()


def test_a_refused_opening_holds_no_lock(made: Path) -> None:
    refusal(made, scenario="eu27")
    DataDirectory.open_or_create(made, "metro", "digest").close()


# What is refused


def test_another_scenario_is_refused(made: Path) -> None:
    assert "belongs to scenario 'metro', not 'eu27'; choose another --data-dir" in refusal(made, "eu27")


def test_another_version_of_the_scenario_is_refused(made: Path) -> None:
    assert "made for another version of scenario 'metro'" in refusal(made, digest="other")


def test_another_format_version_is_refused(made: Path) -> None:
    file = made / "openqci.json"
    file.write_text(file.read_text().replace('"format_version": 1', '"format_version": 7'))
    assert "format_version: is 7, this program expects 1" in refusal(made)
    with pytest.raises(ConfigurationError, match="is 7, this program expects 1"):
        DataDirectory.open_existing(made)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format_version": 1}', "null", "\x00"])
def test_a_damaged_description_is_refused(made: Path, text: str) -> None:
    (made / "openqci.json").write_text(text)
    assert "is damaged" in refusal(made)


def test_a_missing_key_is_never_made_anew(made: Path) -> None:
    (made / "kek").unlink()
    assert "kek: cannot be read (No such file or directory)" in refusal(made)
    assert not (made / "kek").exists()
    with pytest.raises(ConfigurationError, match="nothing in the store opens without it"):
        DataDirectory.open_existing(made).kek()


def test_a_store_without_description_is_not_given_a_new_key(made: Path) -> None:
    (made / "store.sqlite").write_bytes(b"")
    kek = (made / "kek").read_bytes()
    (made / "openqci.json").unlink()
    assert "holds 'store.sqlite' but no openqci.json" in refusal(made)
    assert (made / "kek").read_bytes() == kek


def test_a_damaged_key_is_refused(made: Path) -> None:
    (made / "kek").write_bytes(bytes(31))
    assert "has 31 bytes, expected 32" in refusal(made)


def test_a_key_that_others_can_read_is_refused(made: Path) -> None:
    (made / "kek").chmod(0o640)
    assert "can be read by others (mode 640): chmod 600" in refusal(made)


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    tmp_path.chmod(0o755)
    assert "holds 'thesis.tex'" in refusal(tmp_path)
    assert mode(tmp_path) == 0o755 and [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_data_directory(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert "is no directory" in refusal(file)
    assert "Not a directory" in refusal(file / "below")


def test_what_the_system_refuses_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert "cannot be used as a data directory (Permission denied); choose another" in refusal(tmp_path / "a")


def test_opening_beside_needs_a_directory_that_is_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigurationError, match="is no data directory; make one with `openqci up"):
            DataDirectory.open_existing(path)
    assert list(tmp_path.iterdir()) == []


# Cut off while it is made


@pytest.mark.parametrize("steps", range(5))
def test_a_start_that_was_cut_off_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    left = iter(range(steps))
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(data_directory.os, "fsync", fsync)
        if steps < 4:
            with pytest.raises(KeyboardInterrupt):
                DataDirectory.open_or_create(tmp_path / "net", "metro", "digest")
        else:
            DataDirectory.open_or_create(tmp_path / "net", "metro", "digest").close()
    again = DataDirectory.open_or_create(tmp_path / "net", "metro", "digest")
    assert len(again.kek()) == 32
    again.close()
