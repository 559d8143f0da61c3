"""The smallest true relay network: a chain of sites over one store in memory, with all truth known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from random import Random
from typing import TypeVar

from openqci.core.identifiers import LinkId, SiteId, StreamId, kme_of_site, link_stream
from openqci.core.keys import SecretBytes
from openqci.keystore.memory import MemoryKeyStore, MemoryTransaction
from openqci.keystore.ports import KmeView
from openqci.relay import (
    RelayArrival,
    RelayOrder,
    RelayRefused,
    begin,
    forward,
    terminate,
)
from openqci.relay.messages import decode_frame

KEY_BYTES = 64
Result = TypeVar("Result")


class Crash(Exception):
    """A node dies before its transaction is durable."""


def order(
    route: Sequence[str],
    links: Sequence[str],
    *,
    number: int = 1,
    key_bytes: int = KEY_BYTES,
    purpose: bytes = b"",
    carried: bool = False,
) -> RelayOrder:
    return RelayOrder(
        relay_id=f"{number:032x}",
        route=tuple(route),
        links=tuple(links),
        key_bytes=key_bytes,
        purpose=purpose,
        carried=carried,
    )


class Origin:
    """The origin of one relay: where it took its payload, and the payload as it holds it."""

    def __init__(self, relay: RelayOrder) -> None:
        self.order, self.offset_bytes = relay, -1
        self.payload = SecretBytes(b"")

    def begin(self, view: KmeView) -> bytes:
        wire, self.payload = begin(view, self.order)
        self.offset_bytes = decode_frame(wire).offset_bytes
        return wire


@dataclass
class Net:
    """Sites, links and one store; ``truth`` remembers every byte that was ever distilled."""

    links: dict[str, tuple[str, str]]
    store: MemoryKeyStore = field(default_factory=MemoryKeyStore)
    truth: dict[StreamId, bytearray] = field(default_factory=dict)
    random: Random = field(default_factory=lambda: Random(1))

    def distil(self, link: str, initiator: str, length_bytes: int) -> None:
        """Put the same fresh bytes at both ends of a link, in one direction."""
        fresh = self.random.randbytes(length_bytes)
        stream = link_stream(LinkId(link), SiteId(initiator))
        self.truth.setdefault(stream, bytearray()).extend(fresh)
        for site in self.links[link]:
            self.at(site, partial(_append, stream=stream, fresh=fresh))

    def fill(self, length_bytes: int = 2048) -> None:
        for link, ends in self.links.items():
            for end in ends:
                self.distil(link, end, length_bytes)

    def at(self, site: str, step: Callable[[KmeView], Result], *, crash: bool = False) -> Result:
        """Do one node's step in a transaction of its own; a crash undoes it and loses its answer."""

        def work(transaction: MemoryTransaction) -> Result:
            answer = step(KmeView(transaction, kme_of_site(SiteId(site))))
            if crash:
                raise Crash
            return answer

        return self.store.submit(work).result()

    def begin(self, origin: Origin) -> bytes:
        return self.at(origin.order.route[0], origin.begin)

    def forward(self, site: str, frame: bytes) -> bytes | RelayRefused:
        return self.at(site, partial(forward, data=frame))

    def terminate(self, site: str, frame: bytes) -> RelayArrival | RelayRefused:
        return self.at(site, partial(terminate, data=frame))

    def arrive(self, site: str, frame: bytes) -> RelayArrival:
        """Take a frame off at its destination, where it is the last of a sound relay."""
        answer = self.terminate(site, frame)
        assert isinstance(answer, RelayArrival), answer
        return answer

    def run(self, relay: RelayOrder) -> tuple[Origin, list[bytes], RelayArrival]:
        """Carry a relay to its destination; return the origin, all frames and the arrival."""
        origin = Origin(relay)
        frames = [self.begin(origin)]
        for site in relay.route[1:-1]:
            answer = self.forward(site, frames[-1])
            assert isinstance(answer, bytes), answer
            frames.append(answer)
        return origin, frames, self.arrive(relay.route[-1], frames[-1])

    def stock(self, site: str, link: str, initiator: str) -> int:
        stream = link_stream(LinkId(link), SiteId(initiator))
        return self.at(site, lambda view: view.stock_bytes(stream))

    def stocks(self) -> dict[tuple[str, str, str], int]:
        """Return every stock: (site, link, initiator) -> bytes."""
        return {
            (site, link, initiator): self.stock(site, link, initiator)
            for link, ends in self.links.items()
            for site in ends
            for initiator in ends
        }


def chain(
    hops: int, *, stock_bytes: int = 2048, store: MemoryKeyStore | None = None
) -> tuple[Net, list[str], list[str]]:
    """Return a network of n + 1 sites in a row, its sites and its links."""
    sites = [f"site{i}" for i in range(hops + 1)]
    links = {f"{a}--{b}": (a, b) for a, b in pairwise(sites)}
    net = Net(links, store or MemoryKeyStore())
    if stock_bytes:
        net.fill(stock_bytes)
    return net, sites, list(links)


def revealed(key: SecretBytes) -> bytes:
    return bytes(key.reveal())


def _append(view: KmeView, stream: StreamId, fresh: bytes) -> None:
    view.append(stream, SecretBytes(fresh))
