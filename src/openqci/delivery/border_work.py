"""What a KME has to send over its borders, and what it makes of the answers.

The part of :class:`openqci.delivery.etsi020.Border` from which the shell works: everything that waits stands
in durable lists in order of time, one for each partner, so that a KME which is killed goes on from its store
alone. What is handed out as work is put off by the time of a request first; if the shell dies with it, it
comes again.
"""

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from openqci.core.identifiers import KeyId, KmeId
from openqci.core.keys import SecretBytes
from openqci.delivery import border_stock, transfers
from openqci.delivery.border_endings import MESSAGE_MAX, BorderEndings
from openqci.delivery.border_extensions import key_document
from openqci.delivery.etsi020_model import KEYS_PER_REQUEST_MAX, AckContainer, AckStatus
from openqci.delivery.etsi020_rules import (
    AcksToSend,
    BorderTrouble,
    KeysToSend,
    KeyToCarry,
    Parcel,
    VoidsToSend,
    Work,
)
from openqci.delivery.transfers import HERE, PENDING, Ack, Neighbour, Side, State, Transfer, VoidDuty

VALUES_PER_REQUEST_BYTES_MAX = 512 * 1024
"""Key that travels in one request: half of what we take in one, in base64 and with its extensions."""


NAMES_MAX = 512
"""What is taken up in one transaction."""


