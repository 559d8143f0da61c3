"""ETSI GS QKD 004 V2.1.1: key streams between two applications, as rules inside one store transaction.

A *stream* has a name (KSID) and is cut into chunks of a fixed length; both applications read chunks by index
and get identical bytes, each chunk once at each end. Each application opens the stream at its own KME; the
two KMEs tell each other by messages that survive any crash (:mod:`openqci.keystore.outbox`). Key is fed to
a stream in batches that both KMEs agree on (:mod:`openqci.delivery.agreement`) before either can give a chunk
of them out: so what one application reads is there for the other, and a fault at any moment leaves no chunk
that differs (invariants I1 to I3).

The KME with the lesser ID *feeds* the streams between two KMEs. It names every life of a KSID by a *run*, so
that a KSID that was closed and is opened again never meets key of its earlier life.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from openqci.core.errors import KeyUnavailable, PeerMisbehaved, invariant
from openqci.core.identifiers import KmeId, LinkId, SaeId
from openqci.core.keys import SecretBytes
from openqci.core.provenance import Provenance
from openqci.delivery import agreement
from openqci.delivery.agreement import BatchOrder, BatchWanted
from openqci.delivery.directory import SaeDirectory
from openqci.delivery.etsi004_model import (
    JSON_MIME,
    NIL,
    UINT32_MAX,
    OpenConnect,
    Opened,
    QoS,
    Status,
)
from openqci.delivery.pair_stock import (
    KEY_BYTES_MIN,
    KeyBatch,
    batch_by_key,
    destroy_batch,
    stream_batch_keys,
    stream_batches,
    take_range,
)
from openqci.keystore import outbox
from openqci.keystore.deposits import link_stock_bytes
from openqci.keystore.ports import KmeView

KIND, RUN_KIND = "stream", "stream-run"
OPEN_KIND, CLOSE_KIND, LANE = "stream-open", "stream-close", "stream"
REFUSED, HEARD = b"refused", b"heard"

CHUNK_BYTES_MIN, CHUNK_BYTES_DEFAULT, CHUNK_BYTES_MAX = KEY_BYTES_MIN, 32, 16 * 1024
FEED_BYTES_MIN, FEED_BYTES_MAX = 16 * 1024, 64 * 1024
"""How much unread key a stream is given: two seconds of its rate within these bounds, at least two chunks."""

FEED_BATCH_BYTES_MIN, FEED_BATCH_BYTES_MAX = 256, 32 * 1024
"""A smaller batch is not worth its control bytes; a larger one is cut."""

READ_RANGES_MAX = 256
"""An application that reads with more gaps than this is told of re-read chunks only by a timeout."""

IDLE_S_MIN = 3600.0
STREAMS_PER_PEER_MAX = 4096


class StreamRefused(Exception):
    """A call that is answered with a status that is no success. ``metadata_size`` goes with status 8."""

    def __init__(self, status: Status, metadata_size: int = 0) -> None:
        super().__init__(status.name)
        self.status, self.metadata_size = status, metadata_size


class StreamLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a KME grants. ``reserved_bps_max`` is what all streams to one peer may ask for as ``min_bps``."""

    chunk_bytes_max: int = CHUNK_BYTES_MAX
    ttl_s_default: int = 3600
    ttl_s_max: int = 86_400
    timeout_ms_max: int = 60_000
    reserved_bps_max: int = 10_000
    streams_per_sae_max: int = 64


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """One stream as one KME knows it.

    ``fed_bytes`` and ``gaps`` (first byte, length) are the feeding KME's: how far the stream has come, and
    what of it has failed and is to be fed again. ``read`` are runs of chunks (first, end) that were read.
    """

    ksid: str
    run: str
    own_sae: str
    peer_sae: str
    peer_kme: str
    qos: QoS
    opened_here: bool
    opened_there: bool = False
    closed_there: bool = False
    refused: bool = False
    fed_bytes: int = 0
    gaps: tuple[tuple[int, int], ...] = ()
    read: tuple[tuple[int, int], ...] = ()
    used_s: float = 0.0

    @property
    def batches(self) -> str:
        """The name under which the batches of this life of the stream are kept."""
        return f"{self.ksid}.{self.run}"

    @property
    def connected(self) -> bool:
        """Whether both applications have opened the stream, and none has closed it."""
        return self.opened_here and self.opened_there and not self.closed_there and not self.refused

    @property
    def feed_bytes(self) -> int:
        """How much unread key the stream should have."""
        two_seconds = 2 * self.qos.max_bps // 8 if self.qos.max_bps else FEED_BYTES_MAX
        wanted = min(max(two_seconds, FEED_BYTES_MIN), FEED_BYTES_MAX)
        return max(wanted - wanted % self.qos.chunk_bytes, 2 * self.qos.chunk_bytes)


