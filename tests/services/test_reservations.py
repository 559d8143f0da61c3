"""A node whose link brings less than its pairs reserve says so, with how much it is."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from openqci.core.identifiers import KmeId, LinkId
from openqci.core.keys import SecretBytes
from openqci.keystore import deposits
from openqci.keystore.memory import MemoryKeyStore
from openqci.keystore.ports import KmeView
from openqci.keystore.supply import SourceReport
from openqci.services.kme_config_file import checked_config
from openqci.services.kme_node import KmeNode
from openqci.services.peer_line import OwnStore

A, B = KmeId("kme-a"), KmeId("kme-b")
LINK = LinkId("ab.e")
FILES = {"certificate": "c", "key": "k", "authority": "a"}


class Silent:
    """Nobody is at the other end."""

    async def request(self, path: str, body: bytes) -> bytes:
        raise ConnectionError

    async def close(self) -> None:
        """Nothing to close."""


def node_with(reserved_bps: int) -> tuple[KmeNode, MemoryKeyStore]:
    document: dict[str, Any] = {
        "version": 1,
        "node": {"kme_id": A, "state_dir": "s"},
        "tls": FILES,
        "listen": {"sae": "h:1", "peer": "h:2"},
        "sae": [{"id": "app-a"}],
        "peer": [{"kme_id": B, "url": "https://h", "saes": ["app-b"]}],
        "link": [
            {
                "id": "ab",
                "peer": B,
                "leads": True,
                "etsi014": {"url": "https://m", "peer_sae_id": "x", **FILES},
            }
        ],
        "pair": [{"master": "app-a", "slaves": ["app-b"], "reserved_bps": reserved_bps}],
    }
    store = MemoryKeyStore()
    loaded = checked_config(Path("kme.toml"), document)
    node = KmeNode(loaded, OwnStore("s", 1), store, {}, lambda endpoint: Silent())
    return node, store


def brought(store: MemoryKeyStore, length_bytes: int, spent: bool) -> None:
    """Bring key to the link; ``spent`` tells whether it is used up at once."""

    def work(view: KmeView) -> None:
        report = SourceReport("BB84", "stated", 1e-9, False)
        key = SecretBytes(bytes(length_bytes + 32))
        deposits._keep(view, LINK, A, key, report)
        if spent:
            view.take_next(deposits.link_key_stream(LINK, A), length_bytes)[1].wipe()

    store.submit(lambda tx: work(KmeView(tx, A))).result()


def test_the_alarm_comes_when_the_link_is_too_slow_and_goes_when_it_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node, store = node_with(16_000)
    monkeypatch.setattr(node, "epochs", lambda: {B: "e"})
    said: list[tuple[str, str, str | None]] = []
    node.trouble = lambda code, subject, reason: said.append((code, subject, reason))

    async def look_for(seconds: int, bytes_a_look: int, first_s: int, spent: bool = True) -> None:
        for now_s in range(first_s, first_s + seconds, 5):
            brought(store, bytes_a_look, spent)
            await node._look_at_reservations(float(now_s))

    asyncio.run(look_for(60, 5_000, 0))  # 8,000 bit/s
    assert said[0] == ("over-committed", "ab", None), "too early to know"
    reserved = 16_000 * 1104 / 1024
    text = f"{reserved:.0f} bit/s are reserved, {reserved - 8_000:.0f} more than what this link brings"
    code, subject, reason = said[-1]
    assert (code, subject) == ("over-committed", "ab") and reason is not None and reason.startswith(text)
    asyncio.run(look_for(10, 200_000, 60, spent=False))
    assert said[-1] == ("over-committed", "ab", None)


def test_a_link_that_brings_enough_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    node, store = node_with(4_000)
    monkeypatch.setattr(node, "epochs", lambda: {B: "e"})
    said: list[str | None] = []
    node.trouble = lambda code, subject, reason: said.append(reason)

    async def look() -> None:
        for now_s in range(0, 60, 5):
            brought(store, 5_000, True)
            await node._look_at_reservations(float(now_s))

    asyncio.run(look())
    assert set(said) == {None}
