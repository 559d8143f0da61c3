"""``docs/reference/limits.md`` says what the code says."""

import re
from pathlib import Path
from types import ModuleType

from openqci.services import accept, etsi004_server, kme_server

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "limits.md"
CHAPTERS: dict[str, tuple[ModuleType, set[str]]] = {
    "Every interface": (
        accept,
        {
            "HANDSHAKE_S_MAX",
            "HANDSHAKES_MAX",
            "HANDSHAKES_PER_ADDRESS_MAX",
            "CONNECTIONS_MAX",
            "CONNECTIONS_PER_ADDRESS_MAX",
            "TLS_SHUTDOWN_S_MAX",
        },
    ),
    "Interfaces over HTTP": (
        kme_server,
        {
            "CONNECTIONS_PER_SAE_MAX",
            "HEAD_S_MAX",
            "HEAD_BYTES_MAX",
            "REQUEST_S_MAX",
            "ANSWER_S_MAX",
            "UNREAD_BYTES_MAX",
            "KEEP_ALIVE_S",
        },
    ),
    "ETSI GS QKD 004": (etsi004_server, {"CONNECTIONS_PER_SAE_MAX", "FRAME_S_MAX", "IDLE_S_MAX"}),
}
REASONS = {accept.HANDSHAKE, accept.EVICTED, accept.CROWDED, accept.HEAD, accept.BODY, accept.ANSWER}


def test_every_limit_has_its_value_and_its_reason() -> None:
    chapters = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S))
    assert set(chapters) == set(CHAPTERS)
    reasons = set()
    for title, (module, names) in CHAPTERS.items():
        rows = re.findall(r"^\| `(\w+)` \| (\d+)(?: s| bytes)? \| (?:`(\w+)` )?\|", chapters[title], re.M)
        assert {name: float(value) for name, value, _ in rows} == {
            name: float(getattr(module, name)) for name in names
        }
        reasons |= {reason for *_, reason in rows}
    assert reasons - {""} == REASONS