class StreamNews(msgspec.Struct, frozen=True):
    """What a KME tells its peer when an application has opened a stream there."""

    ksid: str
    run: str
    opener: str
    other: str
    qos: QoS


@dataclass(frozen=True)
class StreamKey:
    """One chunk on its way to an application, which wipes it."""

    stream: Stream
    index: int
    key: SecretBytes
    metadata: bytes
    provenance: Provenance


def sae_of_uri(uri: str) -> SaeId:
    """Return the application that a Source or Destination names (004-14).

    A text without ``://`` is the SAE ID itself; of a URI it is the user, where there is one, else the host.

    >>> [sae_of_uri(text) for text in ("sae-a", "qkd://sae-a/app", "qkd://sae-a@kme-1:25575?x=1")]
    ['sae-a', 'sae-a', 'sae-a']
    """
    if "://" not in uri:
        return SaeId(uri)
    try:
        authority = urlsplit(uri).netloc
    except ValueError:
        return SaeId(uri)
    user, at, host = authority.rpartition("@")
    return SaeId(user if at else host.partition(":")[0])


def granted(qos: QoS, limits: StreamLimits, reserved_bps: int) -> QoS:
    """Return the QoS nearest to the wanted one that is granted; ``reserved_bps`` is what others hold."""
    chunk = qos.chunk_bytes or CHUNK_BYTES_DEFAULT
    room_bps = max(0, limits.reserved_bps_max - reserved_bps)
    least = min(qos.min_bps, room_bps, qos.max_bps or UINT32_MAX)
    return msgspec.structs.replace(
        qos,
        chunk_bytes=min(max(chunk, CHUNK_BYTES_MIN), limits.chunk_bytes_max),
        min_bps=least,
        timeout_ms=min(qos.timeout_ms, limits.timeout_ms_max),
        ttl_s=min(qos.ttl_s or limits.ttl_s_default, limits.ttl_s_max),
        metadata_mimetype=qos.metadata_mimetype if qos.metadata_mimetype in ("", JSON_MIME) else JSON_MIME,
    )


def open_connect(
    view: KmeView,
    directory: SaeDirectory,
    caller: SaeId,
    request: OpenConnect,
    new_ksid: UUID,
    limits: StreamLimits,
    linked: Callable[[KmeId], bool],
    now_s: float,
) -> Opened:
    """OPEN_CONNECT: open a stream at the caller's KME, or join one that the other application has opened.

    ``new_ksid`` is used if the request names none; ``linked`` tells whether a QKD link leads to a KME.
    Raises StreamRefused (status 4 without a right or a link, 5 for a KSID that is taken).
    """
    own, other, peer = _ends(directory, view.kme, caller, request)
    if not linked(peer):
        raise StreamRefused(Status.NO_CONNECTION)
    ksid = str(request.ksid if request.ksid != NIL else new_ksid)
    known = stream_of(view, ksid)
    if known is not None:
        return _join(view, known, own, other, request.qos, now_s)
    held = sum(each.own_sae == own and each.opened_here for each in all_streams(view))
    if held >= limits.streams_per_sae_max:
        raise StreamRefused(Status.NO_CONNECTION)
    wanted = _with_defaults(request.qos, limits)
    given = granted(request.qos, limits, reserved_bps(view, peer))
    if given != wanted:
        return Opened(Status.QOS_NOT_MET, given, request.ksid)
    stream = Stream(
        ksid=ksid,
        run=_new_run(view) if feeds(view.kme, peer) else "",
        own_sae=own,
        peer_sae=other,
        peer_kme=peer,
        qos=given,
        opened_here=True,
        used_s=now_s,
    )
    _keep(view, stream)
    _tell(view, stream)
    return Opened(Status.PEER_NOT_CONNECTED, given, UUID(ksid))