class BorderWork(BorderEndings):
    """What is due, and what came of it."""

    def work(self, lane: str, names_max: int = NAMES_MAX) -> list[Work]:
        """Return what is to be done now in a lane: for a partner, or at this KME (``transfers.INSIDE``).

        Each is put off by the time of a request. What is late is given up here.
        """
        keys: dict[tuple[KmeId, object], list[Transfer]] = defaultdict(list)
        acks: dict[tuple[KmeId, str], list[Ack]] = defaultdict(list)
        voids: dict[tuple[KmeId, object], list[VoidDuty]] = defaultdict(list)
        carried: list[KeyToCarry] = []
        for name in transfers.due(self._view, lane, self._now_s, names_max):
            entry = transfers.find_due(self._view, name)
            if isinstance(entry, Ack):
                self._due_ack(entry, acks)
            elif isinstance(entry, VoidDuty):
                self._due_void(entry, voids)
            elif entry is not None:
                self._due_transfer(entry, keys, carried)
        found: list[Work] = [
            part for (partner, _), each in keys.items() for part in self._loads(partner, each)
        ]
        found += [AcksToSend(partner, url, tuple(each)) for (partner, url), each in acks.items()]
        found += [VoidsToSend(partner, tuple(each)) for (partner, _), each in voids.items()]
        return found + sorted(carried, key=lambda each: -each.priority)

    def carry(self, key_id: KeyId) -> None:
        """Begin to carry a key on inside this network. KeyUnavailable if a link has not enough now."""
        transfer = transfers.find(self._view, key_id)
        carrier = self._rules.carrier
        if transfer is None or transfer.state is not State.WAITING or carrier is None:
            return
        value, transfer = transfers.copied_value(self._view, transfer)
        parcel = Parcel(key_id, transfer.initiator, transfer.targets, transfer.optional, transfer.extension)
        with value:
            carrier.carry(self._view, transfer.downstream.kme, parcel, value)
        sent = msgspec.structs.replace(
            transfer, state=State.SENT, handed_on=True, due_s=transfer.deadline_s, message=""
        )
        transfers.save(self._view, sent)

    def put_off(self, key_id: KeyId, reason: str) -> None:
        """A key could not be carried on now: it is tried again later."""
        transfer = transfers.find(self._view, key_id)
        if transfer is not None and transfer.state is State.WAITING:
            self._later(msgspec.structs.replace(transfer, message=reason[:MESSAGE_MAX]))

    def keys_answered(
        self,
        partner: KmeId,
        key_ids: Sequence[KeyId],
        status: int,
        reason: str = "",
        containers: Sequence[AckContainer] = (),
    ) -> None:
        """Act on a partner's answer to keys that were sent; status 0 means that there was none."""
        if status == 200:
            neighbour = Neighbour(Side.PARTNER, partner)
            for container in containers:
                for key in container.keys:
                    self._heard(neighbour, key, container)
        for key_id in key_ids:
            transfer = transfers.find(self._view, key_id)
            if transfer is None or transfer.state not in PENDING or transfer.downstream.kme != partner:
                continue
            if status == 202:
                wait_s = self._timing.ack_wait_s
                sent = msgspec.structs.replace(
                    transfer, state=State.SENT, due_s=min(self._now_s + wait_s, transfer.deadline_s)
                )
                transfers.save(self._view, sent)
            elif status in (400, 401):
                if transfer.attempts > 1:
                    # What says no now may have said yes before, in an answer that was lost.
                    self._void_at(transfer.downstream, transfer)
                free = msgspec.structs.replace(transfer, handed_on=False)
                self._settle(free, State.FAILED, f"{status} {reason}")
            else:
                self._later(msgspec.structs.replace(transfer, message=reason[:MESSAGE_MAX]))

    def acks_answered(self, acks: Sequence[Ack], status: int) -> None:
        """Act on a partner's answer to acknowledgements; status 0 means that there was none."""
        for sent in acks:
            ack = transfers.find_ack(self._view, sent.record_key)
            if ack is None:
                continue
            if status == 200:
                transfers.drop_ack(self._view, ack)
            elif status == 400:
                # The partner does not know the key with these applications: nobody there can have it.
                self._unheard(ack, "the partner does not know the key", at_partner=False)
            else:
                wait_s = self._timing.wait_s(ack.attempts)
                transfers.save_ack(self._view, msgspec.structs.replace(ack, due_s=self._now_s + wait_s))

    def voids_answered(
        self,
        duties: Sequence[VoidDuty],
        status: int,
        reason: str = "",
        containers: Sequence[AckContainer] = (),
    ) -> None:
        """Act on a partner's answer to a request to void; status 0 means that there was none."""
        for container in containers if status == 200 else ():
            for key in container.keys:
                self._heard(duties[0].neighbour, key, container)
        for sent in duties:
            duty = transfers.find_duty(self._view, sent.record_key)
            if duty is None:
                continue
            if status in (400, 401, 404):
                self._duty_failed(duty, f"the partner answers {status} {reason}")
            else:
                wait_s = self._timing.ack_wait_s if status == 202 else self._timing.wait_s(duty.attempts)
                transfers.save_duty(self._view, msgspec.structs.replace(duty, due_s=self._now_s + wait_s))

    def _due_transfer(
        self,
        transfer: Transfer,
        keys: dict[tuple[KmeId, object], list[Transfer]],
        carried: list[KeyToCarry],
    ) -> None:
        if transfer.state not in PENDING:
            self._due_to_forget(transfer)
        elif self._now_s >= transfer.deadline_s or self._is_expired(transfer):
            self._give_up(transfer)
        elif transfer.downstream.side is Side.PARTNER:
            again = msgspec.structs.replace(
                transfer,
                attempts=transfer.attempts + 1,
                handed_on=True,
                due_s=self._now_s + self._timing.request_s_max,
            )
            transfers.save(self._view, again)
            keys[transfer.downstream.kme, (*transfer.association, transfer.optional)].append(again)
        elif transfer.state is State.WAITING:
            again = msgspec.structs.replace(
                transfer,
                attempts=transfer.attempts + 1,
                due_s=self._now_s + self._timing.request_s_max,
            )
            transfers.save(self._view, again)
            carried.append(KeyToCarry(transfer.key_id, self._priority(transfer)))

    def _priority(self, transfer: Transfer) -> int:
        partner = self._rules.partners.get(transfer.upstream.kme)
        return partner.terms.priority if partner is not None else 0

    def _is_expired(self, transfer: Transfer) -> bool:
        document = key_document(transfer.optional)
        return document is not None and 0 < document.expires_s <= self._now_s

    def _give_up(self, transfer: Transfer) -> None:
        """A key was on its way for too long: it is voided further on, and has failed for who sent it."""
        if transfer.handed_on:
            self._void_at(transfer.downstream, transfer)
        self._settle(transfer, State.FAILED, transfer.message or "the next network has not answered in time")

    def _due_to_forget(self, transfer: Transfer) -> None:
        """Forget a transfer that is over, unless somebody still has to hear of it."""
        busy = transfer.state is State.VOIDING or transfers.acks_of(self._view, transfer.key_id)
        if busy or any(
            transfers.duty_of(self._view, transfer.key_id, each)
            for each in (transfer.upstream, transfer.downstream)
        ):
            again_s = self._now_s + self._timing.retry_s_max
            transfers.save(self._view, msgspec.structs.replace(transfer, due_s=again_s))
        else:
            transfers.forget(self._view, transfer)

    def _due_ack(self, ack: Ack, acks: dict[tuple[KmeId, str], list[Ack]]) -> None:
        if self._now_s - ack.made_s > self._timing.ack_s_max:
            self._unheard(ack, "the acknowledgement was not taken in time", at_partner=True)
            return
        again = msgspec.structs.replace(
            ack, attempts=ack.attempts + 1, due_s=self._now_s + self._timing.request_s_max
        )
        transfers.save_ack(self._view, again)
        acks[ack.partner, ack.callback_url].append(again)

    def _unheard(self, ack: Ack, reason: str, *, at_partner: bool) -> None:
        """An acknowledgement cannot be brought home: its key is voided on both sides."""
        transfers.drop_ack(self._view, ack)
        transfer = transfers.find(self._view, ack.key.key_id)
        if transfer is None or ack.status in (AckStatus.VOIDED, AckStatus.NOT_PRESENT):
            return
        neighbour = Neighbour(Side.PARTNER, ack.partner)
        self.events.append(BorderTrouble(neighbour, f"key {transfer.key_id}: {reason}"))
        if at_partner:
            self._void_at(neighbour, transfer)
        if transfer.state is State.RELAYED and transfer.upstream == neighbour:
            if transfer.downstream != HERE:
                self._void_at(transfer.downstream, transfer)
                self._voided(transfer, ())
            elif border_stock.withdraw(self._view, transfer, self._now_s, at_origin=False):
                self._voided(transfer, ())

    def _due_void(self, duty: VoidDuty, voids: dict[tuple[KmeId, object], list[VoidDuty]]) -> None:
        if self._now_s - duty.since_s >= self._timing.void_s_max:
            self._duty_failed(duty, "nothing was heard in time")
            return
        again = msgspec.structs.replace(
            duty, attempts=duty.attempts + 1, due_s=self._now_s + self._timing.request_s_max
        )
        transfers.save_duty(self._view, again)
        if duty.neighbour.side is Side.PARTNER:
            voids[duty.neighbour.kme, (duty.initiator, duty.targets)].append(again)

    def _later(self, transfer: Transfer) -> None:
        wait_s = self._timing.wait_s(transfer.attempts)
        due_s = min(self._now_s + wait_s, transfer.deadline_s)
        transfers.save(self._view, msgspec.structs.replace(transfer, due_s=due_s))

    def _loads(self, partner: KmeId, found: Sequence[Transfer]) -> list[KeysToSend]:
        """Cut keys of one association into requests of a size that partners take."""
        loads: list[list[Transfer]] = [[]]
        length = 0
        for transfer in found:
            full = len(loads[-1]) == KEYS_PER_REQUEST_MAX
            if loads[-1] and (full or length + transfer.value_bytes > VALUES_PER_REQUEST_BYTES_MAX):
                loads.append([])
                length = 0
            loads[-1].append(transfer)
            length += transfer.value_bytes
        return [self._load(partner, each) for each in loads]

    def _load(self, partner: KmeId, found: Sequence[Transfer]) -> KeysToSend:
        values: list[SecretBytes] = []
        moved: list[Transfer] = []
        for transfer in found:
            value, copied = transfers.copied_value(self._view, transfer)
            transfers.save(self._view, copied)
            values.append(value)
            moved.append(copied)
        return KeysToSend(partner, tuple(moved), tuple(values))
