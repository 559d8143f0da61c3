"""Attacks on links as transformers of what the honest parties see.

Two families: attacks on decoy-state BB84 (``bb84``) take a :class:`~openqci.quantum.QuantumLink`, those on
CV links (``gg02``) a :class:`~openqci.quantum.gg02.GaussianLink`. None is modelled on BBM92, MDI or twin
field. Each attack changes the statistics of a link (in closed form, and as drawn detections), and its outcome
says which observable moves, whether a monitor trips, what key a proof would still give from what is seen, and
what is truly secret. ``outcome(link, defended=False)`` shows the same without the answer to that attack.

>>> from openqci.quantum import DecoySource, FibreChannel, QuantumLink, Receiver
>>> source = DecoySource(1e9, (0.5, 0.15), (0.7, 0.3), z_basis_probability=0.8)
>>> receiver = Receiver(3.0, 0.2, 1e-6, 1e-8, misalignment_error=0.01, z_basis_probability=0.8)
>>> link = QuantumLink(source, FibreChannel.of_length(50.0), receiver)
>>> attack("detector-blinding").outcome(link).verdict
'detected'
>>> attack("detector-blinding").outcome(link, defended=False).verdict
'undetected-insecure'

>>> attack_family("cv-calibration"), attack_ids("gg02")[:2]
('gg02', ('cv-intercept-resend', 'cv-beam-splitting'))

What it is not: a security proof. ``key_safe_per_pulse`` is an upper bound under this one attack; a link on
which every attack here is harmless may fall to the next. Attacks are not combined. Formulas are of single
detections; attacks on the classical channel are in ``docs/attacks.md``.

Read :mod:`~openqci.links.attacks.statistics` first, then ``assessment``, ``monitors`` and the families
``interception``, ``photon_number``, ``source``, ``detectors``; for quadratures ``continuous``.
"""

from openqci.core.errors import ConfigurationError
from openqci.links.attacks.assessment import STANDARD_BLOCK, Attack, Block, observed_in_records
from openqci.links.attacks.continuous import (
    ATTACKS,
    STANDARD_QUADRATURES,
    ContinuousAttack,
    QuadratureBlock,
    SaturationAttack,
)
from openqci.links.attacks.detectors import (
    Afterpulsing,
    Backflash,
    DetectorBlinding,
    FakedStates,
    IndividualDeadTime,
    TimeShift,
)
from openqci.links.attacks.interception import DenialOfService, DoubleClick, InterceptResend
from openqci.links.attacks.model import BB84, GG02, AttackOutcome, Observable, made, verdict
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
from openqci.quantum.gg02 import GaussianLink

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

FAMILIES = (BB84, GG02)

ACTIVE_ONLY = frozenset({"double-click", "detector-blinding", "faked-states"})
"""Attacks that are modelled for a receiver with an active choice of basis only."""


def attack(attack_id: str, **parameters: float) -> Attack | ContinuousAttack:
    """Return the attack of this id, with its default parameters but for those given.

    Raises
    ------
    ConfigurationError
        For an unknown id or parameter; names those that there are.
    OutsideModel
        For a parameter outside its range.
    """
    every: dict[str, type[Attack] | type[ContinuousAttack]] = {**_ATTACKS, **ATTACKS}
    return made(every, attack_id, parameters)


def attack_ids(family: str | None = None) -> tuple[str, ...]:
    """Return the ids of all attacks, or of those on one family of protocols (``bb84`` or ``gg02``)."""
    if family not in (None, *FAMILIES):
        raise ConfigurationError(f"unknown family {family!r}; expected one of {', '.join(FAMILIES)}")
    return tuple(each for each in (*_ATTACKS, *ATTACKS) if family in (None, attack_family(each)))


def attack_family(attack_id: str) -> str:
    """Return the family of protocols that an attack is modelled on: ``bb84`` or ``gg02``."""
    return attack(attack_id).family


def descriptions() -> dict[str, str]:
    """Return one line about each attack, by id."""
    return {attack_id: attack(attack_id).description for attack_id in attack_ids()}


def all_outcomes(
    link: QuantumLink | GaussianLink, block: Block | QuadratureBlock | None = None, *, defended: bool = True
) -> tuple[AttackOutcome, ...]:
    """Return the outcome of every attack on links of this kind, with its default parameters.

    Left out are attacks that are not modelled for this receiver: behind a passive choice of basis
    ``double-click``, ``detector-blinding`` and ``faked-states``; ``cv-saturation`` where the detector has no
    end of its range.

    Parameters
    ----------
    link : QuantumLink or GaussianLink
    block : Block or QuadratureBlock, optional
        Of the link's kind; a standard one when not given.
    defended : bool

    Raises
    ------
    ConfigurationError
        For a block of the other kind.
    """
    if isinstance(link, GaussianLink):
        return _outcomes_on_quadratures(link, block, defended)
    if block is None:
        block = STANDARD_BLOCK
    if not isinstance(block, Block):
        raise ConfigurationError(f"expected a Block for a QuantumLink, not a {type(block).__name__}")
    passive = link.receiver.basis_choice == "passive"
    return tuple(
        kind().outcome(link, block, defended=defended)
        for attack_id, kind in _ATTACKS.items()
        if not (passive and attack_id in ACTIVE_ONLY)
    )


def _outcomes_on_quadratures(
    link: GaussianLink, block: Block | QuadratureBlock | None, defended: bool
) -> tuple[AttackOutcome, ...]:
    if block is None:
        block = STANDARD_QUADRATURES
    if not isinstance(block, QuadratureBlock):
        raise ConfigurationError(
            f"expected a QuadratureBlock for a GaussianLink, not a {type(block).__name__}"
        )
    endless = link.detector.linear_range_snu is None
    return tuple(
        kind().outcome(link, block, defended=defended)
        for kind in ATTACKS.values()
        if not (endless and kind is SaturationAttack)
    )


__all__ = [
    "STANDARD_BLOCK",
    "STANDARD_QUADRATURES",
    "Attack",
    "AttackOutcome",
    "Block",
    "ContinuousAttack",
    "LinkStatistics",
    "Observable",
    "QuadratureBlock",
    "Watch",
    "all_outcomes",
    "attack",
    "attack_family",
    "attack_ids",
    "descriptions",
    "honest_statistics",
    "observed_in_records",
    "verdict",
]