def opened_stream(view: KmeView, caller: SaeId, ksid: UUID) -> Stream:
    """Return the stream that a caller has opened here; StreamRefused with status 4 if there is none."""
    stream = stream_of(view, str(ksid))
    if stream is None or stream.own_sae != caller or not stream.opened_here:
        raise StreamRefused(Status.NO_CONNECTION)
    return stream


def get_key(
    view: KmeView, caller: SaeId, ksid: UUID, index: int, metadata_size: int, now_s: float
) -> StreamKey:
    """GET_KEY: the chunk at an index, once; it is erased here as it leaves.

    Raises StreamRefused, or KeyUnavailable if the chunk may yet come.
    """
    stream = opened_stream(view, caller, ksid)
    if stream.refused:
        raise StreamRefused(Status.NO_CONNECTION)
    if any(first <= index < end for first, end in stream.read):
        raise StreamRefused(Status.INSUFFICIENT_KEY)
    chunk_bytes = stream.qos.chunk_bytes
    place = index * chunk_bytes
    batch = next((each for each in _unread(view, stream) if _holds(each, place)), None)
    if batch is None:
        if not stream.opened_there or stream.closed_there:
            raise StreamRefused(Status.NO_PEER)
        raise KeyUnavailable(f"chunk {index} has not come yet", wanted_bytes=chunk_bytes, available_bytes=0)
    metadata = _metadata(stream, batch, metadata_size, now_s)
    try:
        key = take_range(view, batch, place - batch.first_byte, chunk_bytes)
    except KeyUnavailable:
        raise StreamRefused(Status.INSUFFICIENT_KEY) from None
    _keep(view, msgspec.structs.replace(stream, read=with_read(stream.read, index), used_s=now_s))
    return StreamKey(stream, index, key, metadata, batch.provenance)


def close(view: KmeView, caller: SaeId, ksid: UUID) -> None:
    """CLOSE: destroy what is unread here, free the KSID, tell the other KME. Raises StreamRefused."""
    _give_up(view, opened_stream(view, caller, ksid))


def reserved_bps(view: KmeView, peer: KmeId) -> int:
    """Return what the streams to a peer have been granted as least rate together."""
    return sum(stream.qos.min_bps for stream in all_streams(view) if stream.peer_kme == peer)


def feeds(kme: KmeId, peer: KmeId) -> bool:
    """Tell whether a KME feeds the streams between it and a peer."""
    return kme < peer


def hungry(view: KmeView) -> list[Stream]:
    """Return the streams that this KME should feed now, those with the higher priority first."""
    under_way: dict[str, int] = {}
    for order in agreement.open_offers(view):
        under_way[order.stream_id] = under_way.get(order.stream_id, 0) + order.key_bytes
    found = [
        stream
        for stream in all_streams(view)
        if stream.connected
        and feeds(view.kme, KmeId(stream.peer_kme))
        and _lacking(view, stream, under_way.get(stream.batches, 0))
    ]
    return sorted(found, key=lambda stream: -stream.qos.priority)


