"""The three methods of ETSI GS QKD 014 V1.1.1 as functions: who may have which key, inside one transaction.

Each takes the rooms of the answering KME, the directory of applications, the caller's identity from its
certificate, the SAE ID of the path and the parsed request, and returns the answer or raises RequestRefused
with the standard's code and text. What a raised error had changed is undone by the transaction, so a
request is met whole or consumes nothing. No HTTP here: see ``openqci.services.kme_server``; parsing and
the data model are in :mod:`openqci.delivery.etsi014_model`.

One text answers every 401 (an unknown certificate, a foreign key), so that it tells nothing about keys.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter

import msgspec

from openqci.core.errors import KeyUnavailable, RequestRefused
from openqci.core.identifiers import KeyId, KmeId, SaeId
from openqci.core.keys import DeliveredKey, SecretBytes
from openqci.core.provenance import Provenance
from openqci.delivery import leases, named_keys
from openqci.delivery.directory import PeerIdentity, SaeDirectory, SaeRecord
from openqci.delivery.etsi014_model import (
    KEYS_NOT_FOUND,
    MANDATORY_NOT_MET,
    NO_DEMANDS,
    OPTIONAL_NOT_HANDLED,
    PROVENANCE_EXTENSION,
    STANDARD,
    Key,
    KeyContainer,
    KeyDemands,
    KeyIdsRequest,
    KeyRequest,
    Profile,
    Status,
)
from openqci.delivery.key_ids import KeyPlace, batch_tag_of, decode_key_ids, encode_key_ids
from openqci.delivery.leases import Lease
from openqci.delivery.named_keys import NamedKey
from openqci.delivery.pair_stock import (
    KeyBatch,
    RestRule,
    TakenKey,
    batch_of,
    cut,
    slave_copies,
    stock_keys,
    take_keys,
    take_range,
)
from openqci.keystore.ports import KmeView

STORED_KEY_COUNT_MAX = 1_000_000
"""``max_key_count`` of Status: what a pair has beyond is not counted."""

RETRY_AFTER_S = 1
INSUFFICIENT = "insufficient key material"


@dataclass(eq=False)
class DemandsUnmet(RequestRefused):
    """There is key, but none as demanded: fixed message 2 (6.2), with what there is.

    ``demands`` and ``wanted_bytes`` say what would have to be made.
    """

    demands: KeyDemands = NO_DEMANDS
    wanted_bytes: int = 0


@dataclass(frozen=True)
class Delivery:
    """Keys on their way into an answer, in its order, with the provenance of each."""

    keys: tuple[DeliveredKey, ...]
    provenances: tuple[Provenance, ...]
    with_provenance: bool

    def container(self) -> KeyContainer:
        """Return the *Key container* over the live buffers: encode it, then :meth:`wipe`.

        One provenance for all keys stands in ``key_container_extension``; if the keys came by several
        relays, each key carries its own in ``key_extension``.
        """
        told = self.with_provenance
        alike = told and all(provenance == self.provenances[0] for provenance in self.provenances)
        own = told and not alike
        return KeyContainer(
            keys=tuple(
                Key(
                    delivered.key_id,
                    delivered.key.reveal(),
                    {PROVENANCE_EXTENSION: provenance} if own else None,
                )
                for delivered, provenance in zip(self.keys, self.provenances, strict=True)
            ),
            key_container_extension=({PROVENANCE_EXTENSION: self.provenances[0]} if alike else None),
        )

    def wipe(self) -> None:
        """Forget the key bytes."""
        for delivered in self.keys:
            delivered.key.wipe()


def status(
    view: KmeView,
    directory: SaeDirectory,
    peer: PeerIdentity | None,
    slave_sae: SaeId,
    profile: Profile = STANDARD,
) -> Status:
    """*Get status* (5.1): directional, the caller is the master."""
    master = enrolled_caller(directory, view.kme, peer)
    slave = slave_of(directory, master, slave_sae)
    pair = view, master.sae_id, slave.sae_id, profile.key_size_bits // 8
    stored = stock_keys(*pair) + named_keys.stock_keys(*pair)
    return Status(
        source_KME_ID=view.kme,
        target_KME_ID=slave.kme_id,
        master_SAE_ID=master.sae_id,
        slave_SAE_ID=slave.sae_id,
        key_size=profile.key_size_bits,
        stored_key_count=min(stored, STORED_KEY_COUNT_MAX),
        max_key_count=STORED_KEY_COUNT_MAX,
        max_key_per_request=profile.keys_per_request_max,
        max_key_size=profile.key_size_bits_max,
        min_key_size=profile.key_size_bits_min,
        max_SAE_ID_count=profile.additional_slaves_max,
    )


def get_key(
    view: KmeView,
    directory: SaeDirectory,
    peer: PeerIdentity | None,
    slave_sae: SaeId,
    request: KeyRequest,
    profile: Profile = STANDARD,
    now_s: float = 0.0,
    rests: RestRule | None = None,
) -> Delivery:
    """*Get key* (5.2): new keys for the calling master, erased here as they leave.

    Raises RequestRefused, or KeyUnavailable if the stock is short now (:func:`insufficient_key` makes the
    503 of it, once nobody waits any longer).
    """
    master, slave = pair_of(view, directory, peer, slave_sae, request.additional)
    taken = _take(view, master.sae_id, slave.sae_id, request, profile, now_s, rests)
    return Delivery(
        keys=tuple(delivered for delivered, _ in taken),
        provenances=tuple(provenance for _, provenance in taken),
        with_provenance=request.with_provenance,
    )


def get_key_with_key_ids(
    view: KmeView,
    directory: SaeDirectory,
    peer: PeerIdentity | None,
    master_sae: SaeId,
    request: KeyIdsRequest,
    profile: Profile = STANDARD,
) -> Delivery:
    """*Get key with key IDs* (5.3): the slave's copies, erased here as they leave, in request order.

    Raises RequestRefused: 401 if any of the keys was made for other slaves than the caller, 400 with the
    fixed message if any is unknown here, was delivered before, or is another master's.
    """
    slave = enrolled_caller(directory, view.kme, peer)
    own: list[_Held] = []
    known: set[KeyId] = set()
    meant: set[KeyId] = set()
    for held in _held(view, request.key_ids):
        known |= held.places.keys()
        if held.stock.is_for(slave.sae_id):
            meant |= held.places.keys()
        if held.stock.is_copy_of(slave.sae_id, master_sae):
            own.append(held)
    if known - meant:
        raise unauthorised()
    found = {key_id: held.stock.provenance for held in own for key_id in held.places}
    if len(found) < len(request.key_ids):
        raise RequestRefused(profile.unknown_key_status, KEYS_NOT_FOUND)
    taken = _take_held(view, own, profile)
    return Delivery(
        keys=tuple(DeliveredKey(key_id, taken[key_id]) for key_id in request.key_ids),
        provenances=tuple(found[key_id] for key_id in request.key_ids),
        with_provenance=request.with_provenance,
    )


def pair_of(
    view: KmeView,
    directory: SaeDirectory,
    peer: PeerIdentity | None,
    slave_sae: SaeId,
    additional: tuple[SaeId, ...],
) -> tuple[SaeRecord, SaeRecord]:
    """Return the records of the calling master and of the slave of the path; all slaves make sense."""
    master = enrolled_caller(directory, view.kme, peer)
    slave = slave_of(directory, master, slave_sae)
    for each in additional:
        if each == slave_sae:
            raise RequestRefused(400, "additional_slave_SAE_IDs shall not name the slave of the path")
        slave_of(directory, master, each)
    return master, slave


def _named_lease(
    view: KmeView, master: SaeId, slave: SaeId, request: KeyRequest, now_s: float
) -> Lease | None:
    """Return the lease that a request draws from, or None if it names none."""
    if not request.lease_id:
        return None
    lease = leases.lease_of(view, master, request.lease_id, now_s)
    group = slave, *sorted(request.additional)
    if lease is None or group != (lease.slave_sae, *sorted(lease.additional_slaves)):
        raise _unmet(None, "the caller holds no such lease with these slaves, or its time is over")
    if request.size_bits != 8 * lease.key_bytes:
        raise _unmet(None, f"keys of this lease have {8 * lease.key_bytes} bits")
    return lease


def check_likeness(
    view: KmeView, master: SaeId, slave: SaeId, request: KeyRequest, shortage: KeyUnavailable
) -> None:
    """Refuse with fixed message 2 (6.2) if there is key enough, but not as it is demanded."""
    pair = view, master, slave, request.size_bits // 8, request.additional
    in_stock = stock_keys(*pair) + named_keys.stock_keys(*pair)
    if request.demands != NO_DEMANDS and in_stock >= request.number:
        details = _unmet(shortage).details
        raise DemandsUnmet(
            400, MANDATORY_NOT_MET, details, demands=request.demands, wanted_bytes=shortage.wanted_bytes
        ) from None


def _unmet(shortage: KeyUnavailable | None = None, reason: str = "") -> RequestRefused:
    """Return fixed message 2 (6.2): a mandatory extension that cannot be met, with what there is, and why."""
    details: list[dict[str, object]] = []
    if shortage is not None:
        details.append({"available_bits": 8 * shortage.available_bytes})
        details.append({"requested_bits": 8 * shortage.wanted_bytes})
    if reason:
        details.append({"reason": reason})
    return RequestRefused(400, MANDATORY_NOT_MET, tuple(details))


def _take(
    view: KmeView,
    master: SaeId,
    slave: SaeId,
    request: KeyRequest,
    profile: Profile,
    now_s: float,
    rests: RestRule | None,
) -> list[tuple[DeliveredKey, Provenance]]:
    """Take keys that are as demanded, and if it can be as wished: of a lease, or of the stock."""
    wanted = view, master, slave, request.number, request.size_bits // 8, request.additional
    lease = _named_lease(view, master, slave, request, now_s)

    def take(*demands: KeyDemands) -> list[tuple[DeliveredKey, Provenance]]:
        def will_do(key: KeyBatch | NamedKey) -> bool:
            return all(each.met_by(key.provenance, key.created_s, now_s) for each in demands)

        try:
            if lease is not None:
                runs = leases.draw(view, lease, request.number, will_do)
            else:
                runs = take_keys(*wanted, will_do, rests)
        except KeyUnavailable:
            if lease is not None or not named_keys.stock_keys(
                view, *wanted[1:3], wanted[4], request.additional
            ):
                raise
        else:
            return [(each, run.batch.provenance) for run in runs for each in _delivered(run, wanted[4])]
        named = named_keys.take_keys(*wanted, will_do)
        return [(DeliveredKey(one.named.key_id, one.key), one.named.provenance) for one in named]

    if request.wishes != NO_DEMANDS:
        try:
            return take(request.demands, request.wishes)
        except KeyUnavailable:
            if profile.optional_unhandled == "refuse":
                raise RequestRefused(400, OPTIONAL_NOT_HANDLED) from None
    try:
        return take(request.demands)
    except KeyUnavailable as shortage:
        if lease is not None:
            raise _unmet(shortage, "the lease has fewer keys like that left") from None
        check_likeness(view, master, slave, request, shortage)
        raise


def _delivered(run: TakenKey, key_bytes: int) -> list[DeliveredKey]:
    """Cut a run that was taken at its master into keys, and name them."""
    batch, count = run.batch, len(run.key) // key_bytes
    key_ids = encode_key_ids(batch.id_seed, batch.batch_tag, run.offset_bytes, key_bytes, count)
    with run.key as key:
        return list(map(DeliveredKey, key_ids, cut(key, [key_bytes] * count)))


def enrolled_caller(directory: SaeDirectory, kme: KmeId, peer: PeerIdentity | None) -> SaeRecord:
    """Return the caller's record; 401 unless it is enrolled at this KME with this certificate."""
    record = directory.sae(peer.sae_id) if peer is not None else None
    if (
        peer is None
        or record is None
        or record.kme_id != kme
        or record.certificate_sha256 not in ("", peer.certificate_sha256)
    ):
        raise unauthorised()
    return record


