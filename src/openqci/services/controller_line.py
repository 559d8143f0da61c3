"""A node's line to the controller of its domain: reports go there, configurations come back.

That the controller cannot be reached is an alarm and nothing more: the node goes on by what it has (I8).
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec

from openqci.control.configuration import DOCUMENT_BYTES_MAX
from openqci.control.controller import LinkReport, NodeReport, PairReport
from openqci.core.errors import OpenQCIError, PeerMisbehaved
from openqci.core.identifiers import KmeId
from openqci.services.domain import DomainDesk

log = logging.getLogger(__name__)

REPORT_PATH = "/domain/v1/report"
REPORT_EVERY_S = 1.0
RETRY_S_MAX = 10.0
ANSWER_S_MAX = 10.0


class ControllerLine:
    """Reports once a second, until cancelled. ``trouble`` hears why that does not work, or None."""

    def __init__(
        self,
        kme: KmeId,
        url: str,
        tls: Callable[[], ssl.SSLContext],
        desk: DomainDesk,
        status: Callable[[], Awaitable[dict[str, Any]]],
        kem_key: Callable[[], tuple[str, bytes]],
        trouble: Callable[[str | None], None],
    ) -> None:
        self._kme, self._url, self._tls, self._desk = kme, url.rstrip("/") + REPORT_PATH, tls, desk
        self._status, self._kem_key, self._trouble = status, kem_key, trouble

    async def run(self) -> None:
        """Report, and take what comes back."""
        wait_s = REPORT_EVERY_S
        while True:
            try:
                async with self._session() as session:
                    while True:
                        await self._exchange(session)
                        self._trouble(None)
                        wait_s = REPORT_EVERY_S
                        await asyncio.sleep(REPORT_EVERY_S)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self._trouble(f"cannot be reached ({error or type(error).__name__})")
            except OpenQCIError as error:
                self._trouble(str(error))
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_S_MAX)

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=self._tls(), limit=1)
        return aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=ANSWER_S_MAX, connect=5.0)
        )

    async def _exchange(self, session: aiohttp.ClientSession) -> None:
        current = self._desk.current
        report = report_of(
            self._kme, await self._status(), current.version if current is not None else 0, self._kem_key()
        )
        async with session.post(self._url, data=msgspec.json.encode(report)) as answer:
            if answer.status == 204:
                return
            if answer.status != 200:
                raise PeerMisbehaved(f"refuses ({answer.status}): {(await answer.text())[:200]}")
            text = await answer.content.read(DOCUMENT_BYTES_MAX + 1)
            while len(text) <= DOCUMENT_BYTES_MAX and (more := await answer.content.read(DOCUMENT_BYTES_MAX)):
                text += more
        await self._desk.take(text)


def report_of(kme: KmeId, status: dict[str, Any], version: int, kem_key: tuple[str, bytes]) -> NodeReport:
    """Return a node's report out of its status document."""
    return NodeReport(
        kme,
        version,
        tuple(
            LinkReport(
                link["link"],
                link["own_bytes"],
                link["peer_bytes"],
                link["deposited_bytes"],
                link["trouble"] or "",
                **(link["made"] or {}),
            )
            for link in status["links"]
        ),
        tuple(
            PairReport(pair["master"], pair["slaves"][0], pair["stock_bytes"], pair["low_bytes"])
            for pair in status["pairs"]
            if len(pair["slaves"]) == 1
        ),
        *kem_key,
        tuple(peer["kme_id"] for peer in status["peers"] if not peer["met"]),
    )