def feed(
    view: KmeView, ksid: str, link: LinkId, batch_tag: int, now_s: float, held_back_bytes: int = 0
) -> BatchOrder | None:
    """Agree on the next batch of a stream; None if it wants none any more. KeyUnavailable without key.

    ``held_back_bytes`` of the link's key are for others.
    """
    stream = stream_of(view, ksid)
    if stream is None or not stream.connected:
        return None
    gap, *gaps = stream.gaps or ((stream.fed_bytes, 0),)
    chunk = stream.qos.chunk_bytes
    first, length = gap
    there_is = link_stock_bytes(view, link, view.kme) - held_back_bytes - agreement.CONTROL_BYTES
    if not length:
        length = min(stream.feed_bytes, max(FEED_BATCH_BYTES_MAX - FEED_BATCH_BYTES_MAX % chunk, chunk))
        # A slow link gives what it has: an application must not wait hours until a whole batch is there.
        least = min(length, FEED_BATCH_BYTES_MIN + -FEED_BATCH_BYTES_MIN % chunk)
        length = max(min(length, there_is - there_is % chunk), least)
        if first + length > chunk * (UINT32_MAX + 1):
            return None  # the index of a chunk has 32 bits: the applications open another stream
    if length > there_is:
        raise KeyUnavailable("the link has too little", wanted_bytes=length, available_bytes=max(0, there_is))
    wanted = BatchWanted(
        SaeId(stream.own_sae),
        ((SaeId(stream.peer_sae), KmeId(stream.peer_kme), link),),
        length,
        expires_s=now_s + stream.qos.ttl_s,
        stream_id=stream.batches,
        first_byte=first,
    )
    order = agreement.offer(view, wanted, batch_tag, now_s)
    fed = max(stream.fed_bytes, first + length)
    _keep(view, msgspec.structs.replace(stream, fed_bytes=fed, gaps=tuple(gaps)))
    return order


def refeed(view: KmeView, order: BatchOrder) -> None:
    """Note that a batch of a stream did not come about: its bytes are fed again, as other key."""
    stream = stream_of(view, order.stream_id.partition(".")[0])
    if stream is not None and stream.batches == order.stream_id:
        gaps = (*stream.gaps, (order.first_byte, order.key_bytes))
        _keep(view, msgspec.structs.replace(stream, gaps=gaps))


def sweep(view: KmeView, now_s: float) -> int:
    """Close the streams that nobody has used for long; destroy batches of streams that are no more.

    Returns how many streams it closed.
    """
    closed = 0
    for stream in all_streams(view):
        if not stream.used_s:
            _keep(view, msgspec.structs.replace(stream, used_s=now_s))
        elif now_s - stream.used_s > max(stream.qos.ttl_s, IDLE_S_MIN):
            _give_up(view, stream)
            closed += 1
    live = {stream.ksid: stream.run for stream in all_streams(view)}
    for name, batch_key in stream_batch_keys(view):
        ksid, _, run = name.partition(".")
        # A follower may get key of a stream before it hears of its run.
        if live.get(ksid) not in (run, ""):
            _destroy(view, batch_by_key(view, batch_key))
    return closed


def forget_peer(view: KmeView, peer: KmeId) -> None:
    """Drop the streams to a peer whose store is not the one that we spoke with any longer."""
    for stream in all_streams(view):
        if stream.peer_kme == peer:
            for batch in stream_batches(view, stream.batches):
                destroy_batch(view, batch)
            view.drop_record(KIND, stream.ksid)


def heard_open(view: KmeView, sender: KmeId, message: outbox.Message) -> bytes:
    """Act on the news that the application at a peer has opened a stream."""
    news = _decode_news(message.body)
    known = stream_of(view, news.ksid)
    if known is None:
        if sum(stream.peer_kme == sender for stream in all_streams(view)) >= STREAMS_PER_PEER_MAX:
            return REFUSED
        known = Stream(
            ksid=news.ksid,
            run=_new_run(view) if feeds(view.kme, sender) else news.run,
            own_sae=news.other,
            peer_sae=news.opener,
            peer_kme=sender,
            qos=news.qos,
            opened_here=False,
            used_s=0.0,
        )
    alike = (known.own_sae, known.peer_sae, known.peer_kme) == (news.other, news.opener, sender)
    if not alike or known.closed_there or _common(known.qos) != _common(news.qos):
        return REFUSED
    run = known.run or news.run
    _keep(view, msgspec.structs.replace(known, run=run, opened_there=True))
    return HEARD + run.encode()