def slave_of(directory: SaeDirectory, master: SaeRecord, slave_sae: SaeId) -> SaeRecord:
    """Return the slave's record; 400 if a key with it makes no sense."""
    slave = directory.sae(slave_sae)
    if slave is None:
        raise RequestRefused(400, "the slave_SAE_ID is not known in this network")
    if slave.sae_id == master.sae_id:
        raise RequestRefused(400, "the slave_SAE_ID is the caller's own: a key is for two SAEs")
    if slave.kme_id == master.kme_id:
        raise RequestRefused(
            400, "the slave SAE is at the same KME as the caller: no QKD link lies between them"
        )
    return slave


def unauthorised() -> RequestRefused:
    """Return the one refusal for callers without a right, whatever the reason."""
    return RequestRefused(401, "the caller is not authorised for this request at this KME")


def insufficient_key(
    shortage: KeyUnavailable,
    hopeless: str | None = None,
    profile: Profile = STANDARD,
    retry_after_s: int = RETRY_AFTER_S,
) -> RequestRefused:
    """Return the 503 for a stock that is short; ``hopeless`` says why waiting will not help."""
    status = profile.insufficient_status
    details: tuple[dict[str, object], ...] = (
        {"requested_bits": 8 * shortage.wanted_bytes},
        {"available_bits": 8 * shortage.available_bytes},
    )
    if hopeless is not None:
        return RequestRefused(status, INSUFFICIENT, (*details, {"reason": hopeless}))
    return RequestRefused(status, INSUFFICIENT, details, {"Retry-After": str(retry_after_s)})


