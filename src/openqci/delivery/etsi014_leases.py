"""Leases as a resource beside the methods of ETSI GS QKD 014, which has none: an extension of OpenQCI.

``.../keys/{slave}/openqci_leases`` grants a lease (:mod:`openqci.delivery.leases`) and lists those that the
caller holds with the slave; ``.../openqci_leases/{lease}`` shows one and gives it back. Keys of a lease are
drawn by *Get key* with the extension ``openqci_lease``. Functions inside one transaction, as in
:mod:`openqci.delivery.etsi014`.
"""

from collections.abc import Sequence

from openqci.core.errors import KeyUnavailable, RequestRefused
from openqci.core.identifiers import SaeId
from openqci.delivery import leases
from openqci.delivery.directory import PeerIdentity, SaeDirectory
from openqci.delivery.etsi014 import check_likeness, pair_of
from openqci.delivery.etsi014_model import LeaseDocument, LeaseList, LeaseRequest, Profile
from openqci.delivery.leases import KeysEndSooner, Lease, LeaseEnded
from openqci.delivery.pair_stock import KeyBatch, RestRule
from openqci.keystore.ports import KmeView


def grant_lease(
    view: KmeView,
    directory: SaeDirectory,
    peer: PeerIdentity | None,
    slave_sae: SaeId,
    request: LeaseRequest,
    lease_id: str,
    profile: Profile,
    now_s: float,
    rests: RestRule | None = None,
) -> LeaseDocument:
    """Keep keys for the calling master. ``lease_id`` is a UUID that nobody had before.

    Raises RequestRefused, or KeyUnavailable if the stock is short now.
    """
    wanted = request.keys
    master, slave = pair_of(view, directory, peer, slave_sae, wanted.additional)
    _check_number(leases.leases_of(view, master.sae_id, now_s), profile, now_s)
    lease = Lease(
        lease_id,
        master.sae_id,
        slave.sae_id,
        wanted.additional,
        wanted.size_bits // 8,
        wanted.number,
        now_s,
        now_s + request.ttl_s,
    )

    def will_do(batch: KeyBatch) -> bool:
        return wanted.demands.met_by(batch.provenance, batch.created_s, now_s)

    try:
        leases.grant(view, lease, will_do, rests)
    except KeysEndSooner as sooner:
        longest = int(sooner.life_s)
        raise RequestRefused(
            400, f"ttl_s shall be at most {longest}: keys of these SAEs keep no longer"
        ) from None
    except KeyUnavailable as shortage:
        check_likeness(view, master.sae_id, slave.sae_id, wanted, shortage)
        raise
    return lease_document(lease, lease.number)


def show_lease(
    view: KmeView,
    directory: SaeDirectory,
    peer: PeerIdentity | None,
    slave_sae: SaeId,
    lease_id: str,
    now_s: float,
) -> LeaseDocument:
    """Return a lease of the calling master; 404 if it holds none of that ID with the slave."""
    lease = _held(view, directory, peer, slave_sae, lease_id, now_s)
    return lease_document(lease, leases.keys_left(view, lease))


def list_leases(
    view: KmeView, directory: SaeDirectory, peer: PeerIdentity | None, slave_sae: SaeId, now_s: float
) -> LeaseList:
    """Return the leases of the calling master with a slave."""
    master, slave = pair_of(view, directory, peer, slave_sae, ())
    held = leases.leases_of(view, master.sae_id, now_s)
    return LeaseList(
        tuple(
            lease_document(lease, leases.keys_left(view, lease))
            for lease in held
            if lease.slave_sae == slave.sae_id
        )
    )


def release_lease(
    view: KmeView,
    directory: SaeDirectory,
    peer: PeerIdentity | None,
    slave_sae: SaeId,
    lease_id: str,
    now_s: float,
) -> LeaseEnded:
    """Put back what is left of a lease of the calling master; 404 if it holds none of that ID."""
    return leases.release(view, _held(view, directory, peer, slave_sae, lease_id, now_s))


def lease_document(lease: Lease, keys_left: int) -> LeaseDocument:
    """Return a lease as its holder sees it."""
    return LeaseDocument(
        lease.lease_id,
        lease.slave_sae,
        lease.additional_slaves,
        8 * lease.key_bytes,
        lease.number,
        keys_left,
        round(lease.ends_s, 3),
    )


def _check_number(held: Sequence[Lease], profile: Profile, now_s: float) -> None:
    """Refuse one lease more than an application may hold."""
    if len(held) >= profile.leases_per_sae_max:
        first_ends_s = min(lease.ends_s for lease in held)
        raise RequestRefused(
            503,
            f"the caller holds {len(held)} leases, as many as it may",
            headers={"Retry-After": str(max(1, round(first_ends_s - now_s + 0.5)))},
        )


def _held(
    view: KmeView,
    directory: SaeDirectory,
    peer: PeerIdentity | None,
    slave_sae: SaeId,
    lease_id: str,
    now_s: float,
) -> Lease:
    master, slave = pair_of(view, directory, peer, slave_sae, ())
    lease = leases.lease_of(view, master.sae_id, lease_id, now_s)
    if lease is None or lease.slave_sae != slave.sae_id:
        raise RequestRefused(404, "the caller holds no such lease")
    return lease