def settle_open(view: KmeView, peer: KmeId, message: outbox.Message, answer: bytes) -> None:
    """Act on what a peer answers to our news."""
    news = _decode_news(message.body)
    stream = stream_of(view, news.ksid)
    if stream is None or stream.peer_kme != peer:
        return
    if answer.startswith(HEARD):
        run = answer.removeprefix(HEARD).decode("ascii", errors="replace")
        _keep(view, msgspec.structs.replace(stream, run=stream.run or run))
    else:
        _keep(view, msgspec.structs.replace(stream, refused=True))


def heard_close(view: KmeView, sender: KmeId, message: outbox.Message) -> bytes:
    """Act on the news that a stream was closed at a peer: what is here may still be read."""
    stream = stream_of(view, message.body.decode("ascii", errors="replace"))
    if stream is not None and stream.peer_kme == sender:
        if stream.opened_here:
            _keep(view, msgspec.structs.replace(stream, closed_there=True))
        else:
            _drop(view, stream)
    return HEARD


def settle_close(view: KmeView, peer: KmeId, message: outbox.Message, answer: bytes) -> None:
    """Nothing is left to do when a peer has heard of a closing."""


HANDLERS: Mapping[str, outbox.Handler] = {OPEN_KIND: heard_open, CLOSE_KIND: heard_close}
SETTLERS: Mapping[str, outbox.Settler] = {OPEN_KIND: settle_open, CLOSE_KIND: settle_close}


def stream_of(view: KmeView, ksid: str) -> Stream | None:
    """Return what this KME knows of a KSID, or None."""
    body = view.record(KIND, ksid)
    return msgspec.msgpack.decode(body, type=Stream) if body is not None else None


def all_streams(view: KmeView) -> list[Stream]:
    """Return all streams that this KME knows."""
    return [msgspec.msgpack.decode(body, type=Stream) for _, body in view.records(KIND)]


def with_read(read: tuple[tuple[int, int], ...], index: int) -> tuple[tuple[int, int], ...]:
    """Add a chunk to the runs that were read.

    >>> with_read(((0, 3), (4, 6)), 3), with_read(((0, 3),), 5)
    (((0, 6),), ((0, 3), (5, 6)))
    """
    runs: list[tuple[int, int]] = []
    for first, end in sorted([*read, (index, index + 1)]):
        if runs and runs[-1][1] == first:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((first, end))
    return tuple(runs[-READ_RANGES_MAX:])


def _ends(
    directory: SaeDirectory, kme: KmeId, caller: SaeId, request: OpenConnect
) -> tuple[SaeId, SaeId, KmeId]:
    """Return the caller, the other application and its KME; status 4 unless the caller is one of the two."""
    source, destination = sae_of_uri(request.source), sae_of_uri(request.destination)
    if caller not in (source, destination) or source == destination:
        raise StreamRefused(Status.NO_CONNECTION)
    other = destination if caller == source else source
    own_record, other_record = directory.sae(caller), directory.sae(other)
    if own_record is None or own_record.kme_id != kme:
        raise StreamRefused(Status.NO_CONNECTION)
    if other_record is None or other_record.kme_id == kme:
        raise StreamRefused(Status.NO_CONNECTION)
    return caller, other, other_record.kme_id


def _join(view: KmeView, known: Stream, own: SaeId, other: SaeId, qos: QoS, now_s: float) -> Opened:
    """Open a stream that the other application has opened already; the first has set its QoS."""
    if known.opened_here or known.closed_there or (known.own_sae, known.peer_sae) != (own, other):
        raise StreamRefused(Status.KSID_IN_USE)
    own_part = msgspec.structs.replace(
        known.qos,
        timeout_ms=qos.timeout_ms,
        metadata_mimetype=qos.metadata_mimetype if qos.metadata_mimetype in ("", JSON_MIME) else JSON_MIME,
    )
    fits = _common(qos) == _common(known.qos) or (
        qos.chunk_bytes in (0, known.qos.chunk_bytes)
        and qos.max_bps in (0, known.qos.max_bps)
        and qos.min_bps <= known.qos.min_bps
        and qos.ttl_s in (0, known.qos.ttl_s)
    )
    if not fits or own_part.metadata_mimetype != qos.metadata_mimetype:
        return Opened(Status.QOS_NOT_MET, own_part, UUID(known.ksid))
    stream = msgspec.structs.replace(known, qos=own_part, opened_here=True, used_s=now_s)
    _keep(view, stream)
    _tell(view, stream)
    return Opened(Status.SUCCESS, own_part, UUID(known.ksid))


