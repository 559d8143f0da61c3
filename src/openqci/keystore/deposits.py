"""How the two KMEs of a QKD link come to hold the same link key at the same offsets.

The KME that leads a link draws key from its module (:mod:`openqci.keystore.supply`) and puts it aside as a
numbered *deposit*; the notice of it goes to the other KME through the outbox, which draws the same key by
name from its own module, puts it into the link's stream and says so; then the leader moves its own copy into
its stream. One deposit of a link is under way at a time, so both ends append in the same order.

The last 32 bytes of a deposit are spent at once, as the key of a one-time MAC over the notice and all other
bytes of it. So two modules that do not hold the same key are found out here (invariant I2), before any
application sees a byte; the deposit is then destroyed at both ends.

A link's key is split by initiator: ``link/<link>/<KME>`` is the stream that only this KME may begin to spend
(invariant I1). ``<link>`` carries an *epoch*, which changes when either end has a new store, so that offsets
of a lost store are never met again.
"""

from enum import StrEnum

import msgspec

from openqci.core.errors import KeyUnavailable, invariant
from openqci.core.identifiers import KmeId, LinkId, StreamId
from openqci.core.keys import SecretBytes
from openqci.crypto import ONE_TIME_MAC_KEY_BYTES, equal, one_time_mac
from openqci.keystore import outbox
from openqci.keystore.ports import KmeView
from openqci.keystore.supply import SourceReport, SuppliedKey

DEPOSIT_KIND = "deposit"
INTRODUCTION_KIND = "source-introduction"
HEARD = b"heard"
REPORT_KIND = "link-report"
KEPT_KIND = "deposit-under-way"

DEPOSIT_BYTES_MIN = 2 * ONE_TIME_MAC_KEY_BYTES
DEPOSIT_BYTES_MAX = 1 << 20
KEY_IDS_MAX = 4096
INTRODUCTION_CHARACTERS_MAX = 256


class DepositNotice(msgspec.Struct, frozen=True):
    """What the leader tells the other end. ``stream_end_bytes`` is where the deposit will lie."""

    link: str
    initiator: str
    key_ids: tuple[str, ...]
    length_bytes: int
    stream_end_bytes: int
    report: SourceReport
    tag: bytes


class Introduction(msgspec.Struct, frozen=True):
    """What the leader's source tells the other end's before key can be drawn (``JoinedSource``)."""

    link: str
    text: str


class Verdict(StrEnum):
    """What the other end says of a deposit."""

    ACCEPTED = "accepted"
    DIFFERENT = "different key"
    GONE = "key gone"
    OUT_OF_STEP = "out of step"
    REFUSED = "refused"


class ReportedRange(msgspec.Struct, frozen=True):
    """How the bytes of a stream up to ``end_bytes`` were made."""

    start_bytes: int
    end_bytes: int
    report: SourceReport


def link_key_stream(link: LinkId, initiator: KmeId) -> StreamId:
    """Return the stream of link key that only ``initiator`` may begin to spend."""
    return StreamId(f"link/{link}/{initiator}")


def deposit_lane(link: LinkId) -> str:
    """Return the lane in which a link's deposits travel."""
    return f"deposit/{link}"


def under_way(view: KmeView, link: LinkId) -> bool:
    """Tell whether a deposit of this link waits for its answer, at the leader."""
    return view.record(KEPT_KIND, link) is not None


def link_stock_bytes(view: KmeView, link: LinkId, initiator: KmeId) -> int:
    """Return how much link key ``initiator`` may still begin to spend."""
    return view.stock_bytes(link_key_stream(link, initiator))


def offer(view: KmeView, peer: KmeId, link: LinkId, initiator: KmeId, supplied: SuppliedKey) -> int:
    """Put drawn key aside and its notice into the outbox; return the usable bytes.

    The caller wipes the key.
    """
    invariant(not under_way(view, link), "one deposit of a link is under way at a time")
    length_bytes = len(supplied.key)
    invariant(DEPOSIT_BYTES_MIN < length_bytes <= DEPOSIT_BYTES_MAX, "a deposit has a sensible length")
    notice = DepositNotice(
        link,
        initiator,
        supplied.key_ids,
        length_bytes,
        stream_end(view, link_key_stream(link, initiator)),
        supplied.report,
        b"",
    )
    notice = msgspec.structs.replace(notice, tag=deposit_tag(notice, supplied.key))
    number = outbox.post(view, peer, deposit_lane(link), DEPOSIT_KIND, msgspec.msgpack.encode(notice))
    view.put_record(KEPT_KIND, link, str(number).encode())
    view.append(_aside(link, number), supplied.key)
    return length_bytes - ONE_TIME_MAC_KEY_BYTES


def introduce(view: KmeView, peer: KmeId, link: LinkId, text: str) -> None:
    """Put what the leader's source tells the other end's into the outbox, before the next deposit."""
    invariant(len(text) <= INTRODUCTION_CHARACTERS_MAX, "an introduction is short")
    body = msgspec.msgpack.encode(Introduction(link, text))
    outbox.post(view, peer, deposit_lane(link), INTRODUCTION_KIND, body)


def decode_introduction(body: bytes) -> Introduction:
    """Read an introduction; msgspec.DecodeError if it is none, ValueError if it makes no sense."""
    introduction = msgspec.msgpack.decode(body, type=Introduction)
    if len(introduction.text) > INTRODUCTION_CHARACTERS_MAX:
        raise ValueError(f"an introduction has at most {INTRODUCTION_CHARACTERS_MAX} characters")
    return introduction


