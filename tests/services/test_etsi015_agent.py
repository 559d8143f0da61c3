"""What an agent of ETSI GS QKD 015 makes of its node's links from second to second, and who hears of it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.requests import Request

from openqci.control.controller import RATE_WINDOW_S
from openqci.control.etsi015.notices import Notice
from openqci.control.etsi015.tree import Edit
from openqci.core.errors import OpenQCIError
from openqci.services.etsi015_agent import TROUBLE_S, LinkWatch
from openqci.services.etsi015_app import Answers
from openqci.services.etsi015_stream import WAITING_MAX, NoticeLog
from openqci.services.pki import CertificateAuthority
from openqci.services.roles import Role


def test_a_module_that_has_no_key_for_a_moment_is_no_trouble() -> None:
    watch, brought = LinkWatch(0.0), 0
    for second in range(60):
        brought += 100 * (second % 4 == 0)
        watch.note(float(second), brought, low=True, trouble="has no key now")
        assert watch.trouble == ""
    for second in range(60, 70):
        watch.note(float(second), brought, low=True, trouble="has no key now")
        assert (watch.trouble != "") == (second - 56 >= TROUBLE_S)
    watch.note(70.0, brought + 1, low=True, trouble="has no key now")
    assert watch.trouble == ""


@pytest.mark.parametrize("low", [True, False])
def test_a_link_that_rests_keeps_its_rate_and_one_that_fails_does_not(low: bool) -> None:
    watch = LinkWatch(8.0)
    for second in range(int(RATE_WINDOW_S) + 1):
        watch.note(float(second), 1_000 * second, low=True, trouble="")
    assert watch.bps == pytest.approx(8_000.0)
    for second in range(int(RATE_WINDOW_S) + 1, int(3 * RATE_WINDOW_S)):
        watch.note(float(second), int(1_000 * RATE_WINDOW_S), low=low, trouble="")
    assert watch.bps == (0.0 if low else pytest.approx(8_000.0))


def notice(number: int) -> Notice:
    return Notice("event", {"number": number})


def numbers(lines: list[bytes]) -> list[int]:
    """Return the notices among the lines of a stream."""
    sent = [json.loads(line.removeprefix(b"data: ")) for line in lines if line.startswith(b"data: ")]
    return [each["ietf-restconf:notification"]["etsi-qkd-sdn-node:event"]["number"] for each in sent]


def test_each_subscriber_hears_each_notice_once_and_the_past_if_it_asks() -> None:
    async def run() -> None:
        log = NoticeLog()
        log.add(map(notice, range(3)))
        late, all_of_it = log.stream(None, None), log.stream(0.0, None)
        heard: tuple[list[bytes], list[bytes]] = ([await anext(late)], [await anext(all_of_it)])
        log.add(map(notice, range(3, 6)))
        log.close()
        for stream, lines in zip((late, all_of_it), heard, strict=True):
            lines += [line async for line in stream]
        assert numbers(heard[0]) == [3, 4, 5] and numbers(heard[1]) == [0, 1, 2, 3, 4, 5]

    asyncio.run(run())


def test_who_does_not_read_is_parted_from_and_the_others_are_not() -> None:
    async def run() -> None:
        log = NoticeLog()
        sleeper = log.stream(None, None)
        await anext(sleeper)
        log.add(map(notice, range(WAITING_MAX + 5)))
        assert numbers([line async for line in sleeper]) == list(range(WAITING_MAX))

    asyncio.run(run())


def test_a_stream_ends_at_its_stop_time() -> None:
    async def run() -> None:
        log = NoticeLog()
        log.add([notice(1)])
        assert numbers([line async for line in log.stream(0.0, log.created_s - 1.0)]) == []

    asyncio.run(run())


class FailingAgent:
    """An agent whose node has a store that answers nothing."""

    notices = NoticeLog()

    async def data(self, base: str) -> dict[str, Any]:
        raise OpenQCIError("the disk is full")

    async def apply(self, edits: list[Edit]) -> None:
        raise AssertionError("nothing is applied to what cannot be read")


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_node_that_cannot_answer_says_so_in_the_words_of_restconf(tmp_path: Path, method: str) -> None:
    authority = CertificateAuthority.open_or_create(tmp_path)
    issued = authority.issue_holder(Role.CONTROLLER, "ana")
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem).public_bytes(Encoding.DER)
    request = Request(
        {
            "type": "http",
            "method": method,
            "path": "/restconf/data",
            "raw_path": b"/restconf/data",
            "query_string": b"",
            "headers": [(b"host", b"kme")],
            "scheme": "https",
            "state": {"certificate": certificate},
        },
        receive=whole_body,
    )
    answers = Answers(FailingAgent(), {}, False, lambda actor, role, path: None)
    answer = asyncio.run(answers.guarded(answers.resource)(request))
    assert answer.status_code == 503
    (error,) = json.loads(answer.body)["ietf-restconf:errors"]["error"]
    assert error["error-tag"] == "operation-failed" and "disk" not in error["error-message"]


async def whole_body() -> dict[str, Any]:
    return {"type": "http.request", "body": b"{}", "more_body": False}
