"""The audit log: whatever is done to it shows, whatever happens to the process it goes on."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.cli.main import main
from openqci.core.errors import ConfigurationError
from openqci.services import audit
from openqci.services.audit import AuditEvent, AuditLog, entries, verify


def written(folder: Path, lines: int = 6) -> list[Path]:
    log = AuditLog(folder)
    for number in range(lines):
        log.record(
            AuditEvent.KEYS_DELIVERED, f"app-{number}", "master", key_ids=[f"id-{number}"], size_bits=256
        )
    log.close()
    return sorted(folder.glob("audit-*.jsonl"))


def test_a_log_is_whole_and_says_what_happened(tmp_path: Path) -> None:
    written(tmp_path)
    verdict = verify(tmp_path)
    assert (verdict.lines, verdict.fault, verdict.head.number) == (6, "", 6)
    third = list(entries(tmp_path))[2]
    assert (third.number, third.actor, third.facts["key_ids"]) == (3, "app-2", ["id-2"])


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    written(tmp_path)
    written(tmp_path)
    assert verify(tmp_path).lines == 12


@given(data=st.data())
def test_any_change_of_any_byte_shows(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    (file,) = written(tmp_path_factory.mktemp("audit"))
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 2))
    content[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    assert verify(file.parent).fault


@pytest.mark.parametrize("lines", [[0, 2, 3], [0, 1, 1, 2], [0, 2, 1, 3], [1, 2, 3], [3, 2, 1, 0]])
def test_missing_doubled_and_moved_lines_show(tmp_path: Path, lines: list[int]) -> None:
    (file,) = written(tmp_path, 4)
    rows = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(rows[number] for number in lines))
    assert "does not follow" in verify(tmp_path).fault


def test_a_forged_line_with_a_right_hash_breaks_the_next(tmp_path: Path) -> None:
    (file,) = written(tmp_path, 4)
    rows = list(entries(tmp_path))
    forged = audit.msgspec.structs.replace(rows[1], actor="mallory")
    forged = audit.msgspec.structs.replace(forged, hash=forged.digest())
    lines = file.read_bytes().splitlines(keepends=True)
    lines[1] = audit._encoder.encode(forged) + b"\n"
    file.write_bytes(b"".join(lines))
    assert "line 3: entry 3 does not follow" in verify(tmp_path).fault


def test_a_cut_end_shows_to_who_knows_a_later_head(tmp_path: Path) -> None:
    (file,) = written(tmp_path, 4)
    head = verify(tmp_path).head.hash
    rows = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(rows[:3]))
    assert verify(tmp_path).fault == ""
    assert "its end was cut off" in verify(tmp_path, head).fault


def test_a_half_written_line_is_set_aside_and_said_so(tmp_path: Path) -> None:
    (file,) = written(tmp_path, 4)
    with file.open("ab") as stream:
        stream.write(b'{"number":5,"at":"2026')
    written(tmp_path, 1)
    assert verify(tmp_path).fault == ""
    events = [entry.event for entry in entries(tmp_path)]
    assert events[4] == "line-torn" and len(events) == 6
    assert next(tmp_path.glob("*.torn")).read_bytes() == b'{"number":5,"at":"2026'


def test_while_the_disk_refuses_lines_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    troubles: list[str | None] = []
    healed = threading.Event()
    sync = os.fsync

    def refuse(descriptor: int) -> None:
        if not healed.is_set():
            raise OSError(28, "No space left on device")
        sync(descriptor)

    log = AuditLog(tmp_path, troubles.append)
    monkeypatch.setattr(audit, "RETRY_S", 0.01)
    monkeypatch.setattr(os, "fsync", refuse)
    log.record(AuditEvent.STARTED)
    while not troubles:
        threading.Event().wait(0.01)
    log.record(AuditEvent.STOPPED)
    healed.set()
    log.flush().result(10)
    log.close()
    assert troubles == ["cannot be written (No space left on device)", None]
    assert [entry.event for entry in entries(tmp_path)] == ["node-started", "node-stopped"]
    assert verify(tmp_path).fault == ""


def test_files_are_rotated_and_the_chain_goes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "FILE_BYTES_MAX", 1_000)
    for _ in range(4):
        written(tmp_path)
    verdict = verify(tmp_path)
    assert verdict.files > 2 and verdict.lines == 24 and not verdict.fault
    sorted(tmp_path.glob("audit-*.jsonl"))[1].unlink()
    assert "does not follow" in verify(tmp_path).fault


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = written(tmp_path)
    assert main(["audit", "verify", str(tmp_path)]) == 0
    assert "whole: 6 entries" in capsys.readouterr().out
    assert main(["audit", "show", str(tmp_path), "--key-id", "ID-3"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("4 ") and "keys-delivered master app-3" in line
    assert main(["audit", "show", str(tmp_path), "--actor", "app-1", "--json"]) == 0
    assert '"actor":"app-1"' in capsys.readouterr().out
    file.write_bytes(file.read_bytes().replace(b"app-3", b"app-9"))
    assert main(["audit", "verify", str(tmp_path), "--json"]) == 1
    assert "entry 4 was changed" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="holds no audit log"):
        verify(tmp_path / "none")