def _with_defaults(qos: QoS, limits: StreamLimits) -> QoS:
    return msgspec.structs.replace(
        qos,
        chunk_bytes=qos.chunk_bytes or CHUNK_BYTES_DEFAULT,
        ttl_s=qos.ttl_s or limits.ttl_s_default,
    )


def _common(qos: QoS) -> tuple[int, ...]:
    """Return what both ends of a stream have alike; timeout and metadata are each application's own."""
    return qos.chunk_bytes, qos.max_bps, qos.min_bps, qos.ttl_s


def _lacking(view: KmeView, stream: Stream, under_way_bytes: int) -> bool:
    unread = sum(view.stock_bytes(batch.stream) for batch in stream_batches(view, stream.batches))
    return bool(stream.gaps) or unread + under_way_bytes <= stream.feed_bytes // 2


def _unread(view: KmeView, stream: Stream) -> Iterator[KeyBatch]:
    return iter(stream_batches(view, stream.batches) if stream.run else ())


def _holds(batch: KeyBatch, place: int) -> bool:
    return batch.first_byte <= place < batch.first_byte + batch.length_bytes


def _metadata(stream: Stream, batch: KeyBatch, room_bytes: int, now_s: float) -> bytes:
    """Return age and hops, and the provenance where there is room; status 8 if even those find none."""
    if stream.qos.metadata_mimetype != JSON_MIME:
        return b""
    age_ms = max(0, round(1000 * (now_s - batch.created_s)))
    short: dict[str, Any] = {"age": age_ms, "hops": batch.provenance.hops}
    for document in (short | {"openqci_provenance": batch.provenance}, short):
        metadata = msgspec.json.encode(document)
        if len(metadata) <= room_bytes:
            return metadata
    raise StreamRefused(Status.METADATA_TOO_SMALL, len(metadata))


def _new_run(view: KmeView) -> str:
    number = int(view.record(RUN_KIND, "last") or b"0") + 1
    view.put_record(RUN_KIND, "last", str(number).encode())
    return str(number)


def _tell(view: KmeView, stream: Stream) -> None:
    news = StreamNews(stream.ksid, stream.run, stream.own_sae, stream.peer_sae, stream.qos)
    outbox.post(view, KmeId(stream.peer_kme), LANE, OPEN_KIND, msgspec.msgpack.encode(news))


def _give_up(view: KmeView, stream: Stream) -> None:
    """Close a stream at this end."""
    _drop(view, stream)
    if not stream.closed_there and stream.opened_here:
        outbox.post(view, KmeId(stream.peer_kme), LANE, CLOSE_KIND, stream.ksid.encode())


def _drop(view: KmeView, stream: Stream) -> None:
    for order in agreement.open_offers(view):
        if order.stream_id == stream.batches:
            agreement.give_up(view, order)
    for batch in stream_batches(view, stream.batches):
        destroy_batch(view, batch)
    view.drop_record(KIND, stream.ksid)


def _destroy(view: KmeView, batch: KeyBatch | None) -> None:
    if batch is not None:
        destroy_batch(view, batch)


def _keep(view: KmeView, stream: Stream) -> None:
    invariant(bool(stream.ksid), "a stream has a name")
    view.put_record(KIND, stream.ksid, msgspec.msgpack.encode(stream))


def _decode_news(body: bytes) -> StreamNews:
    try:
        news = msgspec.msgpack.decode(body, type=StreamNews)
        sound = str(UUID(news.ksid)) == news.ksid
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise PeerMisbehaved(f"news of a stream cannot be read: {error}") from None
    qos = news.qos
    if not sound or not CHUNK_BYTES_MIN <= qos.chunk_bytes <= CHUNK_BYTES_MAX or qos.ttl_s <= 0:
        raise PeerMisbehaved("news of a stream makes no sense")
    return news
