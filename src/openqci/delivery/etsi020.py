"""Keys over the borders of a network by ETSI GS QKD 020 V1.1.1: what a KME does, inside one transaction.

A key comes from a neighbour, is *kept* (sealed), and goes on: to an application here, to another KME of this
network, or over the next border. When the last one has it, ``relayed`` travels back the same way; only then
may the initiator have it (4, NOTE; 020-19). What follows from the standard's rules:

* 400 and 401 leave no trace, and only they let a sender forget a key: whoever sends a key keeps it until it
  knows better, sends it again, and at last voids it (:class:`~openqci.delivery.etsi020_rules.Timing`);
* a request that comes again is met with what was answered before; the same ID with other bytes is refused
  with 503, since a 400 would say that nothing is kept under that ID;
* a key that is voided is given to nobody from then on; if somebody has it already, the void has failed.

:class:`Border` is one KME's side inside one transaction of its own store, called by the shell with what came
and with what is due. No HTTP here: see ``openqci.services.etsi020_app`` and ``etsi020_client``.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from openqci.core.errors import PeerMisbehaved, RequestRefused, invariant
from openqci.core.identifiers import KeyId, KmeId, SaeId
from openqci.core.keys import SecretBytes
from openqci.crypto import ONE_TIME_MAC_KEY_BYTES
from openqci.delivery import border_account, border_stock, transfers
from openqci.delivery.border_endings import MESSAGE_MAX, STATUS_OF
from openqci.delivery.border_extensions import (
    KNOWN,
    KeyDocument,
    Segment,
    crossed,
    key_document,
    with_batch_document,
    with_key_document,
    with_segment,
)
from openqci.delivery.border_work import BorderWork
from openqci.delivery.etsi020_model import (
    INSUFFICIENT,
    INVALID,
    MISSING,
    NOT_PRESENT,
    ROUTING,
    SERVER_SIDE,
    UNAUTHORISED,
    UNSUPPORTED,
    AckContainer,
    AckKey,
    AckStatus,
    ExtKeyContainer,
    TransferKey,
    VoidContainer,
    is_allowed,
    refused,
)
from openqci.delivery.etsi020_rules import (
    NewKey,
    Outcome,
    Parcel,
    Partner,
    Told,
    VoidOrder,
)
from openqci.delivery.transfers import (
    HERE,
    PENDING,
    Neighbour,
    Report,
    Side,
    State,
    Transfer,
)


class Border(BorderWork):
    """One KME's borders inside one transaction. ``events`` are what has come about in it."""

    # A partner's requests

    def receive(self, partner: KmeId, container: ExtKeyContainer) -> None:
        """Take keys that a partner passes on, all of the request or none. The caller wipes the container.

        RequestRefused with 400 or 401 if nothing is kept; with 503 if the partner should try again or void.
        """
        sender = Neighbour(Side.PARTNER, partner)
        known = self._partner(partner)
        self._check_request(known, container)
        way = self._way(sender, container.targets)
        new: list[TransferKey] = []
        again: list[Transfer] = []
        for key in container.keys:
            transfer = transfers.find(self._view, key.key_id)
            if transfer is None:
                self._check_new(sender, key)
                new.append(key)
            else:
                again.append(self._same(sender, transfer, container, key))
        self._admit(known, container, sum(len(key.value) for key in new))
        for key in new:
            self._accept(sender, way, container, key)
        for transfer in again:
            self._repeat(transfer, container.callback_url)

    def acknowledge(self, partner: KmeId, containers: Sequence[AckContainer]) -> None:
        """Act on a partner's acknowledgements; RequestRefused 400 if it means none of our keys."""
        neighbour = Neighbour(Side.PARTNER, self._partner(partner).kme)
        heard = [self._heard(neighbour, key, container) for container in containers for key in container.keys]
        if heard and not any(heard):
            text = "none of the acknowledged key IDs is known to this KME with these applications"
            raise refused(400, NOT_PRESENT, "key_not_present", text)

    def void(self, partner: KmeId, container: VoidContainer) -> None:
        """Void keys at a partner's word; how that ended is acknowledged, or found by :meth:`outcomes`."""
        neighbour = Neighbour(Side.PARTNER, self._partner(partner).kme)
        self._check_callback(self._partner(partner), container.callback_url)
        report = Report(neighbour, container.callback_url)
        for key_id in self._meant(neighbour, container):
            transfer = self._of_neighbour(neighbour, key_id, container.initiator, container.targets)
            if transfer is None:
                until_s = self._now_s + self._timing.retention_s
                transfers.refuse_from_now_on(self._view, neighbour, key_id, until_s)
                self._report(report, key_id, container.initiator, container.targets, AckStatus.NOT_PRESENT)
            else:
                self._void_from(neighbour, transfer, report)

    def outcomes(
        self,
        partner: KmeId,
        key_ids: Iterable[KeyId],
        initiator: SaeId,
        targets: tuple[SaeId, ...],
        *,
        void: bool,
    ) -> list[AckContainer] | None:
        """Return how a synchronous request has ended, or None while some of its keys are on their way."""
        neighbour = Neighbour(Side.PARTNER, partner)
        grouped: dict[tuple[AckStatus, str, bytes], list[AckKey]] = defaultdict(list)
        for key_id in key_ids:
            transfer = self._of_neighbour(neighbour, key_id, initiator, targets)
            if transfer is None:
                grouped[AckStatus.NOT_PRESENT, "", b""].append(AckKey(key_id))
                continue
            if transfer.state in PENDING or transfer.state is State.VOIDING:
                return None
            status = STATUS_OF[transfer.state]
            if void:
                status = AckStatus.FAILED_TO_VOID if status is AckStatus.RELAYED else AckStatus.VOIDED
            about = self._echo(transfer)
            grouped[status, transfer.message, about].append(AckKey(key_id, transfer.ack_key))
        return [
            AckContainer(tuple(keys), status, initiator, targets, message, extension)
            for (status, message, extension), keys in grouped.items()
        ]

    def meant(self, partner: KmeId, container: VoidContainer) -> tuple[KeyId, ...]:
        """Return the keys that a request to void is about: those that it names, or all of its association."""
        return tuple(self._meant(Neighbour(Side.PARTNER, partner), container))

    # Keys that begin here, and words inside this network

    def originate(self, new: NewKey, value: SecretBytes) -> Transfer:
        """Begin a key's way over a border; the caller wipes the value. RequestRefused if there is no way."""
        downstream = self._way(HERE, new.targets)
        invariant(downstream != HERE, "a key for an application here crosses no border")
        known = transfers.find(self._view, new.key_id)
        invariant(known is None, "a new key has a new ID")
        document = KeyDocument(new.created_s, new.expires_s, route=new.route)
        if downstream.side is Side.PARTNER:
            document = msgspec.structs.replace(document, segments=(new.segment,))
        optional = with_key_document(b"", document)
        if new.batch_tag is not None:
            optional = with_batch_document(optional, new.batch_tag, border_stock.batch_key_bytes(value))
        transfer = self._transfer(
            new.key_id, new.initiator, new.targets, HERE, downstream, len(value), optional
        )
        transfer = transfers.with_value(self._view, transfer, value)
        transfers.save(self._view, transfer)
        return transfer

    def arrived(self, kme: KmeId, parcel: Parcel, value: SecretBytes, segment: Segment) -> None:
        """Take a key that another KME of this network has carried here; the caller wipes the value.

        ``segment`` is what the way through this network adds to the key's provenance.
        """
        sender = Neighbour(Side.KME, kme)
        known = transfers.find(self._view, parcel.key_id)
        if known is not None:
            if known.upstream == sender and known.state not in PENDING:
                self._answer(known)
            return
        refusal = ""
        try:
            way = self._way(sender, parcel.targets)
        except RequestRefused as no_way:
            way, refusal = HERE, f"{no_way.message}: {no_way.details}"
        optional = with_segment(parcel.optional, segment)
        transfer = self._transfer(
            parcel.key_id, parcel.initiator, parcel.targets, sender, way, len(value), optional
        )
        transfer = msgspec.structs.replace(transfer, extension=parcel.extension)
        if refusal:
            self._settle(transfer, State.FAILED, refusal[:MESSAGE_MAX])
        elif way == HERE:
            self._deliver(transfer, value)
        else:
            transfers.save(self._view, transfers.with_value(self._view, transfer, value))

    def told(self, kme: KmeId, told: Told) -> None:
        """Act on the word of another KME of this network."""
        neighbour = Neighbour(Side.KME, kme)
        transfer = transfers.find(self._view, told.key_id)
        if transfer is None or neighbour not in (transfer.upstream, transfer.downstream):
            if isinstance(told, VoidOrder):
                self._tell(kme, Outcome(told.key_id, AckStatus.NOT_PRESENT))
            return
        if isinstance(told, VoidOrder):
            self._void_from(neighbour, transfer, Report(neighbour))
        else:
            container = AckContainer(
                (AckKey(told.key_id, told.ack_key),),
                told.status,
                transfer.initiator,
                transfer.targets,
                told.message,
                told.ack_extension,
            )
            self._heard(neighbour, container.keys[0], container)

    def carriage_failed(self, key_id: KeyId, reason: str) -> None:
        """A key that was being carried to another KME of this network did not arrive: it is tried again."""
        transfer = transfers.find(self._view, key_id)
        if transfer is not None and transfer.state is State.SENT and transfer.downstream.side is Side.KME:
            waiting = msgspec.structs.replace(
                transfer, state=State.WAITING, message=reason[:MESSAGE_MAX], handed_on=False
            )
            self._later(waiting)

    # Taking keys

    def _partner(self, kme: KmeId) -> Partner:
        partner = self._rules.partners.get(kme)
        if partner is None:
            raise refused(401, UNAUTHORISED, "unauthorized", "the caller is no partner of this KME")
        return partner

    def _check_request(self, partner: Partner, container: ExtKeyContainer) -> None:
        self._check_callback(partner, container.callback_url)
        unknown = [name for name in container.mandatory if name not in KNOWN]
        if unknown:
            text = f"mandatory extensions that this KME does not know: {', '.join(unknown)}"
            raise refused(503, UNSUPPORTED, "unsupported_mandatory_extension", text[:1000])
        if len(container.targets) > partner.targets_max:
            text = f"at most {partner.targets_max} targets have one key here"
            raise refused(503, ROUTING, "no_route_multiple_targets", text)
        if self._rules.domain in crossed(container.optional):
            text = f"the key has been in {self._rules.domain} before: its way goes in a circle"
            raise refused(400, ROUTING, "invalid_routing", text)

    def _check_callback(self, partner: Partner, callback_url: str) -> None:
        if not callback_url:
            if not self._rules.synchronous:
                text = "ack_callback_url: this KME has no synchronous mode"
                raise refused(400, MISSING, "missing_parameters", text)
        elif not is_allowed(callback_url, partner.callback_urls):
            text = "is none of the URLs to which this KME sends acknowledgements for this partner"
            raise refused(400, INVALID, "ack_callback_url", text)

    def _way(self, sender: Neighbour, targets: Sequence[SaeId]) -> Neighbour:
        """Return the one neighbour through whom all targets are reached, and that is not the sender."""
        common: list[Neighbour] | None = None
        for target in targets:
            found = self._rules.ways(target)
            if found is None:
                text = f"no network that this KME knows serves {target}"
                raise refused(400, ROUTING, "target_sae_id_not_recognized", text)
            if not found:
                raise refused(503, ROUTING, "no_known_route", f"no way to {target} now")
            common = [each for each in found if common is None or each in common]
        forward = [each for each in common or () if each != sender]
        if not common:
            raise refused(503, ROUTING, "no_route_multiple_targets", "no way leads to all these targets")
        if not forward:
            text = "the way to the targets leads back to where the key comes from"
            raise refused(400, ROUTING, "invalid_routing", text)
        next_one = self._rules.partners.get(forward[0].kme)
        if next_one is not None and len(targets) > next_one.targets_max:
            text = f"{next_one.kme} takes keys for at most {next_one.targets_max} targets"
            raise refused(503, ROUTING, "no_route_multiple_targets", text)
        return forward[0]

    def _check_new(self, sender: Neighbour, key: TransferKey) -> None:
        if transfers.is_refused(self._view, sender, key.key_id):
            raise refused(400, INVALID, "key_id", f"{key.key_id} was voided before it came")

    def _same(
        self, sender: Neighbour, transfer: Transfer, container: ExtKeyContainer, key: TransferKey
    ) -> Transfer:
        """Return the transfer if a request is about the same key for the same applications, else refuse."""
        known = (transfer.upstream, *transfer.association)
        asked = (sender, container.initiator, tuple(sorted(container.targets)))
        if known != asked or not transfers.is_same_value(self._view, transfer, key.value):
            # Not 400: that would say that nothing is kept here under this ID.
            text = f"{key.key_id} is in use with other bytes or other applications"
            raise refused(503, SERVER_SIDE, "key_id_in_use", text)
        return transfers.find(self._view, key.key_id) or transfer

    def _admit(self, partner: Partner, container: ExtKeyContainer, wanted_bytes: int) -> None:
        """Hold a request against what was agreed on with the partner."""
        terms, now_s = partner.terms, self._now_s
        if now_s < terms.valid_from_s or (terms.valid_until_s and now_s >= terms.valid_until_s):
            text = f"the agreement {terms.name} is not in force now"
            raise refused(503, INSUFFICIENT, "agreement", text)
        waiting = transfers.pending(self._view, Neighbour(Side.PARTNER, partner.kme))
        if waiting + len(container.keys) > partner.pending_max:
            text = f"{waiting} keys of this partner are on their way; at most {partner.pending_max} may be"
            raise refused(503, INSUFFICIENT, "insufficient_key_material", text)
        document = key_document(container.optional)
        urgent = terms.emergency and document is not None and document.emergency
        if terms.quota_bytes is None or urgent or not wanted_bytes:
            return
        if not border_account.use_quota(
            self._view, partner.kme, wanted_bytes, terms.quota_bytes, terms.window_s, now_s
        ):
            text = f"the quota of the agreement {terms.name} is used up"
            raise refused(503, INSUFFICIENT, "quota", text)

    def _accept(
        self, sender: Neighbour, way: Neighbour, container: ExtKeyContainer, key: TransferKey
    ) -> None:
        """Keep a key that came, and have it go on."""
        optional = container.optional
        if way.side is not Side.KME:
            optional = with_segment(optional, Segment(self._rules.domain))
        transfer = self._transfer(
            key.key_id, container.initiator, container.targets, sender, way, len(key.value), optional
        )
        transfer = msgspec.structs.replace(
            transfer, callback_url=container.callback_url, extension=key.extension
        )
        with SecretBytes(self._rules.fresh(ONE_TIME_MAC_KEY_BYTES)) as mac_key:
            transfer = transfers.with_check(self._view, transfer, key.value, mac_key)
        if way == HERE:
            self._deliver(transfer, key.value)
        else:
            transfers.save(self._view, transfers.with_value(self._view, transfer, key.value))

    def _repeat(self, transfer: Transfer, callback_url: str) -> None:
        """Answer a request that came again as it was answered before."""
        changed = msgspec.structs.replace(transfer, callback_url=callback_url)
        transfers.save(self._view, changed)
        if changed.state in STATUS_OF and not transfers.acks_of(self._view, changed.key_id):
            self._answer(changed)

    def _transfer(
        self,
        key_id: KeyId,
        initiator: SaeId,
        targets: tuple[SaeId, ...],
        upstream: Neighbour,
        downstream: Neighbour,
        value_bytes: int,
        optional: bytes,
    ) -> Transfer:
        now_s = self._now_s
        return Transfer(
            key_id,
            initiator,
            targets,
            upstream,
            downstream,
            State.WAITING,
            value_bytes,
            now_s,
            now_s + self._timing.transfer_s_max,
            now_s,
            optional=optional,
        )

    def _deliver(self, transfer: Transfer, value: SecretBytes) -> None:
        """Put a key into the stock of its targets, which are here."""
        try:
            told = border_stock.store_at_target(
                self._view, transfer, value, self._rules.domain, self._now_s, self._timing.keep_s
            )
        except PeerMisbehaved as error:
            self._settle(transfer, State.FAILED, str(error))
        else:
            self._settle(msgspec.structs.replace(transfer, ack_key=told), State.RELAYED)
