"""Where a key management entity gets link key from: one small interface over every kind of QKD module.

A *source* is one end of a QKD link as its KME sees it. The two KMEs of a link hold one end each; the one
that *leads* draws new key, which comes with the module's own names for it, and tells the other KME those
names; the other draws the same key by name. :mod:`openqci.keystore.deposits` keeps the two ends in step.
Adapters for ETSI GS QKD 014 and 004 modules are in ``openqci.services``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import msgspec

from openqci.core.keys import SecretBytes
from openqci.keystore.ports import KmeView


class SourceReport(msgspec.Struct, frozen=True):
    """What a module says, or its operator has configured, of how its key is made; part of the provenance.

    ``epsilon`` is the composable security parameter of one drawing. ``simulated`` key never enters a
    production node (invariant I7).
    """

    protocol: str
    proof: str
    epsilon: float
    simulated: bool


@dataclass(frozen=True)
class SuppliedKey:
    """Key drawn by the leading end: ``key`` is the keys of ``key_ids`` one after the other."""

    key_ids: tuple[str, ...]
    key: SecretBytes
    report: SourceReport


class KeySource(Protocol):
    """One end of a QKD link as a supply of key.

    A source never gives the same key twice, and forgets a key once it was drawn. Both verbs raise
    KeyUnavailable when there is none now (worth another try later), PeerMisbehaved for an answer that breaks
    the module's protocol, IntegrityError for a name whose key is gone for good, and OSError if the module
    cannot be reached.
    """

    async def draw(self, length_bytes_max: int) -> SuppliedKey:
        """Draw new key, as much as there is now up to ``length_bytes_max``; at the leading end."""

    async def draw_named(self, key_ids: Sequence[str], length_bytes: int) -> tuple[SecretBytes, SourceReport]:
        """Draw exactly the keys of these names, in this order, ``length_bytes`` in all; at the other end."""

    async def describe(self) -> str:
        """Ask the module how it is, and say it in words; draws no key."""

    async def close(self) -> None:
        """Close connections."""


@runtime_checkable
class JoinedSource(KeySource, Protocol):
    """A source whose two ends have to meet at the modules before either can draw.

    What the leading end has made ready there is told to the other end once; it holds no secret.
    """

    async def prepare(self) -> str | None:
        """Make ready what key is drawn from, at the leading end; return what to tell the other end, if new.

        OSError if the module cannot be reached or does not make it ready.
        """

    async def join(self, text: str) -> None:
        """Join what the leading end tells of, at the other end; the same errors as drawing."""


@runtime_checkable
class KeptSource(Protocol):
    """A source whose key waits in the KME's own store, into which its module pushes it.

    Its two ends meet first, as those of a :class:`JoinedSource`. Key is drawn inside the transaction that
    uses it, so that no crash loses it in between.
    """

    async def prepare(self) -> str | None:
        """As of a :class:`JoinedSource`; returns the same text until :meth:`draw_kept` is called after it."""

    async def join(self, text: str) -> None:
        """As of a :class:`JoinedSource`."""

    def draw_kept(self, view: KmeView, length_bytes_max: int) -> SuppliedKey:
        """Draw what waits, at the leading end; KeyUnavailable if it is too little."""

    async def expect(self, key_ids: Sequence[str], length_bytes: int) -> None:
        """Look whether the keys of these names wait, at the other end; the errors of ``draw_named``."""

    def draw_named_kept(
        self, view: KmeView, key_ids: Sequence[str], length_bytes: int
    ) -> tuple[SecretBytes, SourceReport]:
        """Draw exactly the keys of these names, at the other end, once they were expected."""

    def judged(self, accepted: bool) -> None:
        """Hear whether the other end had the key of a deposit, at the leading end."""

    async def describe(self) -> str:
        """Ask the module how it is, and say it in words; draws no key."""

    async def close(self) -> None:
        """Close connections."""


Source = KeySource | KeptSource
