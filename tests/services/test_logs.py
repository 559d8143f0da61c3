"""A node's log: each line is one JSON object with stable names, or one line of text."""

import json
import logging
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import OpenQCIError
from openqci.services import logs
from openqci.services.logs import FIELDS, JsonLines, about

MADE_BY_LOGGING = {"time", "level", "logger", "message", "kme"}


def record(message: str, *values: object, **fields: str) -> logging.LogRecord:
    made = logging.LogRecord("openqci.test", logging.WARNING, __file__, 1, message, values, None)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@given(st.text(), st.dictionaries(st.sampled_from(FIELDS), st.text()))
def test_any_line_is_one_json_object(text: str, fields: dict[str, str]) -> None:
    line = JsonLines("kme-a").format(record("said: %s", text, **fields))
    assert line.isascii() and len(line.splitlines()) == 1
    document = json.loads(line)
    assert document["message"] == f"said: {text}"
    assert document["time"].endswith("+00:00")
    assert set(document) == MADE_BY_LOGGING | set(fields)
    assert all(document[name] == value for name, value in fields.items())


def test_a_traceback_is_one_member() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    document = json.loads(JsonLines("kme-a").format(made))
    assert document["exception"].startswith("Traceback") and "two\nlines" in document["exception"]


def test_a_line_is_about_what_has_a_name() -> None:
    assert about(peer="kme-b", link=None) == {"peer": "kme-b"}
    with pytest.raises(OpenQCIError, match="a log line is about some of"):
        about(key="secret")


PROGRAM = """
import logging, sys, warnings
from openqci.services import logs
logs.configure(sys.argv[1], sys.argv[2], "kme-a")
log = logging.getLogger("openqci.test")
log.info("good"); log.warning("bad", extra=logs.about(peer="kme-b"))
logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
warnings.warn("old")
"""


@pytest.mark.parametrize(("level", "count"), [("error", 0), ("warning", 2), ("info", 3)])
@pytest.mark.parametrize("form", ["json", "text"])
def test_a_process_logs_as_it_was_told(form: str, level: str, count: int) -> None:
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    command = [sys.executable, "-c", PROGRAM, form, level]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert done.stdout == ""
    if form == "json":
        documents = [json.loads(line) for line in lines]
        assert len(documents) == count
        assert all(document["kme"] == "kme-a" for document in documents)
        assert [document.get("peer") for document in documents if document["message"] == "bad"] == (
            ["kme-b"] if level != "error" else []
        )
    else:
        assert sum("openqci.test" in line for line in lines) == max(0, count - 1)


def test_configuring_again_leaves_one_handler() -> None:
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    level = root.level
    try:
        logs.configure("json", "info", "kme-a")
        logs.configure("text", "error", "kme-a")
        assert len(root.handlers) == 1 and root.level == logging.ERROR
    finally:
        root.handlers[:], root.level = before, level
        logging.captureWarnings(False)