def decode_notice(body: bytes) -> DepositNotice:
    """Read a notice; msgspec.DecodeError if it is none, ValueError if it makes no sense."""
    notice = msgspec.msgpack.decode(body, type=DepositNotice)
    if not DEPOSIT_BYTES_MIN < notice.length_bytes <= DEPOSIT_BYTES_MAX:
        raise ValueError(f"a deposit has {DEPOSIT_BYTES_MIN + 1} to {DEPOSIT_BYTES_MAX} bytes")
    if not 1 <= len(notice.key_ids) <= KEY_IDS_MAX:
        raise ValueError(f"a deposit has 1 to {KEY_IDS_MAX} keys")
    return notice


def accept(view: KmeView, notice: DepositNotice, key: SecretBytes, own: SourceReport) -> Verdict:
    """Put the same key, drawn from one's own module, into the link's stream. Wipes ``key``."""
    link, initiator = LinkId(notice.link), KmeId(notice.initiator)
    stream = link_key_stream(link, initiator)
    with key:
        if stream_end(view, stream) != notice.stream_end_bytes:
            return Verdict.OUT_OF_STEP
        if len(key) != notice.length_bytes or not equal(deposit_tag(notice, key), notice.tag):
            return Verdict.DIFFERENT
        _keep(view, link, initiator, key, worse(notice.report, own))
    return Verdict.ACCEPTED


def settle(view: KmeView, message: outbox.Message, answer: bytes) -> tuple[DepositNotice, Verdict]:
    """Act on the other end's verdict, at the leader: the deposit is link key now, or destroyed."""
    notice = decode_notice(message.body)
    link = LinkId(notice.link)
    verdict = Verdict(answer.decode())
    aside = _aside(link, message.number)
    if verdict is Verdict.ACCEPTED:
        with view.take(aside, 0, notice.length_bytes) as key:
            _keep(view, link, KmeId(notice.initiator), key, notice.report)
    else:
        view.destroy(aside)
    view.drop_record(KEPT_KIND, link)
    return notice, verdict


def give_up(view: KmeView, link: LinkId) -> int:
    """Destroy the deposit of a link that was under way, at the leader; return how many bytes that was."""
    number = view.record(KEPT_KIND, link)
    if number is None:
        return 0
    view.drop_record(KEPT_KIND, link)
    return view.destroy(_aside(link, int(number)))


def reports_of(
    view: KmeView, link: LinkId, initiator: KmeId, offset_bytes: int, length_bytes: int
) -> list[SourceReport]:
    """Return how the bytes of a range were made: one report for each deposit that it touches."""
    found = []
    for key, body in list(view.records(REPORT_KIND, f"{link}/{initiator}/")):
        ranged = msgspec.msgpack.decode(body, type=ReportedRange)
        if ranged.start_bytes < offset_bytes + length_bytes and ranged.end_bytes > offset_bytes:
            found.append(ranged.report)
        elif ranged.end_bytes <= offset_bytes:
            # The front of the stream has passed it: ranges are taken in order of offset.
            view.drop_record(REPORT_KIND, key)
    return found


def destroy_link(view: KmeView, link: LinkId) -> int:
    """Destroy all key of a link, and what is known of it; return how many bytes that was."""
    destroyed = give_up(view, link)
    for stream, _ in list(view.streams(f"link/{link}/")):
        destroyed += view.destroy(stream)
    for key, _ in list(view.records(REPORT_KIND, f"{link}/")):
        view.drop_record(REPORT_KIND, key)
    return destroyed


def deposit_tag(notice: DepositNotice, key: SecretBytes) -> bytes:
    """Return the one-time MAC of a deposit under its own last 32 bytes."""
    if len(key) <= ONE_TIME_MAC_KEY_BYTES:
        raise KeyUnavailable("a deposit is short", wanted_bytes=DEPOSIT_BYTES_MIN, available_bytes=len(key))
    text = msgspec.msgpack.encode(("openqci deposit v1", msgspec.structs.replace(notice, tag=b"")))
    with memoryview(key.reveal()) as clear:
        head, mac_key = clear[:-ONE_TIME_MAC_KEY_BYTES], clear[-ONE_TIME_MAC_KEY_BYTES:]
        with head, mac_key:
            return one_time_mac(mac_key, text, head)


def worse(one: SourceReport, other: SourceReport) -> SourceReport:
    """Return what can be said of key of which the two ends say different things: the worse of each."""
    if one == other:
        return one
    return SourceReport(
        one.protocol if one.protocol == other.protocol else f"{one.protocol} or {other.protocol}",
        one.proof if one.proof == other.proof else f"{one.proof} or {other.proof}",
        max(one.epsilon, other.epsilon),
        one.simulated or other.simulated,
    )


def stream_end(view: KmeView, stream: StreamId) -> int:
    """Return the offset after the last byte that the stream ever had."""
    body = view.record("link-end", stream)
    return int(body) if body else 0


def _keep(view: KmeView, link: LinkId, initiator: KmeId, key: SecretBytes, report: SourceReport) -> None:
    """Append a deposit without its MAC key to the link's stream, with how it was made."""
    stream = link_key_stream(link, initiator)
    with key.take(len(key) - ONE_TIME_MAC_KEY_BYTES) as usable:
        stored = view.append(stream, usable)
    end_bytes = stored.offset_bytes + stored.length_bytes
    view.put_record("link-end", stream, str(end_bytes).encode())
    ranged = ReportedRange(stored.offset_bytes, end_bytes, report)
    key_name = f"{link}/{initiator}/{stored.offset_bytes:016x}"
    view.put_record(REPORT_KIND, key_name, msgspec.msgpack.encode(ranged))


def _aside(link: LinkId, number: int) -> StreamId:
    return StreamId(f"deposit/{link}/{number}")
