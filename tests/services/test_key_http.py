"""The client of sources: answers in any pieces, what is no answer, and nothing left in its buffers."""

import asyncio
import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import KmeId, SaeId
from openqci.services.key_http import HEAD_BYTES_MAX, ROOM_BYTES, Answer, AnswerReader, KeyHTTPClient
from openqci.services.pki import CertificateAuthority, write_credentials
from openqci.services.tls import OP_CLEANSE_PLAINTEXT, TlsFiles

BODY_BYTES_MAX = 200_000


def read(text: bytes, cuts: list[int], *, ends: bool = False) -> Answer | None:
    """Give a reader a text in pieces."""
    reader = AnswerReader(BODY_BYTES_MAX)
    at, answer = 0, None
    for end in [*sorted(cut % (len(text) + 1) for cut in cuts), len(text)]:
        while at < end and answer is None:
            room = reader.room()
            count = min(len(room), end - at)
            room[:count] = text[at : at + count]
            at += count
            answer = reader.filled(count)
    if ends and answer is None:
        answer = reader.ended()
    assert answer is None or bytes(reader._buffer).strip(b"\0") == b"", "nothing is left in the buffer"
    return answer


def chunked(body: bytes, lengths: list[int]) -> bytes:
    text, at = b"", 0
    while at < len(body):
        length = lengths[at % len(lengths)]
        part = body[at : at + length]
        text += b"%x;name=value\r\n%b\r\n" % (len(part), part)
        at += length
    return text + b"0\r\nTrailer: x\r\n\r\n"


@given(
    st.binary(max_size=400),
    st.lists(st.integers(0, 2000), max_size=8),
    st.lists(st.integers(1, 90), min_size=1, max_size=5),
)
def test_every_way_to_cut_and_to_frame_gives_the_same_body(
    body: bytes, cuts: list[int], lengths: list[int]
) -> None:
    head = b"HTTP/1.1 200 OK\r\nX-One: 1\r\nx-one:  2 \r\n"
    measured = read(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body), cuts)
    in_chunks = read(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, lengths), cuts)
    to_the_end = read(head + b"\r\n" + body, cuts, ends=True)
    for answer in (measured, in_chunks, to_the_end):
        assert answer is not None
        assert (answer.status, answer.headers["x-one"], answer.body) == (200, "1, 2", body)


def test_a_large_answer_leaves_its_smaller_buffers_wiped() -> None:
    reader, body = AnswerReader(BODY_BYTES_MAX), b"k" * (2 * ROOM_BYTES)
    text = b"HTTP/1.1 200\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    earlier, answer, at = [], None, 0
    while answer is None:
        room = reader.room()
        earlier.append(reader._buffer)
        count = min(len(room), len(text) - at)
        room[:count] = text[at : at + count]
        at += count
        answer = reader.filled(count)
    assert answer.body == body
    assert len({id(buffer) for buffer in earlier}) > 1
    assert all(not any(buffer) for buffer in earlier)


def test_an_interim_answer_is_passed_over_and_some_have_no_body() -> None:
    text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 Nothing\r\n\r\n"
    for cut in range(len(text)):
        answer = read(text, [cut])
        assert answer is not None and (answer.status, bytes(answer.body)) == (204, b"")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"SSH-2.0-x\r\n\r\n", "does not speak HTTP/1.1"),
        (b"HTTP/2 200\r\n\r\n", "does not speak HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "a header of an answer is none"),
        (b"HTTP/1.1 200 OK\r\nSpace : x\r\n\r\n", "a header of an answer is none"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "the length of an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n", "the length of an answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "its length in two ways"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", "in two ways"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "a chunk of an answer has no length",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
            "a chunk of an answer",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2000, "a line between chunks"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (2 * HEAD_BYTES_MAX), "the head of an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200001\r\n\r\n" + b"k" * 200_001, "more than 200000 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"k" * 200_001, "more than 200000 bytes"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1;%b\r\nk\r\n" % (b"x" * 900) * 500,
            "more than 200000 bytes",
        ),
    ],
)
def test_what_is_no_answer_is_refused_without_its_words(text: bytes, says: str) -> None:
    with pytest.raises(PeerMisbehaved, match=says) as refused:
        read(text, [])
    assert "kkk" not in str(refused.value)


class Server:
    """Answers each connection with what it is told, in turn."""

    def __init__(self, folder: Path, *answers: bytes) -> None:
        authority = CertificateAuthority.open_or_create(folder / "pki")
        write_credentials(folder / "s", authority.issue_kme(KmeId("module"), ["localhost"]), authority)
        write_credentials(folder / "c", authority.issue_sae(SaeId("kme-a")), authority)
        self.files = {
            name: TlsFiles(folder / name / "cert.pem", folder / name / "key.pem", folder / "pki" / "ca.pem")
            for name in "sc"
        }
        self.answers, self.asked, self.connections = list(answers), [], 0

    async def __aenter__(self) -> KeyHTTPClient:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, ssl=self.files["s"].server_context()
        )
        port = self._server.sockets[0].getsockname()[1]
        url = f"https://localhost:{port}"
        self.client = KeyHTTPClient(
            url, self.files["c"].client_context, timeout_s=1.0, body_bytes_max=BODY_BYTES_MAX
        )
        return self.client

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while head := await reader.readuntil(b"\r\n\r\n"):
            self.asked.append(head)
            answer = self.answers.pop(0)
            writer.write(answer)
            if not answer or b"close" in answer:
                writer.close()
                return


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_one_connection_serves_many_requests_and_a_closed_one_is_opened_anew(tmp_path: Path) -> None:
    server = Server(tmp_path, OK, OK, OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), OK)

    async def run() -> None:
        async with server as client:
            answers = await asyncio.gather(*(client.request("GET", f"/{n}") for n in range(4)))
            assert [bytes(answer.body) for answer in answers] == [b"ok"] * 4

    asyncio.run(run())
    assert server.connections == 2
    assert server.asked[0].startswith(b"GET /0 HTTP/1.1\r\nHost: localhost:")


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"", ConnectionResetError), (OK[:-1], TimeoutError), (b"SSH-2.0-x\r\n\r\n", PeerMisbehaved)],
)
def test_a_request_that_fails_is_not_sent_again(
    tmp_path: Path, answer: bytes, error: type[Exception]
) -> None:
    server = Server(tmp_path, answer, OK)

    async def run() -> None:
        async with server as client:
            with pytest.raises(error):
                await client.request("POST", "/1", b"{}")
            assert len(server.asked) == 1
            assert (await client.request("GET", "/2")).status == 200

    asyncio.run(run())
    assert server.connections == 2


def test_the_library_wipes_what_it_has_decrypted(tmp_path: Path) -> None:
    files = Server(tmp_path).files
    assert ssl.OPENSSL_VERSION_INFO >= (3,), "the option is one of OpenSSL 3.0"
    for context in (files["s"].server_context(), files["c"].client_context()):
        assert context.options & OP_CLEANSE_PLAINTEXT
