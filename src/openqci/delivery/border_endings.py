"""How a key's way over a border ends: relayed, failed or voided, and who is told.

The part of :class:`openqci.delivery.etsi020.Border` that brings transfers to their end. Each end is reached
in the transaction that learns of it: what is left of the value here is destroyed, the account is written, and
the neighbour upstream is told, or waits to be told (:class:`~openqci.delivery.transfers.Ack`).
"""

from collections.abc import Iterable, Sequence

import msgspec

from openqci.core.errors import PeerMisbehaved
from openqci.core.identifiers import KeyId, KmeId, SaeId
from openqci.delivery import border_account, border_stock, transfers
from openqci.delivery.etsi020_model import AckContainer, AckKey, AckStatus, VoidContainer
from openqci.delivery.etsi020_rules import (
    Accounted,
    BorderEvent,
    BorderTrouble,
    Outcome,
    Rules,
    Told,
    TransferSettled,
    VoidOrder,
)
from openqci.delivery.transfers import (
    HERE,
    PENDING,
    Ack,
    Neighbour,
    Report,
    Side,
    State,
    Transfer,
    VoidDuty,
)
from openqci.keystore.ports import KmeView

MESSAGE_MAX = 300
"""Characters of a reason that are kept."""

STATUS_OF = {
    State.RELAYED: AckStatus.RELAYED,
    State.FAILED: AckStatus.FAILED,
    State.VOIDED: AckStatus.VOIDED,
}


