"""The rate of a link and its detections, for every protocol: the one door for planners and physicists."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.links.protocols.case import (
    MEASURED,
    Arrays,
    LinkCase,
    LinkProtocol,
    LinkRate,
    Yield,
    link_rate_of,
)
from openqci.links.protocols.registry import protocol

DETECTIONS_MAX = 10**8
"""Of one drawing; they take some 2 GB."""


def link_rate(case: LinkCase) -> LinkRate:
    """Return what a link yields: gain, QBER, key per pulse, per second and per block, and why none.

    Parameters
    ----------
    case : LinkCase
        Its profile, loss, protocol, proof and block. With the proof ``measured`` the rate is that of the
        profile's measured curve instead of a model.

    Raises
    ------
    ConfigurationError
        Unknown protocol, a proof that is not for it, or a profile without the receiver that it needs.
    OutsideModel
        A figure outside the range in which the model holds.

    Examples
    --------
    >>> from openqci.links import LinkCase, link_rate, profile
    >>> found = link_rate(LinkCase(profile("dv-metro"), loss_db=10.0))
    >>> found.proof, 0.015 < found.qber < 0.025, found.secret_key_rate_bps > 50e3
    ('rusca-2018', True, True)
    """
    if proof_name(case) == MEASURED:
        return link_rate_of(case, measured_yield(case))
    chosen = protocol(case.protocol_id)
    return link_rate_of(case, chosen.rate(case, proof_id_of(chosen, proof_name(case))))


def sweep(case: LinkCase, losses_db: Iterable[float], lengths_km: Iterable[float | None]) -> list[LinkRate]:
    """Return the rates of one case over losses, with the length that belongs to each."""
    return [
        link_rate(replace(case, loss_db=loss_db, length_km=length_km))
        for loss_db, length_km in zip(losses_db, lengths_km, strict=True)
    ]


def link_detections(case: LinkCase, detections: int, seed: int) -> Arrays:
    """Draw detections of a link; equal cases and seeds give equal arrays.

    Returns
    -------
    dict of ndarray
        By name; the first axis of each has length ``detections``. Names and meaning are documented in
        ``docs/reference/detections.md``.

    Raises
    ------
    OutsideModel
        For a number of detections below 1 or above 1e8, or a negative seed.
    """
    if not 1 <= detections <= DETECTIONS_MAX:
        raise OutsideModel("detections", detections, f"1 to {DETECTIONS_MAX}")
    if seed < 0:
        raise OutsideModel("seed", seed, "zero or more")
    return protocol(case.protocol_id).draw(case, detections, np.random.Generator(np.random.SFC64(seed)))


def proof_name(case: LinkCase) -> str:
    """Return the proof asked for; a profile known by measurement alone answers with its curve."""
    if case.proof:
        return case.proof
    profile = case.profile
    if profile.photon_receiver is None and profile.coherent_receiver is None:
        return MEASURED
    return profile.proof if case.protocol_id == profile.protocol else ""


def proof_id_of(chosen: LinkProtocol, name: str) -> str:
    """Return the id of a proof by its id or its short name; empty for the protocol's first."""
    proof_id = chosen.short_names.get(name, name) or chosen.proof_ids[0]
    if proof_id not in chosen.proof_ids:
        known = ", ".join([*chosen.proof_ids, MEASURED])
        raise ConfigurationError(
            f"no proof {name!r} for protocol {chosen.protocol_id}; expected one of {known}"
        )
    return proof_id


def measured_yield(case: LinkCase) -> Yield:
    """Return what was measured on a link of this loss."""
    profile, curve = case.profile, case.profile.measured
    if curve is None:
        raise ConfigurationError(
            f"profile {profile.profile_id} has no measured curve; expected another proof, "
            "or a profile with one, such as field-buried-2026"
        )
    if case.protocol_id != profile.protocol:
        raise ConfigurationError(
            f"profile {profile.profile_id} was measured with {profile.protocol}, not with {case.protocol_id}"
        )
    rate_bps = curve.secret_key_rate_bps(case.loss_db)
    return Yield(
        proof_id=MEASURED,
        reference=curve.source,
        gain=None,
        qber=curve.qber(case.loss_db),
        sifted_rate_hz=None,
        pulse_rate_hz=profile.clock_rate_hz,
        secret_key_rate_per_pulse=rate_bps / profile.clock_rate_hz,
        zero_because=f"nothing was measured above {curve.points[-1].loss_db:g} dB",
    )