class _Held(msgspec.Struct, frozen=True):
    """What this KME has of a request's keys in one batch, or one key that came over a border."""

    stock: KeyBatch | NamedKey
    places: dict[KeyId, KeyPlace]


def _held(view: KmeView, key_ids: Iterable[KeyId]) -> Iterator[_Held]:
    """Return what this KME has of these keys, for whomever; of an ID that is not genuine, nothing."""
    by_tag: dict[int, list[KeyId]] = {}
    for key_id in key_ids:
        by_tag.setdefault(batch_tag_of(key_id), []).append(key_id)
    for batch_tag, ids in by_tag.items():
        unknown = set(ids)
        for batch in _batches_of(view, batch_tag):
            decoded = zip(ids, decode_key_ids(batch.id_seed, batch_tag, ids), strict=True)
            places = {key_id: place for key_id, place in decoded if place is not None}
            unknown -= places.keys()
            yield _Held(batch, places)
        for key_id in unknown:
            for named in named_keys.copies(view, key_id):
                yield _Held(named, {key_id: KeyPlace(named.offset_bytes, named.length_bytes)})


def _batches_of(view: KmeView, batch_tag: int) -> list[KeyBatch]:
    """Return what this KME has of a tag: a master's batch, or the copies of its slaves here."""
    own = batch_of(view, batch_tag, "master")
    return slave_copies(view, batch_tag) + ([own] if own is not None else [])


