"""The rate of a link and its detections, for every protocol: the one door for planners and physicists."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from openqci.core.errors import ConfigurationError, OutsideModel
from openqci.links.protocols.case import (
    ASYMPTOTIC,
    MEASURED,
    Arrays,
    LinkCase,
    LinkProtocol,
    LinkRate,
    Yield,
    link_rate_of,
)
from openqci.links.protocols.decoy_bb84 import DecoyBB84
from openqci.links.protocols.registry import protocol, protocol_ids
from openqci.quantum.link import QuantumLink

DETECTIONS_MAX = 10**8
"""Of one drawing of BB84; they take some 2 GB."""

DETECTIONS_MAX_OTHERS = 2 * 10**7
"""Of one drawing of other protocols, which takes up to five times the memory for each."""


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
        Unknown protocol, a proof that is not for it, a profile without the receiver that it needs, or a field
        that this protocol or proof would ignore, such as the block of an asymptotic rate.
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
    refuse_what_is_for_quadratures(case)
    proof_id = proof_id_of(chosen, proof_name(case))
    if ASYMPTOTIC in proof_id:
        refuse(case, ("block_sifted_bits", "duration_s"), f"proof {proof_id} is for a block without end")
    return link_rate_of(case, chosen.rate(case, proof_id))


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
        By name, at the settings under which :func:`link_rate` judges the case; the first axis of each has
        length ``detections``. Names and meaning are documented in ``docs/reference/detections.md``.

    Raises
    ------
    OutsideModel
        For a number of detections below 1 or above 1e8 (2e7 where the protocol is not BB84, less where a
        coincidence takes many clicks), or a negative seed.
    """
    chosen = protocol(case.protocol_id)
    most = DETECTIONS_MAX if chosen.protocol_id.startswith("bb84") else DETECTIONS_MAX_OTHERS
    if not 1 <= detections <= most:
        raise OutsideModel("detections", detections, f"1 to {most} of {chosen.protocol_id}")
    if seed < 0:
        raise OutsideModel("seed", seed, "zero or more")
    refuse_what_is_for_quadratures(case)
    if case.optimise:
        case = replace(case, proof=proof_id_of(chosen, proof_name(case)))
    return chosen.draw(case, detections, np.random.Generator(np.random.SFC64(seed)))


def decoy_link(case: LinkCase) -> QuantumLink:
    """Return source, fibre and receiver of a BB84 case, at the settings under which its rate is judged.

    Raises
    ------
    ConfigurationError
        For another protocol than decoy-state BB84.
    """
    chosen = protocol(case.protocol_id)
    if not isinstance(chosen, DecoyBB84):
        known = ", ".join(each for each in protocol_ids() if isinstance(protocol(each), DecoyBB84))
        raise ConfigurationError(f"protocol {case.protocol_id}: expected one of {known}")
    refuse_what_is_for_quadratures(case)
    return chosen.quantum_link(case, chosen.pulses(case, proof_id_of(chosen, proof_name(case))))


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
            f"no proof {name!r} for protocol {chosen.protocol_id}; expected one of {known}{elsewhere(name)}"
        )
    return proof_id


def elsewhere(name: str) -> str:
    """Return which protocols have a proof of this name, to end a message with; nothing if none has."""
    others = [
        each
        for each in protocol_ids()
        if name in protocol(each).proof_ids or name in protocol(each).short_names
    ]
    return f" ({name} is for {', '.join(others)})" if others else ""


def refuse_what_is_for_quadratures(case: LinkCase) -> None:
    """Refuse a word about a coherent detector where photons are counted."""
    if not case.protocol_id.startswith("gg02"):
        refuse(case, ("detector_trust",), f"protocol {case.protocol_id} counts photons")


def refuse(case: LinkCase, names: Iterable[str], why: str) -> None:
    """Raise ConfigurationError for the first of these fields that was set: it would be ignored."""
    for name in names:
        if case.asked[name]:
            raise ConfigurationError(f"{name}: {why}; expected no such setting")


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
    refuse(case, case.asked, "a measured rate is what it was")
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
