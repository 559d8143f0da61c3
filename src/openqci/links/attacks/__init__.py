"""Attacks on discrete-variable links as transformers of what the honest parties see.

Each attack changes the statistics of a link (in closed form, and as drawn detections), and its outcome says
which observable moves, whether a monitor trips, what key a proof would still give from what is seen, and
what is truly secret. ``outcome(link, defended=False)`` shows the same without the answer to that attack.

>>> from openqci.quantum import DecoySource, FibreChannel, QuantumLink, Receiver
>>> source = DecoySource(1e9, (0.5, 0.15), (0.7, 0.3), z_basis_probability=0.8)
>>> receiver = Receiver(3.0, 0.2, 1e-6, 1e-8, misalignment_error=0.01, z_basis_probability=0.8)
>>> link = QuantumLink(source, FibreChannel.of_length(50.0), receiver)
>>> attack("detector-blinding").outcome(link).verdict
'detected'
>>> attack("detector-blinding").outcome(link, defended=False).verdict
'undetected-insecure'

What it is not: a security proof. ``key_safe_per_pulse`` is an upper bound under this one attack; a link on
which every attack here is harmless may fall to the next. Attacks are not combined. Formulas are of single
detections; attacks on the classical channel are in ``docs/attacks.md``.

Read :mod:`~openqci.links.attacks.statistics` first, then ``assessment``, ``monitors`` and the families
``interception``, ``photon_number``, ``source``, ``detectors``.
"""

from dataclasses import fields

from openqci.core.errors import ConfigurationError
from openqci.links.attacks.assessment import STANDARD_BLOCK, Attack, Block, observed_in_records
from openqci.links.attacks.detectors import (
    Afterpulsing,
    Backflash,
    DetectorBlinding,
    FakedStates,
    IndividualDeadTime,
    TimeShift,
)
from openqci.links.attacks.interception import DenialOfService, DoubleClick, InterceptResend
from openqci.links.attacks.model import AttackOutcome, Observable, verdict
from openqci.links.attacks.monitors import Watch
from openqci.links.attacks.photon_number import BeamSplitting, PhotonNumberSplitting, SplittingWithoutDecoys
from openqci.links.attacks.source import (
    DecoyDistinguishability,
    IntensityFluctuation,
    LaserSeeding,
    TrojanHorse,
)
from openqci.links.attacks.statistics import LinkStatistics, honest_statistics
from openqci.quantum import QuantumLink

_ATTACKS: dict[str, type[Attack]] = {
    each.attack_id: each
    for each in (
        InterceptResend,
        DoubleClick,
        PhotonNumberSplitting,
        SplittingWithoutDecoys,
        BeamSplitting,
        TrojanHorse,
        LaserSeeding,
        DecoyDistinguishability,
        IntensityFluctuation,
        DetectorBlinding,
        TimeShift,
        FakedStates,
        Backflash,
        IndividualDeadTime,
        Afterpulsing,
        DenialOfService,
    )
}

ACTIVE_ONLY = frozenset({"double-click", "detector-blinding", "faked-states"})
"""Attacks that are modelled for a receiver with an active choice of basis only."""


def attack(attack_id: str, **parameters: float) -> Attack:
    """Return the attack of this id, with its default parameters but for those given.

    Raises
    ------
    ConfigurationError
        For an unknown id or parameter; names those that there are.
    OutsideModel
        For a parameter outside its range.
    """
    if attack_id not in _ATTACKS:
        raise ConfigurationError(f"unknown attack {attack_id!r}; expected one of {', '.join(_ATTACKS)}")
    kind = _ATTACKS[attack_id]
    known = [each.name for each in fields(kind)]
    for name in parameters:
        if name not in known:
            raise ConfigurationError(
                f"attack {attack_id!r} has no parameter {name!r}; expected one of {', '.join(known)}"
            )
    return kind(**parameters)


def attack_ids() -> tuple[str, ...]:
    """Return the ids of all attacks on discrete-variable links."""
    return tuple(_ATTACKS)


def descriptions() -> dict[str, str]:
    """Return one line about each attack, by id."""
    return {attack_id: kind.description for attack_id, kind in _ATTACKS.items()}


def all_outcomes(
    link: QuantumLink, block: Block = STANDARD_BLOCK, *, defended: bool = True
) -> tuple[AttackOutcome, ...]:
    """Return the outcome of every attack, with its default parameters, on one link.

    Behind a passive choice of basis, attacks that are modelled for an active one only (``double-click``,
    ``detector-blinding``, ``faked-states``) are left out.
    """
    passive = link.receiver.basis_choice == "passive"
    return tuple(
        attack(attack_id).outcome(link, block, defended=defended)
        for attack_id in _ATTACKS
        if not (passive and attack_id in ACTIVE_ONLY)
    )


__all__ = [
    "STANDARD_BLOCK",
    "Attack",
    "AttackOutcome",
    "Block",
    "LinkStatistics",
    "Observable",
    "Watch",
    "all_outcomes",
    "attack",
    "attack_ids",
    "descriptions",
    "honest_statistics",
    "observed_in_records",
    "verdict",
]