def _take_held(view: KmeView, own: Iterable[_Held], profile: Profile) -> dict[KeyId, SecretBytes]:
    """Take the keys; neighbours are taken together, since every cut seals the rest of a segment anew."""
    keys: dict[KeyId, SecretBytes] = {}
    try:
        for held in own:
            if isinstance(held.stock, NamedKey):
                keys[held.stock.key_id] = named_keys.take(view, held.stock)
                continue
            for run in _runs(held.places):
                lengths_bytes = [place.length_bytes for _, place in run]
                offset_bytes = run[0][1].offset_bytes
                with take_range(view, held.stock, offset_bytes, sum(lengths_bytes)) as together:
                    keys.update(zip((key_id for key_id, _ in run), cut(together, lengths_bytes), strict=True))
    except KeyUnavailable:
        for key in keys.values():
            key.wipe()
        raise RequestRefused(profile.unknown_key_status, KEYS_NOT_FOUND) from None
    return keys


def _runs(places: dict[KeyId, KeyPlace]) -> list[list[tuple[KeyId, KeyPlace]]]:
    """Group keys of a batch that lie one right after the other."""
    runs: list[list[tuple[KeyId, KeyPlace]]] = []
    end_bytes = -1
    for key_id, place in sorted(places.items(), key=itemgetter(1)):
        if place.offset_bytes != end_bytes:
            runs.append([])
        runs[-1].append((key_id, place))
        end_bytes = sum(place)
    return runs
