"""How a node logs: text for people, or one JSON object a line for what collects logs.

Code says what a line is about by ``extra=about(peer=...)``; names are those of :data:`FIELDS`, so that a line
can be found by them for years. No line ever holds key, a request's content or a key ID: key IDs are in the
audit log (:mod:`openqci.services.audit`).
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Literal

from openqci.core.errors import invariant

FIELDS = ("kme", "peer", "link", "sae", "code", "subject", "interface", "address")
"""What a line may be about: this node, a peer KME, a QKD link, an application, an alarm's code and subject,
an interface, the network address of a caller."""

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO}

OTHERS_LEVEL = {"uvicorn": logging.ERROR, "asyncio": logging.ERROR}
"""Libraries that would write a line for each bad request: whoever sends them could fill the disk."""


def about(**fields: str | None) -> dict[str, Any]:
    """Return what a line is about, for its ``extra``.

    >>> about(peer="kme-b", link=None)
    {'peer': 'kme-b'}
    """
    invariant(fields.keys() <= set(FIELDS), f"a log line is about some of {', '.join(FIELDS)}")
    return {name: value for name, value in fields.items() if value is not None}


def configure(form: Literal["text", "json"], level: str, kme: str) -> None:
    """Have this process log to standard error in one form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(kme) if form == "json" else logging.Formatter(TEXT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    for name, least in OTHERS_LEVEL.items():
        logging.getLogger(name).setLevel(max(least, LEVELS[level]))
    logging.captureWarnings(True)


class JsonLines(logging.Formatter):
    """Writes a record as one JSON object: ``time``, ``level``, ``logger``, ``message``, and what it is about.

    A traceback goes into ``exception`` as one text, so that a line stays a line.
    """

    def __init__(self, kme: str) -> None:
        super().__init__()
        self._kme = kme

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, str] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "kme": self._kme,
        }
        document |= {name: str(getattr(record, name)) for name in FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0] is not None:
            document["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(document)  # in ASCII: some collectors take other characters for an end of line