class BorderEndings:
    """What a KME knows in one transaction, and how it brings transfers to their end."""

    def __init__(self, view: KmeView, rules: Rules, now_s: float) -> None:
        self.events: list[BorderEvent] = []
        self._view, self._rules, self._now_s, self._timing = view, rules, now_s, rules.timing

    def _heard(self, neighbour: Neighbour, key: AckKey, container: AckContainer) -> bool:
        """Act on what a neighbour says of a key; tell whether it is one that we have to do with there."""
        transfer = self._of_neighbour(neighbour, key.key_id, container.initiator, container.targets)
        if transfer is None:
            return False
        duty = transfers.duty_of(self._view, key.key_id, neighbour)
        status, message = container.status, container.message[:MESSAGE_MAX]
        if duty is not None:
            if status in (AckStatus.VOIDED, AckStatus.NOT_PRESENT, AckStatus.FAILED):
                self._duty_done(duty)
            elif status is AckStatus.FAILED_TO_VOID:
                self._duty_failed(duty, message or "the key has been delivered there")
        elif transfer.downstream == neighbour and transfer.state in PENDING:
            heard = msgspec.structs.replace(
                transfer, ack_key=key.extension, ack_extension=container.extension
            )
            if status is AckStatus.RELAYED:
                self._relayed(heard)
            elif status is not AckStatus.FAILED_TO_VOID:
                self._settle(msgspec.structs.replace(heard, handed_on=False), State.FAILED, message or status)
        return True

    def _relayed(self, transfer: Transfer) -> None:
        """The last KME has the key: release it, if it began here, and say so upstream."""
        if transfer.upstream != HERE:
            self._settle(transfer, State.RELAYED)
            return
        value, taken = transfers.taken_value(self._view, transfer)
        try:
            with value:
                released = border_stock.release_at_origin(
                    self._view, taken, value, self._rules.domain, self._now_s, self._timing
                )
        except PeerMisbehaved as error:
            self.events.append(BorderTrouble(taken.downstream, str(error), forged=True))
            self._void_at(taken.downstream, taken)
            self._settle(taken, State.FAILED, str(error))
        else:
            self.events.append(released)
            self._settle(taken, State.RELAYED)

    def _settle(self, transfer: Transfer, state: State, message: str = "") -> None:
        """Bring a transfer to its end: destroy what is left of the value here, account, answer upstream."""
        ended = msgspec.structs.replace(
            transfers.without_value(self._view, transfer),
            state=state,
            message=message[:MESSAGE_MAX],
            due_s=self._now_s + self._timing.retention_s,
        )
        transfers.save(self._view, ended)
        self._account(ended)
        self.events.append(TransferSettled(ended))
        self._answer(ended)

    def _answer(self, transfer: Transfer) -> None:
        """Tell the neighbour upstream how a key's way has ended."""
        status, upstream = STATUS_OF[transfer.state], transfer.upstream
        if upstream.side is Side.KME:
            self._tell(
                upstream.kme,
                Outcome(transfer.key_id, status, transfer.message, transfer.ack_key, self._echo(transfer)),
            )
        elif upstream.side is Side.PARTNER and transfer.callback_url:
            self._post_ack(transfer, status, upstream.kme, transfer.callback_url)

    def _echo(self, transfer: Transfer) -> bytes:
        """Return what goes back beside an acknowledgement: what came back, else what came with the key."""
        return transfer.ack_extension or transfer.optional

    def _post_ack(self, transfer: Transfer, status: AckStatus, partner: KmeId, callback_url: str) -> None:
        transfers.post_ack(
            self._view,
            Ack(
                0,
                partner,
                callback_url,
                AckKey(transfer.key_id, transfer.ack_key or transfer.extension),
                status,
                transfer.initiator,
                transfer.targets,
                self._now_s,
                self._now_s,
                transfer.message,
                self._echo(transfer),
            ),
        )

    def _account(self, transfer: Transfer) -> None:
        """Write down what a transfer was between us and the partners on either side."""
        for neighbour, direction in ((transfer.upstream, "in"), (transfer.downstream, "out")):
            partner = self._rules.partners.get(neighbour.kme)
            if neighbour.side is not Side.PARTNER or partner is None:
                continue
            entry = border_account.enter(
                self._view,
                at_s=self._now_s,
                partner=partner.kme,
                domain=partner.domain,
                direction="in" if direction == "in" else "out",
                key_id=transfer.key_id,
                initiator=transfer.initiator,
                targets=transfer.targets,
                key_bytes=transfer.value_bytes,
                outcome=transfer.state.value,
                agreement=partner.terms.name,
            )
            self.events.append(Accounted(entry))

    # Voids

    def _meant(self, neighbour: Neighbour, container: VoidContainer) -> Iterable[KeyId]:
        if container.key_ids:
            return container.key_ids
        found = transfers.of_association(self._view, container.initiator, container.targets)
        return [each.key_id for each in found if neighbour in (each.upstream, each.downstream)]

    def _of_neighbour(
        self, neighbour: Neighbour, key_id: KeyId, initiator: SaeId, targets: Sequence[SaeId]
    ) -> Transfer | None:
        """Return a transfer that a neighbour has to do with, if it names the right applications.

        A partner that runs a draft acknowledges each target by itself.
        """
        transfer = transfers.find(self._view, key_id)
        if transfer is None or neighbour not in (transfer.upstream, transfer.downstream):
            return None
        partner = self._rules.partners.get(neighbour.kme)
        if partner is not None and partner.draft and set(targets) <= set(transfer.targets):
            targets = transfer.targets
        same = transfer.association == (initiator, tuple(sorted(targets)))
        return transfer if same else None

    def _void_from(self, neighbour: Neighbour, transfer: Transfer, report: Report) -> None:
        """Void a key at a neighbour's word, here and at the neighbour on the other side."""
        if transfer.state is State.VOIDING:
            reports = (*(each for each in transfer.reports if each.neighbour != neighbour), report)
            transfers.save(self._view, msgspec.structs.replace(transfer, reports=reports))
            return
        from_upstream = neighbour == transfer.upstream
        other = transfer.downstream if from_upstream else transfer.upstream
        if transfer.state in (State.FAILED, State.VOIDED):
            self._reported(transfer, report, AckStatus.VOIDED)
        elif transfer.state in PENDING and not from_upstream:
            self._settle(
                msgspec.structs.replace(transfer, handed_on=False), State.FAILED, "voided further on"
            )
            self._reported(transfer, report, AckStatus.VOIDED)
        elif transfer.state in PENDING and not transfer.handed_on:
            self._voided(transfer, (report,))
        elif other == HERE:
            if border_stock.withdraw(self._view, transfer, self._now_s, at_origin=not from_upstream):
                self._voided(transfer, (report,))
            else:
                self._reported(transfer, report, AckStatus.FAILED_TO_VOID)
        else:
            self._drop_acks(transfer)
            waiting = msgspec.structs.replace(
                transfer, state=State.VOIDING, reports=(report,), due_s=self._now_s + self._timing.void_s_max
            )
            transfers.save(self._view, waiting)
            self._void_at(other, waiting)

    def _voided(self, transfer: Transfer, reports: Sequence[Report]) -> None:
        """A key is void here and beyond: nothing of it is left."""
        self._drop_acks(transfer)
        ended = msgspec.structs.replace(
            transfers.without_value(self._view, transfer),
            state=State.VOIDED,
            message="",
            reports=(),
            due_s=self._now_s + self._timing.retention_s,
        )
        transfers.save(self._view, ended)
        self._account(ended)
        self.events.append(TransferSettled(ended))
        for report in reports:
            self._reported(ended, report, AckStatus.VOIDED)

    def _drop_acks(self, transfer: Transfer) -> None:
        """What waited to be said of a key is no longer so."""
        for ack in transfers.acks_of(self._view, transfer.key_id):
            transfers.drop_ack(self._view, ack)

    def _void_at(self, neighbour: Neighbour, transfer: Transfer) -> None:
        """Have a neighbour void a key, too."""
        late_s = self._now_s + self._timing.void_s_max
        duty = VoidDuty(
            transfer.key_id,
            neighbour,
            transfer.initiator,
            transfer.targets,
            self._now_s,
            self._now_s if neighbour.side is Side.PARTNER else late_s,
        )
        transfers.save_duty(self._view, duty)
        if neighbour.side is Side.KME:
            self._tell(neighbour.kme, VoidOrder(transfer.key_id))

    def _duty_done(self, duty: VoidDuty) -> None:
        """A neighbour has voided a key, or had none."""
        transfers.drop_duty(self._view, duty)
        transfer = transfers.find(self._view, duty.key_id)
        if transfer is not None and transfer.state is State.VOIDING:
            self._voided(transfer, transfer.reports)

    def _duty_failed(self, duty: VoidDuty, reason: str) -> None:
        """A neighbour cannot void a key: it was delivered there, or nothing is heard."""
        transfers.drop_duty(self._view, duty)
        text = f"key {duty.key_id} could not be voided: {reason}"
        self.events.append(BorderTrouble(duty.neighbour, text))
        transfer = transfers.find(self._view, duty.key_id)
        if transfer is None or transfer.state is not State.VOIDING:
            return
        back = msgspec.structs.replace(
            transfers.without_value(self._view, transfer),
            state=State.RELAYED,
            reports=(),
            message=reason[:MESSAGE_MAX],
            due_s=self._now_s + self._timing.retention_s,
        )
        transfers.save(self._view, back)
        self.events.append(TransferSettled(back))
        for report in transfer.reports:
            self._reported(back, report, AckStatus.FAILED_TO_VOID)

    def _reported(self, transfer: Transfer, report: Report, status: AckStatus) -> None:
        self._report(report, transfer.key_id, transfer.initiator, transfer.targets, status)

    def _report(
        self,
        report: Report,
        key_id: KeyId,
        initiator: SaeId,
        targets: tuple[SaeId, ...],
        status: AckStatus,
    ) -> None:
        """Tell a neighbour how a void has ended. A synchronous request finds it out by itself."""
        if report.neighbour.side is Side.KME:
            self._tell(report.neighbour.kme, Outcome(key_id, status))
        elif report.callback_url:
            ack = Ack(
                0,
                report.neighbour.kme,
                report.callback_url,
                AckKey(key_id),
                status,
                initiator,
                targets,
                self._now_s,
                self._now_s,
            )
            transfers.post_ack(self._view, ack)

    def _tell(self, kme: KmeId, told: Told) -> None:
        carrier = self._rules.carrier
        if carrier is not None:
            carrier.tell(self._view, kme, told)
